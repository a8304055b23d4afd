"""Image files to pixels: read once, checked before and after decoding, digested, packed."""

import hashlib
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from medisynth.data import png
from medisynth.data.image_statistics import intensity_statistics
from medisynth.data.synthetic_mark import is_marked_synthetic
from medisynth.data.views import Pixels
from medisynth.errors import DataError, Finding, ResourceError, SettingsError

Fit = Literal["pad", "stretch"]

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 25_000_000
MODES = ("L", "RGB", "LA", "RGBA")  # the last two only where nothing is transparent
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, KeyError)


@dataclass(frozen=True)
class DecodedImage:
    """One image file, decoded from memory.

    Attributes:
        grey: Grey image at its own size, shape (height, width), uint8; colour by ITU-R 601 luma.
        mode: "L" if the content is grey however it was stored, "RGB" if it has colour.
        width_px: Width.
        height_px: Height.
        n_bytes: Size of the file.
        file_sha256: Digest of the file's bytes.
        pixel_sha256: Digest of mode, size and raw pixels: equal for equal pictures, however they
            were compressed, and equal for a grey picture stored as RGB.
        synthetic_mark: Whether the file says that it is synthetic.
    """

    grey: Pixels
    mode: str
    width_px: int
    height_px: int
    n_bytes: int
    file_sha256: str
    pixel_sha256: str
    synthetic_mark: bool


@dataclass(frozen=True)
class Ingested:
    """All images of a table that could be read.

    Attributes:
        table: Rows of the readable images, index 0 to n - 1, with the columns of `IMAGE_COLUMNS`
            added. Rows of unreadable files are left out, each named by a finding.
        pixels: Grey images in table order, shape (n, size_px, size_px), uint8.
        findings: One for each file that could not be used.
    """

    table: pd.DataFrame
    pixels: Pixels
    findings: tuple[Finding, ...]


IMAGE_COLUMNS = {
    "file_sha256": "string",
    "pixel_sha256": "string",
    "width_px": "int64",
    "height_px": "int64",
    "mode": "string",
    "n_bytes": "int64",
    "mean_intensity": "float64",  # grey levels, 0 to 255, at the image's own size
    "std_intensity": "float64",  # grey levels
    "black_fraction": "float64",  # share of pixels at image_statistics.BLACK_LEVEL or below
    "sharpness": "float64",  # variance of the 4-neighbour Laplacian, squared grey levels
    "synthetic_mark": "bool",
}


def decode_bytes(data: bytes, where: str) -> DecodedImage:
    """Decode one PNG file from memory, refusing everything that is not one whole grey or RGB image.

    Args:
        data: Bytes of the whole file.
        where: Name of the file for messages.

    Raises:
        DataError: The file is no PNG, damaged, cut short, animated, too large or of another kind
            of pixels; its one finding says which.
    """
    _check_container(data, where)
    try:
        # verify() sees damaged checksums that load() passes over; load() sees cut or damaged
        # pixel data that verify() passes over.
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in MODES:
                raise _fault(
                    "D065", where, f"found pixels of mode {image.mode}, expected 8-bit grey or RGB"
                )
            if not png.has_whole_pixels(data):
                raise _fault(
                    "D063", where, "has more or fewer pixels than its header says; restore it"
                )
            image.load()
            grey, mode, content = _content(image, where)
            size = image.size
    except _DECODE_ERRORS as error:
        raise _fault(
            "D063", where, "is a damaged or cut PNG file; restore it from the source"
        ) from error
    content_digest = hashlib.sha256(f"{mode} {size[0]} {size[1]}\n".encode())
    content_digest.update(content)
    return DecodedImage(
        grey=grey,
        mode=mode,
        width_px=size[0],
        height_px=size[1],
        n_bytes=len(data),
        file_sha256=hashlib.sha256(data).hexdigest(),
        pixel_sha256=content_digest.hexdigest(),
        synthetic_mark=is_marked_synthetic(data),
    )


def to_square(grey: Pixels, size_px: int, fit: Fit = "pad") -> Pixels:
    """Resize a grey image to a square.

    Args:
        grey: Image, shape (height, width), uint8.
        size_px: Side of the result.
        fit: "pad" keeps the aspect ratio and centres the image on black; "stretch" fills the
            square and changes the shape of the anatomy.

    Returns:
        Shape (size_px, size_px), uint8; reduced with a Lanczos filter as wide as the reduction.
    """
    height, width = grey.shape
    if fit == "stretch":
        new_width = new_height = size_px
    else:
        scale = size_px / max(width, height)
        new_width = min(size_px, max(1, round(width * scale)))
        new_height = min(size_px, max(1, round(height * scale)))
    image = Image.fromarray(grey)
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    square = np.zeros((size_px, size_px), dtype=np.uint8)
    top, left = (size_px - new_height) // 2, (size_px - new_width) // 2
    square[top : top + new_height, left : left + new_width] = np.asarray(image)
    return square


def ingest_images(
    root: Path,
    table: pd.DataFrame,
    *,
    size_px: int,
    fit: Fit = "pad",
    n_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Ingested:
    """Read every image of a table once: digests, statistics and packed pixels.

    A bad file never stops the reading; it becomes a finding and its row is left out.

    Args:
        root: Data root; no file outside it is read, and no symbolic link is followed out of it.
        table: Rows with `image_id` and `path`; where a column `listed_sha256` has a value, the
            file must have that digest.
        size_px: Side of the packed images.
        fit: How an image is made square, see `to_square`.
        n_workers: Threads; decoding and digesting run outside Python's lock.
        progress: Called after each image with images done and images in all.

    Raises:
        ResourceError: The packed images do not fit into memory.
        SettingsError: A size or number of workers is not positive.
    """
    if size_px < 1 or n_workers < 1:
        raise SettingsError(
            f"size_px and n_workers must be at least 1, found {size_px} and {n_workers}"
        )
    n_images = len(table)
    try:
        pixels = np.zeros((n_images, size_px, size_px), dtype=np.uint8)
    except MemoryError as error:
        raise ResourceError(
            f"{n_images:,} images of {size_px} x {size_px} pixels do not fit into memory "
            f"({n_images * size_px**2:,} bytes); choose a smaller size or fewer planes"
        ) from error
    reader = _Reader(root, pixels, size_px, fit)
    listed = table["listed_sha256"] if "listed_sha256" in table else [pd.NA] * n_images
    jobs = list(zip(range(n_images), table["path"], listed, strict=True))
    results: list[dict[str, Any] | Finding] = []
    pool = ThreadPoolExecutor(max_workers=n_workers, thread_name_prefix="ingest")
    try:
        for result in pool.map(reader.read, jobs):
            results.append(result)
            if progress is not None:
                progress(len(results), n_images)
    finally:  # also on Ctrl-C: what has not begun is given up
        pool.shutdown(wait=True, cancel_futures=True)
    return _gather(table, pixels, results)


def content_digest(table: pd.DataFrame) -> str:
    """SHA-256 that stands for a data set: every picture with its labels, in no matter what order.

    Args:
        table: Rows with image_id, pixel_sha256, patient_id, plane, brain_plane, operator,
            machine and official_partition.

    Returns:
        64 lowercase hex digits over one canonical JSON line (RFC 8785) an image, sorted by id.
        Paths, compression and the rest of the metadata file do not enter.
    """
    import rfc8785

    columns = (
        "image_id",
        "pixel_sha256",
        "patient_id",
        "plane",
        "brain_plane",
        "operator",
        "machine",
        "official_partition",
    )
    rows = zip(*(table[name] for name in columns), strict=True)
    lines = [
        rfc8785.dumps(
            {
                name: None if pd.isna(value) else str(value)
                for name, value in zip(columns, row, strict=True)
            }
        )
        for row in sorted(rows, key=lambda row: str(row[0]))
    ]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


class _Reader:
    """Reads single images into one packed array; safe to call from several threads."""

    def __init__(self, root: Path, pixels: Pixels, size_px: int, fit: Fit) -> None:
        self.root = root.resolve()
        self.pixels, self.size_px, self.fit = pixels, size_px, fit
        self.folder_of: dict[str, Path | None] = {}  # a path is resolved once a folder

    def read(self, job: tuple[int, str, Any]) -> dict[str, Any] | Finding:
        number, path, listed_sha256 = job
        try:
            decoded = decode_bytes(self._bytes(path), path)
            if not pd.isna(listed_sha256) and decoded.file_sha256 != listed_sha256:
                raise _fault(
                    "D068",
                    path,
                    f"has SHA-256 {decoded.file_sha256[:12]}, the metadata file lists "
                    f"{str(listed_sha256)[:12]!a}; restore it from the source",
                )
        except DataError as error:
            return error.findings[0]
        self.pixels[number] = to_square(decoded.grey, self.size_px, self.fit)
        return {
            "file_sha256": decoded.file_sha256,
            "pixel_sha256": decoded.pixel_sha256,
            "width_px": decoded.width_px,
            "height_px": decoded.height_px,
            "mode": decoded.mode,
            "n_bytes": decoded.n_bytes,
            "synthetic_mark": decoded.synthetic_mark,
            **intensity_statistics(decoded.grey),
        }

    def _bytes(self, path: str) -> bytes:
        """Bytes of a regular file inside the root; nothing else is opened."""
        pure = PurePosixPath(path)
        folder = self._folder(str(pure.parent))
        if folder is None or pure.name in {"", ".."}:
            raise _fault("D060", path, "lies outside the data folder; expected a file inside it")
        # O_NONBLOCK: a named pipe must not hold the run up before it is refused.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            if stat.S_ISLNK((folder / pure.name).lstat().st_mode):
                raise _fault("D061", path, "is a symbolic link, expected the image file itself")
            with open(os.open(folder / pure.name, flags), "rb") as stream:  # noqa: PTH123
                status = os.fstat(stream.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise _fault("D061", path, "is not a regular file, expected a PNG file")
                if status.st_size > MAX_FILE_BYTES:
                    raise _fault(
                        "D062",
                        path,
                        f"has {status.st_size:,} bytes, expected at most {MAX_FILE_BYTES:,}",
                    )
                return stream.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError as error:
            raise _fault("D030", path, "is listed but missing; complete the folder") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "unusable name"
            raise _fault("D061", path, f"cannot be read ({reason}); check the file") from error

    def _folder(self, name: str) -> Path | None:
        """The folder with all links resolved; None if it then lies outside the root."""
        if name not in self.folder_of:
            try:
                folder = (self.root / name).resolve()
            except (OSError, RuntimeError, ValueError):
                return None
            self.folder_of[name] = folder if folder.is_relative_to(self.root) else None
        return self.folder_of[name]


def _fault(code: str, where: str, message: str) -> DataError:
    finding = Finding(code, where, message)
    return DataError(str(finding), code=code, findings=[finding])


def _check_container(data: bytes, where: str) -> None:
    """Refuse by the file's outline alone what must not reach the decoder."""
    if not data:
        raise _fault("D063", where, "is empty, expected a PNG file; restore it from the source")
    if len(data) > MAX_FILE_BYTES:
        raise _fault("D062", where, f"has more than {MAX_FILE_BYTES:,} bytes")
    size = png.header_size(data)
    if size is None:
        raise _fault("D064", where, "is not a PNG file; expected an 8-bit grey or RGB PNG")
    if math.prod(size) > MAX_PIXELS or 0 in size:
        raise _fault(
            "D062",
            where,
            f"is {size[0]} x {size[1]} pixels, expected at most {MAX_PIXELS:,} in all",
        )
    if not data.endswith(png.END):
        raise _fault(
            "D063",
            where,
            "does not end as a PNG file must: it is cut short or has bytes appended; restore it "
            "from the source",
        )
    if any(kind in _ANIMATION for kind, _ in png.chunks(data)):
        raise _fault("D066", where, "holds several frames, expected one image")


def _content(image: Image.Image, where: str) -> tuple[Pixels, str, bytes]:
    """Grey pixels, mode and raw bytes of the content, storage left aside."""
    pixels = np.asarray(image)
    if image.mode in {"LA", "RGBA"}:
        if (pixels[..., -1] != 255).any():
            raise _fault("D067", where, "has transparent pixels, expected an opaque image")
        pixels = pixels[..., :-1]
        if pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
    is_colour = pixels.ndim == 3 and not (
        np.array_equal(pixels[..., 0], pixels[..., 1])
        and np.array_equal(pixels[..., 0], pixels[..., 2])
    )
    if is_colour:
        content = np.ascontiguousarray(pixels)
        grey = np.asarray(Image.fromarray(content).convert("L"))
        return grey, "RGB", content.tobytes()
    grey = np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., 0])
    return grey, "L", grey.tobytes()


def _gather(
    table: pd.DataFrame, pixels: Pixels, results: list[dict[str, Any] | Finding]
) -> Ingested:
    findings = tuple(result for result in results if isinstance(result, Finding))
    facts = [result for result in results if not isinstance(result, Finding)]
    readable = np.array([not isinstance(result, Finding) for result in results], dtype=bool)
    kept = table[readable].reset_index(drop=True)
    for name, dtype in IMAGE_COLUMNS.items():
        kept[name] = pd.Series([fact[name] for fact in facts], dtype=dtype, index=kept.index)
    return Ingested(kept, pixels if readable.all() else pixels[readable], findings)
