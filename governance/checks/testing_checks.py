"""Checks of principles 7 and 8: reader kit, utility, subgroups, robustness, seeds, rejection."""

from collections import defaultdict
from statistics import stdev

from governance.checks.design_checks import LEAST_SEEDS, seed_values, spread_words
from governance.checks.registry import Documents, check, counted, judge, listed, not_evaluated
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.lineage import Lineage
from governance.records.policy import Criterion
from governance.records.training import SampleSet
from governance.records.verdict import CheckResult, Observed

_LEAST_PATIENTS = 30  # a smaller subgroup is shown and not judged
_NO_KIT = "this version has no command turing-test, which would make a blinded reader kit"


@check("P7-02", step="s6_evaluate")
def reader_kit(documents: Documents, criterion: Criterion) -> CheckResult:
    """A shuffled set of real and synthetic images with a sealed key."""
    documents.need(SampleSet)
    return not_evaluated(f"no reader kit: {_NO_KIT}", source=SampleSet)


@check("P7-03", step="s6_evaluate")
def reader_answers(documents: Documents, criterion: Criterion) -> CheckResult:
    """Accuracy and agreement of readers who answered a kit."""
    documents.need(SampleSet)
    return not_evaluated(f"no reader answers were given: {_NO_KIT}", source=SampleSet)


@check("P8-04", step="s6_evaluate")
def utility(documents: Documents, criterion: Criterion) -> CheckResult:
    """Gain of a classifier from synthetic images, on unseen real patients."""
    documents.need(EvaluationRecord)
    return not_evaluated(
        "the metric is missing: performance of a classifier on unseen real patients, trained with "
        "and without synthetic images; this version trains none",
        source=EvaluationRecord,
    )


@check("P8-05", step="s6_evaluate")
def subgroup_gap(documents: Documents, criterion: Criterion) -> CheckResult:
    """Largest difference of KID between levels of one attribute, both of 30 patients or more."""
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
def robustness(documents: Documents, criterion: Criterion) -> CheckResult:
    """Loss of quality when gain, speckle, zoom, rotation or compression change."""
    documents.need(EvaluationRecord)
    return not_evaluated(
        "the metric is missing: results under changed gain, speckle, zoom, rotation and "
        "compression; this version measures unchanged images",
        source=EvaluationRecord,
    )


@check("P8-07", step="s7_evidence")
def repeatability(documents: Documents, criterion: Criterion) -> CheckResult:
    """Standard deviation of the primary endpoint over runs that differ in their seed alone."""
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
def rejected_samples(documents: Documents, criterion: Criterion) -> CheckResult:
    """Synthetic images that were asked for and are neither kept nor counted as rejected."""
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
