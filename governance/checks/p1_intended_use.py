"""Checks of principle 1: what the model is for."""

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import check, counted, judge, listed, not_evaluated
from governance.people.intended_use import (
    INTENDED_USE,
    NO_SCOPE,
    Used,
    declared_scope,
    outside,
    unknown,
)
from governance.people.rules import can_be_compared, is_untouched, why_missing
from governance.records.audit import CoverageAudit
from governance.records.item import CheckResult, Observed
from governance.records.people import Declaration, Declarations
from governance.records.policy import Criterion
from governance.records.run import RunIdentity
from governance.records.training import TrainingRecord


@check("P1-01", step="s5_train")
def within_intended_use(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that planes, machines, image size and output role are within the declared use."""
    register, run = documents.need(Declarations), documents.need(RunIdentity)
    entry = next((d for d in register.declarations if d.id == INTENDED_USE), None)
    fault = "nobody declared it" if entry is None else _fault(entry, documents)
    if fault:
        words = f"no intended use is declared for this run ({INTENDED_USE}: {fault})"
        return not_evaluated(words, source=Declarations)
    scope = declared_scope(register)
    if scope is None:
        return not_evaluated(NO_SCOPE, source=Declarations)
    training = documents.get(TrainingRecord)
    size = training.image_size_px if training else None
    used = Used(image_size_px=size, output_role=run.output_role)
    used = used.with_images(documents.need(CoverageAudit))
    names, open_questions = outside(scope, used), unknown(scope, used)
    method = (
        "planes and machines of the selected images, side of the synthetic images and output_role "
        f"of the configuration, compared with the scope of {INTENDED_USE}"
    )
    if open_questions and not names:
        words = f"not known of this run: {listed(open_questions)}"
        return not_evaluated(words, method=method, source=Declarations)
    return judge(
        criterion,
        Observed(value=len(names)),
        reason=f"outside the declared intended use: {listed(names)}"
        if names
        else f"all used is declared: {_used_words(used)}",
        method=method,
        source=Declarations,
        limitations="The scope is a person's word. What is done with the images afterwards is not "
        "seen by the run.",
    )


def _used_words(used: Used) -> str:
    planes = counted(len(used.planes) + len(used.brain_planes), "plane")
    machines = counted(len(used.machines), "machine")
    return f"{planes}, {machines}, {used.image_size_px} px, {used.output_role}"


def _fault(entry: Declaration, documents: JudgedRun) -> str:
    return why_missing(entry, documents.facts, documents.today)


@check("P1-02", step="s7_evidence")
def bound_declarations(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count declared items that are expired, incomplete or made for another run."""
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
