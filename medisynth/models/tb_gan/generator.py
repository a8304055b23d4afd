"""Generator of the StyleSwin family (Zhang et al. 2022, arXiv:2112.10762), written from the paper.

Feature maps are kept as (h, w, b, c), which linear layers and attention read without a copy.
Operations on each channel of each image alone treat them as (h, w, b · c).
"""

from functools import cache
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.adversarial.layers import (
    EqualisedLinear,
    doubled,
    linear,
    normalised,
    rectified,
)
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.models.tb_gan.style_block import N_NOISE_MAPS, StyleBlock
from medisynth.models.tb_gan.tail import N_NOISE_MAPS as N_NOISE_MAPS_OF_TAIL
from medisynth.models.tb_gan.tail import HaarTail, ModulatedBands

LONGEST_PERIOD = 10_000.0
IMAGE_GAIN = 0.3  # of a modulated image skip
RAW_IMAGE_GAIN = 0.1  # of a plain one: many levels add up, and it should start near mid-grey


@cache
def position_grid(side: int, width: int, device: torch.device) -> torch.Tensor:
    """Sinusoidal encoding of the places of a square map (section 3.3 of the paper).

    Attention knows positions within a window only; the encoding adds the window's position.

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


class Enlarge(nn.Module):
    """Step from one level to the next: normalise, change the width, double the side.

    The width is changed before the side is doubled, at a quarter of the cost of the other order and
    with the same weights.
    """

    def __init__(self, width: int, next_width: int, *, equalised: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.narrow = linear(width, next_width, equalised=equalised, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (h, w, b, width) to (2 h, 2 w, b, next_width)."""
        x = self.narrow(self.norm(x))
        h, w, b, width = x.shape
        as_one = doubled(x.view(1, h, w, b * width).permute(0, 3, 1, 2))
        return as_one.permute(0, 2, 3, 1).view(2 * h, 2 * w, b, width)


class ImageSkip(nn.Module):
    """Makes the image that one level adds: a linear layer to one channel, optionally modulated."""

    def __init__(self, settings: TbGanSettings, width: int) -> None:
        super().__init__()
        if settings.modulated_images:
            self.to_image: nn.Module = ModulatedBands(width, 1, settings.style_width)
        else:
            self.to_image = linear(width, 1, equalised=settings.equalised, gain=RAW_IMAGE_GAIN)
        self._is_modulated = settings.modulated_images

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Map (h, w, b, width) to (b, 1, h, w)."""
        h, w, b, width = x.shape
        if not self._is_modulated:
            return self.to_image(x).float().permute(2, 3, 0, 1)
        x = functional.layer_norm(x, (width,)).view(h * w, b, width).transpose(0, 1)
        return self.to_image(x, style).float().view(b, 1, h, w) * IMAGE_GAIN


class Level(nn.Module):
    """Blocks at one resolution, with positions before them and an image after them.

    Args of the constructor:
        settings: Sizes and kinds of layers.
        index: 0 is the level of the learned constant.
    """

    def __init__(self, settings: TbGanSettings, index: int) -> None:
        super().__init__()
        width, side = settings.widths[index], settings.side_of(index)
        self.width, self.side = width, side
        self.position = self.position_gain = None
        if settings.positions == "learned":
            self.position = nn.Parameter(torch.zeros(side, side, width))
        elif index > 0:  # the learned constant knows its places
            self.position_gain = nn.Parameter(torch.zeros(()))
        self.blocks = nn.ModuleList(StyleBlock(settings, index) for _ in range(settings.depth))
        self.skip = ImageSkip(settings, width)

    def forward(
        self, x: torch.Tensor, style: torch.Tensor, noise: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (side, side, b, width) to the same shape and to an image (b, 1, side, side)."""
        if self.position is not None:
            x = x + self.position[:, :, None]
        elif self.position_gain is not None:
            places = position_grid(self.side, self.width, x.device)[:, :, None]
            x = x + (self.position_gain * places).to(x.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, style, tuple(noise[i * N_NOISE_MAPS : (i + 1) * N_NOISE_MAPS]))
        return x, self.skip(x, style)


class StyleSwinGenerator(nn.Module):
    """Maps normal numbers to grey images (b, 1, size, size), about -1 to 1.

    Args of the constructor:
        settings: Sizes and kinds of layers.
        n_labels: Labels of plane and of machine that it is told; 0 where it is told none.

    Attributes:
        n_numbers: Normal numbers that one image is made from: its latent vector, then the noise of
            every layer.
    """

    def __init__(self, settings: TbGanSettings, n_labels: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        style_width = settings.style_width
        self._told = [axis for axis, n in enumerate(n_labels) if n]
        # Number 0 is that of a label that is not recorded.
        self.labels = nn.ModuleList(nn.Embedding(n + 1, style_width) for n in n_labels if n)
        n_in = [style_width * (1 + len(self._told))] + [style_width] * settings.mapping_layers
        self.mapping = nn.ModuleList(
            EqualisedLinear(n_in[i], style_width, rate_factor=settings.mapping_rate_factor)
            for i in range(settings.mapping_layers)
        )
        self.start = nn.Parameter(torch.randn(settings.start, settings.start, settings.widths[0]))
        self.levels = nn.ModuleList(Level(settings, i) for i in range(settings.n_levels))
        self.enlarge = nn.ModuleList(
            Enlarge(width, following, equalised=settings.equalised)
            for width, following in pairwise(settings.widths)
        )
        self.tail = None
        if settings.tail_width:
            width = settings.tail_width
            self.tail = HaarTail(settings.widths[-1], width, style_width, noise=settings.noise)
        self._is_saturating = settings.saturating_output
        self._n_maps = N_NOISE_MAPS * settings.depth if settings.noise else 0  # of a level
        self._noise_sides = _noise_sides(settings)
        self._split = [style_width, *(side**2 for side in self._noise_sides)]
        self.n_numbers = sum(self._split)

    def styles(self, latent: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Map normal latent vectors (b, style_width) and labels to style vectors of that shape."""
        told = [
            normalised(table(labels[:, axis]))
            for table, axis in zip(self.labels, self._told, strict=True)
            if labels is not None
        ]
        style = torch.cat([normalised(latent), *told], dim=1)
        for layer in self.mapping:
            style = rectified(layer(style))
        return style

    def forward(self, numbers: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Draw images; every level adds its own detail.

        Args:
            numbers: Normal numbers, shape (b, n_numbers).
            labels: Numbers of plane and machine as `Vocabulary.numbers` gives them, shape (b, 2);
                None where the generator is told none.
        """
        latent, *noise = torch.split(numbers, self._split, dim=1)
        maps = [
            part.T.reshape(side, side, len(numbers), 1)
            for part, side in zip(noise, self._noise_sides, strict=True)
        ]
        style = self.styles(latent, labels)
        x = self.start[:, :, None].expand(-1, -1, len(numbers), -1)
        image: torch.Tensor | None = None
        for i, level in enumerate(self.levels):
            x = x if i == 0 else self.enlarge[i - 1](x)
            x, detail = level(x, style, maps[i * self._n_maps : (i + 1) * self._n_maps])
            image = detail if image is None else doubled(image) + detail
        assert image is not None  # noqa: S101 - there is a level
        if self.tail is not None:
            image = doubled(doubled(image)) + self.tail(
                x, style, tuple(maps[-N_NOISE_MAPS_OF_TAIL:])
            )
        return image.tanh() if self._is_saturating else image


def _noise_sides(settings: TbGanSettings) -> list[int]:
    """Sides of all noise maps, in the order in which they are used."""
    if not settings.noise:
        return []
    sides = [settings.side_of(level) for level in range(settings.n_levels)]
    in_blocks = [side for side in sides for _ in range(N_NOISE_MAPS * settings.depth)]
    return in_blocks + [2 * sides[-1]] * (N_NOISE_MAPS_OF_TAIL if settings.tail_width else 0)
