"""Patients and images by level and partition, concentration on few patients, and the flow count."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.base import PARTITIONS
from medisynth.data.adapters import Listing
from medisynth.data.audit.levels import coded, image_counts_of, patient_codes
from medisynth.intervals import Interval, wilson_interval

ATTRIBUTES = ("plane", "brain_plane", "machine", "operator", "site")
NOT_RECORDED = "not recorded"
ALL = "all"


@dataclass(frozen=True)
class CoverageRow:
    """How often one level of one attribute occurs in one partition.

    Attributes:
        attribute: Attribute, e.g. "machine".
        level: Level, e.g. "Voluson E6"; "not recorded" for images without a value.
        partition: Partition, or "all" for the whole table.
        n_patients: Patients with at least one such image; a patient may count in several levels.
        n_images: Such images.
        share: Share of the partition's patients, 0 to 1; None where the partition has none. The
            shares of an attribute's levels add up to more than 1 where patients have several.
        share_ci95: Wilson interval of the share, patients taken as independent.
    """

    attribute: str
    level: str
    partition: str
    n_patients: int
    n_images: int
    share: float | None = None
    share_ci95: Interval | None = None


@dataclass(frozen=True)
class ListingSummary:
    """What a metadata file says, before one image is read.

    Attributes:
        n_images: Rows, one an image.
        n_patients: Patients.
        images_per_partition: Images in each official partition, "not recorded" included.
        patients_per_partition: Patients in each official partition; one in both counts in both.
        shared_patients: Patients in both official partitions.
        rows: Patients and images per level and official partition, and in all.
        one_sided: (attribute, level, partition) of levels seen in one official partition only.
        images_per_patient: Smallest, median and largest number of images of a patient.
    """

    n_images: int
    n_patients: int
    images_per_partition: dict[str, int]
    patients_per_partition: dict[str, int]
    shared_patients: int
    rows: tuple[CoverageRow, ...]
    one_sided: tuple[tuple[str, str, str], ...]
    images_per_patient: tuple[int, float, int]

    def count(self, attribute: str, level: str, partition: str = ALL) -> CoverageRow:
        """The row of one level in one partition; zeros where it does not occur."""
        for row in self.rows:
            if (row.attribute, row.level, row.partition) == (attribute, level, partition):
                return row
        return CoverageRow(attribute, level, partition, 0, 0)


def coverage(
    table: pd.DataFrame,
    partition: pd.Series | None,
    attributes: Sequence[str] = ATTRIBUTES,
) -> tuple[CoverageRow, ...]:
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


def sides_of(partition: pd.Series) -> tuple[str, ...]:
    """Partitions that occur: training, tuning, held-out test set, then any other by name."""
    found = set(partition.dropna())
    known = tuple(name for name in PARTITIONS if name in found)
    return known + tuple(sorted(map(str, found - set(PARTITIONS))))


def rows_by_side(table: pd.DataFrame, partition: pd.Series) -> dict[str, NDArray[np.bool_]]:
    """Which rows of the table are in each partition that occurs.

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
) -> CoverageRow:
    """One level of one side, from its images by patient and the patients of the side."""
    n_patients = int((images > 0).sum())
    return CoverageRow(
        attribute,
        level,
        side,
        n_patients,
        int(images.sum()),
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


def _one_sided(rows: tuple[CoverageRow, ...]) -> tuple[tuple[str, str, str], ...]:
    """Levels with images in one of several partitions only."""
    sides: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for row in rows:
        if row.partition not in {ALL, NOT_RECORDED} and row.level != NOT_RECORDED:
            sides.setdefault((row.attribute, row.level), []).append((row.partition, row.n_images))
    return tuple(
        (attribute, level, next(side for side, n in found if n))
        for (attribute, level), found in sides.items()
        if len(found) > 1 and sum(n > 0 for _, n in found) == 1
    )


@dataclass(frozen=True)
class FlowLevel:
    """Images and patients of one level of one attribute that a step left.

    Attributes:
        attribute: Attribute, e.g. "machine".
        level: Level; "not recorded" for images without a value.
        n_images: Such images.
        n_patients: Their patients; one may count in several levels.
    """

    attribute: str
    level: str
    n_images: int
    n_patients: int


@dataclass(frozen=True)
class FlowStep:
    """What one selection step left: the flow of images from listing to partitions.

    Attributes:
        step: "listed", "selected", "present", "decoded".
        n_images: Images left.
        n_patients: Patients left; one may count in several levels below.
        note: What the step asked for, or why images were lost.
        levels: The same images by level of each recorded attribute; the images of an attribute's
            levels add up to `n_images`.
    """

    step: str
    n_images: int
    n_patients: int
    note: str = ""
    levels: tuple[FlowLevel, ...] = ()


def flow_step(
    step: str, table: pd.DataFrame, note: str = "", attributes: Sequence[str] = ATTRIBUTES
) -> FlowStep:
    """Count the images and patients that a step left.

    Args:
        step: Name of the step.
        table: The rows it left, with patient_id and the attributes.
        note: What it asked for.
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
        levels=tuple(FlowLevel(r.attribute, r.level, r.n_images, r.n_patients) for r in rows),
    )


def flow_faults(steps: Sequence[FlowStep]) -> tuple[str, ...]:
    """Where a flow does not add up, in words; empty when it does.

    Args:
        steps: Steps in order.

    Returns:
        One sentence a fault: an attribute whose levels do not add up to the step, a step or level
        with more images or patients than before, or more patients than images.
    """
    faults = []
    for step in steps:
        faults += _faults_within(step)
    for before, after in pairwise(steps):
        faults += _faults_between(before, after)
    return tuple(faults)


def _faults_within(step: FlowStep) -> list[str]:
    faults = []
    if step.n_patients > step.n_images:
        faults.append(f"{step.step} has {step.n_patients:,} patients in {step.n_images:,} images")
    sums: dict[str, int] = defaultdict(int)
    for level in step.levels:
        sums[level.attribute] += level.n_images
        if not level.n_patients <= min(level.n_images, step.n_patients):
            faults.append(
                f"{step.step}: {level.attribute} {level.level} has {level.n_patients:,} patients "
                f"in {level.n_images:,} images of {step.n_patients:,} patients"
            )
    faults += [
        f"{step.step}: the levels of {attribute} hold {n:,} images, the step {step.n_images:,}"
        for attribute, n in sums.items()
        if n != step.n_images
    ]
    return faults


def _faults_between(before: FlowStep, after: FlowStep) -> list[str]:
    faults = []
    for what, was, now in (
        ("images", before.n_images, after.n_images),
        ("patients", before.n_patients, after.n_patients),
    ):
        if now > was:
            faults.append(f"{after.step} has {now:,} {what}, {before.step} only {was:,}")
    known = {level.attribute for level in before.levels}
    new = dict.fromkeys(x.attribute for x in after.levels if x.attribute not in known)
    faults += [f"{after.step} counts {name}, {before.step} does not" for name in new]
    earlier = {(level.attribute, level.level): level for level in before.levels}
    for level in after.levels:
        if level.attribute in new:
            continue
        found = earlier.get((level.attribute, level.level))
        was_images, was_patients = (found.n_images, found.n_patients) if found else (0, 0)
        if level.n_images > was_images or level.n_patients > was_patients:
            faults.append(
                f"{after.step}: {level.attribute} {level.level} has {level.n_images:,} images of "
                f"{level.n_patients:,} patients, {before.step} only {was_images:,} of "
                f"{was_patients:,}"
            )
    return faults


CLASS_ATTRIBUTES = ("plane", "brain_plane")


@dataclass(frozen=True)
class Concentration:
    """How much of one class rests on few patients.

    Attributes:
        attribute: "all", "plane" or "brain_plane".
        level: Level; "all" for the whole table.
        n_patients: Patients with such images.
        n_images: Such images.
        largest_patient: Patient with most of them; the first by name where several have as many.
        largest_share: That patient's share of the images, 0 to 1.
        effective_patients: Inverse Simpson index of images by patient, 1 to n_patients: as many
            patients with equally many images each would be as concentrated.
    """

    attribute: str
    level: str
    n_patients: int
    n_images: int
    largest_patient: str
    largest_share: float
    effective_patients: float


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
