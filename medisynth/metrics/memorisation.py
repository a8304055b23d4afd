"""Search for synthetic images that copy training images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import MemorisationRecord, NearestPair
from medisynth.data.reading.views import Pixels
from medisynth.intervals import share_interval
from medisynth.metrics.gram import Matrix

SIDE = 16
"""Side of the reduced images. On real ultrasound 16 found more shifted copies than 32 or 64."""

NEIGHBOUR = 50
"""The distance to this neighbour is the unit, so plain images, near to all, are no copies."""

NULL_PERCENTILE = 1.0
N_CLOSEST = 12

_MOST_DISTANCES = 500
_SMALLEST_THRESHOLD = 1e-6  # an exact copy has distance 0 up to rounding
_BLOCK = 512


def nearest_training(
    synthetic: Pixels, training: Pixels
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find the nearest training image of each image, and its relative distance.

    Images are reduced to 16 x 16 by area means; the mean training image is subtracted; the rest is
    centred and scaled to unit length, so that gain and brightness do not matter. Each image is
    compared as it is, mirrored left to right and upside down; the smallest distance counts. It is
    divided by the distance to the 50th nearest training image (half of them if there are fewer than
    100).

    Args:
        synthetic: Images, shape (n, height, width), uint8.
        training: Training images, shape (t, height, width), uint8.

    Returns:
        Index of the nearest training image, (n,), and relative distance, (n,) float64 in 0 to 1: 0
        is a copy, 1 is no nearer to one than to fifty. Blind to copies of an image of which the
        training set holds fifty or more, and to copied parts of images.

    Raises:
        MetricUndefinedError: Fewer than two training images.
    """
    if len(training) < 2:
        raise MetricUndefinedError(
            f"memorisation needs at least 2 training images, got {len(training)}"
        )
    rank = _rank(len(training)) - 1
    index = np.empty(len(synthetic), np.intp)
    distance = np.empty(len(synthetic))
    for start in range(0, len(synthetic), _BLOCK):
        alike = mirrored_alike(synthetic[start : start + _BLOCK], training)
        part = slice(start, start + len(alike))
        index[part] = alike.argmax(axis=1)
        # Unit vectors: squared distance = 2 - 2 x correlation, whose rounding can pass 1.
        sorted_distances = np.sqrt(np.maximum(2 - 2 * -np.partition(-alike, (0, rank), axis=1), 0))
        unit = np.maximum(sorted_distances[:, rank], np.finfo(float).tiny)
        distance[part] = sorted_distances[:, 0] / unit
    return index, distance


def memorisation(
    synthetic: Pixels,
    synthetic_ids: Sequence[str],
    training: Pixels,
    training_ids: Sequence[str],
    tuning: Pixels,
) -> MemorisationRecord:
    """Flag synthetic images nearer to a training image than real images of other patients ever are.

    The threshold comes from the distances of real tuning images, which no generator was fitted to.
    By construction it also flags about 1 % of images that copy nothing: read the share with its
    interval.

    Args:
        synthetic: Images, shape (n, height, width), uint8.
        synthetic_ids: Name of each, length n.
        training: Training images, shape (t, height, width), uint8.
        training_ids: Name of each, length t.
        tuning: Tuning images of other patients, shape (u, height, width), uint8.

    Raises:
        MetricUndefinedError: No synthetic image, fewer than two tuning or two training images.
        ValueError: Numbers of images and names differ.
    """
    if len(synthetic) != len(synthetic_ids) or len(training) != len(training_ids):
        raise ValueError("each image needs its name")
    if len(synthetic) == 0 or len(tuning) < 2:
        raise MetricUndefinedError(
            "memorisation needs a synthetic image and 2 tuning images, "
            f"got {len(synthetic)} and {len(tuning)}"
        )
    _, null = nearest_training(tuning, training)
    index, distance = nearest_training(synthetic, training)
    threshold = max(float(np.percentile(null, NULL_PERCENTILE)), _SMALLEST_THRESHOLD)
    flagged = (distance <= threshold).astype(np.float64)
    share_ci95, interval_method = share_interval(flagged, synthetic_ids)
    order = np.argsort(distance, kind="stable")[:N_CLOSEST]
    return MemorisationRecord(
        method=_method(len(training)),
        threshold=threshold,
        null_median=float(np.median(null)),
        synthetic_median=float(np.median(distance)),
        n_null=len(null),
        n_synthetic=len(distance),
        n_flagged=int(flagged.sum()),
        share_ci95=share_ci95,
        interval_method=interval_method,
        null_distances=at_most(null),
        synthetic_distances=at_most(distance),
        closest=tuple(
            NearestPair(
                synthetic=synthetic_ids[i],
                training_id=training_ids[index[i]],
                distance=float(distance[i]),
            )
            for i in order
        ),
    )


def mirrored_alike(images: Pixels, training: Pixels) -> Matrix:
    """Correlate images with training images as they are and mirrored; the best counts.

    Args:
        images: Shape (n, height, width), uint8.
        training: Shape (t, height, width), uint8.

    Returns:
        Shape (n, t), -1 to 1, of reduced images less the mean training image.
    """
    reduced = area_means(training, SIDE)
    mean = reduced.mean(axis=0)
    references = _unit(reduced - mean)
    own = area_means(images, SIDE)
    views = (own, own[:, :, ::-1], own[:, ::-1, :])
    alike: Matrix = np.max([_unit(view - mean) @ references.T for view in views], axis=0)
    return alike


def _method(n_training: int) -> str:
    return (
        "distance to the nearest training image over distance to neighbour "
        f"{_rank(n_training)}; images reduced to {SIDE} x {SIDE} by area, mean training image "
        "removed, unit length, mirror images included; flagged at or below the "
        f"{NULL_PERCENTILE:g}st percentile of real tuning images"
    )


def _rank(n_training: int) -> int:
    return min(NEIGHBOUR, max(2, n_training // 2))


def area_means(pixels: Pixels, side: int) -> Matrix:
    """Reduce images, shape (n, height, width), any size, to (n, side, side) by area means."""
    rows, columns = (_area_weights(length, side) for length in pixels.shape[1:])
    reduced: Matrix = rows @ pixels.astype(np.float64) @ columns.T
    return reduced


def _area_weights(n_px: int, side: int) -> Matrix:
    """Weights (side, n_px) of area means; each row sums to 1, any size."""
    edges = np.linspace(0, n_px, side + 1)
    pixel = np.arange(n_px)
    ends = np.minimum(edges[1:, None], pixel + 1)
    starts = np.maximum(edges[:-1, None], pixel)
    weights: Matrix = np.maximum(ends - starts, 0) * (side / n_px)
    return weights


def _unit(images: Matrix) -> Matrix:
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    unit: Matrix = np.divide(flat, length, out=np.zeros_like(flat), where=length > 0)
    return unit


def at_most(distances: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the values in ascending order; 500 quantiles where there are more."""
    if len(distances) > _MOST_DISTANCES:
        distances = np.quantile(distances, np.linspace(0, 1, _MOST_DISTANCES))
    return tuple(float(value) for value in np.sort(distances))
