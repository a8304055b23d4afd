"""The check on the self-test: faults planted on purpose, all caught."""

from governance.checks.registry import Documents, check, counted, judge, listed, not_evaluated
from governance.records.policy import Criterion
from governance.records.selftest import PlantTrial, SelftestRecord
from governance.records.verdict import CheckResult, Observed

ASKED_FOR = ("patient", "duplicate", "early read")


@check("P4-12", step="start")
def guards_tried(documents: Documents, criterion: Criterion) -> CheckResult:
    """Planted leaks that their guards did not catch, or whose guards alarm on clean data too."""
    record = documents.need(SelftestRecord)
    tried = [trial for trial in record.trials if not trial.fault]
    failed = [_failure(trial) for trial in tried if not trial.is_proof]
    about = {trial.about for trial in tried}
    doubts = [
        f"no leak of this kind was planted: {kind}" for kind in ASKED_FOR if kind not in about
    ]
    doubts += [f"{trial.name}: {trial.fault}" for trial in record.trials if trial.fault]
    method = (
        f"{counted(len(tried), 'fault')} planted one at a time in simulated patients, each beside a "
        "clean control, and given to the guards of this run"
    )
    if doubts and not failed:
        return not_evaluated(listed(doubts), method=method, source=SelftestRecord)
    return judge(
        criterion,
        Observed(value=len(failed)),
        reason=listed(failed)
        or f"all {counted(len(tried), 'planted fault')} caught, no false alarm",
        method=method,
        source=SelftestRecord,
        limitations="Shows that the guards catch these faults, not that there are no others.",
    )


def _failure(trial: PlantTrial) -> str:
    """What a trial that proves nothing showed instead."""
    if not trial.is_caught:
        silent = sorted({*trial.expected} - {a.guard for a in trial.answers if a.is_alarm})
        return f"{trial.name} was not caught by {', '.join(silent)}"
    false = sorted({answer.guard for answer in trial.control if answer.is_alarm})
    return f"{trial.name}: {', '.join(false) or 'a guard'} did not let clean data pass"
