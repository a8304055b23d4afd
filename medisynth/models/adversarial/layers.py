"""Layers of both networks: equalised learning rates (Karras et al. 2018, arXiv:1710.10196), or raw."""

import math

import torch
from torch import nn
from torch.nn import functional

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
