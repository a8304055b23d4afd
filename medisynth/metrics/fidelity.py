"""All fidelity metrics of a run, each with its interval and its real-against-real floor."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from governance.records.base import ItemStatus
from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import Better, MetricResult
from medisynth.intervals import (
    MIN_RESAMPLES,
    Counts,
    Interval,
    image_counts,
    most_unseen,
    patient_bootstrap,
    patient_counts,
    percentile_interval,
    share_interval,
)
from medisynth.metrics.coverage import NEIGHBOURS, neighbourhoods_from_grams
from medisynth.metrics.features import ExtractorFacts, Features, InceptionPool3, RecordedExtractor
from medisynth.metrics.frechet import frechet_distance, frechet_from_grams
from medisynth.metrics.gram import grams
from medisynth.metrics.kernel import kernel_distance_from_grams, kernel_distances_from_grams

MIN_PATIENTS = 10  # fewer clusters make a bootstrap interval far too narrow


@dataclass(frozen=True)
class _Definition:
    name: str
    title: str
    better: Better
    detail: str = ""


_K = f"-k{NEIGHBOURS}"
_DEFINITIONS = (
    _Definition("fid", "Fréchet Inception distance (FID)", "lower"),
    _Definition("kid", "Kernel Inception distance (KID)", "lower"),
    _Definition("fd_ratio", "FID over its real-against-real floor (FD ratio)", "near floor"),
    _Definition("precision", "Precision", "higher", _K),
    _Definition("recall", "Recall", "higher", _K),
    _Definition("density", "Density", "near floor", _K),
    _Definition("coverage", "Coverage", "higher", _K),
)
_LIMITS = {
    "fid": (0.0, np.inf),
    "kid": (-np.inf, np.inf),
    "fd_ratio": (0.0, np.inf),
    "precision": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "density": (0.0, np.inf),
    "coverage": (0.0, 1.0),
}


@dataclass(frozen=True)
class _Comparison:
    """Comparison of a set with the test set: values, resampled values, reasons for lacking ones.

    `exact` holds intervals that need no resampling, each with the name of its method.
    """

    values: dict[str, float]
    resampled: dict[str, NDArray[np.float64]]
    faults: dict[str, str]
    exact: dict[str, tuple[Interval, str]] = field(default_factory=dict)

    def method(self, name: str) -> str:
        """How the interval of one value was computed; "" for the bootstrap, and for none."""
        return self.exact[name][1] if name in self.exact else ""

    def interval(self, name: str) -> Interval | None:
        """95 % interval of one value, within the range of the metric."""
        if name in self.exact:
            return self.exact[name][0]
        if name not in self.resampled:
            return None
        centred = name in ("fid", "kid", "fd_ratio")
        found = percentile_interval(self.values[name], self.resampled[name], centred=centred)
        if found is None:
            return None
        bottom, top = _LIMITS[name]
        return max(found[0], bottom), min(found[1], top)


def evaluate_fidelity(
    test: Features,
    test_patients: Sequence[str],
    training: Features,
    training_patients: Sequence[str],
    synthetic: Features,
    extractor: ExtractorFacts,
    *,
    n_bootstrap: int,
    seed: int,
    max_seconds: float = 60.0,
    subgroup: str = "",
) -> tuple[MetricResult, ...]:
    """Compare synthetic with held-out real images in seven ways, beside real training images.

    The floor compares as many training images as there are synthetic ones with the same test
    images. With fewer training than synthetic images, only as many synthetic images are used, so
    that value and floor stay comparable.

    Args:
        test: Features of held-out real images, shape (n, d), float64.
        test_patients: Patient of each, length n.
        training: Features of real training images, shape (t, d).
        training_patients: Patient of each, length t.
        synthetic: Features of synthetic images, shape (m, d).
        extractor: Facts about the extractor of the features.
        n_bootstrap: Resamples behind each interval; 0: no intervals.
        seed: Seed of resampling and of the choice of training images.
        max_seconds: Rough time for resampling on one core. More images get fewer resamples, by a
            fixed rule, so that every machine gives the same interval; below 40 there is none.
        subgroup: "" for all images, else "attribute=level".

    Returns:
        FID, KID, FD ratio, precision, recall, density, coverage, in this order. A metric that the
        input does not define is "not evaluated" with the reason; small sets never raise.

    Raises:
        ValueError: Numbers of images and patients differ.
    """
    if len(test) != len(test_patients) or len(training) != len(training_patients):
        raise ValueError("each image needs its patient")
    n_other = min(len(synthetic), len(training)) if len(training) > 1 else len(synthetic)
    template = _described(extractor).model_copy(
        update={
            "n_real": len(test),
            "n_synthetic": n_other,
            "n_patients": len(set(test_patients)),
            "subgroup": subgroup,
            "seed": seed,
        }
    )
    fault = _fault(test, training, synthetic)
    if fault:
        return tuple(metric.model_copy(update={"reason": fault}) for metric in _blank(template))
    rng = np.random.default_rng(seed)
    n_resamples, caution = _affordable(template, n_bootstrap, max_seconds)
    counts = patient_counts(test_patients, n_resamples, rng)
    other = synthetic[:n_other]
    drawn = [str(number) for number in range(n_other)]
    units = _Units(test_patients, drawn)
    main = _compare(test, other, counts, image_counts(n_other, n_resamples, rng), units)
    floor = _Comparison({}, {}, {})
    if len(training) > 1:
        chosen = np.sort(rng.choice(len(training), n_other, replace=False))
        patients = [training_patients[index] for index in chosen]
        floor_counts = patient_counts(patients, n_resamples, rng)
        units = _Units(test_patients, patients)
        floor = _compare(test, training[chosen], counts, floor_counts, units)
    main, floor = _with_ratio(main, floor)
    cautions = [caution] if caution else []
    if n_other < len(synthetic):
        cautions.append(
            f"{n_other} of {len(synthetic)} synthetic images used: "
            "the floor needs as many training images"
        )
    return tuple(_finish(metric, main, floor, cautions) for metric in _blank(template))


def kernel_estimate(
    test: Features,
    test_patients: Sequence[str],
    other: Features,
    other_patients: Sequence[str] = (),
    *,
    n_bootstrap: int,
    seed: int,
) -> tuple[float, Interval | None]:
    """Kernel distance of any images to held-out ones, with its 95 % interval; for controls.

    Args:
        test: Features of held-out real images, shape (n, d), float64.
        test_patients: Patient of each, length n; they are resampled by patient.
        other: Features of the other images, shape (m, d).
        other_patients: Patient of each, to resample by; () resamples them one by one.
        n_bootstrap: Resamples behind the interval.
        seed: Seed of resampling.

    Returns:
        As `kernel_distance`, and the interval; None for it below 10 patients or 40 resamples.

    Raises:
        MetricUndefinedError: As for `kernel_distance`.
    """
    g = grams(test, other)
    value = kernel_distance_from_grams(g)
    if len(set(test_patients)) < MIN_PATIENTS:
        return value, None
    if not other_patients:
        ci95 = patient_bootstrap(
            lambda real, drawn: kernel_distances_from_grams(g, real, drawn),
            value,
            test_patients,
            len(other),
            n_resamples=n_bootstrap,
            seed=seed,
        )
        return value, ci95
    rng = np.random.default_rng(seed)
    real = patient_counts(test_patients, n_bootstrap, rng)
    resampled = kernel_distances_from_grams(
        g, real, patient_counts(other_patients, n_bootstrap, rng)
    )
    return value, percentile_interval(value, resampled)


def not_evaluated_fidelity(reason: str, *, subgroup: str = "") -> tuple[MetricResult, ...]:
    """Return all seven metrics as "not evaluated", e.g. for a run without weights.

    Args:
        reason: Why, one sentence.
        subgroup: "" for all images, else "attribute=level".
    """
    unused = RecordedExtractor(InceptionPool3.name, "", InceptionPool3.n_features, "")
    return _blank(_described(unused).model_copy(update={"subgroup": subgroup, "reason": reason}))


def _described(extractor: ExtractorFacts) -> MetricResult:
    return MetricResult(
        id="",
        title="",
        status=ItemStatus.NOT_EVALUATED,
        extractor=extractor.name,
        extractor_sha256=extractor.weights_sha256,
        n_features=extractor.n_features,
        resize=extractor.resize,
    )


def _blank(template: MetricResult) -> tuple[MetricResult, ...]:
    n, m = template.n_real, template.n_synthetic
    size = "" if n == m == 0 else f"-n{n}" if n == m else f"-n{n}x{m}"
    return tuple(
        template.model_copy(
            update={
                "id": f"{d.name}-{template.extractor}-d{template.n_features}{d.detail}{size}",
                "title": d.title,
                "better": d.better,
            }
        )
        for d in _DEFINITIONS
    )


def _fault(test: Features, training: Features, synthetic: Features) -> str:
    """Why no metric can be computed; empty when some can."""
    if min(len(test), len(synthetic)) < 2:
        return f"needs 2 images a set, got {len(test)} real and {len(synthetic)} synthetic ones"
    if not all(np.isfinite(features).all() for features in (test, training, synthetic)):
        return "a feature is not finite: the extractor or its weights are broken"
    if not np.ptp(test, axis=0).any():
        return "all held-out real images have the same features: they cannot be a reference"
    return ""


def _affordable(template: MetricResult, n_bootstrap: int, max_seconds: float) -> tuple[int, str]:
    """Number of resamples within the time, and the reason if it is 0 though some were requested."""
    if n_bootstrap == 0:
        return 0, ""
    if template.n_patients < MIN_PATIENTS:
        return 0, f"no interval: {template.n_patients} patients, needs {MIN_PATIENTS}"
    # About 63 % of images are in a resample; rates measured on one core, for two comparisons each.
    small, large = sorted((0.63 * template.n_real, 0.63 * template.n_synthetic))
    seconds = 2 * (5e-4 + small**2 * large / 6e9)
    n_resamples = min(n_bootstrap, int(max_seconds / seconds))
    if n_resamples < MIN_RESAMPLES:
        return 0, (
            f"no interval: {n_resamples} resamples of {MIN_RESAMPLES} needed; "
            "ask for more resamples or allow more time"
        )
    return n_resamples, ""


@dataclass(frozen=True)
class _Units:
    """Patient of each real image, and of each other one; synthetic images stand for themselves."""

    real: Sequence[str]
    other: Sequence[str]


def _compare(
    test: Features, other: Features, counts: Counts, other_counts: Counts, units: _Units
) -> _Comparison:
    g = grams(test, other)
    values = {"fid": frechet_distance(test, other), "kid": kernel_distance_from_grams(g)}
    resampled: dict[str, NDArray[np.float64]] = {}
    faults: dict[str, str] = {}
    if len(counts):
        pairs = zip(counts, other_counts, strict=True)
        resampled["fid"] = np.array([frechet_from_grams(g, r, o, exact=False) for r, o in pairs])
        resampled["kid"] = kernel_distances_from_grams(g, counts, other_counts)
    try:
        near = neighbourhoods_from_grams(g)
    except MetricUndefinedError as error:
        faults = dict.fromkeys(("precision", "recall", "density", "coverage"), str(error))
        return _Comparison(values, resampled, faults)
    # Neighbourhoods stay those of the whole sets: a resample repeats images, which would shrink
    # them.
    exact: dict[str, tuple[Interval, str]] = {}
    for name, marks, of in (
        ("precision", near.precision, units.other),
        ("recall", near.recall, units.real),
        ("coverage", near.coverage, units.real),
    ):
        values[name] = float(marks.mean())
        if len(counts):
            exact[name] = share_interval(marks, of)
    values["density"] = float(near.density.mean())
    if len(counts) and near.density.any():
        resampled["density"] = other_counts @ near.density / other_counts.sum(axis=1)
    elif len(counts):
        # None lies in a neighbourhood: few can, and these in no more than a real image does.
        most = near.densest * most_unseen(len(set(units.other)))
        method = (
            "one-sided 95 % bound by the rule of three, times the largest density of a real image"
        )
        exact["density"] = (0.0, most), method
    return _Comparison(values, resampled, faults, exact)


def _with_ratio(main: _Comparison, floor: _Comparison) -> tuple[_Comparison, _Comparison]:
    """Add the ratio of both Fréchet distances to `main`, and its floor, always 1, to `floor`."""
    bottom = floor.values.get("fid", 0.0)
    if bottom <= 0:
        missing = "no floor: needs at least 2 real training images that differ from the test images"
        return replace(main, faults={**main.faults, "fd_ratio": missing}), floor
    values = {**main.values, "fd_ratio": main.values["fid"] / bottom}
    resampled = dict(main.resampled)
    if "fid" in resampled:
        above = resampled["fid"] - resampled["fid"].mean() + main.values["fid"]
        below = floor.resampled["fid"] - floor.resampled["fid"].mean() + bottom
        resampled["fd_ratio"] = np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
    return (
        replace(main, values=values, resampled=resampled),
        replace(floor, values={**floor.values, "fd_ratio": 1.0}),
    )


def _finish(
    metric: MetricResult, main: _Comparison, floor: _Comparison, cautions: Sequence[str]
) -> MetricResult:
    name = metric.id.partition("-")[0]
    if name not in main.values:
        return metric.model_copy(update={"reason": main.faults[name]})
    said = list(cautions)
    n_wanted = 2 * metric.n_features
    if name in ("fid", "fd_ratio") and min(metric.n_real, metric.n_synthetic) < n_wanted:
        said.insert(
            0,
            f"biased upwards below {n_wanted:,} images a set: compare only with its floor at the "
            "same n, and lead with KID",
        )
    if name not in floor.values:
        said.append(f"no floor: {floor.faults.get(name, 'fewer than 2 real training images')}")
    return metric.model_copy(
        update={
            "status": ItemStatus.RECORDED,
            "value": main.values[name],
            "ci95": main.interval(name),
            "interval_method": main.method(name),
            "floor": floor.values.get(name),
            "floor_ci95": floor.interval(name),
            "reason": "; ".join(said),
        }
    )
