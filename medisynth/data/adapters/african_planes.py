"""African maternal-fetal planes: the published archive, and the kit with a fuller metadata file."""

from pathlib import Path

import pandas as pd

from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.layout import KnownTable, header_names, image_folder
from medisynth.data.adapters.listing_table import listing_table
from medisynth.data.reading.csv_table import (
    StrictTable,
    canonical_number,
    count_fault,
    filled_fault,
    flag_fault,
    name_fault,
    read_strict,
)

PUBLISHED_FILE = "African_planes_database.csv"
METADATA_FILE = "metadata.csv"
IMAGE_FOLDER = "images"
# the kit's columns, and the published ones of the same meaning
_COLUMNS = ("image_name", "center", "patient_num", "plane", "train")
_PUBLISHED_COLUMNS = ("Filename", "Center", "Patient_num", "Plane", "Train")
_FURTHER_COLUMNS = (
    "width",
    "height",
    "mode",
    "bytes",
    "sha256",
    "in_kit",
    "exact_duplicate_group",
    "duplicate_crosses_split",
    "near_duplicate_group",
    "near_duplicate_crosses_split",
    "phash64",
)
_SIGNATURE = frozenset({"center", "patient_num", "plane", "train", "in_kit"})
_PARTITIONS = {"1": "training", "0": "held-out test set"}

INFO = DatasetInfo(
    name="african-planes",
    title=(
        "Maternal fetal ultrasound planes from low-resource imaging settings in five African "
        "countries"
    ),
    version="1.0",
    doi="10.5281/zenodo.7540448",
    licence="CC BY 4.0",
    citation=(
        "C. Sendra-Balcells, V. M. Campello, J. Torrents-Barrena, et al. Generalisability of fetal "
        "ultrasound deep learning models to low-resource imaging settings in five African "
        "countries. Scientific Reports 13, 2728 (2023). doi:10.1038/s41598-023-29490-3"
    ),
    split_unit="patient",
    split_unit_note=(
        "Centre and patient number together, as numbers restart in every country. 47 pairs of "
        "byte-identical images carry two patient numbers and 22 of them cross the official split: "
        "patient numbers alone do not keep patients apart."
    ),
    absent_attributes={
        "brain_plane": "results per brain plane cannot be computed",
        "operator": "independence of operators between partitions cannot be computed",
        "machine": "results per machine cannot be computed; image size alone reveals the country",
        "date": "a shift over time and a split by date cannot be computed",
        "gestational age": "results per gestational age cannot be computed, and anatomy that "
        "changes with it cannot be separated from other differences",
        "maternal age": "results per maternal age cannot be computed",
        "ethnicity": "results per ethnic group cannot be computed; country is no stand-in for it",
        "body mass index": "results per body mass index, which degrades image quality, cannot be "
        "computed",
        "parity": "results per parity cannot be computed",
        "fetal sex": "results per fetal sex cannot be computed",
        "findings": "normal and abnormal anatomy cannot be told apart",
        "pixel spacing": "sizes in millimetres cannot be checked, and scale differs between images",
    },
    notes=(
        "One image size per country, so size alone reveals the country.",
        "Egyptian files are RGB with three equal channels, all others are grey.",
        "Frames from Ghana and Uganda carry burned-in callipers; both have no thorax images.",
    ),
)


class AfricanPlanes:
    """Adapter of both layouts; prefers the kit's `metadata.csv`. The site is the centre."""

    name = "african-planes"
    tables = (
        KnownTable(PUBLISHED_FILE, ",", _PUBLISHED_COLUMNS),
        KnownTable(METADATA_FILE, ",", _COLUMNS + _FURTHER_COLUMNS),
    )

    def detects(self, root: Path) -> bool:
        """Whether the published table is there, or a `metadata.csv` with the kit's columns."""
        return (root / PUBLISHED_FILE).is_file() or _is_kit(root)

    def list_images(self, root: Path) -> Listing:
        """Read the metadata file strictly and list every image; opens no image.

        Images that the folder is known not to hold (`in_kit` 0) are listed as well: whether
        they are needed is decided by the selection of planes.

        Raises:
            DataError: The metadata file is unreadable or malformed; all findings are attached.
        """
        if _is_kit(root):
            metadata = read_strict(root / METADATA_FILE, delimiter=",", required=_COLUMNS)
            return _listing(metadata, METADATA_FILE, _COLUMNS, image_folder(root, IMAGE_FOLDER))
        metadata = read_strict(root / PUBLISHED_FILE, delimiter=",", required=_PUBLISHED_COLUMNS)
        return _listing(metadata, PUBLISHED_FILE, _PUBLISHED_COLUMNS, None)


def _is_kit(root: Path) -> bool:
    return len(_SIGNATURE & header_names(root / METADATA_FILE, ",")) >= 3


def _listing(
    metadata: StrictTable, file: str, names: tuple[str, ...], folder: str | None
) -> Listing:
    """List the images of a table; without a folder, each lies in the folder of its centre."""
    image, center, patient, plane, train = names
    _check(metadata, names, center_is_folder=folder is None)
    values = [record.values for record in metadata.records]
    columns: dict[str, list[str | int | None]] = {
        "image_id": [v[image] for v in values],
        "path": [f"{folder or v[center]}/{v[image]}.png" for v in values],
        "patient_id": [f"{v[center]}-{canonical_number(v[patient])}" for v in values],
        "plane": [v[plane] for v in values],
        "site": [v[center] for v in values],
        "official_partition": [_PARTITIONS[v[train]] for v in values],
        "row": [record.line for record in metadata.records],
    }
    extra = {}
    if "in_kit" in metadata.columns:
        extra["in_kit"] = pd.Series([v["in_kit"] == "1" for v in values], dtype="bool")
    if "sha256" in metadata.columns:
        digests = [v["sha256"] or None for v in values]
        extra["listed_sha256"] = pd.Series(pd.array(digests, dtype="string"))
    table = listing_table(columns, extra)
    return Listing(INFO, table, file, metadata.sha256, metadata.as_text())


def _check(metadata: StrictTable, names: tuple[str, ...], *, center_is_folder: bool) -> None:
    """Check all values, then raise one error with all faults found."""
    image, center, patient, plane, train = names
    metadata.check(image, name_fault, code="D021")
    metadata.check_unique(image)
    if center_is_folder:
        metadata.check(center, name_fault, code="D021")
    else:
        metadata.check(center, filled_fault)
    metadata.check(patient, count_fault)
    metadata.check(plane, filled_fault)
    metadata.check(train, flag_fault)
    if "in_kit" in metadata.columns:
        metadata.check("in_kit", flag_fault)
    metadata.findings.raise_if_any()
