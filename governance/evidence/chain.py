"""An append-only file of events: one canonical JSON line each, with the previous line's digest.

The journal of a run and the ledger of a data set are such chains. A chain shows a changed, missing
or added line; it cannot show a cut tail or a whole rewrite, so its head (count, digest) is printed
wherever a run is described.
"""

import contextlib
import errno
import fcntl
import getpass
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from governance.records.errors import EvidenceError, first_line
from governance.records.files import (
    canonical_json,
    sha256_bytes,
    sync_folder,
    unwritable,
    utf8_only,
)

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
UtcTime = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]

NO_EVENT = "0" * 64  # head of a chain without events, and `previous` of the first
EVIDENCE_CLOSED = "evidence closed"  # only RUN_RESUMED may follow
RUN_RESUMED = "run resumed"  # the run goes on; what was closed stays in the chain before it
_MAX_EXACT = 2**53 - 1  # largest integer that RFC 8785 writes as an integer


class JournalEvent(BaseModel):
    """One line of a chain.

    Attributes:
        seq: Number of the event, from 0.
        previous: Digest of the event before; 64 zeros for the first.
        time_utc: Time of writing, e.g. "2025-03-01T09:30:00.123Z"; never before the last event's.
        actor: Name of the user whose process wrote it.
        version: Version of medisynth-gov.
        run: Run that it belongs to.
        type: What happened, e.g. "artifact written".
        body: Facts about it, JSON data.
        digest: SHA-256 of the canonical JSON of all the other fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seq: int = Field(ge=0)
    previous: Digest
    time_utc: UtcTime
    actor: str
    version: str
    run: str
    type: str
    body: dict[str, Any]
    digest: Digest


@dataclass(frozen=True)
class JournalCheck:
    """The events read from a chain, and its faults.

    Attributes:
        events: Events that could be read, in file order.
        faults: Every fault with file name and line number; empty when the chain is whole.
        head: Digest of the last readable event; 64 zeros when there is none.
    """

    events: tuple[JournalEvent, ...]
    faults: tuple[str, ...]
    head: str


def utc_text(moment: datetime) -> str:
    """Return a time as UTC text with milliseconds and a Z, as chains write it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_canonical(data: bytes) -> Any:
    """Parse bytes that must be exactly the RFC 8785 form of their content.

    Raises:
        ValueError: Not JSON, not canonical, or nested too deeply.
    """
    try:
        value = json.loads(data, parse_int=_integer)
        if canonical_json(value) != data:
            raise ValueError("not canonical JSON (RFC 8785)")
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _integer(digits: str) -> int | float:
    # RFC 8785 writes the float 1e17 without a point; read back, it must be that float again.
    if len(digits) > 17 or abs(int(digits)) > _MAX_EXACT:
        return float(digits)
    return int(digits)


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"


def _check_line(line: bytes, last: JournalEvent | None) -> tuple[JournalEvent | None, list[str]]:
    """Read a line without its line end; `last` is the event before, None when unreadable."""
    try:
        value = read_canonical(line)
        event = JournalEvent.model_validate(value)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the line"
        return None, [f"not an event: {where}: {error.errors()[0]['msg']}"]
    except ValueError as error:
        return None, [f"not readable: {first_line(error)}"]
    faults = []
    del value["digest"]
    if sha256_bytes(canonical_json(value)) != event.digest:
        faults.append("the digest does not match the line")
    if last is not None and event.previous != last.digest:
        faults.append("'previous' is not the digest of the line before")
    if last is not None and event.seq != last.seq + 1:
        faults.append(f"event number {event.seq}, expected {last.seq + 1}")
    if last is not None and event.time_utc < last.time_utc:
        faults.append(f"time {event.time_utc} is before the event before, {last.time_utc}")
    return event, faults


def check_chain(data: bytes, name: str, *, one_run: bool = True) -> JournalCheck:
    """Check every line of a chain.

    Args:
        data: The file's bytes.
        name: File name for the faults.
        one_run: Whether all events must belong to the run of the first.
    """
    events: list[JournalEvent] = []
    faults: list[str] = []
    last: JournalEvent | None = None
    *lines, tail = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        event, found = _check_line(line, last)
        if event is not None:
            if last is not None and last.type == EVIDENCE_CLOSED and event.type != RUN_RESUMED:
                found.append(f"follows the event {EVIDENCE_CLOSED!r} without {RUN_RESUMED!r}")
            if number == 1 and (event.seq != 0 or event.previous != NO_EVENT):
                found.append("is not the first event of a chain")
            if one_run and events and event.run != events[0].run:
                found.append(f"belongs to run {event.run}, expected {events[0].run}")
            events.append(event)
        faults += [f"{name}:{number}: {fault}" for fault in found]
        last = event
    if tail:
        faults.append(f"{name}:{len(lines) + 1}: torn last line of {len(tail)} bytes, no line end")
    return JournalCheck(tuple(events), tuple(faults), events[-1].digest if events else NO_EVENT)


class Chain:
    """An append-only chain of events in one file, safe for several processes.

    Attributes:
        n_torn_bytes: Bytes of torn last lines that this object moved aside.

    Every append locks the file, so two processes never fork the chain. The last event is
    remembered; when the file has grown in the meantime, it is read and checked anew.
    """

    def __init__(self, path: Path, *, one_run: bool = True) -> None:
        self.path = path
        self._one_run = one_run
        self._n_bytes = 0
        self._last: JournalEvent | None = None
        self.n_torn_bytes = 0

    @property
    def head(self) -> str:
        """Digest of the last event known to this object; 64 zeros when there is none."""
        return NO_EVENT if self._last is None else self._last.digest

    @property
    def n_events(self) -> int:
        """Number of events known to this object."""
        return 0 if self._last is None else self._last.seq + 1

    @property
    def is_closed(self) -> bool:
        """Whether the last event closed the evidence, so that only a resumption may follow."""
        return self._last is not None and self._last.type == EVIDENCE_CLOSED

    def read(self) -> tuple[JournalEvent, ...]:
        """Return all events of the file, after a torn last line was moved aside.

        Raises:
            EvidenceError: The file is missing or the chain is broken.
            RecordWriteError: The file cannot be opened for writing.
        """
        with self._locked() as descriptor:
            return self._catch_up(descriptor)

    def append(
        self,
        event: str,
        body: Mapping[str, Any] | Callable[[Sequence[JournalEvent]], Mapping[str, Any]],
        *,
        run: str,
        version: str,
    ) -> JournalEvent:
        """Append one event and return after it is on disk.

        Args:
            event: What happened.
            body: Facts, JSON data; or a function of all earlier events, called under the lock.
            run: Run that it belongs to.
            version: Version of medisynth-gov.

        Raises:
            EvidenceError: The chain is broken, was cut or is closed, or the body is not JSON data.
            RecordWriteError: The line cannot be written; the file is as it was before.
        """
        with self._locked() as descriptor:
            if callable(body):
                body = body(self._catch_up(descriptor))
            elif os.fstat(descriptor).st_size != self._n_bytes:
                self._catch_up(descriptor)
            return self._add(descriptor, event, [body], run=run, version=version)[-1]

    def append_all(
        self, event: str, bodies: Sequence[Mapping[str, Any]], *, run: str, version: str
    ) -> tuple[JournalEvent, ...]:
        """Append an event for each body, in one write; return after all are on disk.

        Errors as in `append`.
        """
        with self._locked() as descriptor:
            if os.fstat(descriptor).st_size != self._n_bytes:
                self._catch_up(descriptor)
            return self._add(descriptor, event, bodies, run=run, version=version)

    def _add(
        self,
        descriptor: int,
        event: str,
        bodies: Sequence[Mapping[str, Any]],
        *,
        run: str,
        version: str,
    ) -> tuple[JournalEvent, ...]:
        if self.is_closed and event != RUN_RESUMED:
            raise EvidenceError(
                f"{self.path}: {event!r} cannot be recorded, the evidence is closed; "
                "record it before the manifest is written"
            )
        last, written = self._last, list[JournalEvent]()
        for body in bodies:
            last = self._after(last, event, body, run=run, version=version)
            written.append(last)
        lines = b"".join(canonical_json(one.model_dump()) + b"\n" for one in written)
        self._write(descriptor, lines)
        self._last, self._n_bytes = last, self._n_bytes + len(lines)
        return tuple(written)

    def _after(
        self,
        last: JournalEvent | None,
        event: str,
        body: Mapping[str, Any],
        *,
        run: str,
        version: str,
    ) -> JournalEvent:
        now = utc_text(datetime.now(UTC))
        fields = {
            "seq": 0 if last is None else last.seq + 1,
            "previous": NO_EVENT if last is None else last.digest,
            # A clock that was set back must not make an honest chain look broken.
            "time_utc": now if last is None else max(now, last.time_utc),
            "actor": _actor(),
            "version": version,
            "run": run,
            "type": event,
            "body": utf8_only(dict(body)),
        }
        try:
            text = canonical_json(fields)
        except (ValueError, RecursionError) as error:
            raise EvidenceError(
                f"{self.path}: event {event!r} is not JSON data with finite numbers ({error})"
            ) from error
        return JournalEvent.model_validate(
            {**json.loads(text, parse_int=_integer), "digest": sha256_bytes(text)}
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.path, flags)
        except FileNotFoundError as error:
            raise EvidenceError(f"{self.path}: the file has been removed; restore it") from error
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)  # releases the lock

    def _catch_up(self, descriptor: int) -> tuple[JournalEvent, ...]:
        """Read the whole file under the lock, move a torn line aside, remember the last event."""
        data = _read_all(descriptor)
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < self._n_bytes:
            raise EvidenceError(
                f"{self.path}: {len(whole)} bytes, expected at least {self._n_bytes}; "
                "the file was cut, restore it"
            )
        if len(whole) < len(data):
            _keep_torn(self.path, data[len(whole) :])
            self.n_torn_bytes += len(data) - len(whole)
            os.ftruncate(descriptor, len(whole))
            os.fsync(descriptor)
        check = check_chain(whole, self.path.name, one_run=self._one_run)
        if check.faults:
            raise EvidenceError(
                f"{self.path.parent}{os.sep}{check.faults[0]}; expected an unbroken chain, "
                f"found {len(check.faults)} faults, restore the file"
            )
        if self._last is not None and check.events[self._last.seq] != self._last:
            raise EvidenceError(
                f"{self.path}: lines written by this run are gone; restore the file"
            )
        self._last = check.events[-1] if check.events else None
        self._n_bytes = len(whole)
        return check.events

    def _write(self, descriptor: int, lines: bytes) -> None:
        try:
            n_written = os.write(descriptor, lines)
            if n_written != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._n_bytes)
            raise unwritable(self.path, error) from error


def make_empty(path: Path, *, exist_ok: bool = False) -> None:
    """Make an empty file and sync it to disk; RecordWriteError when it cannot be made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, flags | (0 if exist_ok else os.O_EXCL), 0o666))
    except OSError as error:
        raise unwritable(path, error) from error
    sync_folder(path.parent)


def _read_all(descriptor: int) -> bytes:
    blocks, offset = [], 0
    while block := os.pread(descriptor, 1 << 20, offset):
        blocks.append(block)
        offset += len(block)
    return b"".join(blocks)


def _keep_torn(path: Path, tail: bytes) -> None:
    """Append a torn line to `<name>.torn` before it is cut from the chain."""
    torn = path.with_name(path.name + ".torn")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(torn, flags, 0o666), "wb") as stream:
            stream.write(tail + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise unwritable(torn, error) from error
