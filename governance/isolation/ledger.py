"""The ledger of one data set: how often its test set was sealed and opened, over all runs.

The ledger lives in the workspace or on shared storage, never in a run folder or a data folder:
openings add up, because repeated use of one test set inflates results. Source: Gossmann, Pezeshk,
Wang, Sahiner, SIAM J. Math. Data Sci. 2021.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from governance.errors import EvidenceError
from governance.evidence.chain import Chain, JournalEvent, make_empty

SEALED, OPENED = "test set sealed", "test set opened"


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

    @property
    def n_seals(self) -> int:
        """How often a test set of this data set was sealed; EvidenceError as in `events`."""
        return _count(self.events(), SEALED)

    @property
    def n_openings(self) -> int:
        """How often a test set of this data set was opened; EvidenceError as in `events`."""
        return _count(self.events(), OPENED)

    @property
    def head(self) -> str:
        """Digest of the last entry that this object wrote or read; 64 zeros when none."""
        return self._chain.head

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
            # Counted under the lock: two runs never get one number.
            return {**facts, "number": _count(earlier, event) + 1}

        written = self._chain.append(event, numbered, run=run_id, version=_tool_version())
        number: int = written.body["number"]
        return number


def _count(events: Sequence[JournalEvent], event_type: str) -> int:
    return sum(event.type == event_type for event in events)


def _tool_version() -> str:
    try:
        return version("medisynth-gov")
    except PackageNotFoundError:
        return "unknown"
