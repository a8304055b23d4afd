"""Fidelity by subgroup: every metric at each level, and how far levels of one attribute differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from governance.records.base import ItemStatus
from governance.records.evaluation import MetricResult, SubgroupGap
from medisynth.intervals import Counts, image_counts, patient_counts, percentile_interval
from medisynth.metrics.features import ExtractorFacts, Features
from medisynth.metrics.fidelity import MIN_PATIENTS, evaluate_fidelity, not_evaluated_fidelity
from medisynth.metrics.gram import grams
from medisynth.metrics.kernel import kernel_distance_from_grams, kernel_distances_from_grams

DRAWN_FOR_LEVEL, ALL_SAMPLES = "drawn for this level", "all synthetic images"

_KID = "kid"
_SECONDS = 10.0  # of resampling, for each level


@dataclass(frozen=True)
class GroupedImages:
    """Features of real images with what is known of each.

    Attributes:
        features: Shape (n, d), float64.
        patients: Patient of each image, length n.
        levels: Attribute -> level of each image, "" where it is not recorded, length n.
    """

    features: Features
    patients: Sequence[str]
    levels: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SubgroupResults:
    """All metrics by subgroup, and the largest gap of each attribute, Holm-adjusted over all."""

    metrics: tuple[MetricResult, ...]
    gaps: tuple[SubgroupGap, ...]


@dataclass(frozen=True)
class _Level:
    """One level that has enough patients, with the images compared for it.

    `test` and `training` are row numbers; `training` are the floor's rows.
    """

    attribute: str
    name: str
    test: NDArray[np.intp]
    training: NDArray[np.intp]
    synthetic: Features
    is_drawn: bool


def evaluate_subgroups(
    test: GroupedImages,
    training: GroupedImages,
    synthetic: Features,
    by_level: Mapping[tuple[str, str], Features],
    extractor: ExtractorFacts,
    *,
    least_patients: int,
    smallest_cells: Mapping[str, int],
    n_bootstrap: int,
    seed: int,
) -> SubgroupResults:
    """Compare synthetic images with the held-out images of each level of each attribute.

    A level for which images were drawn is compared with these, and its floor takes the training
    images of the level. Any other level is compared with all synthetic images, and its floor with
    all training images: both then hold what is not of the level, so the distance above the floor
    stays comparable. A gap is the difference of two levels' KID above their floors.

    Args:
        test: Held-out images.
        training: Training images, with the same attributes.
        synthetic: Features of all synthetic images, shape (m, d).
        by_level: (attribute, level) -> features of the images drawn for it.
        extractor: Facts about the extractor of the features.
        least_patients: Levels with fewer held-out patients are "too few" and not evaluated.
        smallest_cells: Attribute -> number of patients below which a level's count identifies
            people; such counts are withheld, and the other levels' are rounded down to a multiple
            of it, so that the difference to all patients does not give them away.
        n_bootstrap: Resamples behind intervals and gaps; below 40 there is none.
        seed: Seed.

    Returns:
        Seven metrics for each level of each attribute with two levels or more among the held-out
        images, and one gap for each attribute with two levels that could be compared.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70, for the adjusted p-values.
    """
    metrics: list[MetricResult] = []
    compared: list[_Level] = []
    for attribute, names in test.levels.items():
        found = sorted({name for name in names if name})
        if len(found) < 2:
            continue
        cell = smallest_cells.get(attribute, 0)
        n_patients = {
            name: len({p for p, own in zip(test.patients, names, strict=True) if own == name})
            for name in found
        }
        hides = any(n < cell for n in n_patients.values())
        for name in found:
            n = n_patients[name]
            if n < least_patients:
                metrics += _too_few(f"{attribute}={name}", n, cell, hides, least_patients)
                continue
            level = _level(attribute, name, test, training, synthetic, by_level)
            measured = _measure(level, test, training, extractor, n_bootstrap, seed)
            metrics += _rounded(measured, cell) if hides else measured
            if _is_comparable(measured):
                compared.append(level)
    gaps = _gaps(compared, test, training, n_bootstrap, seed)
    return SubgroupResults(tuple(metrics), gaps)


def _too_few(
    subgroup: str, n: int, cell: int, hides: bool, least_patients: int
) -> tuple[MetricResult, ...]:
    """Return the metrics of a level with too few patients; an identifying count is withheld."""
    withheld = hides and n < max(cell, 1)
    shown = n // cell * cell if hides else n
    count = f"fewer than {cell}" if withheld else f"about {shown}" if hides else str(n)
    patients = "patient" if count == "1" else "patients"
    reason = f"too few: {count} {patients}, needs {least_patients}"
    metrics = not_evaluated_fidelity(reason, subgroup=subgroup)
    return tuple(m.model_copy(update={"n_patients": 0 if withheld else shown}) for m in metrics)


def _rounded(metrics: Sequence[MetricResult], cell: int) -> list[MetricResult]:
    """Return the metrics with numbers of patients that do not give a withheld one away."""
    words = f"number of patients rounded down to a multiple of {cell}"
    return [
        metric.model_copy(
            update={
                "n_patients": metric.n_patients // cell * cell,
                "reason": "; ".join(filter(None, (metric.reason, words))),
            }
        )
        for metric in metrics
    ]


def _level(
    attribute: str,
    name: str,
    test: GroupedImages,
    training: GroupedImages,
    synthetic: Features,
    by_level: Mapping[tuple[str, str], Features],
) -> _Level:
    own = np.flatnonzero(np.asarray(test.levels[attribute]) == name)
    drawn = by_level.get((attribute, name))
    alike = np.flatnonzero(np.asarray(training.levels[attribute]) == name)
    if drawn is None or len(alike) < 2:
        rows = np.arange(len(training.features))
        return _Level(attribute, name, own, rows, synthetic, is_drawn=False)
    return _Level(attribute, name, own, alike, drawn, is_drawn=True)


def _measure(
    level: _Level,
    test: GroupedImages,
    training: GroupedImages,
    extractor: ExtractorFacts,
    n_bootstrap: int,
    seed: int,
) -> tuple[MetricResult, ...]:
    metrics = evaluate_fidelity(
        test=test.features[level.test],
        test_patients=[test.patients[row] for row in level.test],
        training=training.features[level.training],
        training_patients=[training.patients[row] for row in level.training],
        synthetic=level.synthetic,
        extractor=extractor,
        n_bootstrap=n_bootstrap,
        seed=seed,
        max_seconds=_SECONDS,
        subgroup=f"{level.attribute}={level.name}",
    )
    came = DRAWN_FOR_LEVEL if level.is_drawn else ALL_SAMPLES
    return tuple(metric.model_copy(update={"synthetic_from": came}) for metric in metrics)


def _is_comparable(metrics: Sequence[MetricResult]) -> bool:
    kid = next(m for m in metrics if m.id.startswith(_KID))
    return kid.status is ItemStatus.RECORDED and kid.floor is not None


def _gaps(
    levels: Sequence[_Level],
    test: GroupedImages,
    training: GroupedImages,
    n_bootstrap: int,
    seed: int,
) -> tuple[SubgroupGap, ...]:
    """Return the largest gap of each attribute; p-values are adjusted over all pairs of levels."""
    if n_bootstrap < 1 or len(set(test.patients)) < MIN_PATIENTS:
        return ()
    rng = np.random.default_rng(seed)
    counts = patient_counts(test.patients, n_bootstrap, rng)
    floor_counts = patient_counts(training.patients, n_bootstrap, rng)
    shared: Counts | None = None
    above = []
    for level in levels:
        if level.is_drawn or shared is None:
            drawn = image_counts(len(level.synthetic), n_bootstrap, rng)
            shared = shared if level.is_drawn else drawn
        else:
            drawn = shared
        above.append(_above_floor(level, test, training, (counts, floor_counts, drawn)))
    found = []
    for one, other in combinations(range(len(levels)), 2):
        if levels[one].attribute != levels[other].attribute:
            continue
        worst, best = (one, other) if above[one][0] >= above[other][0] else (other, one)
        value = above[worst][0] - above[best][0]
        resampled = above[worst][1] - above[best][1]
        spread = float(np.nanstd(resampled, ddof=1))
        p = math.erfc(value / spread / math.sqrt(2)) if spread > 0 else math.nan
        ci95 = percentile_interval(value, resampled)
        if ci95 is not None and math.isfinite(p):
            found.append((levels[worst], levels[best], value, ci95, p))
    adjusted = holm([p for *_, p in found])
    largest: dict[str, SubgroupGap] = {}
    for (worst_level, best_level, value, ci95, _), p in zip(found, adjusted, strict=True):
        attribute = worst_level.attribute
        if attribute not in largest or value > largest[attribute].value:
            largest[attribute] = SubgroupGap(
                attribute=attribute,
                worst=worst_level.name,
                best=best_level.name,
                value=value,
                ci95=ci95,
                p_value=p,
                n_comparisons=len(found),
            )
    return tuple(largest.values())


def _above_floor(
    level: _Level,
    test: GroupedImages,
    training: GroupedImages,
    counts: tuple[Counts, Counts, Counts],
) -> tuple[float, NDArray[np.float64]]:
    """KID of a level less its floor, and the same of each resample."""
    real, floor, drawn = counts
    own = test.features[level.test]
    to_synthetic = grams(own, level.synthetic)
    to_training = grams(own, training.features[level.training])
    value = kernel_distance_from_grams(to_synthetic) - kernel_distance_from_grams(to_training)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold none of a level
        resampled = kernel_distances_from_grams(
            to_synthetic, real[:, level.test], drawn
        ) - kernel_distances_from_grams(to_training, real[:, level.test], floor[:, level.training])
    return value, resampled


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number by Holm's step-down method.

    Args:
        p_values: One for each comparison, 0 to 1.

    Returns:
        Adjusted p-values in the same order, each at least the given one and at most 1: below 0.05
        where a comparison holds at 5 % over all of them.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70.
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min((len(p_values) - rank) * p_values[place], 1.0))
        adjusted[place] = highest
    return adjusted
