"""What every training stage shares: one explicit loop, derived randomness, guards, precision.

A stage is an object with a `step` that makes one update and an `evaluate` that scores the current
weights on the tuning view. The loop reads the stop flag, averages and logs, and times. All
randomness is derived from (seed, stage, position), so step k is the same whatever came before it.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from statistics import fmean
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medisynth.errors import TrainingError
from medisynth.generator import StoppedError, TrainingContext

Precision = Literal["fp32", "bf16"]

N_LOGGED_POINTS = 200
BF16_MUST_GAIN = 1.15  # bf16 is coarser: take it only where it is clearly faster
GRADIENT_NORM_LIMIT = 1.0


class Stage(Protocol):
    """One stage of training."""

    name: str
    n_steps: int

    def step(self, step: int) -> Mapping[str, float]:
        """Make update `step` (0 is the first) and return its finite numbers."""
        ...

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Score the weights after `step` updates on the tuning view."""
        ...


def train(stage: Stage, context: TrainingContext, *, evaluate_every: int) -> float:
    """Run all steps of a stage.

    Args:
        stage: The stage; its networks and optimisers are already set up.
        context: Where progress and numbers go, and who may ask for a stop.
        evaluate_every: Steps between two evaluations; the last step is always evaluated.

    Returns:
        Duration in seconds.

    Raises:
        StoppedError: A stop was asked for; the weights are those after the last whole step.
        TrainingError: A loss or gradient was not finite; the update was not made.
    """
    started = time.perf_counter()
    log_every = max(1, stage.n_steps // N_LOGGED_POINTS)
    window: dict[str, list[float]] = {}
    for step in range(stage.n_steps):
        if context.should_stop():
            raise StoppedError(f"{stage.name}: stopped after {step} of {stage.n_steps} steps")
        for key, value in stage.step(step).items():
            window.setdefault(key, []).append(value)
        done = step + 1
        is_last = done == stage.n_steps
        if done % log_every == 0 or is_last:
            context.log(stage.name, done, {key: fmean(values) for key, values in window.items()})
            window = {}
        if done % evaluate_every == 0 or is_last:
            context.log(stage.name, done, stage.evaluate(done))
        context.progress(stage.name, done, stage.n_steps)
    return time.perf_counter() - started


def derive_seed(seed: int, *place: str | int) -> int:
    """Seed for one place in the work, e.g. (seed, "diffusion", "noise", step); below 2**63."""
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def torch_generator(device: str, seed: int, *place: str | int) -> torch.Generator:
    """Random numbers on a device for one place in the work."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *place))


def numpy_generator(seed: int, *place: str | int) -> np.random.Generator:
    """Random numbers for one place in the work."""
    return np.random.default_rng(derive_seed(seed, *place))


@contextmanager
def seeded_weights(seed: int, stage: str) -> Iterator[None]:
    """Draw initial weights from (seed, stage) on the CPU; torch's own state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, stage, "weights"))
        yield


class Order:
    """Which images make up batch k: every image once an epoch, in an order of (seed, epoch).

    Attributes:
        n_images: Images in the view, at least 1.
        batch_size: Images a batch; a batch may cross the end of an epoch.
    """

    def __init__(self, n_images: int, batch_size: int, seed: int, stage: str) -> None:
        self.n_images = n_images
        self.batch_size = batch_size
        self._place = (seed, stage, "order")
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Pairs (epoch, image index) of batch `step`."""
        first = step * self.batch_size
        return [self._at(position) for position in range(first, first + self.batch_size)]

    def _at(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.n_images)
        if epoch != self._epoch:
            seed, *rest = self._place
            generator = numpy_generator(int(seed), *rest, epoch)
            self._permutation, self._epoch = generator.permutation(self.n_images), epoch
        return epoch, int(self._permutation[place])


def learning_rate(peak: float, step: int, n_steps: int, n_warm_up: int) -> float:
    """Linear warm-up to `peak` over `n_warm_up` steps, then half a cosine towards 0.

    Args:
        peak: Largest learning rate.
        step: Step that is about to be made, 0 to n_steps - 1.
        n_steps: All steps, warm-up included.
        n_warm_up: Steps of warm-up, less than n_steps.
    """
    if step < n_warm_up:
        return peak * (step + 1) / n_warm_up
    done_fraction = (step - n_warm_up) / (n_steps - n_warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * done_fraction))


def update(
    optimiser: torch.optim.Optimizer,
    losses: Mapping[str, torch.Tensor],
    total: torch.Tensor,
    *,
    stage: str,
    step: int,
    rate: float,
) -> dict[str, float]:
    """Make one update, but only if every loss and the gradient norm are finite.

    Args:
        optimiser: Optimiser of exactly the parameters that `total` trains.
        losses: Name to scalar, to be checked and returned.
        total: Scalar to minimise.
        stage: For the message.
        step: For the message.
        rate: Learning rate of this update.

    Returns:
        The losses and the "gradient norm" (before clipping to GRADIENT_NORM_LIMIT).

    Raises:
        TrainingError: A number is not finite.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    optimiser.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM_LIMIT)
    names = [*losses, "gradient norm"]
    # One transfer a step serves the guard and the log.
    numbers = torch.stack([*(loss.detach().float() for loss in losses.values()), norm]).tolist()
    values = dict(zip(names, numbers, strict=True))
    require_finite(values, stage=stage, step=step)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return values


def require_finite(values: Mapping[str, float], *, stage: str, step: int) -> None:
    """Refuse numbers that are not finite.

    Raises:
        TrainingError: Names stage, step and the first such number.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{stage}, step {step + 1}: {name} is {value}, expected a finite number; "
                "the step was not taken; lower the stage's learning_rate or set precision to fp32"
            )


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of a network's weights, short at first so that it warms up.

    Args:
        network: Network whose weights are followed; copied.
        decay: Share of the old average kept at each update in the long run, 0 to 1.
    """

    def follow(
        average: tuple[torch.Tensor, ...] | list[torch.Tensor],
        current: tuple[torch.Tensor, ...] | list[torch.Tensor],
        n: torch.Tensor | int,
    ) -> None:
        now = min(decay, (1 + int(n)) / (10 + int(n)))
        get_ema_multi_avg_fn(now)(average, current, n)  # type: ignore[no-untyped-call]

    return AveragedModel(network, multi_avg_fn=follow)


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy of a network's tensors on the CPU, in plain memory order."""
    return {
        name: value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, value in network.state_dict().items()
    }


def n_parameters(*networks: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for network in networks for p in network.parameters() if p.requires_grad)


def autocast(device: str, precision: Precision) -> AbstractContextManager[object]:
    """bf16 autocast, or nothing for fp32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def choose_precision(
    setting: Literal["auto", "fp32", "bf16"], trial: Callable[[Precision], None], device: str
) -> Precision:
    """Resolve `auto` by timing steps of each precision, interleaved, and comparing the fastest.

    Args:
        setting: What the user asked for; all but "auto" is returned as it is.
        trial: Makes one step in a precision, on networks that are thrown away.
        device: torch device name.
    """
    if setting != "auto":
        return setting
    choices: tuple[Precision, Precision] = ("fp32", "bf16")
    fastest_s = dict.fromkeys(choices, math.inf)
    for timed in (False, True, True, True):  # the first step of each pays for set-up
        for precision in choices:
            started = _clock(device)
            trial(precision)
            took_s = _clock(device) - started
            if timed:
                fastest_s[precision] = min(fastest_s[precision], took_s)
    return "bf16" if fastest_s["bf16"] * BF16_MUST_GAIN < fastest_s["fp32"] else "fp32"


def _clock(device: str) -> float:
    """Seconds of work. On a CPU those of this thread, which other programs do not lengthen."""
    if device == "cpu":
        return time.thread_time()
    if device == "mps":
        torch.mps.synchronize()
    else:
        torch.cuda.synchronize()
    return time.perf_counter()


def mean_of(values: Iterable[tuple[float, int]]) -> float:
    """Mean of batch means, each weighted by its number of images."""
    pairs = list(values)
    return sum(value * n for value, n in pairs) / sum(n for _, n in pairs)
