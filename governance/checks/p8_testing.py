"""Checks of principle 8: tests under relevant conditions."""

from collections import defaultdict
from statistics import stdev

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    LEAST_SEEDS,
    check,
    counted,
    family_of,
    judge,
    listed,
    not_evaluated,
    patients_by_level,
    recorded_attributes,
    seed_values,
    seen,
    spread_words,
)
from governance.records.audit import CoverageAudit
from governance.records.base import ItemStatus
from governance.records.evaluation import EvaluationRecord, MetricResult, Opening
from governance.records.item import CheckResult, Observed
from governance.records.lineage import Lineage
from governance.records.policy import Criterion
from governance.records.run import Plan
from governance.records.training import SampleSet, TrainingRecord

ALL = "all"
_SUBGROUPS = ("plane", "brain_plane", "machine", "operator")
_FIDELITY = ("kid", "fid", "precision")
_LEAST_PATIENTS = 30  # a smaller subgroup is shown and not judged


@check("P8-01", step="s6_evaluate")
def plan_frozen_before_opening(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the opening of the test set names the digest of a plan frozen before it."""
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


@check("P8-02", step="s6_evaluate")
def primary_endpoint(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the bound of the primary endpoint's interval meets the goal."""
    evaluation, plan = documents.need(EvaluationRecord), documents.need(Plan)
    metric = _endpoint(evaluation, plan)
    if metric is None:
        return not_evaluated(
            f"the primary endpoint, {plan.primary_endpoint}, is not among the metrics",
            source=EvaluationRecord,
        )
    if metric.status is not ItemStatus.RECORDED or metric.value is None:
        reason = metric.reason or "no reason is on record"
        return not_evaluated(f"{metric.title} was not evaluated: {reason}", source=EvaluationRecord)
    if metric.better == "higher" and criterion.operator == "<=":
        return not_evaluated(
            f"{metric.title} is better when higher, the goal is an upper limit",
            source=EvaluationRecord,
        )
    low, high = metric.ci95 or (None, None)
    bound = low if criterion.operator == ">=" else high
    return judge(
        criterion,
        seen(metric),
        reason=metric.title + (" has no interval" if bound is None else " with 95 % interval"),
        method=f"{metric.id}; interval by {documents.unit} bootstrap",
        source=EvaluationRecord,
        limitations=metric.reason,
        compared=bound,
        holds=bound is not None,
    )


def _endpoint(evaluation: EvaluationRecord, plan: Plan) -> MetricResult | None:
    """Return the overall metric that the plan names, by id or by first word, e.g. "KID …"."""
    family = plan.primary_endpoint.split(" ")[0].lower()
    overall = [metric for metric in evaluation.metrics if not metric.subgroup]
    named = [metric for metric in overall if metric.id == plan.primary_endpoint]
    return next(iter([*named, *(m for m in overall if family_of(m) == family)]), None)


@check("P8-03", step="s6_evaluate")
def fidelity(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that KID, FID and precision are reported overall and by subgroup, with patients."""
    evaluation, coverage = documents.need(EvaluationRecord), documents.need(CoverageAudit)
    overall = [metric for metric in evaluation.metrics if not metric.subgroup]
    gaps, without_patients = [], []
    for family in _FIDELITY:
        metrics = [metric for metric in overall if family_of(metric) == family]
        done = [metric for metric in metrics if metric.status is ItemStatus.RECORDED]
        if not done:
            reason = next((m.reason for m in metrics if m.reason), "")
            gaps.append(f"{family.upper()}{f' ({reason})' if reason else ''}")
        without_patients += [metric.id for metric in done if not metric.n_patients]
    attributes = {metric.subgroup.split("=")[0] for metric in evaluation.metrics}
    gaps += [f"by {a}" for a in _divided(coverage) if a not in attributes]
    method = "metrics of the evaluation record, overall and by recorded attribute"
    if gaps and not without_patients:
        return not_evaluated(
            f"not evaluated: {', '.join(gaps)}", method=method, source=EvaluationRecord
        )
    return judge(
        criterion,
        Observed(value=not without_patients),
        reason=f"without number of {documents.unit}s: {listed(without_patients)}"
        if without_patients
        else f"reported with the number of {documents.unit}s",
        method=method,
        source=EvaluationRecord,
    )


def _divided(coverage: CoverageAudit) -> tuple[str, ...]:
    """Return recorded attributes with two levels or more; one level adds nothing to overall."""
    recorded = recorded_attributes(coverage, _SUBGROUPS)
    return tuple(a for a in recorded if len(patients_by_level(coverage, a, ALL)) > 1)


@check("P8-04", step="s6_evaluate")
def utility(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Always unavailable: gain of a classifier from synthetic images on unseen real patients."""
    documents.need(EvaluationRecord)
    return not_evaluated(
        "the metric is missing: performance of a classifier on unseen real patients, trained with "
        "and without synthetic images; this version trains none",
        source=EvaluationRecord,
    )


@check("P8-05", step="s6_evaluate")
def subgroup_gap(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the largest KID difference of two levels of an attribute, 30 patients or more each."""
    evaluation = documents.need(EvaluationRecord)
    by_attribute: dict[str, list[MetricResult]] = defaultdict(list)
    for metric in evaluation.metrics:
        if metric.subgroup and metric.id.startswith("kid") and metric.value is not None:
            by_attribute[metric.subgroup.partition("=")[0]].append(metric)
    if not by_attribute:
        return not_evaluated(
            "the metric is missing: fidelity by plane, machine and operator; this version "
            "measures all images together",
            source=EvaluationRecord,
        )
    gaps, small = [], []
    for attribute, metrics in by_attribute.items():
        enough = [
            m.value for m in metrics if m.n_patients >= _LEAST_PATIENTS and m.value is not None
        ]
        small += [m.subgroup for m in metrics if m.n_patients < _LEAST_PATIENTS]
        if len(enough) > 1:
            gaps.append((max(enough) - min(enough), attribute))
    too_few = f"too few patients to judge: {listed(small)}" if small else ""
    method = f"KID by level, levels of {_LEAST_PATIENTS} {documents.unit}s or more compared"
    if not gaps:
        return not_evaluated(
            f"no attribute has two levels of {_LEAST_PATIENTS} {documents.unit}s or more; {too_few}",
            method=method,
            source=EvaluationRecord,
        )
    gap, attribute = max(gaps)
    return judge(
        criterion,
        Observed(value=gap),
        reason=f"largest between levels of {attribute}",
        method=method,
        source=EvaluationRecord,
        limitations=f"{too_few}." if too_few else "",
    )


@check("P8-06", step="s6_evaluate")
def robustness(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Always unavailable: loss of quality by gain, speckle, zoom, rotation or compression."""
    documents.need(EvaluationRecord)
    return not_evaluated(
        "the metric is missing: results under changed gain, speckle, zoom, rotation and "
        "compression; this version measures unchanged images",
        source=EvaluationRecord,
    )


@check("P8-07", step="s7_evidence")
def repeatability(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the primary endpoint's standard deviation over runs that differ only in seed."""
    lineage = documents.need(Lineage)
    values = seed_values(lineage)
    if len(values) < LEAST_SEEDS:
        return not_evaluated(
            f"the spread over seeds needs {LEAST_SEEDS} runs of one configuration with other "
            f"seeds; the primary endpoint is known of {counted(len(values), 'seed')}",
            source=Lineage,
        )
    return judge(
        criterion,
        Observed(value=stdev(values.values()), unit="KID"),
        reason=spread_words(lineage),
        method=f"standard deviation of KID over {counted(len(values), 'seed')}",
        source=Lineage,
        limitations="Every run after the first opened the same held-out test set again.",
    )


@check("P8-08", step="s5_train")
def rejected_samples(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count requested synthetic images that are neither kept nor counted as rejected."""
    samples = documents.need(SampleSet)
    if samples.n_asked is None or samples.n_drawn is None:
        return not_evaluated("how many images were drawn is not on record", source=SampleSet)
    return judge(
        criterion,
        Observed(value=abs(samples.n_asked - samples.n_images), n_images=samples.n_images),
        reason=f"{samples.n_asked:,} asked for, {samples.n_drawn:,} drawn, {samples.n_images:,} "
        f"kept{': none was rejected' if samples.n_drawn == samples.n_images else ''}",
        method="images that the configuration asks for, that the generator returned, and files "
        "on record",
        source=SampleSet,
        limitations="What a generator discards before it returns its images is not seen here; no "
        "quality filter follows.",
        holds=samples.n_drawn == samples.n_images,
    )


@check("P8-09", step="s6_evaluate")
def tested_is_released(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the checkpoint that drew the images and was judged is the released one."""
    samples, training = documents.need(SampleSet), documents.need(TrainingRecord)
    evaluation = documents.need(EvaluationRecord)
    if evaluation.opening is None:
        return not_evaluated("the held-out test set was not opened", source=EvaluationRecord)
    released = training.checkpoint_sha256
    others = [
        name
        for name, digest in (
            ("images were drawn from", samples.checkpoint_sha256),
            ("the opening names", evaluation.opening.model_sha256),
        )
        if digest != released
    ]
    return judge(
        criterion,
        Observed(value=not others),
        reason="; ".join(f"{name} another checkpoint" for name in others)
        or f"checkpoint {released[:12]} drew the images and is named by the opening",
        method="digests in training record, sample manifest and opening",
        source=SampleSet,
    )
