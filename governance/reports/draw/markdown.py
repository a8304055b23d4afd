"""Blocks as Markdown; no text in them is read as markup."""

import html
import re

from governance.reports import formats
from governance.reports.blocks import Block, Bullets, Cell, Facts, Heading, Line, Table, Text

_SPECIAL = re.compile(r"([\\`*_\[\]|~!#])")
_STARTS_A_LIST = re.compile(r"^(\s*)([-+=]|\d+[.)])(\s|$)")
_LONG_TEXT_CHARACTERS = 12_000


def markdown_text(text: str) -> str:
    """Escape a text for use inside a line."""
    cleaned = html.escape(formats.clean(text, _LONG_TEXT_CHARACTERS), quote=False)
    return _SPECIAL.sub(r"\\\1", cleaned)


def markdown_paragraph(text: str) -> str:
    """Escape a text for the start of a line, where it could begin a list or a heading."""
    return _STARTS_A_LIST.sub(r"\1\\\2\3", markdown_text(text))


def markdown_block(block: Block) -> str:
    """Write a block as Markdown; charts and pictures are left out ("")."""
    if isinstance(block, Text):
        return markdown_paragraph(block.text)
    if isinstance(block, Heading):
        return f"**{markdown_text(block.text)}**"
    if isinstance(block, Bullets):
        return "\n".join(f"- {markdown_paragraph(item)}" for item in block.items)
    if isinstance(block, Facts):
        rows = tuple((Line(name),) for name, _ in block.rows)
        values = tuple(value for _, value in block.rows)
        return _table(("", ""), ("left", "left"), tuple(zip(rows, values, strict=True)))
    if isinstance(block, Table):
        titles = tuple(column.title for column in block.columns)
        table = _table(titles, tuple(column.align for column in block.columns), block.rows)
        parts = [table] if block.rows else []
        return "\n\n".join([*parts, markdown_paragraph(block.note)] if block.note else parts)
    return ""


def _table(
    titles: tuple[str, ...], aligns: tuple[str, ...], rows: tuple[tuple[Cell, ...], ...]
) -> str:
    head = " | ".join(markdown_text(title) for title in titles)
    rule = " | ".join("---:" if align == "right" else "---" for align in aligns)
    body = [" | ".join(_cell(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in (head, rule, *body))


def _cell(cell: Cell) -> str:
    return "<br>".join(markdown_text(line_text(line)) for line in cell)


def line_text(line: Line) -> str:
    """Return a line as plain text; a status keeps its mark."""
    return f"{line.mark} {line.text}" if line.style == "mark" else line.text
