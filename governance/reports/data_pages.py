"""Content of the data section."""

from governance.evidence.documents import (
    PARTITIONS,
    CoverageAudit,
    DatasetIdentity,
    DuplicateAudit,
    RuleResult,
    SplitRecord,
    ValidationRecord,
)
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Line,
    Section,
    Table,
    Text,
    cell,
    cells,
    columns,
    joined,
    mono,
    small,
    status_line,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.statuses import ItemStatus

_FINDINGS_SHOWN = 20
_PAIRS_SHOWN = 20
_ENGINES = {"pandera": "pandera", "great_expectations": "Great Expectations"}


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
    blocks.extend(coverage_blocks(evidence.coverage))
    if data is not None:
        blocks.extend(absent_blocks(data))
    blocks.extend(_duplicates(evidence.duplicates))
    blocks.extend(_validation(evidence.validation))
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
        ("Step", 0.28),
        ("Images", 0.12, "right"),
        ("Change", 0.12, "right"),
        ("Patients", 0.12, "right"),
        ("Note", 0.36),
    )
    blocks: list[Block] = [Heading("Flow of images"), Table(head, tuple(rows))]
    if data.n_missing:
        shown = joined(data.missing_examples)
        blocks.append(
            Text(
                f"{formats.count(data.n_missing)} of {formats.count(data.n_listed)} listed images "
                f"have no file (missing images: {data.missing_policy}). Examples: {shown}.",
                "note",
            )
        )
    return tuple(blocks)


def _findings(evidence: ReportEvidence) -> tuple[Block, ...]:
    findings = evidence.findings.findings if evidence.findings else ()
    if not findings:
        return ()
    rows = tuple(
        cells(
            found.code,
            found.where,
            "" if found.row is None else str(found.row),
            found.column or "",
            found.message,
        )
        for found in findings[:_FINDINGS_SHOWN]
    )
    head = columns(
        ("Code", 0.10), ("File", 0.22), ("Row", 0.08, "right"), ("Column", 0.14), ("Fault", 0.46)
    )
    more = len(findings) - len(rows)
    note = f"{formats.count(more)} more in data/findings.json." if more > 0 else ""
    title = f"{formats.counted(len(findings), 'fault')} found in the data"
    return (Heading(title), Table(head, rows, note))


def partition_blocks(split: SplitRecord | None) -> tuple[Block, ...]:
    """Partitions, what they share, and departures from the official split."""
    if split is None:
        return (Heading("Partitions"), Text("The data was not divided in this run."))
    head = columns(
        ("Partition", 0.34),
        ("Images", 0.13, "right"),
        ("Patients", 0.13, "right"),
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
    shared_head = columns(
        ("Pair of partitions", 0.50),
        ("Patients in both", 0.25, "right"),
        ("Images with equal pixels in both", 0.25, "right"),
    )
    return (
        Heading("Partitions"),
        Text(_split_sentence(split)),
        Table(head, rows),
        Table(shared_head, shared),
        *((Bullets(split.deviations),) if split.deviations else ()),
    )


def _split_sentence(split: SplitRecord) -> str:
    official = "brings an" if split.official_available else "brings no"
    return (
        f"Split {split.source}; the data set {official} official split. Divided by {split.unit}, "
        f"seed {split.seed}. Images taken out of training as copies: "
        f"{formats.count(len(split.dropped))}."
    )


def coverage_blocks(coverage: CoverageAudit | None) -> tuple[Block, ...]:
    """One table an attribute: patients and images of each level in each partition."""
    if coverage is None:
        return (Heading("Coverage"), Text("Coverage was not counted in this run."))
    blocks: list[Block] = [
        Heading("Coverage: patients / images"),
        *(coverage_table(coverage, attribute) for attribute in coverage.attributes),
    ]
    if coverage.completeness:
        complete = ", ".join(
            f"{name} {formats.percent(fraction, 1)}"
            for name, fraction in sorted(coverage.completeness.items())
        )
        blocks.append(Text(f"Patients with a value: {complete}.", "note"))
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


def _duplicates(audit: DuplicateAudit | None) -> tuple[Block, ...]:
    if audit is None:
        return (Heading("Duplicates"), Text("Duplicates were not looked for in this run."))
    found = (
        f"{audit.method} Among {formats.counted(audit.n_images, 'image')}: "
        f"{formats.counted(audit.n_pairs, 'pair')} of equal images, "
        f"{formats.count(audit.n_pairs_across_patients)} across patients, "
        f"{formats.count(audit.n_pairs_across_partitions)} across partitions."
    )
    blocks: list[Block] = [Heading("Duplicates"), Text(found)]
    if audit.pairs:
        rows = tuple(
            cells(
                pair.kind,
                _side(pair.left_id, pair.left_patient, pair.left_partition),
                _side(pair.right_id, pair.right_patient, pair.right_partition),
            )
            for pair in audit.pairs[:_PAIRS_SHOWN]
        )
        more = audit.n_pairs - len(rows)
        note = f"{formats.count(more)} more in data/duplicates.json." if more > 0 else ""
        head = columns(("Equal", 0.16), ("Image", 0.42), ("Same as", 0.42))
        blocks.append(Table(head, rows, note))
    return tuple(blocks)


def _side(image_id: str, patient: str, partition: str | None) -> str:
    return f"{image_id} (patient {patient}, {partition or 'no partition'})"


def _validation(record: ValidationRecord | None) -> tuple[Block, ...]:
    if record is None:
        return (Heading("Data validation"), Text("The data contract was not checked in this run."))
    blocks: list[Block] = [
        Heading("Data validation"),
        Text(
            f"Contract {record.contract} {record.contract_version}, "
            f"{formats.counted(record.n_rows, 'row')}, judged by two engines."
        ),
    ]
    for engine, name in _ENGINES.items():
        rules = [rule for rule in record.rules if rule.engine == engine]
        version = record.engine_versions.get(engine, "version unknown")
        blocks.append(_rule_table(f"{name} {version}", rules))
    return tuple(blocks)


def _rule_table(title: str, rules: list[RuleResult]) -> Table:
    head = columns(
        (title, 0.36),
        ("Severity", 0.11),
        ("Result", 0.15),
        ("Rows", 0.10, "right"),
        ("Against it", 0.10, "right"),
        ("Reason", 0.18),
    )
    rows = tuple(
        (
            cell(rule.rule, small(rule.column)),
            cell(rule.severity),
            cell(_rule_result(rule)),
            cell(formats.count(rule.n_evaluated)),
            cell(formats.count(rule.n_unexpected)),
            cell(small(rule.reason), small(joined(rule.examples, ""))),
        )
        for rule in rules
    )
    return Table(head, rows, "" if rows else "No rule was judged by this engine.")


def _rule_result(rule: RuleResult) -> Line:
    return status_line(ItemStatus.PASSED if rule.passed else ItemStatus.FAILED)
