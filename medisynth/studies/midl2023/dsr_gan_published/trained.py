"""Parts of a published DSR-GAN: published where their deviation is on, else built-in ones."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.exposure import match_histograms
from torch import nn

from medisynth.data.reading.views import Pixels
from medisynth.generator import Tensors
from medisynth.models.dsr_gan.diffusion import STAGE, new_network
from medisynth.models.dsr_gan.fitted import N_GREYS, Histograms, histograms_of, matched_to_nearest
from medisynth.models.dsr_gan.objectives import Edm
from medisynth.models.dsr_gan.super_resolution import sides_of, untrained_enlarger
from medisynth.models.dsr_gan.trained import Trained, vocabulary_in, with_weights
from medisynth.models.enlarging.networks import EnlargingNetwork
from medisynth.studies.midl2023.dsr_gan_published.classic_srgan import new_networks
from medisynth.studies.midl2023.dsr_gan_published.classic_unet import N_CHANNELS, ClassicUNet
from medisynth.studies.midl2023.dsr_gan_published.noise_prediction import NoisePrediction
from medisynth.studies.midl2023.dsr_gan_published.settings import DsrGanPublishedSettings
from medisynth.training.loop import seeded_weights


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


def objective_of(settings: DsrGanPublishedSettings) -> type[Edm] | type[NoisePrediction]:
    """Class of the diffusion network's objective."""
    return NoisePrediction if settings.deviations.noise_prediction else Edm


def n_channels(settings: DsrGanPublishedSettings) -> int:
    """Channels that the diffusion network works on; the image is grey all the same."""
    return N_CHANNELS if settings.deviations.classic_unet else 1


def new_diffusion(
    settings: DsrGanPublishedSettings, seed: int, label_sizes: tuple[int, int]
) -> nn.Module:
    """Build the diffusion network with weights drawn from the seed."""
    if not settings.deviations.classic_unet:
        return new_network(settings, seed, label_sizes)
    with seeded_weights(seed, STAGE):
        network = ClassicUNet(settings.diffusion.channels, settings.diffusion.layers, label_sizes)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def enlarged_sides(settings: DsrGanPublishedSettings) -> tuple[int, ...]:
    """Side of the images that each enlarging network makes, in pixels, the final one last."""
    if settings.deviations.classic_srgan:
        return (settings.super_resolution.to,)
    return sides_of(settings)


def as_published(settings: DsrGanPublishedSettings, trained: Trained) -> Trained:
    """Return the trained networks with the sampling that the deviations require."""
    is_average = settings.deviations.one_average_histogram
    return replace(
        trained,
        objective=objective_of(settings)(settings.diffusion),
        n_channels=n_channels(settings),
        matching=matched_to_average if is_average else matched_to_nearest,
    )


def trained_from(settings: DsrGanPublishedSettings, tensors: Tensors) -> Trained:
    """Rebuild from the tensors of `Trained.state`.

    Raises:
        WeightsError: Names or shapes do not fit the settings.
    """
    vocabulary = vocabulary_in(tensors)
    diffusion = new_diffusion(settings, 0, vocabulary.sizes)
    enlargers: dict[int, EnlargingNetwork] = {
        side: new_networks(settings, 0)[0]
        if settings.deviations.classic_srgan
        else untrained_enlarger(settings, side)
        for side in enlarged_sides(settings)
    }
    return as_published(settings, with_weights(settings, diffusion, enlargers, vocabulary, tensors))
