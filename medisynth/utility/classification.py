"""Classifiers of a label, each trained on other images and judged on the same real patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from governance.records.utility import ADDED, AUROC, MACRO_F1, REAL, Arm, CurvePoint, TaskMeasure
from medisynth.intervals import patient_counts, percentile_interval
from medisynth.training.randomness import numpy_generator

Features = NDArray[np.float32]
Scores = NDArray[np.float64]

ARMS = {
    REAL: "real training images alone",
    "real + augmentation": "and each of them once more: mirrored, turned, enlarged, brightened",
    "synthetic": "images of the generator alone",
    ADDED: "and images of the generator",
    "pca": "draws from a Gaussian fitted to each label's training pixels, alone",
    "real + pca": "and draws from a Gaussian fitted to each label's training pixels",
    "real + copycat": "and copies of real training images: must add nothing",
}
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
SHARES = (0.1, 0.25, 0.5)  # of the real training patients; the whole is the arm itself
N_DRAWS = 3  # draws of patients at each share
LEAST_IMAGES = 5  # training images of a level
LEAST_PATIENTS = 10  # held-out patients, and training patients of all levels together
METHOD = (
    "penalised logistic regression on standardised features; the penalty does best on the tuning "
    "view by macro F1; labels weigh alike; intervals resample held-out patients and do not cover "
    "the draw of the training images"
)


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of images with a label each.

    Attributes:
        features: Shape (n, d).
        labels: Label of each image, length n.
        patients: Patient of each image, length n; "" for images of nobody.
    """

    features: Features
    labels: tuple[str, ...]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: "LabelledFeatures") -> "LabelledFeatures":
        return LabelledFeatures(
            np.concatenate([self.features, other.features]),
            self.labels + other.labels,
            self.patients + other.patients,
        )

    def rows(self, chosen: Sequence[bool]) -> "LabelledFeatures":
        """Return the images that are chosen."""
        kept = np.flatnonzero(np.asarray(chosen))
        return LabelledFeatures(
            self.features[kept],
            tuple(self.labels[k] for k in kept),
            tuple(self.patients[k] for k in kept),
        )


@dataclass(frozen=True)
class Classifier:
    """A linear classifier of features.

    Attributes:
        levels: Labels in the order of the scores.
        weights: Shape (d + 1, levels), for features and a constant, in the features' own units.
        penalty: Penalty that was chosen.
    """

    levels: tuple[str, ...]
    weights: NDArray[np.float64]
    penalty: float

    def scores(self, features: Features) -> Scores:
        """Return the score of each level for each image, shape (n, levels); the largest is chosen."""
        return np.asarray(features.astype(np.float64) @ self.weights[:-1] + self.weights[-1])


def levels_to_tell_apart(training: Sequence[str], tuning: Sequence[str]) -> tuple[str, ...]:
    """Return the levels that can be learned: known, in the tuning view, of 5 images or more.

    Raises:
        MetricUndefinedError: Fewer than two levels are left.
    """
    found = [x for x in sorted(set(training)) if x and training.count(x) >= LEAST_IMAGES]
    levels = tuple(x for x in found if x in set(tuning))
    if len(levels) < 2:
        raise MetricUndefinedError(
            "a classifier needs two levels of "
            f"{LEAST_IMAGES} training images each that the tuning view has too; found "
            f"{', '.join(levels) or 'none'}"
        )
    return levels


def fit(
    training: LabelledFeatures, tuning: LabelledFeatures, levels: tuple[str, ...]
) -> Classifier:
    """Fit a classifier for each penalty; return the one with the best macro F1 on the tuning view.

    Raises:
        MetricUndefinedError: A level has no training image.
    """
    from sklearn.linear_model import LogisticRegression

    lacking = sorted(set(levels) - set(training.labels))
    if lacking:
        raise MetricUndefinedError(f"no training image shows {', '.join(lacking)}")
    features = training.features.astype(np.float64)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-6] = 1.0
    standard = (features - mean) / scale
    wanted = _codes(tuning.labels, levels)
    best: tuple[float, Classifier] | None = None
    for penalty in PENALTIES:
        model = LogisticRegression(
            C=1 / (penalty * len(training)), class_weight="balanced", max_iter=300, tol=1e-3
        )
        model.fit(standard, np.asarray(training.labels))
        found = _classifier(model, mean, scale, levels, penalty)
        chosen = found.scores(tuning.features).argmax(axis=1)
        score = float(_macro_f1(chosen, wanted, np.ones((1, len(wanted))), len(levels))[0])
        if best is None or score > best[0]:
            best = score, found
    assert best is not None  # noqa: S101 - PENALTIES is not empty
    return best[1]


def _classifier(
    model: "object", mean: Features, scale: Features, levels: tuple[str, ...], penalty: float
) -> Classifier:
    """Return a fitted regression in the units of the features; two levels get opposite scores."""
    slopes = np.asarray(model.coef_, dtype=np.float64)  # type: ignore[attr-defined]
    constants = np.asarray(model.intercept_, dtype=np.float64)  # type: ignore[attr-defined]
    if len(slopes) == 1:
        slopes, constants = (
            np.stack([-slopes[0], slopes[0]]) / 2,
            np.stack([-constants[0], constants[0]]) / 2,
        )
    order = [list(model.classes_).index(level) for level in levels]  # type: ignore[attr-defined]
    slopes, constants = slopes[order] / scale, constants[order]
    weights = np.concatenate([slopes.T, (constants - slopes @ mean)[None]])
    return Classifier(levels, weights, penalty)


def fit_arms(
    real: LabelledFeatures,
    tuning: LabelledFeatures,
    others: Mapping[str, LabelledFeatures],
    levels: tuple[str, ...],
) -> dict[str, tuple[Classifier, int, int]]:
    """Fit a classifier for each arm whose images are there.

    Args:
        real: Real training images of the levels.
        tuning: Tuning images of the levels, to choose penalties with.
        others: Images to add or to put in their place: "synthetic", "augmentation", "pca",
            "copycat"; what is missing leaves out its arms.
        levels: Labels.

    Returns:
        Arm -> (classifier, real images, other images), in the order of `ARMS`. An arm is left out
        where one of its levels has no image.
    """
    fitted = {}
    for arm in ARMS:
        first, _, second = arm.partition(" + ")
        other = others.get(second or first)
        if arm != REAL and other is None:
            continue
        images = real if arm == REAL else real + other if second and other else other
        if images is None or set(levels) - set(images.labels):
            continue
        n_real = len(real) if first == REAL else 0
        fitted[arm] = (fit(images, tuning, levels), n_real, len(images) - n_real)
    return fitted


def fit_curve(
    real: LabelledFeatures,
    tuning: LabelledFeatures,
    synthetic: LabelledFeatures | None,
    levels: tuple[str, ...],
    seed: int,
) -> dict[tuple[float, str], tuple[int, list[Classifier]]]:
    """Fit classifiers on shares of the real training patients, with and without synthetic images.

    Returns:
        (share, arm) -> (patients, classifiers of `N_DRAWS` draws). A draw that lacks a level is left
        out, and so is a share at which none is left.
    """
    patients = np.array(sorted(set(real.patients)))
    fitted: dict[tuple[float, str], tuple[int, list[Classifier]]] = {}
    for share in SHARES:
        n = max(round(share * len(patients)), 1)
        for draw in range(N_DRAWS):
            random = numpy_generator(seed, "learning curve", str(share), draw)
            chosen = set(random.choice(patients, n, replace=False).tolist())
            part = real.rows([patient in chosen for patient in real.patients])
            if set(levels) - set(part.labels):
                continue
            arms = {REAL: part} | ({ADDED: part + synthetic} if synthetic is not None else {})
            for arm, images in arms.items():
                fitted.setdefault((share, arm), (n, []))[1].append(fit(images, tuning, levels))
    return fitted


def judge_arms(
    fitted: Mapping[str, tuple[Classifier, int, int]],
    test: LabelledFeatures,
    groups: Mapping[str, Sequence[str]],
    *,
    least_patients: int,
    n_resamples: int,
    seed: int,
) -> tuple[Arm, ...]:
    """Judge each arm's classifier on the held-out images.

    Args:
        fitted: As `fit_arms` returns it; "real" is among them.
        test: Held-out images of the levels.
        groups: Further attribute -> level of each held-out image, "" where unknown.
        least_patients: Patients below which no subgroup is measured.
        n_resamples: Resamples of patients behind intervals.
        seed: Seed of resampling.

    Raises:
        MetricUndefinedError: Fewer than 10 held-out patients, or a level that none of them shows.
    """
    levels = fitted[REAL][0].levels
    n_patients = len(set(test.patients))
    if n_patients < LEAST_PATIENTS:
        raise MetricUndefinedError(
            f"{n_patients} held-out patients with a label; at least {LEAST_PATIENTS} are needed"
        )
    if lacking := sorted(set(levels) - set(test.labels)):
        raise MetricUndefinedError(f"no held-out image shows {', '.join(lacking)}")
    wanted = _codes(test.labels, levels)
    counts = patient_counts(test.patients, n_resamples, np.random.default_rng(seed))
    own = np.ones((1, len(test)))
    both = np.concatenate([own, counts])
    measured = {}
    for arm, (classifier, _, _) in fitted.items():
        scores = classifier.scores(test.features)
        measured[arm] = {
            MACRO_F1: _macro_f1(scores.argmax(axis=1), wanted, both, len(levels)),
            AUROC: _auroc(scores, wanted, both),
        }
    return tuple(
        Arm(
            name=arm,
            meaning=ARMS[arm],
            n_real=n_real,
            n_other=n_other,
            penalty=classifier.penalty,
            measures=tuple(
                _measure(name, values, None if arm == REAL else measured[REAL][name])
                for name, values in measured[arm].items()
            ),
            subgroups=_subgroups(classifier, test, wanted, groups, least_patients),
        )
        for arm, (classifier, n_real, n_other) in fitted.items()
    )


def judge_curve(
    fitted: Mapping[tuple[float, str], tuple[int, list[Classifier]]], test: LabelledFeatures
) -> tuple[CurvePoint, ...]:
    """Judge the classifiers of a learning curve on the held-out images."""
    points = []
    for (share, arm), (n_patients, classifiers) in fitted.items():
        levels = classifiers[0].levels
        wanted, once = _codes(test.labels, levels), np.ones((1, len(test)))
        values = tuple(
            float(_macro_f1(c.scores(test.features).argmax(axis=1), wanted, once, len(levels))[0])
            for c in classifiers
        )
        points.append(CurvePoint(share=share, arm=arm, n_patients=n_patients, values=values))
    return tuple(points)


def _measure(
    name: str, values: NDArray[np.float64], real: NDArray[np.float64] | None
) -> TaskMeasure:
    """Return the measure of the images themselves (first) with intervals of the resamples."""
    difference = None if real is None else values - real
    return TaskMeasure(
        name=name,
        value=float(values[0]),
        ci95=percentile_interval(float(values[0]), values[1:], centred=False),
        difference=None if difference is None else float(difference[0]),
        difference_ci95=None
        if difference is None
        else percentile_interval(float(difference[0]), difference[1:], centred=False),
    )


def _subgroups(
    classifier: Classifier,
    test: LabelledFeatures,
    wanted: NDArray[np.intp],
    groups: Mapping[str, Sequence[str]],
    least_patients: int,
) -> tuple[tuple[str, int, float], ...]:
    chosen = classifier.scores(test.features).argmax(axis=1)
    found = []
    for attribute, by_image in groups.items():
        for level in sorted(set(by_image) - {""}):
            rows = np.array([one == level for one in by_image])
            patients = len({p for p, own in zip(test.patients, rows, strict=True) if own})
            if patients >= least_patients:
                once = rows[None].astype(np.float64)
                value = float(_macro_f1(chosen, wanted, once, len(classifier.levels))[0])
                found.append((f"{attribute}={level}", patients, value))
    return tuple(found)


def _codes(labels: Sequence[str], levels: tuple[str, ...]) -> NDArray[np.intp]:
    return np.array([levels.index(label) for label in labels], dtype=np.intp)


def _macro_f1(
    chosen: NDArray[np.intp], wanted: NDArray[np.intp], counts: NDArray[np.float64], n_levels: int
) -> NDArray[np.float64]:
    """Mean F1 of the levels, shape (b,), where image i counts `counts[b, i]` times.

    A level that a resample neither shows nor names is left out of its mean.
    """
    levels = np.arange(n_levels)
    is_chosen, is_wanted = (x[:, None] == levels for x in (chosen, wanted))
    hits = counts @ (is_chosen & is_wanted)
    total = counts @ is_chosen + counts @ is_wanted
    with np.errstate(invalid="ignore"):
        scores = np.where(total > 0, 2 * hits / np.maximum(total, 1e-12), np.nan)
        return np.asarray(np.nanmean(scores, axis=1))


def _auroc(
    scores: Scores, wanted: NDArray[np.intp], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the levels of the area under the curve of one level against the rest, shape (b,)."""
    total = []
    for level in range(scores.shape[1]):
        own, margin = wanted == level, _margin(scores, level)
        wins = (margin[own][:, None] > margin[~own]) + 0.5 * (margin[own][:, None] == margin[~own])
        inside, outside = counts[:, own], counts[:, ~own]
        pairs = inside.sum(axis=1) * outside.sum(axis=1)
        won = ((inside @ wins) * outside).sum(axis=1)
        total.append(np.where(pairs > 0, won / np.maximum(pairs, 1e-12), np.nan))
    return np.asarray(np.mean(total, axis=0))


def _margin(scores: Scores, level: int) -> NDArray[np.float64]:
    """Return how likely the level is, as the log-odds of its share among exponentials."""
    others = np.delete(scores, level, axis=1)
    top = others.max(axis=1, keepdims=True)
    return np.asarray(scores[:, level] - (top[:, 0] + np.log(np.exp(others - top).sum(axis=1))))
