"""Layers of both networks: convolutions, resampling and Haar wavelets, spectral normalisation.

Weights have equalised learning rates (Karras et al. 2018, arXiv:1710.10196) or are left raw. Halving
and doubling are ordinary convolutions, without custom kernels. Spectral normalisation (Miyato et al.
2018, arXiv:1802.05957) gives what `torch.nn.utils.parametrizations.spectral_norm` gives, up to
rounding and with its names of the state, in less time: weights are read as a matrix in their memory
order (convolutions here are channels-last), and the gradient is in closed form.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

SLOPE = 0.2
GAIN = math.sqrt(2)  # keeps the variance through a leaky rectifier


class EqualisedLinear(nn.Module):
    """Linear layer whose weights are scaled when used, so that all layers learn equally fast.

    Args of the constructor:
        n_in: Numbers in.
        n_out: Numbers out.
        bias: Initial bias; None for no bias.
        gain: Standard deviation of the result at the start, for inputs of standard deviation 1.
        rate_factor: Learning rate relative to other layers.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        bias: float | None = 0.0,
        gain: float = 1.0,
        rate_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate_factor)
        start = None if bias is None else torch.full((n_out,), bias / rate_factor)
        self.bias = None if start is None else nn.Parameter(start)
        self.scale = gain * rate_factor / math.sqrt(n_in)
        self.rate_factor = rate_factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (…, n_in) to (…, n_out)."""
        bias: torch.Tensor | None = self.bias
        if bias is not None and self.rate_factor != 1:
            bias = bias * self.rate_factor
        return functional.linear(x, self.weight * self.scale, bias)


class EqualisedConv(nn.Module):
    """Convolution with zero padding, scaled like `EqualisedLinear`.

    Args of the constructor:
        n_in: Channels in.
        n_out: Channels out.
        side: Side of the kernel.
        stride: Pixels between two results.
        padding: Zeros at each edge.
    """

    def __init__(
        self, n_in: int, n_out: int, side: int, *, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, side, side))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.scale = 1 / math.sqrt(n_in * side * side)
        self.stride, self.padding = stride, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, n_in, h, w) to (b, n_out, h', w')."""
        return functional.conv2d(
            x, self.weight * self.scale, self.bias, stride=self.stride, padding=self.padding
        )


def linear(
    n_in: int, n_out: int, *, equalised: bool, gain: float = 1.0, bias: bool = True
) -> nn.Module:
    """Make a linear layer, equalised or raw; both start as the same function.

    Args:
        n_in: Numbers in.
        n_out: Numbers out.
        equalised: Whether its learning rate is equalised; a raw one learns faster in relation to its
            weights the more numbers it takes in.
        gain: Standard deviation of the result at the start, for inputs of standard deviation 1.
        bias: Whether it has a bias, from 0.
    """
    if equalised:
        return EqualisedLinear(n_in, n_out, bias=0.0 if bias else None, gain=gain)
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(n_in))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def rectified(x: torch.Tensor) -> torch.Tensor:
    """Apply a leaky rectifier, scaled to keep the variance."""
    return functional.leaky_relu(x, SLOPE) * GAIN


def normalised(x: torch.Tensor) -> torch.Tensor:
    """Scale every row of (b, n) to a mean square of 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


BLUR = (
    1.0,
    3.0,
    3.0,
    1.0,
)  # binomial; the low pass that StyleGAN2 (arXiv:1912.04958) resamples with


@cache
def blur_kernel(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Kernel of the 4 x 4 low pass, sum 1, shape (1, 1, 4, 4)."""
    line = torch.tensor(BLUR, dtype=torch.float64)
    kernel = torch.outer(line, line)
    return (kernel / kernel.sum()).to(device, dtype)[None, None]


def blurred(images: torch.Tensor, padding: int, stride: int = 1) -> torch.Tensor:
    """Apply a low pass to every channel; zeros outside.

    Args:
        images: Shape (b, c, h, w).
        padding: Zeros added at each side.
        stride: Pixels between two results; only results that are kept are computed.
    """
    kernel = blur_kernel(images.device, images.dtype).expand(images.shape[1], 1, 4, 4)
    return functional.conv2d(images, kernel, stride=stride, padding=padding, groups=images.shape[1])


def halved(images: torch.Tensor) -> torch.Tensor:
    """Apply a low pass and keep every second pixel: (b, c, h, w) to (b, c, h / 2, w / 2).

    The same as `blurred` with padding 1 and stride 2: its kernel is that of three running means of
    two pixels. Means stay in fp32 under autocast, where a convolution does not.
    """
    wider = functional.avg_pool2d(images, 2, stride=1, padding=1)
    return functional.avg_pool2d(functional.avg_pool2d(wider, 2, stride=1), 2)


def doubled(images: torch.Tensor) -> torch.Tensor:
    """Enlarge two times: (b, c, h, w) to (b, c, 2 h, 2 w).

    Bilinear interpolation between pixel centres weighs neighbours 3 to 1: it is the same low pass
    after zeros are put between pixels, but repeats the edge in place of darkening it.
    """
    return functional.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)


def haar(images: torch.Tensor) -> torch.Tensor:
    """Haar wavelet transform: (b, c, h, w) to (b, 4 c, h / 2, w / 2); keeps the sum of squares.

    Returns:
        Channels in the order mean, horizontal, vertical, diagonal difference; c of each.
    """
    top_left, top_right = images[..., ::2, ::2], images[..., ::2, 1::2]
    low_left, low_right = images[..., 1::2, ::2], images[..., 1::2, 1::2]
    top, low = top_left + top_right, low_left + low_right
    across, across_low = top_left - top_right, low_left - low_right
    bands = (top + low, across + across_low, top - low, across - across_low)
    return torch.cat(bands, dim=1) * 0.5


def from_haar(bands: torch.Tensor) -> torch.Tensor:
    """Inverse Haar wavelet transform: (b, 4 c, h, w) to (b, c, 2 h, 2 w); undoes `haar`."""
    mean, across, down, diagonal = bands.chunk(4, dim=1)
    left, right = mean + across, mean - across
    left_down, right_down = down + diagonal, down - diagonal
    corners = (left + left_down, right + right_down, left - left_down, right - right_down)
    # Pixel shuffle reads the four corners of a channel one after the other.
    return functional.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2) * 0.5, 2)


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
