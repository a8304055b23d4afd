"""Training images copied and altered in known ways, to try the search for copies on."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medisynth.data.reading.alterations import enlarged, grey, recompressed
from medisynth.data.reading.views import Pixels

_JPEG_QUALITY = 40
_GAIN, _OFFSET = 1.3, 10.0
_LEAST_SHIFT, _MOST_SHIFT = 0.02, 0.08  # of the side, in each direction
_LEAST_ZOOM, _MOST_ZOOM = 1.08, 1.2
_HEAD_RADIUS = 0.35  # of the side: about what a head takes of a frame
_HEAD_SHIFT = 0.09

Alteration = Callable[[Pixels, Pixels, np.random.Generator], Pixels]


def altered_copies(
    kind: str, images: Pixels, others: Pixels, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Alter every image in one way.

    Args:
        kind: One of `KINDS`.
        images: Images to copy, shape (n, height, width), uint8.
        others: Images of other patients, same shape: what stands beside a copied part, and whose
            histogram a copy gets.
        rng: Source of randomness.

    Returns:
        Shape (n, height, width), uint8.
    """
    pairs = zip(images, others, strict=True)
    return np.stack([_KINDS[kind](image, other, rng) for image, other in pairs])


def _as_it_is(image: Pixels, _other: Pixels, _rng: np.random.Generator) -> Pixels:
    return image


def _recompressed(image: Pixels, _other: Pixels, _rng: np.random.Generator) -> Pixels:
    return recompressed(image, _JPEG_QUALITY)


def _brighter(image: Pixels, _other: Pixels, _rng: np.random.Generator) -> Pixels:
    return grey(image * _GAIN + _OFFSET)


def _shifted(image: Pixels, _other: Pixels, rng: np.random.Generator) -> Pixels:
    reach = rng.uniform(_LEAST_SHIFT, _MOST_SHIFT, 2) * rng.choice([-1, 1], 2)
    return grey(_moved(image, reach))


def _mirrored(image: Pixels, _other: Pixels, _rng: np.random.Generator) -> Pixels:
    return image[:, ::-1]


def _zoomed(image: Pixels, _other: Pixels, rng: np.random.Generator) -> Pixels:
    return enlarged(image, rng.uniform(_LEAST_ZOOM, _MOST_ZOOM))


def _other_histogram(image: Pixels, other: Pixels, _rng: np.random.Generator) -> Pixels:
    """Give an image the histogram of another, grey level by grey level."""
    own, wanted = (np.bincount(x.ravel(), minlength=256).cumsum() / x.size for x in (image, other))
    levels = np.clip(np.searchsorted(wanted, own), 0, 255).astype(np.uint8)
    return np.asarray(levels[image], np.uint8)


def _half(image: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """Put the left, right, upper or lower half of an image in place of another's."""
    copy = other.copy()
    axis, first = rng.integers(2), bool(rng.integers(2))
    middle = image.shape[axis] // 2
    rows = slice(0, middle) if first else slice(middle, None)
    place = (rows, slice(None)) if axis == 0 else (slice(None), rows)
    copy[place] = image[place]
    return copy


def _head(image: Pixels, other: Pixels, rng: np.random.Generator) -> Pixels:
    """Put the middle of an image, a disc, somewhere near the middle of another."""
    from scipy.ndimage import gaussian_filter

    height, width = image.shape
    rows, columns = np.mgrid[:height, :width]
    radius = _HEAD_RADIUS * min(height, width)
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2
    reach = rng.uniform(-_HEAD_SHIFT, _HEAD_SHIFT, 2)
    share = _moved(gaussian_filter(inside.astype(np.float64), 1.0), reach)
    return grey(_moved(image, reach) * share + other * (1 - share))


def _moved(image: NDArray[np.generic], reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift an image by shares of its sides, in whole pixels; what comes in is black."""
    from scipy.ndimage import shift

    by = np.rint(reach * np.array(image.shape))
    return np.asarray(shift(image.astype(np.float64), by, order=0), np.float64)


_KINDS: dict[str, Alteration] = {
    "as it is": _as_it_is,
    "recompressed": _recompressed,
    "brighter": _brighter,
    "shifted": _shifted,
    "mirrored": _mirrored,
    "zoomed": _zoomed,
    "other histogram": _other_histogram,
    "half of the image": _half,
    "head in another sector": _head,
}
KINDS = tuple(_KINDS)
