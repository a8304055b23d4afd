"""Small pieces shared by all parts of the data section, in a run and in a data check."""

from governance.records.audit import DEVELOPMENT
from governance.records.base import TEST, TRAINING, TUNING
from governance.reports import formats
from governance.reports.blocks import Cell, Column, Line, columns
from governance.reports.evidence import Evidence

_ALL = "all"
_WIDEST_PART, _LEAST_REST = 0.24, 0.05


def units(unit: str) -> str:
    """Return the plural of the unit as a heading: "Patients", "Examinations"."""
    return f"{unit[:1].upper()}{unit[1:]}s"


def limit_of(evidence: Evidence, item_id: str) -> float | None:
    """Return the limit of an item's criterion: frozen, else the policy's; None without one."""
    record = evidence.records.get(item_id)
    criterion = record.criterion if record else None
    if criterion is None and evidence.policy is not None:
        found = [item.criterion for item in evidence.policy.items if item.id == item_id]
        value = found[0].value if found and found[0] else None
    else:
        value = criterion.value if criterion else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value is not None else None


def beyond(text: str) -> Line:
    """Return a line that marks a number as beyond its limit, by mark, word and colour."""
    return Line(text, "mark", "!", "unsure")


def more(n_all: int, n_shown: int, path: str) -> str:
    """Return the note under a table that was cut; "" when it was not."""
    return f"{formats.count(n_all - n_shown)} more in {path}." if n_all > n_shown else ""


def partition_order(found: set[str]) -> tuple[str, ...]:
    """Sort partitions as in the report, other names after them, "all" last."""
    order = (TRAINING, DEVELOPMENT, TUNING, TEST)
    known = [part for part in order if part in found]
    other = sorted(found - {*order, _ALL})
    return (*known, *other, *([_ALL] if _ALL in found else []))


def part_columns(
    parts: tuple[str, ...], room: float
) -> tuple[tuple[Column, ...], tuple[Cell, ...]]:
    """Return columns of counts, one for each partition, and the empty cells that end a row.

    Few partitions leave room at the right, so that counts stay near their row names.
    """
    width = min(_WIDEST_PART, room / max(1, len(parts)))
    rest = room - width * len(parts)
    made = columns(*((part, width, "right") for part in parts))
    return ((*made, Column("", rest)), ((),)) if rest > _LEAST_REST else (made, ())


def share_text(share: float | None, ci95: tuple[float, float] | None) -> str:
    """Write a share with its 95 % interval: "89.5 % (75.9 to 95.8)"; "" for None."""
    if share is None:
        return ""
    interval = f" ({100 * ci95[0]:.1f} to {100 * ci95[1]:.1f})" if ci95 else ""
    return f"{formats.percent(share, 1)}{interval}"


def counts_text(n_images: int, n_patients: int, unit: str) -> str:
    """Return images and patients, or the unit that stands for them, in words."""
    return f"{formats.counted(n_images, 'image')} of {formats.counted(n_patients, unit)}"
