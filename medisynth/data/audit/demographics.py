"""Demographics of the patients, as the data contract declares them, compared with a target."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.audit import (
    DEVELOPMENT,
    AttributeShift,
    DemographicCell,
    DemographicsAudit,
    MissingCombination,
    QuantityLevel,
    TargetDistance,
)
from governance.records.base import TRAINING, TUNING
from medisynth.data.audit.attribute_values import AttributeValues, attribute_values
from medisynth.data.audit.coverage import ALL, ATTRIBUTES, rows_by_side, sides_of
from medisynth.data.audit.levels import (
    Coded,
    Codes,
    Floats,
    membership,
    named_rng,
    patient_codes,
    redrawn,
    shares,
    total_variation,
)
from medisynth.data.audit.quality import PERCENTS, fence_distance
from medisynth.data.audit.shift import shifts
from medisynth.data.audit.suppression import UNASSIGNED, count_levels, demographic_cells
from medisynth.data.audit.target_population import TargetPopulation, check_levels
from medisynth.data.contract.contract import AttributeDeclaration
from medisynth.intervals import MIN_RESAMPLES, most_unseen, percentile_interval

USUAL_ATTRIBUTES = (
    "maternal age",
    "ethnicity",
    "body mass index",
    "gestational age",
    "parity",
    "fetal sex",
    "country",
    "site",
)
POOLED = "levels that are withheld, together"
_TUNING_CELLS = 20  # smallest cells of patients below which tuning is counted with training
_BY_CHANCE = 0.05  # over all combinations that were looked at


def demographics_audit(
    table: pd.DataFrame,
    metadata: pd.DataFrame,
    declared: Sequence[AttributeDeclaration],
    partition: pd.Series | None = None,
    *,
    smallest_cell: int,
    target: TargetPopulation | None = None,
    n_resamples: int,
    seed: int,
) -> DemographicsAudit:
    """Count patients by declared attribute, alone and in pairs, withholding identifying cells.

    A patient with one value has it on all images. One with several (head circumference at several
    visits) counts once in each level that occurs; in pairs, once in each combination that occurs on
    one image. Tuning patients count with training ones ("training and tuning") where there are
    fewer than 20 times `smallest_cell` of them: their many small cells would hide those of training
    and held-out test set too. Values outside the declared levels are one level of their own, a number that cannot
    be read is none.

    Args:
        table: Image table with patient_id.
        metadata: The metadata file, text, rows in the table's order; empty when there is none.
        declared: Attributes that the contract declares.
        partition: Partition of rows, on the table's index; None gives the whole table only.
        smallest_cell: Cells of 1 to smallest_cell - 1 patients are withheld, and further ones so
            that totals do not give them away. Cells of 0 are shown unless they protect another.
        target: Declared target population; None compares with none.
        n_resamples: Bootstrap samples behind each distance's interval, at least 40.
        seed: Seed.

    Returns:
        The audit. With nothing declared it has no cell: not evaluated, rather than passed.

    Raises:
        ValueError: The metadata's rows are not the table's.
        SettingsError: The target's levels are not the declared ones.
    """
    if len(metadata.columns) and len(metadata) != len(table):
        raise ValueError(f"{len(metadata)} rows of metadata for {len(table)} images")
    if target is not None:
        check_levels(target, declared)
    patients = patient_codes(table)
    sides = _sides(table, partition, smallest_cell)
    found = [attribute_values(x, table, metadata, patients) for x in declared]
    cells = demographic_cells(found, patients, sides, smallest_cell)
    distances: list[TargetDistance] = []
    not_compared: list[str] = []
    if target is not None:
        distances, not_compared = _distances(
            found, patients, target, cells, n_resamples=n_resamples, seed=seed
        )
    names = {_plain(x.name) for x in declared}
    return DemographicsAudit(
        declared=tuple(x.declared for x in found),
        undeclared=tuple(name for name in USUAL_ATTRIBUTES if name not in names),
        cells=cells,
        numbers=tuple(_numbers(found, patients, sides, smallest_cell)),
        smallest_cell=smallest_cell,
        n_suppressed=sum(cell.n_patients is None for cell in cells),
        target_name="" if target is None else target.name,
        distances=tuple(distances),
        not_compared=tuple(not_compared),
        missing_combinations=_missing_combinations(found, patients, sides, cells),
    )


def declared_shifts(
    table: pd.DataFrame,
    metadata: pd.DataFrame,
    declared: Sequence[AttributeDeclaration],
    partition: pd.Series,
    cells: Sequence[DemographicCell],
    *,
    smallest_cell: int,
    n_resamples: int,
    seed: int,
) -> tuple[AttributeShift, ...]:
    """Compute the distance of each pair of partitions in each declared attribute.

    Levels that are withheld in one of the two partitions are taken together, so that a distance
    tells no more than the cells do.

    Args:
        table: Image table with patient_id.
        metadata: The metadata file, text, rows in the table's order; empty when there is none.
        declared: Declared attributes; one with the name of a column of ATTRIBUTES is left out.
        partition: Partition of each row, on the table's index.
        cells: Cells of the same table, partition and attributes, as they are written.
        smallest_cell: The limit that they were written with.
        n_resamples: Bootstrap samples and random deals.
        seed: Seed.

    Returns:
        As `shift.shifts`. An attribute of which one level can be shown is left out.
    """
    patients = patient_codes(table)
    found = [
        attribute_values(x, table, metadata, patients) for x in declared if x.name not in ATTRIBUTES
    ]
    single = {
        (cell.attributes[0], cell.levels[0], cell.partition): cell.n_patients
        for cell in cells
        if len(cell.attributes) == 1
    }
    results: list[AttributeShift] = []
    partition = _counted_partition(table, partition, smallest_cell)
    for pair in combinations(sides_of(partition), 2):
        columns = {"patient_id": table["patient_id"]}
        for attribute in found:
            name = attribute.declared.name
            names = [
                POOLED if any(single.get((name, level, side)) is None for side in pair) else level
                for level in attribute.levels
            ]
            texts = np.array([*names, None], dtype=object)[attribute.codes]
            columns[name] = pd.Series(texts, index=table.index)
        rows = partition.isin(pair)
        compared = shifts(
            pd.DataFrame(columns)[rows],
            partition[rows],
            [x.declared.name for x in found],
            n_resamples=n_resamples,
            seed=seed,
        )
        levels = {x.declared.name: x.levels for x in found}
        results += [
            shift.model_copy(
                update={"one_sided": _one_sided(shift, levels[shift.attribute], single)}
            )
            for shift in compared
        ]
    return tuple(results)


def _one_sided(
    shift: AttributeShift,
    levels: Sequence[str],
    single: dict[tuple[str, str, str], int | None],
) -> tuple[str, ...]:
    """Name the levels of which one side shows no patient and the other has some."""
    name, sides = shift.attribute, (shift.left, shift.right)
    return tuple(
        f"{level} only in {side}"
        for level in levels
        for side, other in (sides, sides[::-1])
        if single[name, level, other] == 0 and single[name, level, side] != 0
    )


def _missing_combinations(
    found: Sequence[AttributeValues],
    patients: Coded,
    sides: dict[str, NDArray[np.bool_]],
    cells: Sequence[DemographicCell],
) -> tuple[MissingCombination, ...]:
    """Find pairs of levels that no patient has although independence would hardly leave them out.

    Pairs of attributes of which one decides the other (a site lies in one country) are left out.
    Only what the cells show is named. The probability of no patient is hypergeometric, its limit
    divided by the number of combinations looked at (Bonferroni).
    """
    from scipy.stats import hypergeom

    shown = {(c.attributes, c.levels, c.partition): c.n_patients for c in cells}
    n_tried, gaps = 0, []
    for left, right in combinations([x for x in found if x.levels], 2):
        names = (left.declared.name, right.declared.name)
        for side in (name for name in (ALL, TRAINING, DEVELOPMENT) if name in sides):
            by_level, _ = count_levels((left, right), patients, sides[side])
            table = np.array(list(by_level.values())).reshape(len(left.levels), len(right.levels))
            if any((np.count_nonzero(t, axis=1) < 2).all() for t in (table, table.T)):
                continue
            n = int(table.sum())
            by_left, by_right = table.sum(axis=1), table.sum(axis=0)
            n_tried += int(np.count_nonzero(by_left) * np.count_nonzero(by_right))
            for levels, (i, j) in zip(by_level, np.ndindex(table.shape), strict=True):
                if table[i, j] or not by_left[i] or not by_right[j]:
                    continue
                single = [
                    shown[(name,), (level,), side]
                    for name, level in zip(names, levels, strict=True)
                ]
                if shown[names, levels, side] == 0 and None not in single:
                    gaps.append(
                        MissingCombination(
                            attributes=names,
                            levels=(levels[0], levels[1]),
                            partition=side,
                            expected=round(float(by_left[i] * by_right[j]) / n, 1),
                            p_value=float(hypergeom.pmf(0, n, int(by_left[i]), int(by_right[j]))),
                        )
                    )
    beyond = [gap for gap in gaps if gap.p_value * n_tried <= _BY_CHANCE]
    everywhere = {gap.levels for gap in beyond if gap.partition == ALL}
    return tuple(g for g in beyond if g.partition == ALL or g.levels not in everywhere)


def _counted_partition(table: pd.DataFrame, partition: pd.Series, smallest_cell: int) -> pd.Series:
    """Return the partition of each row; training and tuning are one where tuning is small."""
    tuning = partition.index[partition == TUNING]
    n_patients = table.loc[tuning, "patient_id"].nunique()
    if not 0 < n_patients < _TUNING_CELLS * smallest_cell:
        return partition
    return partition.replace(dict.fromkeys((TRAINING, TUNING), DEVELOPMENT))


def _sides(
    table: pd.DataFrame, partition: pd.Series | None, smallest_cell: int
) -> dict[str, NDArray[np.bool_]]:
    """Mark the rows of "all", of each partition, and of UNASSIGNED where some rows have none."""
    whole = {ALL: np.ones(len(table), dtype=bool)}
    if partition is None:
        return whole
    parts = rows_by_side(table, _counted_partition(table, partition, smallest_cell))
    unassigned = np.sum([*parts.values(), ~whole[ALL]], axis=0) == 0
    return whole | parts | ({UNASSIGNED: unassigned} if unassigned.any() else {})


_ALSO_CALLED = {
    "bmi": "body mass index",
    "ethnic group": "ethnicity",
    "self-identified group": "ethnicity",
}


def _plain(name: str) -> str:
    plain = name.strip().lower().replace("_", " ")
    return _ALSO_CALLED.get(plain, plain)


def _numbers(
    found: Sequence[AttributeValues],
    patients: Coded,
    sides: dict[str, NDArray[np.bool_]],
    smallest: int,
) -> list[QuantityLevel]:
    """Distribution of each number over patients, its ends clipped so that they identify nobody."""
    levels = []
    for attribute in found:
        outside = fence_distance(attribute.values) > 0
        for side, rows in sides.items():
            kept = rows & np.isfinite(attribute.values)
            people, values = patients.codes[kept], attribute.values[kept]
            n_patients = len(np.unique(people))
            if side == UNASSIGNED or n_patients < max(smallest, 1):
                continue
            levels.append(
                QuantityLevel(
                    quantity=attribute.declared.column,
                    unit=attribute.declared.unit,
                    partition=side,
                    n_images=int(kept.sum()),
                    n_patients=n_patients,
                    quantiles=_quantiles(people, values, smallest),
                    n_outliers=int((outside & kept).sum()),
                )
            )
    return levels


def _quantiles(people: Codes, values: Floats, smallest: int) -> tuple[float, ...]:
    """Quantiles of patients' distinct values, clipped to the `smallest`-th patient at each end."""
    pairs = np.unique(np.column_stack((people.astype(np.float64), values)), axis=0)
    first = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1.0))
    lowest = np.sort(np.minimum.reduceat(pairs[:, 1], first))
    highest = np.sort(np.maximum.reduceat(pairs[:, 1], first))[::-1]
    place = max(smallest, 1) - 1
    low, high = lowest[place], highest[place]
    if low > high:
        low = high = float(np.median(pairs[:, 1]))
    return tuple(map(float, np.clip(np.percentile(pairs[:, 1], PERCENTS), low, high)))


def _distances(
    found: Sequence[AttributeValues],
    patients: Coded,
    target: TargetPopulation,
    cells: Sequence[DemographicCell],
    *,
    n_resamples: int,
    seed: int,
) -> tuple[list[TargetDistance], list[str]]:
    by_name = {x.declared.name: x for x in found}
    distances, not_compared = [], []
    for name, wanted in target.attributes.items():
        attribute = by_name.get(name)
        if attribute is None:
            not_compared.append(f"{name}: the data contract does not declare it")
            continue
        if not (attribute.codes >= 0).any():
            has_values = attribute.declared.completeness > 0
            words = "the data contract declares no bins" if has_values else "no patient has a value"
            not_compared.append(f"{name}: {words}")
            continue
        levels = tuple(dict.fromkeys((*attribute.levels, *wanted.shares)))
        has = membership(patients.codes, attribute.codes, len(patients.names), len(levels))
        expected = np.array([wanted.shares.get(level, 0.0) for level in levels])
        levels, has, expected = _pooled(levels, has, expected, _withheld(name, cells))
        has = has[has.any(axis=1)]
        if len(levels) < 2:
            not_compared.append(f"{name}: fewer than two levels have enough patients to be shown")
            continue
        counts = has.sum(axis=0)
        value = float(total_variation(counts, expected))
        resampled = redrawn(has, n_resamples, named_rng(seed, ("target", name)))
        if n_resamples < MIN_RESAMPLES:
            raise ValueError(f"{n_resamples} resamples; expected at least {MIN_RESAMPLES}")
        ci95 = percentile_interval(value, total_variation(resampled, expected))
        if ci95 is None:  # all patients are alike: others can be a share of at most this
            ci95 = (value, value + most_unseen(len(has)))
        distances.append(
            TargetDistance(
                attribute=name,
                total_variation=value,
                ci95=(max(ci95[0], 0.0), min(ci95[1], 1.0)),
                n_patients=len(has),
                source=wanted.source,
                widest=_widest(levels, shares(counts), expected),
                shares=dict(wanted.shares),
            )
        )
    return distances, not_compared


def _withheld(name: str, cells: Sequence[DemographicCell]) -> frozenset[str]:
    """Levels of an attribute whose patients in all are withheld."""
    return frozenset(
        cell.levels[0]
        for cell in cells
        if cell.attributes == (name,) and cell.partition == ALL and cell.n_patients is None
    )


def _pooled(
    levels: tuple[str, ...], has: Floats, expected: Floats, withheld: frozenset[str]
) -> tuple[tuple[str, ...], Floats, Floats]:
    """Take the withheld levels together, so that a distance tells no more than the cells do."""
    gone = np.array([level in withheld for level in levels])
    if not gone.any():
        return levels, has, expected
    together = has[:, gone].max(axis=1, keepdims=True)
    return (
        (*(level for level in levels if level not in withheld), POOLED),
        np.concatenate((has[:, ~gone], together), axis=1),
        np.append(expected[~gone], expected[gone].sum()),
    )


def _widest(levels: Sequence[str], observed: Floats, expected: Floats) -> str:
    place = int(np.abs(observed - expected).argmax())
    here = f"{observed[place]:.1%} of the data"
    return f"{levels[place]}: {here}, {expected[place]:.1%} of the target"
