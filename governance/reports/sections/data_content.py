"""Text and marks in images and metadata besides anatomy."""

from governance.records.content import ContentScan
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Table,
    Text,
    cell,
    cells,
    columns,
    joined,
    small,
    strong,
)
from governance.reports.evidence import Evidence
from governance.reports.sections.data_tables import more

_MARKS_SHOWN, _COLUMNS_SHOWN, _REVIEWED_SHOWN = 30, 40, 20


def content_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """Build the part on burned-in text, callipers, identifying columns, PNG text and review."""
    scan = evidence.get(ContentScan)
    if scan is None:
        return (
            Text("Images and metadata were not searched for text that could identify anybody."),
        )
    text = Text(
        "Names, dates and numbers burned into a picture or kept beside it can identify a person; "
        "callipers and other marks can give a label away. Whatever is found needs a person's eye."
    )
    return (
        text,
        Facts(content_rows(scan)),
        *_marks(scan),
        *_columns(scan),
        *_chunks(scan),
        *_file_metadata(scan),
        *_reviewed(scan),
    )


def content_rows(scan: ContentScan) -> tuple[tuple[str, Cell], ...]:
    """Return names and values of the content scan."""
    n = formats.counted(scan.n_scanned, "scanned image")
    reads = "reads letters" if scan.reads_text else "finds overlays but does not read letters"
    text = f"{formats.count(scan.n_with_text)} of {n}" if scan.reads_text else _unread(scan)
    marks = (
        f"{formats.count(scan.n_images_with_marks)} of {n}" if scan.reads_text else _unread(scan)
    )
    rows = (
        ("Engine", cell(scan.engine, small(reads))),
        (
            "Images looked at",
            cell(
                f"{formats.count(scan.n_scanned)} of {formats.count(scan.n_images)}",
                small("" if scan.n_scanned == scan.n_images else "the others were not read"),
            ),
        ),
        (
            "With a burned-in overlay",
            cell(
                f"{formats.count(scan.n_with_overlay)} of {formats.counted(scan.n_images, 'image')}"
            ),
        ),
        ("With text", cell(text)),
        ("With text that looks identifying", cell(strong(marks))),
        ("With callipers", cell(f"{formats.count(scan.n_with_callipers)} of {n}")),
        ("Columns looked at", cell(formats.count(scan.n_columns))),
        ("What the scan cannot see", cell(scan.limitations)),
    )
    return tuple(row for row in rows if row[1])


def _unread(scan: ContentScan) -> str:
    return f"not evaluated: {scan.engine} does not read letters"


def _marks(scan: ContentScan) -> tuple[Block, ...]:
    if not scan.marks:
        return ()
    head = columns(
        ("Image", 0.36), ("Looks like", 0.14), ("Text read", 0.34), ("Confidence", 0.16, "right")
    )
    shown = scan.marks[:_MARKS_SHOWN]
    rows = tuple(
        cells(mark.image_id, f"a {mark.kind}", mark.text, formats.percent(mark.confidence, 1))
        for mark in shown
    )
    text = Text(
        "Letters and digits that could identify somebody are replaced, so that this report repeats "
        "none. Look at each image, then either remove the text or declare the image reviewed."
    )
    note = more(len(scan.marks), len(shown), ContentScan.PATH)
    return (Heading("Text that looks identifying"), text, Table(head, rows, note))


def _columns(scan: ContentScan) -> tuple[Block, ...]:
    heading = Heading("Columns that look identifying")
    if not scan.columns:
        n = formats.counted(scan.n_columns, "column")
        return (heading, Text(f"None of the {n} of the metadata file."))
    shown = scan.columns[:_COLUMNS_SHOWN]
    rows = tuple(
        (cell(strong(entry.column)), cell(entry.reason), cell(formats.count(entry.n_values)))
        for entry in shown
    )
    head = columns(("Column", 0.26), ("Why", 0.58), ("Values", 0.16, "right"))
    text = Text(
        "Columns of the metadata file whose name or values look as if they identify people."
    )
    return (
        heading,
        text,
        Table(head, rows, more(len(scan.columns), len(shown), ContentScan.PATH)),
    )


def _chunks(scan: ContentScan) -> tuple[Block, ...]:
    heading = Heading("Text kept inside the image files")
    if not scan.text_chunks:
        return (heading, Text("No image file carries text beside its pixels."))
    rows = tuple(cells(key, formats.count(n)) for key, n in sorted(scan.text_chunks.items()))
    head = columns(("Keyword", 0.6), ("Images", 0.4, "right"))
    text = Text("Keywords of text chunks beside the pixels; their values are not repeated here.")
    return (heading, text, Table(head, rows))


def _file_metadata(scan: ContentScan) -> tuple[Block, ...]:
    if not scan.file_metadata:
        return ()
    rows = tuple(
        (
            cell(strong(found.kind)),
            cell(found.reason),
            cell(formats.count(found.n_images), small(joined(list(found.image_ids)))),
        )
        for found in scan.file_metadata
    )
    head = columns(("Kind", 0.2), ("Why", 0.34), ("Images", 0.46))
    text = Text(
        "Metadata in image files that is not known to be harmless; values are not repeated here. "
        "Save the images without it, or declare the kind reviewed."
    )
    return (Heading("Metadata in image files to look at"), text, Table(head, rows))


def _reviewed(scan: ContentScan) -> tuple[Block, ...]:
    if not scan.reviewed:
        return ()
    shown = scan.reviewed[:_REVIEWED_SHOWN]
    text = Text(f"Declared reviewed by a person: {joined([str(len(scan.reviewed))])}.")
    return (Heading("Reviewed"), text, Bullets(shown))
