"""What parent and training process say to each other: one job, then messages, one a line of JSON.

Both sides share these classes. Nothing that the child sends is trusted: a line that is too long or
fits none of them ends the training with one sentence, as an error of the generator.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from governance.evidence.manifest import STATES
from governance.records.base import Document, Sha256
from governance.records.comparison import TuningComparison
from governance.records.errors import ProcessError, first_line
from governance.records.partition import RefusedRead
from governance.records.training import FitReport

LONGEST_BYTES = 1 << 24  # of a message; the largest real one is the result, with all its figures
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00.][^/\\\x00]{0,254}$")]


class FurtherDraw(NamedTuple):
    """Images drawn from the released checkpoint for the evaluation alone.

    Attributes:
        n: Number of images.
        seed: Seed of sampling.
        attribute: "brain_plane" or "machine", to draw images of one level; "" for any.
        level: The level.
    """

    n: int
    seed: int
    attribute: str = ""
    level: str = ""


class TrainingJob(Document):
    """Everything that is sent to the training process.

    Attributes:
        generator: Registered generator name.
        settings: Its settings, as JSON data.
        seed: Seed of training and sampling.
        compute_device: "auto", "cpu", "cuda" or "mps".
        views: Folder of the packed training and tuning views (read).
        checkpoints: Folder for checkpoints and, below it, training states (write).
        work: Folder for everything else, also TMPDIR (write).
        n_synthetic: Synthetic images to draw after training.
        must_refuse: Description -> path that it must try, and fail, to read before its first step.
        forbidden: Folders that must not be inside anything it may read.
        commit_every: Steps between two committed states.
        preview_every: Steps between two sheets of samples; 0 for none.
        processes: Processes that train together.
        repeat_steps: Steps after which the state is kept for a repeat to be compared; 0 for none.
        weights: FID weights file to score candidates with (read); None for none.
        committed: Stage -> (file name, SHA-256) of the state to resume from.
        readable: Further files that the generator may read: weights that it starts from.
        segment_kept: Whether an earlier process of the run kept that state.
        repeats: File and SHA-256 of the state that this job repeats and is compared with, instead
            of training to the end; None trains.
        python_path: Folder that the generator's module is imported from; None when it is installed.
        view_sha256: Partition -> digest of its packed view; training refuses any other view.
        draws: Further images to draw after training; see `FurtherDraw`.
        task_images: Real images at most for the classifiers that show what synthetic images are
            worth; 0 fits none.
        extractors: Registered names of further feature extractors to fit once images are drawn.
        proof_only: End after proving the confinement, without training and drawing.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    generator: str
    settings: dict[str, Any]
    seed: int
    compute_device: str
    views: str
    checkpoints: str
    work: str
    n_synthetic: int
    must_refuse: dict[str, str]
    forbidden: tuple[str, ...]
    commit_every: int
    preview_every: int
    processes: int
    repeat_steps: int
    weights: str | None = None
    committed: dict[str, tuple[str, str]] = Field(default_factory=dict)
    readable: tuple[str, ...] = ()
    segment_kept: bool = False
    repeats: tuple[str, str] | None = None
    python_path: str | None = None
    view_sha256: dict[str, str] = Field(default_factory=dict)
    draws: tuple[FurtherDraw, ...] = ()
    task_images: int = 0
    extractors: tuple[str, ...] = ()
    proof_only: bool = False

    @property
    def states(self) -> Path:
        """Folder of the training states: working files, neither evidence nor checked."""
        return Path(self.checkpoints) / PurePosixPath(STATES).name


class _Message(Document):
    model_config = ConfigDict(ser_json_inf_nan="constants")  # curves may hold what diverged


class Isolation(_Message):
    """The confinement, and what the child tried to read before its first step."""

    type: Literal["isolation"] = "isolation"
    level: int
    level_name: str
    mechanism: str
    attempts: tuple[RefusedRead, ...]


class Attempt(_Message):
    """A forbidden attempt of the generator, as the parent passes it on; the child sends none."""

    type: Literal["attempt"] = "attempt"
    found: RefusedRead


class Log(_Message):
    """Values of curves at a step of a stage."""

    type: Literal["log"] = "log"
    stage: str
    step: int
    values: dict[str, float]


class Progress(_Message):
    """How far a stage is."""

    type: Literal["progress"] = "progress"
    stage: str
    done: int
    total: int


class Committed(_Message):
    """A training state on disk; the child waits until it is in the journal."""

    type: Literal["committed"] = "committed"
    stage: str
    step: int
    path: FileName
    sha256: Sha256


class Segment(_Message):
    """The state after the first steps was kept; the child waits until it is in the journal."""

    type: Literal["segment"] = "segment"
    stage: str
    step: int
    sha256: Sha256


class Preview(_Message):
    """A sheet of samples in the work folder."""

    type: Literal["preview"] = "preview"
    stage: str
    step: int
    path: FileName


class Checkpoint(_Message):
    """The released checkpoint, in its folder."""

    type: Literal["checkpoint"] = "checkpoint"
    path: FileName
    sha256: Sha256


class Failure(_Message):
    """The error that ended the child: its code, exit code and sentence."""

    type: Literal["error"] = "error"
    code: str
    exit_code: int
    message: str


class Trained(Document):
    """What training left: report, digests of the views it saw, checkpoint, comparison.

    `extractor_sha256`: digest of the feature extractor that scored candidates; None for none.
    """

    report: FitReport
    training_view_sha256: Sha256
    tuning_view_sha256: Sha256
    compute_device: str
    duration_s: float
    sampling_s: float
    checkpoint: Checkpoint
    comparison: TuningComparison
    extractor_sha256: Sha256 | None


class Repeated(Document):
    """State that a repeat reached; if it differs, how far its tensors are from the kept ones."""

    stage: str
    step: int
    sha256: Sha256
    largest: float | None = None
    at: str = ""
    relative: float | None = None


class Result(_Message):
    """End of the child's work; both are None for a proof, and of all but the first process."""

    type: Literal["result"] = "result"
    trained: Trained | None = None
    repeated: Repeated | None = None


Message = (
    Isolation
    | Attempt
    | Log
    | Progress
    | Committed
    | Segment
    | Preview
    | Checkpoint
    | Failure
    | Result
)
AWAITED = (Committed, Segment)  # the child waits for an answer to these
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def read_message(line: bytes) -> Message:
    """Read one message of the child.

    Raises:
        ProcessError: The line is no message.
    """
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise broken(f"{f'{where}: ' if where else ''}{first_line(fault['msg'])}") from error


def broken(why: str) -> ProcessError:
    """Return the error for a child that does not keep to these messages."""
    return ProcessError(
        f"the training process sent what is no message ({why}); generator code must leave its "
        "descriptors and standard output alone; what was committed stays",
        code="T902",
    )
