"""Fits the classifiers of all arms inside the training process, which never sees the test set."""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from governance.records.utility import REAL
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.metrics.controls import control_images
from medisynth.metrics.features import InceptionPool3
from medisynth.utility.classification import (
    LEAST_PATIENTS,
    Classifier,
    LabelledFeatures,
    fit,
    fit_arms,
    fit_curve,
    levels_to_tell_apart,
)

ATTRIBUTES = ("brain_plane", "machine")  # the first with two levels is told apart
SIZE = 224  # side that images are enlarged to for the extractor
DRAWN = "drawn for their level"
GUESSED = (
    "given by the classifier of real images, since the generator draws no level on demand: they "
    "can teach only what it knew"
)

Progress = Callable[[int, int], None]


class TaskFeatures:
    """Inception features for classifiers: at 224 x 224 pixels and in bfloat16, four times as fast.

    They are another extractor than that of the fidelity metrics, and are named so.
    """

    name = f"inception_pool3-{SIZE}px-bf16"

    def __init__(self, inception: InceptionPool3) -> None:
        self._inception = inception
        self.weights_sha256 = inception.weights_sha256

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return features, shape (n, 2048), of grey images, shape (n, height, width), uint8."""
        return self._inception.extract_reduced(pixels, SIZE)


class Extract(Protocol):
    """Extractor of the features that classifiers see."""

    name: str
    weights_sha256: str

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return features, shape (n, d), of grey images, shape (n, height, width), uint8."""
        ...


@dataclass(frozen=True)
class FittedClassifiers:
    """Classifiers of all arms, as they leave the training process.

    Attributes:
        attribute: What is told apart, one of `ATTRIBUTES`; "" where nothing was fitted.
        labels_from: How synthetic images got their label.
        arms: As `fit_arms` returns them.
        curve: As `fit_curve` returns it.
        n_training_patients: Real training patients.
        extractor: Name of the extractor; extractor_sha256: digest of its weights.
        duration_s: Seconds taken.
        reason: Why nothing was fitted; "" where something was.
    """

    attribute: str = ""
    labels_from: str = ""
    arms: Mapping[str, tuple[Classifier, int, int]] = field(default_factory=dict)
    curve: Mapping[tuple[float, str], tuple[int, list[Classifier]]] = field(default_factory=dict)
    n_training_patients: int = 0
    extractor: str = ""
    extractor_sha256: str = ""
    duration_s: float = 0.0
    reason: str = ""

    def to_bytes(self) -> bytes:
        """Return the classifiers as an npz file; `from_bytes` reads it."""
        classifiers: list[Classifier] = []

        def place(classifier: Classifier) -> int:
            classifiers.append(classifier)
            return len(classifiers) - 1

        facts = {
            "attribute": self.attribute,
            "labels_from": self.labels_from,
            "n_training_patients": self.n_training_patients,
            "extractor": self.extractor,
            "extractor_sha256": self.extractor_sha256,
            "duration_s": self.duration_s,
            "reason": self.reason,
            "arms": [[arm, place(c), n, m] for arm, (c, n, m) in self.arms.items()],
            "curve": [
                [share, arm, n, [place(c) for c in found]]
                for (share, arm), (n, found) in self.curve.items()
            ],
        }
        facts["classifiers"] = [[list(c.levels), c.penalty] for c in classifiers]
        arrays = {str(k): c.weights for k, c in enumerate(classifiers)}
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "FittedClassifiers":
        """Read what `to_bytes` wrote; ValueError or KeyError if it is something else."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            classifiers = [
                Classifier(tuple(levels), arrays[str(k)], penalty)
                for k, (levels, penalty) in enumerate(facts.pop("classifiers"))
            ]
        arms = {arm: (classifiers[k], n, m) for arm, k, n, m in facts.pop("arms")}
        curve = {
            (share, arm): (n, [classifiers[k] for k in places])
            for share, arm, n, places in facts.pop("curve")
        }
        return cls(arms=arms, curve=curve, **facts)


def fit_classifiers(
    training: ImageView,
    tuning: ImageView,
    drawn: Mapping[tuple[str, str], Pixels],
    synthetic: Pixels,
    extract: Extract,
    *,
    most_images: int,
    seed: int,
    progress: Progress,
) -> FittedClassifiers:
    """Fit the classifiers of all arms for the first attribute that has two levels.

    Args:
        training: Training view; at most `most_images` of it are used, drawn at random.
        tuning: Tuning view, to choose penalties with.
        drawn: (attribute, level) -> images that the generator drew for it.
        synthetic: Images drawn for no level, used where `drawn` lacks one.
        extract: Feature extractor.
        most_images: Real training images at most.
        seed: Seed of draws.
        progress: Called as progress(done, all) after each set of images.

    Returns:
        The classifiers, or the reason for none.
    """
    started = time.monotonic()
    try:
        attribute, levels = _attribute(training, tuning)
        found = _fit(
            attribute,
            levels,
            training,
            tuning,
            drawn,
            synthetic,
            extract,
            most_images,
            seed,
            progress,
        )
    except MetricUndefinedError as error:
        return FittedClassifiers(reason=str(error))
    real, others, labels_from, tuned = found
    return FittedClassifiers(
        attribute=attribute,
        labels_from=labels_from,
        arms=fit_arms(real, tuned, others, levels),
        curve=fit_curve(real, tuned, others.get("synthetic"), levels, seed),
        n_training_patients=len(set(real.patients)),
        extractor=extract.name,
        extractor_sha256=extract.weights_sha256,
        duration_s=round(time.monotonic() - started, 3),
    )


def labels_of(view: ImageView, attribute: str) -> tuple[str, ...]:
    """Return the label of each image of a view for one of `ATTRIBUTES`."""
    return view.planes if attribute == "brain_plane" else view.machines


def _attribute(training: ImageView, tuning: ImageView) -> tuple[str, tuple[str, ...]]:
    n_patients = len(set(training.patient_ids))
    if n_patients < LEAST_PATIENTS:
        raise MetricUndefinedError(
            f"{n_patients} training patients; at least {LEAST_PATIENTS} are needed"
        )
    reasons = []
    for attribute in ATTRIBUTES:
        try:
            return attribute, levels_to_tell_apart(
                labels_of(training, attribute), labels_of(tuning, attribute)
            )
        except MetricUndefinedError as error:
            reasons.append(f"{attribute.replace('_', ' ')}: {error}")
    raise MetricUndefinedError("; ".join(reasons))


def _fit(
    attribute: str,
    levels: tuple[str, ...],
    training: ImageView,
    tuning: ImageView,
    drawn: Mapping[tuple[str, str], Pixels],
    synthetic: Pixels,
    extract: Extract,
    most_images: int,
    seed: int,
    progress: Progress,
) -> tuple[LabelledFeatures, dict[str, LabelledFeatures], str, LabelledFeatures]:
    """Return labelled features: real, other sets by name, where labels come from, and tuning."""
    random = np.random.default_rng([seed, 5])
    labels = labels_of(training, attribute)
    known = [k for k, label in enumerate(labels) if label in levels]
    rows = np.sort(random.permutation(known)[:most_images])
    pixels = np.asarray(training.pixels[rows])
    own = [labels[k] for k in rows]
    by_level = {level: pixels[[label == level for label in own]] for level in levels}
    n_each = {x: len(drawn.get((attribute, x), synthetic[: len(by_level[x])])) for x in levels}
    done = 0

    def features(images: Pixels) -> NDArray[np.float32]:
        nonlocal done
        done += 1
        found = extract(images)
        progress(done, 5)
        return found

    def labelled(sets: Mapping[str, Pixels]) -> LabelledFeatures:
        names = tuple(level for level, images in sets.items() for _ in range(len(images)))
        return LabelledFeatures(
            features(np.concatenate(list(sets.values()))), names, ("",) * len(names)
        )

    real = LabelledFeatures(
        features(pixels), tuple(own), tuple(training.patient_ids[k] for k in rows)
    )
    tuning_rows = [k for k, x in enumerate(labels_of(tuning, attribute)) if x in levels]
    tuned = LabelledFeatures(
        features(np.asarray(tuning.pixels[tuning_rows])),
        tuple(labels_of(tuning, attribute)[k] for k in tuning_rows),
        tuple(tuning.patient_ids[k] for k in tuning_rows),
    )
    changed = {
        level: control_images("augmentation", images, len(images), seed)
        for level, images in by_level.items()
    }
    others = {
        "augmentation": labelled(changed),
        "pca": labelled({x: control_images("pca", by_level[x], n_each[x], seed) for x in levels}),
        "copycat": _some(real, sum(n_each.values()), random),
    }
    if all((attribute, level) in drawn for level in levels):
        others["synthetic"] = labelled({x: drawn[attribute, x] for x in levels})
        return real, others, DRAWN, tuned
    found = features(synthetic[:most_images])
    scores = fit(real, tuned, levels).scores(found)
    guessed = tuple(levels[k] for k in scores.argmax(axis=1))
    others["synthetic"] = LabelledFeatures(found, guessed, ("",) * len(guessed))
    return real, others, GUESSED, tuned


def _some(real: LabelledFeatures, n: int, random: np.random.Generator) -> LabelledFeatures:
    """Return n of the real images, all of them before any a second time; they are of nobody."""
    rounds = [random.permutation(len(real)) for _ in range(-(-n // len(real)))]
    rows = np.concatenate(rounds)[:n]
    return LabelledFeatures(
        real.features[rows], tuple(real.labels[k] for k in rows), ("",) * len(rows)
    )


def real_classifier(fitted: FittedClassifiers) -> Classifier:
    """Return the classifier of real images alone; KeyError where nothing was fitted."""
    return fitted.arms[REAL][0]
