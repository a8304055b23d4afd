"""Simple numbers of one grey image, for the data contract and the quality audit."""

import math

import numpy as np

from medisynth.data.views import Pixels

BLACK_LEVEL = 2  # grey levels up to this are the background of an ultrasound sector


def intensity_statistics(grey: Pixels) -> dict[str, float]:
    """Brightness, contrast, share of background and sharpness of one image.

    Args:
        grey: Image, shape (height, width), uint8.

    Returns:
        mean_intensity and std_intensity in grey levels (0 to 255), black_fraction (0 to 1) and
        sharpness, the variance of the 4-neighbour Laplacian inside the image in squared grey
        levels (0 for images below 3 x 3 pixels). Sharpness grows with noise and burned-in text
        as well as with detail, and depends on the image's size.
    """
    # Integer sums are exact, so equal pictures give equal statistics on every machine.
    counts = np.bincount(grey.ravel(), minlength=256)
    levels = np.arange(256, dtype=np.int64)
    n_pixels = grey.size
    mean = int(counts @ levels) / n_pixels
    variance = int(counts @ levels**2) / n_pixels - mean**2
    return {
        "mean_intensity": mean,
        "std_intensity": math.sqrt(max(variance, 0.0)),
        "black_fraction": int(counts[: BLACK_LEVEL + 1].sum()) / n_pixels,
        "sharpness": _sharpness(grey),
    }


def _sharpness(grey: Pixels) -> float:
    if min(grey.shape) < 3:
        return 0.0
    wide = grey.astype(np.int16)
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    laplacian -= 4 * wide[1:-1, 1:-1]
    flat = laplacian.ravel().astype(np.int32)
    mean = int(flat.sum(dtype=np.int64)) / flat.size
    # at most 1020**2 a pixel and 25 million pixels: far inside 64 bits
    return int(np.square(flat).sum(dtype=np.int64)) / flat.size - mean**2
