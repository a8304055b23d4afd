"""The protocol of generators, built-in and third-party alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from governance.records.training import FitReport
from medisynth.data.reading.views import ImageView, Pixels

Tensors = Mapping[str, Any]  # name -> torch.Tensor; Any so that this module imports no torch


@dataclass(frozen=True)
class Condition:
    """Plane and machine that a synthetic image shall show; None draws as often as in training.

    Attributes:
        plane: Plane label as it stands in the training view.
        machine: Machine label as it stands in the training view.
    """

    plane: str | None = None
    machine: str | None = None


@dataclass(frozen=True)
class StageState:
    """All that a training stage needs to resume bit by bit as if it had never stopped.

    Attributes:
        stage: Name of the stage.
        step: Updates made.
        tensors: All tensors that training changes: weights, averages, optimisers, candidates.
        facts: JSON data: candidates, curves, counters.
    """

    stage: str
    step: int
    tensors: Tensors
    facts: Mapping[str, Any]


class StageStates(Protocol):
    """Storage for the states of stages."""

    def latest(self, stage: str) -> StageState | None:
        """Return the last committed state of a stage; None when it has none yet.

        Raises:
            WeightsError: The file is damaged or is of another generator.
        """
        ...

    def commit(self, state: StageState) -> None:
        """Store a state, whole or not at all; keep the two newest of its stage."""
        ...


@dataclass(frozen=True)
class TrainingContext:
    """Everything that a generator may use while it trains and samples.

    Attributes:
        seed: Seed; all randomness is derived from (seed, stage, step).
        compute_device: torch device name, "cpu", "cuda" or "mps".
        log: Called as log(stage, step, values) with finite floats, e.g. {"training loss": 0.1}.
        progress: Called as progress(stage, done, total) after every step.
        should_stop: Read between steps; True asks for a clean stop (raise StoppedError).
        states: Storage for training states; None keeps none.
        commit_every: Steps between two committed states; the last step of a stage always is.
        preview: Called as preview(stage, step, images) with a few samples, shape (n, h, w), uint8;
            None wants none.
        preview_every: Steps between two previews; 0 for none.
        score: Distance of synthetic images, shape (n, size, size), uint8, to the tuning view, lower
            is closer (KID); None where there is no feature extractor.
        score_name: Name of `score`, for the record.
        segment: Called as segment(stage, step, state) with a function that gives the state of the
            stage after `repeat_steps` steps, or after its last where it has fewer; None wants none.
        repeat_steps: Steps after which `segment` is called.
    """

    seed: int
    compute_device: str
    log: Callable[[str, int, Mapping[str, float]], None]
    progress: Callable[[str, int, int], None]
    should_stop: Callable[[], bool]
    states: StageStates | None = None
    commit_every: int = 200
    preview: Callable[[str, int, Pixels], None] | None = None
    preview_every: int = 0
    score: Callable[[Pixels], float] | None = None
    score_name: str = ""
    segment: Callable[[str, int, Callable[[], tuple[Tensors, Mapping[str, Any]]]], None] | None = (
        None
    )
    repeat_steps: int = 0


class StoppedError(Exception):
    """Training was asked to stop and did so between two steps."""


class Generator(Protocol):
    """A generator of synthetic images.

    Class attributes: `name` (registered name), `title` (for people), `Settings` (a frozen pydantic
    model, extra="forbid", importable without torch) and `image_size_px(settings)`.
    """

    name: str
    title: str
    Settings: type[BaseModel]

    def __init__(self, settings: BaseModel) -> None: ...

    @staticmethod
    def image_size_px(settings: BaseModel) -> int:
        """Side of the square images it makes, in pixels."""
        ...

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Train on the training view, choose on the tuning view; return a report."""
        ...

    def sample(
        self, n: int, context: TrainingContext, condition: Condition | None = None
    ) -> Pixels:
        """Draw n synthetic images, shape (n, size, size), uint8; same seed, same images.

        Raises:
            SettingsError: The condition names a label that no training image has, or the generator
                knows no such condition.
        """
        ...

    def state(self) -> Tensors:
        """All tensors needed to sample again."""
        ...

    def load_state(self, tensors: Tensors) -> None:
        """Load tensors written by `state`.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        ...
