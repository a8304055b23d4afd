"""The parts a report is made of; content builds them once, PDF and HTML only draw them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from governance.records.base import ItemStatus, PrincipleStatus

Tone = Literal["good", "bad", "unsure", "unknown", "people", "none"]
LineStyle = Literal["plain", "strong", "small", "mono", "mark"]

# Colour is never the only carrier of a status: each has a word and a mark of its own.
_MARKS: dict[ItemStatus | PrincipleStatus, tuple[str, Tone]] = {
    ItemStatus.PASSED: ("✓", "good"),
    ItemStatus.FAILED: ("✗", "bad"),
    ItemStatus.RECORDED: ("●", "none"),
    ItemStatus.NOT_EVALUATED: ("?", "unknown"),
    ItemStatus.DECLARED: ("✎", "people"),
    ItemStatus.MISSING: ("∅", "unsure"),
    ItemStatus.NOT_APPLICABLE: ("\u2013", "none"),
    PrincipleStatus.SATISFIED: ("✓", "good"),
    PrincipleStatus.DECLARED: ("✎", "people"),
    PrincipleStatus.PARTIAL: ("◐", "unsure"),
    PrincipleStatus.NOT_SATISFIED: ("✗", "bad"),
    PrincipleStatus.NOT_APPLICABLE: ("\u2013", "none"),
}


@dataclass(frozen=True)
class Line:
    """One line of a cell; `mark` and `tone` are set for a status."""

    text: str
    style: LineStyle = "plain"
    mark: str = ""
    tone: Tone = "none"


Cell = tuple[Line, ...]


@dataclass(frozen=True)
class Column:
    """Column of a table; `share` is its part of the width."""

    title: str
    share: float
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Text:
    """Paragraph."""

    text: str
    style: Literal["body", "lead", "note"] = "body"


@dataclass(frozen=True)
class Heading:
    """Small heading inside a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """List of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names and values, one a row."""

    rows: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Table:
    """Table; rows hold one cell a column."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class LineChart:
    """Quantities over training steps."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Histogram:
    """Two sets of values over common bins, as shares of each set, with a threshold.

    An empty set is neither drawn nor in the legend. A subject of few values is drawn `as_strokes`,
    one for each value, since shares would say little.
    """

    title: str
    x_label: str
    y_label: str
    reference: tuple[str, tuple[float, ...]]
    subject: tuple[str, tuple[float, ...]]
    threshold: tuple[str, float]
    as_strokes: bool = False


@dataclass(frozen=True)
class Picture:
    """Picture from the evidence, with its caption and digest."""

    title: str
    caption: str
    path: str
    data: bytes
    media_type: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Share:
    """One bar: a share of 0 to 1, with its 95 % interval where there is one."""

    value: float
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class ShareBars:
    """Horizontal bars of shares: one row a level, one bar a group; None where unknown.

    `absent` is written in place of a bar that is None.
    """

    title: str
    x_label: str
    groups: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Share | None, ...]], ...]
    absent: str = "not known"


@dataclass(frozen=True)
class RangeBars:
    """Ranges, one row a group: low, lower quartile, median, upper quartile, high."""

    title: str
    x_label: str
    rows: tuple[tuple[str, tuple[float, float, float, float, float]], ...]
    is_wide: bool = False


@dataclass(frozen=True)
class Boxes:
    """Diagram of named boxes, row below row; rows of equal length are joined one to one."""

    title: str
    rows: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True)
class Tile:
    """Picture of a gallery with the lines below it."""

    picture: Picture
    lines: Cell


@dataclass(frozen=True)
class Gallery:
    """Small pictures, several in a row."""

    tiles: tuple[Tile, ...]


SmallChart = LineChart | ShareBars | RangeBars
Chart = SmallChart | Histogram | Boxes
Block = Text | Heading | Bullets | Facts | Table | Chart | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """Section of a report; `number` is "" for sections without one.

    `main` holds the blocks that a report shows in its main part; `blocks` stand in the annex.
    """

    key: str
    number: str
    title: str
    subtitle: str = ""
    status: Line | None = None
    blocks: tuple[Block, ...] = ()
    sections: tuple["Section", ...] = ()
    main: tuple[Block, ...] = ()
    is_annex: bool = False


@dataclass(frozen=True)
class Box:
    """One of several boxes of equal size under the verdict.

    Attributes:
        title: What it is about.
        status: Result in few words, with mark and tone.
        sentence: Why.
    """

    title: str
    status: Line
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The verdict that the first page states in large letters.

    Attributes:
        headline: How the run ended.
        mark: Sign that goes with the tone, for readers without colours.
        tone: "good" only where nothing is open.
        sentence: Why.
        boxes: What the verdict is made of, worst first.
    """

    headline: str
    mark: str
    tone: Tone
    sentence: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report: first page, then sections.

    Attributes:
        title: Generator and data set by their short names.
        about: The same by their whole names.
        run_id: Run; "" when the report is of no run.
        evidence_root: Root of the evidence; "" when there is none.
        foot: Last line of the page.
        strip: Names and full values that identify run and evidence, for page 1.
        statement: Statement that the first page must carry; "" for none.
        is_open: Whether every part is unfolded when the page is opened.
    """

    title: str
    about: str
    subtitle: str
    run_id: str
    evidence_root: str
    tool_version: str
    foot: str
    verdict: Verdict
    strip: tuple[tuple[str, str], ...]
    front: tuple[Block, ...]
    sections: tuple[Section, ...]
    statement: str = ""
    is_open: bool = False


def block_texts(block: Block) -> Iterator[str]:
    """Yield every text of a block, in reading order; of charts, the title alone."""
    if isinstance(block, Text | Heading):
        yield block.text
    elif isinstance(block, Bullets):
        yield from block.items
    elif isinstance(block, Facts):
        yield from chain.from_iterable((name, *cell_texts(text)) for name, text in block.rows)
    elif isinstance(block, Table):
        yield from _table_texts(block)
    elif isinstance(block, Gallery):
        # A tile prints its lines; title and caption of its picture are its text alternative.
        yield from chain.from_iterable(cell_texts(tile.lines) for tile in block.tiles)
    elif isinstance(block, Picture):
        yield from (block.title, block.caption, block.path)
    else:
        yield block.title


def _table_texts(table: Table) -> Iterator[str]:
    if table.rows:
        yield from (column.title for column in table.columns)
    yield from chain.from_iterable(cell_texts(text) for row in table.rows for text in row)
    yield table.note


def cell_texts(content: Cell) -> Iterator[str]:
    """Yield every line of a cell; a status keeps its mark."""
    for line in content:
        yield f"{line.mark} {line.text}" if line.style == "mark" else line.text


def section_texts(section: Section) -> Iterator[str]:
    """Yield every text of a section and of those inside it, in reading order."""
    yield section.title
    yield section.subtitle
    if section.status is not None:
        yield from cell_texts((section.status,))
    for block in (*section.main, *section.blocks):
        yield from block_texts(block)
    for child in section.sections:
        yield from section_texts(child)


def status_line(status: ItemStatus | PrincipleStatus) -> Line:
    """Return a line that shows a status by mark, word and colour."""
    mark, tone = _MARKS[status]
    return Line(status.value, "mark", mark, tone)


def cell(*lines: str | Line) -> Cell:
    """Return a cell of some lines; empty ones are left out."""
    made = [Line(line) if isinstance(line, str) else line for line in lines]
    return tuple(line for line in made if line.text)


def cells(*values: str) -> tuple[Cell, ...]:
    """Return a row of plain cells."""
    return tuple(cell(value) for value in values)


def strong(text: str) -> Line:
    """Return a line in bold."""
    return Line(text, "strong")


def small(text: str) -> Line:
    """Return a line in small letters."""
    return Line(text, "small")


def mono(text: str) -> Line:
    """Return a line in letters of equal width, for digests and paths."""
    return Line(text, "mono")


def columns(*specification: tuple[str, float] | tuple[str, float, str]) -> tuple[Column, ...]:
    """Return columns from (title, share) or (title, share, "right")."""
    return tuple(
        Column(entry[0], entry[1], "right" if len(entry) == 3 else "left")
        for entry in specification
    )


def joined(values: Sequence[str], empty: str = "none") -> str:
    """Join values with commas; return `empty` when there is none."""
    return ", ".join(values) if values else empty
