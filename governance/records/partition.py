"""Documents of split, seal and isolation."""

from typing import Literal

from pydantic import AwareDatetime, Field

from governance.records.base import Document, Sha256
from governance.records.dataset import FlowStep


class PartitionSummary(Document):
    """Number of images and patients of one partition, and its digest."""

    partition: str
    n_images: int
    n_patients: int
    sha256: Sha256  # over (id, file digest, pixel digest) of its images, sorted by id


class SplitRecord(Document):
    """Division of the data into partitions (data/split.json).

    Attributes:
        source: "official" or "computed".
        official_available: Whether the data set brings a split.
        seed: Seed of the computed part.
        unit: Unit that is never divided.
        partitions: Training, tuning, held-out test set.
        shared_patients: Patients in both partitions of each pair, by "a | b".
        shared_content: Images with equal pixels in both partitions of each pair, by "a | b".
        shared_near: Near-duplicate pairs across each pair of partitions, by "a | b".
        flow: Images left of each level of each attribute after dropping; see FlowStep.
        dropped: Ids of images taken out of training by `split.on_duplicate`, with the reason.
        deviations: Departures from the official split, one sentence each.
        refused: Why the split was refused; empty when it stands. The counts of a refused split
            show what was found, but no check passes on them.
    """

    PATH = "data/split.json"
    ABSENCE = "the split step did not run to its end"

    source: Literal["official", "computed"]
    official_available: bool
    seed: int
    unit: str
    partitions: tuple[PartitionSummary, ...]
    shared_patients: dict[str, int]
    shared_content: dict[str, int]
    shared_near: dict[str, int] = Field(default_factory=dict)
    flow: FlowStep | None = None
    dropped: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    refused: str = ""


class SealRecord(Document):
    """The closed test set (data/seal.json; the leaves are in data/seal_leaves.json)."""

    PATH = "data/seal.json"
    ABSENCE = "the split step did not run to its end"

    merkle_root: Sha256
    n_images: int
    n_patients: int
    sealed_utc: AwareDatetime
    ledger: str
    n_earlier_seals: int
    n_earlier_openings: int
    encryption: str = ""  # how the sealed copy is encrypted; "" where there is none


class RefusedRead(Document):
    """One attempt of the training process to read something forbidden.

    Attributes:
        target: Kind of target, e.g. "sealed image", never a patient's file name.
        refused: Whether the system refused it.
        error: Answer of the system, e.g. "PermissionError 13".
        way: Way of the attempt, e.g. "hard link"; "" for a plain read by the process itself.
    """

    target: str
    refused: bool
    error: str
    way: str = ""


class IsolationRecord(Document):
    """Isolation of the training process from the test set (isolation.json).

    Attributes:
        level: 0 index lists, 1 manifest checked at decode, 2 separate process with clean
            environment and packed view, 3 and Landlock, 4 and encrypted at rest, 5 and key held by
            somebody else.
        level_name: Name of the level.
        mechanism: Mechanism that enforced it, e.g. "Landlock ABI 7".
        attempts: What the training process tried to read before its first step.
        n_sealed_reads: Opens of sealed files by the pipeline between sealing and opening.
        limits: What this does not protect against.
        noticed: Forbidden attempts of the generator while it ran, as far as noticed.
    """

    PATH = "isolation.json"
    ABSENCE = "the training step did not run to its end"

    level: int
    level_name: str
    mechanism: str
    attempts: tuple[RefusedRead, ...]
    n_sealed_reads: int
    limits: tuple[str, ...]
    noticed: tuple[RefusedRead, ...] = ()
