"""Burned-in marks: text, callipers and scales that a scanner writes over the picture."""

import numpy as np

from medisynth.data.views import Pixels

_WHITE_LEVEL = 250


def overlay_fraction(grey: Pixels) -> float:
    """Share of pixels that a burned-in overlay covers, by a quick look at one image.

    Args:
        grey: Image at its own size, shape (height, width), uint8.

    Returns:
        0 to 1.
    """
    return float(np.count_nonzero(grey >= _WHITE_LEVEL)) / grey.size
