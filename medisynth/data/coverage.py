"""Whom the data show: patients and images per attribute level, per partition, and what is absent."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from medisynth.data.adapters import Listing
from medisynth.data.split import PARTITIONS

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
    """

    attribute: str
    level: str
    partition: str
    n_patients: int
    n_images: int


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
    sides = [ALL]
    if partition is not None:
        found = set(partition.dropna())
        sides += [name for name in PARTITIONS if name in found]
        sides += sorted(map(str, found - set(PARTITIONS)))
    rows = []
    for attribute in attributes:
        levels = table[attribute].fillna(NOT_RECORDED).astype(str)
        frame = pd.DataFrame({"level": levels, "patient": table["patient_id"].astype(str)})
        names = sorted(set(levels), key=lambda name: (name == NOT_RECORDED, name))
        counts = {side: _counts(frame, partition, side) for side in sides}
        for name in names:
            for side in sides:
                n_patients, n_images = counts[side].get(name, (0, 0))
                rows.append(CoverageRow(attribute, name, side, n_patients, n_images))
    return tuple(rows)


def _counts(
    frame: pd.DataFrame, partition: pd.Series | None, side: str
) -> dict[str, tuple[int, int]]:
    if side != ALL and partition is not None:
        frame = frame.loc[partition.index[(partition == side).fillna(False).astype(bool)]]
    by_level = frame.groupby("level")["patient"]
    n_images, n_patients = by_level.size(), by_level.nunique()
    return {str(level): (int(n_patients[level]), int(n_images[level])) for level in n_images.index}


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
