"""Evidence items as reports show them: the policy's items joined with the run's records."""

from dataclasses import dataclass

from governance.policy.load import condition_item
from governance.records.base import ItemClass, ItemStatus
from governance.records.policy import Criterion, Item
from governance.reports import formats
from governance.reports.blocks import Cell, Table, cell, columns, mono, small, status_line, strong
from governance.reports.evidence import ReportEvidence

DECLARED_NOTE = "declared, not verified"
_NO_RECORD = "no record was written"
_CLASS_ORDER = {ItemClass.CORE: 0, ItemClass.REQUIRED: 1, ItemClass.INFORMATIVE: 2}
GAPS = (ItemStatus.FAILED, ItemStatus.NOT_EVALUATED, ItemStatus.MISSING)


@dataclass(frozen=True)
class ItemView:
    """One item as a report shows it.

    Attributes:
        value: Observed value with unit; "" when nothing was measured.
        interval: 95 % interval; "" when there is none.
        basis: Patients, images and partition behind the value; "" when nothing was measured.
        artifact: Path of the evidence; digest: its SHA-256; both "" when there is none.
        waiver: Waiver of the item, its state and effect; "" when there is none.
    """

    id: str
    principle: str
    title: str
    item_class: ItemClass
    is_human: bool
    is_gate: bool
    status: ItemStatus
    criterion: str
    value: str
    interval: str
    basis: str
    reason: str
    method: str
    limitations: str
    artifact: str
    digest: str
    waiver: str = ""

    @property
    def is_gap(self) -> bool:
        """Whether it failed, is missing or was not evaluated."""
        return self.status in GAPS


def item_views(evidence: ReportEvidence) -> tuple[ItemView, ...]:
    """Return the items asked for, in the policy's order; those on record without a policy."""
    gate = {line.item_id for line in evidence.summary.gate_items}
    if evidence.policy is None:
        ordered = sorted(evidence.records, key=natural_key)
        return tuple(_from_record(evidence, item_id, None, gate) for item_id in ordered)
    return tuple(
        _from_record(evidence, item.id, item, gate)
        if item.id in evidence.records
        else _without_record(item, gate)
        for item in evidence.policy.items
        if _is_asked(item, evidence)
    )


def _is_asked(item: Item, evidence: ReportEvidence) -> bool:
    """Whether the item's condition holds, by the rule of the roll-up."""
    other = condition_item(item)
    if other is None or other not in evidence.records:
        return True
    return evidence.records[other].status is ItemStatus.NOT_EVALUATED


def _from_record(
    evidence: ReportEvidence, item_id: str, item: Item | None, gate: set[str]
) -> ItemView:
    record = evidence.records[item_id]
    limit: Criterion | None = record.criterion or (item.criterion if item else None)
    value = interval = basis = ""
    if record.observed is not None:
        seen = record.observed
        value, interval = _observed(seen.value, seen.unit, seen.ci95)
        basis = basis_text(seen.n_patients, seen.n_images, seen.partition, evidence.unit)
    return ItemView(
        id=item_id,
        principle=record.principle,
        title=record.title,
        item_class=record.item_class,
        is_human=record.kind == "human",
        is_gate=item_id in gate,
        status=record.status,
        criterion=_criterion_text(limit),
        value=value,
        interval=interval,
        basis=basis,
        reason=record.reason,
        method=record.method,
        limitations=record.limitations,
        artifact=record.artifact.path if record.artifact else "",
        digest=record.artifact.sha256 if record.artifact else "",
        waiver=_waiver(evidence, item_id),
    )


def _waiver(evidence: ReportEvidence, item_id: str) -> str:
    for line in evidence.summary.waivers:
        if line.item_id == item_id:
            return f"Waiver by {line.author}, {line.state}; effect: {line.effect}."
    return ""


def _without_record(item: Item, gate: set[str]) -> ItemView:
    return ItemView(
        id=item.id,
        principle=item.id.split("-")[0],
        title=item.title,
        item_class=item.item_class,
        is_human=item.kind == "human",
        is_gate=item.id in gate,
        status=ItemStatus.NOT_EVALUATED,
        criterion=_criterion_text(item.criterion),
        value="",
        interval="",
        basis="",
        reason=_NO_RECORD,
        method="",
        limitations="",
        artifact="",
        digest="",
    )


def _observed(
    value: float | int | bool | str | None, unit: str, ci95: tuple[float, float] | None
) -> tuple[str, str]:
    if ci95 is None or isinstance(value, bool | str) or value is None:
        return formats.with_unit(value, unit), ""
    text, interval = formats.estimate(float(value), ci95)
    return formats.with_unit(text, unit), interval


def _criterion_text(limit: Criterion | None) -> str:
    if limit is None:
        return ""
    return f"{limit.metric}: {formats.criterion(limit)}" if limit.metric else ""


def basis_text(
    n_patients: int | None, n_images: int | None, partition: str | None, unit: str
) -> str:
    """Return units, images and partition behind a number, in one line."""
    parts = []
    if n_patients is not None:
        parts.append(formats.counted(n_patients, unit))
    if n_images is not None:
        parts.append(formats.counted(n_images, "image"))
    if partition:
        parts.append(partition)
    return ", ".join(parts)


def natural_key(item_id: str) -> tuple[int, bool, int]:
    """Return a key that sorts item ids in natural order: P2-02, P2-10, P2-H1."""
    principle, _, rest = item_id.removeprefix("P").partition("-")
    return int(principle), rest.startswith("H"), int(rest.lstrip("H"))


def by_weight(items: tuple[ItemView, ...]) -> tuple[ItemView, ...]:
    """Sort items: gate items first, failed before unknown, core before required."""
    order = {status: place for place, status in enumerate(GAPS)}
    return tuple(
        sorted(
            items,
            key=lambda item: (
                not item.is_gate,
                order.get(item.status, len(order)),
                _CLASS_ORDER[item.item_class],
            ),
        )
    )


def item_table(items: tuple[ItemView, ...]) -> Table:
    """Return a table of items with criterion, observed value, status, reason and digest."""
    return Table(
        columns(("Item", 0.13), ("What must be shown", 0.29), ("Observed", 0.18), ("Status", 0.40)),
        tuple((_name(item), _asked(item), _seen(item), _standing(item)) for item in items),
    )


def _name(item: ItemView) -> Cell:
    return cell(
        strong(item.id),
        small(item.item_class.word),
        small("gate" if item.is_gate else ""),
    )


def _asked(item: ItemView) -> Cell:
    return cell(item.title, small(item.criterion or _asked_of_people(item)))


def _asked_of_people(item: ItemView) -> str:
    return "rests on a named person's word" if item.is_human else ""


def _seen(item: ItemView) -> Cell:
    if not item.value:
        return cell(formats.DASH)
    interval = f"95 % interval {item.interval}" if item.interval else ""
    return cell(item.value, small(interval), small(item.basis))


def _standing(item: ItemView) -> Cell:
    declared = DECLARED_NOTE if item.status is ItemStatus.DECLARED else ""
    return cell(
        status_line(item.status),
        item.reason,
        small(declared),
        small(item.waiver),
        small(f"How: {item.method}" if item.method else ""),
        small(f"Does not show: {item.limitations}" if item.limitations else ""),
        mono(f"{item.artifact} {formats.short(item.digest)}" if item.artifact else ""),
    )
