"""Simple changes of grey images, of which controls, robustness and planted copies are made."""

import io

import numpy as np
from numpy.typing import NDArray

from medisynth.data.reading.views import Pixels


def about_centre(image: Pixels, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take each pixel from where a matrix about the centre puts it; outside is black.

    Args:
        image: Shape (height, width), uint8.
        matrix: From (row, column) of the result to that of the image, shape (2, 2).

    Returns:
        Shape (height, width), interpolated linearly, not rounded.
    """
    from scipy.ndimage import affine_transform

    centre = (np.array(image.shape) - 1) / 2
    moved = affine_transform(image.astype(np.float64), matrix, centre - matrix @ centre, order=1)
    return np.asarray(moved, np.float64)


def enlarged(image: Pixels, factor: float) -> Pixels:
    """Enlarge an image about its centre, or reduce it with black around it below 1."""
    return grey(about_centre(image, np.eye(2) / factor))


def recompressed(image: Pixels, quality: int) -> Pixels:
    """Store an image as JPEG of a quality of 1 to 95 and read it back."""
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(image).save(packed, "JPEG", quality=quality)
    with Image.open(packed, formats=["JPEG"]) as picture:
        return np.asarray(picture, np.uint8)


def grey(values: NDArray[np.floating]) -> Pixels:
    """Round to grey levels, 0 to 255."""
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
