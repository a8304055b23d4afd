"""What lies in a folder that is to become a data set: images, masks and tables."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from governance.records.errors import DataError
from medisynth.data.reading.folder import DataFolder
from medisynth.data.reading.kinds import kind_at, obstacle

_TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls", ".ods", ".parquet")
IMAGES = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff", ".dcm": "dicom",
    ".dicom": "dicom", ".ima": "dicom",
}  # fmt: skip
_MOST_FILES = 2_000_000
_MOST_LOOKED_AT = 2_000  # files opened to see what kind of pixels there are


class FoundFiles:
    """Names of a folder's images and tables, by what a table may call them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: list[str] = []
        self.tables: list[str] = []
        n_seen = 0
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = Path(folder).relative_to(root)
            for name in sorted(names):
                n_seen += 1
                is_seen = n_seen <= _MOST_FILES and not name.startswith(".")
                if not is_seen or not _is_regular(Path(folder) / name):
                    continue
                path = (below / name).as_posix()
                ending = PurePosixPath(name).suffix.lower()
                if ending in _TABLES:
                    if below.parts == () or len(below.parts) == 1:
                        self.tables.append(path)
                elif ending in IMAGES or _is_dicom(Path(folder) / name):
                    self.images.append(path)
        self.masks = _masks(self.images)
        self.images = [path for path in self.images if not _is_mask(path)]
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for path in self.images:
            pure = PurePosixPath(path)
            for name in {pure.name.casefold(), pure.stem.casefold(), path.casefold()}:
                self.by_name[name].append(path)

    def formats(self) -> tuple[str, ...]:
        """Formats of the images besides PNG, by their endings or, without one, DICOM."""
        return tuple(sorted({name for path in self.images if (name := format_of(path)) != "png"}))


def format_of(path: str) -> str:
    """Return the format of an image by its ending, e.g. "jpeg"; without a known one it is DICOM."""
    return IMAGES.get(PurePosixPath(path).suffix.lower(), "dicom")


def _is_dicom(path: Path) -> bool:
    kind = kind_at(path)
    return kind is not None and kind.what == "a DICOM file"


def _is_regular(path: Path) -> bool:
    """Whether a path can be opened without waiting: a pipe would hold the look up for ever."""
    try:
        return obstacle(path) is None
    except OSError:
        return False


def _is_mask(path: str) -> bool:
    return bool(re.search(r"(^|/)masks?/|[_-](annotation|mask|seg)\.[a-z]+$", path, re.IGNORECASE))


def _masks(images: list[str]) -> list[str]:
    """Patterns of the masks among the images."""
    found: dict[str, None] = {}
    for path in filter(_is_mask, images):
        pure = PurePosixPath(path)
        named = re.search(r"[_-](annotation|mask|seg)\.[a-z]+$", pure.name, re.IGNORECASE)
        found[f"*{named[0]}" if named else f"{pure.parent.as_posix()}/*"] = None
    return list(found)


def counts(files: FoundFiles) -> str:
    """Count the images by format, and name the masks."""
    found = Counter(format_of(path) for path in files.images)
    named = ", ".join(f"{n:,} {name.upper()}" for name, n in found.most_common())
    masks = f"; masks {', '.join(files.masks)}" if files.masks else ""
    return f"{len(files.images):,} images ({named}){masks}"


def special_pixels(files: FoundFiles) -> Iterator[tuple[str, str | None, str]]:
    """Yield settings that the pixels of the first files need: key, value (None: ask), sentence."""
    from PIL import Image

    modes: Counter[str] = Counter()
    for path in files.images[:_MOST_LOOKED_AT]:
        if format_of(path) != "dicom":
            try:
                with Image.open(files.root / path, formats=["PNG", "JPEG", "TIFF"]) as image:
                    modes[image.mode] += 1
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                continue
    if n := modes["P"]:
        yield "palette", "expand", f"{n:,} images have a palette of colours: expanded without loss"
    deep = sum(n for mode, n in modes.items() if mode.startswith("I"))
    if deep:
        yield "window", None, f"how {deep:,} images of 16 bits become 8: set convert.window"


def dicom_rows(
    root: Path,
    files: FoundFiles,
    unknown: list[str],
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, str]]:
    """Read the headers; patients get numbers in the order of their files, not their own ids."""
    from medisynth.data.reading.dicom import pixel_size_mm, read_header

    folder = DataFolder(root, most_bytes=1 << 29)
    headers: list[tuple[str, Any]] = []
    faults: list[str] = []
    for n, path in enumerate(files.images, start=1):
        if format_of(path) == "dicom":
            try:
                headers.append((path, read_header(folder.read(path), path, pixels=False)))
            except DataError as error:
                faults.append(str(error))
                headers.append((path, None))
        if progress is not None:
            progress(n, len(files.images))
    if faults:
        unknown.append(f"{len(faults):,} files without a readable header, the first: {faults[0]}")
    read = [header for _, header in headers if header is not None]
    key = "PatientID"
    if any(not str(header.get("PatientID", "")).strip() for header in read):
        key = "StudyInstanceUID"
        unknown.append("examination")
    numbers: dict[str, str] = {}
    rows = []
    for path, header in headers:
        if header is None:
            rows.append(_dicom_row(path, "", "", {}))
            continue
        who = str(header.get(key, "")).strip() or path
        number = numbers.setdefault(who, f"P{len(numbers) + 1:05d}")
        size = pixel_size_mm(header)
        labels = {
            "machine": " ".join(
                str(header.get(name, "")).strip()
                for name in ("Manufacturer", "ManufacturerModelName")
            ).strip(),
            "pixel_size_mm": "" if size is None else f"{size:.6g}",
        }
        n_frames = int(header.get("NumberOfFrames") or 1)
        numbers_of_frames = range(1, n_frames + 1) if n_frames > 1 else ("",)
        rows += [_dicom_row(path, number, str(frame), labels) for frame in numbers_of_frames]
    return rows


def _dicom_row(path: str, patient: str, frame: str, labels: dict[str, str]) -> dict[str, str]:
    return {
        "file": path,
        "patient": patient,
        "frame": frame,
        "machine": labels.get("machine", ""),
        "pixel_size_mm": labels.get("pixel_size_mm", ""),
    }
