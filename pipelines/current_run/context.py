"""The context that every step gets, and the data that one step hands to the next."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from governance.evidence.folder import RunFolder
from governance.evidence.journal import Journal
from governance.evidence.manifest import SCRATCH
from governance.evidence.store import EvidenceStore
from governance.records.audit import DatasetAudit
from governance.records.duplicates import DuplicateAudit, DuplicatePair
from governance.records.files import canonical_json, sha256_bytes
from governance.records.partition import IsolationRecord, RefusedRead
from governance.records.policy import Policy
from governance.records.run import Figure, Figures
from governance.sealing.access_log import AccessLog
from governance.sealing.seal import SealedTestSet
from governance.sealing.vault import Vault
from governance.signing.keys import RunSigner
from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.selection import not_selected
from medisynth.data.contract.contract import DataContract
from medisynth.data.reading.conversion import Conversion
from medisynth.data.reading.views import ImageView, Pixels
from pipelines.config.model import RunConfig
from pipelines.current_run.console import Console, of_workspace, program

IMAGE_TABLE = "data/images.parquet"
_FIGURE = "figure drawn"
ISOLATION, ATTEMPT, SEALED_READS = "isolation proved", "forbidden attempt", "sealed reads counted"


@dataclass(frozen=True)
class RunContext:
    """Configuration, policy, evidence store and console, handed to every step.

    Attributes:
        config: Resolved configuration.
        policy: Policy with the run's criteria.
        store: Evidence of this run.
        console: Messages and progress; every progress report obeys a stop request.
        workspace: Folder that holds runs, ledger and simulated data.
        keep_open: Descriptors that the training process keeps open: the run's lock.
        signer: Key that signs the run; None leaves it unsigned.
    """

    config: RunConfig
    policy: Policy
    store: EvidenceStore
    console: Console
    workspace: Path
    keep_open: tuple[int, ...] = ()
    signer: RunSigner | None = None

    @property
    def folder(self) -> RunFolder:
        """The run folder with everything on record so far."""
        return RunFolder.open(self.store)

    @property
    def scratch(self) -> Path:
        """Folder for packed views and temporary files; removed when the run cannot go on."""
        return self.store.run_dir / SCRATCH

    @property
    def ledger_dir(self) -> Path:
        """Folder of the ledgers of all data sets."""
        return self.config.seal.folder("ledger_dir") or self.workspace / "ledger"

    @property
    def vault(self) -> Vault:
        """Places of this run's encrypted test images and their key; they need not exist yet."""
        run_id = self.store.run_id
        keys = self.config.seal.folder("key_dir") or self.workspace / "keys"
        return Vault(self.workspace / "vault" / f"{run_id}.vault", keys / f"{run_id}.key")

    def converted_images(self, data_root: Path, convert: dict[str, Any]) -> Path:
        """Return the folder of the images of a data folder converted by these settings."""
        name = sha256_bytes(canonical_json({"root": str(data_root), "convert": convert}))[:16]
        return self.workspace / "data" / f"converted-{name}"

    @property
    def resume_command(self) -> str:
        """The command that resumes this run."""
        return f"{program()} run --resume {self.store.run_id}{of_workspace(self.workspace)}"


@dataclass(frozen=True)
class ListedData:
    """Listing of the data set, made by the first half of s1.

    Attributes:
        root: Data folder.
        listing: All rows of the metadata file.
        selected: Rows of the selected planes.
        missing: For every row of the listing, whether its image has no file.
        contract: Rules for the table: the data set's contract and the user's own.
        unread: Sentences on what lies in the folder and is not read.
        convert: How files that are no 8-bit PNG are read.
    """

    root: Path
    listing: Listing
    selected: pd.DataFrame
    missing: "pd.Series[bool]"
    contract: DataContract
    unread: tuple[str, ...] = ()
    convert: Conversion = field(default_factory=Conversion)

    @property
    def needs_conversion(self) -> bool:
        """Whether images are converted before anything reads them."""
        return self.convert.is_asked or "frame" in self.listing.table

    @cached_property
    def not_selected(self) -> dict[str, int]:
        """Rows that are not selected, by the reason, the most frequent first."""
        known = next((r.allowed for r in self.contract.rules if r.name == "plane_allowed"), ())
        return not_selected(self.listing.table, self.selected, [str(name) for name in known])

    @cached_property
    def present(self) -> pd.DataFrame:
        """Selected rows whose image has a file."""
        there = set(self.listing.table["image_id"][~self.missing])
        return self.selected[self.selected["image_id"].isin(there)].reset_index(drop=True)


@dataclass(frozen=True)
class ImageSet:
    """Every selected image, decoded once; handed from s1 to s4.

    Attributes:
        root: Folder that the paths of the table lead from: the data folder, or that of the
            converted images.
        source: Data folder, as it was given.
        info: Facts about the data set.
        metadata_file: Metadata file, relative to the data folder.
        table: One row an image, with digests.
        metadata: The same rows as they stand in the metadata file, every column as text.
        pixels: Grey squares in the order of the table, shape (n, size, size), uint8.
        thumbnails: Whole frames stretched to small squares, for comparing, in the same order.
        content_sha256: Digest of the selection.
        contract: Rules for the table: the data set's contract and the user's own.
    """

    root: Path
    source: Path
    info: DatasetInfo
    metadata_file: str
    table: pd.DataFrame
    metadata: pd.DataFrame
    pixels: Pixels
    thumbnails: Pixels
    content_sha256: str
    contract: DataContract

    def place(self, image_id: str) -> str:
        """Return the file that an image came from, relative to the data folder, with its frame."""
        row = self.table[self.table["image_id"] == image_id].iloc[0]
        frame = row.get("source_frame", pd.NA)
        return f"{row.get('source_path', row['path'])}{'' if pd.isna(frame) else f' frame {frame}'}"


@dataclass(frozen=True)
class AuditedImages:
    """Findings of s3 that the split needs or completes.

    Attributes:
        pairs: Confirmed pairs of equal and nearly equal images.
        groups: Group of each row that a split must not divide.
        duplicates: The pairs as they are on record; the split adds partitions.
        audit: The data set audit as it is on record; the split adds what needs partitions.
    """

    pairs: tuple[DuplicatePair, ...]
    groups: pd.Series
    duplicates: DuplicateAudit
    audit: DatasetAudit


@dataclass(frozen=True)
class SplitImages:
    """Result of s4: views for training, and the sealed test set that training must not see.

    The test set has no pixels here: reading it means opening the seal, on record.

    Attributes:
        training: Images that the generator is fitted on.
        tuning: Images that the checkpoint is chosen on.
        sealed_test: The closed test set.
        access_log: Counts reads of sealed files by this process until the opening.
        must_refuse: Description -> path that the training process must fail to read.
        levels: Attribute -> image id -> level, of all images: what results are divided by.
    """

    training: ImageView
    tuning: ImageView
    sealed_test: SealedTestSet
    access_log: AccessLog
    must_refuse: dict[str, str]
    levels: dict[str, dict[str, str]]


@dataclass(frozen=True)
class TrainedGenerator:
    """Result of s5: the released checkpoint and the images that it drew.

    Attributes:
        checkpoint_path: Checkpoint, relative to the run folder.
        checkpoint_sha256: Its digest.
        synthetic: Synthetic images, shape (n, size, size), uint8.
        sample_paths: Files of the synthetic images, relative to the run folder, in the same order.
        by_level: (attribute, level) -> images drawn for it; empty where the generator cannot.
        repeats: Seed -> images drawn with that other seed of sampling.
    """

    checkpoint_path: str
    checkpoint_sha256: str
    synthetic: Pixels
    sample_paths: tuple[str, ...]
    by_level: dict[tuple[str, str], Pixels] = field(default_factory=dict)
    repeats: dict[int, Pixels] = field(default_factory=dict)


def add_figures(figures: Sequence[Figure], store: EvidenceStore) -> None:
    """Put figures whose files are already written on record, in the order of the report."""
    for figure in figures:
        store.journal.append(_FIGURE, figure.model_dump(mode="json"))


def figures_on_record(journal: Journal) -> Figures | None:
    """Return the figures that the steps drew; None if there are none.

    A figure that a resumed run drew again stands once, with its last caption.
    """
    drawn = [Figure.model_validate(e.body) for e in journal.events() if e.type == _FIGURE]
    latest = {figure.path: figure for figure in drawn}
    return Figures(figures=tuple(latest.values())) if latest else None


def isolation_on_record(journal: Journal) -> IsolationRecord | None:
    """Return what the training process proved, tried and read so far; None before its proof.

    The proof and the count of a resumed run replace the earlier ones; attempts add up.
    """
    proof: IsolationRecord | None = None
    noticed, n_reads = [], 0
    for event in journal.events():
        if event.type == ISOLATION:
            proof = IsolationRecord.model_validate(event.body)
            n_reads = proof.n_sealed_reads
        elif event.type == ATTEMPT:
            noticed.append(RefusedRead.model_validate(event.body))
        elif event.type == SEALED_READS:
            n_reads = event.body["n_sealed_reads"]
    if proof is None:
        return None
    return proof.model_copy(update={"noticed": tuple(noticed), "n_sealed_reads": n_reads})
