"""Content of the data section."""

from governance.evidence.documents import (
    PARTITIONS,
    CoverageAudit,
    DatasetIdentity,
    DuplicateAudit,
    FindingRecord,
    SplitRecord,
)
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Section,
    Table,
    Text,
    cell,
    cells,
    columns,
    joined,
    mono,
    small,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.validation_pages import validation_blocks

_FINDINGS_SHOWN = 20
_PAIRS_SHOWN = 20
_EXAMPLES_SHOWN = 3
OFFICIAL_SPLIT_UNUSED = "the official split of the data set was not used"
_SAID_BARELY = {OFFICIAL_SPLIT_UNUSED, "the data set's official split was not used"}


def units(unit: str) -> str:
    """Plural of the unit counted, as a heading: "Patients", "Examinations"."""
    return f"{unit[:1].upper()}{unit[1:]}s"


def data_section(evidence: ReportEvidence) -> Section:
    """What data went in, where images were lost, who is in them, what both engines said."""
    blocks: list[Block] = []
    data = evidence.dataset
    if data is None:
        blocks.append(Text("The data set was not read in this run."))
    else:
        blocks.extend(_identity(data))
        blocks.extend(_flow(data))
    blocks.extend(_findings(evidence))
    blocks.extend(partition_blocks(evidence.split))
    blocks.extend(coverage_blocks(evidence.coverage, evidence.unit))
    if data is not None:
        blocks.extend(absent_blocks(data))
    official = evidence.split is not None and evidence.split.official_available
    blocks.extend(_duplicates(evidence.duplicates, evidence.unit, official))
    blocks.extend(validation_blocks(evidence.validation))
    return Section("data", "3", "Data", blocks=tuple(blocks))


def dataset_rows(data: DatasetIdentity) -> tuple[tuple[str, Cell], ...]:
    """Names and values that identify a data set."""
    planes = data.planes or "all"
    kind = "simulated; no patient is behind any image" if data.is_simulated else "patient images"
    pinned = {
        True: "equal to the digest pinned in the configuration",
        False: "differs from the digest pinned in the configuration",
    }
    state = (
        pinned[data.pinned_sha256 == data.content_sha256]
        if data.pinned_sha256
        else ("not pinned in the configuration")
    )
    return (
        ("Data set", cell(f"{data.title} ({data.name})")),
        ("Version", cell(data.version or "the publisher gives none")),
        ("DOI", cell(data.doi or "none")),
        ("Licence", cell(data.licence or formats.NOT_AVAILABLE)),
        ("Citation", cell(data.citation or formats.NOT_AVAILABLE)),
        ("Kind", cell(kind)),
        ("Planes selected", cell(planes)),
        ("Unit never divided", cell(data.split_unit, small(data.split_unit_note))),
        ("Metadata file", cell(data.metadata_file, mono(data.metadata_sha256))),
        ("Content digest", cell(mono(data.content_sha256 or formats.NOT_AVAILABLE), small(state))),
    )


def _identity(data: DatasetIdentity) -> tuple[Block, ...]:
    notes = (Bullets(data.notes),) if data.notes else ()
    return (Heading("Identity"), Facts(dataset_rows(data)), *notes)


def _flow(data: DatasetIdentity) -> tuple[Block, ...]:
    rows = []
    before: int | None = None
    for step in data.flow:
        lost = "" if before is None else formats.count(step.n_images - before)
        rows.append(
            cells(
                step.step,
                formats.count(step.n_images),
                lost,
                formats.count(step.n_patients),
                step.note,
            )
        )
        before = step.n_images
    head = columns(
        ("Step", 0.25),
        ("Images", 0.12, "right"),
        ("Change", 0.12, "right"),
        (units(data.split_unit), 0.15, "right"),
        ("Note", 0.36),
    )
    blocks: list[Block] = [Heading("Flow of images"), Table(head, tuple(rows))]
    if data.n_missing:
        shown = joined(data.missing_examples[:_EXAMPLES_SHOWN])
        blocks.append(Text(f"{missing_sentence(data)} Examples: {shown}.", "note"))
    return tuple(blocks)


def missing_sentence(data: DatasetIdentity) -> str:
    """How many listed images have no file, and what followed.

    The count is over the whole listing. Where missing images are errors, a run that came to know
    the content of its images had selected none of those without a file.
    """
    n = f"{formats.count(data.n_missing)} of {formats.count(data.n_listed)} listed images"
    if data.missing_policy == "drop":
        return f"{n} have no file and were dropped, as the configuration asks."
    if data.content_sha256 is not None:
        return f"{n} have no file; none of them was selected."
    return f"{n} are missing."


def _findings(evidence: ReportEvidence) -> tuple[Block, ...]:
    findings = evidence.findings.findings if evidence.findings else ()
    if not findings:
        return ()
    shown = findings[:_FINDINGS_SHOWN]
    placed = any(found.row is not None or found.column for found in shown)
    rows = tuple(_finding_row(found, placed) for found in shown)
    places = (("Row", 0.08, "right"), ("Column", 0.14)) if placed else ()
    file = 0.22 if placed else 0.36
    head = columns(("Code", 0.10), ("File", file), *places, ("Fault", 0.46 if placed else 0.54))
    more = len(findings) - len(rows)
    note = f"{formats.count(more)} more in data/findings.json." if more > 0 else ""
    title = f"{formats.counted(len(findings), 'fault')} found in the data"
    return (Heading(title), Table(head, rows, note))


def _finding_row(found: FindingRecord, placed: bool) -> tuple[Cell, ...]:
    row = "" if found.row is None else str(found.row)
    places = (row, found.column or "") if placed else ()
    return cells(found.code, found.where, *places, found.message)


def partition_blocks(split: SplitRecord | None) -> tuple[Block, ...]:
    """Partitions, what they share, and departures from the official split."""
    if split is None:
        return (Heading("Partitions"), Text("The data was not divided in this run."))
    head = columns(
        ("Partition", 0.31),
        ("Images", 0.13, "right"),
        (units(split.unit), 0.16, "right"),
        ("Digest", 0.40),
    )
    rows = tuple(
        (
            cell(strong(part.partition)),
            cell(formats.count(part.n_images)),
            cell(formats.count(part.n_patients)),
            cell(mono(formats.short(part.sha256))),
        )
        for part in split.partitions
    )
    shared = tuple(
        cells(
            pair,
            formats.count(split.shared_patients.get(pair)),
            formats.count(split.shared_content.get(pair)),
        )
        for pair in sorted({*split.shared_patients, *split.shared_content})
    )
    told = tuple(formats.sentence(deviation) for deviation in split_deviations(split))
    shared_head = columns(
        ("Pair of partitions", 0.50),
        (f"{units(split.unit)} in both", 0.25, "right"),
        ("Images with equal pixels in both", 0.25, "right"),
    )
    return (
        Heading("Partitions"),
        Text(_split_sentence(split)),
        Table(head, rows),
        Table(shared_head, shared),
        *((Bullets(told),) if told else ()),
    )


def split_deviations(split: SplitRecord) -> tuple[str, ...]:
    """Departures from the official split, each once, without full stops.

    That the split was not used is said barely and by whoever knows more: then only once.
    """
    told = dict.fromkeys(deviation.strip().rstrip(".") for deviation in split.deviations)
    fuller = [deviation for deviation in told if deviation not in _SAID_BARELY]
    if len(fuller) == len(told) or any(d.startswith(OFFICIAL_SPLIT_UNUSED) for d in fuller):
        return tuple(fuller)
    return (OFFICIAL_SPLIT_UNUSED, *fuller)


def _split_sentence(split: SplitRecord) -> str:
    official = "brings an" if split.official_available else "brings no"
    return (
        f"Split {split.source}; the data set {official} official split. Divided by {split.unit}, "
        f"seed {split.seed}. Images taken out of training as copies: "
        f"{formats.count(len(split.dropped))}."
    )


def coverage_blocks(coverage: CoverageAudit | None, unit: str) -> tuple[Block, ...]:
    """One table an attribute: units and images of each level in each partition."""
    if coverage is None:
        return (Heading("Coverage"), Text("Coverage was not counted in this run."))
    blocks: list[Block] = [
        Heading(f"Coverage: {units(unit).lower()} / images"),
        *(coverage_table(coverage, attribute) for attribute in coverage.attributes),
    ]
    if coverage.completeness:
        complete = ", ".join(
            f"{name} {formats.percent(fraction, 1)}"
            for name, fraction in sorted(coverage.completeness.items())
        )
        blocks.append(Text(f"{units(unit)} with a value: {complete}.", "note"))
    return tuple(blocks)


def coverage_table(coverage: CoverageAudit, attribute: str) -> Table:
    """Patients / images of each level of one attribute in each partition and in all."""
    counted = {
        (entry.level, entry.partition): f"{formats.count(entry.n_patients)} / "
        f"{formats.count(entry.n_images)}"
        for entry in coverage.levels
        if entry.attribute == attribute
    }
    levels = dict.fromkeys(level for level, _ in counted)
    parts = [p for p in (*PARTITIONS, "all") if any(part == p for _, part in counted)]
    share = 0.68 / max(1, len(parts))
    head = columns((attribute, 0.32), *((part, share, "right") for part in parts))
    rows = tuple(
        cells(level or "(no value)", *(counted.get((level, part), "0 / 0") for part in parts))
        for level in levels
    )
    return Table(head, rows)


def absent_blocks(data: DatasetIdentity) -> tuple[Block, ...]:
    """Attributes that the data set does not record, and what follows from that."""
    if not data.absent_attributes:
        return ()
    rows = tuple(cells(entry.name, entry.consequence) for entry in data.absent_attributes)
    head = columns(("Attribute", 0.30), ("What cannot be shown because of it", 0.70))
    return (Heading("Attributes that the data set does not record"), Table(head, rows))


def _duplicates(audit: DuplicateAudit | None, unit: str, official: bool) -> tuple[Block, ...]:
    if audit is None:
        return (Heading("Duplicates"), Text("Duplicates were not looked for in this run."))
    across = [f"{formats.count(audit.n_pairs_across_patients)} across {unit}s"]
    if official:
        n = formats.count(audit.n_pairs_across_partitions)
        across.append(f"{n} across the parts of the official split")
    found = (
        f"{formats.sentence(audit.method)} Among {formats.counted(audit.n_images, 'image')}: "
        f"{formats.counted(audit.n_pairs, 'pair')} of equal images, {', '.join(across)}. What the "
        "partitions of this run share stands under Partitions."
    )
    blocks: list[Block] = [Heading("Duplicates"), Text(found)]
    if audit.pairs:
        rows = tuple(
            cells(
                pair.kind,
                _side(pair.left_id, unit, pair.left_patient, pair.left_partition),
                _side(pair.right_id, unit, pair.right_patient, pair.right_partition),
            )
            for pair in audit.pairs[:_PAIRS_SHOWN]
        )
        more = audit.n_pairs - len(rows)
        note = f"{formats.count(more)} more in data/duplicates.json." if more > 0 else ""
        head = columns(("Equal", 0.16), ("Image", 0.42), ("Same as", 0.42))
        blocks.append(Table(head, rows, note))
    return tuple(blocks)


def _side(image_id: str, unit: str, name: str, partition: str | None) -> str:
    part = f", official part: {partition}" if partition else ""
    return f"{image_id} ({unit} {name}{part})"
