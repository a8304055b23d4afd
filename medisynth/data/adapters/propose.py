"""Propose a `dataset.yaml` for a folder: what its table, its paths or its DICOM headers seem to mean.

Every proposal is a guess by names and by what fits the files; what could not be known is said.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from governance.records.base import TEST, TRAINING
from governance.records.errors import DataError
from governance.records.files import write_together
from medisynth.data.adapters.found_files import (
    IMAGES,
    FoundFiles,
    counts,
    dicom_rows,
    special_pixels,
)
from medisynth.data.adapters.table import (
    DATASET_FILE,
    LABELS,
    SCHEMA_FILE,
    UNKNOWN_LABEL,
    DatasetFile,
    schema_json,
)
from medisynth.data.reading.csv_table import StrictTable, shown
from medisynth.data.reading.declared_table import TableFile, read_table, sniffed

MADE_TABLE = "images.csv"
_LEAST_SHARE = 0.5  # of the rows whose image must be found for a column to name the images
_MOST_LEVELS = 40

# words in the name of a column, folded to letters; the first column that fits is taken
_WORDS: dict[str, tuple[str, ...]] = {
    "patient": ("patientid", "patientnum", "patientnumber", "patient", "patid", "pat", "subjectid",
                "subject", "caseid", "case", "woman", "fall", "fallnummer", "patientin", "examid",
                "exam", "examination", "studyid", "study", "untersuchung"),
    "plane": ("plane", "view", "planename", "ebene", "schnittebene", "schnitt", "class", "label"),
    "brain_plane": ("brainplane", "subplane", "hirnebene"),
    "operator": ("operator", "sonographer", "examiner", "untersucher"),
    "machine": ("usmachine", "machine", "scanner", "device", "geraet", "gerat", "gerät", "model",
                "manufacturermodelname"),
    "site": ("site", "center", "centre", "hospital", "clinic", "klinik", "zentrum", "country"),
    "partition": ("partition", "split", "train", "set", "subset", "fold"),
    "frame": ("frame", "framenumber", "frameindex"),
    "pixel_size_mm": ("pixelsizemm", "pixelsize", "pixelspacing", "spacing", "mmperpixel",
                      "pixelgrössemm", "pixelgroessemm", "pixelgrösse"),
    "head_circumference_mm": ("headcircumferencemm", "headcircumference", "hcmm", "hc"),
    "sha256": ("sha256",),
}  # fmt: skip
_EXAMINATION = ("exam", "study", "untersuchung")
_PLANES = {
    "Fetal brain": ("fetalbrain", "brain", "head", "kopf", "hirn", "gehirn", "fetalhead"),
    "Fetal abdomen": ("fetalabdomen", "abdomen", "bauch"),
    "Fetal femur": ("fetalfemur", "femur", "oberschenkel"),
    "Fetal thorax": ("fetalthorax", "thorax", "heart", "herz"),
    "Maternal cervix": ("maternalcervix", "cervix"),
    "Other": ("other", "andere", "sonstige", "rest"),
}
_BRAIN_PLANES = {
    "Trans-thalamic": ("transthalamic", "thalamic", "tt"),
    "Trans-cerebellum": ("transcerebellum", "transcerebellar", "cerebellar", "cerebellum", "tc"),
    "Trans-ventricular": ("transventricular", "ventricular", "tv"),
    "Other": ("other",),
}
_PARTITIONS = {
    TRAINING: ("training", "train", "1", "tr"),
    TEST: ("heldouttestset", "heldout", "test", "testing", "0", "te"),
}


@dataclass
class Proposal:
    """A proposed `dataset.yaml`.

    Attributes:
        meaning: Its content.
        known: What was found, one sentence each.
        unknown: What could not be known, one sentence each.
        table: A table to write beside it, where the folder has none; None else.
    """

    meaning: DatasetFile
    known: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    table: bytes | None = None

    def yaml(self) -> bytes:
        """Return the file as YAML with comments for what must be filled in."""
        values = self.meaning.model_dump(mode="json", exclude_defaults=True)
        content = CommentedMap({"format": 1, **values})
        content.yaml_set_start_comment(
            f"yaml-language-server: $schema={SCHEMA_FILE}\n"
            "What the table of this data set means; made by `data init`, to be read and corrected.\n"
            + "".join(f"Not known: {line}\n" for line in self.unknown)
        )
        buffer = io.BytesIO()
        writer = YAML()
        writer.width = 4096
        writer.dump(content, buffer)
        return buffer.getvalue()


def propose(root: Path, progress: Callable[[int, int], None] | None = None) -> Proposal:
    """Look at a folder and propose its `dataset.yaml`.

    Args:
        root: Data folder; read only.
        progress: Called with DICOM files read and DICOM files in all.

    Raises:
        DataError: The folder holds no image, or its table cannot be read.
    """
    files = FoundFiles(root)
    if not files.images:
        raise DataError(
            f"{root}: no image in it; expected files ending in {', '.join(IMAGES)} or DICOM files",
            code="D033",
        )
    candidates = [t for name in files.tables if (t := _Table.of(root, name, files)) is not None]
    table = max(candidates, key=lambda t: t.share, default=None)
    if table is not None and table.share >= _LEAST_SHARE:
        proposal = _from_table(table, files)
        others = [name for name in files.tables if name != table.declared.file]
        if others:
            proposal.known.append(f"not read: {', '.join(others[:5])}")
    else:
        proposal = _from_files(root, files, progress)
        if files.tables:
            proposal.unknown.append(
                f"no column of {', '.join(files.tables[:3])} names the images of this folder"
            )
    return proposal


def begin(
    root: Path, progress: Callable[[int, int], None] | None = None
) -> tuple[Proposal, list[Path]]:
    """Propose a `dataset.yaml` and write it into the folder with its JSON Schema; nothing is overwritten.

    Returns:
        The proposal, and the files written, `dataset.yaml` first.

    Raises:
        DataError: The folder is missing, holds no image or has one of the files already.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the data set's folder", code="D001")
    if os.path.lexists(root / DATASET_FILE):
        raise DataError(
            f"{root / DATASET_FILE}: is there already and nothing is overwritten; move it away to "
            "propose a new one",
            code="D027",
        )
    proposal = propose(root, progress)
    files = {root / DATASET_FILE: proposal.yaml(), root / SCHEMA_FILE: schema_json()}
    if proposal.table is not None:
        if os.path.lexists(root / MADE_TABLE):
            raise DataError(
                f"{root / MADE_TABLE}: is there already and nothing is overwritten, but none of its "
                "columns names the images; move it away",
                code="D027",
            )
        files[root / MADE_TABLE] = proposal.table
    write_together(files)
    return proposal, list(files)


@dataclass
class _Table:
    """One table, and how its rows lead to images."""

    declared: TableFile
    table: StrictTable
    column: str
    share: float
    places: list[str | None]

    @classmethod
    def of(cls, root: Path, name: str, files: FoundFiles) -> "_Table | None":
        try:
            declared = sniffed(root, name)
            if declared is None:
                return None
            table = read_table(root, declared, ())
        except DataError:
            if len(files.tables) == 1:
                raise
            return None
        best: _Table | None = None
        for column in table.columns:
            places = [_place(record.values, column, files) for record in table.records]
            found = [place for place in places if place is not None]
            share = len(found) / len(places)
            if len(set(found)) * 2 > len(found) and (best is None or share > best.share):
                best = cls(declared, table, column, share, places)
        return best


def _place(values: dict[str, str], column: str, files: FoundFiles) -> str | None:
    """Return the image that a cell names; of several of one name the one whose folder the row names."""
    value = values[column].replace("\\", "/").removeprefix("./")
    pure = PurePosixPath(value)
    found = files.by_name.get(value.casefold()) or files.by_name.get(pure.name.casefold()) or []
    if len(found) > 1:
        others = {v for name, v in values.items() if name != column and v}
        found = [path for path in found if others.intersection(PurePosixPath(path).parts[:-1])]
    return found[0] if len(found) == 1 else None


def _pattern(table: _Table) -> str | None:
    """Return the path of the images with names of columns in braces; None if there is no rule."""
    rows = [
        (record.values, PurePosixPath(place))
        for record, place in zip(table.table.records, table.places, strict=True)
        if place is not None
    ]
    depths = {len(pure.parts) for _, pure in rows}
    if len(depths) != 1:
        return None
    column = table.column
    own = [
        PurePosixPath(values[column].replace("\\", "/").removeprefix("./")) for values, _ in rows
    ]
    n_own = {len(pure.parts) for pure in own}
    if len(n_own) != 1:
        return None
    tail = _tail(own, [pure for _, pure in rows])
    if tail is None:
        return None
    parts = []
    for position in range(depths.pop() - n_own.pop()):
        found = {pure.parts[position] for _, pure in rows}
        if len(found) == 1:
            parts.append(found.pop().replace("{", "{{").replace("}", "}}"))
            continue
        named = [
            name
            for name in table.table.columns
            if all(values[name] == pure.parts[position] for values, pure in rows)
        ]
        if not named:
            return None
        parts.append(f"{{{named[0]}}}")
    return "/".join([*parts, f"{{{column}}}{tail}"])


def _tail(own: list[PurePosixPath], found: list[PurePosixPath]) -> str | None:
    """Return the ending that all cells lack; "" if none does, None if it differs."""
    tails = {
        there.name.removeprefix(here.name) if there.name.startswith(here.name) else None
        for here, there in zip(own, found, strict=True)
    }
    tail = tails.pop() if len(tails) == 1 else None
    return tail


def _from_table(table: _Table, files: FoundFiles) -> Proposal:
    declared, read = table.declared, table.table
    known, unknown = (
        [f"table {declared.file}: {len(read.records):,} rows, {_written(declared)}"],
        [],
    )
    pattern = _pattern(table)
    if pattern is None:
        pattern = f"{{{table.column}}}"
        unknown.append(
            f"the rule from column {shown(table.column)} to the path of an image; correct `path`"
        )
    n_lost = sum(place is None for place in table.places)
    known.append(f"column {shown(table.column)} names the images: {pattern}")
    if n_lost:
        line = next(
            r.line for r, place in zip(read.records, table.places, strict=True) if place is None
        )
        unknown.append(f"where the images of {n_lost:,} rows are, the first in row {line}")
    columns = {name: column for name in _WORDS if (column := _column(name, read, table.column))}
    if "patient" not in columns:
        columns["patient"] = table.column
        unknown.append(
            "the patient: no column is named like one; name it in columns.patient, because now each "
            "image stands for a patient of its own"
        )
    values: dict[str, dict[str, str]] = {}
    for name, levels in (
        ("plane", _PLANES),
        ("brain_plane", _BRAIN_PLANES),
        ("partition", _PARTITIONS),
    ):
        if name in columns:
            _map_levels(name, levels, columns, read, values, unknown)
    is_exam = "".join(filter(str.isalpha, columns["patient"].casefold())).startswith(_EXAMINATION)
    content: dict[str, Any] = {
        "table": declared.model_dump(),
        "path": pattern,
        "columns": columns,
        "values": values,
        "split_unit": "examination" if is_exam else "patient",
    }
    return _finished(content, files, known, unknown)


def _written(declared: TableFile) -> str:
    if declared.file.lower().endswith((".parquet",)):
        return "Parquet"
    if not declared.file.lower().endswith((".csv", ".tsv", ".txt")):
        return f"a spreadsheet, header in row {declared.header_row}"
    sign = {"\t": "tabs"}.get(declared.delimiter, repr(declared.delimiter))
    comma = ", decimal commas" if declared.decimal == "," else ""
    return f"{declared.encoding}, fields separated by {sign}{comma}, header in row {declared.header_row}"


def _column(name: str, read: StrictTable, image: str) -> str | None:
    words = {
        "".join(c for c in column.casefold() if c.isalnum()): column
        for column in reversed(read.columns)
        if column != image
    }
    for word in _WORDS[name]:
        if column := words.get(word):
            if name.endswith("_mm") and not all(
                re.fullmatch(r"\d+(\.\d+)?", r.values[column]) for r in read.records[:100]
            ):
                continue
            return column
    return None


def _map_levels(
    name: str,
    levels: dict[str, tuple[str, ...]],
    columns: dict[str, str],
    read: StrictTable,
    values: dict[str, dict[str, str]],
    unknown: list[str],
) -> None:
    """Map the values of a column to the known levels; drop the column where none fits."""
    column = columns[name]
    counts = Counter(record.values[column] for record in read.records if record.values[column])
    if len(counts) > _MOST_LEVELS:
        del columns[name]
        unknown.append(
            f"{name}: column {shown(column)} has {len(counts):,} values, too many levels"
        )
        return
    words = {word: level for level, folded in levels.items() for word in folded}
    mapped: dict[str, str] = {}
    for value in sorted(counts):
        folded = "".join(c for c in value.casefold() if c.isalnum())
        near = get_close_matches(folded, words, n=1, cutoff=0.85)
        if near:
            mapped[value] = words[near[0]]
        elif name == "partition":
            mapped[value] = ""
            unknown.append(f"partition: what {shown(value)} of column {shown(column)} means")
        else:
            mapped[value] = value
            unknown.append(f"{name}: which known level {shown(value)} of {shown(column)} means")
    if name == "partition" and set(mapped.values()) != set(levels):
        del columns[name]
        unknown.append(
            f"the official partition: column {shown(column)} does not say training and test for all rows"
        )
        return
    if any(value != level for value, level in mapped.items()):
        values[name] = mapped


def _finished(
    content: dict[str, Any], files: FoundFiles, known: list[str], unknown: list[str]
) -> Proposal:
    """Add what is proposed whatever the table: conversions, masks, what is absent."""
    formats = files.formats()
    convert: dict[str, Any] = {"read": list(formats)} if formats else {}
    known.append(counts(files))
    for key, value, what in special_pixels(files):
        if value is None:
            unknown.append(what)
        else:
            convert[key] = value
            known.append(what)
    columns = content["columns"]
    fixed = content.setdefault("fixed", {})
    absent = {name: UNKNOWN_LABEL for name in LABELS if name not in columns and name not in fixed}
    if absent:
        unknown.append(f"{', '.join(absent)}: no column is named like one")
    if "plane" in absent:
        unknown.append("the plane: if all images show one, set e.g. fixed: {plane: Fetal brain}")
    planes = content["values"].get("plane", {}).values() if "plane" in columns else ()
    if "Fetal brain" in planes:
        content["default_planes"] = ["Fetal brain"]
    unknown.append("title and licence: replace them, reports print both")
    return Proposal(
        DatasetFile.model_validate(
            {
                "title": f"Images of {files.root.resolve().name}"[:200],
                "licence": "not stated",
                **content,
                "masks": files.masks,
                "absent": absent,
                "convert": convert,
            }
        ),
        known,
        unknown,
    )


def _from_files(
    root: Path, files: FoundFiles, progress: Callable[[int, int], None] | None
) -> Proposal:
    """Propose a table made from DICOM headers or from the names of folders and files."""
    known: list[str] = []
    unknown: list[str] = []
    if "dicom" in files.formats():
        rows = dicom_rows(root, files, unknown, progress)
        known.append("patient (numbered anew), machine and pixel size come from the DICOM headers")
    else:
        is_deep = all("/" in path for path in files.images)
        rows = [
            {"file": path, "patient": path.split("/")[0] if is_deep else str(n)}
            for n, path in enumerate(files.images, start=1)
        ]
        if is_deep:
            known.append("the patient is the first folder of the path; check that it is")
        else:
            unknown.append(
                f"the patient: nothing in the folder says it, so {MADE_TABLE} numbers the images; write "
                "the patients into it"
            )
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    names += ["patient"] if "patient" not in names else []
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    by_exam = "examination" in unknown
    content: dict[str, Any] = {
        "table": {"file": MADE_TABLE},
        "path": "{file}",
        "columns": {name: name for name in names if name != "file"},
        "values": {},
        "split_unit": "examination" if by_exam else "patient",
    }
    if by_exam:
        unknown[unknown.index("examination")] = (
            "the patient: PatientID is empty in a file, so StudyInstanceUID stands for an examination"
        )
    known.append(f"{MADE_TABLE} is written: {len(rows):,} rows")
    proposal = _finished(content, files, known, unknown)
    proposal.table = stream.getvalue().encode()
    return proposal
