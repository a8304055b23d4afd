"""Several processes training one network: `torchrun` starts them, accelerate connects them.

With one process nothing is imported, no process group exists and every method returns its input.
With n processes each takes its slice of the same global batch, and gradients are averaged over the
processes just before they are used (`average_gradients`, called by
`medisynth.training.update.update`), so that n processes make the update of one.
"""

import atexit
import os
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from governance.records.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Batch = TypeVar("Batch", list[tuple[int, int]], list[int], torch.Tensor, NDArray[np.generic])
else:
    Batch = TypeVar("Batch")


class Workers:
    """This process in the group of processes that train together.

    Attributes:
        rank: Number of this process, 0 to n - 1.
        n: Number of processes.
    """

    def __init__(self, rank: int = 0, n: int = 1) -> None:
        self.rank = rank
        self.n = n

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs, commits and draws previews."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """Return this process's slice of a global batch: a list, a tensor or an array.

        Noise is drawn for the whole batch and sliced in the same way, so that an image gets the
        same noise whatever the number of processes.

        Raises:
            SettingsError: The batch cannot be cut into equal slices.
        """
        if self.n == 1:
            return batch
        size, rest = divmod(len(batch), self.n)
        if rest:
            raise SettingsError(
                f"batch_size: expected a multiple of the number of processes ({self.n}), "
                f"found {len(batch)}; change batch_size or start another number of processes"
            )
        return batch[self.rank * size : (self.rank + 1) * size]

    def wrap(self, network: nn.Module) -> nn.Module:
        """Give every process the weights and buffers of process 0; returns the same object.

        torch's DistributedDataParallel is not used: it requires one backward pass through all
        weights after every forward pass, which a GAN's updates violate by a frozen discriminator,
        two forward passes and a penalty on gradients.
        """
        if self.n > 1:
            with torch.no_grad():
                for tensor in (*network.parameters(), *network.buffers()):
                    torch.distributed.broadcast(tensor.data, src=0)
        return network

    def unwrap(self, network: nn.Module) -> nn.Module:
        """Return the network that `wrap` was given."""
        return network

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, the gradient of the whole batch.

        Every process calls it with the same parameters; those without a gradient are left out.
        """
        if self.n == 1:
            return
        by_type: dict[torch.dtype, list[torch.Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                by_type.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for gradients in by_type.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            torch.distributed.all_reduce(flat)
            flat /= self.n
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Mean of each number over the processes; all have the same names."""
        if self.n == 1 or not values:
            return dict(values)
        names = sorted(values)
        total = torch.tensor([values[name] for name in names], dtype=torch.float64)
        torch.distributed.all_reduce(total)
        means = dict(zip(names, (total / self.n).tolist(), strict=True))
        return {name: means[name] for name in values}

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all get the same answer."""
        if self.n == 1:
            return flag
        flags = torch.tensor([float(flag)])
        torch.distributed.all_reduce(flags)
        return bool(flags.item())

    def wait(self) -> None:
        """Wait until every process has called this."""
        self.any(False)

    def all_equal(self, number: int) -> bool:
        """Whether all processes have the same number."""
        if self.n == 1:
            return True
        ends = torch.tensor([number, -number])
        torch.distributed.all_reduce(ends, op=torch.distributed.ReduceOp.MAX)
        return int(ends[0]) == -int(ends[1])


@cache
def workers() -> Workers:
    """Return this process in the group started by `torchrun` (or Slurm through it), else alone.

    The first call connects them, over gloo for tensors on the CPU and NCCL for those on CUDA.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers()
    from accelerate import PartialState  # type: ignore[import-untyped]

    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available() and torch.cuda.device_count() >= n_here:
        state = PartialState(backend="cpu:gloo,cuda:nccl")
    else:
        state = PartialState(cpu=True, backend="gloo")
    atexit.register(state.destroy_process_group)
    return Workers(int(state.process_index), int(state.num_processes))
