"""Checks of principle 1 on the register of declarations."""

from governance.audits.checks import Documents, check, counted, judge, listed, not_evaluated
from governance.evidence.declaration import can_be_compared, is_untouched, why_missing
from governance.evidence.documents import Declarations
from governance.evidence.record import CheckResult, Observed
from governance.policies.model import Criterion


@check("P1-02", step="s7_evidence")
def bound_declarations(documents: Documents, criterion: Criterion) -> CheckResult:
    """Declared items that do not count for this run: expired, incomplete or bound to another."""
    register = documents.need(Declarations)
    written = [d for d in register.declarations if not is_untouched(d)]
    if not written:
        return not_evaluated("the declarations file declares no item", source=Declarations)
    facts, today = documents.facts, documents.today
    unknown = [d.id for d in written if not can_be_compared(d.applies_to, facts)]
    faults = {d.id: why_missing(d, facts, today) for d in written if d.id not in unknown}
    open_ids = [item_id for item_id, fault in faults.items() if fault]
    if unknown and not open_ids:
        words = "what they apply to is not known of this run"
        return not_evaluated(f"{listed(unknown)}: {words}", source=Declarations)
    shown = listed([f"{item_id} ({faults[item_id]})" for item_id in open_ids])
    declared = counted(len(written), "declared item")
    return judge(
        criterion,
        Observed(value=len(open_ids)),
        reason=f"of {declared}, {len(open_ids)} do not match this run: {shown}"
        if open_ids
        else f"{declared}, all bound to this run and in date",
        method="Each entry of the declarations file compared with run, configuration, version, "
        "data and generator of this run, and with the day of judgement.",
        source=Declarations,
        limitations="What people declare is not verified.",
    )
