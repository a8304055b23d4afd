"""The data check, and its earlier results, which are shown again while nothing has changed.

Nothing changed means: the tool's own code, the packages it rests on, Python, the text reader, the
configuration, the files it names, the names and sizes of all files in the data folder, and then,
file by file, the SHA-256 of those that are read.
"""

import hashlib
import io
import json
import os
import platform
import secrets
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Any

from governance.checks.registry import CHECKS, judge_items
from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy, with_criteria
from governance.records.audit import ListingSummary
from governance.records.errors import DataError, LeakageError
from governance.records.item import ItemRecord
from governance.reports.evidence import read_pictures
from governance.reports.sections.data_check import DataCheckEvidence, write_data_check_html
from medisynth.data.adapters import adapter_names, load_adapter
from medisynth.data.adapters.layout import known_tables
from medisynth.data.audit.coverage import listing_summary
from pipelines.config.model import RunConfig
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.current_run.identity import DISTRIBUTION, tool_version
from pipelines.data_check.junit import junit_xml
from pipelines.data_check.text import check_text
from pipelines.fetch.cache import cache_folder
from pipelines.steps import s1_ingest, s2_validate, s3_audit, s4_split
from pipelines.steps.boundaries import boundary_checks
from pipelines.steps.data_audit import audit_listing

_SOURCE = Path(__file__).resolve().parents[2]
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
    """Result of a data check.

    Attributes:
        text: Summary for the screen.
        facts: The result as JSON data.
        html: The result as a page that loads nothing.
        junit: The result as JUnit XML, one test case an item.
        exit_code: 0, 3 or 4.
        error_code: Code of the error that stops a run on this data set; None when none does.
        sentence: Message of that error, or that nothing stops a run.
        findings: Single faults behind the error.
        checked_utc: When it was found.
        read_sha256: Path in the data folder -> SHA-256 of the bytes that were judged, for each
            image that was; empty when the result is shown again.
        listed: Paths of all listed images in the data folder; empty when shown again.
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
    listed: frozenset[str] = frozenset()


class CheckMemory:
    """Remembers the result of checking one data folder with one configuration.

    If its cache cannot be read or written, the check is simply done again.

    Args:
        config: Configuration of the check; `data.path` is set.
        progress: Called with files compared and files in all; may raise to stop.
    """

    def __init__(self, config: RunConfig, progress: Callable[[int, int], None]) -> None:
        self._root = config.data.folder or Path()
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
        """Return the result of an earlier check of the same files, or None."""
        if self._entry is None:
            return None
        try:
            if self._entry.stat().st_size > _MAX_ENTRY_BYTES:
                return None
            with zipfile.ZipFile(self._entry) as stored:
                parts = {name: stored.read(name) for name in stored.namelist()}
            facts = json.loads(parts["facts.json"])
            end = json.loads(parts["end.json"])
            stored = json.loads(parts[_DIGESTS])
            if stored != self._file_digests(stored, known={}):
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
        """Remember a result, unless a file changed during the check."""
        if self._entry is None:
            return
        with suppress(OSError):
            judged = checked.listed | checked.read_sha256.keys()
            decisive = [p for p in self._places or {} if p in judged or _is_table(p)]
            digests = self._file_digests(decisive, known=checked.read_sha256)
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

    def _file_digests(self, paths: Iterable[str], known: dict[str, str]) -> dict[str, str]:
        """Return the digest of files of the folder; known ones are not read again."""
        digests = {path: known.get(path, "") for path in sorted(paths)}
        unread = [path for path, digest in digests.items() if not digest]
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="compare") as pool:
            found = pool.map(partial(_digest, self._root), unread)
            for n, (path, digest) in enumerate(zip(unread, found, strict=True), start=1):
                digests[path] = digest
                self._progress(n, len(unread))
        return digests


def _is_table(path: str) -> bool:
    """Whether a file in any folder may be read besides images: a table of an adapter, a contract."""
    name = path.rpartition("/")[2]
    return name == s1_ingest.OWN_CONTRACT or name in _table_names()


@cache
def _table_names() -> frozenset[str]:
    adapters = map(load_adapter, adapter_names())
    return frozenset(table.file for adapter in adapters for table in known_tables(adapter))


def _digest(root: Path, path: str) -> str:
    digest = hashlib.sha256()
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(root / path, flags), "rb", buffering=0) as stream:  # noqa: PTH123
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _places(root: Path) -> Places | None:
    """Return every file of a folder; None if it holds links or special files."""
    places: Places = {}
    for entry in _entries(root):
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return None
        places[entry.path[len(str(root)) + 1 :]] = (
            status.st_size,
            status.st_mtime_ns,
            status.st_ino,
        )
    return places


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
            else:
                yield entry


def _key(config: RunConfig, places: Places) -> str:
    """Return a digest of everything that decides a result except the bytes of the data."""
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
    """Return the digest of a file, or a text that it cannot be read."""
    path = Path(name).expanduser().resolve()
    if not path.is_file():  # reading a named pipe would wait for ever
        return "no file"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable {error.errno}"


def _only_built_in() -> bool:
    """Whether all adapters and generators are built in; code of others cannot be compared."""
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
    """Return the current time (UTC), to the second."""
    return datetime.now(UTC).replace(microsecond=0)


DATA_STEPS = ("s1_ingest", "s2_validate", "s3_audit", "s4_split")


def check_data(config: RunConfig, console: Console) -> CheckedData:
    """Ingest, validate, audit and divide a data set; keep nothing but caches.

    Raises:
        DataError: The folder or its metadata file cannot be read at all.
        SettingsError: The contract or the target population cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="medisynth-gov-") as folder:
        store = EvidenceStore.create(Path(folder), "check", tool_version=tool_version())
        policy = with_criteria(load_policy(), config.criteria)
        context = RunContext(config, policy, store, console, Path(folder))
        listed = s1_ingest.list_data(context)
        summary = listing_summary(listed.listing)
        audit_listing(listed, context)
        error: DataError | LeakageError | None = None
        read_sha256: dict[str, str] = {}
        given = config.data.folder or listed.root
        below = f"{listed.root.relative_to(given).as_posix()}/".removeprefix("./")
        try:
            images = s1_ingest.decode_all(listed, context)
            read = (
                ("source_path", "source_sha256")
                if "source_path" in images.table
                else ("path", "file_sha256")
            )
            paths = below + images.table[read[0]].astype(str)
            read_sha256 = dict(zip(paths, images.table[read[1]], strict=True))
            s2_validate.run(images, context)
            s4_split.divide(images, s3_audit.run(images, context), context)
        except (DataError, LeakageError) as caught:
            error = caught
        if (between_steps := boundary_checks(store.journal)) is not None:
            store.write_document(between_steps)
        left_out = s1_ingest.left_out_sentence(listed.not_selected)
        checked = _gather(context, summary, str(listed.root), error, left_out)
        in_folder = frozenset(below + listed.listing.table["path"].astype(str))
        in_folder |= {below + listed.listing.metadata_file}
        return replace(checked, read_sha256=read_sha256, listed=in_folder)


def _gather(
    context: RunContext,
    summary: ListingSummary,
    folder: str,
    error: DataError | LeakageError | None,
    left_out: str,
) -> CheckedData:
    """Judge the data items and return the result as text, JSON data, HTML and JUnit XML."""
    store = context.store
    documents = context.folder
    records = judge_items(
        context.policy,
        documents,
        now=datetime.now(UTC),
        artifacts=store.artifacts(),
        only=[item_id for item_id, check in CHECKS.items() if check.step in DATA_STEPS],
    )
    exit_code = error.exit_code if error else 0
    sentence = str(error) if error else "Nothing stops a run on this data set as configured."
    evidence = DataCheckEvidence(
        documents=documents,
        policy=context.policy,
        pictures=read_pictures(documents),
        records={record.id: record for record in records},
        tool_version=tool_version(),
        folder=folder,
        exit_code=exit_code,
        sentence=sentence,
    )
    facts = _facts(store.run_dir, summary, records, exit_code, sentence)
    return CheckedData(
        text=check_text(documents, summary, records, left_out),
        facts=facts,
        html=write_data_check_html(evidence),
        junit=junit_xml(records, name=f"medisynth-gov data check {folder}", stopped_by=error),
        exit_code=exit_code,
        error_code=error.code if error else None,
        sentence=sentence,
        findings=tuple(map(str, error.findings)) if error else (),
        checked_utc=now(),
    )


def _facts(
    run_dir: Path,
    summary: ListingSummary,
    records: tuple[ItemRecord, ...],
    exit_code: int,
    sentence: str,
) -> dict[str, Any]:
    """Return listing, items and the documents of the steps that ran as JSON data."""
    facts: dict[str, Any] = {
        "exit_code": exit_code,
        "sentence": sentence,
        "listing": summary.model_dump(mode="json"),
        "items": [record.model_dump(mode="json") for record in records],
    }
    for path in sorted((run_dir / "data").glob("*.json")):
        if path.name != "great_expectations.json":
            facts[path.stem] = json.loads(path.read_bytes())
    return facts
