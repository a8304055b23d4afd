"""Checks on the metrics: reference, number of images, endpoint, subgroups, classes, completeness."""

from collections.abc import Sequence

from governance.checks.registry import (
    NOT_RECORDED,
    Documents,
    check,
    counted,
    judge,
    listed,
    not_evaluated,
    patients_by_level,
    recorded_attributes,
)
from governance.records.audit import CoverageAudit
from governance.records.base import TEST, ItemStatus
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.partition import SplitRecord
from governance.records.policy import Criterion
from governance.records.run import Plan
from governance.records.verdict import CheckResult, Observed

ALL = "all"
_SUBGROUPS = ("plane", "brain_plane", "machine", "operator")
_FIDELITY = ("kid", "fid", "precision")
_VARIETY = ("coverage", "recall")
_CLASSES = ("plane", "brain_plane")


@check("P5-05", step="s6_evaluate")
def metric_reference(documents: Documents, criterion: Criterion) -> CheckResult:
    """Each metric names extractor, its weights' hash, both n and a partition with a digest."""
    evaluation, split = documents.need(EvaluationRecord), documents.need(SplitRecord)
    metrics = _evaluated(evaluation)
    if not metrics:
        return not_evaluated(_no_metric(evaluation), source=EvaluationRecord)
    known = {part.partition for part in split.partitions}
    loose = [
        metric.id
        for metric in metrics
        if not (metric.extractor and metric.extractor_sha256 and metric.n_real)
        or not metric.n_synthetic
        or metric.partition not in known
    ]
    return judge(
        criterion,
        Observed(value=len(loose)),
        reason=f"reference not fixed: {listed(loose)}"
        if loose
        else f"{counted(len(metrics), 'metric')} with extractor, its hash, n and partition",
        method="fields of every evaluated metric; the partition's digest is in the split record",
        source=EvaluationRecord,
        limitations="That another run used the same reference is not shown by this one.",
    )


@check("P5-06", step="s6_evaluate")
def enough_images(documents: Documents, criterion: Criterion) -> CheckResult:
    """FID has at least two images a feature, or is flagged and stands beside a KID interval."""
    evaluation = documents.need(EvaluationRecord)
    metrics = _evaluated(evaluation)
    fids = [metric for metric in metrics if _family(metric) == "fid"]
    kid_groups = {m.subgroup for m in metrics if _family(m) == "kid" and m.ci95 is not None}
    if not fids and "" not in kid_groups:
        return not_evaluated(_no_metric(evaluation), source=EvaluationRecord)
    short = [m for m in fids if min(m.n_real, m.n_synthetic) < 2 * m.n_features]
    broken = [m.id for m in short if not (m.reason and m.subgroup in kid_groups)]
    if broken:
        words = f"too few images, and not flagged beside a KID with interval: {listed(broken)}"
    elif short:
        words = f"too few images, flagged and led by KID with interval: {short[0].id}"
    else:
        words = "enough images, or KID with interval alone"
    return judge(
        criterion,
        Observed(value=len(broken)),
        reason=words,
        method="images compared with twice the number of features",
        source=EvaluationRecord,
    )


@check("P8-02", step="s6_evaluate")
def primary_endpoint(documents: Documents, criterion: Criterion) -> CheckResult:
    """The bound of the primary endpoint's interval meets the goal."""
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
        _seen(metric),
        reason=metric.title + (" has no interval" if bound is None else " with 95 % interval"),
        method=f"{metric.id}; interval by {documents.unit} bootstrap",
        source=EvaluationRecord,
        limitations=metric.reason,
        compared=bound,
        holds=bound is not None,
    )


@check("P8-03", step="s6_evaluate")
def fidelity(documents: Documents, criterion: Criterion) -> CheckResult:
    """KID, FID and precision are reported overall and for each recorded subgroup, with patients."""
    evaluation, coverage = documents.need(EvaluationRecord), documents.need(CoverageAudit)
    overall = [metric for metric in evaluation.metrics if not metric.subgroup]
    gaps, without_patients = [], []
    for family in _FIDELITY:
        metrics = [metric for metric in overall if _family(metric) == family]
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


@check("P3-09", step="s6_evaluate")
def class_coverage(documents: Documents, criterion: Criterion) -> CheckResult:
    """Smallest coverage or recall of the synthetic images of one class, of all classes in test."""
    evaluation, coverage = documents.need(EvaluationRecord), documents.need(CoverageAudit)
    by_class = [m for m in evaluation.metrics if _family(m) in _VARIETY and _is_class(m.subgroup)]
    done = [m for m in by_class if m.status is ItemStatus.RECORDED and m.value is not None]
    if not done:
        reason = next((m.reason for m in by_class if m.reason), "")
        return not_evaluated(
            f"neither coverage nor recall was evaluated by class: {reason}"
            if by_class
            else "no coverage or recall by class: the generator does not draw by class, or the "
            "metrics were not evaluated",
            source=EvaluationRecord,
        )
    gaps = _class_gaps(done, coverage)
    smallest = min(done, key=lambda metric: metric.value or 0.0)
    method = "coverage and recall of synthetic images against real ones, class by class"
    result = judge(
        criterion,
        _seen(smallest),
        reason=f"smallest: {smallest.title} of {smallest.subgroup.partition('=')[2]}",
        method=method,
        source=EvaluationRecord,
        limitations=f"Not evaluated: {listed(gaps)}." if gaps else "",
    )
    if gaps and result.status is ItemStatus.PASSED:
        return not_evaluated(
            f"not evaluated: {listed(gaps)}",
            observed=result.observed,
            method=method,
            source=EvaluationRecord,
        )
    return result


def _is_class(subgroup: str) -> bool:
    return subgroup.partition("=")[0] in _CLASSES


def _class_gaps(done: Sequence[MetricResult], coverage: CoverageAudit) -> list[str]:
    """Classes of the held-out test set that lack coverage or recall, in words."""
    known = {(_family(m), m.subgroup) for m in done}
    attributes = {m.subgroup.partition("=")[0] for m in done}
    levels = [
        f"{x.attribute}={x.level}"
        for x in coverage.levels
        if x.attribute in attributes
        and x.partition == TEST
        and x.n_images
        and x.level != NOT_RECORDED
    ]
    return [f"{f} of {group}" for group in levels for f in _VARIETY if (f, group) not in known]


def _seen(metric: MetricResult) -> Observed:
    return Observed(
        value=metric.value,
        ci95=metric.ci95,
        n_patients=metric.n_patients,
        n_images=metric.n_real,
        partition=metric.partition,
    )


@check("P9-03", step="s6_evaluate")
def metrics_are_complete(documents: Documents, criterion: Criterion) -> CheckResult:
    """Every evaluated metric has interval, number of patients and partition."""
    evaluation = documents.need(EvaluationRecord)
    metrics = _evaluated(evaluation)
    if not metrics:
        return not_evaluated(_no_metric(evaluation), source=EvaluationRecord)
    bare = [m.id for m in metrics if m.ci95 is None or not m.n_patients or not m.partition]
    return judge(
        criterion,
        Observed(value=len(bare)),
        reason=f"interval, {documents.unit}s or partition missing: {listed(bare)}"
        if bare
        else f"{counted(len(metrics), 'metric')}, all complete",
        method="fields of every evaluated metric",
        source=EvaluationRecord,
        limitations="Read where card and reports take the numbers from, not from card and reports.",
    )


def _endpoint(evaluation: EvaluationRecord, plan: Plan) -> MetricResult | None:
    """The overall metric that the plan names, by its id or by its first word, e.g. "KID …"."""
    family = plan.primary_endpoint.split(" ")[0].lower()
    overall = [metric for metric in evaluation.metrics if not metric.subgroup]
    named = [metric for metric in overall if metric.id == plan.primary_endpoint]
    return next(iter([*named, *(m for m in overall if _family(m) == family)]), None)


def _divided(coverage: CoverageAudit) -> tuple[str, ...]:
    """Recorded attributes with more than one level: with one, the overall value is that level's."""
    recorded = recorded_attributes(coverage, _SUBGROUPS)
    return tuple(a for a in recorded if len(patients_by_level(coverage, a, ALL)) > 1)


def _evaluated(evaluation: EvaluationRecord) -> Sequence[MetricResult]:
    return [
        metric
        for metric in evaluation.metrics
        if metric.status is ItemStatus.RECORDED and metric.value is not None
    ]


def _no_metric(evaluation: EvaluationRecord) -> str:
    reason = next((metric.reason for metric in evaluation.metrics if metric.reason), "")
    return f"no metric was evaluated{f': {reason}' if reason else ''}"


def _family(metric: MetricResult) -> str:
    """First word of a metric id: "kid" of "kid-inception_pool3-d2048-n100"."""
    return metric.id.split("-")[0].lower()
