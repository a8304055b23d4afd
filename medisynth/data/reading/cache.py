"""Decoded images kept between runs, by the digest of the file they came from.

A pack is one file, written once and never changed: an index (parquet: one row an image, all its
columns) and one fixed-size record an image (packed pixels, then thumbnail), each under its own SHA-256.
Data that do not fit their digest count as absent. Any change to the code of this package's data
modules, to Pillow, kornia-rs or numpy makes all older packs unknown. Refusals are never cached.
"""

import contextlib
import hashlib
import io
import os
import secrets
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kornia_rs
import numpy as np
import pandas as pd
import PIL

from medisynth.data.reading.decode import THUMBNAIL_PX, Fit
from medisynth.data.reading.reader import Facts
from medisynth.data.reading.views import Pixels

MAX_CACHE_BYTES = 4_000_000_000  # of all packs together; the longest unused go first
MAX_PACKS = 8  # from here on, what a run used is written as one new pack
_SUBFOLDER = "ingest"  # our own, so that no folder of the user's changes its permissions
_MAGIC = b"MEDISYN1"
_HEADER = struct.Struct(">8s32sQ")  # magic, SHA-256 of the index, its length
_MAX_INDEX_BYTES = 1 << 28
_INDEX_BYTES = 1024  # more than one image takes up in an index
_STALE_SECONDS = 24 * 3600
_DIGEST = "record_sha256"
_NOT_USABLE = (OSError, ValueError)


@dataclass(frozen=True)
class CachedImage:
    """One image as an earlier run decoded it.

    Attributes:
        facts: Its columns.
        pixels: Packed image, shape (size_px, size_px), uint8.
        thumbnail: Shape (THUMBNAIL_PX, THUMBNAIL_PX), uint8.
    """

    facts: Facts
    pixels: Pixels
    thumbnail: Pixels


@dataclass(frozen=True)
class _Place:
    """Position of the record of one image in a pack."""

    descriptor: int
    offset: int
    digest: bytes
    pack: Path
    row: int


class IngestCache:
    """Packs of one size and fit in one folder; reading is safe from several threads.

    Several processes may share the folder. A folder that cannot be read or written costs time,
    never the run: `find` then finds nothing and `store` does nothing.

    Args:
        folder: Cache folder; packs lie in a private subfolder that is made when first needed.
        size_px: Side of the packed images.
        fit: How they were made square.
        max_bytes: Size of all packs together.
    """

    def __init__(
        self, folder: Path, size_px: int, fit: Fit, *, max_bytes: int = MAX_CACHE_BYTES
    ) -> None:
        self._folder = folder / _SUBFOLDER
        self._prefix = f"{reader_version()}-{size_px}-{fit}-"
        self._size_px, self._max_bytes = size_px, max_bytes
        self._n_bytes = size_px**2 + THUMBNAIL_PX**2
        self._places: dict[str, _Place] = {}
        self._columns: dict[Path, dict[str, list[Any]]] = {}
        self._open = contextlib.ExitStack()
        self._used: set[Path] = set()
        self._damaged: set[Path] = set()

    def __enter__(self) -> "IngestCache":
        """Open every pack and read its index."""
        for path in self._packs(self._prefix):
            try:
                self._load(path)
            except PermissionError:
                continue
            except Exception:  # noqa: BLE001 - whatever a damaged parquet file makes its reader do
                self._damaged.add(path)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the packs."""
        self._open.close()

    @property
    def digests(self) -> frozenset[str]:
        """SHA-256 of all files that have a record in the cache."""
        return frozenset(self._places)

    def find(self, file_sha256: str) -> CachedImage | None:
        """Return the image that an earlier run decoded from a file of this digest, or None."""
        place = self._places.get(file_sha256)
        if place is None:
            return None
        try:
            record = os.pread(place.descriptor, self._n_bytes, place.offset)
        except OSError:
            return None
        if hashlib.sha256(record).digest() != place.digest:
            self._damaged.add(place.pack)
            return None
        self._used.add(place.pack)
        columns = self._columns[place.pack]
        facts = {name: values[place.row] for name, values in columns.items()}
        flat = np.frombuffer(record, dtype=np.uint8)
        cut = self._size_px**2
        return CachedImage(
            facts,
            flat[:cut].reshape(self._size_px, self._size_px),
            flat[cut:].reshape(THUMBNAIL_PX, THUMBNAIL_PX),
        )

    def store(self, facts: Sequence[Facts], pixels: Pixels, thumbnails: Pixels) -> None:
        """Add images that are not in the cache, and replace damaged ones.

        Args:
            facts: Columns of each image of this run, `file_sha256` among them.
            pixels: Packed images in the same order, shape (n, size_px, size_px), uint8.
            thumbnails: Shape (n, THUMBNAIL_PX, THUMBNAIL_PX), uint8.
        """
        row_of = {fact["file_sha256"]: row for row, fact in enumerate(facts)}
        is_rewritten = bool(self._damaged) or len(self._used) >= MAX_PACKS
        rows = [row for key, row in row_of.items() if is_rewritten or key not in self._places]
        rows = rows[: self._max_bytes // (self._n_bytes + _INDEX_BYTES)]
        with contextlib.suppress(*_NOT_USABLE):
            for path in self._used:  # packs in use are the last to be removed
                with contextlib.suppress(FileNotFoundError):  # another process replaced it
                    os.utime(path)
            if rows:
                self._write([facts[row] for row in rows], rows, pixels, thumbnails)
            kept = {facts[row]["file_sha256"] for row in rows}
            replaced = {
                path
                for path, columns in self._columns.items()
                if kept.issuperset(columns["file_sha256"])
            }
            for path in self._damaged | replaced:
                path.unlink(missing_ok=True)
            self._remove_old()

    def _packs(self, prefix: str) -> Iterator[Path]:
        """Packs that belong to this user, oldest first."""
        found: list[tuple[int, Path]] = []
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"{prefix}*.pack"):
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode) and _is_own(status):
                        found.append((status.st_mtime_ns, path))
        return (path for _, path in sorted(found))

    def _load(self, path: Path) -> None:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        stream = self._open.enter_context(os.fdopen(os.open(path, flags), "rb"))
        magic, digest, length = _HEADER.unpack(stream.read(_HEADER.size))
        if magic != _MAGIC or length > _MAX_INDEX_BYTES:
            raise ValueError("not a pack")
        index = stream.read(length)
        if self._index_digest(index) != digest:
            raise ValueError("damaged index")
        columns = {
            str(name): values.tolist()
            for name, values in pd.read_parquet(io.BytesIO(index)).items()
        }
        digests = columns.pop(_DIGEST)
        start = _HEADER.size + length
        self._columns[path] = columns
        for row, file_sha256 in enumerate(columns["file_sha256"]):
            offset = start + row * self._n_bytes
            self._places[file_sha256] = _Place(stream.fileno(), offset, digests[row], path, row)

    def _write(
        self, facts: Sequence[Facts], rows: Sequence[int], pixels: Pixels, thumbnails: Pixels
    ) -> None:
        _make_private(self._folder)
        digests = [
            hashlib.sha256(pixels[i].tobytes() + thumbnails[i].tobytes()).digest() for i in rows
        ]
        buffer = io.BytesIO()
        pd.DataFrame(list(facts)).assign(**{_DIGEST: digests}).to_parquet(buffer, index=False)
        index = buffer.getvalue()
        target = self._folder / f"{self._prefix}{secrets.token_hex(8)}.pack"
        part = target.with_suffix(".part")
        try:
            # No fsync: a pack torn by a power cut is found by its digests.
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(_HEADER.pack(_MAGIC, self._index_digest(index), len(index)))
                stream.write(index)
                for i in rows:
                    stream.write(pixels[i].tobytes() + thumbnails[i].tobytes())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _index_digest(self, index: bytes) -> bytes:
        """Digest of the index with reader, size and fit, so that a renamed pack is refused."""
        return hashlib.sha256(self._prefix.encode() + index).digest()

    def _remove_old(self) -> None:
        sizes = [(path, path.stat().st_size) for path in self._packs("")]
        total = sum(size for _, size in sizes)
        for path, size in sizes:
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        for path in self._folder.glob("*.part"):  # left behind by a run that was killed
            if time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)


@cache
def reader_version() -> str:
    """Short digest of all code and libraries that decode images: 16 hex digits."""
    digest = hashlib.sha256(
        f"{PIL.__version__} {kornia_rs.__version__} {np.__version__}\n".encode()
    )
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(
            f"{path.relative_to(root).as_posix()}\n".encode()
            + hashlib.sha256(path.read_bytes()).digest()
        )
    return digest.hexdigest()[:16]


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or not _is_own(status):
        raise OSError(f"{folder} is not a folder of this user")
    folder.chmod(0o700)


def _is_own(status: os.stat_result) -> bool:
    """Whether a file belongs to this user, where the system knows users."""
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()
