"""What a generator is: the protocol that built-in and third-party generators fulfil alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from medisynth.data.views import ImageView, Pixels

Tensors = Mapping[str, Any]  # name -> torch.Tensor; Any so that this module imports no torch


@dataclass(frozen=True)
class TrainingContext:
    """What a generator may use while it trains, and nothing else.

    Attributes:
        seed: Seed; all randomness is derived from (seed, stage, step).
        compute_device: torch device name, "cpu", "cuda" or "mps".
        log: Called as log(stage, step, values) with finite floats, e.g. {"training loss": 0.1}.
        progress: Called as progress(stage, done, total) after every step.
        should_stop: Read between steps; True asks for a clean stop (raise StoppedError).
    """

    seed: int
    compute_device: str
    log: Callable[[str, int, Mapping[str, float]], None]
    progress: Callable[[str, int, int], None]
    should_stop: Callable[[], bool]


class StoppedError(Exception):
    """Training was asked to stop and did so between two steps."""


@dataclass(frozen=True)
class StageReport:
    """One stage of training in numbers; duration_s excludes set-up."""

    name: str
    n_parameters: int
    n_steps: int
    batch_size: int
    duration_s: float
    precision: str


@dataclass(frozen=True)
class FitReport:
    """What fitting did.

    Attributes:
        description: Field to text: architecture, sizes, losses, optimiser, schedule,
            augmentation, pre-training, sampler. Every field filled.
        stages: Stages in order.
        fitted: Thing fitted to data -> digest of the view it was fitted on.
        selection_criterion: What the checkpoint was chosen by, e.g. "lowest EMA denoising loss".
        selection_view_sha256: Digest of the view it was computed on (the tuning view).
        candidates: (step, score) of every candidate.
        chosen_step: Step of the chosen one.
    """

    description: dict[str, str]
    stages: tuple[StageReport, ...]
    fitted: dict[str, str]
    selection_criterion: str
    selection_view_sha256: str
    candidates: tuple[tuple[int, float], ...]
    chosen_step: int
    pretrained: tuple[dict[str, str], ...] = field(default=())


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
        """Train on the training view; choose on the tuning view; return what was done."""
        ...

    def sample(self, n: int, context: TrainingContext) -> Pixels:
        """Draw n synthetic images, shape (n, size, size), uint8; same seed, same images."""
        ...

    def state(self) -> Tensors:
        """All tensors needed to sample again."""
        ...

    def load_state(self, tensors: Tensors) -> None:
        """Take tensors written by `state`.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        ...
