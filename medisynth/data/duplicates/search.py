"""Search for images that occur more than once, exactly or changed, under any patient.

1. Equal digests of file or pixels: exact copies.
2. All other pairs, mirror images included, compared by low frequencies: candidates.
3. Candidates laid over one another: near-duplicates correlate at 0.95 or more.

The threshold is held against the most similar images of different patients. See docs/duplicates.md.
"""

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.duplicates import DuplicatePair, SimilarityNull
from governance.records.errors import DataError
from medisynth.data.duplicates.alignment import aligned_similarity
from medisynth.data.duplicates.candidates import (
    CANDIDATE_SIMILARITY,
    MOST_CANDIDATES,
    TRANSFORMS,
    Candidates,
    find_candidates,
    mirrored,
)
from medisynth.data.duplicates.exact import duplicate_pair, exact_pairs

NEAR_SIMILARITY = 0.95

_BATCH = 256  # pairs a task
_MOST_THREADS = 8
_MOST_QUANTILES = 500

METHOD = (
    "exact: SHA-256 of the file and of the decoded pixels; near: all pairs, mirror images "
    f"included, by 16 x 16 cosine frequencies of the 64 x 64 frame (at least "
    f"{CANDIDATE_SIMILARITY:.2f}, at most {MOST_CANDIDATES} pairs an image), confirmed by "
    f"correlation after alignment of at least {NEAR_SIMILARITY:.2f}"
)


@dataclass(frozen=True)
class DuplicateSearch:
    """Result of a search.

    Attributes:
        pairs: Confirmed pairs, exact and near, sorted by their ids.
        null: Similarity between different patients; None with fewer than two patients.
        method: Description of the search, for reports.
    """

    pairs: tuple[DuplicatePair, ...]
    null: SimilarityNull | None
    method: str


def find_duplicates(
    table: pd.DataFrame,
    thumbnails: NDArray[np.uint8],
    *,
    distinct: Collection[tuple[str, str]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> DuplicateSearch:
    """Find images that occur more than once, among all images of all patients.

    The result does not depend on the order of rows. Memory grows with the number of images, never
    with its square.

    Args:
        table: Rows with image_id (unique), patient_id, file_sha256 and pixel_sha256.
        thumbnails: Whole frames stretched to a square by area means, shape (n, 64, 64), uint8, in
            the table's order.
        distinct: Pairs of image ids that a person found to be different pictures; left out of the
            result, in whichever order the ids are given.
        progress: Called with images done and images in all.

    Returns:
        Pairs, the similarity between different patients, and a description of the method.

    Raises:
        DataError: The thumbnails are not one for each row, or not of the size expected.
    """
    if thumbnails.shape != (len(table), 64, 64) or thumbnails.dtype != np.uint8:
        raise DataError(
            f"thumbnails: found {thumbnails.dtype} of shape {thumbnails.shape}, expected uint8 of "
            f"shape ({len(table)}, 64, 64), one for each row of the table; ingest the images again",
            code="D070",
        )
    left_out = {(min(pair), max(pair)) for pair in distinct}
    exact = exact_pairs(table, left_out)
    frames = _Frames(table, thumbnails)
    if len(table) < 2:
        return DuplicateSearch(exact, None, METHOD)
    candidates = find_candidates(frames.thumbnails, frames.patients, frames.contents, progress)
    similarity = frames.similarity(candidates.left, candidates.right, candidates.transform)
    is_near = similarity >= NEAR_SIMILARITY
    near = frames.pairs(candidates, similarity, is_near, left_out)
    pairs = tuple(sorted(exact + near, key=lambda pair: (pair.left_id, pair.right_id)))
    return DuplicateSearch(pairs, _null(frames, candidates, similarity), METHOD)


class _Frames:
    """Images sorted by patient and id, so that results do not depend on the given order."""

    def __init__(self, table: pd.DataFrame, thumbnails: NDArray[np.uint8]) -> None:
        columns = ("patient_id", "image_id", "pixel_sha256")
        named = {name: table[name].to_numpy(dtype=object).astype(str) for name in columns}
        order = np.lexsort((named["image_id"], named["patient_id"]))
        self.ids = named["image_id"][order]
        self.patient_ids = named["patient_id"][order]
        self.thumbnails = thumbnails[order]
        self.patients = np.unique(self.patient_ids, return_inverse=True)[1].astype(np.int64)
        contents = np.unique(named["pixel_sha256"][order], return_inverse=True)[1]
        self.contents = contents.astype(np.int64)

    def similarity(
        self, left: NDArray[np.int64], right: NDArray[np.int64], transform: NDArray[np.int8]
    ) -> NDArray[np.float32]:
        """Aligned similarity of each pair under its transform; the left frame is moved."""
        result = np.zeros(len(left), dtype=np.float32)

        def compare(task: tuple[int, NDArray[np.int64]]) -> None:
            kind, part = task
            one = mirrored(self.thumbnails[left[part]], kind).astype(np.float32)
            other = self.thumbnails[right[part]].astype(np.float32)
            result[part] = aligned_similarity(one, other)

        tasks = [
            (kind, chosen[start : start + _BATCH])
            for kind in range(len(TRANSFORMS))
            for (chosen,) in [np.nonzero(transform == kind)]
            for start in range(0, len(chosen), _BATCH)
        ]
        # Threads suffice: the time is spent in numpy, which lets other threads run.
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(compare, tasks))
        return result

    def pairs(
        self,
        candidates: Candidates,
        similarity: NDArray[np.float32],
        is_near: NDArray[np.bool_],
        left_out: set[tuple[str, str]],
    ) -> tuple[DuplicatePair, ...]:
        """Confirmed pairs, each once, under the transform that fits best."""
        best: dict[tuple[str, str], DuplicatePair] = {}
        for k in np.flatnonzero(is_near):
            rows = (int(candidates.left[k]), int(candidates.right[k]))
            one, other = sorted((str(self.ids[row]), str(self.patient_ids[row])) for row in rows)
            names = (one[0], other[0])
            value = round(float(similarity[k]), 4)
            known = best.get(names)
            if names in left_out or (known is not None and (known.similarity or 0) >= value):
                continue
            how = TRANSFORMS[candidates.transform[k]]
            best[names] = duplicate_pair("near-duplicate", one, other, how, value)
        return tuple(best.values())


def _null(
    frames: _Frames, candidates: Candidates, similarity: NDArray[np.float32]
) -> SimilarityNull | None:
    """Similarity of each image to the nearest of another patient, confirmed pairs left out."""
    n_images = len(frames.ids)
    per_patient = np.bincount(frames.patients)
    if len(per_patient) < 2:
        return None
    n_pairs = (n_images**2 - int((per_patient.astype(np.int64) ** 2).sum())) // 2
    nearest = np.full(n_images, -1.0, dtype=np.float32)
    apart = frames.patients[candidates.left] != frames.patients[candidates.right]
    apart &= similarity < NEAR_SIMILARITY
    for side in (candidates.left, candidates.right):
        np.maximum.at(nearest, side[apart], similarity[apart])
    (rows,) = np.nonzero(candidates.nearest >= 0)
    ends = np.sort(np.stack([rows, candidates.nearest[rows]], axis=1), axis=1)
    ends = np.unique(ends, axis=0)
    found = frames.similarity(ends[:, 0], ends[:, 1], np.zeros(len(ends), dtype=np.int8))
    below = found < NEAR_SIMILARITY
    for side in (ends[below, 0], ends[below, 1]):
        np.maximum.at(nearest, side, found[below])
    known = np.sort(nearest[nearest >= 0]).astype(np.float64)
    if not len(known):
        return SimilarityNull(n_pairs=n_pairs, nearest=(), threshold=NEAR_SIMILARITY, highest=None)
    if len(known) > _MOST_QUANTILES:
        known = np.quantile(known, np.linspace(0, 1, _MOST_QUANTILES))
    values = tuple(float(value) for value in np.round(known, 4))
    return SimilarityNull(
        n_pairs=n_pairs, nearest=values, threshold=NEAR_SIMILARITY, highest=values[-1]
    )
