"""The second half of s6: fidelity of the synthetic images to the opened test set, and controls."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from governance.records.base import ItemStatus
from governance.records.comparison import Control, control_verdicts, misbehaving
from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import (
    DiversityRecord,
    ExternalSet,
    MetricResult,
    RobustnessLoss,
    SamplingRepeat,
    SubgroupGap,
)
from governance.records.training import PretrainedComponent
from governance.sealing.seal import Leaf
from medisynth.data.audit.coverage import ATTRIBUTES
from medisynth.data.reading.views import Pixels
from medisynth.metrics.controls import MEANINGS, control_images, copycat_rows
from medisynth.metrics.diversity import diversity
from medisynth.metrics.features import Features, InceptionPool3, check_reference
from medisynth.metrics.fidelity import evaluate_fidelity, not_evaluated_fidelity
from medisynth.metrics.kernel import kernel_distance
from medisynth.metrics.robustness import ALTERATIONS, altered, robustness_losses
from medisynth.metrics.subgroups import GroupedImages, SubgroupResults, evaluate_subgroups
from medisynth.metrics.tuning_distance import evenly
from pipelines.current_run.context import RunContext, SplitImages, TrainedGenerator
from pipelines.fetch.weights import find_weights, inception_component
from pipelines.steps import external

_T = TypeVar("_T")
_N_ALTERED = 48  # held-out images that each alteration is tried on
N_CONTROL = 64  # images a control at most: enough to tell it apart, a third of the extraction


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


@dataclass(frozen=True)
class Fidelity:
    """Results of the fidelity metrics; if not evaluated, the notes say why."""

    metrics: tuple[MetricResult, ...]
    controls: tuple[Control, ...] = ()
    notes: tuple[str, ...] = ()
    pretrained: tuple[PretrainedComponent, ...] = ()
    extraction_s: float = 0.0
    training_features: Features | None = None
    extractor: InceptionPool3 | None = None
    gaps: tuple[SubgroupGap, ...] = ()
    least_patients: int | None = None
    repeats: tuple[SamplingRepeat, ...] = ()
    robustness: tuple[RobustnessLoss, ...] = ()
    diversity: DiversityRecord | None = None
    external: tuple[ExternalSet, ...] = ()


@dataclass(frozen=True)
class _Real:
    """Real images chosen for the comparison, with their features, patients and levels."""

    test: GroupedImages
    training: GroupedImages
    training_pixels: Pixels


class _Extraction:
    """Extracts features, shows progress and adds up the seconds."""

    def __init__(self, extractor: InceptionPool3, context: RunContext, seconds: float) -> None:
        self.extractor, self.seconds = extractor, seconds
        self._console = context.console

    def __call__(self, pixels: Pixels, name: str) -> Features:
        started = time.monotonic()
        features = self.extractor.extract(
            pixels,
            progress=lambda done, total: self._console.progress(f"features: {name}", done, total),
        )
        self.seconds += time.monotonic() - started
        return features


def measure_fidelity(
    trained: TrainedGenerator, split: SplitImages, test: TestImages, context: RunContext
) -> Fidelity:
    """Compare synthetic images with the test set beside real training images and controls.

    Features are extracted once an image and used again for subgroups. A metric whose own controls
    are out of the order that the policy expects is not evaluated, overall and by subgroup.
    """
    config, seed = context.config.evaluation, context.config.seed
    training = split.training
    if config.extractor == "none":
        return _unmeasured("the configuration turned the feature extractor off")
    weights = find_weights()
    if weights is None:
        return _unmeasured(
            "the FID weights are not on this machine; `medisynth-gov weights fetch` gets them"
        )
    test_rows, training_rows = compared_rows(trained, split, test, context)
    n = len(test_rows)
    try:
        check_reference(test.pixels[test_rows], "held-out test images")
    except MetricUndefinedError as error:
        return _unmeasured(str(error))
    started = time.monotonic()
    extractor = InceptionPool3.load(weights)
    extract = _Extraction(extractor, context, time.monotonic() - started)
    ids = [leaf.id for leaf in test.leaves]
    real = _Real(
        GroupedImages(
            extract(test.pixels[test_rows], "test images"),
            [test.patients[row] for row in test_rows],
            levels_of(split, [ids[row] for row in test_rows]),
        ),
        GroupedImages(
            extract(training.pixels[training_rows], "training images"),
            [training.patient_ids[row] for row in training_rows],
            levels_of(split, [training.image_ids[row] for row in training_rows]),
        ),
        training.pixels[training_rows],
    )
    synthetic = extract(trained.synthetic[:n], "synthetic images")
    metrics = evaluate_fidelity(
        test=real.test.features,
        test_patients=real.test.patients,
        training=real.training.features,
        training_patients=real.training.patients,
        synthetic=synthetic,
        extractor=extractor,
        n_bootstrap=config.n_bootstrap,
        seed=seed,
    )
    controls = _controls(real, extract, context)
    parts = _subgroups(real, synthetic, trained, extract, context)
    repeats = _repeats(real.test.features, synthetic, metrics, trained, extract, seed)
    reported = believed((*metrics, *parts.metrics), controls, context)
    is_known = any(m.value is not None for m in reported if _family(m) == "kid")
    robustness: tuple[RobustnessLoss, ...] = ()
    if is_known:
        robustness = _robustness(real, test.pixels[test_rows], synthetic, extract, context)
    varied, fault = measured_or_note(
        "variety",
        lambda: diversity(
            synthetic,
            real.training.features,
            trained.synthetic[:n],
            real.training_pixels,
            seed=seed,
        ),
    )
    notes = (
        *fault,
        f"{n} real test images and {n} synthetic images were compared"
        + (f"; drawn at random from {len(test.leaves)}" if n < len(test.leaves) else ""),
        f"controls use {min(N_CONTROL, n)} images each, resampled one by one in their intervals",
    )
    used_for = "features of FID, KID, precision, recall, density and coverage"
    return Fidelity(
        metrics=reported,
        controls=controls,
        notes=notes,
        pretrained=(inception_component(extractor.weights_sha256, used_for),),
        extraction_s=round(extract.seconds, 3),
        training_features=real.training.features,
        extractor=extractor,
        gaps=parts.gaps if is_known else (),
        least_patients=config.least_patients,
        repeats=repeats if is_known else (),
        robustness=robustness,
        diversity=varied,
        external=_external(real, synthetic, extract, context),
    )


def compared_rows(
    trained: TrainedGenerator, split: SplitImages, test: TestImages, context: RunContext
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the test and the training images to compare: as many as there are synthetic ones."""
    seed, most = context.config.seed, context.config.evaluation.max_real
    n = min(most, len(test.leaves), len(split.training), len(trained.synthetic))
    return _some(len(test.leaves), n, seed), _some(len(split.training), n, seed + 1)


def _external(
    real: _Real, synthetic: Features, extract: _Extraction, context: RunContext
) -> tuple[ExternalSet, ...]:
    """Compare the same synthetic images with each test set from another source."""
    config = context.config
    found = []
    for one in external.read(context):
        if fault := external.fault_of(one):
            found.append(one.facts.model_copy(update={"reason": fault}))
            continue
        features = extract(one.pixels, f"external test set {one.facts.name}")
        metrics = evaluate_fidelity(
            test=features,
            test_patients=one.patients,
            training=real.training.features,
            training_patients=real.training.patients,
            synthetic=synthetic,
            extractor=extract.extractor,
            n_bootstrap=config.evaluation.n_bootstrap,
            seed=config.seed,
        )
        partition = {"partition": f"external test set {one.facts.name}"}
        named = tuple(metric.model_copy(update=partition) for metric in metrics)
        found.append(one.facts.model_copy(update={"metrics": named}))
    return tuple(found)


def levels_of(split: SplitImages, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return attribute -> level of each image, "" where it is not recorded."""
    return {
        attribute: tuple(by_image.get(name, "") for name in image_ids)
        for attribute, by_image in split.levels.items()
    }


def _subgroups(
    real: _Real,
    synthetic: Features,
    trained: TrainedGenerator,
    extract: _Extraction,
    context: RunContext,
) -> SubgroupResults:
    """Measure every level with enough patients; draws of other levels are not extracted."""
    config = context.config
    by_level = {}
    for (attribute, level), pixels in trained.by_level.items():
        names = real.test.levels.get(attribute, ())
        patients = {p for p, own in zip(real.test.patients, names, strict=False) if own == level}
        if len(patients) >= config.evaluation.least_patients:
            by_level[attribute, level] = extract(pixels, f"drawn for {attribute} {level}")
    demographic = set(real.test.levels) - set(ATTRIBUTES)
    return evaluate_subgroups(
        real.test,
        real.training,
        synthetic,
        by_level,
        extract.extractor,
        least_patients=config.evaluation.least_patients,
        smallest_cells=dict.fromkeys(demographic, config.audit.smallest_cell),
        n_bootstrap=config.evaluation.n_bootstrap,
        seed=config.seed,
    )


def _repeats(
    test: Features,
    synthetic: Features,
    metrics: tuple[MetricResult, ...],
    trained: TrainedGenerator,
    extract: _Extraction,
    seed: int,
) -> tuple[SamplingRepeat, ...]:
    """Measure the KID of images drawn with other seeds, at as many images; the run's own first."""
    own = next(m for m in metrics if _family(m) == "kid")
    if own.value is None or not trained.repeats:
        return ()
    sets = {seed: synthetic}
    for other, pixels in trained.repeats.items():
        sets[other] = extract(pixels[: len(synthetic)], f"drawn with seed {other}")
    return tuple(
        SamplingRepeat(seed=one, value=kernel_distance(test, features), metric_id=own.id)
        for one, features in sets.items()
        if len(features) == len(synthetic)
    )


def _robustness(
    real: _Real, pixels: Pixels, synthetic: Features, extract: _Extraction, context: RunContext
) -> tuple[RobustnessLoss, ...]:
    """Measure what is lost when some of the held-out images are altered."""
    rows = evenly(len(pixels), _N_ALTERED).tolist()
    seed = context.config.seed
    return robustness_losses(
        real.test.features[rows],
        [real.test.patients[row] for row in rows],
        {
            name: extract(altered(name, pixels[rows], seed), f"altered by {name}")
            for name in ALTERATIONS
        },
        synthetic,
        real.training.features,
        real.training.patients,
        n_bootstrap=context.config.evaluation.n_bootstrap,
        seed=seed,
    )


def measured_or_note(what: str, measure: Callable[[], _T]) -> tuple[_T | None, tuple[str, ...]]:
    """Return what was measured, or None and a note on why it is not defined for these images."""
    try:
        return measure(), ()
    except MetricUndefinedError as error:
        return None, (f"{what} was not evaluated: {error}",)


def _family(metric: MetricResult) -> str:
    return metric.id.partition("-")[0]


def believed(
    metrics: tuple[MetricResult, ...], controls: tuple[Control, ...], context: RunContext
) -> tuple[MetricResult, ...]:
    """Return metrics, not evaluated where their own controls are out of the policy's order."""
    verdicts = control_verdicts(controls, context.policy.controls)
    found = []
    for metric in metrics:
        fault = misbehaving(_family(metric), verdicts)
        if fault and metric.status is ItemStatus.RECORDED:
            unknown = dict.fromkeys(("value", "ci95", "floor", "floor_ci95"))
            unknown |= {"status": ItemStatus.NOT_EVALUATED, "reason": fault, "interval_method": ""}
            metric = metric.model_copy(update=unknown)
        found.append(metric)
    return tuple(found)


def _controls(real: _Real, extract: _Extraction, context: RunContext) -> tuple[Control, ...]:
    """Measure every control by every metric, against the same test images."""
    config, seed = context.config.evaluation, context.config.seed
    nobody: Features = np.zeros((0, real.test.features.shape[1]))
    found = []
    for name, meaning in MEANINGS.items():
        features = _control_features(name, real, seed, extract)
        metrics = evaluate_fidelity(
            test=real.test.features,
            test_patients=real.test.patients,
            training=nobody,
            training_patients=(),
            synthetic=features,
            extractor=extract.extractor,
            n_bootstrap=config.n_bootstrap,
            seed=seed,
        )
        found += [
            Control(
                name=name,
                metric_id=metric.id,
                value=metric.value,
                meaning=meaning,
                ci95=metric.ci95,
                n_images=len(features),
            )
            for metric in metrics
            if metric.value is not None
        ]
    return tuple(found)


def _control_features(name: str, real: _Real, seed: int, extract: _Extraction) -> Features:
    """Return the features of one control's images, made from real training images."""
    n = min(N_CONTROL, len(real.training.features))
    if name == "copycat":  # these features are known already
        known: Features = real.training.features[copycat_rows(len(real.training.features), n, seed)]
        return known
    pixels = control_images(name, real.training_pixels, n, seed)
    distinct = 1 if name == "black" else n
    features = extract(pixels[:distinct], f"control {name}")
    repeated: Features = np.repeat(features, n // distinct, axis=0)
    return repeated


def _unmeasured(reason: str) -> Fidelity:
    metrics = not_evaluated_fidelity(reason)
    return Fidelity(metrics, notes=(f"fidelity was not evaluated: {reason}",))


def _some(n_all: int, n: int, seed: int) -> Sequence[int]:
    """Draw n of n_all row numbers without replacement; return them in ascending order."""
    rows = np.random.default_rng(seed).choice(n_all, size=n, replace=False)
    return [int(row) for row in np.sort(rows)]
