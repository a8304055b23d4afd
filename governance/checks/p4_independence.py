"""Checks of principle 4: independence of the data sets."""

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    NO_PARTITIONS,
    OUR_TRAINING,
    TRAINING_IMAGES,
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
from governance.records.audit import CoverageAudit
from governance.records.base import TEST, TRAINING, TUNING, ItemStatus
from governance.records.dataset import DatasetIdentity
from governance.records.duplicates import DuplicateAudit
from governance.records.evaluation import EvaluationRecord, ExternalSet
from governance.records.item import CheckResult, Observed
from governance.records.partition import IsolationRecord, SealRecord, SplitRecord
from governance.records.policy import Criterion
from governance.records.selftest import PlantTrial, SelftestRecord
from governance.records.training import PretrainedComponent, TrainingRecord

_SOURCE_ATTRIBUTES = ("site", "operator", "machine")
_LEAST_LEVEL = 2  # a separate process with clean environment and packed view
ASKED_FOR = ("patient", "duplicate", "early read")


@check("P4-01", step="s4_split", needs=TRAINING_IMAGES)
def shared_patients(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count patients who are in both partitions of any pair."""
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
        dataset = documents.get(DatasetIdentity)
        note = dataset.split_unit_note if dataset else ""
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


@check("P4-02", step="s4_split", needs=TRAINING_IMAGES)
def shared_content(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count images with equal decoded pixels in both partitions of any pair."""
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


@check("P4-03", step="s4_split", needs=TRAINING_IMAGES)
def shared_near_duplicates(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count near-duplicate pairs across partitions that nobody declared to be different."""
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


def _search_doubts(audit: DuplicateAudit, n_images: int, unit: str) -> list[str]:
    """List why finding no near-duplicate pair proves nothing; empty if the search was full."""
    doubts = []
    if audit.null is None or not audit.null.n_pairs:
        doubts.append(
            "near-duplicates were not searched, or the threshold could not be held against images "
            f"of different {unit}s"
        )
    if audit.n_images < n_images:
        doubts.append(f"{audit.n_images:,} of {n_images:,} images were searched")
    return doubts


@check("P4-04", step="s4_split", needs=TRAINING_IMAGES)
def official_split(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the official split of the data set is kept, or the departure is stated."""
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


@check("P4-05", step="s5_train", needs=OUR_TRAINING)
def sequestration(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that sealed files stayed unread until the opening, and training could not read them."""
    isolation = documents.need(IsolationRecord)
    sealed = [a for a in isolation.attempts if "sealed" in a.target.lower()]
    read = [a.target for a in isolation.attempts if not a.refused]
    faults = [f"the training process could read: {listed(read)}"] if read else []
    if isolation.noticed:
        tried = [f"{a.target} ({a.way})" for a in isolation.noticed]
        faults.append(f"the generator tried to reach what it must not: {listed(tried)}")
    if isolation.level < _LEAST_LEVEL:
        faults.append(f"isolation level {isolation.level}: training had no process of its own")
    method = (
        f"opens of sealed files counted, and {counted(len(isolation.attempts), 'forbidden read')} "
        f"tried by the training process; level {isolation.level}, {isolation.mechanism}"
    )
    if not sealed and not faults and isolation.n_sealed_reads == 0:
        return not_evaluated(
            "the training process did not try to read a sealed image, so the isolation is not shown",
            method=method,
            source=IsolationRecord,
        )
    if not faults and isolation.n_sealed_reads == 0:
        documents.need(EvaluationRecord)  # the count of reads is final only at the opening
    if isolation.n_sealed_reads:
        faults.append(f"{counted(isolation.n_sealed_reads, 'sealed file')} opened before the time")
    return judge(
        criterion,
        Observed(value=isolation.n_sealed_reads),
        reason="; ".join(faults) or f"all {counted(len(isolation.attempts), 'attempt')} refused",
        method=method,
        source=IsolationRecord,
        limitations=" ".join(isolation.limits),
        holds=not faults,
    )


@check("P4-06", step="s6_evaluate")
def test_use(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count the openings of this test set over all runs, from the ledger."""
    evaluation = documents.need(EvaluationRecord)
    opening = evaluation.opening
    if opening is None:
        seal = documents.get(SealRecord)
        earlier = seal.n_earlier_openings if seal else 0
        return not_evaluated(
            f"the test set was not opened in this run; {counted(earlier, 'earlier opening')}",
            source=SealRecord if seal else EvaluationRecord,
        )
    return judge(
        criterion,
        Observed(value=opening.number, n_images=opening.n_images),
        reason=f"{'first use of this test set' if opening.number == 1 else opening.label}; purpose: "
        f"{opening.purpose}",
        method="number of this opening in the ledger of the data set",
        source=EvaluationRecord,
        limitations="The ledger knows the openings of one workspace, or of those that share it.",
    )


@check("P4-07", step="s5_train", needs=OUR_TRAINING)
def fitted_on_training(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count fitted components that were fitted on other images than the training view."""
    training = documents.need(TrainingRecord)
    if not training.fitted:
        return not_evaluated("no fitted thing is on record", source=TrainingRecord)
    expected = training.training_view_sha256
    others = [thing.name for thing in training.fitted if thing.fit_view_sha256 != expected]
    names = [thing.name for thing in training.fitted]
    return judge(
        criterion,
        Observed(value=len(others)),
        reason=f"fitted on other images: {listed(others)}"
        if others
        else f"fitted on the training view: {', '.join(names)}",
        method="digest of the view each was fitted on compared with the training view's",
        source=TrainingRecord,
    )


@check("P4-08", step="s5_train", needs=OUR_TRAINING)
def selected_on_tuning(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the released checkpoint was chosen on the tuning view."""
    training = documents.need(TrainingRecord)
    selection = training.selection
    same_view = selection.view_sha256 == training.tuning_view_sha256
    right = selection.partition == TUNING and same_view
    n_candidates = counted(len(selection.candidates), "candidate")
    chosen = f"step {selection.chosen_step:,} out of {n_candidates}"
    return judge(
        criterion,
        Observed(value=right, partition=selection.partition),
        reason=f"{chosen}, by {selection.criterion}"
        if right
        else f"{chosen}, chosen on {selection.partition} images that are not the tuning view",
        method="partition and digest of the view the candidates were scored on",
        source=TrainingRecord,
    )


@check("P4-09", step="s6_evaluate")
def data_behind_weights(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count pretrained weights, in training and metrics, that were trained on this data set."""
    training, evaluation = documents.need(TrainingRecord), documents.need(EvaluationRecord)
    components = (*training.pretrained, *evaluation.pretrained)
    # One that was fitted in this run saw its training images, and nothing from elsewhere.
    further = [e for e in evaluation.extractors if e.training_data and e.metric.value is not None]
    overlapping = {c.name: None for c in components if c.overlap == "known"}
    overlapping |= {e.name: None for e in further if e.overlap == "known"}
    described = {component.sha256 for component in components}
    unknown = {c.name: None for c in components if not _is_known(c)}
    unknown |= {e.name: None for e in further if e.overlap == "unknown"}
    unknown |= {
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


@check("P4-10", step="s4_split", needs=TRAINING_IMAGES)
def shared_sources(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count sites, operators and machines that are in both training and test set."""
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


@check("P4-11", step="s6_evaluate", needs=TRAINING_IMAGES)
def synthetic_apart(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count synthetic images in the test set, and test patients or images seen in training."""
    evaluation, split = documents.need(EvaluationRecord), documents.need(SplitRecord)
    n_images, n_patients = evaluation.n_synthetic_in_test, evaluation.n_test_patients_in_training
    if n_images is None or n_patients is None:
        return not_evaluated("the test set was not compared", source=EvaluationRecord)
    n_seen = evaluation.n_test_images_in_training
    n = n_images + n_patients + (n_seen or 0)
    words = (
        f"{counted(n_images, 'synthetic image')} in the test set, "
        f"{counted(n_patients, f'test {split.unit}')} in training"
    )
    if n_seen is not None:
        words += f", {counted(n_seen, 'test image')} with equal pixels in training"
    method = f"marks and pixels of the test images, and their {split.unit}s, at the opening"
    if split.unit != "patient" and n == 0:
        return not_evaluated(
            f"{words}, but the data set does not say which {split.unit}s are of one patient",
            observed=Observed(value=n, unit=f"images and {split.unit}s"),
            method=method,
            source=EvaluationRecord,
        )
    return judge(criterion, Observed(value=n), reason=words, method=method, source=EvaluationRecord)


@check("P4-12", step="start")
def guards_tried(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count planted leaks that were missed, or whose guard also raises an alarm on clean data."""
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
    """Say why a trial proves nothing: the leak was missed, or the clean control was refused."""
    if not trial.is_caught:
        silent = sorted({*trial.expected} - {a.guard for a in trial.answers if a.is_alarm})
        return f"{trial.name} was not caught by {', '.join(silent)}"
    false = sorted({answer.guard for answer in trial.control if answer.is_alarm})
    return f"{trial.name}: {', '.join(false) or 'a guard'} did not let clean data pass"


@check("P4-13", step="s6_evaluate")
def external_test_set(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count the test sets from other sources that the images were compared with."""
    evaluation = documents.need(EvaluationRecord)
    if not evaluation.external:
        return not_evaluated(
            "no test set from another source was used; name one in evaluation.external",
            source=EvaluationRecord,
        )
    told = [_external_words(one) for one in evaluation.external]
    measured = [one for one in evaluation.external if one.kid is not None]
    if not measured:
        return not_evaluated("; ".join(told), source=EvaluationRecord)
    return judge(
        criterion,
        Observed(
            value=len(measured),
            n_images=sum(one.n_images for one in measured),
            n_patients=sum(one.n_patients for one in measured),
        ),
        reason="; ".join(told),
        method="images that this run's data hold as well, equal or nearly, were left out before",
        source=EvaluationRecord,
        limitations="whether the sources are independent beyond that rests on their description",
    )


def _external_words(one: ExternalSet) -> str:
    kid = one.kid
    if kid is None:
        return f"{one.name}: not measured: {one.reason or 'no kernel distance'}"
    floor = "no floor" if kid.floor is None else f"real training images {kid.floor:.3f}"
    return (
        f"{one.name}: KID {kid.value:.3f} ({floor}), {counted(one.n_images, 'image')}, "
        f"{one.n_left_out:,} left out"
    )
