"""Patients and images by level and partition, concentration on few patients, and the flow count."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.audit import Concentration, CoverageLevel, ListingSummary
from governance.records.base import PARTITIONS, TRAINING
from governance.records.dataset import FlowLevel, FlowStep
from medisynth.data.adapters import Listing
from medisynth.data.audit.levels import coded, image_counts_of, patient_codes
from medisynth.intervals import wilson_interval

ATTRIBUTES = ("plane", "brain_plane", "machine", "operator", "site")
NOT_RECORDED = "not recorded"
ALL = "all"


def coverage(
    table: pd.DataFrame,
    partition: pd.Series | None,
    attributes: Sequence[str] = ATTRIBUTES,
) -> tuple[CoverageLevel, ...]:
    """Count patients and images per attribute level and partition.

    Args:
        table: Rows with patient_id and the attributes.
        partition: Partition of rows, on the table's index; None counts the whole table only. Rows
            without a partition count in "all" only.
        attributes: Columns to count; one that is wholly absent has the level "not recorded" alone.

    Returns:
        Rows by attribute as given, then level, then partition ("all" first). A level that a
        partition lacks is there with zeros.
    """
    patients = patient_codes(table)
    sides = {ALL: np.ones(len(table), dtype=bool)}
    if partition is not None:
        sides |= rows_by_side(table, partition)
    n_patients = len(patients.names)
    present = {name: len(np.unique(patients.codes[rows])) for name, rows in sides.items()}
    found = []
    for attribute in attributes:
        levels = coded(table[attribute].fillna(NOT_RECORDED).astype(str))
        counts = {
            name: image_counts_of(
                patients.codes[rows], levels.codes[rows], n_patients, len(levels.names)
            )
            for name, rows in sides.items()
        }
        places = sorted(range(len(levels.names)), key=lambda i: levels.names[i] == NOT_RECORDED)
        found += [
            _row(attribute, levels.names[place], name, images[:, place], present[name])
            for place in places
            for name, images in counts.items()
        ]
    return tuple(found)


def classes_not_trained(levels: Sequence[CoverageLevel]) -> tuple[str, ...]:
    """Sentences on the planes and brain planes of which training has no image.

    Args:
        levels: Result of `coverage` for a divided table.

    Returns:
        One sentence a level with its images in all; none where nothing was divided.
    """
    n_all = {(x.attribute, x.level): x.n_images for x in levels if x.partition == ALL}
    return tuple(
        f"{attribute} {x.level}: none of its {n_all[attribute, x.level]:,} images is in training"
        for attribute in CLASS_ATTRIBUTES
        for x in levels
        if x.attribute == attribute
        and x.partition == TRAINING
        and x.level != NOT_RECORDED
        and not x.n_images
    )


def sides_of(partition: pd.Series) -> tuple[str, ...]:
    """Partitions that occur: training, tuning, held-out test set, then any other by name."""
    found = set(partition.dropna())
    known = tuple(name for name in PARTITIONS if name in found)
    return known + tuple(sorted(map(str, found - set(PARTITIONS))))


def rows_by_side(table: pd.DataFrame, partition: pd.Series) -> dict[str, NDArray[np.bool_]]:
    """Mark the rows of the table that are in each partition that occurs.

    Args:
        table: Rows.
        partition: Partition of rows, on the table's index; rows without one are in none.
    """
    side = partition.reindex(table.index)
    return {
        name: np.asarray((side == name).fillna(False), dtype=bool) for name in sides_of(partition)
    }


def _row(
    attribute: str, level: str, side: str, images: NDArray[np.float64], n_present: int
) -> CoverageLevel:
    """Summarise a level in a partition, from its images per patient and the partition's total."""
    n_patients = int((images > 0).sum())
    return CoverageLevel(
        attribute=attribute,
        level=level,
        partition=side,
        n_patients=n_patients,
        n_images=int(images.sum()),
        share=n_patients / n_present if n_present else None,
        share_ci95=wilson_interval(n_patients, n_present) if n_present else None,
    )


def completeness(table: pd.DataFrame, attributes: Sequence[str] = ATTRIBUTES) -> dict[str, float]:
    """Share of patients with a value, per attribute.

    Args:
        table: Rows with patient_id and the attributes.
        attributes: Columns to look at.

    Returns:
        0 to 1 per attribute; a patient counts with a value on at least one image. Attributes that
        no image has are left out (see `absent`): unknown is not zero.
    """
    patients = table["patient_id"].astype(str)
    n_patients = patients.nunique()
    gone = set(absent(table, attributes))
    return {
        name: patients[table[name].notna()].nunique() / n_patients
        for name in attributes
        if name not in gone
    }


def absent(table: pd.DataFrame, attributes: Sequence[str] = ATTRIBUTES) -> tuple[str, ...]:
    """Attributes that are not recorded for any image, in the order given."""
    return tuple(
        name for name in attributes if name not in table or not bool(table[name].notna().any())
    )


def listing_summary(listing: Listing) -> ListingSummary:
    """Summarise a listing: sizes, official partitions, levels and one-sided levels.

    Args:
        listing: Listing of a data set.
    """
    table = listing.table
    patients = table["patient_id"].astype(str)
    has_official = bool(table["official_partition"].notna().any())
    official = table["official_partition"].fillna(NOT_RECORDED) if has_official else None
    rows = coverage(table, official)
    sides = official if official is not None else pd.Series(NOT_RECORDED, index=table.index)
    by_side = patients.groupby(sides.astype(str))
    n_sides = sides.groupby(patients).nunique()
    per_patient = patients.value_counts()
    return ListingSummary(
        n_images=len(table),
        n_patients=patients.nunique(),
        images_per_partition={str(k): int(v) for k, v in by_side.size().items()},
        patients_per_partition={str(k): int(v) for k, v in by_side.nunique().items()},
        shared_patients=int((n_sides > 1).sum()),
        rows=rows,
        one_sided=_one_sided(rows),
        images_per_patient=(
            int(per_patient.min()),
            float(per_patient.median()),
            int(per_patient.max()),
        ),
    )


def _one_sided(rows: tuple[CoverageLevel, ...]) -> tuple[tuple[str, str, str], ...]:
    """Find levels whose images are all in one of several partitions."""
    sides: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for row in rows:
        if row.partition not in {ALL, NOT_RECORDED} and row.level != NOT_RECORDED:
            sides.setdefault((row.attribute, row.level), []).append((row.partition, row.n_images))
    return tuple(
        (attribute, level, next(side for side, n in found if n))
        for (attribute, level), found in sides.items()
        if len(found) > 1 and sum(n > 0 for _, n in found) == 1
    )


def flow_step(
    step: str, table: pd.DataFrame, note: str = "", attributes: Sequence[str] = ATTRIBUTES
) -> FlowStep:
    """Count the images and patients that a step left.

    Args:
        step: Name of the step.
        table: The rows it left, with patient_id and the attributes.
        note: The step's criterion, for reports.
        attributes: Columns to count by; one without any value in these rows is left out.
    """
    gone = absent(table, attributes)
    recorded = [name for name in attributes if name not in gone]
    rows = coverage(table, None, recorded)
    return FlowStep(
        step=step,
        n_images=len(table),
        n_patients=int(table["patient_id"].nunique()),
        note=note,
        levels=tuple(
            FlowLevel(
                attribute=row.attribute,
                level=row.level,
                n_images=row.n_images,
                n_patients=row.n_patients,
            )
            for row in rows
        ),
    )


CLASS_ATTRIBUTES = ("plane", "brain_plane")


def concentration(table: pd.DataFrame) -> tuple[Concentration, ...]:
    """Concentration of the whole table, of each plane and of each brain plane.

    Args:
        table: Rows with patient_id, plane and brain_plane.

    Returns:
        The whole table first, then levels by name; images without a value are in the first only.
        Empty for a table without rows.

    Source:
        Hill 1973, doi:10.2307/1934352 (effective number of order 2).
    """
    patients = patient_codes(table)
    n_patients = len(patients.names)
    if not n_patients:
        return ()
    whole = np.bincount(patients.codes, minlength=n_patients).astype(np.float64)
    found = [_one(ALL, ALL, whole, patients.names)]
    for attribute in CLASS_ATTRIBUTES:
        if attribute not in table:
            continue
        levels = coded(table[attribute])
        known = levels.codes >= 0
        counts = image_counts_of(
            patients.codes[known], levels.codes[known], n_patients, len(levels.names)
        )
        found += [
            _one(attribute, level, counts[:, place], patients.names)
            for place, level in enumerate(levels.names)
        ]
    return tuple(found)


def _one(
    attribute: str, level: str, images: np.ndarray, patients: tuple[str, ...]
) -> Concentration:
    total, largest = float(images.sum()), int(images.argmax())
    return Concentration(
        attribute=attribute,
        level=level,
        n_patients=int((images > 0).sum()),
        n_images=int(total),
        largest_patient=patients[largest],
        largest_share=float(images[largest]) / total,
        effective_patients=total**2 / float(images @ images),
    )
