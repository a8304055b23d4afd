"""The data section: its parts in order, completeness, and sentences on the findings."""

from governance.records.audit import CoverageAudit, DatasetAudit, DemographicsAudit, LabelAudit
from governance.records.content import ContentScan
from governance.records.dataset import DatasetIdentity, FlowStep
from governance.records.duplicates import DuplicateAudit
from governance.records.partition import SplitRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Boxes,
    Bullets,
    Cell,
    Facts,
    Heading,
    Line,
    Section,
    ShareBars,
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
from governance.reports.evidence import Evidence
from governance.reports.sections.data_consistency import consistency_blocks
from governance.reports.sections.data_content import content_blocks
from governance.reports.sections.data_correctness import correctness_blocks
from governance.reports.sections.data_coverage import (
    coverage_blocks,
    partition_blocks,
    partition_boxes,
)
from governance.reports.sections.data_tables import counts_text, limit_of, more, share_text, units

_STATES: dict[str, Line] = {
    "absent": Line("absent", "mark", "∅", "unsure"),
    "by proxy": Line("by proxy", "mark", "◐", "unsure"),
    "partly": Line("partly recorded", "mark", "◐", "unsure"),
    "recorded": Line("recorded", "mark", "✓", "good"),
}


def completeness_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """List attributes by how completely they are recorded, then missing files."""
    return (*_attributes(evidence), *_missing(evidence.get(DatasetIdentity)))


def _attributes(evidence: Evidence) -> tuple[Block, ...]:
    coverage = evidence.get(CoverageAudit)
    dataset = evidence.get(DatasetIdentity)
    demographics = evidence.get(DemographicsAudit)
    heading = Heading("Attributes recorded, partly recorded and absent")
    fractions = dict(coverage.completeness) if coverage else {}
    notes: dict[str, tuple[str, ...]] = {}
    proxies: set[str] = set()
    for declared in demographics.declared if demographics else ():
        fractions[declared.name] = declared.completeness
        proxies |= {declared.name} if declared.is_proxy else set()
        notes[declared.name] = (f"column {declared.column}", declared.note)
    absent = dataset.absent_attributes if dataset else ()
    if not fractions and not absent:
        return (heading, Text("What is recorded was not looked at."))
    for entry in absent:
        fractions.setdefault(entry.name, 0.0)
        notes[entry.name] = (entry.consequence, *notes.get(entry.name, ()))
    rows = [
        _row(name, part, notes.get(name, ()), name in proxies)
        for name, part in sorted(fractions.items(), key=lambda entry: (entry[1], entry[0]))
    ]
    head = columns(
        ("Attribute", 0.24),
        ("State", 0.19),
        (f"{units(evidence.unit)} with a value", 0.17, "right"),
        ("What follows from it, or how it was recorded", 0.40),
    )
    return (
        heading,
        Text(_sentence(evidence)),
        Table(head, tuple(rows)),
        *_undeclared(evidence),
    )


def _sentence(evidence: Evidence) -> str:
    limit = limit_of(evidence, "P3-01")
    asked = f" The policy asks for at least {formats.percent(limit, 1)}." if limit else ""
    return (
        f"How many {evidence.unit}s have a value of each attribute. What is absent cannot be "
        f"checked by any later page, and no result can be given by it.{asked}"
    )


def _row(name: str, part: float, notes: tuple[str, ...], is_proxy: bool) -> tuple[Cell, ...]:
    state = "absent" if part == 0 else "recorded" if part >= 1 else "partly"
    state = "by proxy" if is_proxy and part else state
    said = [note for note in notes if note]
    shown = cell(*said) if state == "absent" else cell(*(small(note) for note in said))
    value = "none" if part == 0 else formats.percent(part, 1)
    return (cell(strong(name)), cell(_STATES[state]), cell(value), shown)


def _undeclared(evidence: Evidence) -> tuple[Block, ...]:
    demographics = evidence.get(DemographicsAudit)
    names = demographics.undeclared if demographics else ()
    if not names:
        return ()
    told = f"Usual attributes that the data contract does not declare: {joined(names)}."
    return (Text(told, "note"),)


def _missing(data: DatasetIdentity | None) -> tuple[Block, ...]:
    heading = Heading("Missing files")
    if data is None:
        return (heading, Text("The data set was not read."))
    if not data.n_missing:
        n = formats.counted(data.n_listed, "listed image")
        return (heading, Text(f"Every one of the {n} has a file."))
    share = formats.percent(data.n_missing, data.n_listed)
    text = (
        f"{formats.count(data.n_missing)} of {formats.counted(data.n_listed, 'listed image')} have "
        f"no file ({share}). What they would have shown is unknown; Flow by subgroup says "
        "whom they belong to."
    )
    shown = data.missing_examples[:5]
    more = f"Examples (all that were kept stand in data/dataset.json): {joined(shown)}."
    return (heading, Text(text), *((Bullets((more,)),) if shown else ()))


_LEVELS_SHOWN = 40
_READING = (
    "Six parts say what is known of the data: which images went in and which were lost "
    "(identity and flow); whether what is recorded is right (correctness); what is not recorded "
    "(completeness); who is in the data (coverage); whether its parts fit together (consistency); "
    "and what stands in the pictures besides anatomy (image content). Unknown is said to be "
    "unknown; it is never counted as good."
)


def data_section(evidence: Evidence) -> Section:
    """Build the section on the data that went in and what is known of it."""
    found = quality_sentences(evidence)
    return Section(
        "data",
        "3",
        "Data",
        blocks=(Text(_READING),),
        sections=data_parts(evidence, 3),
        main=(Bullets(found),) if found else (Text("The data was not looked at."),),
    )


def data_parts(evidence: Evidence, number: int | None = None) -> tuple[Section, ...]:
    """Build the six parts: children of section `number`, or own sections from 2 on."""
    covered = coverage_blocks(evidence)
    charts = tuple(block for block in covered if isinstance(block, ShareBars))
    tables = tuple(block for block in covered if not isinstance(block, ShareBars))
    parts: tuple[tuple[str, str, tuple[Block, ...], tuple[Block, ...]], ...] = (
        ("identity", "Identity and flow", _flow_diagram(evidence), _identity_blocks(evidence)),
        ("correctness", "Correctness", (), correctness_blocks(evidence)),
        ("completeness", "Completeness", (), completeness_blocks(evidence)),
        ("coverage", "Coverage", charts, tables),
        ("consistency", "Consistency", (), consistency_blocks(evidence)),
        ("content", "Image content", (), content_blocks(evidence)),
    )
    return tuple(
        Section(
            f"data-{key}",
            f"{number}.{place}" if number else str(place + 1),
            title,
            blocks=blocks,
            main=main,
        )
        for place, (key, title, main, blocks) in enumerate(parts, start=1)
    )


def _flow_diagram(evidence: Evidence) -> tuple[Block, ...]:
    """Draw the images left after each step, and the partitions that they came into."""
    data, split = evidence.get(DatasetIdentity), evidence.get(SplitRecord)
    if data is None:
        return ()
    steps = (*data.flow, *((split.flow,) if split and split.flow else ()))
    rows: list[tuple[tuple[str, str], ...]] = [
        ((s.step, counts_text(s.n_images, s.n_patients, data.split_unit)),) for s in steps
    ]
    if split is not None:
        rows.append(partition_boxes(split))
    return (Boxes("From the publisher's list to the partitions", tuple(rows)),) if rows else ()


def _identity_blocks(evidence: Evidence) -> tuple[Block, ...]:
    split = evidence.get(SplitRecord)
    data = evidence.get(DatasetIdentity)
    if data is None:
        return (Text("The data set was not read."), *partition_blocks(split))
    notes = (Bullets(data.notes),) if data.notes else ()
    steps = (
        *data.flow,
        *((split.flow,) if split and split.flow else ()),
    )
    return (
        Facts(dataset_rows(data)),
        *notes,
        *_flow(data, steps),
        *_flow_by_level(steps, evidence.unit),
        *partition_blocks(split),
    )


_WAYS_SHOWN = 12


def dataset_rows(data: DatasetIdentity) -> tuple[tuple[str, Cell], ...]:
    """Return names and values that identify a data set."""
    kind = "simulated; no patient is behind any image" if data.is_simulated else "patient images"
    pinned = {
        True: "equal to the digest pinned in the configuration",
        False: "differs from the digest pinned in the configuration",
    }
    state = (
        pinned[data.pinned_sha256 == data.content_sha256]
        if data.pinned_sha256
        else "not pinned in the configuration"
    )
    read = (("Images read", cell(_decoded(data))),) if data.n_decoded or data.n_from_cache else ()
    unread = (("Not read", cell(*data.unread)),) if data.unread else ()
    ways = [f"{formats.counted(n, 'image')}: {how}" for how, n in data.conversions.items()]
    if len(ways) > _WAYS_SHOWN:
        ways = [*ways[:_WAYS_SHOWN], f"and {len(ways) - _WAYS_SHOWN} more in {data.PATH}"]
    converted = (("Converted to 8-bit PNG", cell(*ways)),) if ways else ()
    return (
        ("Data set", cell(f"{data.title} ({data.name})")),
        ("Version", cell(data.version or "the publisher gives none")),
        ("DOI", cell(data.doi or "none")),
        ("Licence", cell(data.licence or formats.NOT_AVAILABLE)),
        ("Citation", cell(data.citation or formats.NOT_AVAILABLE)),
        ("Kind", cell(kind)),
        ("Planes selected", cell(data.planes or "all")),
        ("Unit never divided", cell(data.split_unit, small(data.split_unit_note))),
        ("Metadata file", cell(data.metadata_file, mono(data.metadata_sha256))),
        *(
            (("Meaning of its columns", cell("dataset.yaml", mono(data.mapping_sha256))),)
            if data.mapping_sha256
            else ()
        ),
        ("Content digest", cell(mono(data.content_sha256 or formats.NOT_AVAILABLE), small(state))),
        *read,
        *converted,
        *unread,
    )


def _decoded(data: DatasetIdentity) -> str:
    return (
        f"{formats.counted(data.n_decoded, 'file')} decoded in this run; "
        f"{formats.count(data.n_from_cache)} unchanged since an earlier run, whose numbers were "
        "used again"
    )


def _flow(data: DatasetIdentity, steps: tuple[FlowStep, ...]) -> tuple[Block, ...]:
    rows = []
    before: int | None = None
    for step in steps:
        lost = "" if before is None else formats.count(step.n_images - before)
        rows.append(
            (
                cell(strong(step.step)),
                *cells(formats.count(step.n_images), lost, formats.count(step.n_patients)),
                cell(step.note),
            )
        )
        before = step.n_images
    head = columns(
        ("Step", 0.25),
        ("Images", 0.12, "right"),
        ("Change", 0.12, "right"),
        (units(data.split_unit), 0.17, "right"),
        ("Note", 0.34),
    )
    text = Text(
        "Images left after each step, from the publisher's list to the images used. Look for large "
        "losses: images are seldom lost at random, so who is left may differ from who was listed."
    )
    blocks: list[Block] = [Heading("Flow of images"), text, Table(head, tuple(rows))]
    if data.n_missing:
        blocks.append(Text(missing_sentence(data), "note"))
    return tuple(blocks)


def _flow_by_level(steps: tuple[FlowStep, ...], unit: str) -> tuple[Block, ...]:
    """Show the images left of each level after each step, and the share kept of the first."""
    steps = tuple(step for step in steps if step.levels)
    if not steps:
        return ()
    found = [{(e.attribute, e.level): e for e in step.levels} for step in steps]
    names = list(dict.fromkeys(key for levels in found for key in levels))
    share = 0.54 / len(steps)
    head = columns(
        ("Level", 0.34), *((s.step, share, "right") for s in steps), ("Kept", 0.12, "right")
    )
    rows = []
    for attribute, level in names[:_LEVELS_SHOWN]:
        entries = [levels.get((attribute, level)) for levels in found]
        images = [entry.n_images if entry else 0 for entry in entries]
        rows.append(
            (
                cell(f"{attribute}: {level}"),
                *(
                    cell(f"{formats.count(e.n_images)} / {formats.count(e.n_patients)}")
                    if e
                    else cell("0 / 0")
                    for e in entries
                ),
                cell(formats.percent(images[-1], images[0])),
            )
        )
    text = Text(
        f"The same by subgroup, as images / {unit}s, and the share of images kept. The images of "
        "one attribute's levels add up to the step. Look for a level that keeps much less than "
        "the others: the data then says less about it than the publisher's list does."
    )
    note = more(len(names), len(rows), DatasetIdentity.PATH)
    return (Heading("Flow by subgroup"), text, Table(head, tuple(rows), note))


def missing_sentence(data: DatasetIdentity) -> str:
    """Say how many listed images have no file, and what followed.

    The count is over the whole listing. Where missing images are errors, a run that has read its
    images had selected none of those without a file.
    """
    n = f"{formats.count(data.n_missing)} of {formats.count(data.n_listed)} listed images"
    if data.missing_policy == "drop":
        return f"{n} have no file and were dropped, as the configuration asks."
    if data.content_sha256 is not None:
        return f"{n} have no file; none of them was selected."
    return f"{n} are missing."


_NAMED = 8


def limit_sentences_on_data(evidence: Evidence) -> tuple[str, ...]:
    """List limits of the data: confounded attributes, shift, one-sided levels."""
    return (*_confounding(evidence), *_shifts(evidence))


def _confounding(evidence: Evidence) -> tuple[str, ...]:
    audit = evidence.get(DatasetAudit)
    limit = limit_of(evidence, "P3-07")
    pairs = audit.confounding if audit else ()
    return tuple(
        f"{pair.left} and {pair.right} go together (Cramér's V {pair.v:.2f}, p {pair.p_value:.3f}, "
        f"limit {limit:g}): an effect of one cannot be told from an effect of the other."
        for pair in sorted(pairs, key=lambda pair: -pair.v)
        if limit is not None and pair.v > limit
    )


def _shifts(evidence: Evidence) -> tuple[str, ...]:
    """List shifts between training and test set above the limit, and one-sided levels."""
    audit = evidence.get(DatasetAudit)
    limit = limit_of(evidence, "P3-05")
    sentences = []
    for shift in audit.shifts if audit else ():
        if not shift.is_training_to_test:
            continue
        if limit is not None and shift.total_variation > limit:
            share = share_text(shift.total_variation, shift.ci95)
            sentences.append(
                f"{shift.attribute} differs between {shift.left} and {shift.right} by {share} of "
                f"{evidence.unit}s, limit {formats.percent(limit, 1)}."
            )
        if shift.one_sided:
            sentences.append(f"{shift.attribute}, on one side only: {_named(shift.one_sided)}.")
    return tuple(sentences)


def _named(words: tuple[str, ...]) -> str:
    hidden = len(words) - _NAMED
    tail = f" and {formats.count(hidden)} more" if hidden > 0 else ""
    return f"{joined(words[:_NAMED])}{tail}"


def quality_sentences(evidence: Evidence) -> tuple[str, ...]:
    """Summarise copies found and dropped, suspected labels, and the scan of the content."""
    content = evidence.get(ContentScan)
    duplicates = evidence.get(DuplicateAudit)
    labels = evidence.get(LabelAudit)
    sentences: list[str] = []
    if duplicates is not None:
        sentences.append(_duplicates(duplicates, evidence.unit))
    split = evidence.get(SplitRecord)
    if split is not None:
        equal = formats.count(sum(split.shared_content.values()))
        near = formats.count(sum(split.shared_near.values())) if split.shared_near else None
        sentences.append(f"Images with equal pixels in two partitions: {equal}.")
        sentences.append(f"Near-duplicate pairs across partitions: {near or 'not evaluated'}.")
        dropped = formats.counted(len(split.dropped), "image")
        sentences.append(f"Taken out of training as copies: {dropped}.")
    if labels is not None:
        sentences.append(_labels(labels, evidence.unit))
    if content is not None:
        sentences.append(_content(content))
    return tuple(sentences)


def _duplicates(audit: DuplicateAudit, unit: str) -> str:
    exact = formats.counted(audit.n_pairs - audit.n_near, "pair")
    return (
        f"Duplicates among {formats.counted(audit.n_images, 'image')}: {exact} of equal images, "
        f"{formats.counted(audit.n_near, 'near-duplicate pair')}; "
        f"{formats.count(audit.n_pairs_across_patients)} across {unit}s."
    )


def _labels(audit: LabelAudit, unit: str) -> str:
    if audit.balanced_accuracy is None:
        reason = audit.reason.rstrip(".") or "no reason is on record"
        return f"Suspected label errors: not evaluated; {reason}."
    share = audit.n_suspected / audit.n_images if audit.n_images else None
    return (
        f"Suspected label errors in {audit.label}: {formats.count(audit.n_suspected)} of "
        f"{formats.counted(audit.n_images, 'training image')} of "
        f"{formats.counted(audit.n_patients, unit)}, {share_text(share, audit.rate_ci95)}; found by "
        f"a model with a balanced accuracy of {formats.percent(audit.balanced_accuracy, 1)}; "
        f"reviewed {f'by {audit.reviewed}' if audit.reviewed else 'by nobody'}."
    )


def _in_files(scan: ContentScan) -> str:
    if not scan.file_metadata:
        return ""
    kinds = joined([found.kind for found in scan.file_metadata])
    n = formats.counted(scan.n_images_with_metadata, "image")
    return f"; metadata in the files of {n} to look at: {kinds}"


def _content(scan: ContentScan) -> str:
    n = formats.counted(scan.n_scanned, "image")
    text = (
        f"text that looks identifying in {formats.count(scan.n_images_with_marks)} of {n} read"
        if scan.reads_text
        else "identifying text not evaluated, as this engine does not read letters"
    )
    columns = joined([column.column for column in scan.columns])
    return (
        f"Image content ({scan.engine}): {text}; burned-in overlay in "
        f"{formats.count(scan.n_with_overlay)} of {formats.counted(scan.n_images, 'image')}; "
        f"columns that look identifying: {columns}{_in_files(scan)}."
    )
