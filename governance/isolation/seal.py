"""The held-out test set: closed with a Merkle root before training, opened once, on record."""

import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from governance.errors import SealError
from governance.evidence.documents import Document, Opening, SealRecord, Sha256
from governance.evidence.journal import RUN_RESUMED, read_journal
from governance.evidence.manifest import merkle_root
from governance.evidence.store import EvidenceStore
from governance.files import canonical_json
from governance.isolation.ledger import OPENED, SEALED, Ledger

T = TypeVar("T")


class Leaf(Document):
    """One sealed image: what must not change between sealing and opening.

    Attributes:
        id: Name of the image, unique.
        path: POSIX path relative to the data root.
        file_sha256: Digest of the file.
        pixel_sha256: Digest of the decoded pixels.
        patient: Patient; None where unknown, as for the labels that follow.
        plane: Plane label.
        brain_plane: Brain plane label.
        operator: Operator.
        machine: Machine.
        width: Pixels.
        height: Pixels.
    """

    id: str
    path: str
    file_sha256: Sha256
    pixel_sha256: Sha256
    patient: str | None
    plane: str | None
    brain_plane: str | None
    operator: str | None
    machine: str | None
    width: int
    height: int


class SealLeaves(Document):
    """The leaves of the seal, sorted by id (data/seal_leaves.json)."""

    leaves: tuple[Leaf, ...]


def seal_root(leaves: Sequence[Leaf]) -> str:
    """Merkle root (RFC 6962) over the canonical JSON of each leaf, in the order given.

    Path, patient and labels are bound to the digests: swapped labels change the root.
    """
    return merkle_root([canonical_json(leaf.model_dump()) for leaf in leaves])


def seal_test_set(
    leaves: Sequence[Leaf], *, store: EvidenceStore, ledger: Ledger, data_root: Path
) -> "SealedTestSet":
    """Close the held-out test set: root to the run folder, the journal and the ledger.

    Args:
        leaves: One a test image, any order.
        store: Run folder.
        ledger: Ledger of the data set.
        data_root: Folder that the leaves' paths are relative to; not read here.

    Raises:
        SealError: No leaves, an id or path twice, a path outside the data root, or this run has
            sealed a test set already.
        EvidenceError: Ledger or journal are broken.
        RecordWriteError: The run folder or the ledger cannot be written.
    """
    ordered = tuple(sorted(leaves, key=lambda leaf: leaf.id))
    _refuse_bad_leaves(ordered)
    _refuse_second(store, SEALED, "one run has one held-out test set")
    root = seal_root(ordered)
    n_openings = ledger.n_openings
    number = ledger.record_seal(store.run_id, root)
    record = SealRecord(
        merkle_root=root,
        n_images=len(ordered),
        n_patients=len({leaf.patient for leaf in ordered}),
        sealed_utc=datetime.now(UTC),
        ledger=ledger.path.name,
        n_earlier_seals=number - 1,
        n_earlier_openings=n_openings,
    )
    store.write_document("data/seal_leaves.json", SealLeaves(leaves=ordered))
    store.write_document("data/seal.json", record)
    store.journal.append(
        SEALED,
        {
            "merkle_root": root,
            "n_images": record.n_images,
            "n_patients": record.n_patients,
            "seal_number": number,
            "ledger": record.ledger,
            "ledger_head": ledger.head,
        },
    )
    return SealedTestSet(record, ordered, store=store, ledger=ledger, data_root=data_root)


def reopen_sealed_test_set(
    *, store: EvidenceStore, ledger: Ledger, data_root: Path
) -> "SealedTestSet":
    """The test set that this run sealed earlier, for a run that is resumed; still closed.

    Raises:
        SealError: Nothing was sealed, or the leaves do not give the root on record.
    """
    sealed = [e for e in read_journal(store.journal.path).events if e.type == SEALED]
    path = store.run_dir / "data" / "seal_leaves.json"
    if not sealed:
        raise SealError(f"{store.journal.path}: no event {SEALED!r}; start a new run")
    try:
        record = SealRecord.model_validate_json(path.with_name("seal.json").read_bytes())
        leaves = SealLeaves.model_validate_json(path.read_bytes()).leaves
    except (OSError, ValueError) as error:
        raise SealError(f"{path}: seal cannot be read; restore seal.json and this file") from error
    root = seal_root(leaves)
    if not root == record.merkle_root == sealed[-1].body["merkle_root"]:
        raise SealError(f"{path}: leaves with root {root[:12]}, another is on record; restore it")
    return SealedTestSet(record, leaves, store=store, ledger=ledger, data_root=data_root)


def _refuse_bad_leaves(leaves: Sequence[Leaf]) -> None:
    if not leaves:
        raise SealError("held-out test set: no images; expected at least one, check the split")
    for name in ("id", "path"):
        seen: set[str] = set()
        for leaf in leaves:
            value: str = getattr(leaf, name)
            if value in seen:
                raise SealError(f"held-out test set: two images with {name} {value[:80]!r}")
            seen.add(value)
    for leaf in leaves:
        path = PurePosixPath(leaf.path)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != leaf.path:
            raise SealError(
                f"held-out test set: image {leaf.id[:80]!r} has the path {leaf.path[:80]!r}; "
                "expected a plain path inside the data root"
            )


def _refuse_second(store: EvidenceStore, event_type: str, why: str) -> None:
    # The journal knows, even when the process that did it first is gone.
    events = read_journal(store.journal.path).events
    if event_type == OPENED:
        # A run that was cut short after its opening may open again, which the ledger counts: the
        # second opening is labelled as one.
        events = events[max((e.seq for e in events if e.type == RUN_RESUMED), default=0) :]
    for event in events:
        if event.type == event_type:
            raise SealError(
                f"{store.journal.path}: event {event.seq} is {event_type!r} already; {why}"
            )


class SealedTestSet:
    """The closed test set of one run; its images can be had through `open` only.

    Attributes:
        record: Root and counts, as written to data/seal.json.
    """

    def __init__(
        self,
        record: SealRecord,
        leaves: tuple[Leaf, ...],
        *,
        store: EvidenceStore,
        ledger: Ledger,
        data_root: Path,
    ) -> None:
        self.record = record
        self._leaves = leaves
        self._store = store
        self._ledger = ledger
        self._data_root = data_root

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The leaves, sorted by id: names, digests and labels, no pixels."""
        return self._leaves

    def open(
        self,
        *,
        purpose: str,
        plan_sha256: str,
        model_sha256: str,
        read: Callable[[Path, Leaf], T],
    ) -> tuple[Opening, list[T]]:
        """Record the opening, then read every image whose file is still the sealed one.

        Journal and ledger are on disk before the first byte of an image is read, so an opening
        that fails counts as well.

        Args:
            purpose: What the images are read for.
            plan_sha256: Digest of the frozen plan.
            model_sha256: Digest of the model that is judged.
            read: Called with the file and its leaf, in the order of ids.

        Returns:
            The opening, "confirmatory" if it is the first over all runs on this data set, and
            what `read` returned.

        Raises:
            SealError: The test set was opened before in this run, or since it was resumed, or a
                file differs.
            EvidenceError: Ledger or journal are broken.
            RecordWriteError: Ledger or journal cannot be written.
        """
        _refuse_second(self._store, OPENED, "one run opens the held-out test set once")
        root = self.record.merkle_root
        number = self._ledger.record_opening(
            self._store.run_id, root, purpose, plan_sha256, model_sha256
        )
        opening = Opening(
            number=number,
            label="confirmatory" if number == 1 else f"exploratory, opening {number}",
            purpose=purpose,
            plan_sha256=plan_sha256,
            model_sha256=model_sha256,
            opened_utc=datetime.now(UTC),
            n_images=len(self._leaves),
        )
        body = {"merkle_root": root, "ledger_head": self._ledger.head}
        self._store.journal.append(OPENED, {**opening.model_dump(mode="json"), **body})
        return opening, [read(self._checked(leaf), leaf) for leaf in self._leaves]

    def _checked(self, leaf: Leaf) -> Path:
        """Return a leaf's file after its digest was compared; SealError when it differs."""
        path = self._data_root / leaf.path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise SealError(f"{path}: sealed as a file, now something else; restore it")
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise SealError(
                f"{path}: sealed image cannot be read ({error.strerror or error}); restore the file"
            ) from error
        if found != leaf.file_sha256:
            raise SealError(
                f"{path}: sealed with sha256:{leaf.file_sha256[:12]}, now sha256:{found[:12]}; "
                "restore the file, or seal and train again"
            )
        return path


class AccessLog:
    """Counts how often this process opens sealed files.

    It hears what Python's audit hook hears: `open` and what is built on it. Reads by compiled
    code (pyarrow, torch storages, ctypes) are not heard and other processes are not watched: a
    courtesy that finds mistakes, not a control. The control is confinement (`confine.py`).
    """

    def __init__(self, n_earlier: int = 0) -> None:
        self.n_opens = n_earlier  # of a run that is resumed: what an earlier process counted
        self._files: frozenset[tuple[int, int]] = frozenset()
        self._paths: frozenset[str] = frozenset()

    def start(self, paths: Iterable[Path]) -> None:
        """Count from now on opens of these files, under whatever name they are opened."""
        files = set()
        resolved = set()
        for path in paths:
            resolved.add(os.path.realpath(path))
            found = _identity(path)
            if found is not None:
                files.add(found)
        self._files, self._paths = frozenset(files), frozenset(resolved)
        with _listening:
            _listeners.add(self)
            _install_hook()

    def stop(self) -> int:
        """Stop counting; return the opens since `start`."""
        with _listening:
            _listeners.discard(self)
        return self.n_opens

    def _hear(self, path: str | bytes) -> None:
        identity = _identity(path)
        known = identity in self._files or os.fsdecode(os.path.realpath(path)) in self._paths
        self.n_opens += known


_listening = threading.Lock()
_listeners: set[AccessLog] = set()
_hooks: list[object] = []


def _install_hook() -> None:
    """Install the one audit hook of this process; it cannot be removed, only left idle."""
    if not _hooks:
        _hooks.append(_hook)
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _listeners or event != "open" or not isinstance(args[0], str | bytes):
        return
    for listener in tuple(_listeners):
        listener._hear(args[0])


def _identity(path: str | bytes | Path) -> tuple[int, int] | None:
    """Device and number of a file, equal for all its names; None when there is no such file."""
    try:
        found = Path(os.fsdecode(path)).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
