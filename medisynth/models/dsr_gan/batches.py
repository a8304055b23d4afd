"""Augmentation of training images for the diffusion stage."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from medisynth.models.dsr_gan.network import N_AUGMENTATION_NUMBERS
from medisynth.training.loop import numpy_generator


@dataclass(frozen=True)
class Augmentation:
    """Limits of the augmentation of training images.

    Attributes:
        flip: Whether they may be mirrored left to right.
        max_zoom: Largest zoom, at least 1.
        max_rotation_rad: Largest rotation either way.
    """

    flip: bool
    max_zoom: float
    max_rotation_rad: float


def augmentation_of(
    limits: Augmentation, seed: int, stage: str, epoch: int, index: int
) -> tuple[float, float, float]:
    """Draw (mirror, zoom, rotation_rad) of one image in one epoch; mirror is -1.0 or 1.0."""
    generator = numpy_generator(seed, stage, "augmentation", epoch, index)
    mirror, zoom, turn = generator.random(3)
    return (
        -1.0 if limits.flip and mirror < 0.5 else 1.0,
        1 + float(zoom) * (limits.max_zoom - 1),
        (2 * float(turn) - 1) * limits.max_rotation_rad,
    )


def augmented(
    images: torch.Tensor, draws: list[tuple[float, float, float]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror, zoom and rotate images about their centres; pixels from outside are 0.

    Args:
        images: Shape (b, 1, h, h).
        draws: (mirror, zoom, rotation_rad) of each image.

    Returns:
        Images of the same shape, and augmentation numbers that tell the network of the changes,
        shape (b, 4); all 0 for an unchanged image.
    """
    mirror, zoom, turn = torch.tensor(draws, dtype=torch.float32, device=images.device).unbind(1)
    cosine, sine = turn.cos(), turn.sin()
    side = images.shape[-1]
    # Centres of the pixels, from -1 to 1: where each pixel of the result is read in the source.
    place = (2 * torch.arange(side, device=images.device) + 1) / side - 1
    across, down = (
        direction[:, None, None] * place[None, :] + other[:, None, None] * place[:, None]
        for direction, other in (
            (mirror * cosine / zoom, -sine / zoom),
            (mirror * sine / zoom, cosine / zoom),
        )
    )
    grid = torch.stack([across, down], dim=3)
    moved = functional.grid_sample(images, grid, align_corners=False)
    told = torch.stack([(1 - mirror) / 2, zoom.log(), sine, cosine - 1], dim=1)
    return moved, told


def nothing_told(n: int, device: str) -> torch.Tensor:
    """Augmentation numbers of n unchanged images: zeros, shape (n, 4)."""
    return torch.zeros(n, N_AUGMENTATION_NUMBERS, device=device)
