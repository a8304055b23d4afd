"""Reading of single image files into facts and small squares, by one thread or process.

Imports little, because a process of its own imports it before it can begin.
"""

import contextlib
import hashlib
import multiprocessing
import queue
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from governance.records.errors import DataError, Finding
from medisynth.data.reading.decode import Fit, decode_bytes, image_fault, to_square_and_thumbnail
from medisynth.data.reading.folder import DataFolder
from medisynth.data.reading.statistics import (
    intensity_statistics,
    overlay_fraction,
    sector_fractions,
)
from medisynth.data.reading.views import Pixels

_KEPT_BYTES = 24 << 20

Facts = dict[str, Any]
Job = tuple[str, str | None]  # path, and the SHA-256 that the file must have where one is listed


@dataclass(frozen=True)
class ReadImage:
    """One image that was decoded.

    Attributes:
        facts: Its columns, see `ingest.IMAGE_COLUMNS`.
        pixels: Square, shape (size_px, size_px), uint8.
        thumbnail: Whole frame, small, shape (THUMBNAIL_PX, THUMBNAIL_PX), uint8.
    """

    facts: Facts
    pixels: Pixels
    thumbnail: Pixels


@dataclass(frozen=True)
class KnownImage:
    """One image that was not decoded, because the digest of its file is known."""

    file_sha256: str


Outcome = ReadImage | KnownImage | Finding


class ImageReader:
    """Reads single images; safe to call from several threads.

    Args:
        root: Data root; no file outside it is read.
        size_px: Side of the squares.
        fit: How an image is made square, see `decode.to_square`.
        known: SHA-256 of files that need not be decoded.

    Attributes:
        known: As given.
    """

    def __init__(
        self, root: Path, size_px: int, fit: Fit, known: frozenset[str] = frozenset()
    ) -> None:
        self._root, self._folder = root, DataFolder(root)
        self._size_px, self._fit, self.known = size_px, fit, known

    def knowing(self, known: frozenset[str]) -> "ImageReader":
        """Return a copy of this reader with other known digests."""
        return ImageReader(self._root, self._size_px, self._fit, known)

    def read(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Read images; return one outcome a job, in order. A bad file becomes a finding."""
        outcomes = [self._outcome(job) for job in jobs]
        new = [outcome for outcome in outcomes if isinstance(outcome, ReadImage)]
        if new:  # together, because each call of it costs more than its work on one image
            fractions = sector_fractions(np.stack([image.thumbnail for image in new]))
            for image, fraction in zip(new, fractions, strict=True):
                image.facts["sector_fraction"] = fraction
        return outcomes

    def _outcome(self, job: Job) -> Outcome:
        path, listed_sha256 = job
        try:
            data = self._folder.read(path)
            file_sha256 = hashlib.sha256(data).hexdigest()
            is_known = file_sha256 in self.known
            outcome = KnownImage(file_sha256) if is_known else self._decode(data, path, file_sha256)
            if listed_sha256 is not None and file_sha256 != listed_sha256:
                raise image_fault(
                    "D068",
                    path,
                    f"has SHA-256 {file_sha256[:12]}, the metadata file lists "
                    f"{listed_sha256[:12]!a}; restore it from the source",
                )
        except DataError as error:
            return error.findings[0]
        return outcome

    def _decode(self, data: bytes, path: str, file_sha256: str) -> ReadImage:
        decoded = decode_bytes(data, path, file_sha256=file_sha256)
        grey = decoded.grey
        facts = {
            "file_sha256": file_sha256,
            "pixel_sha256": decoded.pixel_sha256,
            "width_px": decoded.width_px,
            "height_px": decoded.height_px,
            "mode": decoded.mode,
            "n_bytes": decoded.n_bytes,
            "synthetic_mark": decoded.synthetic_mark,
            "png_text_keywords": decoded.png_text_keywords,
            "png_metadata": decoded.png_metadata,
            "overlay_fraction": overlay_fraction(grey),
            **intensity_statistics(grey),
        }
        return ReadImage(facts, *to_square_and_thumbnail(grey, self._size_px, self._fit))


def keep_freed_memory() -> None:
    """Tell the C library to keep memory of a frame's size instead of returning it to the system.

    Freeing one large block does that; without it a twentieth of the time goes into fetching the
    same memory again for every image.
    """
    np.empty(_KEPT_BYTES, dtype=np.uint8)


class ReaderProcesses:
    """Processes that read images for this one, each over its own pipe; a context manager.

    A process that dies closes its pipe, even in the middle of an answer, so that nobody waits for
    the rest; one whose parent dies meets the end of its pipe in the same way, and ends.

    Args:
        reader: Reader that each process uses.
        n: Number of processes.
    """

    def __init__(self, reader: ImageReader, n: int) -> None:
        self._reader, self._n = reader, n
        self._free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._started: list[tuple[SpawnProcess, Connection]] = []

    def __enter__(self) -> "ReaderProcesses":
        """Start the processes, or as many of them as can be started."""
        context = multiprocessing.get_context("spawn")
        with contextlib.suppress(OSError):
            for _ in range(self._n):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(self._reader, theirs), daemon=True)
                process.start()
                theirs.close()  # now the process alone holds this end
                self._started.append((process, ours))
                self._free.put(ours)
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes; they hold no data that could be lost."""
        for process, connection in self._started:
            process.kill()
            process.join()
            connection.close()

    def read(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Read images like `ImageReader.read`, in this thread where no process is left."""
        with contextlib.suppress(queue.Empty, OSError, EOFError):
            connection = self._free.get_nowait()
            connection.send(jobs)
            outcomes: list[Outcome] = connection.recv()
            self._free.put(connection)
            return outcomes
        return self._reader.read(jobs)


def _serve(reader: ImageReader, connection: Connection) -> None:
    """Answer read requests until the other end of the pipe is closed."""
    for name in ("SIGINT", "SIGHUP"):  # the parent decides when to stop
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    keep_freed_memory()
    with contextlib.suppress(EOFError, OSError), threadpool_limits(limits=1):
        while True:
            connection.send(reader.read(connection.recv()))
