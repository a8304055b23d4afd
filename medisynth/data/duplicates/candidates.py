"""Candidate pairs for the close comparison: all pairs compared by low frequencies, in blocks."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Progress = Callable[[int, int], None]
Pairs = tuple[Rows, Rows, Floats, NDArray[np.int8]]  # left, right, similarity, transform

TRANSFORMS = (
    "as is",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
)
CANDIDATE_SIMILARITY = 0.70
MOST_CANDIDATES = 64  # pairs that one frame may bring in as the earlier of the two

_N_FREQUENCIES = 16  # a side
_BLOCK = 1_024  # rows and columns compared at once: a few MiB
_MOST_THREADS = 8
_BORDER = 0.04  # cut from every side to meet frames whose border was cut away


@dataclass(frozen=True)
class Candidates:
    """Pairs of rows for the close comparison, and each row's nearest image of another patient.

    Attributes:
        left: Earlier row of each pair.
        right: Later row of each pair.
        transform: Index into TRANSFORMS: how the left frame may lie on the right one.
        nearest: For each row the most similar row of another patient, candidate pairs that are
            not mirrored left out; -1 where there is none.
    """

    left: Rows
    right: Rows
    transform: NDArray[np.int8]
    nearest: Rows


def mirrored(frames: NDArray[Any], transform: int) -> NDArray[Any]:
    """Frames, shape (n, size, size), under TRANSFORMS[transform]."""
    if transform in (2, 3):
        frames = frames[:, ::-1]
    if transform in (1, 3):
        frames = frames[:, :, ::-1]
    return frames


def find_candidates(
    thumbnails: NDArray[np.uint8],
    patients: Rows,
    contents: Rows,
    progress: Progress | None = None,
) -> Candidates:
    """Compare all pairs of frames, mirror images included.

    A frame is described by its 16 x 16 lowest cosine frequencies, the mean left out, each weighted
    by the root of its frequency: sectors on black share their coarsest shape, copies share more.
    Mirroring flips the sign of odd frequencies, so four partial products give all four transforms.
    Pairs of a frame with another's middle (4 % cut from every side) come in addition.

    Args:
        thumbnails: Whole frames, shape (n, size, size), uint8.
        patients: Number of each row's patient, ascending.
        contents: Number of each row's content; rows with one number are exact copies, never paired.
        progress: Called with rows done and rows in all.

    Returns:
        Pairs in ascending order; at most 64 for each earlier row, the most alike ones. Within a set
        of more mutual copies every one is still tied to the last one through others.
    """
    n_rows = len(thumbnails)
    blocks = [slice(k, min(k + _BLOCK, n_rows)) for k in range(0, n_rows, _BLOCK)]
    search = _Search(describe(thumbnails), describe(thumbnails, _BORDER), patients, contents)
    found: list[Pairs] = []
    nearest = _Nearest(n_rows)
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        # One block a thread, so that linear algebra needs no threads of its own.
        with threadpool_limits(limits=1):
            for number, rows in enumerate(blocks):
                batch = _Batch()
                ahead = blocks[number:]
                for columns, seen in zip(
                    ahead, pool.map(partial(search.compare, rows), ahead), strict=True
                ):
                    batch.take(seen.pairs)
                    nearest.take(seen, rows, columns)
                found.append(batch.best())
                if progress is not None:
                    progress(rows.stop, n_rows)
    finally:  # also on Ctrl-C: what has not begun is given up
        pool.shutdown(wait=True, cancel_futures=True)
    left, right, _value, transform = _joined(found)
    return Candidates(left, right, transform, nearest.row)


def describe(thumbnails: NDArray[np.uint8], border: float = 0.0) -> Floats:
    """Unit vectors of low frequencies, shape (n, 256), after cutting `border` off every side.

    Frequencies are sorted by parity (even and odd rows, even and odd columns), 64 each. A frame of
    one grey level becomes zeros.
    """
    basis = _cosines(thumbnails.shape[1], border)
    index = np.arange(_N_FREQUENCIES)
    weight = np.sqrt(np.hypot.outer(index, index)).astype(np.float32)
    order = np.concatenate([index[0::2], index[1::2]])
    half = _N_FREQUENCIES // 2
    result = np.empty((len(thumbnails), _N_FREQUENCIES**2), dtype=np.float32)
    for start in range(0, len(thumbnails), 4_096):
        frames = thumbnails[start : start + 4_096].astype(np.float32)
        values = (basis @ frames @ basis.T * weight)[:, order][:, :, order]
        parts = values.reshape(-1, 2, half, 2, half).transpose(0, 1, 3, 2, 4)
        flat = parts.reshape(len(frames), -1)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        result[start : start + 4_096] = flat / np.where(norm < 1e-3, np.inf, norm)
    return result


def _cosines(size: int, border: float) -> Floats:
    """Matrix, shape (16, size), of the cosine transform of the middle part of one axis."""
    place = ((np.arange(size) + 0.5) / size - border) / (1 - 2 * border)
    inside = (place > 0) & (place < 1)
    basis = np.cos(np.pi * np.outer(np.arange(_N_FREQUENCIES), place[inside]))
    basis[1:] -= basis[1:].mean(axis=1, keepdims=True)
    whole = np.zeros((_N_FREQUENCIES, size), dtype=np.float32)
    whole[:, inside] = basis
    return whole


def _products(whole: Floats, rows: slice, columns: slice) -> Iterator[tuple[int, Floats]]:
    """Yield each transform and a block's similarity under it; callers may change the arrays."""
    part = whole.shape[1] // 4
    even_even, even_odd, odd_even, odd_odd = (
        whole[rows, k * part : (k + 1) * part] @ whole[columns, k * part : (k + 1) * part].T
        for k in range(4)
    )
    # left to right flips odd columns, top to bottom odd rows
    yield 0, (even_even + odd_odd) + (even_odd + odd_even)
    yield 3, (even_even + odd_odd) - (even_odd + odd_even)
    yield 1, (even_even - odd_odd) + (odd_even - even_odd)
    yield 2, (even_even - odd_odd) - (odd_even - even_odd)


@dataclass(frozen=True)
class _Seen:
    """Results of comparing one block of rows and columns.

    Attributes:
        pairs: Candidate pairs.
        by_row: Column and similarity of each row's nearest image of another patient.
        by_column: The same for each column.
    """

    pairs: Pairs
    by_row: tuple[Rows, Floats]
    by_column: tuple[Rows, Floats]


class _Search:
    """Compares blocks of rows and columns; safe to use from several threads."""

    def __init__(self, whole: Floats, middle: Floats, patients: Rows, contents: Rows) -> None:
        self._whole, self._middle = whole, middle
        self._patients, self._contents = patients, contents

    def compare(self, rows: slice, columns: slice) -> _Seen:
        """Compare a block under each transform, and frames with the middles of others."""
        pairs = []
        for transform, similarity in _products(self._whole, rows, columns):
            pairs.append(self._alike(similarity, rows, columns, transform))
            if transform == 0:
                self._leave_out(similarity, rows, columns)
                by_row, by_column = _highest(similarity), _highest(similarity.T)
        for one, other in ((self._whole, self._middle), (self._middle, self._whole)):
            pairs.append(self._alike(one[rows] @ other[columns].T, rows, columns, 0))
        return _Seen(_joined(pairs), by_row, by_column)

    def _alike(self, similarity: Floats, rows: slice, columns: slice, transform: int) -> Pairs:
        """Return the pairs of a block above the candidate threshold."""
        places = np.flatnonzero(similarity >= CANDIDATE_SIMILARITY)
        left, right = np.divmod(places, similarity.shape[1])
        left, right = left + rows.start, right + columns.start
        keep = (left < right) & (self._contents[left] != self._contents[right])
        how = np.full(int(keep.sum()), transform, dtype=np.int8)
        return left[keep], right[keep], similarity.ravel()[places[keep]], how

    def _leave_out(self, similarity: Floats, rows: slice, columns: slice) -> None:
        """Exclude candidates and pairs of one patient from a block, in place."""
        similarity[similarity >= CANDIDATE_SIMILARITY] = -np.inf
        here, there = self._patients[rows], self._patients[columns]
        if here[-1] >= there[0]:  # ascending: only such blocks hold pairs of one patient
            similarity[here[:, None] == there[None, :]] = -np.inf


def _highest(similarity: Floats) -> tuple[Rows, Floats]:
    place = similarity.argmax(axis=1)
    return place, similarity[np.arange(len(place)), place]


def _joined(parts: list[Pairs]) -> Pairs:
    return (
        np.concatenate([left for left, _, _, _ in parts]),
        np.concatenate([right for _, right, _, _ in parts]),
        np.concatenate([value for _, _, value, _ in parts]),
        np.concatenate([transform for _, _, _, transform in parts]),
    )


class _Batch:
    """Candidates of one batch of rows; keeps the most similar of each row."""

    def __init__(self) -> None:
        self._found: list[Pairs] = []
        self._n_found = 0

    def take(self, pairs: Pairs) -> None:
        """Add the pairs of a block."""
        self._found.append(pairs)
        self._n_found += len(pairs[0])
        if self._n_found > 500_000:
            self._trim()

    def best(self) -> Pairs:
        """Return the pairs kept, in ascending order."""
        self._trim()
        left, right, value, transform = self._found[0]
        order = np.lexsort((transform, right, left))
        return left[order], right[order], value[order], transform[order]

    def _trim(self) -> None:
        left, right, value, transform = _joined(self._found)
        order = np.lexsort((-value, transform, right, left))
        left, right, value, transform = left[order], right[order], value[order], transform[order]
        # one pair may be found whole and by its middle
        again = (np.diff(left, prepend=-1) == 0) & (np.diff(right, prepend=-1) == 0)
        again &= np.diff(transform, prepend=np.int8(-1)) == 0
        new = ~again
        left, right, value, transform = left[new], right[new], value[new], transform[new]
        order = np.lexsort((transform, right, -value, left))
        ranks = np.arange(len(left)) - np.searchsorted(left, left[order])
        kept = order[ranks < MOST_CANDIDATES]
        self._found = [(left[kept], right[kept], value[kept], transform[kept])]
        self._n_found = len(kept)


class _Nearest:
    """Each row's most similar row of another patient, among pairs that are no candidates."""

    def __init__(self, n_rows: int) -> None:
        self._value = np.full(n_rows, -np.inf, dtype=np.float32)
        self.row = np.full(n_rows, -1, dtype=np.int64)

    def take(self, seen: _Seen, rows: slice, columns: slice) -> None:
        """Update the nearest rows from a block; blocks come in ascending order of columns."""
        self._update(rows, columns.start, *seen.by_row)
        if rows.start != columns.start:
            self._update(columns, rows.start, *seen.by_column)

    def _update(self, rows: slice, offset: int, place: Rows, value: Floats) -> None:
        # columns come in ascending order, so that equal values keep the first row
        better = value > self._value[rows]
        self._value[rows][better] = value[better]
        self.row[rows][better] = place[better] + offset
