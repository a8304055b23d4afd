"""The ledger of one data set: how often its test set was sealed and opened, over all runs.

The ledger lives in the workspace or on shared storage, never in a run folder or a data folder:
openings add up, because repeated use of one test set inflates results. Source: Gossmann, Pezeshk,
Wang, Sahiner, SIAM J. Math. Data Sci. 2021.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from governance.evidence.chain import Chain, JournalEvent, check_chain, make_empty
from governance.records.errors import EvidenceError

SEALED, OPENED = "test set sealed", "test set opened"


def opening_label(number: int) -> str:
    """Return the label of an opening: only the first is "confirmatory"."""
    return "confirmatory" if number == 1 else f"exploratory, opening {number}"


class Ledger:
    """Append-only chain of seals and openings, `<folder>/<dataset_sha256>.jsonl`.

    Attributes:
        path: The file; made with the first entry.
    """

    def __init__(self, folder: Path, dataset_sha256: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", dataset_sha256):
            raise EvidenceError(
                f"ledger: {dataset_sha256[:80]!a} is no digest of a data set; "
                "expected 64 lowercase hex digits"
            )
        self.path = folder / f"{dataset_sha256}.jsonl"
        self._chain = Chain(self.path, one_run=False)
        self._n_told = 0

    @property
    def n_seals(self) -> int:
        """Number of times a test set of this data set was sealed; EvidenceError as in `events`."""
        return _count(self.events(), SEALED)

    @property
    def n_openings(self) -> int:
        """Number of times a test set of this data set was opened; EvidenceError as in `events`."""
        return _count(self.events(), OPENED)

    @property
    def head(self) -> str:
        """Digest of the last entry that this object wrote or read; 64 zeros when none."""
        return self._chain.head

    @property
    def n_torn_bytes(self) -> int:
        """Bytes of a torn last line that this object moved to `<name>.torn`."""
        return self._chain.n_torn_bytes

    def take_note(self) -> str:
        """Return a note on a torn last line, once for each; "" when there is nothing new."""
        n_new, self._n_told = self.n_torn_bytes - self._n_told, self.n_torn_bytes
        if not n_new:
            return ""
        return (
            f"{self.path}: its last line was torn, as by a crash; its {n_new} bytes were moved to "
            f"{self.path.name}.torn and count as nothing"
        )

    def events(self) -> tuple[JournalEvent, ...]:
        """Return all entries, first to last.

        Raises:
            EvidenceError: The chain is broken or was cut.
            RecordWriteError: The file cannot be opened.
        """
        return self._chain.read() if self._chain.n_events or self.path.exists() else ()

    def record_seal(self, run_id: str, merkle_root: str) -> int:
        """Record that a run sealed its test set; return the number of this seal, from 1.

        Raises:
            EvidenceError: The chain is broken or was cut.
            RecordWriteError: The ledger cannot be written.
        """
        return self._append(SEALED, run_id, {"merkle_root": merkle_root})

    def record_opening(
        self, run_id: str, merkle_root: str, purpose: str, plan_sha256: str, model_sha256: str
    ) -> int:
        """Record an opening, on disk before this returns; return its number over all runs, from 1.

        Raises:
            EvidenceError: The chain is broken or was cut.
            RecordWriteError: The ledger cannot be written.
        """
        facts = {
            "merkle_root": merkle_root,
            "purpose": purpose,
            "plan_sha256": plan_sha256,
            "model_sha256": model_sha256,
        }
        return self._append(OPENED, run_id, facts)

    def _append(self, event: str, run_id: str, facts: Mapping[str, Any]) -> int:
        if not self._chain.n_events:
            make_empty(self.path, exist_ok=True)

        def numbered(earlier: Sequence[JournalEvent]) -> dict[str, Any]:
            # Counted under the lock: two runs never get the same number.
            return {**facts, "number": _count(earlier, event) + 1}

        written = self._chain.append(event, numbered, run=run_id, version=_tool_version())
        number: int = written.body["number"]
        return number


@dataclass(frozen=True)
class LedgerUse:
    """The seals and openings in the ledger of one data set, read without changing it.

    Attributes:
        dataset_sha256: Digest of the data set's selection.
        path: The file.
        seals: Sealings, first to last.
        openings: Openings, first to last.
        notes: Anomalies of the file: a torn last line, lines moved aside earlier.
    """

    dataset_sha256: str
    path: Path
    seals: tuple[JournalEvent, ...]
    openings: tuple[JournalEvent, ...]
    notes: tuple[str, ...]


def read_ledgers(folder: Path) -> tuple[LedgerUse, ...]:
    """Read every ledger of a folder, in the order of digests; nothing is written.

    Raises:
        EvidenceError: The folder or a file cannot be read, or a chain is broken.
    """
    try:
        paths = sorted(
            path for path in folder.iterdir() if re.fullmatch(r"[0-9a-f]{64}\.jsonl", path.name)
        )
    except OSError as error:
        raise EvidenceError(
            f"{folder}: no folder of ledgers that can be read ({error.strerror or error}); give "
            "the folder that seal.ledger_dir names, or a workspace with a sealed run"
        ) from error
    return tuple(_read_ledger(path) for path in paths)


def _read_ledger(path: Path) -> LedgerUse:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(
            f"{path}: cannot be read ({error.strerror or error}); check permission"
        ) from error
    n_whole = data.rfind(b"\n") + 1
    check = check_chain(data[:n_whole], path.name, one_run=False)
    if check.faults:
        raise EvidenceError(
            f"{path.parent / check.faults[0]}; expected an unbroken chain, found "
            f"{len(check.faults)} faults, restore the file"
        )
    notes = []
    if n_whole < len(data):
        notes.append(
            f"torn last line of {len(data) - n_whole} bytes: not counted; the next run that seals "
            f"or opens moves it to {path.name}.torn"
        )
    torn = path.with_name(path.name + ".torn")
    if torn.exists():
        notes.append(f"torn lines were moved to {torn.name}; they are not counted")
    return LedgerUse(
        dataset_sha256=path.stem,
        path=path,
        seals=tuple(event for event in check.events if event.type == SEALED),
        openings=tuple(event for event in check.events if event.type == OPENED),
        notes=tuple(notes),
    )


def _count(events: Sequence[JournalEvent], event_type: str) -> int:
    return sum(event.type == event_type for event in events)


def _tool_version() -> str:
    try:
        return version("medisynth-gov")
    except PackageNotFoundError:
        return "unknown"
