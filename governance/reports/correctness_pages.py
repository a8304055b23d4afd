"""Content on correctness: contract, step boundaries, suspected labels, faults."""

from governance.evidence.documents import (
    BoundaryChecks,
    FindingRecord,
    Findings,
    LabelAudit,
    SuspectedLabel,
)
from governance.reports import formats
from governance.reports.blocks import (
    Block,
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
    status_line,
    strong,
)
from governance.reports.data_evidence import DataEvidence, more, share_text
from governance.reports.validation_pages import validation_blocks
from governance.statuses import ItemStatus

_FINDINGS_SHOWN = 20
_SUSPECTS_SHOWN = 20


def correctness_blocks(evidence: DataEvidence) -> tuple[Block, ...]:
    """Whether what is recorded is right, as far as a machine can say."""
    return (
        *_findings(evidence.findings),
        *validation_blocks(evidence.validation),
        *_boundaries(evidence.boundaries),
        *_labels(evidence.labels, evidence.unit),
    )


def _findings(record: Findings | None) -> tuple[Block, ...]:
    if record is None:
        return (Heading("Faults found in the data"), Text("Faults were not looked for."))
    findings = record.findings
    title = f"{formats.counted(len(findings), 'fault')} found in the data"
    if not findings:
        return (Heading(title), Text("Every file and row that was selected could be read."))
    shown = findings[:_FINDINGS_SHOWN]
    placed = any(found.row is not None or found.column for found in shown)
    rows = tuple(_finding_row(found, placed) for found in shown)
    places = (("Row", 0.08, "right"), ("Column", 0.14)) if placed else ()
    file = 0.22 if placed else 0.36
    head = columns(("Code", 0.10), ("File", file), *places, ("Fault", 0.46 if placed else 0.54))
    text = Text(
        "Rows and files that could not be used as they are; each must be mended or left out."
    )
    note = more(len(findings), len(rows), "data/findings.json")
    return (Heading(title), text, Table(head, rows, note))


def _finding_row(found: FindingRecord, placed: bool) -> tuple[Cell, ...]:
    row = "" if found.row is None else str(found.row)
    places = (row, found.column or "") if placed else ()
    return cells(found.code, found.where, *places, found.message)


def _boundaries(record: BoundaryChecks | None) -> tuple[Block, ...]:
    heading = Heading("The image table between steps")
    if record is None or not record.checks:
        return (heading, Text("The table was not checked between steps."))
    head = columns(
        ("From step to step", 0.34),
        ("Images", 0.12, "right"),
        ("Rules", 0.10, "right"),
        ("Result", 0.44),
    )
    rows = tuple(
        (
            cell(check.boundary),
            cell(formats.count(check.n_rows)),
            cell(formats.count(check.n_rules)),
            cell(
                status_line(_boundary_status(check.n_rows, bool(check.failed))),
                small(f"broken: {joined(check.failed)}" if check.failed else ""),
                small("" if check.n_rows else "the table was empty"),
            ),
        )
        for check in record.checks
    )
    text = Text(
        "The same rules tried again on the table that one step hands to the next. A rule that "
        "held before and is broken here means that a step damaged the table."
    )
    return (heading, text, Table(head, rows))


def _boundary_status(n_rows: int, broken: bool) -> ItemStatus:
    if broken:
        return ItemStatus.FAILED
    return ItemStatus.PASSED if n_rows else ItemStatus.NOT_EVALUATED


def _labels(record: LabelAudit | None, unit: str) -> tuple[Block, ...]:
    heading = Heading("Suspected label errors")
    if record is None:
        return (heading, Text("Label errors were not looked for."))
    if record.balanced_accuracy is None:
        reason = record.reason or "no reason is on record"
        return (heading, Text(f"Not evaluated: {reason.rstrip('.')}."))
    text = Text(
        "Training images that a model, trained on the images of other "
        f"{unit}s, would have labelled otherwise. Suspected is not wrong: a person must look at "
        "them, and the suspicion is only as good as the model's balanced accuracy."
    )
    return (heading, text, Facts(label_rows(record, unit)), *_suspects(record))


def label_rows(record: LabelAudit, unit: str) -> tuple[tuple[str, Cell], ...]:
    """Names and values of the search for label errors; it was carried out."""
    classes = ", ".join(f"{name} ({formats.count(n)})" for name, n in record.classes.items())
    share = record.n_suspected / record.n_images if record.n_images else None
    accuracy = record.balanced_accuracy
    rows = (
        ("Label", cell(record.label, small(f"classes (images): {classes}"))),
        (
            "Suspected",
            cell(
                strong(
                    f"{formats.count(record.n_suspected)} of "
                    f"{formats.counted(record.n_images, 'training image')} "
                    f"of {formats.counted(record.n_patients, unit)}"
                ),
                share_text(share, record.rate_ci95),
            ),
        ),
        (
            "Balanced accuracy of the model",
            cell("not computed" if accuracy is None else formats.percent(accuracy, 1)),
        ),
        ("What it can do to the results", cell(record.effect)),
        ("Reviewed", cell(record.reviewed or "by nobody")),
        ("Method", cell(record.method)),
    )
    return tuple(row for row in rows if row[1])


def _suspects(record: LabelAudit) -> tuple[Block, ...]:
    if not record.suspects:
        return ()
    head = columns(
        ("Image", 0.40),
        ("Label given", 0.20),
        ("Suggested", 0.20),
        ("Probability of the label given", 0.20, "right"),
    )
    shown = record.suspects[:_SUSPECTS_SHOWN]
    text = Text("Most suspect first: look at these images before anything is trained on them.")
    note = more(record.n_suspected, len(shown), "data/labels.json")
    return (text, Table(head, tuple(_suspect(entry) for entry in shown), note))


def _suspect(entry: SuspectedLabel) -> tuple[Cell, ...]:
    probability = f"{entry.probability_of_given:.3f}"
    return cells(entry.image_id, entry.given, entry.suggested, probability)
