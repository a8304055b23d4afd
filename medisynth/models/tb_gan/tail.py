"""Convolutions with modulated weights (Karras et al. 2020, arXiv:1912.04958) and the Haar tail.

The tail makes the four Haar bands of the image's detail (Gal et al. 2021, arXiv:2102.06108), so
that the generator works at half the image's side at most.
"""

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.adversarial.layers import (
    EqualisedConv,
    EqualisedLinear,
    doubled,
    from_haar,
    rectified,
)

SMALL = 1e-8
MEAN_GAIN, DETAIL_GAIN = 0.3, 0.08  # of the bands; details of images are faint
N_NOISE_MAPS = 2


class ModulatedConv(nn.Module):
    """3 x 3 convolution whose inputs are scaled by the style and whose outputs keep their variance.

    Args of the constructor:
        n_in: Channels in.
        n_out: Channels out.
        style_width: Length of the style vector.
        noise: Whether noise of a learned gain, from 0, is added.
    """

    def __init__(self, n_in: int, n_out: int, style_width: int, *, noise: bool) -> None:
        super().__init__()
        self.style = EqualisedLinear(style_width, n_in, bias=1.0)
        self.conv = EqualisedConv(n_in, n_out, 3, padding=1)
        self.noise_gain = nn.Parameter(torch.zeros(n_out)) if noise else None

    def scales(self, style: torch.Tensor) -> torch.Tensor:
        """Factor of every channel that goes in, shape (b, n_in), fp32."""
        return self.style(style).float()

    def forward(
        self, modulated: torch.Tensor, scales: torch.Tensor, noise: torch.Tensor | None
    ) -> torch.Tensor:
        """Map (b, n_in, h, w) to (b, n_out, h, w).

        Args:
            modulated: Features times `scales`.
            scales: Factors of the channels, from the method `scales`.
            noise: Normal numbers, shape (b, 1, h, w); None without noise.
        """
        weight = self.conv.weight * self.conv.scale
        power = weight.square().sum(dim=(2, 3))
        demodulation = (scales.square() @ power.T + SMALL).rsqrt()
        y = functional.conv2d(modulated, weight, padding=1)
        bias, gain = self.conv.bias[:, None, None], demodulation[:, :, None, None]
        y = torch.addcmul(bias.to(y.dtype), y, gain.to(y.dtype))
        if noise is None or self.noise_gain is None:
            return y
        return torch.addcmul(y, noise.to(y.dtype), self.noise_gain[:, None, None].to(y.dtype))


class ModulatedBands(nn.Module):
    """1 x 1 convolution to a few channels, scaled by the style, without control of the variance.

    Args of the constructor:
        n_in: Channels in.
        n_out: Channels out.
        style_width: Length of the style vector.
    """

    def __init__(self, n_in: int, n_out: int, style_width: int) -> None:
        super().__init__()
        self.style = EqualisedLinear(style_width, n_in, bias=1.0)
        self.linear = EqualisedLinear(n_in, n_out, bias=None)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Map (b, places, n_in) to (b, n_out, places)."""
        scale = self.style(style)[:, None]
        weight = self.linear.weight * self.linear.scale
        return (scale * weight) @ x.transpose(1, 2) + self.bias[:, None]


class HaarTail(nn.Module):
    """Maps the last level's features to the image's finest detail, at four times their side.

    Args of the constructor:
        n_in: Channels of the last level.
        width: Channels of the convolutions.
        style_width: Length of the style vector.
        noise: Whether noise of learned gains is added.
    """

    def __init__(self, n_in: int, width: int, style_width: int, *, noise: bool) -> None:
        super().__init__()
        self.first = ModulatedConv(n_in, width, style_width, noise=noise)
        self.second = ModulatedConv(width, width, style_width, noise=noise)
        self.to_bands = ModulatedBands(width, 4, style_width)
        gains = torch.tensor([MEAN_GAIN, DETAIL_GAIN, DETAIL_GAIN, DETAIL_GAIN])
        self.register_buffer("gains", gains[:, None, None], persistent=False)

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, noise: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Map (h, w, b, n_in) to detail (b, 1, 4 h, 4 w).

        Args:
            x: Features of the last level.
            style: Shape (b, style_width).
            noise: Two maps of normal numbers, shape (2 h, 2 w, b, 1) each; empty without noise.
        """
        scales = self.first.scales(style), self.second.scales(style)
        # Scaled and in the precision of the convolution before the side is doubled: a quarter of
        # the work.
        x = _in_autocast_precision(functional.layer_norm(x, x.shape[-1:]) * scales[0])
        x = doubled(x.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last))
        first, second = (m.permute(2, 3, 0, 1) for m in noise) if noise else (None, None)
        x = rectified(self.first(x, scales[0], first))
        x = x * scales[1].to(x.dtype)[:, :, None, None]
        x = rectified(self.second(x, scales[1], second))
        b, width, h, w = x.shape
        bands = self.to_bands(x.permute(0, 2, 3, 1).reshape(b, h * w, width), style)
        return from_haar(bands.float().view(b, 4, h, w) * self.gains)


def _in_autocast_precision(x: torch.Tensor) -> torch.Tensor:
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
