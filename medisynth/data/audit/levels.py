"""Matrices of patients by level, from which all statistics by patient are computed.

A patient's images are alike, so patients are what is counted and resampled. A patient may have
several levels of one attribute (several planes, seldom several machines) and then counts once in
each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Codes = NDArray[np.intp]
Floats = NDArray[np.float64]

_CHUNK = 500


@dataclass(frozen=True)
class Coded:
    """A column of text as numbers.

    Attributes:
        codes: Index into `names` of each row's value, -1 where there is none, length n.
        names: Values that occur, sorted.
    """

    codes: Codes
    names: tuple[str, ...]


def coded(column: pd.Series) -> Coded:
    """Number the values of a column; missing ones get -1."""
    codes, names = pd.factorize(column.astype(object), sort=False)
    order = sorted(range(len(names)), key=lambda i: str(names[i]))
    place = np.empty(len(names) + 1, dtype=np.intp)
    place[order] = np.arange(len(names))
    place[-1] = -1
    return Coded(place[codes], tuple(str(names[i]) for i in order))


def patient_codes(table: pd.DataFrame) -> Coded:
    """Number the patients of a table.

    Raises:
        ValueError: A row has no patient.
    """
    found = coded(table["patient_id"])
    if (found.codes < 0).any():
        raise ValueError("a row has no patient_id")
    return found


def membership(patients: Codes, levels: Codes, n_patients: int, n_levels: int) -> Floats:
    """Mark which patient has an image of which level.

    Args:
        patients: Patient of each row, 0 to n_patients - 1, length n.
        levels: Level of each row, 0 to n_levels - 1; -1 where there is none.
        n_patients: Number of patients.
        n_levels: Number of levels.

    Returns:
        Shape (n_patients, n_levels), 1 where the patient has such an image, else 0.
    """
    known = levels >= 0
    counts = image_counts_of(patients[known], levels[known], n_patients, n_levels)
    return np.asarray(counts > 0, dtype=np.float64)


def image_counts_of(patients: Codes, levels: Codes, n_patients: int, n_levels: int) -> Floats:
    """Count images by patient and level, shape (n_patients, n_levels); every row needs a level."""
    cells = np.bincount(patients * n_levels + levels, minlength=n_patients * n_levels)
    return np.asarray(cells.reshape(n_patients, n_levels), dtype=np.float64)


def shares(counts: Floats) -> Floats:
    """Divide counts by their sum along the last axis; NaN where the sum is 0."""
    total = counts.sum(axis=-1, keepdims=True)
    undefined = np.full_like(counts, np.nan)
    return np.asarray(np.divide(counts, total, out=undefined, where=total > 0))


def total_variation(left: Floats, right: Floats) -> Floats:
    """Half the sum of absolute differences of shares along the last axis.

    Args:
        left: Patients by level, shape (..., k).
        right: Patients by level, shape (..., k) or (k,).

    Returns:
        Shape (...): 0 where the shares are equal, 1 where no level is shared, NaN where one side
        has no patient.
    """
    return np.asarray(0.5 * np.abs(shares(left) - shares(right)).sum(axis=-1))


def redrawn(matrix: Floats, n_resamples: int, rng: np.random.Generator) -> Floats:
    """Count patients by level in bootstrap samples, each of as many patients as there are.

    Args:
        matrix: Membership, shape (p, k), p at least 1.
        n_resamples: Number of resamples b.
        rng: Source of randomness.

    Returns:
        Shape (b, k).
    """
    n_patients = len(matrix)
    found = []
    for n in chunks(n_resamples):
        drawn = rng.integers(0, n_patients, (n, n_patients))
        drawn += n_patients * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        found.append(counts.astype(np.float64) @ matrix)
    return np.concatenate(found)


def dealt(matrix: Floats, n_left: int, n_resamples: int, rng: np.random.Generator) -> Floats:
    """Count patients by level in the first of two groups that all patients are dealt to at random.

    Args:
        matrix: Membership of all patients, shape (p, k).
        n_left: Patients in the first group, 0 to p.
        n_resamples: Number of deals b.
        rng: Source of randomness.

    Returns:
        Shape (b, k); the second group has the column sums minus this.
    """
    is_left = (np.arange(len(matrix)) < n_left).astype(np.float64)
    return np.concatenate(
        [rng.permuted(np.tile(is_left, (n, 1)), axis=1) @ matrix for n in chunks(n_resamples)]
    )


def chunks(n_resamples: int) -> tuple[int, ...]:
    """Split a number of resamples into portions of at most 500, which bounds memory."""
    full, rest = divmod(n_resamples, _CHUNK)
    return (_CHUNK,) * full + ((rest,) if rest or not full else ())


def named_rng(seed: int, names: Sequence[str]) -> np.random.Generator:
    """Random generator of one comparison, so that no other comparison changes its result."""
    return np.random.default_rng([seed, *"|".join(names).encode("utf-8")])
