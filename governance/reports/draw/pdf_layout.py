"""Page layout, fonts and text styles of the PDF."""

import importlib.util
import unicodedata
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Drawing
from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_LEFT, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Frame,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)
from reportlab.platypus.doctemplate import IndexingFlowable
from reportlab.platypus.flowables import Flowable
from reportlab.platypus.tableofcontents import TableOfContents

from governance.records.errors import RecordWriteError
from governance.reports import formats
from governance.reports.blocks import Report

REGULAR, BOLD, MONO = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"
INK, MUTED, RULE, ACCENT = (HexColor(c) for c in ("#1b2430", "#5b6673", "#d3d9df", "#17506b"))
TONES = {
    "good": (HexColor("#1d6b3f"), HexColor("#edf6f0")),
    "bad": (HexColor("#a3241c"), HexColor("#fbeeec")),
    "unsure": (HexColor("#8a5a00"), HexColor("#fbf4e4")),
    "unknown": (HexColor("#4b5563"), HexColor("#f1f3f5")),
    "people": (HexColor("#4d4a8f"), HexColor("#f0f0f8")),
    "none": (HexColor("#5b6673"), HexColor("#f4f6f8")),
}
_LONG_TEXT_CHARACTERS = 6000


def _style(name: str, size: float, leading: float, **more: Any) -> ParagraphStyle:
    settings: dict[str, Any] = {"fontName": REGULAR, "textColor": INK, "alignment": TA_LEFT}
    return ParagraphStyle(name, fontSize=size, leading=leading, **(settings | more))


STYLES: dict[str, ParagraphStyle] = {
    "kicker": _style("kicker", 8, 10.5, textColor=ACCENT, fontName=BOLD),
    "title": _style("title", 15.5, 20, fontName=BOLD, spaceAfter=2),
    "about": _style("about", 8, 11, textColor=MUTED, spaceAfter=9),
    "verdict": _style("verdict", 17, 22, fontName=BOLD),
    "box": _style("box", 11, 14, fontName=BOLD),
    "sentence": _style("sentence", 8.6, 12.6),
    "section": _style("section", 13.5, 17.5, fontName=BOLD),
    "principle": _style("principle", 10.6, 14, fontName=BOLD),
    "subtitle": _style("subtitle", 8, 11, textColor=MUTED),
    "heading": _style("heading", 8.8, 12, fontName=BOLD, textColor=ACCENT),
    "body": _style("body", 8, 12),
    "lead": _style("lead", 8.4, 12.4, fontName=BOLD),
    "note": _style("note", 8, 11, textColor=MUTED),
    "bullet": _style("bullet", 8, 12, leftIndent=11, bulletIndent=1),
    "head": _style("head", 8, 10.5, fontName=BOLD, textColor=MUTED),
    "plain": _style("plain", 8, 10.8),
    "strong": _style("strong", 8, 10.8, fontName=BOLD),
    "small": _style("small", 8, 10.4, textColor=MUTED),
    "fact": _style("fact", 8, 10.8, textColor=MUTED),
    "mono": _style("mono", 8, 10.4, fontName=MONO, textColor=MUTED),
    "mark": _style("mark", 8, 10.8, fontName=BOLD),
    "statement": _style("statement", 8, 10.8, textColor=MUTED),
    "contents": _style("contents", 8, 10.8),
}
RIGHT_STYLES = {
    name: ParagraphStyle(f"{name}-right", parent=style, alignment=TA_RIGHT)
    for name, style in STYLES.items()
}


def font_folder() -> Path:
    """Return the folder of matplotlib's DejaVu fonts; matplotlib itself is not imported."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise RecordWriteError(
            "report.pdf: the DejaVu fonts of the package matplotlib are not installed; "
            "install medisynth-gov again"
        )
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


@cache
def register_fonts() -> frozenset[int]:
    """Register the fonts once; return the code points that all of them can draw."""
    covered: frozenset[int] | None = None
    for name in (REGULAR, BOLD, MONO):
        font = TTFont(name, str(font_folder() / f"{name}.ttf"))
        pdfmetrics.registerFont(font)
        points = frozenset(font.face.charToGlyph)
        covered = points if covered is None else covered & points
    pdfmetrics.registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD, italic=REGULAR)
    return covered or frozenset()


def drawable(text: str, limit: int = _LONG_TEXT_CHARACTERS) -> str:
    r"""Return clean text; letters that the fonts cannot draw are written as `\uXXXX`.

    Right-to-left letters are escaped too: this PDF would show them in reverse.
    """
    covered = register_fonts()
    return "".join(
        letter if _can_draw(letter, covered) else formats.escaped(letter)
        for letter in formats.clean(text, limit)
    )


def _can_draw(letter: str, covered: frozenset[int]) -> bool:
    return ord(letter) in covered and unicodedata.bidirectional(letter) not in {"R", "AL"}


def paragraph(text: str, style: str, *, right: bool = False, tone: str = "") -> Paragraph:
    """Make a paragraph of a text, in which nothing is read as markup."""
    limit = _LONG_TEXT_CHARACTERS if style in {"body", "note", "bullet", "about"} else 1_500
    safe = escape(drawable(text, limit))
    chosen = (RIGHT_STYLES if right else STYLES)[style]
    if tone:
        chosen = _toned(chosen, tone)
    if style == "bullet":
        return Paragraph(safe, chosen, bulletText="\u2022")
    return Paragraph(safe, chosen)


@cache
def _toned(style: ParagraphStyle, tone: str) -> ParagraphStyle:
    return ParagraphStyle(f"{style.name}-{tone}", parent=style, textColor=TONES[tone][0])


MARGIN, TOP, BOTTOM = 18 * mm, 20 * mm, 18 * mm
WIDTH = A4[0] - 2 * MARGIN
ANNEX = "The evidence behind the main part: every item, rule, table, package and digest."
FOOT = "Not a medical device · synthetic images · research use"
_MOST_PASSES = 8
_MOST_ROOM = 225 * mm


class Bookmark(Flowable):
    """Invisible flowable that puts an entry into the outline, and at level 0 into the contents."""

    def __init__(self, key: str, title: str, level: int) -> None:
        super().__init__()
        self.key, self.title, self.level = key, drawable(title, 200), level
        self.keepWithNext = True

    def wrap(self, availWidth: float, availHeight: float) -> tuple[float, float]:  # noqa: N803
        """Take no room."""
        return 0, 0

    def draw(self) -> None:
        """Set the bookmark and add the outline entry."""
        self.canv.bookmarkHorizontal(self.key, 0, 24)
        self.canv.addOutlineEntry(self.title, self.key, self.level, closed=self.level > 0)


class _PageTotal(IndexingFlowable):
    """Invisible flowable that asks for another pass until the number of pages stays the same."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self._before = 0

    def wrap(self, availWidth: float, availHeight: float) -> tuple[float, float]:  # noqa: N803
        """Take no room."""
        return 0, 0

    def draw(self) -> None:
        """Draw nothing."""

    def beforeBuild(self) -> None:  # noqa: N802
        """Keep the page count of the previous pass."""
        self._before, self.total = self.total, 0

    @property
    def expected(self) -> int:
        """Number of pages in the previous pass."""
        return self._before

    def isSatisfied(self) -> bool:  # noqa: N802
        """Whether the last two passes made equally many pages."""
        return self.total == self._before


class ReportDocument(BaseDocTemplate):
    """Document with running lines, outline, contents and "page x of y"; same input, same bytes."""

    def __init__(self, stream: BytesIO, report: Report) -> None:
        super().__init__(
            stream,
            pagesize=A4,
            leftMargin=MARGIN,
            rightMargin=MARGIN,
            topMargin=TOP,
            bottomMargin=BOTTOM,
            invariant=1,
            title=drawable(f"Audit report {report.run_id}", 200),
            author=f"medisynth-gov {drawable(report.tool_version, 40)}",
            subject=drawable(report.title, 200),
            lang="en-GB",
        )
        self._report = report
        self.page_total = _PageTotal()
        frame = Frame(MARGIN, BOTTOM, WIDTH, A4[1] - TOP - BOTTOM, 0, 0, 0, 0, id="page")
        self.addPageTemplates(PageTemplate("page", [frame], onPageEnd=self._running_lines))

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802
        """Report the page of a section to the table of contents."""
        if isinstance(flowable, Bookmark) and flowable.level == 0:
            entry = (0, flowable.title, self.page, flowable.key)
            self.notify("TOCEntry", entry)

    def build_all(self, story: list[Flowable]) -> None:
        """Lay out in several passes until contents and number of pages are stable."""
        self.multiBuild([self.page_total, *story], maxPasses=_MOST_PASSES)

    def _running_lines(self, canvas: Canvas, document: BaseDocTemplate) -> None:
        self.page_total.total = document.page
        canvas.saveState()
        canvas.setFont(REGULAR, 8)
        canvas.setFillColor(MUTED)
        canvas.setStrokeColor(RULE)
        canvas.setLineWidth(0.4)
        top = A4[1] - 13 * mm
        right = A4[0] - MARGIN
        canvas.drawString(MARGIN, top, drawable(f"Run {self._report.run_id}", 60))
        root = f"evidence root {formats.short(self._report.evidence_root)}"
        canvas.drawRightString(right, top, root)
        canvas.line(MARGIN, top - 5, right, top - 5)
        canvas.drawString(MARGIN, 11 * mm, FOOT)
        canvas.drawRightString(right, 11 * mm, f"page {document.page} of {self._last_page()}")
        canvas.restoreState()

    def _last_page(self) -> int:
        return max(self.page_total.expected, self.page)


def contents() -> TableOfContents:
    """Return an empty table of contents for the sections of level 0."""
    table = TableOfContents(dotsMinLevel=0)
    table.levelStyles = [STYLES["contents"]]
    table.tableStyle = TableStyle(
        [("TOPPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 0)]
        + [("LEFTPADDING", (0, 0), (-1, -1), 0), ("RIGHTPADDING", (0, 0), (-1, -1), 0)]
    )
    return table


def height_of(flowable: Flowable) -> float:
    """Return the height of a flowable's start that must stay with the heading before it."""
    if isinstance(flowable, Paragraph):
        return min(3 * flowable.style.leading, float(flowable.wrap(WIDTH, A4[1])[1]))
    if isinstance(flowable, KeepTogether):  # it can only be measured on a page, its parts anywhere
        return sum(float(part.wrap(WIDTH, 10_000)[1]) for part in getattr(flowable, "_content", ()))
    _, height = flowable.wrap(WIDTH, 10_000)
    rows = getattr(flowable, "_rowHeights", None)
    return float(sum(rows[:2])) if rows else float(height)


def room_to_start(story: list[Flowable], *, whole: bool = False) -> float:
    """Return the height needed below a section's title: up to the first rows of its first table, or its first picture.

    Args:
        story: Flowables of the section.
        whole: Return the height of all of it, at most one page.
    """
    room = 0.0
    for part in story:
        if isinstance(part, CondPageBreak):
            if not whole:  # it says what its own group needs
                return min(room + part.height, _MOST_ROOM)
        elif isinstance(part, Spacer):
            room += part.height
        elif isinstance(part, Paragraph | Table | Drawing | KeepTogether):
            whole_part = whole and not isinstance(part, KeepTogether)
            room += float(part.wrap(WIDTH, 10_000)[1]) if whole_part else height_of(part)
            if not isinstance(part, Paragraph) and not whole:
                break
    return min(room, _MOST_ROOM)


def tallest_row(table: Table) -> float:
    """Return the height of the tallest row of a table laid out in the frame."""
    table.wrap(WIDTH, 10_000)
    return float(max(getattr(table, "_rowHeights", None) or [0]))
