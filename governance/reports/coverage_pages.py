"""Content on coverage: levels in each partition, concentration on few patients."""

from governance.evidence.documents import Concentration, CoverageAudit, CoverageLevel, DatasetAudit
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Cell,
    Column,
    Heading,
    Share,
    ShareBars,
    Table,
    Text,
    cell,
    columns,
    small,
    strong,
)
from governance.reports.data_evidence import (
    DataEvidence,
    beyond,
    limit_of,
    more,
    part_columns,
    partition_order,
    share_text,
    units,
)
from governance.reports.demographics_pages import demographics_blocks

_LEVELS_SHOWN, _LEVELS_DRAWN = 40, 12
_CLASSES_SHOWN = 40
_ALL = "all"


def coverage_blocks(evidence: DataEvidence) -> tuple[Block, ...]:
    """Who is in the data."""
    return (
        *_levels(evidence.coverage, evidence.unit),
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
    """Levels, partitions and entries of an attribute by level and partition."""
    found = {(e.level, e.partition): e for e in coverage.levels if e.attribute == attribute}
    parts = partition_order({part for _, part in found})
    return tuple(dict.fromkeys(level for level, _ in found)), parts, found


def coverage_table(coverage: CoverageAudit, attribute: str) -> Table:
    """Patients / images of each level of one attribute in each partition and in all."""
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
    return Table(head, rows, more(len(levels), len(shown), "data/coverage.json"))


def _counted(entry: CoverageLevel | None) -> Cell:
    if entry is None:
        return cell("0 / 0")
    return cell(
        f"{formats.count(entry.n_patients)} / {formats.count(entry.n_images)}",
        small(share_text(entry.share, entry.share_ci95)),
    )


def coverage_chart(coverage: CoverageAudit, attribute: str, unit: str) -> ShareBars:
    """Share of each partition's patients by level, with intervals; no rows without shares."""
    levels, parts, found = _entries(coverage, attribute)
    drawn = tuple(part for part in parts if part != _ALL) or parts
    rows = tuple(
        (level, tuple(_bar(found.get((level, part))) for part in drawn))
        for level in levels[:_LEVELS_DRAWN]
    )
    known = any(bar is not None for _, bars in rows for bar in bars)
    return ShareBars(
        title=attribute,
        x_label=f"share of the partition's {unit}s (%), line: 95 % interval",
        groups=drawn,
        rows=rows if known else (),
    )


def _bar(entry: CoverageLevel | None) -> Share | None:
    if entry is None or entry.share is None:
        return None
    return Share(entry.share, entry.share_ci95)


def _concentration(evidence: DataEvidence) -> tuple[Block, ...]:
    heading = Heading(f"How much rests on few {evidence.unit}s")
    record: DatasetAudit | None = evidence.audit
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
    note = more(len(record.concentration), len(shown), "data/audit.json")
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
