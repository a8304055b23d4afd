"""Both networks of a TB-GAN and the generator's moving average, and the penalty that ties them."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from medisynth.models.tb_gan.discriminator import WaveletDiscriminator
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training import averaged, seeded_weights, workers


@dataclass(frozen=True)
class Networks:
    """What one part of the schedule hands to the next.

    Attributes:
        generator: The generator.
        discriminator: The discriminator.
        averaged: Moving average of the generator's weights.
    """

    generator: StyleSwinGenerator
    discriminator: WaveletDiscriminator
    averaged: AveragedModel


def new_networks(settings: TbGanSettings, seed: int, device: str) -> Networks:
    """Build all networks with weights drawn from the seed, the same on every device."""
    with seeded_weights(seed, "tb-gan"):
        generator = StyleSwinGenerator(settings)
        discriminator = WaveletDiscriminator(settings)
    discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.to(device)
    discriminator.to(device)
    workers().wrap(generator)
    workers().wrap(discriminator)
    average = averaged(generator, settings.ema_decay)
    average.requires_grad_(False)
    return Networks(generator, discriminator, average)


def r1_penalty(discriminator: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Mean squared norm of the score's gradient at images, in fp32 (arXiv:1801.04406).

    Args:
        discriminator: From images to one score each.
        images: Shape (b, 1, h, w).

    Returns:
        Scalar that can be differentiated by the discriminator's weights.
    """
    images = images.detach().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
