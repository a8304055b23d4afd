"""Simple numbers of one grey image, for the data contract and the quality audit."""

import math

import numpy as np
from PIL import Image

from medisynth.data.views import Pixels

_WITHIN_ONE_FRAME = np.array(
    [np.zeros((3, 3)), [[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.zeros((3, 3))]
)
_ROW_STEP = 8  # rows from one at which sharpness is taken to the next
BLACK_LEVEL = 2  # grey levels up to this are the background of an ultrasound sector


def intensity_statistics(grey: Pixels) -> dict[str, float]:
    """Brightness, contrast, share of background and sharpness of one image.

    Args:
        grey: Image, shape (height, width), uint8.

    Returns:
        mean_intensity and std_intensity in grey levels (0 to 255), black_fraction (0 to 1) and
        sharpness, the variance of the 4-neighbour Laplacian at every eighth row inside the image in
        squared grey levels (0 for images below 3 x 3 pixels). Sharpness grows with noise and burned-in text
        as well as with detail, and depends on the image's size.
    """
    # Integer sums are exact, so equal pictures give equal statistics on every machine.
    counts = Image.fromarray(grey).histogram()
    n_pixels = grey.size
    mean: float = sum(level * n for level, n in enumerate(counts)) / n_pixels
    variance = sum(level * level * n for level, n in enumerate(counts)) / n_pixels - mean**2
    return {
        "mean_intensity": mean,
        "std_intensity": math.sqrt(max(variance, 0.0)),
        "black_fraction": sum(counts[: BLACK_LEVEL + 1]) / n_pixels,
        "sharpness": _sharpness(grey),
    }


def _sharpness(grey: Pixels) -> float:
    if min(grey.shape) < 3:
        return 0.0
    below = grey[2::_ROW_STEP].astype(np.int16)
    above, middle = (grey[k::_ROW_STEP][: len(below)].astype(np.int16) for k in (0, 1))
    laplacian = above[:, 1:-1] + below[:, 1:-1]
    laplacian += middle[:, :-2]
    laplacian += middle[:, 2:]
    laplacian -= middle[:, 1:-1] << 2
    flat = laplacian.ravel().astype(np.float64)
    # Whole numbers of at most 1020**2 a pixel and 25 million pixels stay below 2**53: these
    # floating-point sums are exact too, in whatever order they are taken.
    mean = float(flat.sum()) / flat.size
    return float(flat @ flat) / flat.size - mean**2


def sector_fractions(thumbnails: Pixels) -> list[float]:
    """Share of each frame that the ultrasound sector covers.

    Computed on small squares: the largest connected area that is not black, with everything that
    it encloses from left, right, above and below (fluid and shadows are black too). Marks beside
    the sector do not count; a shadow that reaches the edge of the sector does not either.

    Args:
        thumbnails: Whole frames, reduced, shape (n, height, width), uint8.

    Returns:
        One number a frame, 0 (all black) to 1.
    """
    from scipy.ndimage import label

    # One call for all frames, which touch each other nowhere.
    areas, _ = label(thumbnails > BLACK_LEVEL, structure=_WITHIN_ONE_FRAME)
    sectors = np.zeros(thumbnails.shape, dtype=bool)
    for area, sector in zip(areas, sectors, strict=True):
        first = int(np.min(area, initial=np.iinfo(np.int32).max, where=area > 0))
        if area.any():
            sizes = np.bincount(area[area > 0] - first)
            np.equal(area, first + int(sizes.argmax()), out=sector)
    enclosed = np.ones_like(sectors)
    for axis in (1, 2):
        enclosed &= np.logical_or.accumulate(sectors, axis=axis)
        backwards = np.flip(sectors, axis)
        enclosed &= np.flip(np.logical_or.accumulate(backwards, axis=axis), axis)
    n_pixels = max(1, sectors[:1].size)
    return [int(n) / n_pixels for n in np.count_nonzero(enclosed, axis=(1, 2))]
