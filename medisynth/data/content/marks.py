"""Detection of burned-in marks: lines of text, measuring crosses and dotted lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medisynth.data.reading.statistics import Box, Mask, strokes_across, wedge_pixels
from medisynth.data.reading.views import Pixels

_Level = TypeVar("_Level", np.uint8, np.int16)
_STROKE_RISE = 40  # grey levels of a glyph's stroke above the opened image
_MIN_GLYPH_PX = 5  # height
_MAX_GLYPH_SHARE = 0.07  # of the image's height
_DARK_SHARE = 0.55  # a line's background is darker than this share of its glyphs
_MIN_STROKES = 0.06  # share of a line's pixels that are thin strokes
_MIN_UPRIGHT = 0.05  # share that are thin from left to right
_ARM_PX = 4  # length of a measuring cross's arm, at least
_CROSS_RISE = 45
_DOT_RISE = 25
_MAX_DOT_STEP_PX = 40
_SIDE_SHARE = 0.04  # of the width: depth scales stand there, measurements do not


@dataclass(frozen=True)
class Overlay:
    """Burned-in marks of one image.

    Attributes:
        boxes: Boxes of likely lines of text, top to bottom.
        n_text_boxes: Number of boxes.
        n_callipers: Measuring crosses, single or at the ends of a dotted line.
        n_dots: Dots that stand in a row, as a dotted line or ellipse leaves them.
        has_wedge: Whether a grey wedge or bar stands at the left or right edge.
    """

    boxes: tuple[Box, ...]
    n_text_boxes: int
    n_callipers: int
    n_dots: int
    has_wedge: bool


def find_overlay(grey: Pixels) -> Overlay:
    """Find lines of text, callipers, dotted lines and grey wedges; tens of milliseconds.

    Args:
        grey: Image at its own size, shape (height, width), uint8.

    Returns:
        The marks. Text below 5 pixels' height, handwriting and text of less than 40 grey levels
        above its background are missed.
    """
    boxes = text_lines(grey)
    crosses, dots = callipers(grey, boxes)
    return Overlay(
        boxes=boxes,
        n_text_boxes=len(boxes),
        n_callipers=crosses,
        n_dots=dots,
        has_wedge=wedge_pixels(grey) > 0,
    )


def text_lines(grey: Pixels) -> tuple[Box, ...]:
    """Find boxes that look like lines of text, top to bottom.

    Thin bright strokes are grouped into glyphs and neighbouring glyphs of like height into lines;
    a line must be dark between its strokes, as the speckle of tissue is not.

    Args:
        grey: Image, shape (height, width), uint8.
    """
    from scipy import ndimage

    height, width = grey.shape
    if min(height, width) < 16:
        return ()
    strokes = _stroke_mask(grey)
    labels, n_parts = ndimage.label(strokes, structure=np.ones((3, 3), dtype=int))
    if n_parts == 0:
        return ()
    glyphs = [
        _box(part)
        for part in ndimage.find_objects(labels)
        if part is not None and _is_glyph(_box(part), height)
    ]
    lines = []
    for group in _lines(glyphs, width):
        box = _around(group)
        if _is_text(grey, strokes, box, group):
            lines.append(_grown(box, 2, height, width))
    return tuple(sorted(lines, key=lambda box: (box[1], box[0])))


def callipers(grey: Pixels, text: Sequence[Box]) -> tuple[int, int]:
    """Count measuring crosses and dots in a row, outside text and the scales at the sides.

    Args:
        grey: Image, shape (height, width), uint8.
        text: Boxes of text, where a "+" or "." is no calliper.
    """
    from scipy import ndimage

    if min(grey.shape) < 4 * _ARM_PX:
        return 0, 0
    wide = grey.astype(np.int16)
    outside = np.ones(grey.shape, dtype=bool)
    margin = max(1, round(_SIDE_SHARE * grey.shape[1]))
    outside[:, :margin] = outside[:, -margin:] = False
    for left, top, right, bottom in text:
        outside[top:bottom, left:right] = False
    crosses = _cross_mask(wide) & outside
    _, n_crosses = ndimage.label(crosses, structure=np.ones((3, 3), dtype=int))
    labels, n_dots = ndimage.label(_dot_mask(wide) & outside, structure=np.ones((3, 3), dtype=int))
    if not 4 <= n_dots <= 4000:
        return int(n_crosses), 0
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns] - 1
    n_pixels = np.bincount(which, minlength=n_dots)
    centres = np.stack([np.bincount(which, at, n_dots) for at in (rows, columns)], axis=1)
    return int(n_crosses), _dots_in_a_row(centres / n_pixels[:, None])


def _stroke_mask(grey: Pixels) -> Mask:
    """Mark bright parts too thin to survive a morphological opening, widened to whole strokes."""
    size = 5 if grey.shape[0] < 700 else 7
    opened = windowed(np.maximum, windowed(np.minimum, grey, size), size)
    thin: Mask = (grey - opened) >= _STROKE_RISE  # an opening is never brighter
    return thin


def windowed(
    extreme: np.ufunc, image: NDArray[_Level], size: int, axes: Sequence[int] = (0, 1)
) -> NDArray[_Level]:
    """Minimum or maximum over a window around each pixel, the image mirrored at its edges.

    Gives what `scipy.ndimage.minimum_filter` and `maximum_filter` give, some twenty times faster:
    whole arrays are compared, shifted by one, two and four pixels.

    Args:
        extreme: numpy.minimum or numpy.maximum.
        image: Shape (height, width).
        size: Side of the window in pixels, odd.
        axes: Directions in which the window is wide; one pixel in the other.
    """
    for axis in axes:
        pad = [(0, 0), (0, 0)]
        pad[axis] = (size // 2, size // 2)
        image = np.pad(image, pad, mode="symmetric")
        reach = 1  # each pixel stands for so many from itself on
        while reach < size:
            step = min(reach, size - reach)
            n = image.shape[axis] - step
            image = (
                extreme(image[:n], image[step:])
                if axis == 0
                else extreme(image[:, :n], image[:, step:])
            )
            reach += step
    return image


def _box(part: tuple[slice, ...]) -> Box:
    rows, columns = part
    return int(columns.start), int(rows.start), int(columns.stop), int(rows.stop)


def _is_glyph(box: Box, height: int) -> bool:
    wide, tall = box[2] - box[0], box[3] - box[1]
    return _MIN_GLYPH_PX <= tall <= max(12, _MAX_GLYPH_SHARE * height) and wide <= 8 * tall


def _lines(glyphs: list[Box], width: int) -> list[list[Box]]:
    """Group glyphs into lines: one baseline, like height, each near the next."""
    groups: list[list[Box]] = []
    for glyph in sorted(glyphs, key=lambda box: (box[0], box[1])):
        for group in reversed(groups):
            last = group[-1]
            tall, other = glyph[3] - glyph[1], last[3] - last[1]
            if (
                abs(glyph[3] - last[3]) <= max(1, 0.25 * max(tall, other))
                and max(tall, other) <= 1.7 * min(tall, other)
                and -other <= glyph[0] - last[2] <= 1.5 * max(tall, other)
            ):
                group.append(glyph)
                break
        else:
            groups.append([glyph])
    return groups


def _around(group: list[Box]) -> Box:
    corners = np.array(group)
    left, top = corners[:, :2].min(axis=0)
    right, bottom = corners[:, 2:].max(axis=0)
    return int(left), int(top), int(right), int(bottom)


def _grown(box: Box, by: int, height: int, width: int) -> Box:
    left, top, right, bottom = box
    return max(0, left - by), max(0, top - by), min(width, right + by), min(height, bottom + by)


def _is_text(grey: Pixels, strokes: Mask, box: Box, group: list[Box]) -> bool:
    left, top, right, bottom = box
    wide, tall = right - left, bottom - top
    if wide < 1.2 * tall or (len(group) < 2 and wide < 2.5 * tall):
        return False
    patch, marked = grey[top:bottom, left:right], strokes[top:bottom, left:right]
    if np.count_nonzero(marked) < _MIN_STROKES * patch.size:
        return False
    # Layers of tissue lie across the beam; letters also have strokes that stand upright.
    upright = strokes_across(grey[top:bottom, max(0, left - 4) : right + 4], _STROKE_RISE)
    if np.count_nonzero(upright) < _MIN_UPRIGHT * patch.size:
        return False
    dark, bright = np.percentile(patch, (30, 97))
    return bool(dark <= _DARK_SHARE * bright)


def _cross_mask(wide: NDArray[np.int16]) -> Mask:
    """Mark centres of crosses: four bright arms, four darker quadrants, the centre open or not."""
    margin = _ARM_PX
    height, width = wide.shape

    def shifted(down: int, across: int) -> NDArray[np.int16]:
        return wide[
            margin + down : height - margin + down, margin + across : width - margin + across
        ]

    arms = shifted(_ARM_PX, 0)
    for k in range(2, _ARM_PX + 1):
        for down, across in ((k, 0), (-k, 0), (0, k), (0, -k)):
            arms = np.minimum(arms, shifted(down, across))
    between = shifted(2, 2)
    for k in (2, 3):
        for down, across in ((k, k), (-k, k), (k, -k), (-k, -k)):
            between = np.maximum(between, shifted(down, across))
    mask = np.zeros(wide.shape, dtype=bool)
    mask[margin:-margin, margin:-margin] = (arms - between) > _CROSS_RISE
    return mask


def _dot_mask(wide: NDArray[np.int16]) -> Mask:
    """Mark the pixels of isolated spots of at most 2 x 2 pixels."""
    # the four sides of a 7 x 7 square around each pixel
    across = windowed(np.maximum, wide, 7, axes=(1,))
    down = windowed(np.maximum, wide, 7, axes=(0,))
    highest = np.maximum(
        np.maximum(across[:-6, 3:-3], across[6:, 3:-3]), np.maximum(down[3:-3, :-6], down[3:-3, 6:])
    )
    alone = np.zeros(wide.shape, dtype=bool)
    alone[3:-3, 3:-3] = (wide[3:-3, 3:-3] - highest) > _DOT_RISE
    return alone


def _dots_in_a_row(centres: NDArray[np.float64]) -> int:
    """Count dots whose two nearest neighbours lie on opposite sides at like distances."""
    from scipy.spatial import cKDTree

    if len(centres) < 4:
        return 0
    found = cKDTree(centres).query(centres, k=3)
    distance, index = np.asarray(found[0]), np.asarray(found[1])
    first = centres[index[:, 1]] - centres
    second = centres[index[:, 2]] - centres
    near, far = distance[:, 1], distance[:, 2]
    cosine = (first * second).sum(axis=1) / np.maximum(near * far, 1e-9)
    in_row = (cosine < -0.9) & (far <= 1.6 * near) & (far <= _MAX_DOT_STEP_PX)
    return int(np.count_nonzero(in_row))
