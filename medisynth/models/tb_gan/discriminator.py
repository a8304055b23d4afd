"""Wavelet discriminator of StyleSwin, after Gal et al. 2021 (arXiv:2102.06108), for grey images.

It reads the image as Haar wavelets at every scale, which brings out the window pattern that
attention leaves in high frequencies.
"""

from itertools import pairwise

import torch
from torch import nn

from medisynth.models.tb_gan.layers import EqualisedConv, EqualisedLinear, rectified
from medisynth.models.tb_gan.resampling import blurred, haar, halved
from medisynth.models.tb_gan.settings import SMALLEST_SIDE, TbGanSettings
from medisynth.models.tb_gan.spectral import spectrally_normalised

N_BANDS = 4
LARGEST_GROUP = 4
SMALL = 1e-8


class Down(nn.Module):
    """Two convolutions, the second after a low pass and on every second pixel."""

    def __init__(self, width: int, next_width: int, *, spectral: bool) -> None:
        super().__init__()
        self.first = convolution(width, width, 3, padding=1, spectral=spectral)
        self.second = convolution(width, next_width, 3, stride=2, spectral=spectral)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, width, h, w) to (b, next_width, h / 2, w / 2)."""
        x = rectified(self.first(x))
        return rectified(self.second(blurred(x, padding=2)))


class WaveletDiscriminator(nn.Module):
    """From grey images (b, 1, size, size), -1 to 1, to scores (b,); higher is more real.

    Args of the constructor:
        settings: Sizes.
    """

    def __init__(self, settings: TbGanSettings) -> None:
        super().__init__()
        spectral = settings.is_spectral
        widths = settings.widths_of_discriminator[::-1]  # from the finest level down
        last = widths[-1]
        self.read = nn.ModuleList(convolution(N_BANDS, w, 1, spectral=spectral) for w in widths)
        self.down = nn.ModuleList(
            Down(width, following, spectral=spectral) for width, following in pairwise(widths)
        )
        self.mix = convolution(last + 1, last, 3, padding=1, spectral=spectral)
        self.dense = linear(last * SMALLEST_SIDE**2, last, spectral=spectral)
        self.score = linear(last, 1, spectral=spectral)

    def forward(self, images: torch.Tensor, n_sets: int = 1) -> torch.Tensor:
        """Score images.

        Args:
            images: Shape (b, 1, size, size).
            n_sets: Sets of equal size in the batch, one after the other (e.g. real, synthetic);
                the variety of one set does not count for another.
        """
        n = len(images)
        x = rectified(self.read[0](_channels_last(haar(images))))
        for read, down in zip(self.read[1:], self.down, strict=True):
            images = halved(images)
            x = down(x) + rectified(read(_channels_last(haar(images))))
        x = torch.cat([x, variety(x, n // n_sets)], dim=1)
        x = rectified(self.mix(x)).flatten(1)
        return self.score(rectified(self.dense(x))).squeeze(1)


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
    """A convolution, spectrally normalised or with an equalised learning rate."""
    if not spectral:
        return EqualisedConv(n_in, n_out, side, stride=stride, padding=padding)
    return spectrally_normalised(nn.Conv2d(n_in, n_out, side, stride=stride, padding=padding))


def linear(n_in: int, n_out: int, *, spectral: bool) -> nn.Module:
    """A linear layer, spectrally normalised or with an equalised learning rate."""
    if not spectral:
        return EqualisedLinear(n_in, n_out)
    return spectrally_normalised(nn.Linear(n_in, n_out))


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)
