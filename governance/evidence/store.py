"""The run folder while a run lasts: every file that enters it is digested and journaled."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from governance.errors import EvidenceError, RecordWriteError
from governance.evidence.documents import IntegrityRecord, ManifestFile
from governance.evidence.journal import Journal, read_journal
from governance.evidence.manifest import (
    JOURNAL,
    MANIFEST,
    OUTPUTS,
    SIGNATURE,
    is_safe_path,
    measure,
    scan_folder,
)
from governance.evidence.record import Artifact, ItemRecord
from governance.files import write_atomic

ARTIFACT_WRITTEN = "artifact written"
_RESERVED = (JOURNAL, MANIFEST, SIGNATURE, *OUTPUTS)
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class EvidenceStore:
    """The folder of one run.

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

    def write_document(self, rel: str, document: BaseModel) -> Artifact:
        """Write a document as readable JSON: sorted keys, one value a line, finite numbers.

        Args:
            rel: POSIX path in the run folder, e.g. "data/split.json".
            document: Document or record to write.

        Raises:
            EvidenceError: The path is not allowed, a number is not finite, or evidence is closed.
            RecordWriteError: The file or the journal cannot be written.
        """
        value = document.model_dump(mode="json")
        fault = _not_finite(value, "")
        if fault is not None:
            raise EvidenceError(
                f"{self.run_dir / rel}: {fault[1:]} is not a finite number; "
                "record None with a reason instead"
            )
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return self.write_bytes(rel, text.encode("utf-8", "backslashreplace") + b"\n")

    def write_bytes(self, rel: str, data: bytes) -> Artifact:
        """Write a file, whole or not at all, and put its digest on record; errors as above."""
        path = self._place(rel)
        self._refuse_when_closed(rel)
        sha256 = write_atomic(path, data)
        return self._record(ManifestFile(path=rel, n_bytes=len(data), sha256=sha256))

    def register(self, rel: str) -> Artifact:
        """Put a file that another process wrote on record.

        Raises:
            EvidenceError: The path is not allowed, names no regular file, or evidence is closed.
            RecordWriteError: The journal cannot be written.
        """
        self._place(rel)
        self._refuse_when_closed(rel)
        return self._record(measure(self.run_dir, rel))

    def write_records(self, records: Sequence[ItemRecord]) -> None:
        """Write one file an item, records/<item id>.json; errors as in `write_document`."""
        for record in records:
            self.write_document(f"records/{record.id}.json", record)

    def artifacts(self) -> dict[str, str]:
        """Path -> SHA-256 of every file as it was when it was last put on record."""
        return dict(self._on_record)

    def recheck(self) -> IntegrityRecord:
        """Read every file on record and the journal again and compare."""
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

    def _record(self, file: ManifestFile) -> Artifact:
        self.journal.append(
            ARTIFACT_WRITTEN, {"path": file.path, "bytes": file.n_bytes, "sha256": file.sha256}
        )
        self._on_record[file.path] = file.sha256
        return Artifact(path=file.path, sha256=file.sha256)

    def _refuse_when_closed(self, rel: str) -> None:
        # Before the file changes: afterwards the manifest would no longer fit.
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


def _not_finite(value: Any, where: str) -> str | None:
    """Find the first number that JSON cannot hold; return where it is, ".a.b[0]"."""
    if isinstance(value, float) and not math.isfinite(value):
        return where
    parts: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        parts = [(f"{where}.{key}", part) for key, part in value.items()]
    elif isinstance(value, list):
        parts = [(f"{where}[{index}]", part) for index, part in enumerate(value)]
    return next(filter(None, (_not_finite(part, at) for at, part in parts)), None)
