"""Keeps the state after the first steps of training, and compares it with that of a repeat.

The state holds all that training changes but nothing that differs from run to run, such as times,
so that equal training gives an equal digest. Both run in the confined training process.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from governance.records.files import sha256_bytes, write_atomic
from pipelines.training.messages import Repeated, Segment, TrainingJob

if TYPE_CHECKING:
    import torch

FILE = "segment.safetensors"

State = Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Function that returns tensors and facts, like `medisynth.training.loop.Stage.state`."""


class Keeper:
    """Keeps the first segment that training reaches, in the work folder of the job."""

    def __init__(self, job: TrainingJob, tell: Callable[[Segment], None]) -> None:
        self._job, self._tell = job, tell
        self._is_kept = job.segment_kept

    def __call__(self, stage: str, step: int, state: State) -> None:
        """Write the first state and tell the parent its digest; ignore later stages."""
        if self._is_kept:
            return
        self._is_kept = True
        data = encoded(stage, step, state)
        write_atomic(Path(self._job.work) / FILE, data)
        self._tell(Segment(stage=stage, step=step, sha256=sha256_bytes(data)))


class Comparison:
    """Compares the first segment that a repeat reaches with the one that training kept.

    Attributes:
        found: Result of the comparison; None before it.
    """

    def __init__(self, kept: Path, sha256: str) -> None:
        self._kept, self._sha256 = kept, sha256
        self.found: Repeated | None = None

    def __call__(self, stage: str, step: int, state: State) -> None:
        """Set `found` to the state's digest and, if it differs, the distance of the tensors."""
        if self.found is not None:
            return
        data = encoded(stage, step, state)
        digest, apart = sha256_bytes(data), {}
        if digest != self._sha256:
            from medisynth import checkpoint

            kept, facts = checkpoint.read(self._kept, self._sha256)
            again, facts_again = checkpoint.decode(data)
            same = all(facts[key] == facts_again[key] for key in ("stage", "step"))
            apart = difference(kept, again) if same else {}
        self.found = Repeated(stage=stage, step=step, sha256=digest, **apart)


def encoded(stage: str, step: int, state: State) -> bytes:
    """Return a state as bytes; equal states give equal bytes."""
    from medisynth import checkpoint

    tensors, facts = state()
    text = json.dumps(dict(facts), sort_keys=True, default=repr)
    return checkpoint.encode(tensors, {"stage": stage, "step": str(step), "facts": text})


def difference(
    kept: "Mapping[str, torch.Tensor]", again: "Mapping[str, torch.Tensor]"
) -> dict[str, Any]:
    """Return the distance between the tensors of two states; empty if not comparable.

    Networks and optimisers are measured separately: in one norm over both, large weights would
    hide unrelated gradients.

    Returns:
        `largest`, the largest absolute difference of two numbers, the name of its tensor as `at`,
        and `relative`: for each kind of tensor (the first part of its name) the Euclidean norm of
        the differences divided by that of the kept tensors, counters left out; the largest of these.
    """
    import torch

    shapes = [{name: (t.shape, t.dtype) for name, t in part.items()} for part in (kept, again)]
    if shapes[0] != shapes[1]:
        return {}
    largest, at = 0.0, ""
    apart: defaultdict[str, float] = defaultdict(float)
    size: defaultdict[str, float] = defaultdict(float)
    for name, tensor in kept.items():
        kind, value = name.partition("/")[0], tensor.to(torch.float64)
        differences = again[name].to(torch.float64) - value
        apart[kind] += float(differences.square().sum())
        if tensor.ndim and tensor.is_floating_point():
            size[kind] += float(value.square().sum())
        most = float(differences.abs().max()) if differences.numel() else 0.0
        if not math.isfinite(most):
            return {}
        if most > largest:
            largest, at = most, name
    if any(apart[kind] and not size[kind] for kind in apart):
        return {}
    shares = [math.sqrt(apart[kind] / size[kind]) for kind in apart if size[kind]]
    relative = max(shares, default=0.0)
    return {"largest": largest, "at": at, "relative": relative}
