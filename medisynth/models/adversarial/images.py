"""Conversion of packed pixels to network inputs and back, and a distance between image sets."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from governance.records.errors import MetricUndefinedError
from medisynth.data.reading.views import Pixels
from medisynth.training.randomness import numpy_generator

HALF_SCALE = 127.5
IMAGES_AT_ONCE = 32
COARSE_SIDE = 16
COARSE_IMAGES_AT_ONCE = 512


def to_signed(pixels: Pixels, device: str) -> torch.Tensor:
    """Turn uint8 (b, h, w) into float32 (b, 1, h, w), -1 to 1."""
    # A copy, because a view is a read-only memory map and torch wants memory that may be written.
    return torch.from_numpy(np.array(pixels)).to(device).float().unsqueeze(1) / HALF_SCALE - 1


def to_pixels(images: torch.Tensor) -> Pixels:
    """Turn float (b, 1, h, w), -1 to 1, into uint8 (b, h, w); values outside are clipped."""
    scaled = ((images.squeeze(1) + 1) * HALF_SCALE).round().clamp(0, 2 * HALF_SCALE)
    pixels: Pixels = scaled.to(torch.uint8).cpu().numpy()
    return pixels


def mirrored(pixels: Pixels, pairs: Sequence[tuple[int, int]], seed: int, stage: str) -> Pixels:
    """Mirror each image left to right or not, by (seed, stage, epoch, index) alone.

    Args:
        pixels: Shape (b, h, w).
        pairs: (epoch, image index) of each image.
        seed: Seed of the training.
        stage: Stage of the training.
    """
    turned = [
        bool(numpy_generator(seed, stage, "mirror", epoch, index).integers(2))
        for epoch, index in pairs
    ]
    return np.where(np.array(turned)[:, None, None], pixels[:, :, ::-1], pixels)


def coarse(pixels: Pixels) -> torch.Tensor:
    """Area means of 16 x 16 blocks, shape (n, 256), float32, 0 to 255.

    Args:
        pixels: Shape (n, h, h), uint8; h is a multiple of 16.
    """
    side = pixels.shape[-1]
    parts = [
        functional.avg_pool2d(
            torch.from_numpy(np.array(pixels[start : start + COARSE_IMAGES_AT_ONCE])).float(),
            side // COARSE_SIDE,
        ).flatten(1)
        for start in range(0, len(pixels), COARSE_IMAGES_AT_ONCE)
    ]
    return torch.cat(parts)


def energy_distance(real: torch.Tensor, synthetic: torch.Tensor) -> float:
    """Unbiased estimate of the energy distance between two sets of images, coarse ones here.

    2 E|x - y| - E|x - x'| - E|y - y'|, with the root mean squared difference of two images as |·|.
    It misleads as any distance of pixels: it sees position, size and brightness of large
    structures, and neither texture nor whether a structure is anatomically right.

    Args:
        real: Shape (n, d), n at least 2.
        synthetic: Shape (m, d), m at least 2.

    Returns:
        Grey levels; lower is closer. Its expectation is 0 for equal distributions, so that a value
        may be slightly negative.

    Raises:
        MetricUndefinedError: A set has fewer than two images.

    Source:
        Székely and Rizzo 2013, Journal of Statistical Planning and Inference 143 (8), 1249-1272.
    """
    n, m = len(real), len(synthetic)
    if min(n, m) < 2:
        raise MetricUndefinedError(
            f"energy distance: expected at least 2 images a set, found {n} and {m}"
        )
    real, synthetic = real.double(), synthetic.double()
    between = torch.cdist(real, synthetic).mean()
    within_real = torch.cdist(real, real).sum() / (n * (n - 1))
    within_synthetic = torch.cdist(synthetic, synthetic).sum() / (m * (m - 1))
    return float((2 * between - within_real - within_synthetic) / real.shape[1] ** 0.5)
