"""KID by further feature extractors, fitted in the training process: no verdict by one network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from governance.records.base import ItemStatus
from governance.records.comparison import Control
from governance.records.errors import (
    EvidenceTamperedError,
    MedisynthGovError,
    MetricUndefinedError,
    first_line,
)
from governance.records.evaluation import FurtherExtractor, MetricResult
from governance.records.files import sha256_bytes, sha256_file
from medisynth import checkpoint
from medisynth.data.reading.views import Pixels
from medisynth.metrics.controls import MEANINGS, control_images
from medisynth.metrics.extractors import Extractor, load_extractor
from medisynth.metrics.features import Features, check_reference
from medisynth.metrics.fidelity import kernel_estimate
from pipelines.current_run.context import RunContext, SplitImages, TrainedGenerator
from pipelines.steps.fidelity import N_CONTROL, TestImages, believed, compared_rows
from pipelines.training.parent import EXTRACTOR

FITTED = "feature extractors fitted"
_TITLE = "Kernel distance (KID), {}"
_NOT_FITTED = "the training process fitted no such extractor"


def wanted(context: RunContext) -> tuple[str, ...]:
    """Return the names of the extractors to fit; none where the configuration turns fidelity off."""
    config = context.config.evaluation
    return () if config.extractor == "none" else config.further_extractors


def put_on_record(context: RunContext) -> None:
    """Write into the journal the digest of each extractor that the training process fitted."""
    files = {name: _file(name, context) for name in wanted(context)}
    digests = {name: sha256_file(file) for name, file in files.items() if file.is_file()}
    if digests:
        context.store.journal.append(FITTED, {"sha256": digests})


def measure(
    trained: TrainedGenerator,
    split: SplitImages,
    test: TestImages,
    is_apart: bool,
    context: RunContext,
) -> tuple[FurtherExtractor, ...]:
    """Measure KID of synthetic images, floor and controls by each extractor, on the same images.

    Args:
        trained: Synthetic images.
        split: Training images: floor and controls.
        test: Images of the opened test set.
        is_apart: Whether no test image and no test patient is in training.
        context: Configuration, store and console of the run.

    Returns:
        One result an extractor; one that cannot be used has the reason in its metric.

    Raises:
        EvidenceTamperedError: An extractor is not the one that was fitted.
    """
    bodies = [e.body["sha256"] for e in context.store.journal.events() if e.type == FITTED]
    digests: dict[str, str] = bodies[-1] if bodies else {}
    found = []
    images = _Images.chosen(trained, split, test, context) if wanted(context) else None
    for name in wanted(context):
        if images is None or name not in digests:
            found.append(FurtherExtractor(name=name, metric=_unknown(name, _NOT_FITTED)))
            continue
        context.console.progress(f"features: {name}", 0, 1)
        found.append(_measured(name, digests[name], images, is_apart, context))
        context.console.progress(f"features: {name}", 1, 1)
    return tuple(found)


class _Images:
    """The images that are compared: those that the FID network sees, in the same order."""

    def __init__(self, sets: dict[str, Pixels], test: Sequence[str], training: Sequence[str]):
        self.sets, self.test_patients, self.training_patients = sets, test, training

    @classmethod
    def chosen(
        cls,
        trained: TrainedGenerator,
        split: SplitImages,
        test: TestImages,
        context: RunContext,
    ) -> "_Images":
        test_rows, training_rows = compared_rows(trained, split, test, context)
        training = np.asarray(split.training.pixels[training_rows])
        n = len(test_rows)
        sets = {"test": test.pixels[test_rows], "synthetic": trained.synthetic[:n]}
        sets["training"] = training
        for name in MEANINGS:
            sets[name] = control_images(name, training, min(N_CONTROL, n), context.config.seed)
        return cls(
            sets,
            [test.patients[row] for row in test_rows],
            [split.training.patient_ids[row] for row in training_rows],
        )


def _measured(
    name: str, sha256: str, images: _Images, is_apart: bool, context: RunContext
) -> FurtherExtractor:
    data = _file(name, context).read_bytes()
    if (now := sha256_bytes(data)) != sha256:
        raise EvidenceTamperedError(_file(name, context), expected=sha256, found=now)
    state, facts = checkpoint.decode(data)
    if facts["reason"]:
        return FurtherExtractor(name=name, sha256=sha256, metric=_unknown(name, facts["reason"]))
    extractor: Extractor | None = None
    try:
        extractor = load_extractor(name)
        extractor.load_state(state)
        check_reference(images.sets["test"], "held-out test images")
        features = {what: _features(extractor, pixels) for what, pixels in images.sets.items()}
        metric, controls = _compared(extractor, sha256, features, images, context)
        (metric,) = believed((metric,), controls, context)
    except MedisynthGovError as error:
        metric, controls = _unknown(name, str(error)), ()
    except Exception as error:  # noqa: BLE001 - foreign code
        fault = f"extracting failed with {type(error).__name__}: {first_line(error)}"
        metric, controls = _unknown(name, fault), ()
    if extractor is None:
        return FurtherExtractor(name=name, sha256=sha256, metric=metric)
    overlap = extractor.overlap
    if not extractor.training_data:
        overlap = "none known" if is_apart else "known"
    return FurtherExtractor(
        name=name,
        title=extractor.title,
        sha256=sha256,
        words=facts["words"],
        training_data=extractor.training_data,
        overlap=overlap,
        metric=metric,
        controls=controls,
    )


def _features(extractor: Extractor, pixels: Pixels) -> Features:
    found = np.asarray(extractor.extract(pixels), dtype=np.float64)
    if found.shape != (len(pixels), extractor.n_features):
        raise MetricUndefinedError(
            f"{extractor.name}: features of shape {found.shape}, expected "
            f"{(len(pixels), extractor.n_features)}"
        )
    if not np.isfinite(found).all():
        raise MetricUndefinedError(f"{extractor.name}: a feature is not finite")
    return found


def _compared(
    extractor: Extractor,
    sha256: str,
    features: dict[str, Features],
    images: _Images,
    context: RunContext,
) -> tuple[MetricResult, tuple[Control, ...]]:
    n_bootstrap, seed = context.config.evaluation.n_bootstrap, context.config.seed

    def kid(name: str, patients: Sequence[str] = ()) -> tuple[float, tuple[float, float] | None]:
        return kernel_estimate(
            features["test"],
            images.test_patients,
            features[name],
            patients,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )

    n = len(features["test"])
    metric_id = f"kid-{extractor.name}-d{extractor.n_features}-n{n}"
    value, ci95 = kid("synthetic")
    floor, floor_ci95 = kid("training", images.training_patients)
    metric = MetricResult(
        id=metric_id,
        title=_TITLE.format(extractor.name),
        status=ItemStatus.RECORDED,
        value=value,
        ci95=ci95,
        floor=floor,
        floor_ci95=floor_ci95,
        n_real=n,
        n_synthetic=len(features["synthetic"]),
        n_patients=len(set(images.test_patients)),
        extractor=extractor.name,
        extractor_sha256=sha256,
        n_features=extractor.n_features,
        resize=extractor.resize,
        seed=seed,
    )
    controls = []
    for name, meaning in MEANINGS.items():
        found, interval = kid(name)
        n_images = len(features[name])
        controls.append(
            Control(
                name=name,
                metric_id=f"{metric_id}x{n_images}" if n_images != n else metric_id,
                value=found,
                meaning=meaning,
                ci95=interval,
                n_images=n_images,
            )
        )
    return metric, tuple(controls)


def _unknown(name: str, reason: str) -> MetricResult:
    return MetricResult(
        id=f"kid-{name}",
        title=_TITLE.format(name),
        status=ItemStatus.NOT_EVALUATED,
        extractor=name,
        reason=reason,
    )


def _file(name: str, context: RunContext) -> Path:
    return context.scratch / "work" / EXTRACTOR.format(name)
