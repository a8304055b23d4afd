"""Differentiable augmentation (Zhao et al. 2020, arXiv:2006.10738) of grey images.

All images that the discriminator sees are augmented, real, pseudo-real and synthetic, so that it
cannot memorise the few training images and the generator does not learn to draw augmentations.
The paper's colour saturation does not apply to one channel. Pixels moved in or cut out are black,
as outside an ultrasound sector; the paper has mid-grey.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch

from medisynth.training.randomness import torch_generator
from medisynth.training.workers import Workers

BLACK = -1.0
MOST_SHIFT_FRACTION = 1 / 8
CUTOUT_FRACTION = 1 / 2
N_NUMBERS = 6


@dataclass(frozen=True)
class Draws:
    """Numbers drawn for a batch, each of shape (b,), uniform from 0 to 1.

    Attributes:
        brightness: Added, 0.5 is none.
        contrast: Factor about the mean less 0.5.
        down: Shift of rows; 0.5 is none.
        across: Shift of columns.
        cut_down: Row of the centre of the square that is cut out.
        cut_across: Column of it.
    """

    brightness: torch.Tensor
    contrast: torch.Tensor
    down: torch.Tensor
    across: torch.Tensor
    cut_down: torch.Tensor
    cut_across: torch.Tensor


def draws_for(
    n: int, device: str, workers: Workers, *place: int | str, rows: slice = slice(None)
) -> Draws:
    """Draw for a global batch of n images; return this process's share of it, or rows of that.

    Args:
        n: Images in the global batch.
        device: Where the images are.
        workers: Who shares the batch.
        place: Seed, stage, step and purpose of the draw.
        rows: Rows of the share.
    """
    # On the CPU, so that all devices draw the same.
    seed, *rest = place
    numbers = torch.rand((n, N_NUMBERS), generator=torch_generator("cpu", int(seed), *rest))
    return Draws(*workers.share(numbers)[rows].to(device).unbind(1))


def augmented(
    images: torch.Tensor, draws: Draws, policy: Collection[str], brightness_span: float = 1.0
) -> torch.Tensor:
    """Augment a batch; gradients pass through.

    Args:
        images: Shape (b, 1, h, h), -1 to 1.
        draws: Random numbers for b images.
        policy: Any of "brightness", "contrast", "translation", "cutout"; none leaves the images
            as they are.
        brightness_span: Range of the brightness that is added, about 0; 1 in the paper.
    """
    if "brightness" in policy:
        images = images + _each((draws.brightness - 0.5) * brightness_span)
    if "contrast" in policy:
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = (images - mean) * _each(draws.contrast + 0.5) + mean
    if "translation" in policy:
        images = _moved(images, draws)
    if "cutout" in policy:
        images = _cut(images, draws)
    return images


def _each(numbers: torch.Tensor) -> torch.Tensor:
    return numbers[:, None, None, None]


def _moved(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Shift each image by whole pixels, up to an eighth of its side either way."""
    side = images.shape[-1]
    most = int(side * MOST_SHIFT_FRACTION + 0.5)
    place = torch.arange(side, device=images.device)
    above = images - BLACK
    for dim, numbers in ((2, draws.down), (3, draws.across)):
        shift = (numbers * (2 * most + 1)).floor().long().clamp(max=2 * most) - most
        source = place[None] - shift[:, None]
        inside = (source >= 0) & (source < side)
        shape = (-1, 1, side, 1) if dim == 2 else (-1, 1, 1, side)
        index = source.clamp(0, side - 1).view(shape).expand_as(above)
        above = above.gather(dim, index) * inside.view(shape)
    return above + BLACK


def _cut(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Blacken a square of half the side, which may reach over the edge."""
    side = images.shape[-1]
    half = side * CUTOUT_FRACTION / 2
    place = torch.arange(side, device=images.device) + 0.5
    rows, columns = (
        (place[None] - (numbers * side)[:, None]).abs() < half
        for numbers in (draws.cut_down, draws.cut_across)
    )
    square = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(square, BLACK)
