"""Draw the audit report as a PDF file."""

from collections.abc import Iterable
from io import BytesIO
from itertools import pairwise, zip_longest
from typing import Any

from reportlab.lib.units import mm
from reportlab.platypus import (
    CondPageBreak,
    Image,
    KeepTogether,
    PageBreak,
    Paragraph,
    Spacer,
    TableStyle,
)
from reportlab.platypus import Table as PdfTable
from reportlab.platypus.flowables import Flowable

from governance.reports.blocks import (
    Block,
    Boxes,
    Bullets,
    Cell,
    Facts,
    Gallery,
    Heading,
    Histogram,
    Line,
    Picture,
    RangeBars,
    Report,
    Section,
    SmallChart,
    Table,
    Text,
    Tile,
    Tone,
    Verdict,
)
from governance.reports.draw.charts import chart_drawing
from governance.reports.draw.pdf_layout import (
    ACCENT,
    ANNEX,
    RULE,
    TONES,
    WIDTH,
    Bookmark,
    ReportDocument,
    contents,
    height_of,
    paragraph,
    register_fonts,
    room_to_start,
    tallest_row,
)

_GAP = 4 * mm
_HEADING_ROOM = 10  # points: the space between a sentence and the block it stays with
_MOST_WAITING = 6
_HALF = (WIDTH - _GAP) / 2
_PICTURE_HEIGHT, _TILE_HEIGHT = 150 * mm, 70 * mm
_FACT_NAME_SHARE = 0.27
_STRIP_NAME_WIDTH = 84.0
_CONTENTS_LINE = 10.8
_ABOVE_SECTION, _RULE_ROOM, _BELOW_TITLE = 9 * mm, 12, 2 * mm
_TALLEST_ROW = 200 * mm


def pdf_file(report: Report) -> bytes:
    """Draw a report; equal content gives equal bytes.

    Returns:
        PDF file, A4, with outline, embedded fonts and vector charts.
    """
    register_fonts()
    stream = BytesIO()
    ReportDocument(stream, report).build_all(_story(report))
    return stream.getvalue()


def _story(report: Report) -> list[Flowable]:
    story = _first_page(report)
    room = _CONTENTS_LINE * (len(report.sections) + 4)
    heading = paragraph("Contents", "heading")
    story.extend((CondPageBreak(room), Spacer(0, 8 * mm), heading, Spacer(0, 1.5 * mm), contents()))
    is_annex = False
    for section in report.sections:
        if section.is_annex and not is_annex:
            story.extend((PageBreak(), paragraph("Annex", "title"), paragraph(ANNEX, "about")))
        is_annex = section.is_annex
        story.extend(_section(section, 0))
    return story


def _first_page(report: Report) -> list[Flowable]:
    return [
        Bookmark("front", "Verdict", 0),
        paragraph(report.subtitle, "kicker"),
        Spacer(0, 3),
        paragraph(report.title, "title"),
        paragraph(report.about, "about"),
        *_verdict(report.verdict),
        _strip(report),
        Spacer(0, 2 * mm),
        paragraph(report.statement, "statement"),
        *_blocks(report.front),
    ]


def _verdict(verdict: Verdict) -> list[Flowable]:
    """Return boxes of equal size, side by side; without boxes the headline in one."""
    sentence = paragraph(verdict.sentence, "sentence")
    if not verdict.boxes:
        headline = paragraph(f"{verdict.mark}  {verdict.headline}", "verdict", tone=verdict.tone)
        return [_coloured([[headline, Spacer(0, 3), sentence]], [verdict.tone])]
    cells = [
        [
            paragraph(box.title, "heading"),
            paragraph(f"{box.status.mark}  {box.status.text}", "box", tone=box.status.tone),
            Spacer(0, 2),
            paragraph(box.sentence, "body"),
        ]
        for box in verdict.boxes
    ]
    boxes = _coloured(cells, [box.status.tone for box in verdict.boxes])
    return [boxes, Spacer(0, 2 * mm), sentence, Spacer(0, 1 * mm)]


def _coloured(cells: list[list[Flowable]], tones: list[Tone]) -> PdfTable:
    """Return cells side by side, each on its tone's paper with a bar of its ink at the left."""
    table = PdfTable([cells], colWidths=[WIDTH / len(cells)] * len(cells))
    styles: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 12),
        ("TOPPADDING", (0, 0), (-1, -1), 9),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 11),
    ]
    for place, tone in enumerate(tones):
        ink, paper = TONES[tone]
        here = (place, 0), (place, -1)
        styles += [("BACKGROUND", *here, paper), ("LINEBEFORE", *here, 4, ink, 0)]
    table.setStyle(TableStyle(styles))
    return table


def _strip(report: Report) -> PdfTable:
    """Return run id, evidence root and journal head, in full, for the strip under the verdict."""
    rows = [[paragraph(name, "fact"), paragraph(text, "mono")] for name, text in report.strip]
    strip = PdfTable(rows, colWidths=[_STRIP_NAME_WIDTH, WIDTH - _STRIP_NAME_WIDTH])
    strip.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
                ("LEFTPADDING", (0, 0), (0, -1), 18),
                ("TOPPADDING", (0, 0), (-1, -1), 1.4),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1.4),
                ("LINEBELOW", (0, -1), (-1, -1), 0.4, RULE),
            ]
        )
    )
    return strip


def _section(section: Section, level: int) -> list[Flowable]:
    shown = f"{section.number}  {section.title}"
    if section.key.startswith("principle-"):
        shown = f"Principle {section.key.removeprefix('principle-P')}. {section.title}"
    head: list[Flowable] = [Bookmark(section.key, shown, level)]
    head.append(paragraph(shown, "section" if level == 0 else "principle"))
    if section.subtitle and section.subtitle != section.title:
        head.append(paragraph(f"N88: {section.subtitle}", "subtitle"))
    if section.status:
        head.append(_status(section.status))
    drawn = _blocks(section.blocks)
    room = room_to_start(head, whole=True)
    room += (
        _ABOVE_SECTION
        + _RULE_ROOM
        + _BELOW_TITLE
        + room_to_start(drawn, whole=section.key == "principles")
    )
    if level == 0:
        story = [CondPageBreak(room), Spacer(0, _ABOVE_SECTION), *head, _rule()]
    else:
        story = [CondPageBreak(room), Spacer(0, 5 * mm), *head]
    story.append(Spacer(0, _BELOW_TITLE))
    story.extend(drawn)
    for child in section.sections:
        story.extend(_section(child, level + 1))
    return story


def _rule() -> PdfTable:
    rule = PdfTable([[""]], colWidths=[WIDTH], rowHeights=[3])
    rule.setStyle(TableStyle([("LINEBELOW", (0, 0), (-1, -1), 1, ACCENT)]))
    return rule


def _blocks(blocks: tuple[Block, ...]) -> list[Flowable]:
    """Draw blocks; headings and sentences stay with the start of the block that follows."""
    story: list[Flowable] = []
    waiting: list[Flowable] = []
    for group in _grouped(blocks):
        block = group[0]
        if isinstance(block, Heading):
            story.extend(waiting)  # nothing followed what was waiting
            waiting = [Spacer(0, 4 * mm), paragraph(block.text, "heading")]
            continue
        drawn = _draw(group)
        if isinstance(block, Text) and len(waiting) < _MOST_WAITING:
            waiting.extend((Spacer(0, 1.6 * mm), *drawn))
            continue
        if waiting:
            start = sum(height_of(part) for part in drawn[:1])
            room = _HEADING_ROOM + room_to_start(waiting, whole=True) + start
            story.extend((CondPageBreak(min(room, 180 * mm)), *waiting))
            waiting = []
        story.extend((Spacer(0, 1.6 * mm), *drawn))
    return story + waiting


def _grouped(blocks: tuple[Block, ...]) -> Iterable[list[Block]]:
    """Pair neighbouring small charts, which stand side by side."""
    pending: list[Block] = []
    for block in blocks:
        if isinstance(block, SmallChart) and not (isinstance(block, RangeBars) and block.is_wide):
            pending.append(block)
            if len(pending) == 2:
                yield pending
                pending = []
            continue
        if pending:
            yield pending
            pending = []
        yield [block]
    if pending:
        yield pending


def _draw(group: list[Block]) -> list[Flowable]:
    block = group[0]
    if isinstance(block, Text):
        return [paragraph(block.text, block.style)]
    if isinstance(block, Bullets):
        return [paragraph(item, "bullet") for item in block.items]
    if isinstance(block, Facts):
        return [_facts(block)]
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        return [_picture(block)]
    if isinstance(block, Histogram | Boxes) or (isinstance(block, RangeBars) and block.is_wide):
        return [chart_drawing(block, WIDTH)]
    if isinstance(block, Gallery):
        return [_gallery(block)]
    cells = [chart_drawing(part, _HALF) for part in group if isinstance(part, SmallChart)]
    row = PdfTable([[cells[0], "", *cells[1:]]], colWidths=[_HALF, _GAP, _HALF][: len(cells) + 1])
    row.hAlign = "LEFT"
    row.setStyle(_plain_style())
    return [row]


def _gallery(block: Gallery) -> PdfTable:
    """Draw two pictures in a row, each with its lines; a row is not split over pages."""
    tiles = [_tile(tile) for tile in block.tiles]
    rows = [[left, "", right] for left, right in zip_longest(tiles[::2], tiles[1::2], fillvalue="")]
    table = PdfTable(rows, colWidths=[_HALF, _GAP, _HALF], splitInRow=0)
    table.hAlign = "LEFT"
    table.setStyle(_plain_style())
    return table


def _tile(tile: Tile) -> list[Flowable]:
    picture = tile.picture
    scale = min(_HALF / picture.width_px, _TILE_HEIGHT / picture.height_px)
    image = Image(BytesIO(picture.data), picture.width_px * scale, picture.height_px * scale)
    image.hAlign = "LEFT"
    return [image, Spacer(0, 1 * mm), *_cell(tile.lines), Spacer(0, 2 * mm)]


def _plain_style() -> TableStyle:
    return TableStyle(
        [
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 0),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ]
    )


def _status(line: Line, right: bool = False) -> Paragraph:
    return paragraph(f"{line.mark} {line.text}", "mark", tone=line.tone, right=right)


def _cell(cell: Cell, right: bool = False) -> list[Flowable]:
    return [
        _status(line, right)
        if line.style == "mark"
        else paragraph(line.text, line.style, right=right)
        for line in cell
    ]


def _facts(facts: Facts) -> PdfTable:
    name_width = WIDTH * _FACT_NAME_SHARE
    rows = [[paragraph(name, "fact"), _cell(cell)] for name, cell in facts.rows]
    return _ruled(rows, [name_width, WIDTH - name_width], head=False)


def _ruled(
    rows: list[list[Any]], widths: list[float], *, head: bool, right: tuple[int, ...] = ()
) -> PdfTable:
    """Return a table whose rows are not split, unless one is too tall for a page."""
    for split in (0, 1):
        table = PdfTable(rows, colWidths=widths, repeatRows=int(head), splitInRow=split)
        table.setStyle(_row_style(head, right))
        if tallest_row(table) < _TALLEST_ROW:
            break
    return table


def _table(block: Table) -> list[Flowable]:
    drawn: list[Flowable] = []
    if block.rows:
        aligned = [column.align == "right" for column in block.columns]
        head = [
            paragraph(column.title, "head", right=right)
            for column, right in zip(block.columns, aligned, strict=True)
        ]
        body = [
            [_cell(cell, right) for cell, right in zip(row, aligned, strict=True)]
            for row in block.rows
        ]
        widths = [column.share * WIDTH for column in block.columns]
        drawn.append(_ruled([head, *body], widths, head=True, right=_before_left(aligned)))
    if block.note:
        drawn.append(paragraph(block.note, "note"))
    return drawn


def _before_left(aligned: list[bool]) -> tuple[int, ...]:
    """Return the columns of numbers before a column of text, which need a wider gap."""
    return tuple(
        place for place, (here, after) in enumerate(pairwise(aligned)) if here and not after
    )


def _row_style(head: bool, right: tuple[int, ...]) -> TableStyle:
    commands: list[Any] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-2, -1), 8),
        *(("RIGHTPADDING", (place, 0), (place, -1), 16) for place in right),
        ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 2.6),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3.2),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE),
    ]
    if head:
        commands.append(("LINEBELOW", (0, 0), (-1, 0), 0.8, ACCENT))
        commands.append(("VALIGN", (0, 0), (-1, 0), "BOTTOM"))
    return TableStyle(commands)


def _picture(block: Picture) -> KeepTogether:
    scale = min(WIDTH / block.width_px, _PICTURE_HEIGHT / block.height_px)
    image = Image(BytesIO(block.data), block.width_px * scale, block.height_px * scale)
    image.hAlign = "LEFT"
    return KeepTogether(
        [
            Spacer(0, 3 * mm),
            paragraph(block.title, "heading"),
            Spacer(0, 2 * mm),
            image,
            Spacer(0, 1 * mm),
            paragraph(block.caption, "note"),
            paragraph(block.path, "mono"),
        ]
    )
