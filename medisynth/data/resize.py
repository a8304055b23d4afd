"""Frames of any shape to squares of one size."""

from typing import Literal

import numpy as np
from PIL import Image

from medisynth.data.views import Pixels

Fit = Literal["pad", "stretch"]

THUMBNAIL_PX = 64
# Frames are reduced by whole factors, by means over areas, to no less than 1.5 times the size asked
# for, then filtered: a third of a grey level from filtering at full size on average (959 x 661
# pixels to 128), at most about 10 levels, at the edges of burned-in text.
_REDUCING_GAP = 1.5


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
    return _Frame(grey).square(size_px, fit)


def to_square_and_thumbnail(grey: Pixels, size_px: int, fit: Fit = "pad") -> tuple[Pixels, Pixels]:
    """The square as `to_square` makes it, and the whole frame stretched to a small one.

    Args:
        grey: Image, shape (height, width), uint8.
        size_px: Side of the square.
        fit: See `to_square`.

    Returns:
        The square; and the thumbnail, shape (THUMBNAIL_PX, THUMBNAIL_PX), uint8, by means over
        areas whose borders lie on whole pixels. It does not depend on the other arguments.
    """
    frame = _Frame(grey)
    return frame.square(size_px, fit), frame.thumbnail()


class _Frame:
    """One frame, reduced to half its size at most once."""

    def __init__(self, grey: Pixels) -> None:
        self._full = Image.fromarray(grey)
        self._half: Image.Image | None = None

    def square(self, size_px: int, fit: Fit) -> Pixels:
        width, height = self._full.size
        if fit == "stretch":
            new_width = new_height = size_px
        else:
            scale = size_px / max(width, height)
            new_width = min(size_px, max(1, round(width * scale)))
            new_height = min(size_px, max(1, round(height * scale)))
        image = self._resized((new_width, new_height), Image.Resampling.LANCZOS)
        square = np.zeros((size_px, size_px), dtype=np.uint8)
        top, left = (size_px - new_height) // 2, (size_px - new_width) // 2
        square[top : top + new_height, left : left + new_width] = np.asarray(image)
        return square

    def thumbnail(self) -> Pixels:
        size = (THUMBNAIL_PX, THUMBNAIL_PX)
        return np.asarray(self._resized(size, Image.Resampling.BOX))

    def _resized(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        width, height = self._full.size
        if size == (width, height):
            return self._full
        if min(width / size[0], height / size[1]) < 2 * _REDUCING_GAP:
            return self._full.resize(size, resample, reducing_gap=_REDUCING_GAP)
        if self._half is None:
            self._half = self._full.reduce(2)
        # in an odd number of columns the last one of the half stands for one column, not two
        box = (0, 0, width / 2, height / 2)
        return self._half.resize(size, resample, box, reducing_gap=_REDUCING_GAP)
