"""Residual discriminator that reads Haar wavelets, and the last layers of every discriminator.

Residual blocks as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), Haar wavelets at every scale
as in SWAGAN (Gal et al. 2021, arXiv:2102.06108), equalised learning rates, no normalisation; small
enough for one core. The last layers (`Judgement`) add the variety of the batch, then score it, by
label if there is one.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.adversarial.layers import (
    EqualisedConv,
    EqualisedLinear,
    haar,
    rectified,
    spectrally_normalised,
)
from medisynth.models.adversarial.settings import SMALLEST_SIDE

LARGEST_GROUP = 4
SMALL = 1e-8


class Judgement(nn.Module):
    """Maps features (b, width, 4, 4) to scores (b,); higher is more real.

    Labels enter as a projection (Miyato and Koyama 2018, arXiv:1802.05637): each adds the inner
    product of the last features with a learned vector of its own, and a bias.

    Args of the constructor:
        width: Channels.
        n_labels: Labels of plane and of machine that it is told; 0 where it is told none.
        spectral: Whether its layers are spectrally normalised rather than equalised.
    """

    def __init__(self, width: int, n_labels: tuple[int, int], *, spectral: bool) -> None:
        super().__init__()
        self.mix = convolution(width + 1, width, 3, padding=1, spectral=spectral)
        self.dense = linear(width * SMALLEST_SIDE**2, width, spectral=spectral)
        self.score = linear(width, 1, spectral=spectral)
        self._told = [axis for axis, n in enumerate(n_labels) if n]
        # Number 0 is that of a label that is not recorded.
        self.by_label = nn.ModuleList(
            linear(width, n + 1, spectral=spectral) for n in n_labels if n
        )

    def forward(
        self, x: torch.Tensor, set_size: int, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Score each image of a batch.

        Args:
            x: Features, shape (b, width, 4, 4).
            set_size: Images of one kind that follow each other in the batch.
            labels: Numbers of plane and machine, shape (b, 2); None where it is told none.
        """
        x = torch.cat([x, variety(x, set_size)], dim=1)
        x = rectified(self.dense(rectified(self.mix(x)).flatten(1)))
        score = self.score(x).squeeze(1)
        for axis, project in zip(self._told, self.by_label, strict=True):
            if labels is not None:
                score = score + project(x).gather(1, labels[:, axis, None]).squeeze(1)
        return score


def variety(x: torch.Tensor, set_size: int) -> torch.Tensor:
    """Minibatch standard deviation (Karras et al. 2018, arXiv:1710.10196), one channel.

    Args:
        x: Features, shape (b, c, h, w).
        set_size: Images that may be grouped; groups have 4 images, or the next smaller divisor.

    Returns:
        Shape (b, 1, h, w): the standard deviation of each feature within a group, averaged over
        features and places; equal for all images of a group.
    """
    group = max(n for n in range(1, LARGEST_GROUP + 1) if set_size % n == 0)
    b, _, h, w = x.shape
    grouped = x.float().reshape(b // group, group, -1)
    deviation = (grouped.var(dim=1, correction=0) + SMALL).sqrt().mean(dim=1)
    spread = deviation.repeat_interleave(group).view(b, 1, 1, 1).expand(b, 1, h, w)
    return spread.to(x.dtype)


def convolution(
    n_in: int, n_out: int, side: int, *, stride: int = 1, padding: int = 0, spectral: bool
) -> nn.Module:
    """Make a convolution, spectrally normalised or with an equalised learning rate."""
    if not spectral:
        return EqualisedConv(n_in, n_out, side, stride=stride, padding=padding)
    return spectrally_normalised(nn.Conv2d(n_in, n_out, side, stride=stride, padding=padding))


def linear(n_in: int, n_out: int, *, spectral: bool) -> nn.Module:
    """Make a linear layer, spectrally normalised or with an equalised learning rate."""
    if not spectral:
        return EqualisedLinear(n_in, n_out)
    return spectrally_normalised(nn.Linear(n_in, n_out))


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return the images in the memory order in which convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last)


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
