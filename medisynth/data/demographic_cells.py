"""Patients by level and by pairs of levels, small cells withheld."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medisynth.data.coverage import ALL
from medisynth.data.demographic_values import AttributeValues
from medisynth.data.patient_levels import Coded, membership
from medisynth.data.suppression import Sum, withheld_cells
from medisynth.intervals import Interval, wilson_interval

UNASSIGNED = ""  # rows without a partition: never shown, but they can be worked out


@dataclass(frozen=True)
class DemographicCell:
    """Patients of one level, or of one combination of levels, in one partition.

    Attributes:
        attributes: One or two attribute names.
        levels: Level of each.
        partition: Partition, or "all".
        n_patients: None when the cell is suppressed.
        share: Share of the partition's patients with values; None when suppressed or undefined.
        share_ci95: Wilson interval.
    """

    attributes: tuple[str, ...]
    levels: tuple[str, ...]
    partition: str
    n_patients: int | None
    share: float | None = None
    share_ci95: Interval | None = None


def demographic_cells(
    found: Sequence[AttributeValues],
    patients: Coded,
    sides: Mapping[str, NDArray[np.bool_]],
    smallest: int,
) -> tuple[DemographicCell, ...]:
    """Count patients by level and by pairs of levels.

    Args:
        found: Attributes; those without levels are passed over.
        patients: Patient of each row.
        sides: Rows of "all", of each partition, and of UNASSIGNED where some have none.
        smallest: Cells of 1 to smallest - 1 patients are withheld, and others that protect them.

    Returns:
        Single attributes first, then pairs; UNASSIGNED is not among them.
    """
    groups = [(x,) for x in found if x.levels]
    pairs = list(combinations((x for x in found if x.levels), 2))
    keys: list[tuple[tuple[str, ...], tuple[str, ...], str]] = []
    counts: list[int] = []
    totals: list[int] = []
    for group in [*groups, *pairs]:
        names = tuple(x.declared.name for x in group)
        for side, rows in sides.items():
            by_level, n_with = _count(group, patients, rows)
            for levels, n in by_level.items():
                keys.append((names, levels, side))
                counts.append(n)
                totals.append(n_with)
    withheld = withheld_cells(
        counts,
        _sums(keys),
        smallest,
        ranks=[_rank(names, side) for names, _, side in keys],
    )
    shown = [i for i, key in enumerate(keys) if key[2] != UNASSIGNED]
    return tuple(
        DemographicCell(*keys[i], n_patients=None)
        if i in withheld
        else _shown(*keys[i], counts[i], totals[i])
        for i in shown
    )


def _rank(names: tuple[str, ...], side: str) -> int:
    """What protects others first: what is not shown anyway, then pairs, single partitions."""
    return -1 if side == UNASSIGNED else (side == ALL) + 2 * (len(names) == 1)


def _shown(
    names: tuple[str, ...], levels: tuple[str, ...], side: str, n: int, total: int
) -> DemographicCell:
    return DemographicCell(
        names,
        levels,
        side,
        n,
        share=n / total if total else None,
        share_ci95=wilson_interval(n, total) if total else None,
    )


def _count(
    group: Sequence[AttributeValues], patients: Coded, rows: NDArray[np.bool_]
) -> tuple[dict[tuple[str, ...], int], int]:
    """Patients of each level or combination among some rows, and patients with values there."""
    shape = tuple(len(x.levels) for x in group)
    known = rows & np.all([x.codes >= 0 for x in group], axis=0)
    people = patients.codes[known]
    places = np.ravel_multi_index(tuple(x.codes[known] for x in group), shape)
    has = membership(people, places.astype(np.intp), len(patients.names), int(np.prod(shape)))
    n_patients = has.sum(axis=0).astype(int).reshape(shape)
    by_level = {
        tuple(x.levels[i] for x, i in zip(group, at, strict=True)): int(n)
        for at, n in np.ndenumerate(n_patients)
    }
    return by_level, int((has.sum(axis=1) > 0).sum())


def _sums(keys: Sequence[tuple[tuple[str, ...], tuple[str, ...], str]]) -> list[Sum]:
    """What a reader can add up: partitions to all, levels to the total, pairs to single levels.

    Patients with several levels, and pairs of which one value is missing, make the sums inexact; a
    reader does not know that, and nothing is gained by leaving such sums out.
    """
    at = {key: i for i, key in enumerate(keys)}
    wholes: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
    totals: dict[tuple[tuple[str, ...], str], list[int]] = defaultdict(list)
    for (names, levels, side), i in at.items():
        if side != ALL:
            wholes[names, at[names, levels, ALL]].append(i)
        if len(names) == 1:
            totals[names, side].append(i)
            continue
        for name, level in zip(names, levels, strict=True):
            wholes[names, at[(name,), (level,), side]].append(i)
    found = [Sum(tuple(parts), whole) for (_, whole), parts in wholes.items()]
    return found + [Sum(tuple(parts)) for parts in totals.values()]
