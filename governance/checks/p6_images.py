"""Checks of principle 6 on the images: copies, members, variety, constraints."""

from collections.abc import Sequence
from typing import NamedTuple

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    check,
    counted,
    estimated,
    judge,
    listed,
    not_evaluated,
    overall_metrics,
    seen,
)
from governance.records.base import ItemStatus
from governance.records.comparison import control_verdicts, misbehaving, not_beaten, overlap
from governance.records.evaluation import (
    CopiedPartsRecord,
    DiversityRecord,
    EvaluationRecord,
    MemorisationRecord,
    MetricResult,
)
from governance.records.item import CheckResult, Observed
from governance.records.policy import Criterion

_VARIETY = ("coverage", "recall")
_COPY_DISTANCE = 1e-6  # an exact copy has distance 0 up to rounding
_CHANCE_AUC = 0.5
TOO_FAR = "the images are too far from real ones for this to mean anything"


def _below_minimum(documents: JudgedRun, evaluation: EvaluationRecord) -> str:
    """Return why copying and variety get no credit; "" where the policy's minimum is reached.

    A policy of an older version sets no minimum: its runs are judged as they were planned.
    """
    minimum = documents.policy.fidelity_minimum
    if minimum is None:
        return ""
    own = [m for m in overall_metrics(evaluation) if m.id.partition("-")[0] == minimum.metric]
    name = minimum.metric.upper()
    if not own or own[0].value is None:
        return f"whether the images are near enough to real ones is unknown: no {name}"
    known = {c.name: c for c in evaluation.controls if c.metric == minimum.metric}
    if missing := [name for name in minimum.nearer_than if name not in known]:
        return (
            "whether the images are near enough to real ones is unknown: "
            f"no control {listed(missing)}"
        )
    value, ci95 = own[0].value, own[0].ci95
    controls = tuple(known[name] for name in minimum.nearer_than)
    numbers = "; ".join(f"{c.name} {estimated(c.value, c.ci95)}" for c in controls)
    words = f"{name} {estimated(value, ci95)}; {numbers}"
    if not_beaten(value, controls) or any(overlap(ci95, c.ci95) for c in controls):
        return f"{TOO_FAR} ({words})"
    if ci95 is None or any(c.ci95 is None for c in controls):
        return f"whether the images are near enough to real ones is unknown: no interval ({words})"
    return ""


@check("P6-04", step="s6_evaluate")
def memorisation(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Bound the share of images that copy training images or parts of them; none may be confirmed.

    Where no search could confirm a flagged image, or it misses copies planted in this run, a share
    within the limit is not evaluated; nor is one above it of so few images that none was flagged.
    """
    evaluation = documents.need(EvaluationRecord)
    memory = evaluation.memorisation
    if memory is None or memory.n_synthetic == 0 or memory.n_null == 0:
        return not_evaluated("nearest training images were not computed", source=EvaluationRecord)
    verdicts = control_verdicts(evaluation.controls, documents.policy.controls)
    if fault := misbehaving("memorisation", verdicts):
        return not_evaluated(fault, method=memory.method, source=EvaluationRecord)
    parts = evaluation.parts
    copies = [pair.synthetic for pair in memory.closest if pair.distance <= _COPY_DISTANCE]
    share = _flagged(memory, parts)
    words = [f"{share.n:,} of {share.of:,} flagged, upper 95 % bound {share.ci95[1]:.3f}"]
    observed = Observed(value=share.n / share.of, ci95=share.ci95, n_images=share.of)
    limit = criterion.value
    if copies:
        words.append(f"equal to a training image: {listed(copies)}")
    if parts is not None:
        words += _part_words(parts, documents.unit)
    shown_nearer = _nearer_than_unseen(documents, evaluation)
    words += [shown_nearer] if shown_nearer else []
    is_copied = bool(copies or shown_nearer or (parts is not None and parts.n_confirmed))
    within = limit is not None and share.ci95[1] <= limit and not is_copied
    method = f"{memory.method}; threshold from {counted(memory.n_null, 'tuning image')}"
    if parts is not None:
        method += f". Parts: {parts.method}"
    fault = ""
    if within and (parts or share.n):
        fault = _cannot_confirm(parts, documents)
    elif not within and not share.n and not is_copied and limit is not None:
        fault = "too few synthetic images to show less, draw more"
    if fault:
        return not_evaluated(
            f"{'; '.join(words)}; {fault}",
            observed=observed.model_copy(update={"unit": criterion.unit}),
            method=method,
            source=EvaluationRecord,
        )
    result = judge(
        criterion,
        observed,
        reason="; ".join(words),
        method=method,
        source=EvaluationRecord,
        limitations=(
            "A 1st percentile of fewer than 100 images is uncertain." if memory.n_null < 100 else ""
        ),
        compared=share.ci95[1],
        holds=not is_copied,
    )
    return _without_credit(result, documents, evaluation)


class _Share(NamedTuple):
    n: int
    of: int
    ci95: tuple[float, float]


def _flagged(memory: MemorisationRecord, parts: CopiedPartsRecord | None) -> _Share:
    """Return the share flagged by either search; by whole images alone where more were searched."""
    whole = _Share(memory.n_flagged, memory.n_synthetic, memory.share_ci95)
    if parts is None:
        return whole
    either = _Share(parts.n_flagged_either, parts.n_synthetic, parts.share_ci95)
    return max(either, whole, key=lambda share: share.ci95[1])


def _part_words(parts: CopiedPartsRecord, unit: str) -> list[str]:
    found = (
        f"parts of training images in {parts.n_flagged:,} of {parts.n_synthetic:,}, "
        f"{parts.n_confirmed:,} confirmed"
    )
    if parts.n_of_one_patient > 1:
        found += f", {parts.n_of_one_patient:,} of them from one {unit}"
    n_planted = sum(planted.n for planted in parts.planted)
    tried = (
        f"the search found {100 * parts.recall:.0f} % of {n_planted} altered copies and flagged "
        f"{parts.n_unseen_flagged:,} of {counted(parts.n_unseen, 'unseen image')}"
    )
    return [found, tried]


def _cannot_confirm(parts: CopiedPartsRecord | None, documents: JudgedRun) -> str:
    """Return why flagged images are neither confirmed nor ruled out as copies; "" if they are."""
    limits = documents.policy.copying
    if parts is None or limits is None:
        return "whether a flagged image is a copy was neither confirmed nor ruled out"
    if parts.recall < limits.least_recall:
        return f"fewer than {100 * limits.least_recall:g} % of altered copies were found"
    if parts.unseen_ci95[0] > limits.most_unseen:
        return f"more than {100 * limits.most_unseen:g} % of unseen images were flagged"
    return ""


def _nearer_than_unseen(documents: JudgedRun, evaluation: EvaluationRecord) -> str:
    """Return the words on a C_T below the policy's limit; "" where there is none."""
    found, limits = evaluation.data_copying, documents.policy.copying
    if found is None or limits is None or found.value >= limits.least_c_t:
        return ""
    return f"C_T {found.value:.1f} is below {limits.least_c_t:g}: nearer to training than unseen images"


def _without_credit(
    result: CheckResult, documents: JudgedRun, evaluation: EvaluationRecord
) -> CheckResult:
    """Return the result, not evaluated where the images are too far from real ones for credit.

    A failure stays one: too many flagged images count however bad the images are.
    """
    below = _below_minimum(documents, evaluation)
    if not below or result.status is ItemStatus.FAILED:
        return result
    changes = {"status": ItemStatus.NOT_EVALUATED, "reason": f"{below}; {result.reason}"}
    return result.model_copy(update=changes)


@check("P6-05", step="s6_evaluate")
def membership(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Judge the upper bound of the AUC of an attack that tells training from tuning patients.

    It fails where the attack is shown to do better than chance; a bound above the limit alone means
    too few patients.
    """
    evaluation = documents.need(EvaluationRecord)
    attack = evaluation.membership
    if attack is None:
        return not_evaluated(
            "no attack is on record: AUC of a membership-inference attack, by patient",
            source=EvaluationRecord,
        )
    low, high = attack.ci95
    unit = documents.unit
    words = (
        f"AUC {estimated(attack.auc, attack.ci95)}, {counted(attack.n_training, f'training {unit}')} "
        f"against {counted(attack.n_tuning, f'tuning {unit}')}"
    )
    limitations = (
        "One attack by distance: a stronger one may tell more, and copies of few patients move it "
        "little (P6-04)."
    )
    observed = Observed(value=attack.auc, ci95=attack.ci95, n_patients=attack.n_training)
    limit = criterion.value
    if limit is not None and high > limit and low <= _CHANCE_AUC:
        return not_evaluated(
            f"{words}: no more than chance, but with so few {unit}s a bound of {limit:g} is not shown",
            observed=observed,
            method=attack.method,
            source=EvaluationRecord,
            limitations=limitations,
        )
    result = judge(
        criterion,
        observed,
        reason=words,
        method=attack.method,
        source=EvaluationRecord,
        limitations=limitations,
        compared=high,
    )
    return _without_credit(result, documents, evaluation)


@check("P6-07", step="s6_evaluate")
def variety(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the smallest figure of variety over the same figure of real images.

    A run without Vendi score and similarity of pairs, as of older versions, reports the smaller of
    coverage and recall and never passes.
    """
    evaluation = documents.need(EvaluationRecord)
    found = [m for m in overall_metrics(evaluation) if m.id.split("-")[0] in _VARIETY]
    if not found:
        listed_all = [m for m in evaluation.metrics if m.id.split("-")[0] in _VARIETY]
        reason = next((m.reason for m in listed_all if m.reason), "")
        return not_evaluated(
            f"neither coverage nor recall was evaluated{f': {reason}' if reason else ''}",
            source=EvaluationRecord,
        )
    if evaluation.diversity is not None:
        return _without_credit(
            _ratios_judged(found, evaluation.diversity, criterion), documents, evaluation
        )
    smallest = min(found, key=lambda m: m.value or 0.0)
    lacking = "Vendi score and pairwise similarity against real images are not measured"
    method = "coverage and recall of synthetic images against held-out real ones, all images"
    result = judge(
        criterion,
        seen(smallest),
        reason=f"smallest: {smallest.title}",
        method=method,
        source=EvaluationRecord,
        limitations=f"{lacking}.",
    )
    if result.status is ItemStatus.PASSED:
        return not_evaluated(
            f"{smallest.title} is within the limit, but {lacking}",
            observed=result.observed,
            method=method,
            source=EvaluationRecord,
        )
    return _without_credit(result, documents, evaluation)


def _ratios_judged(
    metrics: Sequence[MetricResult], diversity: DiversityRecord, criterion: Criterion
) -> CheckResult:
    """Judge the smallest of coverage, recall, Vendi score and difference of pairs, over real."""
    figures = {m.title: (m.value, m.floor) for m in metrics}
    figures["Vendi score"] = (diversity.vendi, diversity.vendi_real)
    figures["difference of pairs (1 - MS-SSIM)"] = (
        1 - diversity.ms_ssim,
        1 - diversity.ms_ssim_real,
    )
    ratios = {
        name: value / real
        for name, (value, real) in figures.items()
        if value is not None and real is not None and real > 0
    }
    method = (
        "coverage, recall, Vendi score and difference of pairs of synthetic images, each over the same "
        f"of real training images; {counted(diversity.n_pairs, 'pair')} of each kind"
    )
    if lacking := [name for name in figures if name not in ratios]:
        return not_evaluated(
            f"no figure of real images to compare with: {listed(lacking)}",
            method=method,
            source=EvaluationRecord,
        )
    name, smallest = min(ratios.items(), key=lambda pair: pair[1])
    shown = "; ".join(f"{title} {ratio:.2f}" for title, ratio in ratios.items())
    return judge(
        criterion,
        Observed(value=smallest, n_images=diversity.n_images),
        reason=f"smallest: {name} ({shown} of that of real images)",
        method=method,
        source=EvaluationRecord,
        limitations="High values show variety, not that the images are right.",
    )


@check("P6-08", step="s6_evaluate")
def constraints(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Always unavailable: share of synthetic images that show impossible anatomy."""
    documents.need(EvaluationRecord)
    return not_evaluated(
        "the metrics are missing: agreement with a plane classifier, and checks of sector and "
        "skull on synthetic images; this version has none of them",
        source=EvaluationRecord,
    )
