"""Consistency of the data: shift, confounding, image quality; duplicates follow."""

from governance.records.audit import AttributeShift, Confounding, DatasetAudit, QuantityLevel
from governance.records.base import TEST, TRAINING
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Heading,
    Table,
    Text,
    cell,
    columns,
    joined,
    small,
    strong,
)
from governance.reports.evidence import Evidence
from governance.reports.sections.data_duplicates import duplicate_blocks
from governance.reports.sections.data_quantities import quantity_blocks, quantity_name
from governance.reports.sections.data_tables import beyond, limit_of, more, share_text

_SHIFTS_SHOWN, _PAIRS_SHOWN = 40, 40
_LEVELS_NAMED = 8
_OUTLIERS_SHOWN = 5


def consistency_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """Build the part on consistency between the parts of the data."""
    audit = evidence.get(DatasetAudit)
    if audit is None:
        told = "Shift, confounding and image quality were not measured."
        return (Text(told), *duplicate_blocks(evidence))
    return (
        *_shifts(evidence, audit),
        *_confounding(evidence, audit),
        *_quality(audit, evidence.unit),
        *duplicate_blocks(evidence),
    )


def _shifts(evidence: Evidence, audit: DatasetAudit) -> tuple[Block, ...]:
    heading = Heading("Shift between partitions")
    if not audit.shifts:
        return (heading, Text("Not measured: the partitions are not known."))
    limit = limit_of(evidence, "P3-05")
    asked = (
        f" The limit, for {TRAINING} against {TEST}, is {formats.percent(limit, 1)}."
        if limit is not None
        else ""
    )
    text = Text(
        f"How differently the {evidence.unit}s of two partitions are spread over the levels: 0 % "
        "alike, 100 % nothing in common. A split without any shift would stay below the chance "
        "level in 95 of 100 cases; look for shifts above it and for levels that only one "
        f"partition has.{asked}"
    )
    head = columns(
        ("Attribute", 0.16),
        ("Partitions", 0.24),
        ("Shift (95 % interval)", 0.21, "right"),
        ("Chance level", 0.12, "right"),
        ("Levels on one side only", 0.27),
    )
    ordered = sorted(audit.shifts, key=lambda entry: -entry.total_variation)
    rows = tuple(_shift_row(entry, limit) for entry in ordered[:_SHIFTS_SHOWN])
    note = more(len(audit.shifts), len(rows), DatasetAudit.PATH)
    return (heading, text, Table(head, rows, note))


def _shift_row(entry: AttributeShift, limit: float | None) -> tuple[Cell, ...]:
    shift = share_text(entry.total_variation, entry.ci95)
    limited = entry.is_training_to_test
    above = limited and limit is not None and entry.total_variation > limit
    floor = formats.DASH if entry.floor is None else formats.percent(entry.floor, 1)
    return (
        cell(strong(entry.attribute)),
        cell(f"{entry.left} | {entry.right}"),
        cell(beyond(shift), small("above the limit")) if above else cell(shift),
        cell(floor),
        _named(entry.one_sided),
    )


def _named(levels: tuple[str, ...]) -> Cell:
    if not levels:
        return cell("none")
    hidden = len(levels) - _LEVELS_NAMED
    tail = (small(f"{hidden} more in data/audit.json"),) if hidden > 0 else ()
    return cell(*(small(level) for level in levels[:_LEVELS_NAMED]), *tail)


def _confounding(evidence: Evidence, audit: DatasetAudit) -> tuple[Block, ...]:
    heading = Heading("Attributes that go together")
    if not audit.confounding:
        return (heading, Text("Not measured: fewer than two attributes are recorded."))
    limit = limit_of(evidence, "P3-07")
    asked = f" The limit is {limit:g}." if limit is not None else ""
    n = formats.count(max(entry.n_permutations for entry in audit.confounding))
    text = Text(
        "Cramér's V says how far one attribute gives away another: 0 not at all, 1 entirely. "
        "Where it is high, an effect of one cannot be told from an effect of the other. p is the "
        f"share of {n} random exchanges of whole {evidence.unit}s with a V at least as "
        f"large.{asked}"
    )
    head = columns(
        ("Attributes", 0.26),
        ("Cramér's V", 0.14, "right"),
        ("p", 0.10, "right"),
        (f"Images / {evidence.unit}s", 0.18, "right"),
        ("Levels found with one level only", 0.32),
    )
    ordered = sorted(audit.confounding, key=lambda entry: -entry.v)
    rows = tuple(_confounding_row(entry, limit) for entry in ordered[:_PAIRS_SHOWN])
    note = more(len(audit.confounding), len(rows), DatasetAudit.PATH)
    return (heading, text, Table(head, rows, note))


def _confounding_row(entry: Confounding, limit: float | None) -> tuple[Cell, ...]:
    above = limit is not None and entry.v > limit
    v = f"{entry.v:.2f}"
    return (
        cell(strong(f"{entry.left} and {entry.right}")),
        cell(beyond(v), small("above the limit")) if above else cell(v),
        cell(f"{entry.p_value:.3f}"),
        cell(f"{formats.count(entry.n_images)} / {formats.count(entry.n_patients)}"),
        _named(entry.exclusive),
    )


def _quality(audit: DatasetAudit, unit: str) -> tuple[Block, ...]:
    heading = Heading("Image quality by partition")
    if not audit.quality:
        return (heading, Text("Image quality was not measured."))
    text = Text(
        "Brightness, contrast, sharpness and size of the images in each partition. Look for rows "
        "of one number that differ: a model may then learn the partition and not the anatomy."
    )
    return (
        heading,
        text,
        *quantity_blocks(audit.quality, unit, DatasetAudit.PATH),
        *_outliers(audit.quality),
    )


def _outliers(entries: tuple[QuantityLevel, ...]) -> tuple[Block, ...]:
    """List images with outlying numbers, once for each number, over all images if counted."""
    wanted = [entry for entry in entries if entry.partition == "all"] or list(entries)
    told = [_outlier_sentence(entry) for entry in wanted if entry.n_outliers]
    if not told:
        return (Text("No image lies far outside the others in any of these numbers.", "note"),)
    text = Text(
        "Images far outside the others (more than three interquartile ranges from the quartiles); "
        "look at them before relying on them:"
    )
    return (text, Bullets(tuple(told)))


def _outlier_sentence(entry: QuantityLevel) -> str:
    part = "" if entry.partition == "all" else f", {entry.partition}"
    shown = joined(entry.outliers[:_OUTLIERS_SHOWN])
    n = formats.counted(entry.n_outliers, "image")
    tail = ", …" if entry.n_outliers > min(len(entry.outliers), _OUTLIERS_SHOWN) else ""
    return f"{quantity_name(entry)}{part}: {n}: {shown}{tail}"
