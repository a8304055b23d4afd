"""The section on hazards and the items that cover them."""

from governance.records.base import ItemStatus
from governance.records.run import Hazard, Hazards
from governance.reports.blocks import (
    Cell,
    Line,
    Section,
    Table,
    Text,
    cell,
    columns,
    small,
    status_line,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.items import GAPS

_LEAD = (
    "What could go wrong with a generator of synthetic patient images, and the items of this "
    "report that look at it. The list is no risk file: harm, severity and what is acceptable are "
    "for people to judge. A hazard is only looked at as far as its items are passed or declared."
)


def hazards_section(evidence: ReportEvidence) -> Section:
    """Build a table of the hazards, with the status of each item that covers them."""
    record = evidence.get(Hazards)
    if record is None:
        blocks: tuple[Text | Table, ...] = (Text("No list of hazards is on record."),)
        return Section("hazards", "14", "Hazards", blocks=blocks)
    n_open = sum(_is_open(evidence, hazard) for hazard in record.hazards)
    head = columns(("Hazard", 0.40), ("Harm", 0.28), ("Items that look at it", 0.32))
    rows = tuple(_row(evidence, hazard) for hazard in record.hazards)
    text = (
        f"{n_open} of {len(record.hazards)} hazards have an item that is failed, missing or not "
        "evaluated."
    )
    return Section("hazards", "14", "Hazards", blocks=(Text(_LEAD), Text(text), Table(head, rows)))


def _is_open(evidence: ReportEvidence, hazard: Hazard) -> bool:
    statuses = [_status(evidence, item_id) for item_id in hazard.items]
    return not statuses or any(status is None or status in GAPS for status in statuses)


def _status(evidence: ReportEvidence, item_id: str) -> ItemStatus | None:
    record = evidence.records.get(item_id)
    return record.status if record else None


def _row(evidence: ReportEvidence, hazard: Hazard) -> tuple[Cell, ...]:
    own = "added by the configuration" if hazard.set_by == "configuration" else ""
    return (
        cell(strong(hazard.id), hazard.hazard, small(own)),
        cell(hazard.harm),
        tuple(_standing(evidence, item_id) for item_id in hazard.items),
    )


def _standing(evidence: ReportEvidence, item_id: str) -> Line:
    status = _status(evidence, item_id)
    if status is None:
        return small(f"{item_id}: no such item")
    line = status_line(status)
    return Line(f"{item_id} {line.text}", line.style, line.mark, line.tone)
