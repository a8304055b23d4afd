"""Updates with gradient accumulation, averaging over processes and guards; rate, precision."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import nn

from governance.records.errors import SettingsError
from medisynth.training.guards import require_finite
from medisynth.training.workers import Batch, workers

Precision = Literal["fp32", "bf16"]
Part = TypeVar("Part")

BF16_MUST_GAIN = 1.15  # bf16 is coarser: take it only where it is clearly faster
GRADIENT_NORM_LIMIT = 1.0
CLIP_MARGIN = 1e-6  # torch divides by the norm and this


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
    norm_limit: float = GRADIENT_NORM_LIMIT,
) -> dict[str, float]:
    """Make one update, but only if every loss and the gradient norm are finite.

    With several processes the gradient is averaged over them, so that it is that of the whole
    batch; every process makes the same update.

    Args:
        optimiser: Optimiser of exactly the parameters that `total` trains.
        losses: Name -> scalar, to be checked and returned.
        total: Scalar to minimise: a mean over this process's images.
        stage: For the message.
        step: For the message.
        rate: Learning rate of this update.
        norm_limit: Gradient norm to which larger ones are clipped.

    Returns:
        The losses and the "gradient norm" (before clipping), means over the processes.

    Raises:
        TrainingError: A number is not finite.
    """
    return accumulated_update(
        optimiser,
        (None,),
        lambda _: (losses, total),
        stage=stage,
        step=step,
        rate=rate,
        norm_limit=norm_limit,
    )


def accumulated_update(
    optimiser: torch.optim.Optimizer,
    parts: Sequence[Part],
    losses_of: Callable[[Part], tuple[Mapping[str, torch.Tensor], torch.Tensor]],
    *,
    stage: str,
    step: int,
    rate: float,
    norm_limit: float = GRADIENT_NORM_LIMIT,
) -> dict[str, float]:
    """Make one update from equal parts of a batch, in the memory of one part.

    Args:
        optimiser: Optimiser of exactly the parameters that the totals train.
        parts: Equal parts of this process's batch, e.g. from `in_parts`.
        losses_of: Part -> (name -> scalar, scalar to minimise); called for one part at a time.
        stage: For the message.
        step: For the message.
        rate: Learning rate of this update.
        norm_limit: Gradient norm to which larger ones are clipped.

    Returns:
        As `update`: means over the parts.

    Raises:
        TrainingError: A number is not finite.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    optimiser.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for part in parts:
        losses, total = losses_of(part)
        (total / len(parts)).backward()  # type: ignore[no-untyped-call]
        for name, loss in losses.items():
            share = loss.detach().float() / len(parts)
            sums[name] = sums[name] + share if name in sums else share
    workers().average_gradients(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # One transfer a step serves the guard and the log.
    numbers = torch.stack([*sums.values(), norm]).tolist()
    # Averaged before the guard looks, so that all processes stop or none.
    values = workers().mean(dict(zip([*sums, "gradient norm"], numbers, strict=True)))
    require_finite(values, stage=stage, step=step)
    if numbers[-1] + CLIP_MARGIN > norm_limit:  # otherwise every gradient would be multiplied by 1
        nn.utils.clip_grads_with_norm_(parameters, norm_limit, norm)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return values


def in_parts(batch: Batch, n_parts: int) -> list[Batch]:
    """Cut a batch (list, tensor or array) into equal parts, for gradient accumulation.

    Raises:
        SettingsError: It cannot be cut into parts of equal size.
    """
    size, rest = divmod(len(batch), n_parts)
    if rest or size == 0:
        raise SettingsError(
            f"accumulate: expected a divisor of the {len(batch)} images that one process takes of "
            f"a batch, found {n_parts}; change accumulate or batch_size"
        )
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def autocast(device: str, precision: Precision) -> AbstractContextManager[object]:
    """Context of bf16 autocast, or of no change for fp32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def choose_precision(
    setting: Literal["auto", "fp32", "bf16"], trial: Callable[[Precision], None], device: str
) -> Precision:
    """Resolve `auto` by timing steps of each precision, interleaved, and comparing the fastest.

    Args:
        setting: The user's setting; any but "auto" is returned as it is.
        trial: Makes one step in a precision, on networks that are thrown away.
        device: torch device name.
    """
    if setting != "auto":
        return setting
    choices: tuple[Precision, Precision] = ("fp32", "bf16")
    fastest_s: dict[str, float] = dict.fromkeys(choices, math.inf)
    for timed in (False, True, True, True):  # the first step of each pays for set-up
        for precision in choices:
            started = _clock(device)
            trial(precision)
            took_s = _clock(device) - started
            if timed:
                fastest_s[precision] = min(fastest_s[precision], took_s)
    fastest_s = workers().mean(fastest_s)  # one answer for all
    return "bf16" if fastest_s["bf16"] * BF16_MUST_GAIN < fastest_s["fp32"] else "fp32"


def _clock(device: str) -> float:
    """Clock in seconds; on a CPU the processor time of this thread, free of other programs."""
    if device == "cpu":
        return time.thread_time()
    if device == "mps":
        torch.mps.synchronize()
    else:
        torch.cuda.synchronize()
    return time.perf_counter()


def mean_of(values: Iterable[tuple[float, int]]) -> float:
    """Mean of (batch mean, number of images), weighted by the number."""
    pairs = list(values)
    return sum(value * n for value, n in pairs) / sum(n for _, n in pairs)
