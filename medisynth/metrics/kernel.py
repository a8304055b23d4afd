"""Kernel distance (KID): unbiased at any number of images."""

import numpy as np

from medisynth.intervals import Counts
from medisynth.metrics.features import Features
from medisynth.metrics.gram import Grams, Matrix, grams


def kernel_distance(real: Features, synthetic: Features) -> float:
    """Squared maximum mean discrepancy with a cubic kernel; called KID on Inception features.

    One estimate from all images (a U-statistic), not an average over random subsets.

    Args:
        real: Features of held-out real images, shape (n_real, d), float64.
        synthetic: Features of synthetic images, shape (n_synthetic, d), float64.

    Returns:
        No unit; 0 on average for sets of one distribution, and then negative as often as positive;
        lower is closer. A copy of the training set scores best.

    Raises:
        MetricUndefinedError: A set has fewer than two images, lengths differ or a value is not
            finite.

    Source:
        Binkowski et al. 2018, arXiv:1801.01401: k(x, y) = (x . y / d + 1) ** 3.
    """
    return kernel_distance_from_grams(grams(real, synthetic))


def kernel_distance_from_grams(g: Grams) -> float:
    """Compute `kernel_distance` from inner products, for the whole sets."""
    n, m = g.cross.shape
    return float(kernel_distances_from_grams(g, np.ones((1, n)), np.ones((1, m)))[0])


def kernel_distances_from_grams(g: Grams, real_counts: Counts, other_counts: Counts) -> Matrix:
    """Compute `kernel_distance` for many resamples at once, from inner products.

    Pairs of an image with itself are left out, also where a resample holds it twice: otherwise
    resampling alone would raise the value.

    Args:
        g: Inner products of the two sets.
        real_counts: Shape (b, n): how often each real image is in each resample.
        other_counts: Shape (b, m).

    Returns:
        Shape (b,); NaN where a resample holds only one distinct image of a set.
    """
    within_r = _mean_of_distinct_pairs(_cubic(g.real, g.n_features), real_counts)
    within_o = _mean_of_distinct_pairs(_cubic(g.other, g.n_features), other_counts)
    cross = ((real_counts @ _cubic(g.cross, g.n_features)) * other_counts).sum(axis=1)
    between = cross / (real_counts.sum(axis=1) * other_counts.sum(axis=1))
    distances: Matrix = within_r + within_o - 2 * between
    return distances


def _cubic(products: Matrix, n_features: int) -> Matrix:
    kernel: Matrix = (products / n_features + 1) ** 3
    return kernel


def _mean_of_distinct_pairs(kernel: Matrix, counts: Counts) -> Matrix:
    off_diagonal = kernel - np.diag(np.diag(kernel))
    total = ((counts @ off_diagonal) * counts).sum(axis=1)
    n_pairs = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    mean: Matrix = np.divide(total, n_pairs, out=np.full(len(total), np.nan), where=n_pairs > 0)
    return mean
