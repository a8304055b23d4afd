"""Confidence intervals: by resampling patients, and for shares."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError

Counts = NDArray[np.float64]
Interval = tuple[float, float]
Statistic = Callable[[Counts, Counts], NDArray[np.float64]]

MIN_RESAMPLES = 40
_LEVEL = 0.05  # intervals are two-sided 95 %, bounds one-sided 95 %
_Z95 = 1.959963984540054  # standard normal quantile at 0.975


def patient_counts(patients: Sequence[str], n_resamples: int, rng: np.random.Generator) -> Counts:
    """Resample patients with replacement; count each image as often as its patient is drawn.

    Args:
        patients: Patient of each image, length n.
        n_resamples: Number of resamples b.
        rng: Source of randomness.

    Returns:
        Shape (b, n): how often each image is in each resample.
    """
    _, codes = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    return image_counts(int(codes.max()) + 1, n_resamples, rng)[:, codes]


def image_counts(n_images: int, n_resamples: int, rng: np.random.Generator) -> Counts:
    """Resample images of no patient with replacement, shape (n_resamples, n_images)."""
    shares = np.full(n_images, 1 / n_images)
    return rng.multinomial(n_images, shares, size=n_resamples).astype(np.float64)


def patient_bootstrap(
    statistic: Statistic,
    value: float,
    patients: Sequence[str],
    n_synthetic: int,
    *,
    n_resamples: int,
    seed: int,
) -> Interval | None:
    """Two-sided 95 % interval of a statistic of real and synthetic images.

    Real images are resampled by patient, since images of one patient are alike; synthetic images
    one by one.

    Args:
        statistic: Takes counts (b, n) and (b, m), returns the statistic of each resample, (b,).
        value: The statistic of the sets themselves.
        patients: Patient of each real image, length n.
        n_synthetic: Number of synthetic images m.
        n_resamples: Number of resamples b.
        seed: Seed.

    Returns:
        As `percentile_interval`.
    """
    rng = np.random.default_rng(seed)
    real = patient_counts(patients, n_resamples, rng)
    return percentile_interval(value, statistic(real, image_counts(n_synthetic, n_resamples, rng)))


def percentile_interval(
    value: float, resampled: NDArray[np.float64], *, centred: bool = True
) -> Interval | None:
    """Middle 95 % of resampled values, moved so that their mean is the value itself.

    A resample repeats images, which raises a Fréchet distance as if there were fewer of them;
    unmoved, its percentiles often lie wholly above the value. Only their spread is used.

    Args:
        value: The statistic of the sets themselves.
        resampled: The statistic of each resample, shape (b,); NaN where it is undefined.
        centred: False leaves the percentiles where they are: for plain means, which resampling does
            not raise.

    Returns:
        (low, high); None when fewer than 40 resampled values are finite, and when all are equal:
        then resampling could not vary the statistic and says nothing on its uncertainty.
    """
    finite = resampled[np.isfinite(resampled)]
    if len(finite) < MIN_RESAMPLES or is_degenerate(finite):
        return None
    shift = value - finite.mean() if centred else 0.0
    low, high = np.percentile(finite, (2.5, 97.5)) + shift
    return float(low), float(high)


def is_degenerate(resampled: NDArray[np.float64]) -> bool:
    """Whether resampled values are all equal, but for rounding."""
    scale = float(np.abs(resampled).max(initial=0.0))
    return float(np.ptp(resampled)) <= 1e-12 * max(scale, 1.0) if len(resampled) else False


def most_unseen(n: int) -> float:
    """Largest share that is still likely when it was seen in none of n independent units.

    Args:
        n: Patients, or images that are independent; at least 1.

    Returns:
        One-sided 95 % upper bound, 1 - 0.05 ** (1 / n): about 3 / n, the rule of three.

    Raises:
        MetricUndefinedError: n is 0.

    Source:
        Hanley and Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031.
    """
    if n < 1:
        raise MetricUndefinedError("a share among nobody has no bound")
    return float(1 - _LEVEL ** (1 / n))


def share_interval(marks: NDArray[np.float64], units: Sequence[str]) -> tuple[Interval, str]:
    """Exact interval of a share of images, of which several may come from one unit.

    Clopper and Pearson's interval at the effective number of images: the number of independent
    ones whose share would vary as much as that of these, which come in units. A share of 0 or 1
    does not vary between units; it gets a one-sided bound with each unit as one trial.

    Args:
        marks: 1 for each image that counts, else 0, shape (n,), n at least 1.
        units: Patient of each image, or a name of its own for an independent image, length n.

    Returns:
        The interval within 0 to 1, 95 %, and the name of the method.

    Raises:
        MetricUndefinedError: No image.

    Source:
        Korn and Graubard 1998, Survey Methodology 24(2), 193-201; Clopper and Pearson 1934,
        doi:10.1093/biomet/26.4.404.
    """
    from scipy.stats import beta, t

    n = len(marks)
    _, codes = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    n_units = int(codes.max(initial=-1)) + 1
    share = float(marks.mean()) if n else 0.0
    if share in (0.0, 1.0):
        bound = most_unseen(n_units)
        ends = (0.0, bound) if share == 0 else (1 - bound, 1.0)
        return ends, f"one-sided 95 % bound by the rule of three, n = {n_units}"
    if n_units == n:
        effective, method = float(n), f"exact (Clopper-Pearson), n = {n}"
    else:
        effective = _effective_number(marks, codes, n_units)
        if n_units > 1:
            effective *= float((t.ppf(0.975, n - 1) / t.ppf(0.975, n_units - 1)) ** 2)
        effective = min(effective, float(n))
        method = f"exact (Korn-Graubard), effective n = {effective:.1f} of {n_units} units"
    hits = share * effective
    low = float(beta.ppf(_LEVEL / 2, hits, effective - hits + 1))
    high = float(beta.ppf(1 - _LEVEL / 2, hits + 1, effective - hits))
    return (low, high), method


def _effective_number(marks: NDArray[np.float64], codes: NDArray[np.intp], n_units: int) -> float:
    """Number of independent images whose share would have the variance of this one."""
    n, share = len(marks), float(marks.mean())
    if n_units < 2:
        return 1.0  # one unit says as much as one image
    totals = np.bincount(codes, weights=marks - share, minlength=n_units)
    variance = n_units / (n_units - 1) * float((totals**2).sum()) / n**2
    return share * (1 - share) / variance if variance > 0 else float(n)


def wilson_interval(n_successes: int, n: int) -> Interval:
    """Wilson score interval of a share, 95 %, two-sided.

    Args:
        n_successes: Times it happened, 0 to n.
        n: Times it could have happened, at least 1.

    Returns:
        (low, high) within 0 to 1. Counts must be independent: too narrow when images share
        patients.

    Raises:
        MetricUndefinedError: n is 0, or n_successes is outside 0 to n.

    Source:
        Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if n < 1 or not 0 <= n_successes <= n:
        raise MetricUndefinedError(f"a share of {n_successes} in {n} has no interval")
    share, z2 = n_successes / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and n the formula gives the ends 0 and 1 but for rounding.
    low = 0.0 if n_successes == 0 else max(float(middle - half), 0.0)
    high = 1.0 if n_successes == n else min(float(middle + half), 1.0)
    return low, high
