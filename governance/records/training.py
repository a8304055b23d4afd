"""Documents of training and sampling."""

from typing import Literal

from governance.records.base import Document, Sha256
from governance.records.comparison import TuningComparison


class Curve(Document):
    """One quantity over training steps."""

    stage: str  # e.g. "diffusion", "super-resolution"
    name: str  # e.g. "training loss"
    steps: tuple[int, ...]
    values: tuple[float, ...]


class TrainingStage(Document):
    """One stage of training: size, duration, speed and memory.

    `batch_size` is that of one update over all processes together; `peak_memory_bytes` is None
    where the device does not report it.
    """

    name: str
    n_parameters: int
    n_steps: int
    batch_size: int
    duration_s: float
    images_per_s: float
    precision: str
    n_processes: int = 1
    peak_memory_bytes: int | None = None


def training_stage(
    *,
    name: str,
    n_parameters: int,
    n_steps: int,
    batch_size: int,
    duration_s: float,
    precision: str,
    n_processes: int = 1,
    peak_memory_bytes: int | None = None,
) -> TrainingStage:
    """Return a stage with its speed: images of all steps over the seconds that they took.

    Args:
        name: Name of the stage.
        n_parameters: Numbers that it trained.
        n_steps: Updates made.
        batch_size: Images of one update, over all processes together.
        duration_s: Seconds of training, set-up left out.
        precision: "fp32" or "bf16".
        n_processes: Processes that trained together.
        peak_memory_bytes: Most memory used; None where the device does not report it.
    """
    return TrainingStage(
        name=name,
        n_parameters=n_parameters,
        n_steps=n_steps,
        batch_size=batch_size,
        duration_s=duration_s,
        images_per_s=n_steps * batch_size / max(duration_s, 1e-9),
        precision=precision,
        n_processes=n_processes,
        peak_memory_bytes=peak_memory_bytes,
    )


class FittedThing(Document):
    """Something fitted to data, and the digest of the view that it was fitted on."""

    name: str
    fit_view_sha256: Sha256


class Candidate(Document):
    """One checkpoint that could have been chosen, and its score."""

    step: int
    score: float


class Selection(Document):
    """How the released checkpoint was chosen, among which candidates."""

    partition: str
    view_sha256: Sha256
    criterion: str
    candidates: tuple[Candidate, ...]
    chosen_step: int


Overlap = Literal["none known", "known", "unknown"]


class PretrainedComponent(Document):
    """Weights trained by others, their source and their training data.

    Attributes:
        name: Component.
        used_for: What it is used for here.
        source: Where it comes from.
        licence: Its licence.
        sha256: Digest of its weights.
        training_data: Data that it was trained on.
        overlap: Whether those data are known to hold images of this run's data set.
        declared_by: Source of the statement on its training data; "" for none.
    """

    name: str
    used_for: str
    source: str
    licence: str
    sha256: Sha256
    training_data: str
    overlap: Overlap = "unknown"
    declared_by: str = ""


class FitReport(Document):
    """Report of a generator's `fit`: the part of the training record that only it knows.

    Attributes:
        description: Field to text: architecture, sizes, losses, optimiser, schedule, augmentation,
            pre-training, sampler. Every field filled (P6-01).
        stages: Stages in order; `training_stage` makes one.
        fitted: Everything fitted to data, with the digest of the view it was fitted on.
        selection: How the checkpoint was chosen, with every candidate.
        pretrained: Pretrained weights that training started from.
    """

    description: dict[str, str]
    stages: tuple[TrainingStage, ...]
    fitted: tuple[FittedThing, ...]
    selection: Selection
    pretrained: tuple[PretrainedComponent, ...] = ()


class Elsewhere(Document):
    """Images that were made elsewhere: nothing was trained in the run.

    Attributes:
        n_images: Images in the folder that was given.
        sha256: Digest over their paths and bytes.
        has_training: Whether the images that their generator was trained on were given.
    """

    n_images: int
    sha256: Sha256
    has_training: bool


class TrainingRecord(Document):
    """The trained model and how it was trained (metrics/training.json).

    `comparison` sets the released checkpoint beside simple controls on tuning images; None in
    records of earlier versions. `elsewhere` stands for a run that assesses images made elsewhere.
    """

    PATH = "metrics/training.json"
    ABSENCE = "the training step did not run to its end"

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
    comparison: TuningComparison | None = None
    elsewhere: Elsewhere | None = None

    @property
    def knows_training(self) -> bool:
        """Whether the images that the generator was trained on are known."""
        return self.elsewhere is None or self.elsewhere.has_training


class SampleSet(Document):
    """The synthetic images of the run (samples/manifest.json).

    `n_asked` is how many the configuration asked for, `n_drawn` how many the generator returned;
    None in records of earlier versions.
    """

    PATH = "samples/manifest.json"
    ABSENCE = "no synthetic images were drawn"

    generator: str
    checkpoint_sha256: Sha256
    seed: int
    n_images: int
    image_size_px: int
    files: tuple[tuple[str, Sha256, Sha256], ...]  # path, file digest, pixel digest
    n_marks_read_back: int
    duration_s: float
    n_asked: int | None = None
    n_drawn: int | None = None


class RepeatRecord(Document):
    """The first steps of training, made twice with the same seed (metrics/repeat.json).

    Attributes:
        stage: Stage of training that begins.
        step: Steps after which the two states were compared.
        sha256: Digest of the whole state of training; None where none was kept.
        repeated_sha256: Digest of the state of the repeat; None where it gave none.
        largest_difference: Largest difference of two numbers of the states; None where they are
            equal or cannot be compared.
        largest_at: Tensor with that difference.
        relative_difference: Norm of the differences divided by that of the state, networks and
            optimisers each by itself; the larger of the two.
        tolerance: Relative difference up to which the two count as equal.
        compute_device: Device of both.
        duration_s: Seconds that the repeat took.
        problem: Why there is no comparison; "" where there is one.
    """

    PATH = "metrics/repeat.json"
    ABSENCE = "the training step did not run to its end"

    stage: str = ""
    step: int = 0
    sha256: Sha256 | None = None
    repeated_sha256: Sha256 | None = None
    largest_difference: float | None = None
    largest_at: str = ""
    relative_difference: float | None = None
    tolerance: float = 0.0
    compute_device: str = ""
    duration_s: float = 0.0
    problem: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether the two states are equal bit by bit."""
        return self.sha256 is not None and self.sha256 == self.repeated_sha256
