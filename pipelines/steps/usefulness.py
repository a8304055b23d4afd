"""Downstream tasks: what synthetic images are worth, judged on the opened test set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from governance.records.errors import EvidenceTamperedError, MetricUndefinedError
from governance.records.files import sha256_bytes, sha256_file
from governance.records.utility import UtilityRecord
from medisynth.data.reading.views import Pixels
from medisynth.metrics.features import InceptionPool3
from medisynth.utility.classification import METHOD, LabelledFeatures, judge_arms, judge_curve
from medisynth.utility.fitting import ATTRIBUTES, FittedClassifiers, TaskFeatures, real_classifier
from pipelines.current_run.context import RunContext
from pipelines.fetch.weights import find_weights
from pipelines.training.parent import CLASSIFIERS

FITTED = "classifiers fitted"
TASK = "classification of real images"
_NOT_FITTED = (
    "the training process had no feature extractor, which it gets where training.selection is auto"
)
_REAL_IMAGES_PER_TEST_IMAGE = 2  # training images at most, in held-out images at most


def wanted(context: RunContext) -> int:
    """Return how many real training images classifiers get at most; 0 where none is fitted."""
    config = context.config.evaluation
    if not config.utility or config.extractor == "none" or find_weights() is None:
        return 0
    return _REAL_IMAGES_PER_TEST_IMAGE * config.max_real


def put_on_record(context: RunContext) -> None:
    """Write into the journal the digest of the classifiers that the training process fitted."""
    if (file := _file(context)).is_file():
        context.store.journal.append(FITTED, {"sha256": sha256_file(file)})


def judge(
    pixels: Pixels,
    patients: Sequence[str],
    levels: Mapping[str, Sequence[str]],
    context: RunContext,
    *,
    extractor: InceptionPool3 | None,
) -> UtilityRecord | None:
    """Judge the classifiers on held-out images; None where none was to be fitted.

    Args:
        pixels: Held-out images, shape (n, size, size), uint8.
        patients: Patient of each, length n.
        levels: Attribute -> level of each image, "" where it is not recorded.
        context: Configuration, store and console of the run.
        extractor: Network that fidelity was measured with; None where it was not.

    Raises:
        EvidenceTamperedError: The classifiers are not those that were fitted.
    """
    fitted = _read(context)
    seed = context.config.seed
    facts: dict[str, Any] = {"task": TASK, "seed": seed, "method": METHOD}
    if fitted is None:
        return UtilityRecord(**facts, reason=_NOT_FITTED) if wanted(context) else None
    if fitted.reason:
        return UtilityRecord(**facts, reason=fitted.reason)
    facts |= {
        "attribute": fitted.attribute,
        "levels": real_classifier(fitted).levels,
        "labels_from": fitted.labels_from,
        "n_training_patients": fitted.n_training_patients,
        "extractor": fitted.extractor,
        "extractor_sha256": fitted.extractor_sha256,
        "duration_s": fitted.duration_s,
    }
    labels = levels.get(fitted.attribute, ("",) * len(patients))
    rows = [k for k, label in enumerate(labels) if label in real_classifier(fitted).levels]
    if extractor is None or not rows:
        no_label = "no held-out image has a label"
        return UtilityRecord(**facts, reason=no_label if extractor else "fidelity was not measured")
    extract = TaskFeatures(extractor)
    test = LabelledFeatures(
        extract(np.asarray(pixels[rows])),
        tuple(labels[k] for k in rows),
        tuple(patients[k] for k in rows),
    )
    groups = {
        attribute: [by_image[k] for k in rows]
        for attribute, by_image in levels.items()
        if attribute in ATTRIBUTES and attribute != fitted.attribute
    }
    config = context.config.evaluation
    facts |= {"n_test": len(rows), "n_test_patients": len(set(test.patients))}
    try:
        arms = judge_arms(
            fitted.arms,
            test,
            groups,
            least_patients=config.least_patients,
            n_resamples=config.n_bootstrap,
            seed=seed,
        )
    except MetricUndefinedError as error:
        return UtilityRecord(**facts, reason=str(error))
    return UtilityRecord(**facts, arms=arms, curve=judge_curve(fitted.curve, test))


def _file(context: RunContext) -> Path:
    return context.scratch / "work" / CLASSIFIERS


def _read(context: RunContext) -> FittedClassifiers | None:
    """Return the classifiers; None where the journal knows of none."""
    digests = [e.body["sha256"] for e in context.store.journal.events() if e.type == FITTED]
    if not digests:
        return None
    data = _file(context).read_bytes()
    if (found := sha256_bytes(data)) != digests[-1]:
        raise EvidenceTamperedError(_file(context), expected=digests[-1], found=found)
    return FittedClassifiers.from_bytes(data)
