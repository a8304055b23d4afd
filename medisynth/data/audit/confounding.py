"""Association of pairs of attributes, and levels whose effects cannot be separated."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from governance.records.audit import Confounding
from medisynth.data.audit.coverage import ATTRIBUTES
from medisynth.data.audit.levels import (
    Codes,
    Floats,
    chunks,
    coded,
    image_counts_of,
    named_rng,
    patient_codes,
)

NESTED = frozenset({frozenset({"plane", "brain_plane"})})  # a brain plane is a part of one plane
_ROUNDING = 1e-12
_MAX_ROWS = 1_000_000  # rows laid out at once, to bound memory


def confounding(
    table: pd.DataFrame,
    attributes: Sequence[str] = ATTRIBUTES,
    *,
    n_resamples: int,
    seed: int,
) -> tuple[Confounding, ...]:
    """Cramér's V of each pair of attributes, tested by permuting whole patients.

    Images are the unit of V, patients of the test: each patient's images keep their levels of one
    attribute, and get those of another patient for the attribute in which fewer patients vary. The
    levels of a patient drawn with several are passed on in random order, repeated when the other
    has more images. With few patients, or patients with many images, V is far above 0 by chance:
    rely on the test.

    Args:
        table: Rows with patient_id and the attributes.
        attributes: Columns to pair; "Other" is a level like any, "not recorded" is none.
        n_resamples: Permutations, at least 1.
        seed: Seed.

    Returns:
        One entry a pair, in the order given. Left out: plane with brain plane, since one is a part
        of the other by definition, and pairs in which an attribute has fewer than two levels among
        the images that have both.

    Source:
        Cramér 1946, Mathematical Methods of Statistics; no small-sample correction.
    """
    patients = patient_codes(table)
    columns = {name: coded(table[name]) for name in attributes if name in table}
    found = []
    for left, right in combinations(columns, 2):
        if frozenset({left, right}) in NESTED:
            continue
        both = (columns[left].codes >= 0) & (columns[right].codes >= 0)
        a, a_names = _compact(columns[left].codes[both], columns[left].names)
        b, b_names = _compact(columns[right].codes[both], columns[right].names)
        if min(len(a_names), len(b_names)) < 2:
            continue
        people, people_names = _compact(patients.codes[both], patients.names)
        counts = image_counts_of(a, b, len(a_names), len(b_names))
        v = float(cramers_v(counts))
        null = _permuted_v(a, b, people, n_resamples, named_rng(seed, (left, right)))
        found.append(
            Confounding(
                left=left,
                right=right,
                v=v,
                p_value=float(1 + (null >= v - _ROUNDING).sum()) / (1 + n_resamples),
                n_permutations=n_resamples,
                n_patients=len(people_names),
                n_images=int(both.sum()),
                exclusive=_exclusive(left, right, counts, a_names, b_names),
            )
        )
    return tuple(found)


def cramers_v(counts: Floats) -> Floats:
    """Cramér's V of tables of counts.

    Args:
        counts: Shape (..., r, c), r and c at least 2, at least one count in each table.

    Returns:
        Shape (...), 0 to 1. Rows and columns without a count add nothing, but count in r and c.
    """
    rows = counts.sum(axis=-1, keepdims=True)
    columns = counts.sum(axis=-2, keepdims=True)
    product = rows * columns
    ratio = np.divide(counts**2, product, out=np.zeros_like(counts), where=product > 0)
    phi2 = ratio.sum(axis=(-2, -1)) - 1  # chi-squared over the number of images
    return np.asarray(np.sqrt(np.clip(phi2 / (min(counts.shape[-2:]) - 1), 0.0, 1.0)))


def _compact(codes: Codes, names: tuple[str, ...]) -> tuple[Codes, tuple[str, ...]]:
    """Renumber codes so that only values that occur have a number and a name."""
    kept, again = np.unique(codes, return_inverse=True)
    return again.astype(np.intp), tuple(names[place] for place in kept)


def _permuted_v(
    a: Codes, b: Codes, patients: Codes, n_permutations: int, rng: np.random.Generator
) -> Floats:
    """Compute V after each random permutation of patients, shape (n_permutations,)."""
    shuffled = rng.permutation(len(patients))  # within patients, the order means nothing
    order = shuffled[np.argsort(patients[shuffled], kind="stable")]
    people, moved, kept = patients[order], a[order], b[order]
    sizes = np.bincount(people)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    if _n_varying(moved, people, starts) > _n_varying(kept, people, starts):
        moved, kept = kept, moved
    varies = _varying(moved, people, starts)
    rows = _Rows(moved, kept, sizes, starts, np.where(varies, -1, moved[starts]))
    return np.concatenate(
        [
            cramers_v(
                _handed_on(rows, rng.permuted(np.tile(np.arange(len(sizes)), (n, 1)), axis=1), rng)
            )
            for n in chunks(n_permutations)
        ]
    )


@dataclass(frozen=True)
class _Rows:
    """Images sorted by patient: levels that are permuted, levels that stay, and the patients."""

    moved: Codes
    kept: Codes
    sizes: Codes
    starts: Codes
    level: Codes  # of each patient, -1 for several


def _handed_on(rows: _Rows, source: Codes, rng: np.random.Generator) -> Floats:
    """Count tables, shape (b, moved, kept), after patient p gets the levels of source[:, p]."""
    n_moved, n_kept = int(rows.moved.max()) + 1, int(rows.kept.max()) + 1
    people = np.repeat(np.arange(len(rows.sizes)), rows.sizes)
    images = image_counts_of(people, rows.kept, len(rows.sizes), n_kept)
    handed = rows.level[source]
    counts = np.stack([(handed == k).astype(np.float64) @ images for k in range(n_moved)], axis=1)
    # Patients with several levels hand them on image by image; the others are done above.
    who, to = np.nonzero(handed < 0)
    portion = np.cumsum(rows.sizes[to]) // _MAX_ROWS
    for part in np.unique(portion):
        run, target = who[portion == part], to[portion == part]
        giver, n = source[run, target], rows.sizes[target]
        within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        turn = np.repeat(rng.integers(0, rows.sizes[giver]), n)
        given = (within + turn) % np.repeat(rows.sizes[giver], n)
        cell = np.repeat(run, n) * n_moved + rows.moved[np.repeat(rows.starts[giver], n) + given]
        cell = cell * n_kept + rows.kept[np.repeat(rows.starts[target], n) + within]
        counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    return counts


def _varying(levels: Codes, people: Codes, starts: Codes) -> np.ndarray:
    """Mark the patients with several levels; rows are sorted by patient."""
    differs = levels != levels[starts][people]
    return np.asarray(np.bincount(people, weights=differs) > 0)


def _n_varying(levels: Codes, people: Codes, starts: Codes) -> int:
    return int(_varying(levels, people, starts).sum())


def _exclusive(
    left: str, right: str, counts: Floats, a_names: Sequence[str], b_names: Sequence[str]
) -> tuple[str, ...]:
    def words(
        one: str, other: str, table: Floats, ones: Sequence[str], others: Sequence[str]
    ) -> list[str]:
        return [
            f"{one} {name} only with {other} {others[int(row.argmax())]}"
            for name, row in zip(ones, table, strict=True)
            if (row > 0).sum() == 1
        ]

    return tuple(
        words(left, right, counts, a_names, b_names)
        + words(right, left, counts.T, b_names, a_names)
    )
