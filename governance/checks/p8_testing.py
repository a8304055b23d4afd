"""Checks of principle 8: tests under relevant conditions."""

from statistics import fmean, stdev

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    LEAST_SEEDS,
    OUR_TRAINING,
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
from governance.records.base import TEST, ItemStatus
from governance.records.evaluation import (
    EvaluationRecord,
    MetricResult,
    Opening,
    RobustnessLoss,
    SubgroupGap,
)
from governance.records.item import CheckResult, Observed
from governance.records.lineage import Lineage
from governance.records.policy import Criterion
from governance.records.run import Plan
from governance.records.training import SampleSet, TrainingRecord
from governance.records.utility import ADDED, MACRO_F1, REAL, UtilityRecord

ALL = "all"
_SUBGROUPS = ("plane", "brain_plane", "machine", "operator", "site")
_FIDELITY = ("kid", "fid", "precision")
_BY_CHANCE = 0.05  # adjusted p above which a gap is no more than patients drawn anew give


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
    divided = _divided(coverage, evaluation)
    if not divided and not gaps:
        return not_evaluated(
            "no attribute with two levels is recorded, so nothing could be divided by",
            source=EvaluationRecord,
        )
    gaps += [words for words in (_not_by(a, evaluation) for a in divided) if words]
    parts = [m for m in evaluation.metrics if m.subgroup and m.status is ItemStatus.RECORDED]
    without_patients += [m.id for m in parts if family_of(m) in _FIDELITY and not m.n_patients]
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
        else f"reported overall and by {', '.join(divided)}, with the number of {documents.unit}s",
        method=method,
        source=EvaluationRecord,
        limitations=_too_few(evaluation),
    )


def _not_by(attribute: str, evaluation: EvaluationRecord) -> str:
    """Return why fidelity is not known by an attribute; "" if it is for one level at least."""
    own = [m for m in evaluation.metrics if m.subgroup.partition("=")[0] == attribute]
    done: dict[str, set[str]] = {m.subgroup: set() for m in own}
    for metric in own:
        if metric.status is ItemStatus.RECORDED:
            done[metric.subgroup].add(family_of(metric))
    if any(found.issuperset(_FIDELITY) for found in done.values()):
        return ""
    reason = next((m.reason for m in own if m.reason), "")
    return f"by {attribute}{f' ({reason})' if reason else ''}"


def _too_few(evaluation: EvaluationRecord) -> str:
    """Return a sentence on the levels with too few patients; "" when there is none."""
    levels = dict.fromkeys(
        m.subgroup for m in evaluation.metrics if m.subgroup and m.reason.startswith("too few")
    )
    return f"Too few to judge: {listed(list(levels))}." if levels else ""


def _divided(coverage: CoverageAudit, evaluation: EvaluationRecord) -> tuple[str, ...]:
    """Return attributes with two levels or more; one level adds nothing to overall.

    Those that the data contract declares are known by the metrics, as their levels are.
    """
    recorded = recorded_attributes(coverage, _SUBGROUPS)
    known = [a for a in recorded if len(patients_by_level(coverage, a, ALL)) > 1]
    measured = [m.subgroup.partition("=")[0] for m in evaluation.metrics if m.subgroup]
    return tuple(dict.fromkeys((*known, *measured)))


@check("P8-04", step="s6_evaluate")
def utility(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Judge the lower bound of the gain in macro F1 on unseen real patients."""
    documents.need(EvaluationRecord)
    record = documents.get(UtilityRecord)
    if record is None:
        return not_evaluated(
            "no classifier was trained with and without synthetic images: evaluation.utility is "
            "off, or there was no feature extractor",
            source=EvaluationRecord,
        )
    real, added = record.arm(REAL), record.arm(ADDED)
    gain = added.measure(MACRO_F1) if added is not None else None
    if real is None or added is None or gain is None or gain.difference is None:
        why = record.reason or "real images alone, or with synthetic ones, are missing"
        return not_evaluated(f"no classifiers were compared: {why}", source=UtilityRecord)
    bound = gain.difference_ci95[0] if gain.difference_ci95 else None
    return judge(
        criterion,
        Observed(
            value=gain.difference,
            ci95=gain.difference_ci95,
            n_patients=record.n_test_patients,
            n_images=record.n_test,
            partition=TEST,
        ),
        reason=f"{record.attribute.replace('_', ' ')} told apart with macro F1 "
        f"{real.measure(MACRO_F1).value:.3f} by real images alone, {gain.value:.3f} with "
        f"{added.n_other:,} synthetic images besides"
        + ("" if bound is not None else "; no interval"),
        method=f"{record.method}; labels of synthetic images: {record.labels_from}",
        source=UtilityRecord,
        limitations=_gain_limits(record, gain.difference),
        compared=bound,
        holds=bound is not None,
    )


def _gain_limits(record: UtilityRecord, own: float) -> str:
    """Return what stands beside the gain: simple additions that give as much, and the classifier."""
    others = [arm for arm in record.arms if arm.name.startswith(f"{REAL} + ") and arm.name != ADDED]
    gains = {arm.name: arm.measure(MACRO_F1).difference for arm in others}
    as_good = [name for name, gain in gains.items() if gain is not None and gain >= own]
    cheaper = f"{listed(as_good)} gains as much or more; " if as_good else ""
    return f"{cheaper}a linear classifier on features of a network for photographs"


@check("P8-05", step="s6_evaluate")
def subgroup_gap(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Judge the largest difference of two levels' KID above the floor.

    It fails where a gap is above the limit and no chance after Holm's adjustment, and passes where
    the interval of every attribute's largest gap ends within the limit. Between the two is unknown.
    """
    evaluation = documents.need(EvaluationRecord)
    if not any(metric.subgroup for metric in evaluation.metrics):
        return not_evaluated(
            "no metric by subgroup is on record: no attribute has two levels, or fidelity was not "
            "measured",
            source=EvaluationRecord,
        )
    too_few = _too_few(evaluation)
    gaps = sorted(evaluation.gaps, key=lambda gap: -gap.value)
    least = evaluation.least_patients
    method = (
        f"KID less floor of levels with {least} {documents.unit}s or more, largest pair of each "
        f"attribute; interval by {documents.unit} bootstrap, p adjusted by Holm over all pairs"
    )
    if not gaps:
        return not_evaluated(
            f"no attribute has two levels of {least or 'enough'} {documents.unit}s that could be "
            f"compared; {too_few[:1].lower()}{too_few[1:]}".rstrip("; "),
            method=method,
            source=EvaluationRecord,
        )
    limit = criterion.value
    shown = [gap for gap in gaps if gap.p_value <= _BY_CHANCE]
    beyond = [gap for gap in shown if limit is not None and gap.value > limit]
    worst = (beyond or gaps)[0]
    observed = Observed(value=worst.value, ci95=worst.ci95, unit=criterion.unit, partition=TEST)
    if limit is not None and not beyond and any(gap.ci95[1] > limit for gap in gaps):
        open_gap = max(gaps, key=lambda gap: gap.ci95[1])
        return not_evaluated(
            f"{_gap_words(open_gap)}: its interval reaches beyond the limit of {limit:g} and the "
            "gap is not shown to be; more patients would tell",
            observed=observed,
            method=method,
            source=EvaluationRecord,
            limitations=too_few,
        )
    return judge(
        criterion,
        observed,
        reason=f"{'worst subgroup' if beyond else 'largest'}: {_gap_words(worst)}",
        method=method,
        source=EvaluationRecord,
        limitations=too_few,
        holds=not beyond,
    )


def _gap_words(gap: SubgroupGap) -> str:
    low, high = gap.ci95
    return (
        f"{gap.attribute} {gap.worst} is {gap.value:.3f} [{low:.3f} to {high:.3f}] further from real "
        f"images than {gap.best} (p {gap.p_value:.3f}, adjusted over "
        f"{counted(gap.n_comparisons, 'pair')})"
    )


@check("P8-06", step="s6_evaluate")
def robustness(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Judge the largest loss when the held-out images are altered.

    It fails where the interval of a loss lies above the limit, and passes where all end within it.
    """
    evaluation = documents.need(EvaluationRecord)
    losses = sorted(evaluation.robustness, key=lambda loss: -loss.value)
    if not losses:
        return not_evaluated(
            "no result under changed gain, speckle, zoom, rotation and compression is on record",
            source=EvaluationRecord,
        )
    limit = criterion.value
    method = (
        f"KID less floor against {counted(losses[0].n_images, 'held-out image')} altered, less the "
        f"same against them as they are; interval by {documents.unit} bootstrap"
    )
    beyond = [loss for loss in losses if limit is not None and loss.ci95[0] > limit]
    worst = (beyond or losses)[0]
    observed = Observed(
        value=worst.value,
        ci95=worst.ci95,
        n_images=worst.n_images,
        unit=criterion.unit,
        partition=TEST,
    )
    if limit is not None and not beyond and any(loss.ci95[1] > limit for loss in losses):
        unclear = max(losses, key=lambda loss: loss.ci95[1])
        return not_evaluated(
            f"{_loss_words(unclear)}: its interval reaches beyond the limit of {limit:g} and holds "
            "it; more images would tell",
            observed=observed,
            method=method,
            source=EvaluationRecord,
        )
    return judge(
        criterion,
        observed,
        reason=f"{'beyond the limit' if beyond else 'largest'}: {_loss_words(worst)}; altered: "
        f"{', '.join(loss.alteration for loss in losses)}",
        method=method,
        source=EvaluationRecord,
        holds=not beyond,
    )


def _loss_words(loss: RobustnessLoss) -> str:
    return f"{loss.alteration} {loss.value:.3f} [{loss.ci95[0]:.3f} to {loss.ci95[1]:.3f}]"


@check("P8-07", step="s7_evidence")
def repeatability(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the primary endpoint's standard deviation over seeds of sampling.

    Runs without such draws, as of older versions, report it over seeds of training.
    """
    lineage = documents.need(Lineage)
    values = seed_values(lineage)
    evaluation = documents.need(EvaluationRecord)
    if len(evaluation.repeats) >= LEAST_SEEDS:
        found = [repeat.value for repeat in evaluation.repeats]
        mean, sd = fmean(found), stdev(found)
        share = f", {100 * sd / mean:.1f} % of the mean" if mean > 0 else ""
        trained = f"; of training: {spread_words(lineage)}" if len(values) > 1 else ""
        return judge(
            criterion,
            Observed(value=sd, unit="KID"),
            reason=f"KID over {len(found)} seeds of sampling: mean {mean:.4g}, SD {sd:.3g}{share}"
            f"{trained}",
            method="images drawn from the released checkpoint with each seed, against the same "
            "held-out images",
            source=EvaluationRecord,
            limitations="One training: another one may differ by more (P6-09).",
        )
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


@check("P8-08", step="s5_train", needs=OUR_TRAINING)
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
