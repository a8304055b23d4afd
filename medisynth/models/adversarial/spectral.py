"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957), with torch's names of its state.

Gives what `torch.nn.utils.parametrizations.spectral_norm` gives, up to rounding, in less time:
weights are read as a matrix in their memory order (convolutions here are channels-last) and the
gradient is in closed form.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

SMALL = 1e-12
N_FIRST_ITERATIONS = 15


def spectrally_normalised(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Make a layer use its weight divided by an estimate of its largest singular value."""
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value, re-estimated at each pass in training.

    Args of the constructor:
        weight: Weight of a convolution or of a linear layer.
    """

    _u: torch.Tensor
    _v: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        n_rows, n_columns = weight.flatten(1).shape
        self.register_buffer("_u", normalize(weight.new_empty(n_rows).normal_(), dim=0, eps=SMALL))
        self.register_buffer(
            "_v", normalize(weight.new_empty(n_columns).normal_(), dim=0, eps=SMALL)
        )
        with torch.no_grad():
            for _ in range(N_FIRST_ITERATIONS):
                self._iterate(weight)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight over its largest singular value; one power iteration in training."""
        with torch.no_grad(), _without_autocast(weight.device.type):
            if self.training:
                largest = self._iterate(weight)
            else:
                largest = self._u.dot(_matrix(weight) @ _in_memory_order(self._v, weight))
        # Copies, since another pass may follow before the gradient of this one.
        u, v = self._u.clone(), _in_memory_order(self._v, weight).clone()
        return _Divided.apply(weight, largest, u, v)  # type: ignore[no-untyped-call]

    def _iterate(self, weight: torch.Tensor) -> torch.Tensor:
        """Do one step of the power method; return uᵀ W v, which is the norm of uᵀ W."""
        matrix = _matrix(weight)
        u = matrix @ _in_memory_order(self._v, weight)
        self._u.copy_(normalize(u, dim=0, eps=SMALL))
        v = self._u @ matrix
        norm = v.norm()
        self._v.copy_(_as_named(v / norm.clamp(min=SMALL), weight))
        return norm


class _Divided(torch.autograd.Function):
    """W / s, where s = uᵀ W v; once differentiable by W."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, largest: torch.Tensor, u: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, largest, u, v)
        return weight / largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        weight, largest, u, v = ctx.saved_tensors
        matrix = _matrix(gradient)
        along = torch.dot(matrix.flatten(), _matrix(weight).flatten()) / largest
        of_weight = (matrix / largest).addr_(u * (along / largest), v, alpha=-1)
        if weight.dim() == 2:
            return of_weight, None, None, None
        n_out, n_in, *sides = weight.shape
        return of_weight.view(n_out, *sides, n_in).permute(0, 3, 1, 2), None, None, None


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Switch autocast off, so that the work is done in fp32."""
    if not torch.amp.is_autocast_available(device):  # e.g. "meta", for sizes without memory
        return nullcontext()
    return torch.autocast(device, enabled=False)


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """Weight as a matrix, one row an output; no copy where the weight is channels-last."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight


def _in_memory_order(v: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Reorder `v` from the order of `weight.flatten(1)`, in which `_v` is kept, to `_matrix`'s."""
    return v.view(weight.shape[1:]).permute(1, 2, 0).flatten() if weight.dim() == 4 else v


def _as_named(v: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Inverse of `_in_memory_order`."""
    if weight.dim() == 2:
        return v
    _, n_in, *sides = weight.shape
    return v.view(*sides, n_in).permute(2, 0, 1).flatten()
