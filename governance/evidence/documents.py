"""The JSON documents of a run folder: what each step leaves behind and what reports read.

Every document is frozen and closed. `DOCUMENTS` names the file of each. Reports are written from
these files alone, after their digests were checked against the manifest.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from governance.statuses import Gate, ItemStatus, PrincipleStatus

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

TRAINING, TUNING, TEST = "training", "tuning", "held-out test set"
PARTITIONS = (TRAINING, TUNING, TEST)


class Document(BaseModel):
    """Base of all documents: frozen, closed, collections are tuples."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunIdentity(Document):
    """Who, what, when (run.json, written first).

    Attributes:
        run_id: UTC time and short digest; sortable.
        started_utc: Start of the run.
        tool_version: Version of medisynth-gov.
        code_commit: Commit of the framework's source; None when it is not a git checkout.
        code_clean: Whether the tree had no uncommitted change; None when unknown.
        command: Command line as typed, one entry an argument.
        preset: Preset name.
        generator: Registered generator name, e.g. "dsr-gan".
        seed: Seed of the run.
        config_sha256: Digest of config.yaml.
    """

    run_id: str
    started_utc: AwareDatetime
    tool_version: str
    code_commit: str | None
    code_clean: bool | None
    command: tuple[str, ...]
    preset: str
    generator: str
    seed: int
    config_sha256: Sha256


class Package(Document):
    """One installed distribution, and the version in the lock file (None: not in it)."""

    name: str
    version: str
    locked: str | None = None


class Environment(Document):
    """What the run ran on (environment.json).

    Attributes:
        python: Version, e.g. "3.11.7".
        platform: Operating system and architecture.
        cpu_count: Logical processors available to the process.
        memory_bytes: Physical memory; None when unknown.
        compute_device: Device trained on, e.g. "cpu".
        packages: Installed distributions, sorted by name.
        lock_file: Name of the lock file compared with; None when none was found.
        lock_differences: Installed versions unlike the lock, in words; empty when equal.
    """

    python: str
    platform: str
    cpu_count: int
    memory_bytes: int | None
    compute_device: str
    packages: tuple[Package, ...]
    lock_file: str | None
    lock_differences: tuple[str, ...] = ()


class AbsentAttribute(Document):
    """An attribute that the data set does not record, and what that prevents."""

    name: str
    consequence: str


class FlowStep(Document):
    """What one selection step left: the flow of images from listing to partitions."""

    step: str
    n_images: int
    n_patients: int
    note: str = ""


class DatasetIdentity(Document):
    """Which data set this is (data/dataset.json).

    Attributes:
        name: Adapter name, e.g. "hc18".
        title: Full title.
        version: Publisher's version; empty when it has none.
        doi: DOI; empty when it has none.
        licence: Licence of the data.
        citation: How to cite it.
        is_simulated: True for phantoms: no patient is behind any image.
        split_unit: Unit that is never divided: "patient" or "examination".
        split_unit_note: What that unit can and cannot guarantee; empty when nothing is to be said.
        metadata_file: Metadata file, relative to the data root.
        metadata_sha256: Its digest.
        content_sha256: Digest over (id, pixel digest, labels) of every selected image.
        pinned_sha256: What the configuration expects content_sha256 to be; None when not pinned.
        n_listed: Rows of the metadata file.
        n_missing: Listed images without a file.
        missing_policy: "error" or "drop".
        missing_examples: Up to 20 missing files.
        planes: Planes selected, as configured.
        absent_attributes: Attributes not recorded.
        flow: Images and patients left after each selection step.
        notes: What a reader must know about this data set.
    """

    name: str
    title: str
    version: str
    doi: str
    licence: str
    citation: str
    is_simulated: bool
    split_unit: str
    split_unit_note: str
    metadata_file: str
    metadata_sha256: Sha256
    content_sha256: Sha256 | None
    pinned_sha256: Sha256 | None
    n_listed: int
    n_missing: int
    missing_policy: str
    missing_examples: tuple[str, ...]
    planes: str
    absent_attributes: tuple[AbsentAttribute, ...]
    flow: tuple[FlowStep, ...]
    notes: tuple[str, ...] = ()


class FindingRecord(Document):
    """One fault found in the data."""

    code: str
    where: str
    row: int | None
    column: str | None
    message: str


class Findings(Document):
    """Every fault found in the data (data/findings.json)."""

    findings: tuple[FindingRecord, ...]


class RuleResult(Document):
    """One rule of the data contract, as one engine judged it."""

    engine: Literal["pandera", "great_expectations"]
    rule: str
    column: str
    severity: Literal["critical", "warning", "info"]
    passed: bool
    n_evaluated: int
    n_unexpected: int
    reason: str
    examples: tuple[str, ...] = ()


class ValidationRecord(Document):
    """What both engines said about the image table (data/validation.json)."""

    contract: str
    contract_version: str
    n_rows: int
    engine_versions: dict[str, str]
    rules: tuple[RuleResult, ...]


class CoverageLevel(Document):
    """Patients and images of one level of one attribute in one partition."""

    attribute: str
    level: str
    partition: str  # one of PARTITIONS, or "all"
    n_patients: int
    n_images: int


class CoverageAudit(Document):
    """Who is in the data (data/coverage.json)."""

    attributes: tuple[str, ...]
    levels: tuple[CoverageLevel, ...]
    completeness: dict[str, float]  # attribute -> fraction of patients with a value


class DuplicatePair(Document):
    """Two images with the same content."""

    kind: Literal["same file", "same pixels"]
    left_id: str
    left_patient: str
    left_partition: str | None
    right_id: str
    right_patient: str
    right_partition: str | None


class DuplicateAudit(Document):
    """Images that occur more than once (data/duplicates.json)."""

    method: str
    n_images: int
    n_pairs: int
    n_pairs_across_patients: int
    n_pairs_across_partitions: int
    pairs: tuple[DuplicatePair, ...]  # all pairs, up to 1,000


class PartitionSummary(Document):
    """One partition in numbers."""

    partition: str
    n_images: int
    n_patients: int
    sha256: Sha256  # over (id, file digest, pixel digest) of its images, sorted by id


class SplitRecord(Document):
    """How the data was divided (data/split.json).

    Attributes:
        source: "official" or "computed".
        official_available: Whether the data set brings a split.
        seed: Seed of the computed part.
        unit: Unit that is never divided.
        partitions: Training, tuning, held-out test set.
        shared_patients: Patients in both partitions of each pair, by "a | b".
        shared_content: Images with equal pixels in both partitions of each pair, by "a | b".
        dropped: Ids of images taken out of training by `split.on_duplicate`, with the reason.
        deviations: Departures from the official split, in words.
    """

    source: Literal["official", "computed"]
    official_available: bool
    seed: int
    unit: str
    partitions: tuple[PartitionSummary, ...]
    shared_patients: dict[str, int]
    shared_content: dict[str, int]
    dropped: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()


class SealRecord(Document):
    """The closed test set (data/seal.json; the leaves are in data/seal_leaves.json)."""

    merkle_root: Sha256
    n_images: int
    n_patients: int
    sealed_utc: AwareDatetime
    ledger: str
    n_earlier_seals: int
    n_earlier_openings: int


class RefusedRead(Document):
    """One attempt of the training process to read what it must not."""

    target: str  # what it was, e.g. "sealed image", never a patient's file name
    refused: bool
    error: str  # e.g. "PermissionError 13"


class IsolationRecord(Document):
    """How the training process was kept from the test set (isolation.json).

    Attributes:
        level: 0 index lists, 1 manifest checked at decode, 2 separate process with clean
            environment and packed view, 3 and Landlock, 4 and encrypted at rest, 5 and key held by
            somebody else.
        level_name: The level in words.
        mechanism: What enforced it, e.g. "Landlock ABI 7".
        attempts: What the training process tried to read before its first step.
        n_sealed_reads: Opens of sealed files by the pipeline between sealing and opening.
        limits: What this does not protect against.
    """

    level: int
    level_name: str
    mechanism: str
    attempts: tuple[RefusedRead, ...]
    n_sealed_reads: int
    limits: tuple[str, ...]


class Curve(Document):
    """One quantity over training steps."""

    stage: str  # e.g. "diffusion", "super-resolution"
    name: str  # e.g. "training loss"
    steps: tuple[int, ...]
    values: tuple[float, ...]


class TrainingStage(Document):
    """One stage of training in numbers."""

    name: str
    n_parameters: int
    n_steps: int
    batch_size: int
    duration_s: float
    images_per_s: float
    precision: str


class FittedThing(Document):
    """Something fitted to data, and the digest of the view it was fitted on."""

    name: str
    fit_view_sha256: Sha256


class Candidate(Document):
    """One checkpoint that could have been chosen."""

    step: int
    score: float


class Selection(Document):
    """How the released checkpoint was chosen."""

    partition: str
    view_sha256: Sha256
    criterion: str
    candidates: tuple[Candidate, ...]
    chosen_step: int


class PretrainedComponent(Document):
    """Weights made by somebody else."""

    name: str
    used_for: str
    source: str
    licence: str
    sha256: Sha256
    training_data: str


class TrainingRecord(Document):
    """What was trained and how (metrics/training.json)."""

    generator: str
    title: str
    recipe: str
    image_size_px: int
    training_view_sha256: Sha256
    tuning_view_sha256: Sha256
    description: dict[str, str]  # P6-01: architecture, losses, optimiser, schedule, augmentation …
    stages: tuple[TrainingStage, ...]
    curves: tuple[Curve, ...]
    fitted: tuple[FittedThing, ...]
    selection: Selection
    checkpoint_path: str
    checkpoint_sha256: Sha256
    compute_device: str
    duration_s: float
    pretrained: tuple[PretrainedComponent, ...] = ()


class SampleSet(Document):
    """The synthetic images of the run (samples/manifest.json)."""

    generator: str
    checkpoint_sha256: Sha256
    seed: int
    n_images: int
    image_size_px: int
    files: tuple[tuple[str, Sha256, Sha256], ...]  # path, file digest, pixel digest
    n_marks_read_back: int
    duration_s: float


class MetricResult(Document):
    """One number about the synthetic images, with what changes its value.

    Attributes:
        id: Id that carries what changes the value, e.g. "fid-inception_pool3-d2048-n100".
        title: Name for people, e.g. "Fréchet Inception distance (FID)".
        status: RECORDED or NOT_EVALUATED.
        value: The number; None when not evaluated.
        ci95: Interval by patient bootstrap; None when there is none.
        floor: The same metric, real training against real test images, at the same n.
        floor_ci95: Its interval.
        better: "lower", "higher" or "near floor".
        n_real: Real images; n_synthetic: synthetic images; n_patients: patients behind n_real.
        partition: Partition that is the reference.
        subgroup: "" for all, else "attribute=level".
        extractor: Feature extractor; extractor_sha256: digest of its weights.
        n_features: Length of a feature vector.
        resize: How images were brought to the extractor's size.
        seed: Seed of resampling.
        reason: Why it was not evaluated, or a caution.
    """

    id: str
    title: str
    status: ItemStatus
    value: float | None = None
    ci95: tuple[float, float] | None = None
    floor: float | None = None
    floor_ci95: tuple[float, float] | None = None
    better: Literal["lower", "higher", "near floor"] = "lower"
    n_real: int = 0
    n_synthetic: int = 0
    n_patients: int = 0
    partition: str = TEST
    subgroup: str = ""
    extractor: str = ""
    extractor_sha256: str = ""
    n_features: int = 0
    resize: str = ""
    seed: int = 0
    reason: str = ""


class NearestPair(Document):
    """A synthetic image and its nearest training image."""

    synthetic: str
    training_id: str
    distance: float


class MemorisationRecord(Document):
    """Whether synthetic images copy training images.

    Attributes:
        method: Distance, size and normalisation used.
        threshold: Distance below which a synthetic image is flagged: 1st percentile of the null.
        null_median: Median distance of real tuning images to their nearest training image.
        synthetic_median: Median distance of synthetic images to their nearest training image.
        n_null: Tuning images; n_synthetic: synthetic images.
        n_flagged: Synthetic images below the threshold.
        share_ci95: Wilson interval of the flagged share.
        null_distances: Sorted distances of the null (at most 500).
        synthetic_distances: Sorted distances of the synthetic images (at most 500).
        closest: The closest pairs.
    """

    method: str
    threshold: float
    null_median: float
    synthetic_median: float
    n_null: int
    n_synthetic: int
    n_flagged: int
    share_ci95: tuple[float, float]
    null_distances: tuple[float, ...]
    synthetic_distances: tuple[float, ...]
    closest: tuple[NearestPair, ...]


class Opening(Document):
    """One recorded opening of the sealed test set."""

    number: int  # over all runs that sealed the same set
    label: str  # "confirmatory" or "exploratory, opening k"
    purpose: str
    plan_sha256: Sha256
    model_sha256: Sha256
    opened_utc: AwareDatetime
    n_images: int


class Control(Document):
    """A negative control's value of a metric, which makes the metric believable."""

    name: str  # "black", "noise", "copycat" …
    metric_id: str
    value: float
    meaning: str


class EvaluationRecord(Document):
    """What the synthetic images are worth (metrics/evaluation.json).

    `pretrained` says where the weights of the feature extractors come from: P2-09 asks for it.
    """

    metrics: tuple[MetricResult, ...]
    memorisation: MemorisationRecord | None
    controls: tuple[Control, ...]
    opening: Opening | None
    n_synthetic_in_test: int | None
    n_test_patients_in_training: int | None
    notes: tuple[str, ...] = ()
    pretrained: tuple[PretrainedComponent, ...] = ()


class Figure(Document):
    """A picture for people, with the caption it must carry."""

    path: str
    title: str
    caption: str


class Figures(Document):
    """The pictures of the run, in the order of the report (figures/figures.json)."""

    figures: tuple[Figure, ...]


class StepTiming(Document):
    """How one step went."""

    step: str
    status: Literal["finished", "blocked", "failed", "interrupted", "skipped"]
    duration_s: float
    message: str = ""


class Outcome(Document):
    """How the run ended before evidence and report (outcome.json)."""

    status: Literal["finished", "blocked", "failed", "interrupted"]
    stopped_at: str | None
    error_code: str | None
    message: str
    steps: tuple[StepTiming, ...]
    duration_s: float


class IntegrityRecord(Document):
    """Every file re-read at the end of the run and compared (integrity.json).

    Attributes:
        n_files: Files whose digest was on record from the moment of writing.
        mismatches: Files that changed or vanished since, by path.
        unregistered: Files in the run folder that no step put on record.
        journal_events: Events in the journal when it was checked.
        journal_head: Digest of the last of them.
        journal_faults: Breaks of the chain, in words; empty when it verifies.
    """

    n_files: int
    mismatches: tuple[str, ...]
    unregistered: tuple[str, ...]
    journal_events: int
    journal_head: Sha256
    journal_faults: tuple[str, ...]


class GateLine(Document):
    """One gate item and how it stands."""

    item_id: str
    title: str
    status: ItemStatus
    exit_code: int
    reason: str


class PrincipleLine(Document):
    """One principle and how it stands.

    Attributes:
        n_passed / n_computed: "verified by this run a/b".
        n_declared / n_human: "declared c/d".
        gaps: What is failed, missing or not evaluated, in words, core items first.
    """

    id: str
    title_2021: str
    title_n88: str
    status: PrincipleStatus
    n_passed: int
    n_computed: int
    n_declared: int
    n_human: int
    n_missing: int
    n_not_evaluated: int
    n_failed: int
    n_recorded: int
    n_not_applicable: int
    gaps: tuple[str, ...]


class RollUp(Document):
    """Statuses and gate of the whole run (summary.json)."""

    policy: str
    policy_version: str
    gate: Gate
    exit_code: int
    verdict: str  # one sentence for page 1
    gate_items: tuple[GateLine, ...]
    principles: tuple[PrincipleLine, ...]


class Plan(Document):
    """Criteria and test plan, written and hashed before the first training step (plan.json)."""

    frozen_utc: AwareDatetime
    config_sha256: Sha256
    policy: dict[str, Any]
    primary_endpoint: str
    endpoints: tuple[str, ...]
    subgroups: tuple[str, ...]
    statistics: str
    multiplicity: str


class ManifestFile(Document):
    """One file of the run folder."""

    path: str
    n_bytes: int
    sha256: Sha256


class Manifest(Document):
    """Path, size and digest of every file of the run (manifest.json).

    Attributes:
        run_id: Run that it describes.
        tool_version: Version of medisynth-gov that wrote it.
        created_utc: When the evidence part was closed.
        evidence: All files that existed before the report step, sorted by path.
        evidence_root: Merkle root (RFC 6962 hashing) over them; card and report print it.
        journal_events: Events in the journal when the evidence was closed.
        journal_head: Digest of the last of them.
        previous_run: evidence_root of the run before, in the same workspace; None for the first.
        outputs: Card and report, added after they were written.
    """

    format: Literal["medisynth-gov/manifest/1"] = "medisynth-gov/manifest/1"
    run_id: str
    tool_version: str
    created_utc: AwareDatetime
    evidence: tuple[ManifestFile, ...]
    evidence_root: Sha256
    journal_events: int
    journal_head: Sha256
    previous_run: Sha256 | None = None
    outputs: tuple[ManifestFile, ...] = Field(default=())


DOCUMENTS: dict[str, type[Document]] = {
    "run.json": RunIdentity,
    "environment.json": Environment,
    "plan.json": Plan,
    "isolation.json": IsolationRecord,
    "outcome.json": Outcome,
    "integrity.json": IntegrityRecord,
    "summary.json": RollUp,
    "data/dataset.json": DatasetIdentity,
    "data/findings.json": Findings,
    "data/validation.json": ValidationRecord,
    "data/coverage.json": CoverageAudit,
    "data/duplicates.json": DuplicateAudit,
    "data/split.json": SplitRecord,
    "data/seal.json": SealRecord,
    "metrics/training.json": TrainingRecord,
    "metrics/evaluation.json": EvaluationRecord,
    "samples/manifest.json": SampleSet,
    "figures/figures.json": Figures,
}
