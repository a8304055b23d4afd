"""FETAL_PLANES_DB as published: `FETAL_PLANES_DB_data.csv` and `Images/<Image_name>.png`."""

import re
from pathlib import Path

from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.layout import KnownTable, image_folder
from medisynth.data.adapters.listing_table import listing_table
from medisynth.data.reading.csv_table import (
    Record,
    StrictTable,
    canonical_number,
    count_fault,
    filled_fault,
    flag_fault,
    folded,
    name_fault,
    read_strict,
    shown,
)

METADATA_FILE = "FETAL_PLANES_DB_data.csv"
IMAGE_FOLDER = "Images"
PHANTOM_FILE = "phantom.json"  # says that the folder holds simulated images in this layout
NOT_A_BRAIN = "Not A Brain"
COLUMNS = (
    "Image_name",
    "Patient_num",
    "Plane",
    "Brain_plane",
    "Operator",
    "US_Machine",
    "Train",  # published with a trailing blank in the name and in every value
)
_PARTITIONS = {"1": "training", "0": "held-out test set"}

INFO = DatasetInfo(
    name="fetal-planes-db",
    title="FETAL_PLANES_DB: Common maternal-fetal ultrasound images",
    version="1.0",
    doi="10.5281/zenodo.3904280",
    licence="CC BY 4.0",
    citation=(
        "X. P. Burgos-Artizzu, D. Coronado-Gutiérrez, B. Valenzuela-Alcaraz, E. Bonet-Carne, "
        "E. Eixarch, F. Crispi, E. Gratacós. Evaluation of deep convolutional neural networks for "
        "automatic classification of common maternal fetal ultrasound planes. Scientific Reports "
        "10, 10200 (2020). doi:10.1038/s41598-020-67076-5"
    ),
    split_unit="patient",
    split_unit_note=(
        "Patient_num as published. At least one frame occurs under two patient numbers "
        "(Patient00786 and Patient00799, only the printed preset differs), so a split by patient "
        "number alone does not keep every picture on one side."
    ),
    absent_attributes={
        "site": "two hospitals in Barcelona, not told apart: independence of sites between "
        "partitions and results per hospital cannot be computed",
        "date": "a shift over time and a split by date cannot be computed",
        "gestational age": "results per gestational age cannot be computed, and anatomy that "
        "changes with it cannot be separated from other differences",
        "maternal age": "results per maternal age cannot be computed",
        "ethnicity": "results per ethnic group cannot be computed",
        "body mass index": "results per body mass index, which degrades image quality, cannot be "
        "computed",
        "parity": "results per parity cannot be computed",
        "fetal sex": "results per fetal sex cannot be computed",
        "findings": "normal and abnormal anatomy cannot be told apart",
        "pixel spacing": "sizes in millimetres cannot be checked, and scale differs between images",
    },
    notes=(
        "Two hospitals in one country; planes were labelled by one expert clinician, so agreement "
        "between readers is not in the data.",
        "Operator and machine are confounded: Op. 1 and Op. 2 used only Voluson E6, Op. 3 only "
        "Aloka.",
        "Voluson S10 is almost absent from the official training part (11 of 1,082 images).",
        "Burned-in text (machine, presets, counters) stands on most frames.",
        "'Other' means two things: Plane 'Other' is no standard plane, Brain_plane 'Other' is a "
        "brain in no standard plane.",
    ),
)


class FetalPlanesDb:
    """Adapter of the published folder; the official partition comes from the `Train` column."""

    name = "fetal-planes-db"
    tables = (KnownTable(METADATA_FILE, ";", COLUMNS), KnownTable(PHANTOM_FILE))

    def detects(self, root: Path) -> bool:
        """Whether the published metadata file is there and the images are not phantoms."""
        return (root / METADATA_FILE).is_file() and not (root / PHANTOM_FILE).exists()

    def info(self, root: Path) -> DatasetInfo:
        """Facts about the data set in this folder."""
        return INFO

    def list_images(self, root: Path) -> Listing:
        """Read the metadata file strictly and list every image; opens no image.

        Raises:
            DataError: The metadata file is unreadable or malformed; all findings are attached.
        """
        metadata = read_strict(root / METADATA_FILE, delimiter=";", required=COLUMNS)
        _check(metadata)
        records, folder = metadata.records, image_folder(root, IMAGE_FOLDER)
        columns: dict[str, list[str | int | None]] = {
            "image_id": [r.values["Image_name"] for r in records],
            "path": [f"{folder}/{r.values['Image_name']}.png" for r in records],
            "patient_id": [canonical_number(r.values["Patient_num"]) for r in records],
            "plane": [r.values["Plane"] for r in records],
            "brain_plane": [_brain_plane(r) for r in records],
            "operator": [r.values["Operator"] or None for r in records],
            "machine": [r.values["US_Machine"] or None for r in records],
            "official_partition": [_PARTITIONS[r.values["Train"]] for r in records],
            "row": [r.line for r in records],
        }
        table = listing_table(columns)
        return Listing(self.info(root), table, METADATA_FILE, metadata.sha256, metadata.as_text())


def _check(metadata: StrictTable) -> None:
    """Check all values, then raise one error with all faults found."""
    metadata.check("Image_name", name_fault, code="D021")
    metadata.check_unique("Image_name")
    metadata.check("Patient_num", count_fault)
    metadata.check("Plane", filled_fault)
    metadata.check("Brain_plane", filled_fault)
    metadata.check("Brain_plane", _not_a_brain_fault, code="D026")
    metadata.check("Train", flag_fault)
    for record in metadata.records:
        named = re.match(r"Patient([0-9]+)_", record.values["Image_name"])
        number = record.values["Patient_num"]
        if named and canonical_number(named[1]) != canonical_number(number):
            metadata.findings.add(
                "D025",
                f"is {number[:20]!a} but the image name says {named[1][:20]}; expected the same "
                "patient, mend the row",
                row=record.line,
                column="Patient_num",
            )
    metadata.findings.raise_if_any()


def _not_a_brain_fault(value: str) -> str | None:
    """Message if a text is "Not A Brain" written otherwise, else None."""
    if value == NOT_A_BRAIN or folded(value) != folded(NOT_A_BRAIN):
        return None
    return (
        f"{shown(value)} differs from {NOT_A_BRAIN!r} only by letter case, blanks or Unicode form; "
        "write it so"
    )


def _brain_plane(record: Record) -> str | None:
    """Return the brain plane; None for the published "no brain plane", while "Other" is kept."""
    value = record.values["Brain_plane"]
    return None if value == NOT_A_BRAIN else value
