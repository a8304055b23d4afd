"""Both networks of a TB-GAN and the generator's moving average."""

from dataclasses import dataclass

import torch
from torch.optim.swa_utils import AveragedModel

from medisynth.models.adversarial.residual_discriminator import ResidualDiscriminator
from medisynth.models.tb_gan.discriminator import WaveletDiscriminator
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training.loop import averaged, seeded_weights, workers

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
