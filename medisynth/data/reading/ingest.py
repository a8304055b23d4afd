"""Ingest of image files: read once, checked before and after decoding, digested, packed."""

import contextlib
import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from governance.records.errors import Finding, ResourceError, SettingsError
from medisynth.data.reading.cache import CachedImage, IngestCache
from medisynth.data.reading.decode import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    THUMBNAIL_PX,
    DecodedImage,
    Fit,
    decode_bytes,
    to_square,
)
from medisynth.data.reading.reader import (
    Facts,
    ImageReader,
    Job,
    KnownImage,
    Outcome,
    ReaderProcesses,
    ReadImage,
    keep_freed_memory,
)
from medisynth.data.reading.views import Pixels

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
_BATCH_OF_PROCESS = 64  # more, as a process waits for its next task while others hold Python's lock
_TASKS_AHEAD = 4  # waiting for each worker, so that as little waits in memory as keeps them busy
# Threads wait for one another at Python's lock, a third of the time; processes do not, but take a
# second to start. From so many images on they are worth it.
LEAST_FOR_PROCESSES = 1_000
# One frame being decoded: the file, its unpacked pixels (16-bit RGBA at worst), their copies.
_FRAME_BYTES = MAX_FILE_BYTES + 24 * MAX_PIXELS


@dataclass(frozen=True)
class Ingested:
    """All images of a table that could be read.

    Attributes:
        table: Rows of the readable images, index 0 to n - 1, with the columns of `IMAGE_COLUMNS`
            added. Rows of unreadable files are left out, each named by a finding.
        pixels: Grey images in table order, shape (n, size_px, size_px), uint8.
        thumbnails: Whole frames, small, in table order, see `to_square_and_thumbnail`; shape
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
    "png_metadata": "string",  # kinds of other metadata in the file that may hold text; "" for none
}


def ingest_images(
    root: Path,
    table: pd.DataFrame,
    *,
    size_px: int,
    fit: Fit = "pad",
    n_workers: int = 1,
    processes: bool = False,
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
        n_workers: Threads or processes; decoding and digesting run outside Python's lock. Fewer are
            used where memory does not hold as many of the largest frames allowed.
        processes: Whether `LEAST_FOR_PROCESSES` images or more that are not in the cache may be
            read by processes. They import the caller's main module, whose work must therefore
            stand under `if __name__ == "__main__"`.
        cache: Folder of decoded images, see `IngestCache`; None keeps none. Every file is read
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
    keep_freed_memory()
    results: list[_Read | Finding] = []
    with contextlib.ExitStack() as stack:
        # Small sums must not wake a pool of linear algebra threads for every image: its waiting
        # threads spin, and took half of both processors.
        stack.enter_context(threadpool_limits(limits=1))
        kept = stack.enter_context(IngestCache(cache, size_px, fit)) if cache else None
        reader = ImageReader(root, size_px, fit, kept.digests if kept else frozenset())
        jobs = _jobs(table)
        by_processes = processes and n_workers > 1 and _is_worth_processes(reader, jobs)
        outcomes = stack.enter_context(
            contextlib.closing(_in_order(reader, jobs, n_workers, by_processes=by_processes))
        )
        for place, outcome in enumerate(outcomes):
            image = _settled(outcome, reader, jobs[place], kept)
            if isinstance(image, Finding):
                results.append(image)
            else:
                pixels[place], thumbnails[place] = image.pixels, image.thumbnail
                results.append(_Read(image.facts, isinstance(image, CachedImage)))
            if progress is not None:
                progress(len(results), n_images)
        ingested = _gather(table, pixels, thumbnails, results)
        if kept is not None:
            facts = [result.facts for result in results if isinstance(result, _Read)]
            kept.store(facts, ingested.pixels, ingested.thumbnails)
    return ingested


def content_digest(table: pd.DataFrame) -> str:
    """SHA-256 of a data set: every picture with its labels, whatever the order of rows.

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
    """One usable image, and whether it came from the cache."""

    facts: Facts
    is_cached: bool


def _jobs(table: pd.DataFrame) -> list[Job]:
    listed = table["listed_sha256"] if "listed_sha256" in table else [pd.NA] * len(table)
    return [
        (path, None if pd.isna(digest) else str(digest))
        for path, digest in zip(table["path"], listed, strict=True)
    ]


def _settled(
    outcome: Outcome, reader: ImageReader, job: Job, cache: IngestCache | None
) -> ReadImage | CachedImage | Finding:
    """Replace a known image by its cached data, or decode it where those are damaged."""
    if not isinstance(outcome, KnownImage):
        return outcome
    cached = cache.find(outcome.file_sha256) if cache else None
    if cached is not None:
        return cached
    [decoded] = reader.knowing(frozenset()).read([job])
    if isinstance(decoded, KnownImage):
        raise RuntimeError(f"{job[0]}: passed over by a reader that knows no file")
    return decoded


def _is_worth_processes(reader: ImageReader, jobs: list[Job]) -> bool:
    is_many = len(jobs) - len(reader.known) >= LEAST_FOR_PROCESSES
    return is_many and not multiprocessing.current_process().daemon


def _in_order(
    reader: ImageReader, jobs: list[Job], n_workers: int, *, by_processes: bool
) -> Generator[Outcome, None, None]:
    """Yield outcomes in the order of the jobs; with processes, a thread only waits for its own."""
    if not by_processes:
        yield from _outcomes(reader.read, jobs, n_workers, _BATCH)
        return
    with ReaderProcesses(reader, n_workers) as processes:
        yield from _outcomes(processes.read, jobs, n_workers, _BATCH_OF_PROCESS)


def _outcomes(
    read: Callable[[list[Job]], list[Outcome]], jobs: list[Job], n_threads: int, n_batch: int
) -> Generator[Outcome, None, None]:
    """Yield outcomes in the order of the jobs; only a few tasks are under way at any time."""
    starts = iter(range(0, len(jobs), n_batch))
    pool = ThreadPoolExecutor(max_workers=n_threads, thread_name_prefix="ingest")
    waiting: deque[Future[list[Outcome]]] = deque()
    try:
        while True:
            while len(waiting) < n_threads * _TASKS_AHEAD:
                start = next(starts, None)
                if start is None:
                    break
                waiting.append(pool.submit(read, jobs[start : start + n_batch]))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:  # also on Ctrl-C: what has not begun is given up
        pool.shutdown(wait=True, cancel_futures=True)


def _workers_that_fit(n_images: int, size_px: int) -> int:
    """Number of workers whose largest allowed frames fit into memory beside the packed arrays.

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
    """Bytes available without swapping, as the system reports; otherwise all installed memory."""
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
