"""A trained DSR-GAN: everything that sampling needs, as tensors and back."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medisynth.data.views import Pixels
from medisynth.errors import TrainingError, WeightsError
from medisynth.generator import Condition, StoppedError, Tensors, TrainingContext
from medisynth.models.conditioning import Vocabulary, vocabulary_from
from medisynth.models.dsr_gan.batches import to_pixels, to_unit
from medisynth.models.dsr_gan.diffusion import NETWORK_PREFIX as DIFFUSION
from medisynth.models.dsr_gan.diffusion import n_channels, new_network, objective_of
from medisynth.models.dsr_gan.histograms import (
    N_GREYS,
    Histograms,
    drawn_reference,
    matched,
    matched_whole,
)
from medisynth.models.dsr_gan.scaling import Scaling
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import new_networks, speckled
from medisynth.training import numpy_generator, snapshot, torch_generator

STAGE = "sampling"
IMAGES_AT_ONCE = 32

ENLARGER = "super_resolution.network."
MEAN_IMAGE = "diffusion.mean_image"
GAIN = "diffusion.gain"
HISTOGRAMS = "histograms"
VOCABULARY = "vocabulary"


@dataclass(frozen=True)
class Trained:
    """The fitted parts.

    Attributes:
        settings: Settings they were fitted with.
        diffusion: Denoising network, averaged weights of the chosen step.
        scaling: Training mean image and gain.
        histograms: Grey value counts of training images, shape (k, 256).
        enlarger: Super-resolution generator, averaged weights.
        vocabulary: Labels of the training images and how often each pair occurs.
    """

    settings: DsrGanSettings
    diffusion: nn.Module
    scaling: Scaling
    histograms: Histograms
    enlarger: nn.Module
    vocabulary: Vocabulary

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors needed to sample again."""
        return {
            **{DIFFUSION + name: value for name, value in snapshot(self.diffusion).items()},
            **{ENLARGER + name: value for name, value in snapshot(self.enlarger).items()},
            MEAN_IMAGE: self.scaling.mean_image.cpu(),
            GAIN: self.scaling.gain.cpu(),
            HISTOGRAMS: torch.from_numpy(self.histograms),
            VOCABULARY: self.vocabulary.to_tensor(),
        }

    def sample(
        self, n: int, context: TrainingContext, condition: Condition | None = None
    ) -> Pixels:
        """Draw images; image i depends on (seed, i) and the condition alone, up to rounding.

        Args:
            n: Number of images, at least 1.
            context: Seed, device, progress and stop flag.
            condition: What they shall show; what it leaves open is drawn as often as in training.

        Returns:
            Shape (n, size, size), uint8.

        Raises:
            SettingsError: No training image has the label, or the network was not told labels.
            StoppedError: A stop was asked for.
            TrainingError: The networks gave a value that is not finite.
        """
        wanted = condition or Condition()
        self.vocabulary.require(wanted)
        return np.concatenate(list(self._batches(n, context, wanted)))

    def _batches(self, n: int, context: TrainingContext, condition: Condition) -> Iterator[Pixels]:
        device = context.compute_device
        self.diffusion.to(device).eval()
        self.enlarger.to(device).eval()
        size = self.settings.diffusion.size
        level = self.settings.super_resolution.speckle_in_sampling
        for first in range(0, n, IMAGES_AT_ONCE):
            indices = range(first, min(first + IMAGES_AT_ONCE, n))
            start, speckle = (
                torch.stack(
                    [_normal(channels, size, device, context.seed, what, i) for i in indices]
                )
                for what, channels in (("noise", n_channels(self.settings)), ("speckle", 1))
            )
            small = to_unit(self._small(start, indices, context, condition), device)
            with torch.no_grad():
                images = self.enlarger(speckled(small, speckle, level))
            _require_finite(images, "super-resolution")
            yield to_pixels(images)
            context.progress(STAGE, indices[-1] + 1, n)

    def _small(
        self, noise: torch.Tensor, indices: range, context: TrainingContext, condition: Condition
    ) -> Pixels:
        """Draw diffusion images from noise and match each to one training histogram."""
        labels = self._labels(indices, context, condition)
        residuals = noise
        for state in objective_of(self.settings).states(self.diffusion, noise, labels):
            if context.should_stop():
                raise StoppedError(f"{STAGE}: stopped after {indices[0]} images")
            residuals = state
        _require_finite(residuals, "diffusion")
        scaling = Scaling(
            self.scaling.mean_image.to(noise.device), self.scaling.gain.to(noise.device)
        )
        small = to_pixels(scaling.to_images(residuals).mean(1, keepdim=True))
        return np.stack(
            [
                self._matched(image, numpy_generator(context.seed, STAGE, "reference", i))
                for image, i in zip(small, indices, strict=True)
            ]
        )

    def _labels(
        self, indices: range, context: TrainingContext, condition: Condition
    ) -> torch.Tensor | None:
        if not self.vocabulary.is_conditional:
            return None
        pairs = [
            self.vocabulary.drawn(condition, numpy_generator(context.seed, STAGE, "labels", i))
            for i in indices
        ]
        return self.vocabulary.numbers(pairs, context.compute_device)

    def _matched(self, image: Pixels, generator: np.random.Generator) -> Pixels:
        if self.settings.deviations.one_average_histogram:
            return matched_whole(image, self.histograms[0])
        return matched(image, drawn_reference(image, self.histograms, generator))


def trained_from(settings: DsrGanSettings, tensors: Tensors) -> Trained:
    """Rebuild from the tensors of `Trained.state`.

    Raises:
        WeightsError: Names or shapes do not fit the settings.
    """
    if VOCABULARY not in tensors:
        raise WeightsError(_misfit(VOCABULARY, "a tensor", "no such tensor"))
    vocabulary = vocabulary_from(tensors[VOCABULARY])
    diffusion = new_network(settings, 0, vocabulary.sizes)
    enlarger, _ = new_networks(settings, seed=0)
    _require_shapes(settings, diffusion, enlarger, tensors)
    for network, prefix in ((diffusion, DIFFUSION), (enlarger, ENLARGER)):
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        network.load_state_dict(own)
        network.eval().requires_grad_(False)
    scaling = Scaling(tensors[MEAN_IMAGE], tensors[GAIN])
    histograms = tensors[HISTOGRAMS].numpy()
    return Trained(settings, diffusion, scaling, histograms, enlarger, vocabulary)


def _require_shapes(
    settings: DsrGanSettings, diffusion: nn.Module, enlarger: nn.Module, tensors: Tensors
) -> None:
    size = settings.diffusion.size
    expected = {
        **{DIFFUSION + k: tuple(v.shape) for k, v in diffusion.state_dict().items()},
        **{ENLARGER + k: tuple(v.shape) for k, v in enlarger.state_dict().items()},
        MEAN_IMAGE: (1, 1, size, size),
        GAIN: (),
        VOCABULARY: tuple(tensors[VOCABULARY].shape),
    }
    if HISTOGRAMS in tensors:  # any number of them
        expected[HISTOGRAMS] = (max(1, len(tensors[HISTOGRAMS])), N_GREYS)
    else:
        expected[HISTOGRAMS] = (1, N_GREYS)
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise WeightsError(_misfit(name, _shape(expected.get(name)), _shape(found.get(name))))


def _misfit(name: str, expected: str, found: str) -> str:
    return (
        f"weights of dsr-gan: tensor {name!r}: expected {expected}, found {found}; "
        "use weights that were trained with these settings"
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"


def _normal(
    channels: int, size: int, device: str, seed: int, what: str, index: int
) -> torch.Tensor:
    generator = torch_generator(device, seed, STAGE, what, index)
    return torch.randn((channels, size, size), device=device, generator=generator)


def _require_finite(images: torch.Tensor, stage: str) -> None:
    if not bool(torch.isfinite(images).all()):
        raise TrainingError(
            f"{STAGE}: the {stage} network gave values that are not finite, expected finite ones; "
            f"train again with a lower learning_rate of the {stage} stage"
        )
