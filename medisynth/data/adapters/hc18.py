"""HC18 training set: the published folder, and the resized kit with a fuller metadata file."""

import re
from pathlib import Path

import pandas as pd

from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.layout import KnownTable, header_names, image_folder
from medisynth.data.adapters.listing_table import listing_table
from medisynth.data.reading.csv_table import (
    Record,
    StrictTable,
    canonical_number,
    count_fault,
    name_fault,
    positive_fault,
    read_strict,
    shown,
)

PUBLISHED_FILE = "training_set_pixel_size_and_HC.csv"
KIT_FILE = "metadata.csv"
_PUBLISHED_COLUMNS = ("filename", "pixel size(mm)", "head circumference (mm)")
_KIT_COLUMNS = (
    "file_name",
    "exam_id",
    "original_width",
    "width",
    "pixel_size_mm",
    "head_circumference_mm",
)
_KIT_FURTHER_COLUMNS = (
    "image_in_exam",
    "images_in_exam",
    "original_height",
    "height",
    "near_duplicate_group",
    "phash64",
    "sha256_original",
    "sha256",
)
_KIT_SIGNATURE = frozenset({"exam_id", "image_in_exam", "head_circumference_mm", "pixel_size_mm"})
_NAME = re.compile(r"([0-9]{1,6})_([0-9]{0,2})HC\.png")

INFO = DatasetInfo(
    name="hc18",
    title="HC18: Automated measurement of fetal head circumference using 2D ultrasound images",
    version="",
    doi="10.5281/zenodo.1322001",
    licence="not stated in the files; a public copy states CC BY 4.0 (check Zenodo record 1327317)",
    citation=(
        "T. L. A. van den Heuvel, D. de Bruijn, C. L. de Korte, B. van Ginneken. Automated "
        "measurement of fetal head circumference using 2D ultrasound images. PLoS ONE 13(8): "
        "e0200412 (2018). doi:10.1371/journal.pone.0200412"
    ),
    split_unit="examination",
    split_unit_note=(
        "The number in the file name is the examination. The study had 551 women and this set has "
        "806 examinations: one woman may have several, and women cannot be recovered from the "
        "names, so a split by examination does not guarantee a split by woman."
    ),
    absent_attributes={
        "patient": "only the examination is recorded: the same woman may be on both sides of a "
        "split, and n is examinations, not women",
        "brain_plane": "results per brain plane cannot be computed",
        "operator": "independence of operators between partitions cannot be computed",
        "machine": "results per machine cannot be computed (the paper names two machines)",
        "site": "one hospital (Radboud UMC Nijmegen): independence of sites is not possible",
        "date": "a shift over time and a split by date cannot be computed",
        "gestational age": "results per gestational age cannot be computed; head circumference is "
        "only a stand-in for it",
        "maternal age": "results per maternal age cannot be computed",
        "ethnicity": "results per ethnic group cannot be computed",
        "body mass index": "results per body mass index, which degrades image quality, cannot be "
        "computed",
        "parity": "results per parity cannot be computed",
        "fetal sex": "results per fetal sex cannot be computed",
        "findings": "the publisher excluded growth abnormalities: abnormal anatomy is not covered",
    },
    notes=(
        "All images are the publisher's training part; its test part has no public labels, so "
        "there is no official held-out test set here.",
        "File numbers follow trimester and head size: a split by file order is a shift in "
        "gestational age. Examinations are shuffled before splitting.",
        "392_HC and 392_2HC are the same file.",
        "Black rectangles cover burned-in text (de-identification by the publisher).",
    ),
)


class Hc18:
    """Adapter of both layouts; prefers the kit's `metadata.csv` where a folder has both files."""

    name = "hc18"
    tables = (
        KnownTable(PUBLISHED_FILE, ",", _PUBLISHED_COLUMNS),
        KnownTable(KIT_FILE, ",", _KIT_COLUMNS + _KIT_FURTHER_COLUMNS),
    )
    companions = ("masks/*", "*_Annotation.png", "test_set/*", "test_set_pixel_size.csv")

    def detects(self, root: Path) -> bool:
        """Whether the published table is there, or a `metadata.csv` with the kit's columns."""
        return (root / PUBLISHED_FILE).is_file() or _is_kit(root)

    def list_images(self, root: Path) -> Listing:
        """Read the metadata file strictly and list every image; opens no image and no mask.

        Raises:
            DataError: The metadata file is unreadable or malformed; all findings are attached.
        """
        return _list_kit(root) if _is_kit(root) else _list_published(root)


def _is_kit(root: Path) -> bool:
    # Two of the columns are enough: with all of them required, a file that lacks one would be
    # "unknown layout" and not "column missing".
    return len(_KIT_SIGNATURE & header_names(root / KIT_FILE, ",")) >= 2


def _list_published(root: Path) -> Listing:
    metadata = read_strict(root / PUBLISHED_FILE, delimiter=",", required=_PUBLISHED_COLUMNS)
    file_column, pixel_column, circumference_column = _PUBLISHED_COLUMNS
    _check_names(metadata, file_column)
    metadata.check(pixel_column, positive_fault)
    metadata.check(circumference_column, positive_fault)
    metadata.findings.raise_if_any()
    folders = ("training_set", "images")
    has_folder = any((root / folder).is_dir() for folder in folders)
    folder = image_folder(root, *folders) if has_folder else ""
    names = [r.values[file_column] for r in metadata.records]
    return _listing(
        metadata,
        PUBLISHED_FILE,
        names=names,
        folder=folder,
        examinations=[_examination(name) for name in names],
        pixel_size_mm=[float(r.values[pixel_column]) for r in metadata.records],
        circumference_mm=[float(r.values[circumference_column]) for r in metadata.records],
    )


def _list_kit(root: Path) -> Listing:
    metadata = read_strict(root / KIT_FILE, delimiter=",", required=_KIT_COLUMNS)
    _check_names(metadata, "file_name")
    metadata.check("exam_id", count_fault)
    for column in ("original_width", "width", "pixel_size_mm", "head_circumference_mm"):
        metadata.check(column, positive_fault)
    _check_examinations(metadata)
    metadata.findings.raise_if_any()
    extra = {}
    if "sha256" in metadata.columns:
        digests = [r.values["sha256"] or None for r in metadata.records]
        extra["listed_sha256"] = pd.Series(pd.array(digests, dtype="string"))
    return _listing(
        metadata,
        KIT_FILE,
        names=[r.values["file_name"] for r in metadata.records],
        folder=image_folder(root, "images"),
        examinations=[canonical_number(r.values["exam_id"]) for r in metadata.records],
        pixel_size_mm=[_resized_pixel_mm(r) for r in metadata.records],
        circumference_mm=[float(r.values["head_circumference_mm"]) for r in metadata.records],
        extra=extra,
    )


def _listing(
    metadata: StrictTable,
    metadata_file: str,
    *,
    names: list[str],
    folder: str,
    examinations: list[str],
    pixel_size_mm: list[float],
    circumference_mm: list[float],
    extra: dict[str, pd.Series] | None = None,
) -> Listing:
    prefix = f"{folder}/" if folder else ""
    columns: dict[str, list[str | int | None]] = {
        "image_id": [name.removesuffix(".png") for name in names],
        "path": [prefix + name for name in names],
        "patient_id": [*examinations],
        "plane": ["Fetal brain"] * len(names),
        "row": [record.line for record in metadata.records],
    }
    measured = {
        "head_circumference_mm": pd.Series(circumference_mm, dtype="float64"),
        "pixel_size_mm": pd.Series(pixel_size_mm, dtype="float64"),
    }
    table = listing_table(columns, {**measured, **(extra or {})})
    return Listing(INFO, table, metadata_file, metadata.sha256, metadata.as_text())


def _check_names(metadata: StrictTable, column: str) -> None:
    metadata.check(column, name_fault, code="D021")
    metadata.check(
        column,
        lambda name: (
            None
            if _NAME.fullmatch(name)
            else f"found {shown(name)}, expected a name like 010_HC.png or 010_2HC.png"
        ),
        code="D021",
    )
    metadata.check_unique(column)


def _check_examinations(metadata: StrictTable) -> None:
    for record in metadata.records:
        named, number = _examination(record.values["file_name"]), record.values["exam_id"]
        if named and named != canonical_number(number):
            metadata.findings.add(
                "D025",
                f"is {shown(number)} but the file name says {named}; expected the same "
                "examination, mend the row",
                row=record.line,
                column="exam_id",
            )


def _examination(name: str) -> str:
    """Examination number in a file name, without leading zeros; empty if the name has none."""
    found = _NAME.fullmatch(name)
    return canonical_number(found[1]) if found else ""


def _resized_pixel_mm(record: Record) -> float:
    """Pixel size of the resized image in mm, from the kit's value for the larger original."""
    value = record.values
    return float(value["pixel_size_mm"]) * float(value["original_width"]) / float(value["width"])
