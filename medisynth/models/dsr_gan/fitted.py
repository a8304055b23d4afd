"""Parts fitted before training, on the training view alone: scaling, histograms, vocabulary."""

from dataclasses import dataclass

import numpy as np
import torch

from medisynth.data.reading.views import ImageView
from medisynth.models.conditioning import Vocabulary, vocabulary_of
from medisynth.models.dsr_gan.histograms import Histograms, histograms_of
from medisynth.models.dsr_gan.scaling import Scaling, fit_mean_image, fit_scaling
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.enlarging.images import reduced_pixels
from medisynth.training.loop import numpy_generator

MOST_HISTOGRAMS = 1024


@dataclass(frozen=True)
class Fitted:
    """Parts fitted before training, which both stages and sampling use.

    Attributes:
        mean_image: Training mean at full size, shape (1, 1, h, h), 0 to 1, which is subtracted
            before augmentation; None where images are augmented as they are.
        scaling: Scaling between images and residuals, at the diffusion size.
        histograms: Grey value counts, shape (k, 256).
        vocabulary: Labels of the training images.
    """

    mean_image: torch.Tensor | None
    scaling: Scaling
    histograms: Histograms
    vocabulary: Vocabulary


def fit_before_training(
    training: ImageView, settings: DsrGanSettings, seed: int, device: str
) -> Fitted:
    """Fit scaling, histograms and vocabulary.

    Raises:
        DataError: All training images are equal.
    """
    mean_image = fit_mean_image(training, device)
    return Fitted(
        mean_image,
        fit_scaling(training, mean_image, settings.diffusion),
        fit_histograms(training, settings, seed),
        vocabulary_of(training, settings.conditioning),
    )


def fit_histograms(training: ImageView, settings: DsrGanSettings, seed: int) -> Histograms:
    """Count the grey values of training images, at most 1024 drawn ones, at the diffusion size."""
    rows = np.arange(len(training))
    if len(rows) > MOST_HISTOGRAMS:
        generator = numpy_generator(seed, "histograms")
        rows = np.sort(generator.choice(rows, MOST_HISTOGRAMS, replace=False))
    return histograms_of(reduced_pixels(training.pixels[rows], settings.diffusion.size))
