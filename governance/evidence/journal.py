"""The event log of one run (journal.jsonl), an append-only chain of events."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from governance.evidence.chain import (
    EVIDENCE_CLOSED,
    NO_EVENT,
    RUN_RESUMED,
    Chain,
    JournalCheck,
    JournalEvent,
    check_chain,
    make_empty,
)
from governance.records.errors import EvidenceError

__all__ = [
    "EVIDENCE_CLOSED",
    "NO_EVENT",
    "RUN_RESUMED",
    "Journal",
    "JournalCheck",
    "JournalEvent",
    "read_journal",
]


class Journal:
    """The event log of one run.

    Attributes:
        path: The file.
        run_id: Run that every event belongs to.
        tool_version: Version of medisynth-gov, written into every event.
    """

    def __init__(self, path: Path, *, run_id: str, tool_version: str) -> None:
        self.path = path
        self.run_id = run_id
        self.tool_version = tool_version
        self._chain = Chain(path)

    @classmethod
    def create(cls, path: Path, *, run_id: str, tool_version: str) -> Self:
        """Make a new, empty journal.

        Raises:
            RecordWriteError: The file exists already or cannot be made.
        """
        make_empty(path)
        return cls(path, run_id=run_id, tool_version=tool_version)

    @classmethod
    def open(cls, path: Path, *, run_id: str, tool_version: str) -> Self:
        """Continue a journal; a torn last line is moved to `<name>.torn`, never dropped.

        Raises:
            EvidenceError: The file is missing, broken, or the journal of another run.
        """
        journal = cls(path, run_id=run_id, tool_version=tool_version)
        events = journal._chain.read()
        if events and events[0].run != run_id:
            raise EvidenceError(
                f"{path}: journal of run {events[0].run}, expected {run_id}; open the right folder"
            )
        return journal

    @property
    def head(self) -> str:
        """Digest of the last event; 64 zeros when there is none."""
        return self._chain.head

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self._chain.n_events

    @property
    def is_closed(self) -> bool:
        """Whether the evidence was closed, so that only a resumption may follow."""
        return self._chain.is_closed

    def events(self) -> tuple[JournalEvent, ...]:
        """Return all events of the file, first to last; errors as in `open`."""
        return self._chain.read()

    def append(self, event: str, body: Mapping[str, Any]) -> JournalEvent:
        """Append one event and return after it is on disk.

        Args:
            event: What happened, e.g. "step started".
            body: Facts about it: JSON data, numbers finite.

        Raises:
            EvidenceError: The journal is broken, was cut or is closed, or the body is not JSON
                data.
            RecordWriteError: The line cannot be written; the file is as it was before.
        """
        return self._chain.append(event, body, run=self.run_id, version=self.tool_version)

    def append_all(
        self, event: str, bodies: Sequence[Mapping[str, Any]]
    ) -> tuple[JournalEvent, ...]:
        """Append an event for each body, return after all are on disk; errors as in `append`."""
        return self._chain.append_all(event, bodies, run=self.run_id, version=self.tool_version)


def read_journal(path: Path) -> JournalCheck:
    """Read and check a journal; a missing or unreadable file is a fault, never an exception."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return JournalCheck((), (f"{path.name}: {error.strerror or error}",), NO_EVENT)
    return check_chain(data, path.name)
