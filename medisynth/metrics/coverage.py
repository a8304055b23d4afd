"""Precision, recall, density and coverage of synthetic images, by nearest neighbours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from medisynth.metrics.features import Features
from medisynth.metrics.gram import Grams, Matrix, grams, squared_distances

NEIGHBOURS = 5


@dataclass(frozen=True)
class Neighbourhoods:
    """Contribution of each image to the metrics; each metric is the mean of one array.

    Attributes:
        precision: Of each synthetic image, 1 if it lies in the neighbourhood of a real image. (m,)
        recall: Of each real image, 1 if it lies in the neighbourhood of a synthetic image. (n,)
        density: Of each synthetic image, the number of real neighbourhoods it lies in, over k. (m,)
        coverage: Of each real image, 1 if a synthetic image lies in its neighbourhood. (n,)
        densest: Largest number of other real neighbourhoods that a real image lies in, over k.
    """

    precision: Matrix
    recall: Matrix
    density: Matrix
    coverage: Matrix
    densest: float


def neighbourhoods(real: Features, synthetic: Features, k: int = NEIGHBOURS) -> Neighbourhoods:
    """Compare two sets by k-nearest-neighbour balls.

    The neighbourhood of an image is the ball that reaches to its k-th nearest other image of its
    own set, border included. Means: precision, recall and coverage lie in 0 to 1 and higher is
    better; density is 0 and above, 1 on average for sets of one distribution. Precision, recall and
    coverage of one distribution against itself stay below 1 and depend on n and k: compare with the
    floor. Recall is raised by outliers among synthetic images, precision by outliers among the real
    ones.

    Args:
        real: Features of real images, shape (n, d), float64, n > k.
        synthetic: Features of synthetic images, shape (m, d), float64, m > k.
        k: Neighbours.

    Raises:
        MetricUndefinedError: A set has k images or fewer, lengths differ or a value is not finite.

    Source:
        Precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991. Density and coverage:
        Naeem et al. 2020, arXiv:2002.09797.
    """
    return neighbourhoods_from_grams(grams(real, synthetic), k)


def neighbourhoods_from_grams(g: Grams, k: int = NEIGHBOURS) -> Neighbourhoods:
    """Compute `neighbourhoods` from inner products.

    Raises:
        MetricUndefinedError: A set has k images or fewer.
    """
    n, m = g.cross.shape
    if min(n, m) <= k:
        raise MetricUndefinedError(
            f"{k} neighbours need {k + 1} images a set, got {n} real and {m} synthetic"
        )
    norms_r, norms_s = np.diag(g.real), np.diag(g.other)
    within = squared_distances(norms_r, norms_r, g.real)
    reach_r = _kth_smallest(within, k)
    reach_s = _kth_smallest(squared_distances(norms_s, norms_s, g.other), k)
    between = squared_distances(norms_r, norms_s, g.cross)
    in_real = between <= reach_r[:, None]
    in_synthetic = between <= reach_s[None, :]
    return Neighbourhoods(
        precision=np.asarray(in_real.any(axis=0), np.float64),
        recall=np.asarray(in_synthetic.any(axis=1), np.float64),
        density=in_real.sum(axis=0) / k,
        coverage=np.asarray(in_real.any(axis=1), np.float64),
        densest=float(((within <= reach_r[:, None]).sum(axis=0) - 1).max() / k),
    )


def _kth_smallest(distances: Matrix, k: int) -> NDArray[np.float64]:
    # An image is its own nearest: with itself counted, the k-th other one is at sorted position k.
    np.fill_diagonal(distances, 0.0)
    return np.partition(distances, k, axis=1)[:, k]
