"""Checks on the independence of training and test data, as far as the data show it."""

from governance.checks.registry import (
    NO_PARTITIONS,
    Documents,
    across_pairs,
    by_partition,
    check,
    counted,
    joined,
    judge,
    listed,
    not_evaluated,
    patients_by_level,
    recorded_attributes,
    unit_note,
)
from governance.records.audit import CoverageAudit, DuplicateAudit
from governance.records.base import TEST, TRAINING, ItemStatus
from governance.records.evaluation import EvaluationRecord
from governance.records.partition import SplitRecord
from governance.records.policy import Criterion
from governance.records.training import PretrainedComponent, TrainingRecord
from governance.records.verdict import CheckResult, Observed

_SOURCE_ATTRIBUTES = ("site", "operator", "machine")


@check("P4-01", step="s4_split")
def shared_patients(documents: Documents, criterion: Criterion) -> CheckResult:
    """Patients in both partitions of any pair."""
    split = documents.need(SplitRecord)
    n, gaps, words = across_pairs(split.shared_patients)
    if gaps and not n:
        return not_evaluated(f"not counted: {listed(gaps)}", source=SplitRecord)
    if split.refused and not n:
        return not_evaluated(split.refused, source=SplitRecord)
    observed = Observed(
        value=n,
        unit=f"{split.unit}s",
        n_patients=sum(part.n_patients for part in split.partitions),
        n_images=sum(part.n_images for part in split.partitions),
        partition="all",
    )
    method = f"each pair of partitions compared by {split.unit}"
    if split.unit != "patient" and not n:
        note = documents.dataset.split_unit_note if documents.dataset else ""
        return not_evaluated(
            f"no {split.unit} is shared, but the data set does not say which {split.unit}s are of "
            f"one patient{f': {note}' if note else ''}",
            observed=observed,
            method=method,
            source=SplitRecord,
        )
    return judge(
        criterion,
        observed,
        reason=words or f"no {split.unit} is in two partitions",
        method=method,
        source=SplitRecord,
    )


@check("P4-02", step="s4_split")
def shared_content(documents: Documents, criterion: Criterion) -> CheckResult:
    """Images with equal decoded pixels in both partitions of any pair."""
    split = documents.need(SplitRecord)
    n, gaps, words = across_pairs(split.shared_content)
    if gaps and not n:
        return not_evaluated(f"not counted: {listed(gaps)}", source=SplitRecord)
    if split.refused and not n:
        return not_evaluated(split.refused, source=SplitRecord)
    return judge(
        criterion,
        Observed(
            value=n,
            n_patients=sum(part.n_patients for part in split.partitions),
            n_images=sum(part.n_images for part in split.partitions),
            partition="all",
        ),
        reason=words or "no image has the same pixels as one in another partition",
        method="SHA-256 of the decoded pixels, each pair of partitions compared",
        source=SplitRecord,
        limitations="Finds equal pixels only; near-duplicates are item P4-03.",
    )


@check("P4-03", step="s4_split")
def shared_near_duplicates(documents: Documents, criterion: Criterion) -> CheckResult:
    """Near-duplicate pairs across partitions that nobody declared to be different images."""
    split, audit = documents.need(SplitRecord), documents.need(DuplicateAudit)
    n, gaps, words = across_pairs(split.shared_near)
    n_images = sum(part.n_images for part in split.partitions)
    doubts = [split.refused] if split.refused else []
    doubts += [f"not counted: {listed(gaps)}"] if gaps else []
    doubts += _search_doubts(audit, n_images, documents.unit)
    if doubts and not n:
        return not_evaluated("; ".join(doubts), method=audit.method, source=DuplicateAudit)
    return judge(
        criterion,
        Observed(
            value=n,
            n_patients=sum(part.n_patients for part in split.partitions),
            n_images=n_images,
            partition="all",
        ),
        reason=(words or "no near-duplicate lies in two partitions") + _decided(audit),
        method=joined(audit.method, _null_words(audit, documents.unit)),
        source=SplitRecord,
        limitations=joined(
            "Perceptual hash and correlation, no learned embedding: a copy that was changed further "
            "than they follow is not found.",
            unit_note(documents),
        ),
    )


def _search_doubts(audit: DuplicateAudit, n_images: int, unit: str) -> list[str]:
    """Why finding no pair shows nothing."""
    doubts = []
    if audit.null is None or not audit.null.n_pairs:
        doubts.append(
            "near-duplicates were not searched, or the threshold could not be held against images "
            f"of different {unit}s"
        )
    if audit.n_images < n_images:
        doubts.append(f"{audit.n_images:,} of {n_images:,} images were searched")
    return doubts


def _null_words(audit: DuplicateAudit, unit: str) -> str:
    null = audit.null
    if null is None:
        return ""
    highest = "" if null.highest is None else f", the highest of them {null.highest:.3f}"
    return (
        f"Threshold {null.threshold:.3f}, held against {counted(null.n_pairs, 'pair')} of different "
        f"{unit}s{highest}."
    )


def _decided(audit: DuplicateAudit) -> str:
    if not audit.distinct:
        return ""
    declared = f"{counted(len(audit.distinct), 'pair')} declared to be different images"
    return f"; {declared}: {listed(audit.distinct)}"


@check("P4-04", step="s4_split")
def official_split(documents: Documents, criterion: Criterion) -> CheckResult:
    """The split that the data set brings is kept, or the departure is stated."""
    split = documents.need(SplitRecord)
    if split.refused:
        return not_evaluated(split.refused, source=SplitRecord)
    if not split.official_available:
        return not_evaluated("the data set brings no official split", source=SplitRecord)
    kept = split.source == "official"
    silent = "the official split was not used and no departure is stated"
    return judge(
        criterion,
        Observed(value=kept or bool(split.deviations)),
        reason="; ".join(split.deviations) or ("kept as published" if kept else silent),
        method="source of the split and its recorded departures",
        source=SplitRecord,
        limitations=(
            "" if kept else "Results are not comparable with those on the official split."
        ),
    )


@check("P4-09", step="s6_evaluate")
def data_behind_weights(documents: Documents, criterion: Criterion) -> CheckResult:
    """Weights made by others, in training and in metrics, were not trained on this data set."""
    training, evaluation = documents.need(TrainingRecord), documents.need(EvaluationRecord)
    components = (*training.pretrained, *evaluation.pretrained)
    overlapping = {c.name: None for c in components if c.overlap == "known"}
    described = {component.sha256 for component in components}
    unknown = {c.name: None for c in components if not _is_known(c)} | {
        metric.extractor: None
        for metric in evaluation.metrics
        if metric.status is ItemStatus.RECORDED
        and metric.extractor
        and metric.extractor_sha256 not in described
    }
    method = "what each component is declared to have been trained on, and its known overlap"
    if unknown and not overlapping:
        return not_evaluated(
            f"what they were trained on, or its overlap with this data set, is not declared: "
            f"{listed(list(unknown))}",
            method=method,
            source=EvaluationRecord,
        )
    return judge(
        criterion,
        Observed(value=len(overlapping)),
        reason=f"trained on images of this data set: {listed(list(overlapping))}"
        if overlapping
        else _behind(components),
        method=method,
        source=EvaluationRecord,
        limitations="Declared by whoever published or named the weights; the run does not see the "
        "data behind them."
        if components
        else "",
    )


def _is_known(component: PretrainedComponent) -> bool:
    is_declared = bool(component.training_data.strip() and component.declared_by.strip())
    return is_declared and component.overlap != "unknown"


def _behind(components: tuple[PretrainedComponent, ...]) -> str:
    if not components:
        return "no weights made by others were used"
    words = {f"{c.name}: {c.training_data} (declared by {c.declared_by})": None for c in components}
    return "; ".join(words)


@check("P4-10", step="s4_split")
def shared_sources(documents: Documents, criterion: Criterion) -> CheckResult:
    """Sites, operators and machines that are in both training and the held-out test set."""
    coverage = documents.need(CoverageAudit)
    if not by_partition(coverage):
        return not_evaluated(NO_PARTITIONS, source=CoverageAudit)
    shared = []
    for attribute in recorded_attributes(coverage, _SOURCE_ATTRIBUTES):
        training = patients_by_level(coverage, attribute, TRAINING)
        test = patients_by_level(coverage, attribute, TEST)
        shared += [f"{attribute} {level}" for level in training if training[level] and test[level]]
    unknown = [a for a in _SOURCE_ATTRIBUTES if a not in recorded_attributes(coverage)]
    method = "levels of site, operator and machine in both partitions; dates are not read"
    if not shared:
        words = ", ".join([*unknown, "date"])
        return not_evaluated(f"not recorded: {words}", method=method, source=CoverageAudit)
    return judge(
        criterion,
        Observed(value=len(shared), partition=f"{TRAINING} and {TEST}"),
        reason=f"in both: {listed(shared)}"
        + (f"; not recorded: {', '.join(unknown)}" if unknown else ""),
        method=method,
        source=CoverageAudit,
    )


@check("P4-13", step="s6_evaluate")
def external_test_set(documents: Documents, criterion: Criterion) -> CheckResult:
    """A test set from another source: none can be configured yet."""
    return not_evaluated(
        "no test set from another source was used; using one is not implemented yet"
    )
