"""The training loop that all stages share.

A stage is an object with a `step` that makes one update and an `evaluate` that scores the current
weights on the tuning view. The loop reads the stop flag, averages, logs and times, commits the
state of the stage at intervals and resumes from it. All randomness is derived from (seed, stage,
position), so step k is the same whatever came before it, even an interruption.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch

from governance.records.errors import TrainingError, WeightsError
from medisynth.data.reading.views import Pixels
from medisynth.generator import StageState, StoppedError, TrainingContext
from medisynth.training.guards import (
    DiscriminatorGuard,
    pairwise_distance,
    require_diverse,
    require_finite,
)
from medisynth.training.randomness import (
    Order,
    derive_seed,
    numpy_generator,
    seeded_weights,
    torch_generator,
)
from medisynth.training.tensors import (
    averaged,
    gather_state,
    moments_fingerprint,
    n_parameters,
    restore_state,
    snapshot,
)
from medisynth.training.update import (
    GRADIENT_NORM_LIMIT,
    Precision,
    accumulated_update,
    autocast,
    choose_precision,
    in_parts,
    learning_rate,
    mean_of,
    update,
)
from medisynth.training.workers import Workers, workers

__all__ = [
    "GRADIENT_NORM_LIMIT",
    "TIMING_CURVES",
    "DiscriminatorGuard",
    "Order",
    "Precision",
    "Previewed",
    "Stage",
    "TrainedStage",
    "Workers",
    "accumulated_update",
    "autocast",
    "averaged",
    "choose_precision",
    "derive_seed",
    "gather_state",
    "in_parts",
    "learning_rate",
    "mean_of",
    "n_parameters",
    "numpy_generator",
    "pairwise_distance",
    "require_diverse",
    "require_finite",
    "restore_state",
    "seeded_weights",
    "snapshot",
    "torch_generator",
    "train",
    "update",
    "workers",
]

N_LOGGED_POINTS = 200
IMAGES_PER_SECOND, PEAK_MEMORY = "images per second", "peak memory (GiB)"
TIMING_CURVES = frozenset({IMAGES_PER_SECOND, PEAK_MEMORY})  # differ from run to run
_BYTES_PER_GIB = 1 << 30


class Stage(Protocol):
    """One stage of training.

    With several processes each has one. `step` and `evaluate` are called in every process,
    `preview` and `state` in process 0 (`state` at the end in all), so these must not wait for
    other processes.

    Attributes:
        name: Name of the stage, unique in its generator.
        n_steps: Updates.

    A stage may also have `batch_size: int`, images an update over all processes together, for the
    curve of images per second; and may fulfil `Previewed`.
    """

    name: str
    n_steps: int

    def step(self, step: int) -> Mapping[str, float]:
        """Make update `step` (0 is the first) and return its finite numbers."""
        ...

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Score the weights after `step` updates on the tuning view."""
        ...

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that training changes: tensors (`gather_state`, candidates) and JSON facts."""
        ...

    def load_state(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Restore what `state` returned; the next step is then bit by bit what it would have been.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        ...


class Previewed(Protocol):
    """A stage that can draw a few samples; used only where a preview is wanted."""

    def preview(self) -> Pixels:
        """Draw a few samples of the current averaged weights, shape (n, h, w), uint8."""
        ...


@dataclass(frozen=True)
class TrainedStage:
    """Time, memory and processes that training a stage took.

    Attributes:
        duration_s: Time between set-up and the last step, over all interruptions, without work
            that was lost by a kill.
        peak_memory_bytes: Largest memory of one process: allocated on a CUDA device during the
            stage, resident on the CPU since the process started; None where unknown.
        n_processes: Processes that shared the work.
    """

    duration_s: float
    peak_memory_bytes: int | None
    n_processes: int


def train(stage: Stage, context: TrainingContext, *, evaluate_every: int) -> TrainedStage:
    """Make all steps of a stage, or those left after the last committed one.

    Args:
        stage: The stage; its networks and optimisers are already set up.
        context: Receives progress, numbers and states; tells when to stop.
        evaluate_every: Steps between two evaluations; the last step is always evaluated.

    Raises:
        StoppedError: A stop was asked for; the weights are those after the last whole step, and
            they are committed.
        TrainingError: A loss or gradient was not finite, and the update was not made; or the
            processes do not hold the same weights at the end.
        WeightsError: The committed state is damaged or does not fit.
    """
    loop = _Loop(stage, context, evaluate_every)
    loop.resume()
    while loop.done < stage.n_steps:
        loop.stop_if_asked()
        loop.advance()
    loop.require_agreement()
    return loop.result()


class _Loop:
    """Progress of a stage: steps done, curves so far, numbers not yet averaged, time spent."""

    def __init__(self, stage: Stage, context: TrainingContext, evaluate_every: int) -> None:
        self.done = 0
        self._stage, self._context, self._evaluate_every = stage, context, evaluate_every
        self._workers = workers()
        self._log_every = max(1, stage.n_steps // N_LOGGED_POINTS)
        self._points: list[tuple[int, dict[str, float]]] = []
        self._window: dict[str, list[float]] = {}
        self._committed = 0
        self._stepping_s, self._n_timed = 0.0, 0  # since the last point; start anew at a resume
        self._earlier_s, self._started = 0.0, time.perf_counter()
        self._earlier_peak = 0
        if _is_cuda(context.compute_device):
            torch.cuda.reset_peak_memory_stats(context.compute_device)

    def resume(self) -> None:
        """Restore the last committed state, if there is one, and log its curves again."""
        stage, context = self._stage, self._context
        state = context.states.latest(stage.name) if context.states else None
        step = state.step if state else 0
        if not self._workers.all_equal(step):
            raise WeightsError(
                f"{stage.name}: expected every process to find the same committed state, found "
                f"step {step} in process {self._workers.rank} and another elsewhere; "
                "put the run folder on storage that all machines share"
            )
        if state is None:
            return
        if step > stage.n_steps:
            raise WeightsError(
                f"{stage.name}: expected a state of at most {stage.n_steps} steps, found one of "
                f"{step}; resume with the settings it was written with"
            )
        stage.load_state(state.tensors, state.facts["stage"])
        facts = state.facts["loop"]
        self.done = self._committed = step
        self._points = [(int(at), dict(values)) for at, values in facts["points"]]
        self._window = {name: list(values) for name, values in facts["window"].items()}
        self._earlier_s = float(facts["duration_s"])
        self._earlier_peak = int(facts["peak_memory_bytes"])
        if self._workers.is_main:
            for at, values in self._points:
                context.log(stage.name, at, values)
            context.progress(stage.name, self.done, stage.n_steps)

    def stop_if_asked(self) -> None:
        """Commit the state and raise when any process was asked to stop."""
        if self._workers.any(self._context.should_stop()):
            self._commit()
            self._workers.wait()  # the first process to end may take the others with it
            raise StoppedError(
                f"{self._stage.name}: stopped after {self.done} of {self._stage.n_steps} steps"
            )

    def advance(self) -> None:
        """Make one step, then log, evaluate, preview and commit what is due."""
        stage, context = self._stage, self._context
        started = time.perf_counter()
        values = self._workers.mean(stage.step(self.done))
        self._stepping_s += time.perf_counter() - started
        self._n_timed += 1
        self.done += 1
        for name, value in values.items():
            self._window.setdefault(name, []).append(value)
        if self._is_due(self._log_every):
            self._log({name: fmean(values) for name, values in self._window.items()})
            self._log(self._timing())
            self._window = {}
        if self._is_due(self._evaluate_every):
            self._log(stage.evaluate(self.done))
        if context.preview is not None and self._is_due(context.preview_every or stage.n_steps):
            self._preview(context.preview)
        at = min(context.repeat_steps, stage.n_steps)
        if context.segment is not None and self._workers.is_main and self.done == at:
            context.segment(stage.name, self.done, stage.state)
        if self._is_due(context.commit_every):
            self._commit()
        if self._workers.is_main:
            context.progress(stage.name, self.done, stage.n_steps)

    def require_agreement(self) -> None:
        """Refuse a stage whose processes did not stay in agreement."""
        if self._workers.n == 1:
            return
        tensors, _ = self._stage.state()
        if not self._workers.all_equal(moments_fingerprint(tensors)):
            raise TrainingError(
                f"{self._stage.name}: expected {self._workers.n} processes with equal optimiser "
                "moments, found different ones; make updates by medisynth.training.update.update, or "
                "call workers().average_gradients before the optimiser's step"
            )

    def result(self) -> TrainedStage:
        """Return time, memory and number of processes that the stage took."""
        peak = max(self._peak_memory_bytes(), self._earlier_peak)
        return TrainedStage(self._duration_s(), peak or None, self._workers.n)

    def _is_due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self._stage.n_steps

    def _log(self, values: Mapping[str, float]) -> None:
        if values and self._workers.is_main:
            self._points.append((self.done, dict(values)))
            self._context.log(self._stage.name, self.done, values)

    def _timing(self) -> dict[str, float]:
        values = {}
        batch_size = getattr(self._stage, "batch_size", None)
        if batch_size is not None:
            rate = batch_size * self._n_timed / max(self._stepping_s, 1e-9)
            values[IMAGES_PER_SECOND] = rate
        if _is_cuda(self._context.compute_device):
            values[PEAK_MEMORY] = self._peak_memory_bytes() / _BYTES_PER_GIB
        self._stepping_s, self._n_timed = 0.0, 0
        return values

    def _preview(self, show: Callable[[str, int, Pixels], None]) -> None:
        draw = getattr(self._stage, "preview", None)
        if draw is not None and self._workers.is_main:
            show(self._stage.name, self.done, draw())

    def _commit(self) -> None:
        states = self._context.states
        if states is None or self.done == self._committed or not self._workers.is_main:
            return
        tensors, facts = self._stage.state()
        loop = {
            "points": [[at, values] for at, values in self._points],
            "window": self._window,
            "duration_s": self._duration_s(),
            "peak_memory_bytes": max(self._peak_memory_bytes(), self._earlier_peak),
        }
        name = self._stage.name
        states.commit(StageState(name, self.done, tensors, {"stage": facts, "loop": loop}))
        self._committed = self.done

    def _duration_s(self) -> float:
        return self._earlier_s + time.perf_counter() - self._started

    def _peak_memory_bytes(self) -> int:
        device = self._context.compute_device
        if _is_cuda(device):
            return torch.cuda.max_memory_allocated(device)
        return peak_resident_bytes() or 0 if device == "cpu" else 0


def peak_resident_bytes() -> int | None:
    """Largest resident memory of this process since it was started; None where unknown.

    Linux only: elsewhere, and in `getrusage`, the number may be that of the parent process.
    """
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
