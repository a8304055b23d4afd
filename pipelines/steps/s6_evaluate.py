"""s6 evaluate: opens the test set and measures fidelity and memorisation; draws figures."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from governance.records.comparison import Control
from governance.records.dataset import DatasetIdentity
from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import (
    EvaluationRecord,
    MemorisationRecord,
    MetricResult,
    Opening,
)
from governance.records.partition import IsolationRecord
from governance.records.run import Figure
from governance.records.training import PretrainedComponent
from governance.sealing.access_log import AccessLog
from governance.sealing.seal import Leaf, SealedTestSet
from medisynth.data.reading.contact_sheet import contact_sheet
from medisynth.data.reading.ingest import decode_bytes, to_square
from medisynth.data.reading.synthetic_mark import read_mark
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.metrics.controls import MEANINGS, control_images
from medisynth.metrics.features import ExtractorFacts, Features, check_reference
from medisynth.metrics.fidelity import evaluate_fidelity, kernel_estimate, not_evaluated_fidelity
from medisynth.metrics.memorisation import memorisation
from pipelines.current_run.context import RunContext, SplitImages, TrainedGenerator, add_figures
from pipelines.fetch.weights import find_weights, inception_component
from pipelines.finished_runs.lineage import baseline_of
from pipelines.steps import boundaries

_N_CONTROL = 24
_N_SHOWN = 8


@dataclass(frozen=True)
class TestImages:
    """Images of the opened test set, with their leaves."""

    __test__ = False  # not a test class

    leaves: tuple[Leaf, ...]
    pixels: Pixels
    has_mark: tuple[bool, ...]

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient of each image; the image's own id where no patient is known."""
        return tuple(leaf.patient or leaf.id for leaf in self.leaves)


def run(trained: TrainedGenerator, split: SplitImages, context: RunContext) -> EvaluationRecord:
    """Evaluate the images that are on record; errors as in `evaluate`.

    Raises:
        EvidenceError: Checkpoint or synthetic images are not those on record.
    """
    boundaries.samples_drawn(trained, context)
    return evaluate(trained, split, context)


def evaluate(
    trained: TrainedGenerator, split: SplitImages, context: RunContext
) -> EvaluationRecord:
    """Open the sealed test set, on record, and evaluate the synthetic images against it.

    Raises:
        SealError: A test image is not the one that was sealed.
    """
    training, tuning, sealed_test = split.training, split.tuning, split.sealed_test
    plan_sha256 = context.store.artifacts()["plan.json"]
    _close_access_log(split.access_log, context)
    opening, test = _open(sealed_test, trained, plan_sha256, training.pixels.shape[1], context)
    if note := sealed_test.take_note():
        context.console.warn(note)
    context.console.say(f"opened the sealed test set: {opening.label}")
    memory, memory_notes = _memorisation(trained, training, tuning)
    fidelity = _fidelity(trained.synthetic, training, test, context)
    record = EvaluationRecord(
        metrics=fidelity.metrics,
        memorisation=memory,
        controls=(*fidelity.controls, *_memorisation_control(training, tuning, memory, context)),
        opening=opening,
        n_synthetic_in_test=_n_synthetic_in_test(trained.synthetic, test),
        n_test_patients_in_training=len(
            set(test.patients) & {*training.patient_ids, *tuning.patient_ids}
        ),
        n_test_images_in_training=_n_test_in(test, training, tuning),
        pretrained=fidelity.pretrained,
        notes=(*fidelity.notes, *memory_notes),
        extraction_s=fidelity.extraction_s,
    )
    context.store.write_document(record)
    baseline = baseline_of(training, fidelity.training_features, fidelity.extractor, record)
    context.store.write_document(baseline)
    _write_figures(trained, training, record, context)
    return record


def _close_access_log(access_log: AccessLog, context: RunContext) -> None:
    access_log.stop()
    isolation = context.folder.need(IsolationRecord)
    if isolation.n_sealed_reads != access_log.n_opens:
        isolation = isolation.model_copy(update={"n_sealed_reads": access_log.n_opens})
        context.store.write_document(isolation)


def _open(
    sealed_test: SealedTestSet,
    trained: TrainedGenerator,
    plan_sha256: str,
    size_px: int,
    context: RunContext,
) -> tuple[Opening, TestImages]:
    done = 0

    def read(data: bytes, leaf: Leaf) -> tuple[Leaf, Pixels, bool]:
        nonlocal done
        image = decode_bytes(data, leaf.path)
        done += 1
        context.console.progress("reading test images", done, sealed_test.record.n_images)
        square = to_square(image.grey, size_px, context.config.data.fit)
        return leaf, square, read_mark(data) is not None

    opening, items = sealed_test.open(
        purpose="evaluation of the released checkpoint",
        plan_sha256=plan_sha256,
        model_sha256=trained.checkpoint_sha256,
        read=read,
    )
    return opening, TestImages(
        leaves=tuple(leaf for leaf, _, _ in items),
        pixels=np.stack([square for _, square, _ in items]),
        has_mark=tuple(mark for _, _, mark in items),
    )


def _n_synthetic_in_test(synthetic: Pixels, test: TestImages) -> int:
    """Count test images that have a synthetic mark or equal a synthetic image of this run."""
    drawn = set(_digests(synthetic))
    equal = (digest in drawn for digest in _digests(test.pixels))
    return sum(mark or same for mark, same in zip(test.has_mark, equal, strict=True))


def _n_test_in(test: TestImages, *views: ImageView) -> int:
    """Count test images whose pixels are in one of the views, under any name and patient."""
    seen = {digest for view in views for digest in _digests(view.pixels)}
    return sum(digest in seen for digest in _digests(test.pixels))


def _digests(images: Pixels) -> Iterator[bytes]:
    return (hashlib.sha256(pixels.tobytes()).digest() for pixels in images)


def _memorisation(
    trained: TrainedGenerator, training: ImageView, tuning: ImageView
) -> tuple[MemorisationRecord | None, tuple[str, ...]]:
    try:
        record = memorisation(
            trained.synthetic,
            trained.sample_paths,
            training.pixels,
            training.image_ids,
            tuning.pixels,
        )
    except MetricUndefinedError as error:
        return None, (f"memorisation was not evaluated: {error}",)
    return record, ()


def _memorisation_control(
    training: ImageView, tuning: ImageView, memory: MemorisationRecord | None, context: RunContext
) -> tuple[Control, ...]:
    """Try the memorisation check on copies of training images, which it must flag."""
    if memory is None:
        return ()
    copies = control_images("copycat", training.pixels, _N_CONTROL, context.config.seed)
    names = [str(number) for number in range(len(copies))]
    audit = memorisation(copies, names, training.pixels, training.image_ids, tuning.pixels)
    return (
        Control(
            name="copycat",
            metric_id="memorisation-flagged-fraction",
            value=audit.n_flagged / audit.n_synthetic,
            meaning="training images themselves: the memorisation check must flag all, 1.0",
        ),
    )


@dataclass(frozen=True)
class _Fidelity:
    """Results of the fidelity metrics; if not evaluated, the notes say why."""

    metrics: tuple[MetricResult, ...]
    controls: tuple[Control, ...] = ()
    notes: tuple[str, ...] = ()
    pretrained: tuple[PretrainedComponent, ...] = ()
    extraction_s: float = 0.0
    training_features: Features | None = None
    extractor: ExtractorFacts | None = None


def _fidelity(
    synthetic: Pixels, training: ImageView, test: TestImages, context: RunContext
) -> _Fidelity:
    config, seed = context.config.evaluation, context.config.seed
    if config.extractor == "none":
        return _unmeasured("the configuration turned the feature extractor off")
    weights = find_weights()
    if weights is None:
        return _unmeasured(
            "the FID weights are not on this machine; `medisynth-gov weights fetch` gets them"
        )
    from medisynth.metrics.features import InceptionPool3

    started = time.monotonic()
    extractor = InceptionPool3.load(weights)
    extraction_s = time.monotonic() - started
    n = min(config.max_real, len(test.leaves), len(training), len(synthetic))
    test_rows = _some(len(test.leaves), n, seed)
    training_rows = _some(len(training), n, seed + 1)
    console = context.console

    def extract(pixels: Pixels, name: str) -> Features:
        nonlocal extraction_s
        started = time.monotonic()
        features = extractor.extract(
            pixels, progress=lambda done, total: console.progress(f"features: {name}", done, total)
        )
        extraction_s += time.monotonic() - started
        return features

    try:
        check_reference(test.pixels[test_rows], "held-out test images")
    except MetricUndefinedError as error:
        return _unmeasured(str(error))
    test_features = extract(test.pixels[test_rows], "test images")
    training_features = extract(training.pixels[training_rows], "training images")
    test_patients = [test.patients[row] for row in test_rows]
    metrics = evaluate_fidelity(
        test=test_features,
        test_patients=test_patients,
        training=training_features,
        training_patients=[training.patient_ids[row] for row in training_rows],
        synthetic=extract(synthetic[:n], "synthetic images"),
        extractor=extractor,
        n_bootstrap=config.n_bootstrap,
        seed=seed,
    )

    def compared(name: str, meaning: str, features: Features) -> Control:
        value, ci95 = kernel_estimate(
            test_features, test_patients, features, n_bootstrap=config.n_bootstrap, seed=seed
        )
        metric_id = f"kid-{extractor.name}-d{extractor.n_features}"
        return Control(name=name, metric_id=metric_id, value=value, meaning=meaning, ci95=ci95)

    real = training.pixels[training_rows]
    controls = tuple(
        compared(name, meaning, _control_features(name, real, training_features, seed, extract))
        for name, meaning in MEANINGS.items()
    )
    notes = (
        f"{n} real test images and {n} synthetic images were compared"
        + (f"; drawn at random from {len(test.leaves)}" if n < len(test.leaves) else ""),
        f"controls use {_N_CONTROL} images each, resampled one by one in their intervals",
    )
    return _Fidelity(
        metrics,
        controls,
        notes,
        (
            inception_component(
                extractor.weights_sha256,
                "features of FID, KID, precision, recall, density and coverage",
            ),
        ),
        round(extraction_s, 3),
        training_features,
        extractor,
    )


def _control_features(
    name: str,
    real: Pixels,
    real_features: Features,
    seed: int,
    extract: Callable[[Pixels, str], Features],
) -> Features:
    """Return the features of one control's images, made from real training images."""
    if name == "copycat":  # these features are known already
        return real_features[:_N_CONTROL]
    pixels = control_images(name, real, _N_CONTROL, seed)
    distinct = 1 if name == "black" else len(pixels)
    features = extract(pixels[:distinct], f"control {name}")
    repeated: Features = np.repeat(features, len(pixels) // distinct, axis=0)
    return repeated


def _unmeasured(reason: str) -> _Fidelity:
    metrics = not_evaluated_fidelity(reason)
    return _Fidelity(metrics, notes=(f"fidelity was not evaluated: {reason}",))


def _some(n_all: int, n: int, seed: int) -> Sequence[int]:
    """Draw n of n_all row numbers without replacement; return them in ascending order."""
    rows = np.random.default_rng(seed).choice(n_all, size=n, replace=False)
    return [int(row) for row in np.sort(rows)]


def _write_figures(
    trained: TrainedGenerator, training: ImageView, record: EvaluationRecord, context: RunContext
) -> None:
    store, seed = context.store, context.config.seed
    rng = np.random.default_rng(seed)
    n = min(_N_SHOWN, len(training))
    real = training.pixels[np.sort(rng.choice(len(training), n, replace=False))]
    n_drawn = min(3 * n, len(trained.synthetic))
    drawn = np.sort(rng.choice(len(trained.synthetic), n_drawn, replace=False))
    source = _source(context)
    rows: list[tuple[str, Sequence[Pixels], Sequence[str]]] = [
        (f"{source.upper()}: training images, drawn at random", list(real), ())
    ]
    for first in range(0, n_drawn, n):
        numbers = drawn[first : first + n]
        title = "SYNTHETIC: drawn at random, none picked by hand" if first == 0 else "SYNTHETIC"
        rows.append((title, list(trained.synthetic[numbers]), [f"no. {k}" for k in numbers]))
    store.write_bytes("figures/samples.png", contact_sheet(rows))
    figures = [
        Figure(
            path="figures/samples.png",
            title=f"{source.capitalize()} and synthetic images",
            caption=f"First row: {source} training images. Other rows: synthetic images, drawn "
            f"at random with seed {seed}, no hand-picking.",
        )
    ]
    if record.memorisation is not None:
        figures.append(_nearest_figure(trained, training, record.memorisation, context))
    add_figures(figures, store)


def _source(context: RunContext) -> str:
    """Return "simulated" for phantoms, else "real"."""
    return "simulated" if context.folder.need(DatasetIdentity).is_simulated else "real"


def _nearest_figure(
    trained: TrainedGenerator,
    training: ImageView,
    memory: MemorisationRecord,
    context: RunContext,
) -> Figure:
    pairs = memory.closest[:_N_SHOWN]
    by_name = {path: k for k, path in enumerate(trained.sample_paths)}
    by_id = {image_id: k for k, image_id in enumerate(training.image_ids)}
    synthetic = [trained.synthetic[by_name[pair.synthetic]] for pair in pairs]
    nearest = [training.pixels[by_id[pair.training_id]] for pair in pairs]
    captions = [f"distance {pair.distance:.3f}" for pair in pairs]
    rows: list[tuple[str, Sequence[Pixels], Sequence[str]]] = [
        ("SYNTHETIC: the images nearest to any training image", synthetic, captions),
        (f"{_source(context).upper()}: the nearest training image of each", nearest, ()),
    ]
    context.store.write_bytes("figures/nearest_training.png", contact_sheet(rows))
    return Figure(
        path="figures/nearest_training.png",
        title="Nearest training images",
        caption="The synthetic images closest to a training image, each above its neighbour. "
        f"Distance is relative to that of a typical neighbour; at or below "
        f"{memory.threshold:.3f} an image is flagged as a possible copy.",
    )
