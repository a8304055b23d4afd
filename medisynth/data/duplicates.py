"""Exact duplicates: the same file or the same picture under two names, and what they tie together."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

Kind = Literal["same file", "same pixels"]


@dataclass(frozen=True)
class ExactPair:
    """Two images with the same content.

    Attributes:
        kind: "same file" for equal bytes, "same pixels" for equal pictures stored differently.
        left_id: Image id.
        right_id: Image id, after `left_id` in order.
        left_patient: Patient of the left image.
        right_patient: Patient of the right image.
    """

    kind: Kind
    left_id: str
    right_id: str
    left_patient: str
    right_patient: str

    @property
    def is_one_patient(self) -> bool:
        """Whether both images are listed under one patient."""
        return self.left_patient == self.right_patient


def exact_pairs(table: pd.DataFrame) -> tuple[ExactPair, ...]:
    """Find images with equal content by their digests.

    Args:
        table: Rows with image_id, patient_id, file_sha256 and pixel_sha256.

    Returns:
        Pairs sorted by their ids. n images with one content give n - 1 pairs, a chain that joins
        them all (equal files are neighbours in it), not n (n - 1) / 2.
    """
    doubled = table[table["pixel_sha256"].duplicated(keep=False)]
    columns = ("pixel_sha256", "file_sha256", "image_id", "patient_id")
    rows = sorted(zip(*(doubled[name].astype(str) for name in columns), strict=True))
    pairs = []
    for one, other in pairwise(rows):
        if one[0] != other[0]:
            continue
        kind: Kind = "same file" if one[1] == other[1] else "same pixels"
        left, right = sorted((one[2:], other[2:]))
        pairs.append(ExactPair(kind, left[0], right[0], left[1], right[1]))
    return tuple(sorted(pairs, key=lambda pair: (pair.left_id, pair.right_id)))


def leakage_groups(table: pd.DataFrame, pairs: tuple[ExactPair, ...]) -> pd.Series:
    """Images that must stay together: one patient's, and those tied to them by a pair.

    Args:
        table: Rows with image_id (unique) and patient_id.
        pairs: Pairs whose images must not be divided; images not in the table are passed over.

    Returns:
        Group of each row on the table's index: the smallest patient id in it, as text, so that it
        does not depend on the order of rows.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    patients, patient_of_row = np.unique(
        table["patient_id"].to_numpy(dtype=object).astype(str), return_inverse=True
    )
    row_of_image = dict(zip(table["image_id"].astype(str), range(len(table)), strict=True))
    edges = [
        (patient_of_row[row_of_image[pair.left_id]], patient_of_row[row_of_image[pair.right_id]])
        for pair in pairs
        if pair.left_id in row_of_image and pair.right_id in row_of_image
    ]
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix(
        (np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])),
        shape=(len(patients), len(patients)),
    )
    _n_groups, group_of_patient = connected_components(graph, directed=False)
    # np.unique sorts, so the first patient met in each group is its smallest
    _, first = np.unique(group_of_patient, return_index=True)
    names = patients[first][group_of_patient][patient_of_row]
    return pd.Series(names.tolist(), index=table.index, dtype="string", name="group")
