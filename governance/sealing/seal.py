"""The held-out test set: sealed under a Merkle root before training, opened once, on record.

Sealing also writes an encrypted copy of every file as ingested, outside the run folder
(`vault.py`). The opening reads that copy; the data folder is not needed any more.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from governance.evidence.journal import RUN_RESUMED, read_journal
from governance.evidence.manifest import JOURNAL, merkle_root
from governance.evidence.store import EvidenceStore
from governance.records.base import Document, Sha256
from governance.records.errors import SealError
from governance.records.evaluation import Opening
from governance.records.files import canonical_json, sha256_bytes
from governance.records.partition import SealRecord
from governance.sealing.ledger import OPENED, SEALED, Ledger, opening_label
from governance.sealing.vault import CIPHER, Vault, VaultItem


@dataclass(frozen=True)
class Sibling:
    """One hash of an audit path.

    Attributes:
        side: Side of the running hash on which it is joined.
        sha256: The hash.
    """

    side: Literal["left", "right"]
    sha256: str


def leaf_hash(leaf: bytes) -> str:
    """Return the hash of a leaf, behind the byte 0x00, so that no node can pass for a leaf."""
    return sha256_bytes(b"\x00" + leaf)


def audit_path(leaves: Sequence[bytes], index: int) -> tuple[Sibling, ...]:
    """Return the hashes that lead from one leaf to the root, from the bottom up.

    Raises:
        IndexError: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    level = [leaf_hash(leaf) for leaf in leaves]
    path: list[Sibling] = []
    while len(level) > 1:
        if index % 2:
            path.append(Sibling("left", level[index - 1]))
        elif index + 1 < len(level):
            path.append(Sibling("right", level[index + 1]))
        pairs = zip(level[::2], level[1::2], strict=False)
        carried = level[-1:] if len(level) % 2 else []
        level = [_node(left, right) for left, right in pairs] + carried
        index //= 2
    return tuple(path)


def root_of_path(leaf: bytes, path: Sequence[Sibling]) -> str:
    """Return the root from a leaf and its audit path; the tree's own root proves inclusion."""
    found = leaf_hash(leaf)
    for sibling in path:
        pair = (sibling.sha256, found) if sibling.side == "left" else (found, sibling.sha256)
        found = _node(*pair)
    return found


def _node(left: str, right: str) -> str:
    return sha256_bytes(b"\x01" + bytes.fromhex(left) + bytes.fromhex(right))


T = TypeVar("T")

ENCRYPTED, VAULT_REMOVED = "test set encrypted", "vault removed"


class Leaf(Document):
    """One sealed image: the facts that must not change between sealing and opening.

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

    PATH = "data/seal_leaves.json"

    leaves: tuple[Leaf, ...]


def seal_root(leaves: Sequence[Leaf]) -> str:
    """Return the Merkle root (RFC 6962) over the canonical JSON of the leaves, in order.

    Path, patient and labels are bound to the digests: swapped labels change the root.
    """
    return merkle_root([leaf_bytes(leaf) for leaf in leaves])


def leaf_bytes(leaf: Leaf) -> bytes:
    """Return the bytes of a leaf that are hashed: its canonical JSON."""
    return canonical_json(leaf.model_dump())


def seal_test_set(
    leaves: Sequence[Leaf],
    *,
    store: EvidenceStore,
    ledger: Ledger,
    data_root: Path,
    vault: Vault | None = None,
) -> "SealedTestSet":
    """Close the held-out test set: encrypted copy, root to run folder, journal and ledger.

    Args:
        leaves: One leaf for each test image, any order.
        store: Run folder.
        ledger: Ledger of the data set.
        data_root: Folder that the leaves' paths are relative to; read, never written.
        vault: Vault for the encrypted copy; None makes none, and the set cannot be opened.

    Raises:
        SealError: No leaves, an id or path twice, a path outside the data root, a file that is
            not the one that was ingested, or this run has sealed a test set already.
        EvidenceError: Ledger or journal are broken.
        RecordWriteError: The run folder or the ledger cannot be written.
    """
    ordered = tuple(sorted(leaves, key=lambda leaf: leaf.id))
    _refuse_bad_leaves(ordered)
    _refuse_second(store, SEALED, "one run has one held-out test set")
    root = seal_root(ordered)
    n_openings = ledger.n_openings
    if vault is not None:
        n_bytes = vault.write(root, len(ordered), _plain_items(ordered, data_root))
        facts = {"cipher": CIPHER, "n_images": len(ordered), "n_bytes": n_bytes}
        store.journal.append(ENCRYPTED, facts)
    number = ledger.record_seal(store.run_id, root)
    record = SealRecord(
        merkle_root=root,
        n_images=len(ordered),
        n_patients=len({leaf.patient for leaf in ordered}),
        sealed_utc=datetime.now(UTC),
        ledger=ledger.path.name,
        n_earlier_seals=number - 1,
        n_earlier_openings=n_openings,
        encryption="" if vault is None else CIPHER,
    )
    store.write_document(SealLeaves(leaves=ordered))
    store.write_document(record)
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
    return SealedTestSet(record, ordered, store=store, ledger=ledger, vault=vault)


def reopen_sealed_test_set(
    *, store: EvidenceStore, ledger: Ledger, vault: Vault | None = None
) -> "SealedTestSet":
    """Return the test set that this run sealed earlier, still closed, for a resumed run.

    Raises:
        SealError: Nothing was sealed, the leaves do not give the root on record, or vault or key
            are gone.
    """
    record, leaves = read_seal(store.run_dir)
    if vault is not None:
        vault.check_present()
    return SealedTestSet(record, leaves, store=store, ledger=ledger, vault=vault)


def read_seal(run_dir: Path) -> tuple[SealRecord, tuple[Leaf, ...]]:
    """Return seal and leaves of a run folder, once leaves, seal and journal agree.

    Raises:
        SealError: Nothing was sealed, or the leaves do not give the root on record.
    """
    journal = run_dir / JOURNAL
    sealed = [e for e in read_journal(journal).events if e.type == SEALED]
    path = run_dir / "data" / "seal_leaves.json"
    if not sealed:
        raise SealError(f"{journal}: no event {SEALED!r}; this run sealed no test set")
    try:
        record = SealRecord.model_validate_json(path.with_name("seal.json").read_bytes())
        leaves = SealLeaves.model_validate_json(path.read_bytes()).leaves
    except (OSError, ValueError) as error:
        raise SealError(f"{path}: seal cannot be read; restore seal.json and this file") from error
    root = seal_root(leaves)
    if not root == record.merkle_root == sealed[-1].body["merkle_root"]:
        raise SealError(f"{path}: leaves with root {root[:12]}, another is on record; restore it")
    return record, leaves


def remove_vault(store: EvidenceStore, vault: Vault) -> bool:
    """Remove key and vault of a run that will not open its test set again, on record.

    Returns:
        Whether there was anything to remove or to record.

    Raises:
        RecordWriteError: A file cannot be removed, or the journal cannot be written.
    """
    types = [event.type for event in store.journal.events()]
    n_removed = vault.remove()
    if not n_removed and (ENCRYPTED not in types or VAULT_REMOVED in types):
        return False
    # After a kill between the removal and this line no file is left: the count is then 0, rightly.
    store.journal.append(VAULT_REMOVED, {"n_files": n_removed, "opened": OPENED in types})
    return True


def _plain_items(leaves: Sequence[Leaf], data_root: Path) -> Iterator[tuple[VaultItem, bytes]]:
    """Yield each file for the vault; its bytes must be those that were ingested."""
    for leaf in leaves:
        yield _vault_item(leaf), _sealed_bytes(data_root / leaf.path, leaf)


def _vault_item(leaf: Leaf) -> VaultItem:
    binding = {"id": leaf.id, "leaf_sha256": leaf_hash(leaf_bytes(leaf))}
    return VaultItem(leaf.id, canonical_json(binding))


def _sealed_bytes(path: Path, leaf: Leaf) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SealError(f"{path}: ingested as a file, now something else; restore it")
            data = stream.read()
    except OSError as error:
        raise SealError(
            f"{path}: test image cannot be read ({error.strerror or error}); restore the file"
        ) from error
    found = sha256_bytes(data)
    if found != leaf.file_sha256:
        raise SealError(
            f"{path}: ingested with sha256:{leaf.file_sha256[:12]}, now sha256:{found[:12]}; "
            "restore the file and start a new run"
        )
    return data


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
    # The journal shows it, even when the process that did it first is gone.
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
    """The closed test set of one run; only `open` gives its images.

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
        vault: Vault | None = None,
    ) -> None:
        self.record = record
        self._leaves = leaves
        self._store = store
        self._ledger = ledger
        self._vault = vault

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The leaves, sorted by id: names, digests and labels, no pixels."""
        return self._leaves

    def take_note(self) -> str:
        """Return the ledger's note on a torn last line; see `Ledger.take_note`."""
        return self._ledger.take_note()

    def open(
        self,
        *,
        purpose: str,
        plan_sha256: str,
        model_sha256: str,
        read: Callable[[bytes, Leaf], T],
    ) -> tuple[Opening, list[T]]:
        """Record the opening, then decrypt every image and compare it with its leaf.

        Journal and ledger are on disk before the key is read, so an opening that fails counts as
        well.

        Args:
            purpose: Purpose for which the images are read.
            plan_sha256: Digest of the frozen plan.
            model_sha256: Digest of the model that is judged.
            read: Called with the file's bytes and its leaf, in the order of ids.

        Returns:
            The opening, "confirmatory" if it is the first over all runs on this data set, and
            the results of `read`.

        Raises:
            SealError: The test set was opened before in this run, or since it was resumed, has no
                encrypted copy, or vault, key, an image or the leaves are not the sealed ones.
            EvidenceError: Ledger or journal are broken.
            RecordWriteError: Ledger or journal cannot be written.
        """
        _refuse_second(self._store, OPENED, "one run opens the held-out test set once")
        root = self._checked_root()
        vault = self._vault
        if vault is None:
            raise SealError("held-out test set: sealed without an encrypted copy; seal it anew")
        vault.check_present()
        number = self._ledger.record_opening(
            self._store.run_id, root, purpose, plan_sha256, model_sha256
        )
        opening = Opening(
            number=number,
            label=opening_label(number),
            purpose=purpose,
            plan_sha256=plan_sha256,
            model_sha256=model_sha256,
            opened_utc=datetime.now(UTC),
            n_images=len(self._leaves),
        )
        body = {"merkle_root": root, "ledger_head": self._ledger.head}
        self._store.journal.append(OPENED, {**opening.model_dump(mode="json"), **body})
        images = vault.read(root, [_vault_item(leaf) for leaf in self._leaves])
        pairs = zip(images, self._leaves, strict=True)
        return opening, [read(_checked(data, leaf), leaf) for data, leaf in pairs]

    def _checked_root(self) -> str:
        """Return the root of the leaves as they are now; SealError if the record has another."""
        root = seal_root(self._leaves)
        if root != self.record.merkle_root:
            raise SealError(
                f"held-out test set: leaves with root {root[:12]}, sealed with "
                f"{self.record.merkle_root[:12]}; restore data/seal_leaves.json"
            )
        return root


def _checked(data: bytes, leaf: Leaf) -> bytes:
    found = sha256_bytes(data)
    if found != leaf.file_sha256:
        raise SealError(
            f"vault: image {leaf.id[:80]!r} has sha256:{found[:12]}, sealed with "
            f"sha256:{leaf.file_sha256[:12]}; restore the vault"
        )
    return data
