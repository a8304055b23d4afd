"""Exact copies of images, and groups of images that copies of any kind connect."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations, groupby, pairwise

import numpy as np
import pandas as pd

from governance.records.base import PARTITIONS
from governance.records.duplicates import AS_IS, DuplicateKind, DuplicatePair

_Copy = tuple[str, ...]  # pixel digest, file digest, image, patient
_Link = tuple[_Copy, _Copy]


def exact_pairs(
    table: pd.DataFrame, distinct: Collection[tuple[str, str]] = ()
) -> tuple[DuplicatePair, ...]:
    """Find images with equal content by their digests.

    Args:
        table: Rows with image_id, patient_id, file_sha256 and pixel_sha256.
        distinct: Pairs of image ids, smaller first, that must not be reported.

    Returns:
        Pairs sorted by their ids. n images with one content give n - 1 pairs, a chain that joins
        them all (equal files are neighbours in it), not n (n - 1) / 2.
    """
    doubled = table[table["pixel_sha256"].duplicated(keep=False)]
    columns = ("pixel_sha256", "file_sha256", "image_id", "patient_id")
    rows = sorted(zip(*(doubled[name].astype(str) for name in columns), strict=True))
    pairs: list[DuplicatePair] = []
    for _content, group in groupby(rows, key=lambda row: row[0]):
        copies = list(group)
        links = (_exact(one, other) for one, other in _links(copies, distinct))
        pairs.extend(pair for pair in links if (pair.left_id, pair.right_id) not in distinct)
    return tuple(sorted(pairs, key=lambda pair: (pair.left_id, pair.right_id)))


def _links(copies: list[_Copy], distinct: Collection[tuple[str, str]]) -> Iterable[_Link]:
    """Link equal images in a chain; images that a person told apart are each tied to its end."""
    if not distinct:
        return pairwise(copies)
    ids = {copy[2] for copy in copies}
    apart = {name for pair in distinct if ids.issuperset(pair) for name in pair}
    chained = [copy for copy in copies if copy[2] not in apart]
    hanging = [copy for copy in copies if copy[2] in apart]
    if not chained:
        return combinations(hanging, 2)
    return [*pairwise(chained), *((chained[-1], copy) for copy in hanging)]


def _exact(one: _Copy, other: _Copy) -> DuplicatePair:
    return duplicate_pair("same file" if one[1] == other[1] else "same pixels", one[2:], other[2:])


def duplicate_pair(
    kind: DuplicateKind,
    one: tuple[str, ...],
    other: tuple[str, ...],
    transform: str = AS_IS,
    similarity: float | None = None,
) -> DuplicatePair:
    """Make a pair whose partitions are not known yet; the smaller image id is on the left.

    Args:
        kind: How the images are alike.
        one: Id and patient of an image.
        other: The same of the other.
        transform: Transform that brings the left image onto the right one.
        similarity: Correlation after alignment; None for exact pairs.
    """
    left, right = sorted((one, other))
    return DuplicatePair(
        kind=kind,
        left_id=left[0],
        left_patient=left[1],
        left_partition=None,
        right_id=right[0],
        right_patient=right[1],
        right_partition=None,
        transform=transform,
        similarity=similarity,
    )


def in_partitions(
    pairs: Sequence[DuplicatePair], partition_by_image: Mapping[str, str]
) -> tuple[DuplicatePair, ...]:
    """Return the pairs with the partition of each image filled in; None for images without one."""
    return tuple(
        pair.model_copy(
            update={
                "left_partition": partition_by_image.get(pair.left_id),
                "right_partition": partition_by_image.get(pair.right_id),
            }
        )
        for pair in pairs
    )


def leakage_groups(table: pd.DataFrame, pairs: Sequence[DuplicatePair]) -> pd.Series:
    """Group images that must stay together: those of one patient, and those connected by a pair.

    Args:
        table: Rows with image_id (unique) and patient_id.
        pairs: Pairs, exact or near, whose images must not be divided; images not in the table are
            passed over.

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


def across_partitions(
    pairs: Sequence[DuplicatePair], partition_by_image: Mapping[str, str]
) -> dict[str, int]:
    """Count near-duplicates whose images lie in different partitions.

    Exact copies are not counted here: `split.partition_overlaps` counts their contents.

    Args:
        pairs: Pairs of any kind.
        partition_by_image: Partition of each image that is used; pairs with another image are
            passed over.

    Returns:
        Pairs under each of the keys "training | tuning", "training | held-out test set" and
        "tuning | held-out test set"; 0 everywhere is what a sound split gives.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        left = partition_by_image.get(pair.left_id)
        right = partition_by_image.get(pair.right_id)
        if pair.is_near and left is not None and right is not None and left != right:
            counts[left, right] += 1
    return {
        f"{left} | {right}": counts[left, right] + counts[right, left]
        for left, right in combinations(PARTITIONS, 2)
    }
