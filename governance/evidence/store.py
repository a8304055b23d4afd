"""The run folder while a run lasts: every file that enters it is digested and journaled.

A file is written beside its place, put on record, and only then moved to its place: after a kill at
any moment the record tells which bytes belong there, and `reopen` finishes the move.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from governance.evidence.journal import RUN_RESUMED, Journal, read_journal
from governance.evidence.manifest import (
    BESIDE,
    JOURNAL,
    MANIFEST,
    MORE_OUTPUTS,
    OUTPUTS,
    is_safe_path,
    measure,
    scan_folder,
    tidy,
)
from governance.records.base import Document
from governance.records.errors import (
    EvidenceError,
    EvidenceTamperedError,
    MedisynthGovError,
    RecordWriteError,
)
from governance.records.files import (
    sha256_bytes,
    sha256_file,
    sync_folder,
    unwritable,
    utf8_only,
    write_together,
)
from governance.records.item import Artifact, ItemRecord
from governance.records.manifest import ManifestFile
from governance.records.run import IntegrityRecord

ARTIFACT_WRITTEN = "artifact written"
HISTORY = "history"
_END = (MANIFEST, *BESIDE, *OUTPUTS, *MORE_OUTPUTS)
_RESERVED = (JOURNAL, *_END)
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class EvidenceStore:
    """The folder of one run, while it is written.

    Attributes:
        run_dir: The folder.
        run_id: Run that it holds.
        journal: Its event log.
    """

    def __init__(self, run_dir: Path, *, run_id: str, journal: Journal) -> None:
        self.run_dir = run_dir
        self.run_id = run_id
        self.journal = journal
        self._on_record: dict[str, str] = {}

    @classmethod
    def create(cls, runs_dir: Path, run_id: str, *, tool_version: str) -> "EvidenceStore":
        """Make the folder of a new run, with an empty journal.

        Raises:
            RecordWriteError: The folder exists already or cannot be made.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise RecordWriteError(
                f"{run_id!r}: not a run id; expected letters, digits, '.', '_' and '-' only"
            )
        run_dir = runs_dir / run_id
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            run_dir.mkdir()
        except OSError as error:
            raise RecordWriteError(
                f"{run_dir}: the run folder cannot be made ({error.strerror or error}); "
                "check permission and free space, or choose another folder"
            ) from error
        journal = Journal.create(run_dir / JOURNAL, run_id=run_id, tool_version=tool_version)
        return cls(run_dir, run_id=run_id, journal=journal)

    @classmethod
    def reopen(cls, run_dir: Path, *, tool_version: str) -> "EvidenceStore":
        """Reopen the folder of a run that ended early; every file on record must be as written.

        A torn last line of the journal is moved to journal.jsonl.torn, and a file that was on
        record but not yet in its place when the process was killed is moved there. Nothing else
        changes before `resume`.

        Raises:
            EvidenceTamperedError: A file on record has another digest.
            EvidenceError: No journal, a broken one, or a file on record is missing.
            RecordWriteError: The run folder cannot be written.
        """
        journal = Journal.open(run_dir / JOURNAL, run_id=run_dir.name, tool_version=tool_version)
        store = cls(run_dir, run_id=run_dir.name, journal=journal)
        for event in journal.events():
            if event.type == ARTIFACT_WRITTEN:
                store._on_record[str(event.body["path"])] = str(event.body["sha256"])
        for rel, sha256 in store._on_record.items():
            store._require(rel, sha256)
        return store

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Put on record that the run goes on; move an earlier end to history/<number>/.

        Files that a kill left half written are removed.
        Manifest, card and report of that end are kept as they were, and are evidence from now on.

        Args:
            facts: Further facts for the event, JSON data.

        Raises:
            RecordWriteError: The run folder cannot be written.
        """
        tidy(self.run_dir)
        self.journal.append(RUN_RESUMED, {"previous_head": self.journal.head, **facts})
        ended = [name for name in _END if (self.run_dir / name).exists()]
        if ended:
            folder = self.run_dir / HISTORY / str(self._n_ends() + 1)
            try:
                folder.mkdir(parents=True)
                for name in ended:
                    (folder / name).parent.mkdir(exist_ok=True)
                    (self.run_dir / name).rename(folder / name)
            except OSError as error:
                raise unwritable(folder, error) from error
        kept = [path for path in scan_folder(self.run_dir)[0] if path.startswith(f"{HISTORY}/")]
        torn = f"{JOURNAL}.torn"
        names = [*kept, *([torn] if (self.run_dir / torn).is_file() else [])]
        found = [self._measured(rel) for rel in names]
        self._record([file for file in found if self._on_record.get(file.path) != file.sha256])

    def _n_ends(self) -> int:
        folder = self.run_dir / HISTORY
        return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0

    def _require(self, rel: str, sha256: str) -> None:
        """Finish a move that a kill cut short; refuse a file that differs from the record."""
        path = self._place(rel)
        staged = _staged(path, sha256)
        if staged.is_file() and sha256_file(staged) == sha256:
            _move({path: staged})
        if not path.is_file():
            raise EvidenceError(f"{path}: on record, but there is no such file; restore it")
        found = measure(self.run_dir, rel).sha256
        if found != sha256:
            raise EvidenceTamperedError(path, expected=sha256, found=found)

    def write_document(self, document: Document, path: str = "") -> Artifact:
        """Write a document as readable JSON: sorted keys, one value a line, finite numbers.

        Args:
            document: Document to write.
            path: POSIX path in the run folder, for a document that is written to several places;
                "" for the path that its class names.

        Raises:
            EvidenceError: The path is not allowed, a number is not finite, or evidence is closed.
            RecordWriteError: The file or the journal cannot be written.
        """
        rel = path or document.PATH
        return self.write_bytes(rel, self._as_json(document, rel))

    def _as_json(self, document: Document, rel: str) -> bytes:
        value = utf8_only(document.model_dump(mode="json"))
        fault = _not_finite(value, "")
        if fault is not None:
            raise EvidenceError(
                f"{self.run_dir / rel}: {fault[1:]} is not a finite number; "
                "record None with a reason instead"
            )
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"

    def write_bytes(self, rel: str, data: bytes) -> Artifact:
        """Write a file, whole or not at all, and put its digest on record; errors as above."""
        return self.write_files({rel: data})[0]

    def write_files(self, files: Mapping[str, bytes]) -> tuple[Artifact, ...]:
        """Write files, each whole or not at all, and put them on record together.

        All are on disk before the first is on record, and all are on record before the first is in
        its place. The disk is waited for once for all of them. Errors as in `write_document`.

        Args:
            files: POSIX path in the run folder -> bytes.
        """
        staged: dict[Path, bytes] = {}
        places: dict[Path, Path] = {}
        found = []
        for rel, data in files.items():
            path = self._place(rel)
            self._refuse_when_closed(rel)
            file = ManifestFile(path=rel, n_bytes=len(data), sha256=sha256_bytes(data))
            found.append(file)
            places[path] = _staged(path, file.sha256)
            staged[places[path]] = data
        try:
            write_together(staged)
            artifacts = self._record(found)
        except MedisynthGovError:
            for part in staged:
                with suppress(OSError):
                    part.unlink()
            raise
        _move(places)
        return artifacts

    def register(self, rel: str) -> Artifact:
        """Put a file that another process wrote on record.

        Raises:
            EvidenceError: The path is not allowed, names no regular file, or evidence is closed.
            RecordWriteError: The journal cannot be written.
        """
        return self._record([self._measured(rel)])[0]

    def write_records(self, records: Sequence[ItemRecord]) -> None:
        """Write one file for each item, records/<item id>.json; errors as in `write_document`."""
        paths = {f"records/{record.id}.json": record for record in records}
        self.write_files({rel: self._as_json(record, rel) for rel, record in paths.items()})

    def artifacts(self) -> dict[str, str]:
        """Return the last recorded SHA-256 of every file, by path."""
        return dict(self._on_record)

    def recheck(self) -> IntegrityRecord:
        """Read every file on record and the journal again and compare them with their digests."""
        mismatches = []
        for path, sha256 in sorted(self._on_record.items()):
            try:
                if measure(self.run_dir, path).sha256 != sha256:
                    mismatches.append(path)
            except EvidenceError:
                mismatches.append(path)
        files, others = scan_folder(self.run_dir)
        known = {*self._on_record, *_RESERVED}
        journal = read_journal(self.journal.path)
        faults = list(journal.faults)
        if journal.head != self.journal.head or len(journal.events) != self.journal.n_events:
            faults.append(
                f"{JOURNAL}: {len(journal.events)} events with head {journal.head[:12]}, expected "
                f"{self.journal.n_events} with head {self.journal.head[:12]}"
            )
        return IntegrityRecord(
            n_files=len(self._on_record),
            mismatches=tuple(mismatches),
            unregistered=tuple(path for path in files if path not in known) + others,
            journal_events=len(journal.events),
            journal_head=journal.head,
            journal_faults=tuple(faults),
        )

    def _measured(self, rel: str) -> ManifestFile:
        self._place(rel)
        self._refuse_when_closed(rel)
        return measure(self.run_dir, rel)

    def _record(self, files: Sequence[ManifestFile]) -> tuple[Artifact, ...]:
        bodies = [{"path": one.path, "bytes": one.n_bytes, "sha256": one.sha256} for one in files]
        self.journal.append_all(ARTIFACT_WRITTEN, bodies)
        self._on_record |= {file.path: file.sha256 for file in files}
        return tuple(Artifact(path=file.path, sha256=file.sha256) for file in files)

    def _refuse_when_closed(self, rel: str) -> None:
        # Checked before the file changes: afterwards the manifest would no longer fit.
        if self.journal.is_closed:
            raise EvidenceError(
                f"{self.run_dir / rel}: cannot be written, the evidence is closed; "
                "write it before the manifest"
            )

    def _place(self, rel: str) -> Path:
        """Return the file that a path names; EvidenceError when the path is not allowed."""
        if not is_safe_path(rel) or rel in _RESERVED:
            raise EvidenceError(
                f"{rel!r}: not a path for evidence; expected a relative path without '..', hidden "
                f"or .part names, and none of {', '.join(_RESERVED)}"
            )
        place = self.run_dir
        for part in rel.split("/"):
            place = place / part
            if place.is_symlink():
                raise EvidenceError(f"{place}: symbolic link in the run folder; remove it")
        return place


def _staged(path: Path, sha256: str) -> Path:
    """Return the working file, no evidence, in which a file waits until it is on record."""
    return path.with_name(f".{path.name[:100]}.{sha256[:16]}.part")


def _move(places: Mapping[Path, Path]) -> None:
    """Move a staged file to each place, and return after the folders are on disk."""
    for path, staged in places.items():
        try:
            staged.replace(path)
        except OSError as error:
            raise unwritable(path, error) from error
    for folder in {path.parent for path in places}:
        sync_folder(folder)


def _not_finite(value: Any, where: str) -> str | None:
    """Return where the first number is that JSON cannot hold, e.g. ".a.b[0]", or None."""
    if isinstance(value, float) and not math.isfinite(value):
        return where
    parts: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        parts = [(f"{where}.{key}", part) for key, part in value.items()]
    elif isinstance(value, list):
        parts = [(f"{where}[{index}]", part) for index, part in enumerate(value)]
    return next(filter(None, (_not_finite(part, at) for at, part in parts)), None)
