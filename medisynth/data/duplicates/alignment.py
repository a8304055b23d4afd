"""Similarity of two frames after alignment: normalised correlation."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_COARSE_PX = 32  # frames are aligned at this size
_STEPS = 5
# A border cut away on every side moves edges by its width; nothing moves by more than this share
# of the side, so that frames of two anatomies are not bent into one another.
_LARGEST_STRETCH = 0.09
_LARGEST_SHIFT = 0.045
_BATCH = 128  # the arrays of a batch stay in the processor's cache


def aligned_similarity(left: Floats, right: Floats) -> Floats:
    """Correlate pairs of frames after shifting and stretching the left one onto the right.

    Shift and stretch of both axes are found by Gauss-Newton steps on the 32 x 32 reduction, the
    gain and offset of the grey levels with them; the correlation is taken at full size over what both
    frames show. Brightness and contrast do not change it.

    Args:
        left: Frames, shape (n_pairs, size, size), size an even multiple of 32, float32.
        right: Frames to compare with, same shape.

    Returns:
        Shape (n_pairs,), -1 to 1; 1 for frames that differ in gain, offset, shift and stretch only.
        0 where a frame is of one grey level.
    """
    result = np.zeros(len(left), dtype=np.float32)
    for start in range(0, len(left), _BATCH):
        part = slice(start, start + _BATCH)
        result[part] = _batch_similarity(left[part], right[part])
    return result


def _batch_similarity(left: Floats, right: Floats) -> Floats:
    as_is = _correlation(left, right, np.ones_like(left))
    coarse_left, coarse_right = reduce_frames(left, _COARSE_PX), reduce_frames(right, _COARSE_PX)
    motion = _align(coarse_left, coarse_right)
    moved, seen = _warp(left, motion)
    return np.maximum(as_is, _correlation(moved, right, seen))


def reduce_frames(frames: Floats, size_px: int) -> Floats:
    """Reduce square frames by area means to a size that divides theirs."""
    step = frames.shape[1] // size_px
    # slices are added faster than a mean over two short axes is taken
    parts = [frames[:, y::step, x::step] for y in range(step) for x in range(step)]
    total: Floats = np.add(parts[0], 0, dtype=np.float32)
    for part in parts[1:]:
        total += part
    total /= np.float32(step * step)
    return total


def _align(left: Floats, right: Floats) -> Floats:
    """Find the motion, shape (n, 4): shift of y and x as shares of the side, then stretches."""
    n_pairs, size, _ = left.shape
    motion = np.zeros((n_pairs, 4), dtype=np.float32)
    best = motion.copy()
    highest = np.full(n_pairs, -2, dtype=np.float32)
    place = _places(size)
    for step in range(_STEPS + 1):
        moved, seen = _warp(left, motion)
        found = _correlation(moved, right, seen)
        better = found > highest
        highest[better], best[better] = found[better], motion[better]
        if step < _STEPS:
            motion = _improve(moved, right, seen, motion, place)
    return best


def _improve(moved: Floats, right: Floats, seen: Floats, motion: Floats, place: Floats) -> Floats:
    """One Gauss-Newton step: right = gain (moved + change by motion) + offset, least squares."""
    n_pairs, size, _ = moved.shape
    down, across = np.gradient(moved, axis=(1, 2))
    columns = np.stack(
        [
            down * size,
            across * size,
            down * size * place[:, None],
            across * size * place[None, :],
            moved,
            np.ones_like(moved),
        ],
        axis=1,
    ).reshape(n_pairs, 6, -1)
    weighted = columns * seen.reshape(n_pairs, 1, -1)
    normal = (weighted @ columns.transpose(0, 2, 1)).astype(np.float64)
    target = (weighted @ right.reshape(n_pairs, -1, 1)).astype(np.float64)
    # A flat frame leaves its motion open; a little weight on the diagonal keeps it at rest.
    ridge = 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / 6 + 1e-9
    solved = np.linalg.solve(normal + ridge * np.eye(6), target)[:, :, 0]
    gain = solved[:, 4:5]
    step = np.where(np.abs(gain) > 1e-3, solved[:, :4] / np.where(gain == 0, 1, gain), 0)
    limits = np.array([_LARGEST_SHIFT] * 2 + [_LARGEST_STRETCH] * 2)
    return np.clip(motion + step, -limits, limits).astype(np.float32)


def _places(size: int) -> Floats:
    """Centres of the pixels as shares of the side, from -0.5 to 0.5."""
    return ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5).astype(np.float32)


def _warp(frames: Floats, motion: Floats) -> tuple[Floats, Floats]:
    """Move and stretch frames (bilinear); return them and a map of the places they still cover."""
    size = frames.shape[1]
    rows, row_seen = _sampling(motion[:, 0], motion[:, 2], size)
    columns, column_seen = _sampling(motion[:, 1], motion[:, 3], size)
    moved: Floats = np.matmul(rows @ frames, columns.transpose(0, 2, 1), dtype=np.float32)
    return moved, row_seen[:, :, None] * column_seen[:, None, :]


def _sampling(shift: Floats, stretch: Floats, size: int) -> tuple[Floats, Floats]:
    """Matrices, shape (n, size, size), that sample one axis at its moved places."""
    place = _places(size)[None, :]
    at = (place * (1 + stretch[:, None]) + shift[:, None] + np.float32(0.5)) * size - 0.5
    seen = ((at >= -0.5) & (at <= size - 0.5)).astype(np.float32)
    at = np.clip(at, 0, size - 1).astype(np.float32)
    weights: Floats = at[:, :, None] - np.arange(size, dtype=np.float32)
    np.abs(weights, out=weights)
    np.subtract(1, weights, out=weights)
    np.maximum(0, weights, out=weights)
    return weights, seen


def _correlation(left: Floats, right: Floats, seen: Floats) -> Floats:
    """Pearson correlation of each pair over the covered places; 0 where undefined."""
    n_pairs = len(left)
    a, b, w = (frames.reshape(n_pairs, -1) for frames in (left, right, seen))
    total = w.sum(axis=1, keepdims=True)
    a = (a - (w * a).sum(axis=1, keepdims=True) / total) * w
    b = (b - (w * b).sum(axis=1, keepdims=True) / total) * w
    norm = np.sqrt(np.einsum("nk,nk->n", a, a) * np.einsum("nk,nk->n", b, b))
    product = np.einsum("nk,nk->n", a, b)
    flat = norm < 1e-3
    result: Floats = np.where(flat, 0, product / np.where(flat, 1, norm)).astype(np.float32)
    return np.minimum(result, 1)
