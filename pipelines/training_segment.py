"""The state after the first steps of training: kept by the training, compared by its repeat.

It holds all that training changes and nothing that differs from run to run, such as times, so that
equal training has an equal digest. Both run in the confined training process.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from governance.files import sha256_bytes, write_atomic
from pipelines.training_process import TrainingJob

if TYPE_CHECKING:
    import torch

FILE = "segment.safetensors"

State = Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Gives tensors and facts, as `medisynth.training.Stage.state` does."""


class Keeper:
    """Keeps the first segment that training reaches, in the work folder of the job."""

    def __init__(self, job: TrainingJob, tell: Callable[..., None]) -> None:
        self._job, self._tell = job, tell
        self._is_kept = job.segment_kept

    def __call__(self, stage: str, step: int, state: State) -> None:
        """Write the state and have it put on record; later stages keep none."""
        if self._is_kept:
            return
        self._is_kept = True
        data = encoded(stage, step, state)
        write_atomic(Path(self._job.work) / FILE, data)
        self._tell(type="segment", stage=stage, step=step, sha256=sha256_bytes(data))


class Comparison:
    """Compares the first segment that a repeat reaches with the one that training kept.

    Attributes:
        found: What it found; None before that.
    """

    def __init__(self, kept: Path, sha256: str) -> None:
        self._kept, self._sha256 = kept, sha256
        self.found: dict[str, Any] | None = None

    def __call__(self, stage: str, step: int, state: State) -> None:
        """Digest of the state; where it is another, how far the tensors are apart."""
        if self.found is not None:
            return
        data = encoded(stage, step, state)
        self.found = {"stage": stage, "step": step, "sha256": sha256_bytes(data)}
        if self.found["sha256"] != self._sha256:
            from medisynth import checkpoint

            kept, facts = checkpoint.read(self._kept, self._sha256)
            again, facts_again = checkpoint.decode(data)
            same = all(facts[key] == facts_again[key] for key in ("stage", "step"))
            self.found |= difference(kept, again) if same else {}


def encoded(stage: str, step: int, state: State) -> bytes:
    """A state as bytes; equal states give equal bytes."""
    from medisynth import checkpoint

    tensors, facts = state()
    text = json.dumps(dict(facts), sort_keys=True, default=repr)
    return checkpoint.encode(tensors, {"stage": stage, "step": str(step), "facts": text})


def difference(
    kept: "Mapping[str, torch.Tensor]", again: "Mapping[str, torch.Tensor]"
) -> dict[str, Any]:
    """How far the tensors of two states are apart; empty where they cannot be compared.

    Returns:
        `largest`, the largest absolute difference of two numbers, the name of its tensor as `at`,
        and `relative`, the Euclidean norm of all differences divided by that of the kept tensors.
    """
    import torch

    shapes = [{name: (t.shape, t.dtype) for name, t in part.items()} for part in (kept, again)]
    if shapes[0] != shapes[1]:
        return {}
    largest, at, squares, total = 0.0, "", 0.0, 0.0
    for name, tensor in kept.items():
        apart = again[name].to(torch.float64) - tensor.to(torch.float64)
        squares += float(apart.square().sum())
        total += float(tensor.to(torch.float64).square().sum())
        if apart.numel() and float(apart.abs().max()) > largest:
            largest, at = float(apart.abs().max()), name
    relative = math.sqrt(squares / total) if total else math.inf
    if not all(map(math.isfinite, (largest, relative))):
        return {}
    return {"largest": largest, "at": at, "relative": relative}
