"""Histogram matching of each sample to one drawn training image.

One average histogram for all samples would give every synthetic image the same gain. One drawn at
random often belongs to another scene: a dark sample stretched to the grey values of a bright frame
becomes fog. So a few training images are drawn and the one with the nearest histogram is taken.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.exposure import match_histograms

from medisynth.data.reading.views import Pixels

BLACK_MAX = 4  # grey values up to this are background around the sector
FEWEST_PIXELS = 16
N_DRAWN = 16
N_GREYS = 256

Histograms = NDArray[np.int32]
# From an image, the training histograms and a generator to the image with other grey values.
Matching = Callable[[Pixels, Histograms, np.random.Generator], Pixels]


def histograms_of(images: Pixels) -> Histograms:
    """Count grey values: (n, h, w) uint8 to (n, 256)."""
    return np.stack([np.bincount(image.reshape(-1), minlength=N_GREYS) for image in images]).astype(
        np.int32
    )


def matched_to_nearest(
    image: Pixels, histograms: Histograms, generator: np.random.Generator
) -> Pixels:
    """Match an image to the nearest of a few drawn training histograms."""
    return matched(image, drawn_reference(image, histograms, generator))


def drawn_reference(
    image: Pixels, histograms: Histograms, generator: np.random.Generator
) -> NDArray[np.int32]:
    """Draw N_DRAWN training histograms and return the one nearest to the image's own.

    Args:
        image: Grey image, uint8, of the size that the histograms were counted at.
        histograms: Grey value counts of training images, shape (k, 256).
        generator: Where the draw comes from.

    Returns:
        Counts, shape (256,). Nearest by the earth mover's distance, which for grey values is the
        area between the two cumulative histograms.
    """
    drawn = histograms[generator.integers(len(histograms), size=N_DRAWN)]
    own = np.bincount(image.reshape(-1), minlength=N_GREYS)
    distances = np.abs(np.cumsum(drawn - own, axis=1)).sum(axis=1)
    nearest: NDArray[np.int32] = drawn[int(distances.argmin())]
    return nearest


def matched(image: Pixels, reference: NDArray[np.int32]) -> Pixels:
    """Give an image the grey values of a reference, keeping the order of brightness.

    Only pixels brighter than the black background are matched: sectors differ in area, and
    matching the background too would turn black into grey or tissue into black. The background
    becomes 0, as it is in real frames.

    Args:
        image: Grey image, uint8, any shape.
        reference: Counts of the 256 grey values of the reference image.

    Returns:
        Same shape, uint8. Unchanged where either has fewer than 16 pixels above the background.
    """
    is_tissue = image > BLACK_MAX
    greys = np.repeat(np.arange(N_GREYS, dtype=np.uint8), reference)
    greys = greys[greys > BLACK_MAX]
    if min(int(is_tissue.sum()), len(greys)) < FEWEST_PIXELS:
        return image
    result = np.zeros_like(image)
    values = match_histograms(image[is_tissue], greys)
    result[is_tissue] = np.clip(np.rint(values), 0, N_GREYS - 1).astype(np.uint8)
    return result
