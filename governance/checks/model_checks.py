"""Checks on the model: isolation, fitting, selection, memorisation, marking, release."""

from governance.checks.registry import Documents, check, counted, judge, listed, not_evaluated
from governance.records.base import TUNING
from governance.records.evaluation import EvaluationRecord
from governance.records.partition import IsolationRecord, SealRecord, SplitRecord
from governance.records.policy import Criterion
from governance.records.run import Figures
from governance.records.training import SampleSet, TrainingRecord
from governance.records.verdict import CheckResult, Observed

MODEL_FIELDS = (
    "architecture",
    "sizes",
    "losses",
    "optimiser",
    "schedule",
    "augmentation",
    "pre-training",
)
_COPY_DISTANCE = 1e-6  # an exact copy has distance 0 up to rounding
_LEAST_LEVEL = 2  # a separate process with clean environment and packed view


@check("P4-05", step="s5_train")
def sequestration(documents: Documents, criterion: Criterion) -> CheckResult:
    """No sealed file was read before the opening, and the training process proved it could not."""
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
        documents.need(EvaluationRecord)  # until the opening the count of reads is not final
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
def test_use(documents: Documents, criterion: Criterion) -> CheckResult:
    """Openings of this test set over all runs, from the ledger."""
    evaluation = documents.need(EvaluationRecord)
    opening = evaluation.opening
    if opening is None:
        earlier = documents.seal.n_earlier_openings if documents.seal else 0
        return not_evaluated(
            f"the test set was not opened in this run; {counted(earlier, 'earlier opening')}",
            source=SealRecord if documents.seal else EvaluationRecord,
        )
    return judge(
        criterion,
        Observed(value=opening.number, n_images=opening.n_images),
        reason=f"{opening.label}; purpose: {opening.purpose}",
        method="number of this opening in the ledger of the data set",
        source=EvaluationRecord,
        limitations="The ledger knows the openings of one workspace, or of those that share it.",
    )


@check("P4-07", step="s5_train")
def fitted_on_training(documents: Documents, criterion: Criterion) -> CheckResult:
    """Everything that was fitted was fitted on the training view."""
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


@check("P4-08", step="s5_train")
def selected_on_tuning(documents: Documents, criterion: Criterion) -> CheckResult:
    """The released checkpoint was chosen on the tuning view."""
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


@check("P4-11", step="s6_evaluate")
def synthetic_apart(documents: Documents, criterion: Criterion) -> CheckResult:
    """No synthetic image is in the test set, no test patient and no test image was in training."""
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


@check("P6-01", step="s5_train")
def model_description(documents: Documents, criterion: Criterion) -> CheckResult:
    """Every field of the model description is filled."""
    training = documents.need(TrainingRecord)
    filled = {_field(name) for name, text in training.description.items() if text.strip()}
    empty = [name for name in MODEL_FIELDS if name not in filled]
    empty += [
        name
        for name, text in training.description.items()
        if not text.strip() and _field(name) not in MODEL_FIELDS
    ]
    return judge(
        criterion,
        Observed(value=len(empty)),
        reason=f"empty: {listed(empty)}" if empty else f"filled: {', '.join(MODEL_FIELDS)}",
        method="fields of the description that the generator gives of itself",
        source=TrainingRecord,
        limitations="That a field is filled says nothing about how well.",
    )


@check("P6-04", step="s6_evaluate")
def memorisation(documents: Documents, criterion: Criterion) -> CheckResult:
    """Upper bound of the share of synthetic images nearer to training than unseen images are."""
    evaluation = documents.need(EvaluationRecord)
    memory = evaluation.memorisation
    if memory is None or memory.n_synthetic == 0 or memory.n_null == 0:
        return not_evaluated("nearest training images were not computed", source=EvaluationRecord)
    n, flagged = memory.n_synthetic, memory.n_flagged
    copies = [pair.synthetic for pair in memory.closest if pair.distance <= _COPY_DISTANCE]
    upper = memory.share_ci95[1]
    words = f"{flagged:,} of {n:,} flagged, upper 95 % bound {upper:.3f}"
    observed = Observed(value=flagged / n, ci95=memory.share_ci95, n_images=n)
    limit = criterion.value
    if flagged and not copies and limit is not None and upper <= limit:
        # Within the limit, but the item also asks that no flagged image is a copy.
        return not_evaluated(
            f"{words}; whether a flagged image is a copy was neither confirmed nor ruled out",
            observed=observed.model_copy(update={"unit": criterion.unit}),
            method=memory.method,
            source=EvaluationRecord,
        )
    if copies:
        words += f"; equal to a training image: {listed(copies)}"
    elif not flagged and limit is not None and upper > limit:
        words += "; too few synthetic images to show less, draw more"
    return judge(
        criterion,
        observed,
        reason=words,
        method=f"{memory.method}; threshold from {counted(memory.n_null, 'tuning image')}",
        source=EvaluationRecord,
        limitations=(
            "A 1st percentile of fewer than 100 images is uncertain." if memory.n_null < 100 else ""
        ),
        compared=upper,
        holds=not copies,
    )


@check("P7-01", step="s6_evaluate")
def sample_sheets(documents: Documents, criterion: Criterion) -> CheckResult:
    """Sheets of random, worst-scoring and nearest-neighbour samples are among the figures."""
    figures = documents.need(Figures)
    texts = [f"{f.path} {f.title} {f.caption}".lower() for f in figures.figures]
    random = [text for text in texts if "random" in text and "synthetic" in text]
    faults = [] if random else ["no random sample sheet"]
    if random and not any("seed" in text for text in random):
        faults.append("the random sample sheet does not state its seed")
    if not any("nearest" in text for text in texts):
        faults.append("no sheet of nearest training images")
    method = "titles and captions of the figures"
    if not faults and not any("worst" in text for text in texts):
        return not_evaluated(
            "random and nearest-neighbour sheets are produced; the worst-scoring sheet is not "
            "implemented yet",
            method=method,
            source=Figures,
        )
    return judge(
        criterion,
        Observed(value=not faults),
        reason=listed(faults) or "random, worst-scoring and nearest-neighbour sheets are produced",
        method=method,
        source=Figures,
    )


@check("P8-09", step="s6_evaluate")
def tested_is_released(documents: Documents, criterion: Criterion) -> CheckResult:
    """The checkpoint that drew the images and was judged is the released one."""
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


@check("P9-05", step="s5_train")
def synthetic_marking(documents: Documents, criterion: Criterion) -> CheckResult:
    """The mark of every synthetic image is readable from the saved file."""
    samples = documents.need(SampleSet)
    if samples.n_images == 0:
        return not_evaluated("no synthetic image was kept", source=SampleSet)
    unread = samples.n_images - samples.n_marks_read_back
    return judge(
        criterion,
        Observed(value=unread, n_images=samples.n_images),
        reason=f"{samples.n_marks_read_back:,} of {samples.n_images:,} marks read back",
        method="mark read from every saved file and compared with generator and run",
        source=SampleSet,
        limitations="The mark is metadata: it is lost when an image is copied as pixels.",
    )


def _field(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")
