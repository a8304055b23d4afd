"""Layers with equalised learning rates (Karras et al. 2018, arXiv:1710.10196)."""

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
        bias: What the bias starts at.
        rate_factor: Learning rate relative to other layers.
    """

    def __init__(
        self, n_in: int, n_out: int, *, bias: float = 0.0, rate_factor: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / rate_factor)
        self.bias = nn.Parameter(torch.full((n_out,), bias / rate_factor))
        self.scale = rate_factor / math.sqrt(n_in)
        self.rate_factor = rate_factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (…, n_in) to (…, n_out)."""
        return functional.linear(x, self.weight * self.scale, self.bias * self.rate_factor)


class EqualisedConv(nn.Module):
    """Convolution without padding choices of its own, scaled like `EqualisedLinear`.

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


def rectified(x: torch.Tensor) -> torch.Tensor:
    """Leaky rectifier that keeps the variance."""
    return functional.leaky_relu(x, SLOPE) * GAIN
