"""`seal status` and `seal show`: history of sealed test sets, and proof that an image is in one.

Both only read; they need neither data, torch nor MLflow.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.evidence.journal import JournalEvent
from governance.records.errors import ConfigError, SealError
from governance.sealing.ledger import LedgerUse, opening_label, read_ledgers
from governance.sealing.seal import (
    Leaf,
    Sibling,
    audit_path,
    leaf_bytes,
    leaf_hash,
    read_seal,
    root_of_path,
)
from pipelines.finished_runs.find import find_run

_SHOWN_NEAR = 3
_LEAVES = Path("data") / "seal_leaves.json"


@dataclass(frozen=True)
class SealStatus:
    """Every data set whose test set was sealed, from the ledgers of one folder.

    Attributes:
        folder: Folder of the ledgers.
        data_sets: Each with its sealings and openings.
        kept: Files in the workspace's vault folder: name -> size in bytes.
        keys: Files in its folder of keys: name -> size in bytes.
    """

    folder: Path
    data_sets: tuple[LedgerUse, ...]
    kept: dict[str, int]
    keys: dict[str, int]

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON data."""
        return {
            "ledger_dir": str(self.folder),
            "data_sets": [
                {
                    "dataset_sha256": use.dataset_sha256,
                    "n_seals": len(use.seals),
                    "n_openings": len(use.openings),
                    "seals": [_seal_facts(event) for event in use.seals],
                    "openings": [_opening_facts(*one) for one in enumerate(use.openings, start=1)],
                    "notes": list(use.notes),
                }
                for use in self.data_sets
            ],
            "vaults_kept": self.kept,
            "keys_kept": self.keys,
        }

    @property
    def text(self) -> str:
        """The status as text for the screen, one block a data set."""
        blocks = [_block(use) for use in self.data_sets]
        if not blocks:
            blocks = [f"{self.folder}: no test set was sealed here"]
        for folder, files in (("vault", self.kept), ("keys", self.keys)):
            if files:
                lines = [f"  {name}  {n_bytes:,} bytes" for name, n_bytes in files.items()]
                words = f"kept in {folder}/, for runs that have not ended or were cut short:"
                blocks.append("\n".join([words, *lines]))
        return "\n\n".join(blocks)


@dataclass(frozen=True)
class Inclusion:
    """Proof that one image is among the sealed ones of a run.

    Attributes:
        run_id: The run.
        leaf: The image's leaf: path, digests and labels.
        leaf_sha256: Hash of the leaf.
        path: Audit path: sibling hashes from the bottom up.
        n_leaves: Images that were sealed.
        root: Merkle root on record, equal to the one computed from leaf and path.
    """

    run_id: str
    leaf: Leaf
    leaf_sha256: str
    path: tuple[Sibling, ...]
    n_leaves: int
    root: str

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON data."""
        return {
            "run_id": self.run_id,
            "leaf": self.leaf.model_dump(mode="json"),
            "leaf_sha256": self.leaf_sha256,
            "audit_path": [vars(sibling) for sibling in self.path],
            "n_leaves": self.n_leaves,
            "merkle_root": self.root,
            "verified": True,
        }

    @property
    def text(self) -> str:
        """The proof as text for the screen: leaf, path, root."""
        lines = [f"run {self.run_id}: one of {self.n_leaves:,} sealed images", "leaf"]
        for name, value in self.leaf.model_dump(mode="json").items():
            lines.append(f"  {name:<12}  {'not recorded' if value is None else _shown(str(value))}")
        lines.append(f"leaf hash  {self.leaf_sha256}")
        lines.append("audit path, from the bottom up")
        lines += [f"  {sibling.side:<5}  {sibling.sha256}" for sibling in self.path]
        lines.append(f"root       {self.root}")
        lines.append("verified: leaf and path give the root of seal and journal")
        return "\n".join(lines)


def seal_status(workspace: Path, ledger_dir: Path | None = None) -> SealStatus:
    """Read the ledgers of a workspace, or of the folder that several share.

    Raises:
        ConfigError: There is no such folder.
        EvidenceError: A ledger cannot be read or its chain is broken.
    """
    folder = ledger_dir if ledger_dir is not None else workspace / "ledger"
    kept, keys = (
        {} if ledger_dir is not None else _sizes(workspace / name) for name in ("vault", "keys")
    )
    if not folder.is_dir():
        if kept or keys:  # a first run was killed while it encrypted its test images
            return SealStatus(folder, (), kept, keys)
        hint = "" if ledger_dir else "; -w names a workspace, --ledger the folder of its ledgers"
        raise ConfigError(f"{folder}: no folder of ledgers{hint}")
    return SealStatus(folder, read_ledgers(folder), kept, keys)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path.stat().st_size for path in files}


def prove_inclusion(run: str, image_id: str, workspace: Path) -> Inclusion:
    """Prove that an image is among the sealed ones of a run.

    Args:
        run: Run folder, or id of a run in the workspace.
        image_id: The image's id, as in data/seal_leaves.json.
        workspace: Folder that holds runs/.

    Raises:
        ConfigError: There is no such run, or no such image in its sealed test set.
        SealError: Nothing was sealed, or leaves, seal and journal do not fit each other.
    """
    run_dir = find_run(run, workspace)
    record, leaves = read_seal(run_dir)
    index = next((i for i, leaf in enumerate(leaves) if leaf.id == image_id), None)
    if index is None:
        raise ConfigError(_unknown(image_id, [leaf.id for leaf in leaves], run_dir.name))
    hashed = [leaf_bytes(leaf) for leaf in leaves]
    path = audit_path(hashed, index)
    root = root_of_path(hashed[index], path)
    if root != record.merkle_root:
        raise SealError(
            f"{run_dir / _LEAVES}: image {image_id[:80]!r} leads to root {root[:12]}, on record "
            f"is {record.merkle_root[:12]}; restore the file"
        )
    return Inclusion(
        run_id=run_dir.name,
        leaf=leaves[index],
        leaf_sha256=leaf_hash(hashed[index]),
        path=path,
        n_leaves=len(leaves),
        root=root,
    )


def _unknown(image_id: str, known: Sequence[str], run_id: str) -> str:
    near = difflib.get_close_matches(image_id, known, n=_SHOWN_NEAR)
    if near:
        hint = f"near are {', '.join(repr(name[:80]) for name in near)}"
    else:
        hint = f"its {len(known):,} ids are in {_LEAVES.as_posix()}"
    return f"run {run_id}: no image {image_id[:80]!r} in the sealed test set; {hint}"


def _block(use: LedgerUse) -> str:
    lines = [
        f"data set {use.dataset_sha256}",
        f"  {_times('sealing', len(use.seals))}, {_times('opening', len(use.openings))}",
    ]
    for event in use.seals:
        root = _shown(str(event.body.get("merkle_root"))[:16])
        lines.append(f"  sealed  {event.time_utc}  run {_shown(event.run)}  root {root}")
    for number, event in enumerate(use.openings, start=1):
        purpose = f"{opening_label(number)}; {_shown(str(event.body.get('purpose')))}"
        lines.append(f"  opened  {event.time_utc}  run {_shown(event.run)}  {purpose}")
    return "\n".join([*lines, *(f"  note: {note}" for note in use.notes)])


def _times(word: str, n: int) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _seal_facts(event: JournalEvent) -> dict[str, Any]:
    return {**event.body, "run": event.run, "time_utc": event.time_utc}


def _opening_facts(number: int, event: JournalEvent) -> dict[str, Any]:
    when = {"run": event.run, "time_utc": event.time_utc}
    return {**event.body, **when, "number": number, "label": opening_label(number)}


def _shown(text: str) -> str:
    """Return text from a file with control characters escaped."""
    return text if text.isprintable() else ascii(text)
