"""Generator of StyleSwin (Zhang et al. 2022, arXiv:2112.10762), written from the paper.

Feature maps are kept as (h, w, b, c): linear layers and attention read them without a copy, and what
is done to each channel of each image by itself is done to (h, w, b · c), images counted as channels.
"""

import math
from functools import cache
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.tb_gan.attention import DoubleAttention
from medisynth.models.tb_gan.layers import EqualisedLinear, rectified
from medisynth.models.tb_gan.resampling import doubled
from medisynth.models.tb_gan.settings import SMALLEST_SIDE, TbGanSettings

MAPPING_RATE_FACTOR = 0.01
MLP_FACTOR = 4
LONGEST_PERIOD = 10_000.0
LAYER_GAIN = math.sqrt(0.5)
IMAGE_GAIN = 0.1
SMALL = 1e-8


@cache
def position_grid(side: int, width: int, device: torch.device) -> torch.Tensor:
    """Sinusoidal encoding of the places of a square map (section 3.3 of the paper).

    Attention knows places within a window only; this tells it where the window lies.

    Returns:
        Shape (side, side, width): sines and cosines of the row, then of the column.
    """
    n = width // 4
    periods = LONGEST_PERIOD ** (torch.arange(n, dtype=torch.float64) / n)
    angles = torch.arange(side, dtype=torch.float64)[:, None] / periods
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None].expand(side, side, 2 * n)
    columns = line[None].expand(side, side, 2 * n)
    return torch.cat([rows, columns], dim=2).float().to(device)


class AdaIn(nn.Module):
    """Adaptive instance normalisation: each channel takes mean and scale from the style.

    Args of the constructor:
        width: Channels.
        style_width: Length of the style vector.
    """

    def __init__(self, width: int, style_width: int) -> None:
        super().__init__()
        self.style = EqualisedLinear(style_width, 2 * width)
        with torch.no_grad():
            self.style.bias[:width].fill_(1.0)

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


class StyleBlock(nn.Module):
    """Restyled double attention, then a restyled two-layer perceptron, each added to its input.

    Args of the constructor:
        width: Channels.
        heads: Attention heads.
        side: Side of the feature map.
        window: Largest side of a window.
        style_width: Length of the style vector.
    """

    def __init__(self, width: int, heads: int, side: int, window: int, style_width: int) -> None:
        super().__init__()
        self.before_attention = AdaIn(width, style_width)
        self.attention = DoubleAttention(width, heads, side, min(window, side))
        self.before_mlp = AdaIn(width, style_width)
        self.widen = nn.Linear(width, MLP_FACTOR * width)
        self.narrow = nn.Linear(MLP_FACTOR * width, width)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Map (side, side, b, width) to the same shape; style is (b, style_width)."""
        x = x + self.attention(self.before_attention(x, style))
        return x + self.narrow(functional.gelu(self.widen(self.before_mlp(x, style))))


class Enlarge(nn.Module):
    """From one level to the next: normalise, change the width, double the side.

    The width is changed before the side is doubled, at a quarter of the cost of the other order and
    with the same weights.
    """

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, next_width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (h, w, b, width) to (2 h, 2 w, b, next_width)."""
        x = self.narrow(self.norm(x))
        h, w, b, width = x.shape
        as_one = doubled(x.view(1, h, w, b * width).permute(0, 3, 1, 2))
        return as_one.permute(0, 2, 3, 1).view(2 * h, 2 * w, b, width)


class Level(nn.Module):
    """Blocks at one resolution, with positions before them and an image after them."""

    def __init__(self, settings: TbGanSettings, index: int) -> None:
        super().__init__()
        width, heads = settings.widths[index], settings.heads_of_levels[index]
        self.side = SMALLEST_SIDE * 2**index
        self.width = width
        self.blocks = nn.ModuleList(
            StyleBlock(width, heads, self.side, settings.window, settings.style_width)
            for _ in range(settings.depth)
        )
        self.to_image = nn.Linear(width, 1)
        self.position_gain = settings.position_gain

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (side, side, b, width) to the same shape and to an image (b, 1, side, side)."""
        places = position_grid(self.side, self.width, x.device)[:, :, None]
        x = x + self.position_gain * places.to(x.dtype)
        for block in self.blocks:
            x = block(x, style)
        return x, self.to_image(x).float().permute(2, 3, 0, 1)


class StyleSwinGenerator(nn.Module):
    """From latent vectors (b, style_width) to grey images (b, 1, size, size), about -1 to 1.

    Args of the constructor:
        settings: Sizes.
    """

    def __init__(self, settings: TbGanSettings) -> None:
        super().__init__()
        self.mapping = nn.ModuleList(
            EqualisedLinear(
                settings.style_width, settings.style_width, rate_factor=MAPPING_RATE_FACTOR
            )
            for _ in range(settings.mapping_layers)
        )
        self.start = nn.Parameter(torch.randn(SMALLEST_SIDE, SMALLEST_SIDE, settings.widths[0]))
        self.levels = nn.ModuleList(Level(settings, i) for i in range(settings.n_levels))
        self.enlarge = nn.ModuleList(
            Enlarge(width, following) for width, following in pairwise(settings.widths)
        )
        self._start_weights()

    def _start_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # One output is an image: many levels add up, and it should start near mid-grey.
                gain = IMAGE_GAIN if module.out_features == 1 else LAYER_GAIN
                nn.init.trunc_normal_(module.weight, std=gain / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def styles(self, latent: torch.Tensor) -> torch.Tensor:
        """Map normal latent vectors to style vectors of the same shape."""
        style = latent * (latent.square().mean(dim=1, keepdim=True) + SMALL).rsqrt()
        for layer in self.mapping:
            style = rectified(layer(style))
        return style

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Draw the image of each latent vector; every level adds its own detail."""
        style = self.styles(latent)
        x, image = self.levels[0](self.start[:, :, None].expand(-1, -1, len(latent), -1), style)
        for enlarge, level in zip(self.enlarge, self.levels[1:], strict=True):
            x, detail = level(enlarge(x), style)
            image = doubled(image) + detail
        return image
