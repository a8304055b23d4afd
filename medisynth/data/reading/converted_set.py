"""A data set whose images need a conversion, as a folder of plain PNG files beside the originals' digests.

Files are decoded by processes of their own, with a time limit and bounded memory, because a damaged or
hostile file may hang or kill its decoder. What is converted already is not converted again.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from PIL import Image

from governance.records.errors import DataError, Finding, SettingsError
from governance.records.files import write_atomic
from medisynth.data.reading.conversion import Conversion
from medisynth.data.reading.decode import image_fault
from medisynth.data.reading.folder import DataFolder
from medisynth.data.reading.pictures import convert
from medisynth.data.reading.reader import keep_freed_memory

MAX_SOURCE_BYTES = 512 * 1024 * 1024  # a film of uncompressed frames
TIME_LIMIT_S = 60.0  # for one image, from its file or from the image before
_MEMORY_BYTES = 3 << 30  # address space of a decoder beside its file
_MOST_PNG_BYTES = 1 << 28
_PACKAGES = ("numpy", "pillow", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
_FORMAT = 1  # of what is kept beside each converted image
FACTS = {
    "source_path": "string",  # original file, relative to the data folder
    "source_frame": "Int64",  # its frame, from 1; missing for the only one
    "source_sha256": "string",  # digest of the original file
    "conversion": "string",  # what was done, in words
    "burned_in": "string",  # "YES" or "NO" as a DICOM file says of annotations; "" if it does not
    "source_metadata": "string",  # kinds of metadata in the original that may identify somebody
    "source_is_synthetic": "bool",
}


@dataclass(frozen=True)
class ConvertedSet:
    """Result of converting a data set.

    Attributes:
        table: The rows that could be converted; `path` leads to a PNG in the folder, the columns of
            `FACTS` say where it came from, `listed_sha256` is its digest.
        findings: One for each image that could not be.
        n_new: Images converted now; the others were there.
    """

    table: pd.DataFrame
    findings: tuple[Finding, ...]
    n_new: int


def convert_set(
    root: Path,
    table: pd.DataFrame,
    folder: Path,
    settings: Conversion,
    *,
    n_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> ConvertedSet:
    """Convert every image of a table to a plain 8-bit PNG in a folder.

    A bad file becomes a finding. Images that the folder holds of the same file, frame, settings and
    program versions are kept.

    Args:
        root: Data root; read only.
        table: Rows with image_id, path and, where files hold several images, frame.
        folder: Folder of the converted images; nobody else writes to it meanwhile.
        settings: What may be converted.
        n_workers: Files converted at a time.
        progress: Called with images done and images in all.

    Raises:
        OSError: The folder cannot be written.
    """
    frames = table["frame"] if "frame" in table else pd.Series(pd.NA, index=table.index)
    listed = table["listed_sha256"] if "listed_sha256" in table else pd.Series(pd.NA, table.index)
    files: dict[str, list[_Wanted]] = {}
    for image_id, path, frame, digest in zip(
        table["image_id"], table["path"], frames, listed, strict=True
    ):
        wanted = _Wanted(
            str(image_id),
            None if pd.isna(frame) else int(frame),
            None if pd.isna(digest) else str(digest),
        )
        files.setdefault(str(path), []).append(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    work = _Work(DataFolder(root, most_bytes=MAX_SOURCE_BYTES), folder, settings, versions())
    keep_freed_memory()
    outcomes: dict[str, dict[str, Any] | Finding] = {}
    with Decoders(n_workers) as decoders:
        pool = ThreadPoolExecutor(n_workers, thread_name_prefix="convert")
        try:
            done = pool.map(lambda item: work.file(decoders, *item), files.items())
            for found in done:
                outcomes |= found
                if progress is not None:
                    progress(len(outcomes), len(table))
        finally:  # also on Ctrl-C: what has not begun is given up
            decoders.stop()
            pool.shutdown(wait=True, cancel_futures=True)
    return _gathered(table, outcomes)


def versions() -> dict[str, str]:
    """Versions of the packages that decode images."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class _Wanted:
    image_id: str
    frame: int | None
    listed_sha256: str | None


def _gathered(table: pd.DataFrame, outcomes: dict[str, dict[str, Any] | Finding]) -> ConvertedSet:
    results = [outcomes[str(name)] for name in table["image_id"]]
    findings = tuple(result for result in results if isinstance(result, Finding))
    kept = [result for result in results if not isinstance(result, Finding)]
    is_kept = [not isinstance(result, Finding) for result in results]
    converted = table[is_kept].reset_index(drop=True).drop(columns="frame", errors="ignore")
    converted["path"] = (converted["image_id"] + ".png").astype("string")
    converted["listed_sha256"] = pd.Series([fact["png_sha256"] for fact in kept], dtype="string")
    for name, dtype in FACTS.items():
        converted[name] = pd.Series([fact[name] for fact in kept], dtype=dtype)
    return ConvertedSet(converted, findings, sum(fact["is_new"] for fact in kept))


@dataclass(frozen=True)
class _Work:
    """What is the same for every file of a set."""

    source: DataFolder
    folder: Path
    settings: Conversion
    versions: dict[str, str]

    def file(
        self, decoders: "Decoders", path: str, wanted: list[_Wanted]
    ) -> dict[str, dict[str, Any] | Finding]:
        """Convert the wanted frames of one file; return facts or a finding by image id."""
        try:
            data = self.source.read(path)
            digest = hashlib.sha256(data).hexdigest()
            for image in wanted:
                if image.listed_sha256 not in (None, digest):
                    raise image_fault(
                        "D068",
                        path,
                        f"has SHA-256 {digest[:12]}, the metadata file lists "
                        f"{str(image.listed_sha256)[:12]!a}; restore it from the source",
                    )
        except DataError as error:
            return dict.fromkeys((image.image_id for image in wanted), error.findings[0])
        found: dict[str, dict[str, Any] | Finding] = {}
        for image in wanted:
            known = self._known(image, path, digest)
            if known is not None:
                found[image.image_id] = known
        rest = [image for image in wanted if image.image_id not in found]
        if rest:
            answers = decoders.convert(data, path, [image.frame for image in rest], self.settings)
            for image, answer in zip(rest, answers, strict=True):
                found[image.image_id] = (
                    answer
                    if isinstance(answer, Finding)
                    else self._keep(image, path, digest, answer)
                )
        return found

    def _key(self, path: str, image: _Wanted, digest: str) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "source_path": path,
            "source_frame": image.frame,
            "source_sha256": digest,
            "settings": self.settings.model_dump(mode="json"),
            "versions": self.versions,
        }

    def _known(self, image: _Wanted, path: str, digest: str) -> dict[str, Any] | None:
        """Return the facts of an image that was converted before, if its file is as it was."""
        key = self._key(path, image, digest)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads((self.folder / f"{image.image_id}.json").read_bytes())
            png = (self.folder / f"{image.image_id}.png").read_bytes()
            if {name: facts[name] for name in key} == key and (
                hashlib.sha256(png).hexdigest() == facts["png_sha256"]
            ):
                return {**facts, "is_new": False}
        return None

    def _keep(self, image: _Wanted, path: str, digest: str, answer: "Answer") -> dict[str, Any]:
        facts = {**self._key(path, image, digest), **answer.facts}
        facts["png_sha256"] = write_atomic(self.folder / f"{image.image_id}.png", answer.png)
        write_atomic(self.folder / f"{image.image_id}.json", json.dumps(facts).encode())
        return {**facts, "is_new": True}


def remove_others(folder: Path, names: frozenset[str]) -> None:
    """Remove converted images that are listed no longer: copies of patients' images must not stay.

    Args:
        folder: Folder of converted images; it need not be there.
        names: Ids of all listed images.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in (".png", ".json", ".part") and path.stem not in names:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Answer:
    """One converted image: its PNG file, and what is known of its source."""

    png: bytes
    facts: dict[str, Any]


class Decoders:
    """Processes that decode files for this one; a context manager, safe for several threads.

    Each answers over its own pipe. One that takes too long, needs too much memory or dies is
    replaced, and its image becomes a finding.

    Args:
        n: Most processes at a time.
        time_limit_s: Longest time for one image.
    """

    def __init__(self, n: int, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._n, self._time_limit_s = n, time_limit_s
        self._idle: list[_Decoder] = []
        self._busy: set[_Decoder] = set()
        self._is_stopped = False

    def __enter__(self) -> Self:
        """Start nothing yet: a process starts with the first file."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes."""
        self.stop()

    def stop(self) -> None:
        """End all processes; what they work on becomes a finding."""
        self._is_stopped = True
        for decoder in [*self._idle, *self._busy]:
            decoder.end()
        self._idle.clear()

    def convert(
        self, data: bytes, where: str, frames: Sequence[int | None], settings: Conversion
    ) -> list[Answer | Finding]:
        """Convert frames of one file; return one answer a frame, in order."""
        answers: list[Answer | Finding] = []
        while len(answers) < len(frames) and not self._is_stopped:
            decoder = self._idle.pop() if self._idle else _Decoder()
            self._busy.add(decoder)
            asked = list(frames[len(answers) :])
            new = list(decoder.answers(data, where, asked, settings, self._time_limit_s))
            self._busy.discard(decoder)
            if decoder.is_alive:
                self._idle.append(decoder)
            else:
                decoder.end()
            answers += new
        left = len(frames) - len(answers)
        return answers + [Finding("D069", where, "was not decoded: the work was stopped")] * left


class _Decoder:
    """One decoding process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        with contextlib.suppress(EOFError, OSError):  # its start is not part of an image's time
            self._ours.recv_bytes()
        self.is_alive = True

    def end(self) -> None:
        self.is_alive = False
        self._process.kill()
        self._process.join()
        self._ours.close()

    def answers(
        self,
        data: bytes,
        where: str,
        frames: list[int | None],
        settings: Conversion,
        time_limit_s: float,
    ) -> Iterator[Answer | Finding]:
        """Yield an answer for each frame; the last is a finding where the process was lost."""
        asked = {"where": where, "frames": frames, "settings": settings.model_dump(mode="json")}
        try:
            self._ours.send_bytes(json.dumps(asked).encode())
            self._ours.send_bytes(data)
            for _ in frames:
                if not self._ours.poll(time_limit_s):
                    self.is_alive = False
                    yield Finding(
                        "D069",
                        where,
                        f"takes more than {time_limit_s:g} s to decode; export it again, or take "
                        "it out",
                    )
                    return
                facts = json.loads(self._ours.recv_bytes(_MOST_PNG_BYTES))
                if "code" in facts:
                    yield Finding(facts["code"], where, facts["message"])
                else:
                    yield Answer(self._ours.recv_bytes(_MOST_PNG_BYTES), facts)
        except (OSError, EOFError, ValueError):
            self.is_alive = False
            yield Finding(
                "D069",
                where,
                "ended the process that decodes it; restore it from the source, or take it out",
            )


def _serve(connection: Connection) -> None:
    """Answer requests until the other end of the pipe is closed; runs in a process of its own."""
    for name in ("SIGINT", "SIGHUP"):  # the parent decides when to stop
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a decoder writes no file
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(b"ready")
        while True:
            asked = json.loads(connection.recv_bytes())
            data = connection.recv_bytes()
            limit = _MEMORY_BYTES + 8 * len(data)
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            settings = Conversion.model_validate(asked["settings"])
            for frame in asked["frames"]:
                _answer(connection, data, asked["where"], frame, settings)


def _answer(
    connection: Connection, data: bytes, where: str, frame: int | None, settings: Conversion
) -> None:
    try:
        [image] = convert(data, where, [frame], settings)
        png = _png(image.pixels)
    except DataError as error:
        fault = error.findings[0]
        message = fault.message if isinstance(fault, Finding) else str(fault)
        connection.send_bytes(json.dumps({"code": error.code, "message": message}).encode())
        return
    except SettingsError as error:
        connection.send_bytes(json.dumps({"code": error.code, "message": str(error)}).encode())
        return
    except MemoryError:
        told = {"code": "D062", "message": "needs too much memory to be decoded; leave it out"}
        connection.send_bytes(json.dumps(told).encode())
        return
    facts = {
        "conversion": image.how,
        "source_metadata": ", ".join(image.metadata),
        "source_is_synthetic": image.is_synthetic,
        "burned_in": image.burned_in,
    }
    connection.send_bytes(json.dumps(facts).encode())
    connection.send_bytes(png)


def _png(pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
