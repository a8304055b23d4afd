"""Quick statistics of grey images: brightness, sharpness, black share, burned-in marks.

`overlay_fraction` tells burned-in marks from anatomy by their edges: the sound beam blurs all it
shows over several pixels, while a scanner's marks go from background to full brightness and back
within two. `medisynth.data.content.marks` locates the marks.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medisynth.data.reading.views import Pixels

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


def overlay_fraction(grey: Pixels) -> float:
    """Share of pixels that a burned-in overlay covers, a quick estimate for one image.

    Counts strokes of at most three pixels' width and grey wedges at the edges. Large filled marks
    count by their outline only, and dim text may be missed: a small value is no proof that the
    image holds no text.

    Args:
        grey: Image at its own size, shape (height, width), uint8.

    Returns:
        0 to 1; from `OVERLAY_FRACTION` an overlay is likely. Integer arithmetic: equal pictures
        give equal values on every machine.
    """
    if grey.size == 0:
        return 0.0
    n_marked = int(np.count_nonzero(strokes_across(grey, _PEN_RISE))) + wedge_pixels(grey)
    return min(1.0, n_marked / grey.size)


def strokes_across(grey: Pixels, rise: int) -> Mask:
    """Mark pixels brighter by more than `rise` grey levels than those 2 to the left and right.

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


def wedge_pixels(grey: Pixels) -> int:
    """Count pixels of grey wedges near the left and right edge: long, evenly falling columns."""
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
        squared grey levels (0 for images below 3 x 3 pixels). Sharpness grows with noise and
        burned-in text as well as with detail, and depends on the image's size.
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
