"""Burned-in marks: text, callipers and scales that a scanner writes over the picture.

Two looks. `overlay_fraction` is quick enough for every image of a data set; `find_overlay` takes
tens of milliseconds and says where the marks are. Both rest on one fact: the sound beam blurs
whatever it shows over several pixels, while a scanner's pen goes from background to full
brightness and back within two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medisynth.data.views import Pixels

# Measured on real frames; see docs/content_scan.md.
OVERLAY_FRACTION = 6e-5  # from here an image counts as one with an overlay

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom excluded
Mask = NDArray[np.bool_]

_PEN_PX = 2  # a pen's stroke is gone this many pixels to either side
_PEN_RISE = 50  # grey levels by which it rises above both sides
_STRIP = 0.05  # a grey wedge stands this close to the left or right edge, share of the width
_WEDGE_STEP = 8  # grey levels that a wedge falls from one row to the next, at most
_WEDGE_FALL = 30  # grey levels that it falls over a twelfth of the height, at least
_WEDGE_SHARE = 1e-3  # a wedge covers this share of the image, at least


@dataclass(frozen=True)
class Overlay:
    """Burned-in marks of one image.

    Attributes:
        boxes: Lines of what looks like text, top to bottom.
        n_text_boxes: How many.
        n_callipers: Measuring crosses, single or at the ends of a dotted line.
        n_dots: Dots that stand in a row, as a dotted line or ellipse leaves them.
        has_wedge: Whether a grey wedge or bar stands at the left or right edge.
    """

    boxes: tuple[Box, ...]
    n_text_boxes: int
    n_callipers: int
    n_dots: int
    has_wedge: bool


def overlay_fraction(grey: Pixels) -> float:
    """Share of pixels that a burned-in overlay covers, by a quick look at one image.

    Counts strokes of at most three pixels' width and grey wedges at the edges. Large filled marks
    are seen by their outline only, and dim text may be missed: a small value is no proof that
    nothing is written there.

    Args:
        grey: Image at its own size, shape (height, width), uint8.

    Returns:
        0 to 1; from `OVERLAY_FRACTION` an overlay is likely. Integer arithmetic: equal pictures
        give equal values on every machine.
    """
    if grey.size == 0:
        return 0.0
    n_marked = int(np.count_nonzero(strokes_across(grey, _PEN_RISE))) + _wedge_pixels(grey)
    return min(1.0, n_marked / grey.size)


def find_overlay(grey: Pixels) -> Overlay:
    """Find lines of text, callipers, dotted lines and grey wedges; tens of milliseconds.

    Args:
        grey: Image at its own size, shape (height, width), uint8.

    Returns:
        What was found. Text below 5 pixels' height, handwriting and text of less than 40 grey
        levels above its background are not found.
    """
    from medisynth.data import overlay_marks

    boxes = overlay_marks.text_lines(grey)
    crosses, dots = overlay_marks.callipers(grey, boxes)
    return Overlay(
        boxes=boxes,
        n_text_boxes=len(boxes),
        n_callipers=crosses,
        n_dots=dots,
        has_wedge=_wedge_pixels(grey) > 0,
    )


def strokes_across(grey: Pixels, rise: int) -> Mask:
    """Pixels brighter by more than `rise` grey levels than those 2 to the left and to the right.

    Across only: tissue layers lie across the beam and can be as thin as a pen from top to bottom.

    Returns:
        The two outermost columns of each side left out, shape (height, max(0, width - 4)).
    """
    if grey.shape[1] <= 2 * _PEN_PX:
        return np.zeros((grey.shape[0], 0), dtype=bool)
    side = np.maximum(grey[:, : -2 * _PEN_PX], grey[:, 2 * _PEN_PX :])
    middle = grey[:, _PEN_PX:-_PEN_PX]
    rising: Mask = (np.maximum(middle, side) - side) > rise
    return rising


def _wedge_pixels(grey: Pixels) -> int:
    """Pixels of grey wedges near the left and right edge: columns that fall evenly for long."""
    height, width = grey.shape
    n_strip, n_run = max(2, round(_STRIP * width)), max(8, height // 12)
    if height <= n_run + 1 or width < 2 * n_strip:
        return 0
    strip = np.concatenate([grey[:, :n_strip:2], grey[:, -n_strip::2]], axis=1).astype(np.int16)
    step = strip[:-1] - strip[1:]
    uneven = np.zeros(strip.shape, dtype=np.int32)
    np.cumsum((step < 0) | (step > _WEDGE_STEP), axis=0, out=uneven[1:])
    is_even = uneven[n_run:] == uneven[:-n_run]
    falls = strip[:-n_run] - strip[n_run:] >= _WEDGE_FALL
    n_pixels = 2 * int(np.count_nonzero(is_even & falls))  # every second column was looked at
    return n_pixels if n_pixels >= _WEDGE_SHARE * grey.size else 0
