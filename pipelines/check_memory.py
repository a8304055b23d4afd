"""Results of earlier data checks, shown again as long as nothing at all has changed.

Nothing changed means: the tool's own code, the packages it rests on, Python, the text reader, the
configuration, the files it names, the names and sizes of all files in the data folder, and then,
file by file, their SHA-256. A check takes up no result that it could not have come to itself.
"""

import hashlib
import io
import json
import os
import platform
import secrets
import shutil
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Any

from pipelines.cache import cache_folder
from pipelines.config import RunConfig
from pipelines.identity import DISTRIBUTION

_SOURCE = Path(__file__).resolve().parent.parent
_PACKAGES = ("governance", "medisynth", "pipelines")
_EXTENSIONS = ("medisynth.data", "medisynth.models")
_KEPT = 16
_MAX_ENTRY_BYTES = 1 << 28
_STALE_SECONDS = 24 * 3600
_BLOCK_BYTES = 1 << 20
_DIGESTS = "digests.json"

Places = dict[str, tuple[int, int, int]]  # path in the folder -> size, time of change, inode


@dataclass(frozen=True)
class CheckedData:
    """What a data check found.

    Attributes:
        text: For people.
        facts: The same for machines.
        html: The same as a page that loads nothing.
        junit: The same as JUnit XML: one test case an item.
        exit_code: 0, 3 or 4.
        error_code: Code of the error that stops a run on this data set; None when none does.
        sentence: That error, or that nothing stops a run.
        findings: Single faults behind the error.
        checked_utc: When it was found.
        read_sha256: Path in the data folder -> SHA-256 of the bytes that were judged, for each
            image that was; empty when the result is shown again.
    """

    text: str
    facts: dict[str, Any]
    html: bytes
    junit: bytes
    exit_code: int
    error_code: str | None
    sentence: str
    findings: tuple[str, ...]
    checked_utc: datetime
    read_sha256: dict[str, str] = field(default_factory=dict)


class CheckMemory:
    """Remembers the result of checking one data folder with one configuration.

    A folder that cannot be read or written costs time, never the check.

    Args:
        config: Configuration of the check; `data.path` is set.
        progress: Called with files compared and files in all; may raise to stop.
    """

    def __init__(self, config: RunConfig, progress: Callable[[int, int], None]) -> None:
        self._root = Path(str(config.data.path)).expanduser().resolve()
        self._progress = progress
        self._places: Places | None = None
        self._entry: Path | None = None
        folder = cache_folder(config.data, "checks")
        if folder is None or not _only_built_in():
            return
        with suppress(OSError):
            self._places = _places(self._root)
        if self._places is not None:
            self._entry = folder / f"{_key(config, self._places)}.zip"

    def recall(self) -> CheckedData | None:
        """The result of an earlier check of the same, or None."""
        if self._entry is None:
            return None
        try:
            if self._entry.stat().st_size > _MAX_ENTRY_BYTES:
                return None
            with zipfile.ZipFile(self._entry) as stored:
                parts = {name: stored.read(name) for name in stored.namelist()}
            facts = json.loads(parts["facts.json"])
            end = json.loads(parts["end.json"])
            if json.loads(parts[_DIGESTS]) != self._file_digests({}):
                return None
            os.utime(self._entry)
            return CheckedData(
                text=parts["text.txt"].decode(),
                facts=facts,
                html=parts["page.html"],
                junit=parts["junit.xml"],
                exit_code=int(end["exit_code"]),
                error_code=end["error_code"],
                sentence=str(end["sentence"]),
                findings=tuple(end["findings"]),
                checked_utc=datetime.fromisoformat(end["checked_utc"]),
            )
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None

    def keep(self, checked: CheckedData) -> None:
        """Remember a result, unless a file changed while it was found."""
        if self._entry is None:
            return
        with suppress(OSError):
            digests = self._file_digests(checked.read_sha256)
            if self._places != _places(self._root):
                return
            end = {
                "exit_code": checked.exit_code,
                "error_code": checked.error_code,
                "sentence": checked.sentence,
                "findings": checked.findings,
                "checked_utc": checked.checked_utc.isoformat(),
            }
            parts = {
                _DIGESTS: json.dumps(digests).encode(),
                "facts.json": json.dumps(checked.facts).encode(),
                "end.json": json.dumps(end).encode(),
                "text.txt": checked.text.encode("utf-8", "backslashreplace"),
                "page.html": checked.html,
                "junit.xml": checked.junit,
            }
            _write(self._entry, parts)
            _remove_old(self._entry.parent)

    def _file_digests(self, known: dict[str, str]) -> dict[str, str]:
        """Digest of every file of the folder; those that are known are not read again."""
        digests = {path: known.get(path, "") for path in sorted(self._places or {})}
        unread = [path for path, digest in digests.items() if not digest]
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="compare") as pool:
            found = pool.map(partial(_digest, self._root), unread)
            for n, (path, digest) in enumerate(zip(unread, found, strict=True), start=1):
                digests[path] = digest
                self._progress(n, len(unread))
        return digests


def _digest(root: Path, path: str) -> str:
    digest = hashlib.sha256()
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(root / path, flags), "rb", buffering=0) as stream:  # noqa: PTH123
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _places(root: Path) -> Places | None:
    """Every file of a folder; None where it holds anything but files and folders."""
    places: Places = {}
    for entry in _entries(root):
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return None
        place = Path(entry.path).relative_to(root).as_posix() if entry.path else entry.name
        places[place] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return places


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
            else:
                yield entry


def _key(config: RunConfig, places: Places) -> str:
    """Digest of everything that decides a result, but for the bytes of the data."""
    named = (config.data.contract, config.audit.target_population)
    facts = {
        "code": _code_digest(),
        "packages": _versions(),
        "machine": [platform.python_version(), platform.machine(), platform.system()],
        "text reader": _program("tesseract"),
        "config": config.model_dump(mode="json"),
        "folder": str(config.data.path),  # printed as it was given
        "named files": [_named_file(name) for name in named if name is not None],
        "files": sorted((path, size) for path, (size, _, _) in places.items()),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _code_digest() -> str:
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((_SOURCE / package).rglob("*")):
            if path.suffix in {".py", ".yaml", ".html", ".json"}:
                digest.update(f"{path.relative_to(_SOURCE)}\n".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {DISTRIBUTION: version(DISTRIBUTION)}
    for line in requires(DISTRIBUTION) or ():
        if "extra ==" not in line:
            name = line.split(";")[0].strip()
            name = name[: next((i for i, c in enumerate(name) if c in "<>=!~ ["), len(name))]
            with suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


def _program(name: str) -> list[str | int]:
    found = shutil.which(name)
    if found is None:
        return []
    path = Path(found).resolve()
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns]


def _named_file(name: str) -> str:
    """Digest of a file that the configuration names; its absence is a fact, too."""
    path = Path(name).expanduser().resolve()
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable {error.errno}"


def _only_built_in() -> bool:
    """Whether all adapters and generators are our own: the code of others is not compared."""
    points = [point for group in _EXTENSIONS for point in entry_points(group=group)]
    return all(point.value.startswith("medisynth.") for point in points)


def _write(path: Path, parts: dict[str, bytes]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as stored:
        for name, data in parts.items():
            stored.writestr(name, data)
    part = path.with_name(f"{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(buffer.getvalue())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _remove_old(folder: Path) -> None:
    newest_first = sorted(folder.glob("*.zip"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest_first[_KEPT:]:
        path.unlink(missing_ok=True)
    for path in folder.glob("*.part"):  # left behind by a check that was killed
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)


def now() -> datetime:
    """Time of a result, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
