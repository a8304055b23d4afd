"""Histogram matching as published: every sample takes the grey values of one average image."""

import numpy as np
from numpy.typing import NDArray
from skimage.exposure import match_histograms

from medisynth.data.reading.views import Pixels
from medisynth.models.dsr_gan.histograms import N_GREYS, Histograms, histograms_of


def mean_histogram(histograms: Histograms) -> Histograms:
    """Histogram of the mean of the images' sorted pixels, as published: (k, 256) to (1, 256)."""
    greys = np.arange(N_GREYS, dtype=np.uint8)
    total = np.zeros(int(histograms[0].sum()))
    for counts in histograms:
        total += np.repeat(greys, counts)
    mean = np.rint(total / len(histograms)).astype(np.uint8)
    return histograms_of(mean[None])


def matched_whole(image: Pixels, reference: NDArray[np.int32]) -> Pixels:
    """Match all pixels to a reference, including the black background, as published."""
    greys = np.repeat(np.arange(N_GREYS, dtype=np.uint8), reference)
    values = match_histograms(image, greys.reshape(1, -1))
    return np.clip(np.rint(values), 0, N_GREYS - 1).astype(np.uint8)


def matched_to_average(
    image: Pixels, histograms: Histograms, generator: np.random.Generator
) -> Pixels:
    """Match an image to the only histogram; nothing is drawn from the generator."""
    return matched_whole(image, histograms[0])
