"""Checks on the run itself: code, environment, integrity, weights of others, frozen plan."""

from governance.checks.registry import Documents, check, counted, judge, listed, not_evaluated
from governance.records.base import ItemStatus
from governance.records.evaluation import EvaluationRecord, Opening
from governance.records.partition import SealRecord
from governance.records.policy import Criterion
from governance.records.run import Environment, IntegrityRecord, Outcome, Plan, RunIdentity
from governance.records.training import TrainingRecord
from governance.records.verdict import CheckResult, Observed


@check("P2-01", step="start")
def code_identity(documents: Documents, criterion: Criterion) -> CheckResult:
    """Commit of the framework's source is known and its tree had no uncommitted change."""
    run = documents.need(RunIdentity)
    if run.code_commit is None or run.code_clean is None:
        return not_evaluated(
            "the commit or the state of the tree is unknown: not run from a git checkout",
            source=RunIdentity,
        )
    state = "clean" if run.code_clean else "has uncommitted changes"
    return judge(
        criterion,
        Observed(value=run.code_clean),
        reason=f"commit {run.code_commit[:12]}, tree {state}",
        method="commit and state of the git tree, read at the start of the run",
        source=RunIdentity,
    )


@check("P2-02", step="start")
def locked_environment(documents: Documents, criterion: Criterion) -> CheckResult:
    """Installed distributions are those of the lock file."""
    environment = documents.need(Environment)
    if environment.lock_file is None:
        return not_evaluated("no lock file was found to compare with", source=Environment)
    differences = environment.lock_differences
    n_packages = counted(len(environment.packages), "installed package")
    return judge(
        criterion,
        Observed(value=len(differences)),
        reason=listed(differences) or f"no version of {environment.lock_file} is unlike the lock",
        method=f"{n_packages} compared with {environment.lock_file}",
        source=Environment,
        limitations="Python, operating system, driver and GPU are recorded, not locked.",
    )


@check("P2-07", step="s7_evidence")
def files_intact(documents: Documents, criterion: Criterion) -> CheckResult:
    """Every file still has the digest that was put on record when it was written."""
    integrity = documents.need(IntegrityRecord)
    if integrity.n_files == 0:
        return not_evaluated("no file has a digest on record", source=IntegrityRecord)
    method = f"{counted(integrity.n_files, 'file')} read again at the end and compared"
    if integrity.unregistered and not integrity.mismatches:
        return not_evaluated(
            f"{counted(len(integrity.unregistered), 'file')} of the run folder have no digest on "
            f"record to compare with: {listed(integrity.unregistered)}",
            method=method,
            source=IntegrityRecord,
        )
    return judge(
        criterion,
        Observed(value=len(integrity.mismatches)),
        reason=(
            f"changed or gone since they were written: {listed(integrity.mismatches)}"
            if integrity.mismatches
            else "every file is as it was written"
        ),
        method=method,
        source=IntegrityRecord,
        limitations="Card, reports and manifest are written after this check; "
        "`medisynth-gov verify` covers them.",
    )


@check("P2-08", step="s7_evidence")
def event_log_intact(documents: Documents, criterion: Criterion) -> CheckResult:
    """The chain of the event log verifies from its first event to its last."""
    integrity = documents.need(IntegrityRecord)
    if integrity.journal_events == 0:
        return not_evaluated("the event log is empty", source=IntegrityRecord)
    return judge(
        criterion,
        Observed(value=len(integrity.journal_faults)),
        reason=listed(integrity.journal_faults)
        or f"{counted(integrity.journal_events, 'event')}, each carries the digest of the one before",
        method="every event's digest recomputed, and its link to the event before",
        source=IntegrityRecord,
        limitations="Somebody who owns the machine can rewrite a whole chain unless its head is "
        "held elsewhere.",
    )


@check("P2-09", step="s6_evaluate")
def pinned_weights(documents: Documents, criterion: Criterion) -> CheckResult:
    """Weights made by others, in training and in metrics, are pinned by hash, source and licence."""
    training, evaluation = documents.need(TrainingRecord), documents.need(EvaluationRecord)
    components = (*training.pretrained, *evaluation.pretrained)
    described = {component.sha256 for component in components}
    extractors = {
        metric.extractor: metric.extractor_sha256
        for metric in evaluation.metrics
        if metric.status is ItemStatus.RECORDED and metric.extractor
    }
    unpinned = [c.name for c in components if not (c.source.strip() and c.licence.strip())]
    unpinned += [name for name, sha256 in extractors.items() if not sha256]
    undescribed = [
        name for name, sha256 in extractors.items() if sha256 and sha256 not in described
    ]
    method = "hash, source and licence of every component on record"
    if undescribed and not unpinned:
        return not_evaluated(
            f"pinned by hash, but source and licence are not on record: {listed(undescribed)}",
            method=method,
            source=EvaluationRecord,
        )
    n = len(described | set(extractors.values()))
    return judge(
        criterion,
        Observed(value=len(unpinned)),
        reason=(
            f"hash, source or licence is missing: {listed(unpinned)}"
            if unpinned
            else f"{counted(n, 'component')} made by others, each pinned"
        ),
        method=method,
        source=EvaluationRecord,
        limitations="That weights are loaded without running code is kept by the source code, "
        "not observed in the run.",
    )


@check("P2-14", step="s7_evidence")
def compute(documents: Documents, criterion: Criterion) -> CheckResult:
    """Duration of the run and what it ran on."""
    outcome, environment = documents.need(Outcome), documents.need(Environment)
    n = counted(environment.cpu_count, "processor")
    return judge(
        criterion,
        Observed(value=outcome.duration_s),
        reason=f"{outcome.duration_s:.0f} s on {n}, compute device {environment.compute_device}",
        method="wall clock from the first step to the last",
        source=Outcome,
        limitations="Energy is not estimated.",
    )


@check("P6-02", step="s5_train")
def goals_frozen_before_training(documents: Documents, criterion: Criterion) -> CheckResult:
    """The plan was frozen and hashed before the test set was sealed, which precedes training."""
    plan, seal = documents.need(Plan), documents.need(SealRecord)
    documents.need(TrainingRecord)
    if documents.plan_sha256 is None:
        return not_evaluated("the digest of the plan is not on record", source=Plan)
    return judge(
        criterion,
        Observed(value=plan.frozen_utc <= seal.sealed_utc),
        reason=f"plan {documents.plan_sha256[:12]} frozen {plan.frozen_utc:%Y-%m-%d %H:%M:%S} UTC, "
        f"test set sealed {seal.sealed_utc:%Y-%m-%d %H:%M:%S} UTC",
        method="time of the frozen plan compared with the sealing; training takes its images from "
        "the step that seals, so it starts later",
        source=Plan,
        limitations="Times are those of the machine's clock.",
    )


@check("P8-01", step="s6_evaluate")
def plan_frozen_before_opening(documents: Documents, criterion: Criterion) -> CheckResult:
    """The opening of the test set names the digest of a plan that was frozen before it."""
    plan, evaluation = documents.need(Plan), documents.need(EvaluationRecord)
    opening = evaluation.opening
    if opening is None:
        return not_evaluated("the held-out test set was not opened", source=EvaluationRecord)
    if documents.plan_sha256 is None:
        return not_evaluated("the digest of the plan is not on record", source=Plan)
    faults = _plan_faults(plan, opening, documents.plan_sha256)
    earlier = opening.number - 1
    return judge(
        criterion,
        Observed(value=not faults, n_images=opening.n_images),
        reason=listed(faults)
        or f"frozen {plan.frozen_utc:%Y-%m-%d %H:%M:%S} UTC, "
        f"opened {opening.opened_utc:%Y-%m-%d %H:%M:%S} UTC with the same plan digest",
        method="digest and time of the frozen plan compared with those of the opening",
        source=Plan,
        limitations=(
            f"This test set was opened {counted(earlier, 'time')} before; what was seen then may "
            "have shaped this plan."
            if earlier > 0
            else ""
        ),
    )


def _plan_faults(plan: Plan, opening: Opening, plan_sha256: str) -> list[str]:
    parts = {
        "endpoints": plan.primary_endpoint.strip() and plan.endpoints,
        "subgroups": plan.subgroups,
        "statistics": plan.statistics.strip(),
        "multiplicity": plan.multiplicity.strip(),
    }
    faults = [f"the plan says nothing on {name}" for name, content in parts.items() if not content]
    if opening.plan_sha256 != plan_sha256:
        faults.append("the opening names another plan")
    if plan.frozen_utc > opening.opened_utc:
        faults.append("the plan was frozen after the opening")
    return faults
