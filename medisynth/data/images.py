"""Image files to pixels: read once, checked before and after decoding, digested, packed."""

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from medisynth.data.data_folder import DataFolder
from medisynth.data.decode import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    DecodedImage,
    decode_bytes,
    image_fault,
)
from medisynth.data.image_statistics import intensity_statistics, sector_fractions
from medisynth.data.ingest_cache import Facts, IngestCache
from medisynth.data.overlay import overlay_fraction
from medisynth.data.resize import THUMBNAIL_PX, Fit, to_square, to_square_and_thumbnail
from medisynth.data.views import Pixels
from medisynth.errors import DataError, Finding, ResourceError, SettingsError

__all__ = [
    "IMAGE_COLUMNS",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "THUMBNAIL_PX",
    "DecodedImage",
    "Fit",
    "Ingested",
    "content_digest",
    "decode_bytes",
    "ingest_images",
    "to_square",
]

_BATCH = 16  # images of one task
_TASKS_AHEAD = 4  # waiting for each worker, so that as little waits in memory as keeps them busy
_KEPT_BYTES = 24 << 20
# One frame being decoded: the file, its unpacked pixels (16-bit RGBA at worst), their copies.
_FRAME_BYTES = MAX_FILE_BYTES + 24 * MAX_PIXELS


@dataclass(frozen=True)
class Ingested:
    """All images of a table that could be read.

    Attributes:
        table: Rows of the readable images, index 0 to n - 1, with the columns of `IMAGE_COLUMNS`
            added. Rows of unreadable files are left out, each named by a finding.
        pixels: Grey images in table order, shape (n, size_px, size_px), uint8.
        thumbnails: Whole frames, small, in table order, see `resize`; shape
            (n, THUMBNAIL_PX, THUMBNAIL_PX), uint8.
        findings: One for each file that could not be used.
        n_decoded: Images decoded now.
        n_from_cache: Images whose file has the digest of one that an earlier run decoded.
    """

    table: pd.DataFrame
    pixels: Pixels
    thumbnails: Pixels
    findings: tuple[Finding, ...]
    n_decoded: int
    n_from_cache: int


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
    "sharpness": "float64",  # variance of the Laplacian, squared grey levels, image_statistics.py
    "synthetic_mark": "bool",
    "overlay_fraction": "float64",  # share of pixels under burned-in marks, overlay.py
    "sector_fraction": "float64",  # share of the frame inside the sector, image_statistics.py
    "png_text_keywords": "string",  # keywords of text in the file, never its values; "" for none
}


def ingest_images(
    root: Path,
    table: pd.DataFrame,
    *,
    size_px: int,
    fit: Fit = "pad",
    n_workers: int = 1,
    cache: Path | None = None,
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
        n_workers: Threads; decoding and digesting run outside Python's lock. Fewer are used where
            memory does not hold as many of the largest frames allowed.
        cache: Folder of decoded images, see `ingest_cache`; None keeps none. Every file is read
            and digested again all the same; only one of a known digest is not decoded again.
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
    n_workers = min(n_workers, _workers_that_fit(n_images, size_px))
    pixels = np.zeros((n_images, size_px, size_px), dtype=np.uint8)
    thumbnails = np.zeros((n_images, THUMBNAIL_PX, THUMBNAIL_PX), dtype=np.uint8)
    # Freeing one large block tells the C library to keep memory of a frame's size instead of
    # returning it to the system after every image: a twentieth of the time saved.
    np.empty(_KEPT_BYTES, dtype=np.uint8)
    results: list[_Read | Finding] = []
    with contextlib.ExitStack() as stack:
        # Small sums must not wake a pool of linear algebra threads for every image: its waiting
        # threads spin, and took half of both processors.
        stack.enter_context(threadpool_limits(limits=1))
        kept = stack.enter_context(IngestCache(cache, size_px, fit)) if cache else None
        reader = _Reader(root, pixels, thumbnails, fit, kept)
        for result in _in_order(reader, _jobs(table), n_workers):
            results.append(result)
            if progress is not None:
                progress(len(results), n_images)
        ingested = _gather(table, pixels, thumbnails, results)
        if kept is not None:
            facts = [result.facts for result in results if isinstance(result, _Read)]
            kept.store(facts, ingested.pixels, ingested.thumbnails)
    return ingested


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


@dataclass(frozen=True)
class _Read:
    """One image that could be used, and whether an earlier run had decoded it."""

    facts: Facts
    is_cached: bool


_Job = tuple[int, str, Any]


class _Reader:
    """Reads single images into packed arrays; safe to call from several threads."""

    def __init__(
        self, root: Path, pixels: Pixels, thumbnails: Pixels, fit: Fit, cache: IngestCache | None
    ) -> None:
        self.folder = DataFolder(root)
        self.pixels, self.thumbnails, self.fit, self.cache = pixels, thumbnails, fit, cache

    def read_all(self, jobs: list[_Job]) -> list[_Read | Finding]:
        results = [self.read(*job) for job in jobs]
        new = {
            job[0]: result
            for job, result in zip(jobs, results, strict=True)
            if isinstance(result, _Read) and not result.is_cached
        }
        if new:  # together, because each call of it costs more than its work on one image
            fractions = sector_fractions(self.thumbnails[list(new)])
            for result, fraction in zip(new.values(), fractions, strict=True):
                result.facts["sector_fraction"] = fraction
        return results

    def read(self, number: int, path: str, listed_sha256: Any) -> _Read | Finding:
        try:
            data = self.folder.read(path)
            file_sha256 = hashlib.sha256(data).hexdigest()
            cached = self.cache.find(file_sha256) if self.cache else None
            if cached is None:
                facts = self._decode(number, data, path, file_sha256)
            else:
                facts = cached.facts
                self.pixels[number], self.thumbnails[number] = cached.pixels, cached.thumbnail
            if not pd.isna(listed_sha256) and file_sha256 != listed_sha256:
                raise image_fault(
                    "D068",
                    path,
                    f"has SHA-256 {file_sha256[:12]}, the metadata file lists "
                    f"{str(listed_sha256)[:12]!a}; restore it from the source",
                )
        except DataError as error:
            return error.findings[0]
        return _Read(facts, is_cached=cached is not None)

    def _decode(self, number: int, data: bytes, path: str, file_sha256: str) -> Facts:
        decoded = decode_bytes(data, path, file_sha256=file_sha256)
        grey = decoded.grey
        self.pixels[number], self.thumbnails[number] = to_square_and_thumbnail(
            grey, self.pixels.shape[1], self.fit
        )
        return {
            "file_sha256": file_sha256,
            "pixel_sha256": decoded.pixel_sha256,
            "width_px": decoded.width_px,
            "height_px": decoded.height_px,
            "mode": decoded.mode,
            "n_bytes": decoded.n_bytes,
            "synthetic_mark": decoded.synthetic_mark,
            "png_text_keywords": decoded.png_text_keywords,
            "overlay_fraction": overlay_fraction(grey),
            **intensity_statistics(grey),
        }


def _jobs(table: pd.DataFrame) -> list[_Job]:
    listed = table["listed_sha256"] if "listed_sha256" in table else [pd.NA] * len(table)
    return list(zip(range(len(table)), table["path"], listed, strict=True))


def _in_order(reader: _Reader, jobs: list[_Job], n_workers: int) -> Iterator[_Read | Finding]:
    """Results in the order of the jobs; only a few tasks are under way at any time."""
    starts = iter(range(0, len(jobs), _BATCH))
    waiting: deque[Future[list[_Read | Finding]]] = deque()
    pool = ThreadPoolExecutor(max_workers=n_workers, thread_name_prefix="ingest")
    try:
        while True:
            while len(waiting) < n_workers * _TASKS_AHEAD:
                start = next(starts, None)
                if start is None:
                    break
                waiting.append(pool.submit(reader.read_all, jobs[start : start + _BATCH]))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:  # also on Ctrl-C: what has not begun is given up
        pool.shutdown(wait=True, cancel_futures=True)


def _workers_that_fit(n_images: int, size_px: int) -> int:
    """How many frames of the largest size allowed fit into memory beside the packed arrays.

    Returns:
        At least 1.

    Raises:
        ResourceError: The packed arrays alone do not fit.
    """
    n_bytes = n_images * (size_px**2 + THUMBNAIL_PX**2)
    available = _available_bytes()
    if n_bytes > available:
        raise ResourceError(
            f"{n_images:,} images of {size_px} x {size_px} pixels do not fit into memory "
            f"({n_bytes:,} bytes, {available:,} are available); choose a smaller size or fewer "
            "planes"
        )
    return max(1, (available - n_bytes) // _FRAME_BYTES)


def _available_bytes() -> int:
    """Memory that can be had without swapping, as the system says; else all that is built in."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 1 << 62  # unknown: the system itself must refuse


def _gather(
    table: pd.DataFrame,
    pixels: Pixels,
    thumbnails: Pixels,
    results: list[_Read | Finding],
) -> Ingested:
    findings = tuple(result for result in results if isinstance(result, Finding))
    reads = [result for result in results if isinstance(result, _Read)]
    readable = np.array([isinstance(result, _Read) for result in results], dtype=bool)
    kept = table[readable].reset_index(drop=True)
    for name, dtype in IMAGE_COLUMNS.items():
        values = [read.facts[name] for read in reads]
        kept[name] = pd.Series(values, dtype=dtype, index=kept.index)
    if findings:
        pixels, thumbnails = pixels[readable], thumbnails[readable]
    n_from_cache = sum(read.is_cached for read in reads)
    return Ingested(kept, pixels, thumbnails, findings, len(reads) - n_from_cache, n_from_cache)
