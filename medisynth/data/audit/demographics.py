"""Demographics of the patients, as the data contract declares them, compared with a target."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.audit import (
    DemographicCell,
    DemographicsAudit,
    QuantityLevel,
    TargetDistance,
)
from medisynth.data.audit.attribute_values import AttributeValues, attribute_values
from medisynth.data.audit.coverage import ALL, rows_by_side
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
from medisynth.data.audit.suppression import UNASSIGNED, demographic_cells
from medisynth.data.audit.target_population import TargetPopulation, check_levels
from medisynth.data.contract.contract import AttributeDeclaration
from medisynth.intervals import percentile_interval

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
    one image. Values outside the declared levels are one level of their own, a number that cannot
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
    sides = _sides(table, partition)
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
    )


def _sides(table: pd.DataFrame, partition: pd.Series | None) -> dict[str, NDArray[np.bool_]]:
    """Mark the rows of "all", of each partition, and of UNASSIGNED where some rows have none."""
    whole = {ALL: np.ones(len(table), dtype=bool)}
    if partition is None:
        return whole
    parts = rows_by_side(table, partition)
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
        has = has[has.any(axis=1)]
        expected = np.array([wanted.shares.get(level, 0.0) for level in levels])
        counts = has.sum(axis=0)
        value = float(total_variation(counts, expected))
        resampled = redrawn(has, n_resamples, named_rng(seed, ("target", name)))
        ci95 = percentile_interval(value, total_variation(resampled, expected))
        if ci95 is None:
            raise ValueError(f"{n_resamples} resamples; expected at least 40")
        distances.append(
            TargetDistance(
                attribute=name,
                total_variation=value,
                ci95=(max(ci95[0], 0.0), min(ci95[1], 1.0)),
                n_patients=len(has),
                source=wanted.source,
                widest=_widest(name, levels, shares(counts), expected, cells),
            )
        )
    return distances, not_compared


def _widest(
    name: str,
    levels: Sequence[str],
    observed: Floats,
    expected: Floats,
    cells: Sequence[DemographicCell],
) -> str:
    place = int(np.abs(observed - expected).argmax())
    level = levels[place]
    is_withheld = any(
        cell.attributes == (name,)
        and cell.levels == (level,)
        and cell.partition == ALL
        and cell.n_patients is None
        for cell in cells
    )
    here = "a withheld share" if is_withheld else f"{observed[place]:.1%}"
    return f"{level}: {here} of the data, {expected[place]:.1%} of the target"
