"""Any data set with a table: the file `dataset.yaml` says what its columns and values mean."""

import json
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from governance.records.base import TEST, TRAINING
from governance.records.errors import DataError
from governance.records.files import sha256_bytes
from governance.records.yaml_text import describe, read_yaml
from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.layout import KnownTable
from medisynth.data.adapters.listing_table import listing_table
from medisynth.data.reading.conversion import Conversion
from medisynth.data.reading.csv_table import (
    Record,
    StrictTable,
    canonical_number,
    count_fault,
    filled_fault,
    name_fault,
    positive_fault,
    shown,
)
from medisynth.data.reading.declared_table import TableFile, read_table

DATASET_FILE, SCHEMA_FILE = "dataset.yaml", "dataset.schema.json"
LABELS = ("plane", "brain_plane", "operator", "machine", "site")
MEASURES = ("pixel_size_mm", "head_circumference_mm")
PARTITIONS = (TRAINING, TEST)
UNKNOWN_LABEL = "results by it cannot be computed"
_LEVELS_SHOWN = 6

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Label = Literal["plane", "brain_plane", "operator", "machine", "site"]
Mapped = Literal["plane", "brain_plane", "operator", "machine", "site", "partition"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Columns(_Part):
    """Name of the column that holds each thing; None where the table does not say it.

    Attributes:
        patient: Unit that is never divided between training and test.
        id: Unique name of each image; None takes the file's name.
        frame: Number of the frame in a file of several, from 1.
        plane: View, e.g. "Fetal brain".
        brain_plane: Plane of a brain image, e.g. "Trans-thalamic".
        operator: Who held the probe.
        machine: Ultrasound machine.
        site: Hospital or centre.
        partition: Official part, "training" or "held-out test set" (see `values`).
        pixel_size_mm: Side of a pixel of the image as stored.
        head_circumference_mm: As measured.
        sha256: SHA-256 of the image file, compared when it is read.
    """

    patient: Text
    id: Text | None = None
    frame: Text | None = None
    plane: Text | None = None
    brain_plane: Text | None = None
    operator: Text | None = None
    machine: Text | None = None
    site: Text | None = None
    partition: Text | None = None
    pixel_size_mm: Text | None = None
    head_circumference_mm: Text | None = None
    sha256: Text | None = None


class DatasetFile(_Part):
    """The content of `dataset.yaml`: what a table and its columns mean.

    Attributes:
        format: Version of this form, 1.
        title: Full title of the data set.
        licence: Licence of the data, or "not stated".
        version: Publisher's version.
        doi: DOI.
        citation: How to cite it.
        split_unit: What `columns.patient` names: "patient" or "examination".
        split_unit_note: What that unit can and cannot guarantee.
        is_simulated: True when no patient is behind any image.
        table: The table and how it is written.
        path: Where an image lies, relative to the folder, with names of columns in braces, e.g.
            "{patient}/{file}.jpg".
        columns: Which column means what.
        fixed: The value of a label that is the same for all images, e.g. plane.
        values: For a label or the partition, each value of its column and the level that it means;
            "" for "not recorded". Where a label is listed here, every value must be.
        default_planes: Planes that are used unless `data.planes` says otherwise; empty for all.
        masks: Patterns of files that lie beside the images and are not read.
        absent: What is not recorded, each with what that prevents.
        notes: What a reader of reports must know.
        convert: How files that are no 8-bit PNG are read; `data.convert` of a run goes before it.
    """

    format: Literal[1] = 1
    title: Text
    licence: Text
    version: str = ""
    doi: str = ""
    citation: str = ""
    split_unit: Literal["patient", "examination"] = "patient"
    split_unit_note: str = ""
    is_simulated: bool = False
    table: TableFile
    path: Text
    columns: Columns
    fixed: dict[Label, Text] = Field(default_factory=dict)
    values: dict[Mapped, dict[str, str]] = Field(default_factory=dict)
    default_planes: list[Text] = Field(default_factory=list)
    masks: list[Text] = Field(default_factory=list)
    absent: dict[str, Text] = Field(default_factory=dict)
    notes: list[Text] = Field(default_factory=list)
    convert: Conversion = Conversion()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        parts = list(string.Formatter().parse(self.path))
        odd = [
            part for part in parts if part[1] is not None and (not part[1] or part[2] or part[3])
        ]
        if odd or not self.path_columns:
            raise ValueError("path: expected names of columns alone in braces, e.g. {file}")
        both = [name for name in self.fixed if getattr(self.columns, name) is not None]
        if both:
            raise ValueError(f"fixed.{both[0]}: columns.{both[0]} names a column already; keep one")
        for name, levels in self.values.items():
            if getattr(self.columns, name) is None:
                raise ValueError(f"values.{name}: columns.{name} names no column")
            wrong = [
                v for v in levels.values() if name == "partition" and v not in (*PARTITIONS, "")
            ]
            if wrong:
                raise ValueError(
                    f"values.partition: expected {' or '.join(map(repr, PARTITIONS))}, found {wrong[0]!r}"
                )
        return self

    @property
    def path_columns(self) -> tuple[str, ...]:
        """Columns that the path names, in order; ValueError where its braces do not close."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.path) if name)

    def place(self, values: Mapping[str, str]) -> str:
        """Return the path for a row; a dot or bracket in a column's name means nothing special."""
        parts = string.Formatter().parse(self.path)
        return "".join(text + (values[name] if name else "") for text, name, _, _ in parts)

    def needed(self) -> list[str]:
        """Every column of the table that is named, once."""
        named = [name for name in self.columns.model_dump().values() if name is not None]
        return list(dict.fromkeys([*named, *self.path_columns]))


def schema_json() -> bytes:
    """Return the JSON Schema of `dataset.yaml`, for editors; the same bytes every time."""
    schema = DatasetFile.model_json_schema()
    return (json.dumps(schema, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def read_dataset_file(path: Path) -> tuple[DatasetFile, str]:
    """Read a `dataset.yaml`; return its content and its SHA-256.

    Raises:
        DataError: D027 it cannot be read or holds an unknown key or an unusable value; the message
            names file, line and key.
    """

    def fault(message: str) -> DataError:
        return DataError(message, code="D027")

    read = read_yaml(
        path,
        path.name,
        what="a description of a data set",
        hint="data init DIR makes one",
        error=fault,
    )
    try:
        return DatasetFile.model_validate(read.content), sha256_bytes(read.data)
    except ValidationError as error:
        where = f"{path.name}:"
        words = describe(
            error, DatasetFile, where=lambda key: f"{where}{read.line(key.split('.'))}: "
        )
        raise fault(words) from error


class TableAdapter:
    """Adapter of a folder with a `dataset.yaml`."""

    name = "table"
    tables = (KnownTable(DATASET_FILE),)

    def __init__(self) -> None:
        self.companions: tuple[str, ...] = (SCHEMA_FILE,)

    def detects(self, root: Path) -> bool:
        """Whether a `dataset.yaml` is there."""
        return (root / DATASET_FILE).is_file()

    def list_images(self, root: Path) -> Listing:
        """Read `dataset.yaml` and its table and list every image; opens no image.

        Raises:
            DataError: One of the two is unreadable, a column is missing, or a value is not what its
                column means; all findings are attached.
        """
        meaning, sha256 = read_dataset_file(root / DATASET_FILE)
        self.companions = (SCHEMA_FILE, *meaning.masks)
        table = read_table(root, meaning.table, meaning.needed())
        paths = [_path(meaning, record, table) for record in table.records]
        ids = _ids(meaning, table, paths)
        _check(meaning, table, paths, ids)
        table.findings.raise_if_any()
        return Listing(
            _info(meaning),
            _rows(meaning, table, paths, ids),
            meaning.table.file,
            table.sha256,
            table.as_text(),
            meaning.convert,
            sha256,
        )


def _info(meaning: DatasetFile) -> DatasetInfo:
    unknown = {
        name.replace("_", " ") if name != "brain_plane" else name: UNKNOWN_LABEL
        for name in LABELS
        if getattr(meaning.columns, name) is None and name not in meaning.fixed
    }
    note = meaning.split_unit_note
    if meaning.split_unit == "examination" and not note:
        note = "Only examinations are known: one woman may have several."
    return DatasetInfo(
        name=TableAdapter.name,
        title=meaning.title,
        version=meaning.version,
        doi=meaning.doi,
        licence=meaning.licence,
        citation=meaning.citation,
        split_unit=meaning.split_unit,
        split_unit_note=note,
        absent_attributes={**unknown, **meaning.absent},
        notes=tuple(meaning.notes),
        is_simulated=meaning.is_simulated,
        default_planes=tuple(meaning.default_planes),
    )


def _path(meaning: DatasetFile, record: Record, table: StrictTable) -> str:
    for name in dict.fromkeys(meaning.path_columns):
        if fault := filled_fault(record.values[name]):
            table.findings.add("D021", fault, row=record.line, column=name)
    path = meaning.place(record.values).replace("\\", "/")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not path.isprintable():
        table.findings.add(
            "D021",
            f"gives the path {shown(path)}, expected one inside the data folder",
            row=record.line,
            column=meaning.path_columns[0],
        )
    return pure.as_posix()


def _ids(meaning: DatasetFile, table: StrictTable, paths: list[str]) -> list[str]:
    """Return the name of each image: as the table says, or from path and frame."""
    if meaning.columns.id is not None:
        return [record.values[meaning.columns.id] for record in table.records]
    stems = [PurePosixPath(path).with_suffix("").as_posix() for path in paths]
    files_of = Counter(stem for stem, _ in set(zip(stems, paths, strict=True)))
    flat = [
        (stem if files_of[stem] == 1 else path.replace(".", "_")).replace("/", "_").lstrip(".")
        for stem, path in zip(stems, paths, strict=True)
    ]
    frame = meaning.columns.frame
    numbers = [record.values[frame] if frame else "" for record in table.records]
    return [
        f"{name}_frame{number.zfill(4)}" if number else name
        for name, number in zip(flat, numbers, strict=True)
    ]


def _check(meaning: DatasetFile, table: StrictTable, paths: list[str], ids: list[str]) -> None:
    columns = meaning.columns
    table.check(columns.patient, filled_fault)
    for name in MEASURES:
        column = getattr(columns, name)
        if column is not None:
            table.check(column, lambda value: positive_fault(value) if value else None)
    if columns.frame is not None:
        table.check(columns.frame, lambda v: _frame_fault(v) if v else None)
    for name in ("partition", *LABELS):
        column = getattr(columns, name)
        if column is not None:
            for record in table.records:
                fault = _level_fault(meaning, name, record.values[column])
                if fault:
                    table.findings.add("D022", fault, row=record.line, column=column)
    _check_ids(table, paths, ids, columns.id or meaning.path_columns[-1])


def _check_ids(table: StrictTable, paths: list[str], ids: list[str], column: str) -> None:
    first: dict[str, tuple[int, str]] = {}
    for record, image_id, path in zip(table.records, ids, paths, strict=True):
        if fault := name_fault(image_id):
            table.findings.add("D021", fault, row=record.line, column=column)
        line, other = first.setdefault(image_id, (record.line, path))
        if line != record.line:
            table.findings.add(
                "D020",
                f"{shown(image_id)} is listed already in row {line} ({shown(other)}); expected each "
                "image once, remove one of the two rows or name a column with unique names "
                "(columns.id)",
                row=record.line,
                column=column,
            )


def _frame_fault(value: str) -> str | None:
    if count_fault(value) or int(value) < 1:
        return f"found {shown(value)}, expected the number of a frame, from 1"
    return None


def _level_fault(meaning: DatasetFile, name: str, value: str) -> str | None:
    """Say why a value means no level; None if it does or nothing is said of the column."""
    levels = meaning.values.get(name)  # type: ignore[call-overload]
    if name == "partition":
        known = {*(levels or {}), *PARTITIONS}
    elif levels is None:
        return None
    else:
        known = {*levels, *levels.values()}
    if value in known or not value:
        return None
    near = get_close_matches(value, known, n=1, cutoff=0.5)
    named = ", ".join(sorted(map(shown, filter(None, known)))[:_LEVELS_SHOWN])
    return (
        f"found {shown(value)}, which values.{name} in dataset.yaml does not map; known are {named}"
        f"{f'; nearest is {shown(near[0])}' if near else ''}"
    )


def _rows(
    meaning: DatasetFile, table: StrictTable, paths: list[str], ids: list[str]
) -> pd.DataFrame:
    values = [record.values for record in table.records]
    columns = meaning.columns
    listed: dict[str, list[str | int | None]] = {
        "image_id": [*ids],
        "path": [*paths],
        "patient_id": [canonical_number(v[columns.patient]) for v in values],
        "row": [record.line for record in table.records],
    }
    for name in ("partition", *LABELS):
        column = getattr(columns, name)
        levels: dict[str, str] = meaning.values.get(name, {})  # type: ignore[call-overload]
        if column is not None:
            target = "official_partition" if name == "partition" else name
            listed[target] = [levels.get(v[column], v[column]) or None for v in values]
        elif name in meaning.fixed:
            listed[name] = [meaning.fixed[name]] * len(values)
    return listing_table(listed, dict(_extra(meaning, values)))


def _extra(meaning: DatasetFile, values: list[dict[str, str]]) -> Iterator[tuple[str, pd.Series]]:
    columns = meaning.columns
    for name in MEASURES:
        column = getattr(columns, name)
        if column is not None and all(v[column] for v in values):
            yield name, pd.Series([float(v[column]) for v in values], dtype="float64")
    if columns.frame is not None:
        frames = [int(v[columns.frame]) if v[columns.frame] else None for v in values]
        yield "frame", pd.Series(pd.array(frames, dtype="Int64"))
    if columns.sha256 is not None:
        digests = [v[columns.sha256].lower() or None for v in values]
        yield "listed_sha256", pd.Series(pd.array(digests, dtype="string"))
