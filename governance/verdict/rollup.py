"""From items to principle statuses, gate, exit code and one sentence for the first page.

Best to worst, over core and required items, those marked not applicable left out:

    satisfied      every item is computed and passed; nothing rests on a declaration
    declared       every computed item passed, every human item is declared
    partial        no core item failed and at least one is in place, but something is not
    not satisfied  a core item failed, or none of them is in place
    not applicable P7 and P10 alone, when their core human item is declared not applicable

A waiver changes no status and no principle: it only takes one item out of what the gate asks for.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from governance.people.rules import RunFacts, unlike, waiver_refusal, waiver_state
from governance.people.signature import check_entry_signature
from governance.policy.load import condition_item
from governance.records.base import Gate, ItemClass, ItemStatus, PrincipleStatus
from governance.records.errors import EvidenceError
from governance.records.item import ItemRecord
from governance.records.people import Declarations, Waiver, WaiverLine
from governance.records.policy import GateItem, Item, Policy, Principle
from governance.records.rollup import EXIT_CODES_WORST_FIRST, GateLine, PrincipleLine, RollUp
from governance.records.run import Outcome
from governance.verdict.sentence import plain, verdict
from governance.verdict.sentence import short_title as short_title

NO_RECORD = "no record was written"
NOT_APPLICABLE_BY = frozenset({"P7-H1", "P10-H1"})
_UNKNOWN_IN_GATE = 9
_CLASS_ORDER = (ItemClass.CORE, ItemClass.REQUIRED, ItemClass.INFORMATIVE)
_IN_PLACE = (ItemStatus.PASSED, ItemStatus.DECLARED, ItemStatus.RECORDED)

Standing = tuple[Item, ItemStatus]


def principle_status(items: Iterable[Standing]) -> PrincipleStatus:
    """Return the status of one principle from the statuses of its items.

    A RECORDED item is in place; it counts as met only when its criterion asks for no more than a
    record (operator "none"). No item is met by being absent.

    Args:
        items: Items that are asked for, with their statuses.

    Raises:
        EvidenceError: A human item is passed; it can only be declared.
    """
    standings = tuple(items)
    for item, status in standings:
        _refuse_passed_declaration(item, status)
    if any(s is ItemStatus.NOT_APPLICABLE and i.id in NOT_APPLICABLE_BY for i, s in standings):
        return PrincipleStatus.NOT_APPLICABLE
    asked = [
        (item, status)
        for item, status in standings
        if item.item_class is not ItemClass.INFORMATIVE and status is not ItemStatus.NOT_APPLICABLE
    ]
    if asked and all(_is_met(item, status) for item, status in asked):
        rests_on_people = any(item.kind == "human" for item, _ in asked)
        return PrincipleStatus.DECLARED if rests_on_people else PrincipleStatus.SATISFIED
    core = [status for item, status in asked if item.item_class is ItemClass.CORE]
    # Where every core item is marked not applicable, the required ones decide.
    carrying = core or [status for _, status in asked]
    if ItemStatus.FAILED in core or not any(status in _IN_PLACE for status in carrying):
        return PrincipleStatus.NOT_SATISFIED
    return PrincipleStatus.PARTIAL


def roll_up(
    policy: Policy,
    records: Sequence[ItemRecord],
    outcome: Outcome | None,
    *,
    absent: Sequence[str] = (),
    waivers: Sequence[WaiverLine] = (),
) -> RollUp:
    """Compute principle statuses, gate and exit code from the items of a run.

    Args:
        policy: Policy in force.
        records: Item records; an item without one is not evaluated.
        outcome: How the run ended; None while it has not. A run that did not finish never passes
            the gate.
        absent: Absent results that a reader must know of, e.g. "FID (the weights are not on this
            machine)"; printed in the verdict.
        waivers: Waivers with their state, from `waiver_lines`; those in force take their item
            out of the gate, without changing its status.

    Raises:
        EvidenceError: Two records have one id, a record belongs to no item or contradicts its
            item, a status that needs a reason has none, or a waiver is of an item that is never
            waived.
    """
    by_id = _by_id(policy, records)
    waived = _in_force(policy, waivers)
    lines = tuple(_principle_line(principle, by_id) for principle in policy.principles)
    gate = tuple(_gate_line(line, policy.item(line.item_id), by_id, waived) for line in policy.gate)
    finished = outcome is None or outcome.status == "finished"
    exit_code = _worst(line.exit_code for line in gate)
    if not finished and exit_code == 0:
        exit_code = _UNKNOWN_IN_GATE
    with_waivers = Gate.WAIVED if any(line.waiver for line in gate) else Gate.PASSED
    return RollUp(
        policy=policy.name,
        policy_version=policy.version,
        gate=with_waivers if exit_code == 0 else Gate.FAILED,
        exit_code=exit_code,
        verdict=verdict(outcome, gate, lines, absent),
        gate_items=gate,
        principles=lines,
        waivers=tuple(waivers),
    )


def waiver_lines(
    policy: Policy,
    records: Sequence[ItemRecord],
    declarations: Declarations | None,
    facts: RunFacts,
    today: date,
) -> tuple[WaiverLine, ...]:
    """Return the state of each waiver: in force, unused, expired, or of another run.

    Args:
        policy: Policy in force.
        records: Item records.
        declarations: Declarations and waivers; None without a file.
        facts: Identity of the run.
        today: Day of judgement (UTC).
    """
    by_id = _by_id(policy, records)
    gate = {line.item_id for line in policy.gate}
    found = declarations.waivers if declarations else ()
    return tuple(
        _waiver_line(waiver, policy.item(waiver.id), by_id, gate, facts, today) for waiver in found
    )


def _waiver_line(
    waiver: Waiver,
    item: Item,
    by_id: Mapping[str, ItemRecord],
    gate: set[str],
    facts: RunFacts,
    today: date,
) -> WaiverLine:
    status = _status(item, by_id)
    if item.id in gate:
        is_met = status is ItemStatus.PASSED
    else:
        is_met = status is ItemStatus.NOT_APPLICABLE or not _is_gap(item, status)
    state = waiver_state(waiver, facts, today, is_met=is_met)
    effects = {
        "in force": f"the gate does not ask for it; the item stays {status.value}"
        if item.id in gate
        else f"nothing: it is no gate item; the item stays {status.value}",
        "unused": f"nothing: the item is {status.value} and needs no waiver",
        "expired": f"nothing: it expired on {waiver.expires}",
        "other run": f"nothing: {unlike(waiver.applies_to, facts)}",
    }
    return WaiverLine(
        item_id=item.id,
        title=item.title,
        author=waiver.author,
        reason=waiver.reason,
        expires=waiver.expires,
        state=state,
        effect=effects[state],
        signing=check_entry_signature(waiver).words,
    )


def _in_force(policy: Policy, waivers: Sequence[WaiverLine]) -> Mapping[str, WaiverLine]:
    in_force = {line.item_id: line for line in waivers if line.state == "in force"}
    for item_id in in_force:
        if refusal := waiver_refusal(policy, item_id):
            raise EvidenceError(f"waiver of {item_id}: {refusal}; remove it")
    return in_force


def _refuse_passed_declaration(item: Item, status: ItemStatus) -> None:
    if item.kind == "human" and status is ItemStatus.PASSED:
        raise EvidenceError(f"{item.id}: rests on a person's word and cannot be passed")


def _is_met(item: Item, status: ItemStatus) -> bool:
    if item.kind == "human":
        return status is ItemStatus.DECLARED
    if status is ItemStatus.RECORDED:
        return item.criterion is not None and item.criterion.operator == "none"
    return status is ItemStatus.PASSED


def _by_id(policy: Policy, records: Sequence[ItemRecord]) -> Mapping[str, ItemRecord]:
    items = {item.id: item for item in policy.items}
    by_id: dict[str, ItemRecord] = {}
    for record in records:
        item = items.get(record.id)
        if item is None:
            raise EvidenceError(f"records/{record.id}.json: the policy has no such item")
        if record.id in by_id:
            raise EvidenceError(f"records/{record.id}.json: two records of one item")
        if (record.item_class, record.kind) != (item.item_class, item.kind):
            raise EvidenceError(f"records/{record.id}.json: class or kind is not the policy's")
        _refuse_passed_declaration(item, record.status)
        needs_reason = (ItemStatus.NOT_EVALUATED, ItemStatus.NOT_APPLICABLE)
        if record.status in needs_reason and not record.reason.strip():
            raise EvidenceError(f"records/{record.id}.json: {record.status.value} without a reason")
        by_id[record.id] = record
    return by_id


def _status(item: Item, by_id: Mapping[str, ItemRecord]) -> ItemStatus:
    return by_id[item.id].status if item.id in by_id else ItemStatus.NOT_EVALUATED


def _reason(item: Item, by_id: Mapping[str, ItemRecord]) -> str:
    return by_id[item.id].reason if item.id in by_id else NO_RECORD


def _is_asked(item: Item, by_id: Mapping[str, ItemRecord]) -> bool:
    """Whether the item's condition holds; an item without one is always asked for."""
    other = condition_item(item)
    if other is None:
        return True
    return other not in by_id or by_id[other].status is ItemStatus.NOT_EVALUATED


def _principle_line(principle: Principle, by_id: Mapping[str, ItemRecord]) -> PrincipleLine:
    asked = [item for item in principle.items if _is_asked(item, by_id)]
    standings = [(item, _status(item, by_id)) for item in asked]
    counts = Counter(status for _, status in standings)
    # Items not applicable are left out of a/b and c/d, and counted apart. An item computed
    # from people's answers (P7-03) rests on them and counts as declared.
    applicable = [(i, status) for i, status in standings if status is not ItemStatus.NOT_APPLICABLE]
    n_human = sum(i.kind == "human" or s is ItemStatus.DECLARED for i, s in applicable)
    return PrincipleLine(
        id=principle.id,
        title_2021=principle.title_2021,
        title_n88=principle.title_n88,
        status=principle_status(standings),
        n_passed=counts[ItemStatus.PASSED],
        n_computed=len(applicable) - n_human,
        n_declared=counts[ItemStatus.DECLARED],
        n_human=n_human,
        n_missing=counts[ItemStatus.MISSING],
        n_not_evaluated=counts[ItemStatus.NOT_EVALUATED],
        n_failed=counts[ItemStatus.FAILED],
        n_recorded=counts[ItemStatus.RECORDED],
        n_not_applicable=counts[ItemStatus.NOT_APPLICABLE],
        gaps=_gaps(standings, by_id),
    )


def _gaps(standings: Sequence[Standing], by_id: Mapping[str, ItemRecord]) -> tuple[str, ...]:
    """List items that are not met with the reason, core first and not applicable last."""
    open_items = [(item, status) for item, status in standings if _is_gap(item, status)]
    ordered = sorted(
        open_items,
        key=lambda pair: (
            pair[1] is ItemStatus.NOT_APPLICABLE,
            _CLASS_ORDER.index(pair[0].item_class),
        ),
    )
    return tuple(
        f"{item.id} {item.title}: {status.value} — {_reason(item, by_id) or 'no reason given'}"
        for item, status in ordered
    )


def _is_gap(item: Item, status: ItemStatus) -> bool:
    if status is ItemStatus.DECLARED and item.item_class is ItemClass.INFORMATIVE:
        return False
    return not _is_met(item, status)


def _gate_line(
    gate_item: GateItem,
    item: Item,
    by_id: Mapping[str, ItemRecord],
    waived: Mapping[str, WaiverLine],
) -> GateLine:
    """Return a gate item's status and exit code: 0 when it passed or is waived."""
    status = _status(item, by_id)
    codes = {ItemStatus.PASSED: 0, ItemStatus.FAILED: gate_item.exit_code}
    waiver = waived.get(item.id)
    is_waived = waiver is not None and status is not ItemStatus.PASSED
    return GateLine(
        item_id=item.id,
        title=item.title,
        status=status,
        exit_code=0 if is_waived else codes.get(status, _UNKNOWN_IN_GATE),
        reason=_reason(item, by_id),
        waiver=waiver_words(waiver) if waiver is not None and is_waived else "",
    )


def waiver_words(waiver: WaiverLine) -> str:
    """Return who waived an item, until when and why."""
    return f"waived by {waiver.author} through {waiver.expires}: {plain(waiver.reason)}"


def _worst(codes: Iterable[int]) -> int:
    return min(codes, key=EXIT_CODES_WORST_FIRST.index)
