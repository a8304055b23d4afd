"""Which pairs of frames are worth a close look: all pairs compared by low frequencies, in blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Progress = Callable[[int, int], None]

TRANSFORMS = (
    "as is",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
)
CANDIDATE_SIMILARITY = 0.70
MOST_CANDIDATES = 64  # pairs that one frame may bring in as the earlier of the two

_N_FREQUENCIES = 16  # a side
_ROWS, _COLUMNS = 1_024, 1_024  # of a block: a few MiB
_BORDER = 0.04  # cut from every side to meet frames whose border was cut away


@dataclass(frozen=True)
class Candidates:
    """Pairs of rows to be looked at closely, and each row's nearest other patient.

    Attributes:
        left: Earlier row of each pair.
        right: Later row of each pair.
        transform: Index into TRANSFORMS: how the left frame may lie on the right one.
        nearest: For each row the row of another patient most like it that is in no pair with
            it as it is; -1 where there is none.
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
    whole, middle = describe(thumbnails), describe(thumbnails, _BORDER)
    found: list[tuple[Rows, Rows, NDArray[np.int8]]] = []
    nearest = _Nearest(patients)
    for start in range(0, n_rows, _ROWS):
        rows = slice(start, min(start + _ROWS, n_rows))
        batch = _Batch(start, contents)
        for first in range(start, n_rows, _COLUMNS):
            columns = slice(first, min(first + _COLUMNS, n_rows))
            for transform, similarity in _products(whole, rows, columns):
                batch.take(similarity, columns, transform)
                if transform == 0:
                    nearest.take(similarity, rows, columns)
            batch.take(whole[rows] @ middle[columns].T, columns, 0)
            batch.take(middle[rows] @ whole[columns].T, columns, 0)
        found.append(batch.best())
        if progress is not None:
            progress(rows.stop, n_rows)
    return Candidates(
        left=np.concatenate([left for left, _, _ in found]),
        right=np.concatenate([right for _, right, _ in found]),
        transform=np.concatenate([transform for _, _, transform in found]),
        nearest=nearest.row,
    )


def describe(thumbnails: NDArray[np.uint8], border: float = 0.0) -> Floats:
    """Unit vectors of low frequencies, shape (n, 256); cut a share of the side off all round first.

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
    """Matrix, shape (16, size), of the cosine transform of one axis's middle part."""
    place = ((np.arange(size) + 0.5) / size - border) / (1 - 2 * border)
    inside = (place > 0) & (place < 1)
    basis = np.cos(np.pi * np.outer(np.arange(_N_FREQUENCIES), place[inside]))
    basis[1:] -= basis[1:].mean(axis=1, keepdims=True)
    whole = np.zeros((_N_FREQUENCIES, size), dtype=np.float32)
    whole[:, inside] = basis
    return whole


def _products(whole: Floats, rows: slice, columns: slice) -> Iterator[tuple[int, Floats]]:
    """Similarity of a block under each transform; the arrays may be changed."""
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


class _Batch:
    """Candidates of one batch of rows; keeps the most alike of each row."""

    def __init__(self, start: int, contents: Rows) -> None:
        self._start, self._contents = start, contents
        self._found: list[tuple[Rows, Rows, Floats, NDArray[np.int8]]] = []
        self._n_found = 0

    def take(self, similarity: Floats, columns: slice, transform: int) -> None:
        """Note the pairs of a block that are alike enough."""
        places = np.flatnonzero(similarity >= CANDIDATE_SIMILARITY)
        left, right = np.divmod(places, similarity.shape[1])
        left, right = left + self._start, right + columns.start
        keep = (left < right) & (self._contents[left] != self._contents[right])
        how = np.full(int(keep.sum()), transform, dtype=np.int8)
        value = similarity.ravel()[places[keep]]
        self._found.append((left[keep], right[keep], value, how))
        self._n_found += len(how)
        if self._n_found > 500_000:
            self._trim()

    def best(self) -> tuple[Rows, Rows, NDArray[np.int8]]:
        """Pairs in ascending order."""
        self._trim()
        left, right, _value, transform = self._found[0]
        order = np.lexsort((transform, right, left))
        return left[order], right[order], transform[order]

    def _trim(self) -> None:
        left, right, value, transform = (
            np.concatenate(part) for part in zip(*self._found, strict=True)
        )
        order = np.lexsort((-value, transform, right, left))
        left, right, value, transform = (a[order] for a in (left, right, value, transform))
        # one pair may be found whole and by its middle
        again = (np.diff(left, prepend=-1) == 0) & (np.diff(right, prepend=-1) == 0)
        again &= np.diff(transform, prepend=np.int8(-1)) == 0
        left, right, value, transform = (a[~again] for a in (left, right, value, transform))
        order = np.lexsort((transform, right, -value, left))
        ranks = np.arange(len(left)) - np.searchsorted(left, left[order])
        kept = order[ranks < MOST_CANDIDATES]
        self._found = [(left[kept], right[kept], value[kept], transform[kept])]
        self._n_found = len(kept)


class _Nearest:
    """The most similar row of another patient, among those that are no candidates."""

    def __init__(self, patients: Rows) -> None:
        self._patients = patients
        self._value = np.full(len(patients), -np.inf, dtype=np.float32)
        self.row = np.full(len(patients), -1, dtype=np.int64)

    def take(self, similarity: Floats, rows: slice, columns: slice) -> None:
        """Look through a block; its array is changed."""
        similarity[similarity >= CANDIDATE_SIMILARITY] = -np.inf
        here, there = self._patients[rows], self._patients[columns]
        if here[-1] >= there[0]:  # ascending: only such blocks hold pairs of one patient
            similarity[here[:, None] == there[None, :]] = -np.inf
        self._update(rows, columns.start, similarity)
        if rows.start != columns.start:
            self._update(columns, rows.start, similarity.T)

    def _update(self, rows: slice, offset: int, similarity: Floats) -> None:
        place = similarity.argmax(axis=1)
        value = similarity[np.arange(len(place)), place]
        # columns come in ascending order, so that equal values keep the first row
        better = value > self._value[rows]
        self._value[rows][better] = value[better]
        self.row[rows][better] = place[better] + offset
