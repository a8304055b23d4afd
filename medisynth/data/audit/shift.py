"""Shift between partitions: distance of their shares of patients, attribute by attribute."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from governance.records.audit import AttributeShift
from medisynth.data.audit.coverage import ATTRIBUTES, rows_by_side
from medisynth.data.audit.levels import (
    Floats,
    coded,
    dealt,
    membership,
    named_rng,
    patient_codes,
    redrawn,
    total_variation,
)
from medisynth.intervals import MIN_RESAMPLES, most_unseen, percentile_interval

_FLOOR_PERCENTILE = 95


def shifts(
    table: pd.DataFrame,
    partition: pd.Series,
    attributes: Sequence[str] = ATTRIBUTES,
    *,
    n_resamples: int,
    seed: int,
) -> tuple[AttributeShift, ...]:
    """Compute the distance of each pair of partitions in each attribute.

    Shares are of patients counted once in each level they have, over the sum of those counts;
    images without a value count nowhere.

    Args:
        table: Rows with patient_id and the attributes.
        partition: Partition of rows, on the table's index; rows without one are left out.
        attributes: Columns to compare.
        n_resamples: Bootstrap samples and random deals.
        seed: Seed.

    Returns:
        One entry a pair of partitions and attribute; an attribute that one of the two has no value
        of is left out of that pair, since no distance is defined, and an attribute with a single
        level is left out altogether: it cannot differ, and 0 would look like a result.
    """
    patients = patient_codes(table)
    coded_columns = {name: coded(table[name]) for name in attributes if name in table}
    columns = {name: x for name, x in coded_columns.items() if len(x.names) > 1}
    ends = np.cumsum([0, *(len(levels.names) for levels in columns.values())])
    members = {}  # of each partition: its patients by the levels of all attributes side by side
    for name, rows in rows_by_side(table, partition).items():
        people, again = np.unique(patients.codes[rows], return_inverse=True)
        members[name] = np.concatenate(
            [
                membership(again.astype(np.intp), x.codes[rows], len(people), len(x.names))
                for x in columns.values()
            ]
            or [np.zeros((len(people), 0))],
            axis=1,
        )
    redraws = {
        name: redrawn(m, n_resamples, named_rng(seed, (name,))) for name, m in members.items()
    }
    found = []
    for left, right in combinations(members, 2):
        pool = np.concatenate((members[left], members[right]))
        deals = dealt(pool, len(members[left]), n_resamples, named_rng(seed, (left, right)))
        n_patients = (len(members[left]), len(members[right]))
        for (attribute, levels), first, end in zip(columns.items(), ends, ends[1:], strict=False):
            at = slice(int(first), int(end))
            counts = (members[left][:, at].sum(axis=0), members[right][:, at].sum(axis=0))
            if counts[0].any() and counts[1].any():
                drawn = (redraws[left][:, at], redraws[right][:, at])
                found.append(
                    _shift(
                        attribute,
                        (left, right),
                        levels.names,
                        counts,
                        drawn,
                        deals[:, at],
                        n_patients,
                    )
                )
    return tuple(found)


def _shift(
    attribute: str,
    names: tuple[str, str],
    levels: Sequence[str],
    counts: tuple[Floats, Floats],
    redraws: tuple[Floats, Floats],
    deals: Floats,
    n_patients: tuple[int, int],
) -> AttributeShift:
    """Compare two partitions in one attribute, from observed, resampled and permuted counts."""
    value = float(total_variation(*counts))
    # The interval is moved: resampling alone raises the distance.
    ci95 = percentile_interval(value, total_variation(*redraws))
    if ci95 is None and len(deals) >= MIN_RESAMPLES:
        # All patients of each side are alike: others can be a share of at most this.
        ci95 = (value, value + sum(map(most_unseen, n_patients)))
    chance = total_variation(deals, counts[0] + counts[1] - deals)
    chance = chance[np.isfinite(chance)]
    return AttributeShift(
        attribute=attribute,
        left=names[0],
        right=names[1],
        total_variation=value,
        ci95=None if ci95 is None else (max(ci95[0], 0.0), min(ci95[1], 1.0)),
        floor=float(np.percentile(chance, _FLOOR_PERCENTILE)) if len(chance) else None,
        one_sided=tuple(
            f"{level} only in {names[0] if a else names[1]}"
            for level, a, b in zip(levels, *counts, strict=True)
            if bool(a) != bool(b)
        ),
    )
