"""Content on demographics: declared attributes, cells, numbers, target population."""

from governance.evidence.documents import (
    DemographicCell,
    DemographicsAudit,
    TargetDistance,
)
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
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
from governance.reports.data_evidence import (
    DataEvidence,
    more,
    part_columns,
    partition_order,
    share_text,
    units,
)
from governance.reports.quantity_pages import quantity_blocks

_ROWS_SHOWN = 30


def demographics_blocks(evidence: DataEvidence) -> tuple[Block, ...]:
    """Who the patients are, as far as the data set declares it."""
    heading = Heading("Demographics")
    record = evidence.demographics
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
        *_cells(record, evidence.unit),
        *quantity_blocks(record.numbers, evidence.unit, "data/demographics.json"),
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


def _cells(record: DemographicsAudit, unit: str) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for size, title in ((1, "by attribute"), (2, "by two attributes at once")):
        entries = [entry for entry in record.cells if len(entry.attributes) == size]
        if entries:
            blocks.append(Text(f"{units(unit)} {title}", "lead"))
            blocks.append(_cell_table(entries, record.smallest_cell))
    return tuple(blocks)


def _cell_table(entries: list[DemographicCell], smallest: int) -> Table:
    """One row a level or combination; the attribute is named in its first row."""
    parts = partition_order({entry.partition for entry in entries})
    found = {(entry.attributes, entry.levels, entry.partition): entry for entry in entries}
    keys = list(dict.fromkeys((entry.attributes, entry.levels) for entry in entries))
    counts, rest = part_columns(parts, 0.72)
    head = (Column("Attribute", 0.13), Column("Level", 0.15), *counts)
    shown = keys[:_ROWS_SHOWN]
    rows: list[tuple[Cell, ...]] = []
    named: tuple[str, ...] = ()
    for attributes, levels in shown:
        name = "" if attributes == named else " and ".join(attributes)
        named = attributes
        seen = (_counted_cell(found.get((attributes, levels, part)), smallest) for part in parts)
        rows.append((cell(strong(name)), cell(", ".join(levels)), *seen, *rest))
    return Table(head, tuple(rows), more(len(keys), len(shown), "data/demographics.json"))


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
