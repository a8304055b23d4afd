"""A block of the generator: restyled attention, then a restyled perceptron, each with noise."""

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.adversarial.layers import SLOPE, EqualisedLinear, linear
from medisynth.models.tb_gan.attention import BRANCH_GAIN, Attention
from medisynth.models.tb_gan.settings import TbGanSettings

SMALL = 1e-8
DEPTHWISE_GAIN = 0.3
N_NOISE_MAPS = 2  # of a block: after attention and after the perceptron


class AdaIn(nn.Module):
    """Adaptive instance normalisation: each channel takes mean and scale from the style.

    Args of the constructor:
        width: Channels.
        style_width: Length of the style vector.
    """

    def __init__(self, width: int, style_width: int) -> None:
        super().__init__()
        self.style = EqualisedLinear(style_width, 2 * width, bias=None)
        start = torch.cat([torch.ones(width), torch.zeros(width)])
        self.style.bias = nn.Parameter(start)  # scales start at 1, shifts at 0

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Normalise (h, w, b, c) over places and restyle it by (b, style_width)."""
        scale, shift = self.style(style).float().chunk(2, dim=-1)
        # Batch normalisation of one row a place: statistics, style and all gradients in fp32 in
        # three kernels, five times faster in training on a CPU than from means.
        rows = x.reshape(x.shape[0] * x.shape[1], -1)
        restyled = functional.batch_norm(
            rows, None, None, scale.flatten(), shift.flatten(), training=True, eps=SMALL
        )
        return restyled.view(x.shape)


class DepthwiseResidual(nn.Module):
    """Adds a 3 x 3 depthwise convolution, which connects neighbours across attention windows.

    Args of the constructor:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (h, w, b, width) to the same shape."""
        h, w, b, width = x.shape
        # Images are counted as channels, so that nothing is copied.
        as_one = x.reshape(1, h, w, b * width).permute(0, 3, 1, 2)
        weight = (self.weight * DEPTHWISE_GAIN).repeat(b, 1, 1, 1)
        met = functional.conv2d(as_one, weight, self.bias.repeat(b), padding=1, groups=b * width)
        return x + met.permute(0, 2, 3, 1).reshape(h, w, b, width)


class StyleBlock(nn.Module):
    """Restyled attention, then a restyled two-layer perceptron, each added to its input.

    Args of the constructor:
        settings: Sizes and kinds of layers.
        level: Level of the generator that it belongs to, 0 is the first.
    """

    def __init__(self, settings: TbGanSettings, level: int) -> None:
        super().__init__()
        width, side = settings.widths[level], settings.side_of(level)
        hidden, equalised = settings.mlp_factor * width, settings.equalised
        self.before_attention = AdaIn(width, settings.style_width)
        self.attention = Attention(
            width,
            settings.heads_of_levels[level],
            side,
            min(settings.window, side),
            is_whole=settings.is_whole(level),
            equalised=equalised,
        )
        self.before_mlp = AdaIn(width, settings.style_width)
        self.depthwise = DepthwiseResidual(width) if settings.depthwise else None
        self.widen = linear(width, hidden, equalised=equalised)
        self.narrow = linear(hidden, width, equalised=equalised, gain=BRANCH_GAIN)
        self.noise_gains = None
        if settings.noise:
            self.noise_gains = nn.Parameter(torch.zeros(N_NOISE_MAPS, width))
        self._is_leaky = settings.activation == "leaky_relu"

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, noise: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Map (side, side, b, width) to the same shape.

        Args:
            x: Features.
            style: Shape (b, style_width).
            noise: Two maps of normal numbers, shape (side, side, b, 1) each; empty without noise.
        """
        x = self._noisy(x, noise, 0) + self.attention(self.before_attention(x, style))
        y = self.before_mlp(x, style)
        if self.depthwise is not None:
            y = self.depthwise(y)
        y = self.widen(y)
        y = functional.leaky_relu(y, SLOPE) if self._is_leaky else functional.gelu(y)
        return self._noisy(x, noise, 1) + self.narrow(y)

    def _noisy(self, x: torch.Tensor, noise: tuple[torch.Tensor, ...], place: int) -> torch.Tensor:
        if self.noise_gains is None:
            return x
        return torch.addcmul(x, noise[place], self.noise_gains[place])
