"""Both networks of a TB-GAN and the generator's moving average.

Here too the wavelet discriminator of StyleSwin, after Gal et al. 2021 (arXiv:2102.06108), for grey
images: it reads the image as Haar wavelets at every scale, which brings out the window pattern that
attention leaves in high frequencies.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from medisynth.models.adversarial.layers import blurred, haar, halved, rectified
from medisynth.models.adversarial.residual_discriminator import (
    Judgement,
    ResidualDiscriminator,
    channels_last,
    convolution,
)
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training.loop import averaged, seeded_weights, workers

N_BANDS = 4


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
    """Maps grey images (b, 1, size, size), -1 to 1, to scores (b,); higher is more real.

    Args of the constructor:
        settings: Sizes.
        n_labels: Labels of plane and of machine that it is told; 0 where it is told none.
    """

    def __init__(self, settings: TbGanSettings, n_labels: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        spectral = settings.is_spectral
        widths = settings.widths_of_discriminator[::-1]  # from the finest level down
        self.read = nn.ModuleList(convolution(N_BANDS, w, 1, spectral=spectral) for w in widths)
        self.down = nn.ModuleList(
            Down(width, following, spectral=spectral) for width, following in pairwise(widths)
        )
        self.judgement = Judgement(widths[-1], n_labels, spectral=spectral)

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
        x = rectified(self.read[0](channels_last(haar(images))))
        for read, down in zip(self.read[1:], self.down, strict=True):
            images = halved(images)
            x = down(x) + rectified(read(channels_last(haar(images))))
        return self.judgement(x, n // n_sets, labels)


Discriminator = WaveletDiscriminator | ResidualDiscriminator


@dataclass(frozen=True)
class Networks:
    """Networks that one part of the schedule passes on to the next.

    Attributes:
        generator: The generator.
        discriminator: The discriminator.
        averaged: Moving average of the generator's weights.
    """

    generator: StyleSwinGenerator
    discriminator: Discriminator
    averaged: AveragedModel


def new_networks(
    settings: TbGanSettings, seed: int, device: str, n_labels: tuple[int, int] = (0, 0)
) -> Networks:
    """Build all networks with weights drawn from the seed, the same on every device.

    Args:
        settings: Sizes and kinds of layers.
        seed: Seed of the training.
        device: torch device name.
        n_labels: Labels of plane and of machine that both are told; 0 where they are told none.
    """
    with seeded_weights(seed, "tb-gan"):
        generator = StyleSwinGenerator(settings, n_labels)
        discriminator = new_discriminator(settings, n_labels)
    discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.to(device)
    discriminator.to(device)
    workers().wrap(generator)
    workers().wrap(discriminator)
    average = averaged(generator, settings.ema)
    average.requires_grad_(False)
    return Networks(generator, discriminator, average)


def new_discriminator(settings: TbGanSettings, n_labels: tuple[int, int] = (0, 0)) -> Discriminator:
    """Build the discriminator that the settings name, with random weights."""
    if settings.discriminator == "residual":
        return ResidualDiscriminator(settings.widths_of_discriminator, n_labels)
    return WaveletDiscriminator(settings, n_labels)
