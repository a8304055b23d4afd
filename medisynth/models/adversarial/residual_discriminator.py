"""Residual discriminator that reads Haar wavelets, small enough for one core.

Residual blocks as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), Haar wavelets at every scale
as in SWAGAN (Gal et al. 2021, arXiv:2102.06108), equalised learning rates, no normalisation.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.adversarial.judgement import Judgement, channels_last
from medisynth.models.adversarial.layers import EqualisedConv, rectified
from medisynth.models.adversarial.resampling import haar

N_BANDS = 4
READ_GAIN = 0.5
SUM_GAIN = math.sqrt(0.5)  # keeps the variance of a sum of two


class ResidualDown(nn.Module):
    """Two convolutions, then 2 x 2 mean pooling, beside a short cut."""

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.first = EqualisedConv(width, width, 3, padding=1)
        self.second = EqualisedConv(width, next_width, 3, padding=1)
        self.short_cut = EqualisedConv(width, next_width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, width, h, w) to (b, next_width, h / 2, w / 2)."""
        y = rectified(self.second(rectified(self.first(x))))
        short = self.short_cut(functional.avg_pool2d(x, 2))
        return (functional.avg_pool2d(y, 2) + short) * SUM_GAIN


class ResidualDiscriminator(nn.Module):
    """Maps grey images (b, 1, size, size), -1 to 1, to scores (b,); higher is more real.

    Args of the constructor:
        widths: Channels at 4, 8, … pixels, up to half the side of the images.
        n_labels: Labels of plane and of machine that it is told; 0 where it is told none.
    """

    def __init__(self, widths: Sequence[int], n_labels: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        widths = widths[::-1]  # from the finest level down
        self.stem = EqualisedConv(N_BANDS, widths[0], 3, padding=1)
        self.down = nn.ModuleList(ResidualDown(*pair) for pair in pairwise(widths))
        self.read = nn.ModuleList(EqualisedConv(N_BANDS, width, 1) for width in widths[1:])
        self.judgement = Judgement(widths[-1], n_labels, spectral=False)

    def forward(
        self, images: torch.Tensor, n_sets: int = 1, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Score images.

        Args:
            images: Shape (b, 1, size, size).
            n_sets: Sets of equal size in the batch, one after the other (e.g. real, synthetic);
                the variety of one set does not count for another.
            labels: Numbers of plane and machine, shape (b, 2); None where it is told none.
        """
        n = len(images)
        x = rectified(self.stem(channels_last(haar(images))))
        for down, read in zip(self.down, self.read, strict=True):
            images = functional.avg_pool2d(images, 2)
            x = down(x) + read(channels_last(haar(images))) * READ_GAIN
        return self.judgement(x, n // n_sets, labels)
