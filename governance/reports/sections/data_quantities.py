"""Numbers of images and patients by partition: one chart and one table for all of them."""

from governance.records.audit import QuantityLevel
from governance.reports import formats
from governance.reports.blocks import Block, Cell, RangeBars, Table, cell, columns, strong
from governance.reports.sections.data_tables import more, partition_order

_ROWS_SHOWN = 60
# Places of the quantiles 5, 25, 50, 75 and 95 per cent in `QuantityLevel.quantiles`.
_LOW, _LOW_QUARTER, _MEDIAN, _HIGH_QUARTER, _HIGH = 2, 3, 4, 5, 6


def quantity_blocks(entries: tuple[QuantityLevel, ...], unit: str, path: str) -> tuple[Block, ...]:
    """Return charts and one table with the quantiles of each number in each partition."""
    entries = tuple(entry for entry in entries if entry.n_images and entry.quantiles)
    if not entries:
        return ()
    grouped: dict[str, list[QuantityLevel]] = {}
    for entry in entries:
        grouped.setdefault(entry.quantity, []).append(entry)
    charts = tuple(quantity_chart(members) for members in grouped.values())
    head = columns(
        ("Number", 0.19),
        ("Partition", 0.16),
        (f"Images / {unit}s", 0.15, "right"),
        ("Median", 0.09, "right"),
        ("Middle half", 0.135, "right"),
        ("5 % to 95 %", 0.135, "right"),
        ("Lowest to highest", 0.14, "right"),
    )
    rows: list[tuple[Cell, ...]] = []
    for members in grouped.values():
        ordered = _by_partition(members)
        rows.extend(quantity_row(entry, place == 0) for place, entry in enumerate(ordered))
    shown = tuple(rows[:_ROWS_SHOWN])
    return (*charts, Table(head, shown, more(len(rows), len(shown), path)))


def _by_partition(members: list[QuantityLevel]) -> list[QuantityLevel]:
    order = partition_order({entry.partition for entry in members})
    return sorted(members, key=lambda entry: order.index(entry.partition))


def quantity_name(entry: QuantityLevel) -> str:
    """Return name and unit of a quantity for people, e.g. "head circumference (mm)"."""
    name = entry.quantity
    for ending in ("_mm", "_px", "_weeks"):
        name = name.removesuffix(ending)
    name = name.replace("_", " ")
    return f"{name} ({entry.unit})" if entry.unit else f"{name} (no unit)"


def quantity_chart(members: list[QuantityLevel]) -> RangeBars:
    """Chart median, middle half and 5 to 95 % of one number, one row a partition."""
    return RangeBars(
        title=quantity_name(members[0]),
        x_label="line: 5 % to 95 %, box: middle half, stroke: median",
        rows=tuple(
            (
                entry.partition,
                (
                    entry.quantiles[_LOW],
                    entry.quantiles[_LOW_QUARTER],
                    entry.quantiles[_MEDIAN],
                    entry.quantiles[_HIGH_QUARTER],
                    entry.quantiles[_HIGH],
                ),
            )
            for entry in _by_partition(members)
        ),
    )


def quantity_row(entry: QuantityLevel, named: bool) -> tuple[Cell, ...]:
    """Return one partition's quantiles; the number is named only in its first row."""
    places = formats.decimals(*entry.quantiles)
    q = [formats.number(float(value), places) for value in entry.quantiles]
    return (
        cell(strong(quantity_name(entry)) if named else ""),
        cell(entry.partition),
        cell(f"{formats.count(entry.n_images)} / {formats.count(entry.n_patients)}"),
        cell(q[_MEDIAN]),
        cell(f"{q[_LOW_QUARTER]} to {q[_HIGH_QUARTER]}"),
        cell(f"{q[_LOW]} to {q[_HIGH]}"),
        cell(f"{q[0]} to {q[-1]}"),
    )
