"""Images between 0 and 1, their reduction by area means, and crops to train on."""

import numpy as np
import torch
from torch.nn import functional

from medisynth.data.reading.views import Pixels
from medisynth.training.randomness import numpy_generator

FULL_SCALE = 255.0
BLUR_REACH_PX, NO_BLUR_PX = 2, 1e-3
_ROWS_AT_ONCE = 256


def reduced(images: torch.Tensor, size: int) -> torch.Tensor:
    """Reduce (b, 1, h, h) to (b, 1, size, size) by area means; h is a multiple of size."""
    return functional.avg_pool2d(images, images.shape[-1] // size)


def bilinear(small: torch.Tensor, factor: int) -> torch.Tensor:
    """Enlarge (b, 1, h, w) to (b, 1, factor x h, factor x w) bilinearly."""
    return functional.interpolate(
        small, scale_factor=float(factor), mode="bilinear", align_corners=False
    )


def blurred(images: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur (b, 1, h, w) by a Gaussian of that standard deviation; edges are repeated."""
    reach = BLUR_REACH_PX
    place = torch.arange(-reach, reach + 1, device=images.device)
    line = torch.exp(-0.5 * (place / max(sigma_px, NO_BLUR_PX)) ** 2)
    line = line / line.sum()
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    return functional.conv2d(padded, (line[:, None] * line)[None, None])


def to_unit(pixels: Pixels, device: str) -> torch.Tensor:
    """Turn uint8 (b, h, w) into float32 (b, 1, h, w), 0 to 1."""
    # A copy, because a view is a read-only memory map and torch wants memory that may be written.
    return torch.from_numpy(np.array(pixels)).to(device).float().unsqueeze(1) / FULL_SCALE


def to_pixels(images: torch.Tensor) -> Pixels:
    """Turn float (b, 1, h, w), 0 to 1, into uint8 (b, h, w); values outside are clipped."""
    scaled = (images.squeeze(1) * FULL_SCALE).round().clamp(0, FULL_SCALE)
    pixels: Pixels = scaled.to(torch.uint8).cpu().numpy()
    return pixels


def reduced_pixels(pixels: Pixels, size: int) -> Pixels:
    """Reduce a packed view to uint8 images of another size by area means, a part at a time."""
    parts = [
        to_pixels(reduced(to_unit(pixels[start : start + _ROWS_AT_ONCE], "cpu"), size))
        for start in range(0, len(pixels), _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts)


def crop_of(
    pixels: Pixels, side: int, multiple: int, seed: int, stage: str, epoch: int, index: int
) -> Pixels:
    """Draw one square crop, mirrored or not, of one image in one epoch.

    Args:
        pixels: One image, shape (h, h).
        side: Side of the crop.
        multiple: The corner lies on multiples of this, so that reducing crop and image agree.
        seed: Seed of the training.
        stage: Stage of the training.
        epoch: Epoch.
        index: Image index in the view.
    """
    generator = numpy_generator(seed, stage, "crop", epoch, index)
    n_corners = (pixels.shape[-1] - side) // multiple + 1
    top, left = (multiple * int(corner) for corner in generator.integers(0, n_corners, size=2))
    crop = pixels[top : top + side, left : left + side]
    return crop[:, ::-1] if generator.random() < 0.5 else crop
