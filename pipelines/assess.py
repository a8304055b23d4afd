"""Assess images made elsewhere: lays out the data of a run in which nothing is trained."""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from governance.records.errors import ConfigError, DataError
from governance.records.files import sha256_bytes, sha256_file, write_atomic
from medisynth.data.adapters import Listing, locate_data_set
from medisynth.data.adapters.assessed import (
    COLUMNS,
    FACTS,
    REAL_FOLDER,
    TABLE,
    TRAINING_FOLDER,
)
from medisynth.data.adapters.selection import missing_images, missing_images_error, select_planes
from medisynth.data.reading.conversion import Conversion
from medisynth.data.reading.kinds import kind_at
from medisynth.models.elsewhere import NAME, folder_digest, image_files
from pipelines.config.model import RunConfig, load_config
from pipelines.current_run.places import LAID_OUT, refuse_in_data

NO_UNIT = "image"  # unit of a data set that does not say which images are of one patient
_LEAST_SYNTHETIC = 16
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm")
_LABELS = ("plane", "brain_plane", "operator", "machine", "site")
_NO_PATIENTS = (
    "No patient is recorded: each image counts as a patient of its own, so intervals are too narrow "
    "where patients have several images."
)


@dataclass(frozen=True)
class Asked:
    """What is to be assessed.

    Attributes:
        real: Folder of real images that the synthetic ones are compared with.
        synthetic: Folder of synthetic images.
        training: Folder of the images that their generator was trained on; None where unknown.
        size: Side that all images are brought to; None takes that of the synthetic images.
        fit: How a frame becomes square.
        planes: Planes of the real data set that are used.
        config: Configuration file for everything else; None for none.
        workspace: Folder of runs.
        seed: Seed of draws and resampling.
        overrides: Further settings, as "KEY=VALUE".
    """

    real: Path
    synthetic: Path
    training: Path | None = None
    size: int | None = None
    fit: str = "pad"
    planes: str = "default"
    config: Path | None = None
    workspace: str | None = None
    seed: int = 0
    overrides: tuple[str, ...] = ()


_DESCRIBE = "describe the folder by `medisynth-gov data init`, so that they are read"
_REMEDY = {
    "--synthetic": "save them losslessly as PNG",
    "--real": _DESCRIBE,
    "--training": _DESCRIBE,
}


@dataclass(frozen=True)
class _Source:
    """Images of one folder: rows of the table to lay out, and facts of the data set.

    `adapter` is the name of the adapter that knew the layout; "" for none. `convert` says how its
    files are read which are no 8-bit PNG.
    """

    folder: Path
    adapter: str
    rows: list[dict[str, str]]
    facts: dict[str, Any] = field(default_factory=dict)
    convert: Conversion = field(default_factory=Conversion)


def assessment_config(asked: Asked) -> RunConfig:
    """Lay the real images out in the workspace and return the configuration of the run.

    Files are copied; nothing is written to the folders given. The same files give the same folder,
    which is not laid out a second time.

    Raises:
        ConfigError: Folders lie in one another, or the synthetic images differ in size and no size
            was asked for.
        DataError: A folder is missing or empty, holds no PNG image or other images besides, or
            cannot be listed.
    """
    folders = {"--real": asked.real, "--synthetic": asked.synthetic}
    if asked.training is not None:
        folders["--training"] = asked.training
    resolved = {key: _folder(key, path) for key, path in folders.items()}
    _refuse_overlaps(resolved)
    synthetic = resolved["--synthetic"]
    n_synthetic, size = _measured(synthetic, asked.size)
    flags = {"workspace": asked.workspace, "seed": asked.seed, "data.path": str(resolved["--real"])}
    base = _config(asked, flags)
    for path in resolved.values():
        refuse_in_data("workspace", base.workspace_path, path)
    real = _listed(resolved["--real"], REAL_FOLDER, asked.planes)
    training = (
        _listed(resolved["--training"], TRAINING_FOLDER, asked.planes)
        if "--training" in resolved
        else None
    )
    data = _lay_out(real, training, base.workspace_path / LAID_OUT)
    base = _config(asked, flags | {"data.path": str(data), "data.adapter": "assessed"})
    convert = base.data.convert.over(real.convert)
    convert = convert if training is None else convert.over(training.convert)
    settings = {
        "folder": str(synthetic),
        "digest": folder_digest(synthetic),
        "size": size,
        "fit": asked.fit,
        "has_training": training is not None,
    }
    return base.model_validate(
        base.model_dump()
        | {
            "data": base.data.model_dump()
            | {"planes": "all", "fit": asked.fit, "convert": convert.model_dump()},
            "model": {"name": NAME, "settings": settings},
            "split": base.split.model_dump()
            | (
                {"source": "official", "tuning_from": "held-out"}
                if training is not None
                else {"source": "computed", "test_fraction": 0.5}
            ),
            "training": base.training.model_dump() | {"repeat_steps": 0, "preview_every": 0},
            "evaluation": base.evaluation.model_dump()
            | {"n_synthetic": min(n_synthetic, base.evaluation.n_synthetic), "utility": False},
        }
    )


def _config(asked: Asked, flags: dict[str, Any]) -> RunConfig:
    return load_config(asked.config, preset="laptop", flags=flags, overrides=asked.overrides)


def _folder(key: str, path: Path) -> Path:
    place = path.expanduser().resolve()
    if not place.is_dir():
        what = f"is {kind.what}" if (kind := kind_at(place)) else "no such folder"
        raise DataError(f"{key}: {place}: {what}, expected a folder of images", code="D001")
    if not any(place.iterdir()):
        raise DataError(f"{key}: {place}: the folder is empty; expected images", code="D003")
    return place


def _refuse_overlaps(folders: Mapping[str, Path]) -> None:
    for key, path in folders.items():
        for other, around in folders.items():
            if key != other and path.is_relative_to(around):
                where = "is the same folder as" if path == around else "lies in"
                raise ConfigError(
                    f"{key}: {path} {where} {other}, so images would be compared with themselves; "
                    "give separate folders"
                )


def _measured(folder: Path, size: int | None) -> tuple[int, int]:
    """Return the number of synthetic images and the side they are brought to."""
    from PIL import Image, UnidentifiedImageError

    files = _only_png("--synthetic", folder)
    if len(files) < _LEAST_SYNTHETIC:
        raise DataError(
            f"--synthetic: {folder}: found {len(files):,} images, expected at least "
            f"{_LEAST_SYNTHETIC}; fewer tell nothing",
            code="D003",
        )
    sizes: dict[tuple[int, int], Path] = {}
    for path in files:
        try:
            with Image.open(path) as image:
                sizes.setdefault(image.size, path)
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise DataError(
                f"--synthetic: {path}: cannot be read as PNG; replace or remove it", code="D010"
            ) from error
    if size is None and len(sizes) > 1:
        named = ", ".join(f"{w} x {h} ({path.name})" for (w, h), path in list(sizes.items())[:3])
        raise ConfigError(
            f"--synthetic: {folder}: images of {len(sizes)} sizes ({named}); give --size to bring "
            "all to one"
        )
    return len(files), size or max(next(iter(sizes)))


def _only_png(key: str, folder: Path) -> list[Path]:
    others = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _IMAGE_ENDINGS)
    if others:
        kind = kind_at(others[0])
        raise DataError(
            f"{key}: {folder}: {len(others):,} files are no PNG image, first "
            f"{others[0].relative_to(folder)} ({kind.what if kind else 'by its ending'}); "
            f"{_REMEDY[key]}, or take them out",
            code="D010",
        )
    files = image_files(folder)
    if not files:
        raise DataError(f"{key}: {folder}: no PNG image in it; expected images", code="D003")
    return files


def _listed(folder: Path, role: str, planes: str) -> _Source:
    """List a folder by the adapter that knows its layout; else each PNG file is a patient."""
    try:
        adapter, root = locate_data_set(folder)
    except DataError as error:
        if error.code in ("D002", "D003"):
            raise
        return _plain(folder, role)
    listing = adapter.list_images(root)
    table = select_planes(listing, planes)
    missing = missing_images(root, table)
    if missing.any():
        raise missing_images_error(root, table, missing, metadata_file=listing.metadata_file)
    rows = [
        {
            "image": f"{role}-{row.image_id}",
            "path": str(row.path),
            "patient": str(row.patient_id),
            **{name: _text(getattr(row, name)) for name in _LABELS},
        }
        for row in table.itertuples()
    ]
    return _Source(root, adapter.name, rows, _facts(listing), listing.convert)


def _facts(listing: Listing) -> dict[str, Any]:
    info = listing.info
    return {
        "title": info.title,
        "version": info.version,
        "doi": info.doi,
        "licence": info.licence,
        "citation": info.citation,
        "split_unit": info.split_unit,
        "split_unit_note": info.split_unit_note,
        "absent_attributes": info.absent_attributes,
        "notes": list(info.notes),
        "is_simulated": info.is_simulated,
    }


def _plain(folder: Path, role: str) -> _Source:
    """List the PNG files of a folder of no known layout."""
    rows = []
    for number, path in enumerate(_only_png(f"--{role}", folder), start=1):
        name = path.relative_to(folder).as_posix()
        patient = f"{role} {number}"
        rows.append({"image": f"{role}-{number:06d}", "path": name, "patient": patient})
    facts = {
        "title": f"Folder {folder.name}",
        "version": "",
        "doi": "",
        "licence": "not stated",
        "citation": "",
        "split_unit": NO_UNIT,
        "split_unit_note": _NO_PATIENTS,
        "absent_attributes": dict.fromkeys(
            ("patient", *_LABELS), "results by it cannot be computed"
        ),
        "notes": [_NO_PATIENTS],
        "is_simulated": False,
    }
    return _Source(folder, "", rows, facts)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _lay_out(real: _Source, training: _Source | None, ours: Path) -> Path:
    """Copy all images into a folder named by their content, with table and facts."""
    parts = [(REAL_FOLDER, "real" if training else "", real)]
    if training is not None:
        parts.append((TRAINING_FOLDER, "training", training))
    # In two data sets the same number is of two patients; in two folders of one set, of the same.
    one_set = training is None or training.adapter == real.adapter
    rows: list[dict[str, str]] = []
    copies: list[tuple[Path, str]] = []
    for role, partition, source in parts:
        for number, row in enumerate(source.rows):
            path = f"{role}/{number:07d}.png"
            copies.append((source.folder / row["path"], path))
            patient = row["patient"] if one_set else f"{role} {row['patient']}"
            own = {"path": path, "partition": partition, "patient": patient}
            rows.append({**dict.fromkeys(COLUMNS, ""), **row, **own})
    facts = dict(real.facts)
    if training is not None:
        facts["notes"] = [*facts["notes"], f"Training images: {training.facts['title']}."]
        if NO_UNIT in (real.facts["split_unit"], training.facts["split_unit"]):
            facts |= {"split_unit": NO_UNIT, "split_unit_note": _NO_PATIENTS}
    table, described = _csv(rows), json.dumps(facts, ensure_ascii=False, indent=1).encode()
    digests = "".join(sha256_file(path) for path, _ in copies)
    name = sha256_bytes(table + described + digests.encode())[:16]
    folder = ours / name
    if (folder / TABLE).is_file():  # written last: the folder is whole
        return folder
    for source_path, path in copies:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source_path, target)
    write_atomic(folder / FACTS, described)
    write_atomic(folder / TABLE, table)
    return folder


def _csv(rows: Iterable[Mapping[str, str]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8")
