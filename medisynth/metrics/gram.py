"""Inner products between two sets of features, from which distances between sets are computed.

Fréchet distance, kernel distance and nearest neighbours depend on features only through their inner
products. With these computed once, each bootstrap resample works on an n x n matrix instead of
2,048 features. A resample is a vector of counts: how often each image was drawn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Grams:
    """Inner products within and between a real and another set.

    Attributes:
        real: Shape (n, n), real with real.
        other: Shape (m, m), other with other.
        cross: Shape (n, m), real with other.
        n_features: Length of the feature vectors behind them.
    """

    real: Matrix
    other: Matrix
    cross: Matrix
    n_features: int


def grams(real: NDArray[np.float64], other: NDArray[np.float64]) -> Grams:
    """Inner products of two sets of features, shapes (n, d) and (m, d).

    Raises:
        MetricUndefinedError: Feature lengths differ, a set has fewer than two images, or a value is
            not finite.
    """
    require_pair(real, other)
    return Grams(real @ real.T, other @ other.T, real @ other.T, real.shape[1])


def require_pair(real: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Refuse two sets of features for which no distance is defined.

    Raises:
        MetricUndefinedError: As for `grams`.
    """
    if real.ndim != 2 or other.ndim != 2 or real.shape[1] != other.shape[1]:
        raise MetricUndefinedError(
            f"features of the two sets have shapes {real.shape} and {other.shape}; "
            "expected (n, d) and (m, d)"
        )
    if min(len(real), len(other)) < 2:
        raise MetricUndefinedError(f"need 2 images a set, got {len(real)} and {len(other)}")
    if not (np.isfinite(real).all() and np.isfinite(other).all()):
        raise MetricUndefinedError("a feature is not finite; the extractor or its input is broken")


def squared_distances(rows: Matrix, columns: Matrix, products: Matrix) -> Matrix:
    """Squared distances from inner products.

    Args:
        rows: Squared norms of the n row vectors.
        columns: Squared norms of the m column vectors.
        products: Inner products, shape (n, m).

    Returns:
        Shape (n, m), 0 and above; rounding below 0 is clipped.
    """
    distances: Matrix = np.maximum(rows[:, None] + columns[None, :] - 2 * products, 0.0)
    return distances
