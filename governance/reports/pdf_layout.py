"""Pages of the PDF: frame, head and foot lines, bookmarks, contents, number of pages."""

from io import BytesIO

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
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

from governance.reports import formats
from governance.reports.blocks import Report
from governance.reports.pdf_text import MUTED, REGULAR, RULE, STYLES, drawable

MARGIN, TOP, BOTTOM = 20 * mm, 22 * mm, 20 * mm
WIDTH = A4[0] - 2 * MARGIN
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
        """Mark the place."""
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
        """Keep the count of the pass before."""
        self._before, self.total = self.total, 0

    @property
    def expected(self) -> int:
        """Pages of the pass before."""
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
        """Tell the contents where a section stands."""
        if isinstance(flowable, Bookmark) and flowable.level == 0:
            entry = (0, flowable.title, self.page, flowable.key)
            self.notify("TOCEntry", entry)

    def build_all(self, story: list[Flowable]) -> None:
        """Lay out until contents and number of pages are right."""
        self.multiBuild([self.page_total, *story], maxPasses=_MOST_PASSES)

    def _running_lines(self, canvas: Canvas, document: BaseDocTemplate) -> None:
        self.page_total.total = document.page
        canvas.saveState()
        canvas.setFont(REGULAR, 6.4)
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
    """Contents of the sections of level 0."""
    table = TableOfContents(dotsMinLevel=0)
    table.levelStyles = [STYLES["contents"]]
    table.tableStyle = TableStyle(
        [("TOPPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 0)]
        + [("LEFTPADDING", (0, 0), (-1, -1), 0), ("RIGHTPADDING", (0, 0), (-1, -1), 0)]
    )
    return table


def height_of(flowable: Flowable) -> float:
    """Height that must stay with a heading before this flowable."""
    if isinstance(flowable, Paragraph):
        return min(3 * flowable.style.leading, float(flowable.wrap(WIDTH, A4[1])[1]))
    if isinstance(flowable, KeepTogether):  # it can be measured on a page only; its parts anywhere
        return sum(float(part.wrap(WIDTH, 10_000)[1]) for part in getattr(flowable, "_content", ()))
    _, height = flowable.wrap(WIDTH, 10_000)
    rows = getattr(flowable, "_rowHeights", None)
    return float(sum(rows[:2])) if rows else float(height)


def room_to_start(story: list[Flowable], *, whole: bool = False) -> float:
    """Height that must be free below a section's title: up to the first rows of its first table.

    Args:
        story: What the section draws.
        whole: Ask for all of it, as far as one page can hold it.
    """
    room = 0.0
    for part in story:
        if isinstance(part, Spacer):
            room += part.height
        elif isinstance(part, Paragraph | Table):
            room += float(part.wrap(WIDTH, 10_000)[1]) if whole else height_of(part)
            if isinstance(part, Table) and not whole:
                break
    return min(room, _MOST_ROOM)


def tallest_row(table: Table) -> float:
    """Height of the tallest row of a table laid out in the frame."""
    table.wrap(WIDTH, 10_000)
    return float(max(getattr(table, "_rowHeights", None) or [0]))
