"""Coverage of the data: levels, concentration, demographics and partitions."""

from governance.records.audit import (
    Concentration,
    CoverageAudit,
    CoverageLevel,
    DatasetAudit,
    DemographicCell,
    DemographicsAudit,
    MissingCombination,
    TargetDistance,
)
from governance.records.partition import SplitRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Heading,
    Share,
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
from governance.reports.sections.data_quantities import quantity_blocks
from governance.reports.sections.data_tables import (
    beyond,
    counts_text,
    limit_of,
    more,
    part_columns,
    partition_order,
    share_text,
    units,
)

_ROWS_SHOWN = 30


def demographics_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """Show the demographic attributes of the patients that the data set declares."""
    heading = Heading("Demographics")
    record = evidence.get(DemographicsAudit)
    if record is None:
        return (heading, Text("Demographics were not looked at."))
    if not record.declared:
        absent = f" Usual attributes that are missing: {joined(record.undeclared)}."
        told = (
            f"Not evaluated: the data contract declares no attribute of the {evidence.unit}s, so "
            f"whom the data leaves out cannot be shown.{absent if record.undeclared else ''}"
        )
        return (heading, Text(told), *_target(record, evidence.unit))
    return (
        heading,
        Text(_sentence(record, evidence.unit)),
        *_seen_at_once(record, evidence.unit),
        *_cells(record, evidence.unit),
        *quantity_blocks(record.numbers, evidence.unit, DemographicsAudit.PATH),
        *_target(record, evidence.unit),
    )


def _sentence(record: DemographicsAudit, unit: str) -> str:
    names = joined([entry.name for entry in record.declared])
    return (
        f"Declared and counted: {names}. Counts are of {unit}s with a value; a share has its 95 % "
        f"interval below. Cells with fewer than {formats.counted(record.smallest_cell, unit)} are "
        f"shown as “< {record.smallest_cell}”, and so is a cell that would let them be worked "
        f"out: {formats.count(record.n_suppressed)} in all."
    )


def _charts(record: DemographicsAudit, unit: str) -> tuple[Block, ...]:
    """Return one chart an attribute: shares by level in each partition, and in the target."""
    single = {
        (entry.attributes[0], entry.levels[0], entry.partition): entry
        for entry in record.cells
        if len(entry.attributes) == 1
    }
    targets = {entry.attribute: entry.shares for entry in record.distances if entry.shares}
    charts = []
    for declared in record.declared:
        name = declared.name
        levels = list(dict.fromkeys(level for n, level, _ in single if n == name))
        parts = partition_order({part for n, _, part in single if n == name})
        # Four colours at most: all patients are drawn where two partitions leave room.
        drawn = parts if len(parts) <= 3 else tuple(part for part in parts if part != _ALL)
        target = targets.get(name, {})
        rows = tuple(
            (
                level,
                (
                    *(_cell_bar(single.get((name, level, part))) for part in drawn),
                    *((Share(target[level]) if level in target else None,) if target else ()),
                ),
            )
            for level in levels[:_LEVELS_DRAWN]
        )
        if rows:
            words = f"known for {formats.percent(declared.completeness, 1)} of {unit}s"
            charts.append(
                ShareBars(
                    title=f"{name}{' (by proxy)' if declared.is_proxy else ''}, {words}",
                    x_label=f"% of {unit}s with a value; line: 95 % interval",
                    groups=(
                        *("all together" if part == _ALL else part for part in drawn),
                        *(("target population",) if target else ()),
                    ),
                    rows=rows,
                    absent=f"withheld, to protect few {unit}s",
                )
            )
    return tuple(charts)


def _cell_bar(entry: DemographicCell | None) -> Share | None:
    return None if entry is None or entry.share is None else Share(entry.share, entry.share_ci95)


def _seen_at_once(record: DemographicsAudit, unit: str) -> tuple[Block, ...]:
    """Return charts and missing combinations; an older audit is shown as it was, by tables alone."""
    if record.missing_combinations is None:
        return ()
    return (*_charts(record, unit), *_missing(record.missing_combinations, unit))


def _missing(gaps: tuple[MissingCombination, ...], unit: str) -> tuple[Block, ...]:
    """List the combinations of two levels that are missing beyond chance."""
    lead = Text("Combinations that are missing", "lead")
    if not gaps:
        none = f"No combination of two levels lacks {unit}s where chance would give some."
        return (lead, Text(none))
    told = tuple(
        f"No {unit} {'' if gap.partition == _ALL else f'in {gap.partition} '}has "
        f"{gap.attributes[0]} {gap.levels[0]} together with {gap.attributes[1]} {gap.levels[1]}; "
        f"were the two independent, {gap.expected:.1f} would be expected (p {gap.p_value:.1g})."
        for gap in gaps
    )
    return (lead, Bullets(told))


def _cells(record: DemographicsAudit, unit: str) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for size, title in ((1, "by attribute"), (2, "by two attributes at once")):
        entries = [entry for entry in record.cells if len(entry.attributes) == size]
        if entries:
            blocks.append(Text(f"{units(unit)} {title}", "lead"))
            blocks.append(_cell_table(entries, record.smallest_cell))
    return tuple(blocks)


def _cell_table(entries: list[DemographicCell], smallest: int) -> Table:
    """Return a table with a row for each level or combination, attribute in the first row."""
    parts = partition_order({entry.partition for entry in entries})
    found = {(entry.attributes, entry.levels, entry.partition): entry for entry in entries}
    keys = list(dict.fromkeys((entry.attributes, entry.levels) for entry in entries))
    counts, rest = part_columns(parts, 0.66)
    head = (Column("Attribute", 0.16), Column("Level", 0.18), *counts)
    shown = keys[:_ROWS_SHOWN]
    rows: list[tuple[Cell, ...]] = []
    named: tuple[str, ...] = ()
    for attributes, levels in shown:
        name = "" if attributes == named else " and ".join(attributes)
        named = attributes
        seen = (_counted_cell(found.get((attributes, levels, part)), smallest) for part in parts)
        rows.append((cell(strong(name)), cell(", ".join(levels)), *seen, *rest))
    return Table(head, tuple(rows), more(len(keys), len(shown), DemographicsAudit.PATH))


def _counted_cell(entry: DemographicCell | None, smallest: int) -> Cell:
    if entry is None:
        return cell(formats.DASH)
    if entry.n_patients is None:
        return cell(f"< {smallest}", small("suppressed"))
    return cell(formats.count(entry.n_patients), small(share_text(entry.share, entry.share_ci95)))


def _target(record: DemographicsAudit, unit: str) -> tuple[Block, ...]:
    heading = Heading("Distance to the target population")
    if not record.target_name:
        told = (
            "Not evaluated: no target population is declared, so nothing can be compared with it."
        )
        return (heading, Text(told))
    text = Text(
        f"Declared target population: {record.target_name}. The distance is half the sum of the "
        f"differences of shares: 0 % when the {unit}s are spread over the levels as in the target, "
        "100 % when no level is common to both."
    )
    head = columns(
        ("Attribute", 0.20),
        ("Distance (95 % interval)", 0.24, "right"),
        (units(unit), 0.12, "right"),
        ("Widest difference", 0.22),
        ("Source of the target", 0.22),
    )
    rows = tuple(_distance_row(entry) for entry in record.distances)
    missing = (Bullets(record.not_compared),) if record.not_compared else ()
    note = "" if rows else "No attribute could be compared."
    return (
        heading,
        text,
        Table(head, rows, note),
        *((Text("Not compared:"), *missing) if missing else ()),
    )


def _distance_row(entry: TargetDistance) -> tuple[Cell, ...]:
    return cells(
        entry.attribute,
        share_text(entry.total_variation, entry.ci95),
        formats.count(entry.n_patients),
        entry.widest,
        entry.source,
    )


_LEVELS_SHOWN, _LEVELS_DRAWN = 40, 12
_CLASSES_SHOWN = 40
_ALL = "all"


def coverage_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """Build the part on the patients and images behind each level of each attribute."""
    return (
        *_levels(evidence.get(CoverageAudit), evidence.unit),
        *_concentration(evidence),
        *demographics_blocks(evidence),
    )


def _levels(coverage: CoverageAudit | None, unit: str) -> tuple[Block, ...]:
    heading = Heading(f"{units(unit)} and images by level and partition")
    if coverage is None:
        return (heading, Text("Coverage was not counted."))
    if not coverage.levels:
        return (heading, Text("No attribute is recorded that could be counted."))
    text = Text(
        f"Each cell gives {unit}s / images and, below, the share of the partition's {unit}s with "
        f"its 95 % interval. One {unit} can count in several levels. Look for levels that are "
        "small or missing in one partition: little can be said about them."
    )
    charts = [coverage_chart(coverage, name, unit) for name in coverage.attributes]
    return (
        heading,
        text,
        *(chart for chart in charts if chart.rows),
        *(coverage_table(coverage, name) for name in coverage.attributes),
    )


def _entries(
    coverage: CoverageAudit, attribute: str
) -> tuple[tuple[str, ...], tuple[str, ...], dict[tuple[str, str], CoverageLevel]]:
    """Return levels, partitions, and entries by level and partition, of an attribute."""
    found = {(e.level, e.partition): e for e in coverage.levels if e.attribute == attribute}
    parts = partition_order({part for _, part in found})
    return tuple(dict.fromkeys(level for level, _ in found)), parts, found


def coverage_table(coverage: CoverageAudit, attribute: str) -> Table:
    """Return patients / images of each level of an attribute, by partition and in all."""
    levels, parts, found = _entries(coverage, attribute)
    counts, rest = part_columns(parts, 0.74)
    head = (Column(attribute, 0.26), *counts)
    shown = levels[:_LEVELS_SHOWN]
    rows = tuple(
        (
            cell(strong(level or "(no value)")),
            *(_counted(found.get((level, part))) for part in parts),
            *rest,
        )
        for level in shown
    )
    return Table(head, rows, more(len(levels), len(shown), CoverageAudit.PATH))


def _counted(entry: CoverageLevel | None) -> Cell:
    if entry is None:
        return cell("0 / 0")
    return cell(
        f"{formats.count(entry.n_patients)} / {formats.count(entry.n_images)}",
        small(share_text(entry.share, entry.share_ci95)),
    )


def coverage_chart(coverage: CoverageAudit, attribute: str, unit: str) -> ShareBars:
    """Chart each partition's share of patients by level; no rows without shares."""
    levels, parts, found = _entries(coverage, attribute)
    drawn = tuple(part for part in parts if part != _ALL) or parts
    rows = tuple(
        (level, tuple(_bar(found.get((level, part))) for part in drawn))
        for level in levels[:_LEVELS_DRAWN]
    )
    known = any(bar is not None for _, bars in rows for bar in bars)
    return ShareBars(
        title=attribute,
        x_label=f"% of the partition's {unit}s; line: 95 % interval",
        groups=drawn,
        rows=rows if known else (),
    )


def _bar(entry: CoverageLevel | None) -> Share | None:
    if entry is None or entry.share is None:
        return None
    return Share(entry.share, entry.share_ci95)


def _concentration(evidence: Evidence) -> tuple[Block, ...]:
    heading = Heading(f"How much rests on few {evidence.unit}s")
    record: DatasetAudit | None = evidence.get(DatasetAudit)
    if record is None or not record.concentration:
        return (heading, Text("Concentration was not measured."))
    limit = limit_of(evidence, "P3-06")
    asked = f" The limit is {formats.percent(limit, 1)} of a class." if limit is not None else ""
    text = Text(
        f"The largest {evidence.unit}'s share of the images, and the effective number of "
        f"{evidence.unit}s: how many {evidence.unit}s with equally many images would be as "
        f"varied. Look for an effective number far below the {evidence.unit}s counted.{asked}"
    )
    head = columns(
        ("Images of", 0.28),
        (units(evidence.unit), 0.13, "right"),
        ("Images", 0.12, "right"),
        (f"Effective {evidence.unit}s", 0.17, "right"),
        (f"Largest {evidence.unit}'s share of the images", 0.30),
    )
    shown = record.concentration[:_CLASSES_SHOWN]
    rows = tuple(_concentration_row(entry, limit, evidence.unit) for entry in shown)
    note = more(len(record.concentration), len(shown), DatasetAudit.PATH)
    return (heading, text, Table(head, rows, note))


def _concentration_row(entry: Concentration, limit: float | None, unit: str) -> tuple[Cell, ...]:
    name = "all images" if entry.attribute == _ALL else f"{entry.attribute}: {entry.level}"
    above = limit is not None and entry.largest_share > limit
    share = formats.percent(entry.largest_share, 1)
    return (
        cell(strong(name)),
        cell(formats.count(entry.n_patients)),
        cell(formats.count(entry.n_images)),
        cell(f"{entry.effective_patients:,.1f}"),
        cell(
            beyond(f"{share}, above the limit") if above else share,
            small(f"{unit} {entry.largest_patient}"),
        ),
    )


OFFICIAL_SPLIT_UNUSED = "the official split of the data set was not used"
_SAID_BARELY = {OFFICIAL_SPLIT_UNUSED, "the data set's official split was not used"}
_DROPPED_SHOWN = 20


def partition_boxes(split: SplitRecord) -> tuple[tuple[str, str], ...]:
    """Return a box for each partition: its name and what it holds."""
    return tuple(
        (part.partition, counts_text(part.n_images, part.n_patients, split.unit))
        for part in split.partitions
    )


def partition_blocks(split: SplitRecord | None) -> tuple[Block, ...]:
    """Show the partitions, what they share, and departures from the official split."""
    if split is None:
        return (Heading("Partitions"), Text("The data was not divided."))
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
    told = tuple(formats.sentence(deviation) for deviation in split_deviations(split))
    return (
        Heading("Partitions"),
        *_refused(split),
        Text(_split_sentence(split)),
        Table(head, rows),
        Text(
            "What any two partitions share. Every number should be 0: whatever stands on both "
            "sides makes a test look better than it is."
        ),
        _shared(split),
        *((Bullets(told),) if told else ()),
        *_dropped(split),
    )


def _refused(split: SplitRecord) -> tuple[Block, ...]:
    """Say why the split was refused; the tables then show the one that was tried."""
    if not split.refused:
        return ()
    told = Text("This split was refused; the tables show the one that was tried.", "lead")
    return (told, Text(formats.sentence(split.refused)))


def _shared(split: SplitRecord) -> Table:
    head = columns(
        ("Pair of partitions", 0.37),
        (f"{units(split.unit)} in both", 0.19, "right"),
        ("Images with equal pixels in both", 0.22, "right"),
        ("Near-duplicate pairs across", 0.22, "right"),
    )
    pairs = sorted({*split.shared_patients, *split.shared_content, *split.shared_near})
    return Table(
        head,
        tuple(
            cells(
                pair,
                formats.count(split.shared_patients.get(pair)),
                formats.count(split.shared_content.get(pair)),
                formats.count(split.shared_near.get(pair)),
            )
            for pair in pairs
        ),
    )


def _dropped(split: SplitRecord) -> tuple[Block, ...]:
    if not split.dropped:
        return ()
    shown = split.dropped[:_DROPPED_SHOWN]
    note = more(len(split.dropped), len(shown), SplitRecord.PATH)
    return (
        Text("Taken out of training, each with its reason:"),
        Bullets(shown),
        *((Text(note, "note"),) if note else ()),
    )


def split_deviations(split: SplitRecord) -> tuple[str, ...]:
    """Return departures from the official split, each once, without full stops.

    The bare statement that the split was not used is left out where a fuller one says so.
    """
    told = dict.fromkeys(deviation.strip().rstrip(".") for deviation in split.deviations)
    fuller = [deviation for deviation in told if deviation not in _SAID_BARELY]
    if len(fuller) == len(told) or any(d.startswith(OFFICIAL_SPLIT_UNUSED) for d in fuller):
        return tuple(fuller)
    return (OFFICIAL_SPLIT_UNUSED, *fuller)


def _split_sentence(split: SplitRecord) -> str:
    """Say how the split was made, by what unit, and how many images it cost."""
    official = "brings an" if split.official_available else "brings no"
    return (
        f"Split {split.source}; the data set {official} official split. Divided by {split.unit}, "
        f"seed {split.seed}. Images taken out of training as copies: "
        f"{formats.count(len(split.dropped))}."
    )
