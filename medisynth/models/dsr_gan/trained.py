"""A trained DSR-GAN: sampling from it, and its conversion to tensors and back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from governance.records.errors import TrainingError, WeightsError
from medisynth.data.reading.views import Pixels
from medisynth.generator import Condition, StoppedError, Tensors, TrainingContext
from medisynth.models.conditioning import Vocabulary, vocabulary_from
from medisynth.models.dsr_gan.diffusion import NETWORK_PREFIX as DIFFUSION
from medisynth.models.dsr_gan.diffusion import new_network
from medisynth.models.dsr_gan.fitted import (
    N_GREYS,
    Histograms,
    Matching,
    Scaling,
    Window,
    matched_to_nearest,
)
from medisynth.models.dsr_gan.objectives import Edm, FreshNoise, Objective
from medisynth.models.dsr_gan.settings import FORMER_VERSION, DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import sides_of, untrained_enlarger
from medisynth.models.enlarging.images import to_pixels, to_unit
from medisynth.models.enlarging.networks import EnlargingNetwork
from medisynth.models.enlarging.stage import enlarged
from medisynth.training.loop import autocast, numpy_generator, snapshot, torch_generator

STAGE, ENLARGING_NOISE = "sampling", "enlarging noise"
IMAGES_AT_ONCE = 32

MEAN_IMAGE = "diffusion.mean_image"
GAIN = "diffusion.gain"
WINDOW = "diffusion.window"
HISTOGRAMS = "histograms"
VOCABULARY = "vocabulary"

Enlargers = Mapping[int, EnlargingNetwork]  # by the side of the images that they make

# Both are found only in the former enlarging network, which drew no noise.
FORMER_ENLARGER = "super_resolution.network."
FORMER_LAYERS = ("stem.0.weight", "after.weight")


@dataclass(frozen=True)
class Trained:
    """The fitted parts.

    Attributes:
        settings: Settings they were fitted with.
        diffusion: Denoising network, averaged weights of the chosen step.
        scaling: Training mean image and gain.
        histograms: Grey value counts of training images, shape (k, 256).
        enlargers: Super-resolution generators, smallest side first, averaged weights.
        vocabulary: Labels of the training images and how often each pair occurs.
        objective: Objective of the diffusion network, with the sampler that belongs to it.
        n_channels: Channels of the diffusion network; the image is grey all the same.
        matching: Gives a drawn image grey values of training images.
    """

    settings: DsrGanSettings
    diffusion: nn.Module
    scaling: Scaling
    histograms: Histograms
    enlargers: Enlargers
    vocabulary: Vocabulary
    objective: Objective
    n_channels: int = 1
    matching: Matching = matched_to_nearest

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors needed to sample again."""
        return {
            **{DIFFUSION + name: value for name, value in snapshot(self.diffusion).items()},
            **{
                _prefix_of(side) + name: value
                for side, network in self.enlargers.items()
                for name, value in snapshot(network).items()
            },
            MEAN_IMAGE: self.scaling.mean_image.cpu(),
            GAIN: self.scaling.gain.cpu(),
            WINDOW: torch.tensor(self.scaling.window),
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
            condition: Labels of the images; labels left open are drawn as often as in training.

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
        for enlarger in self.enlargers.values():
            enlarger.to(device).eval()
        for first in range(0, n, IMAGES_AT_ONCE):
            indices = range(first, min(first + IMAGES_AT_ONCE, n))
            small = to_unit(self.small(indices, context, condition), device)
            yield to_pixels(self.enlarged(small, indices, context))
            context.progress(STAGE, indices[-1] + 1, n)

    def enlarged(
        self, images: torch.Tensor, indices: range, context: TrainingContext
    ) -> torch.Tensor:
        """Enlarge (b, 1, h, h), 0 to 1, by every network for sides above h.

        The noise of image i depends on (seed, side, i) alone.
        """
        device, seed = context.compute_device, context.seed
        for side, network in self.enlargers.items():
            if side <= images.shape[-1]:
                continue

            def noise_of(row: int, side: int = side) -> torch.Generator:
                return torch_generator(device, seed, STAGE, ENLARGING_NOISE, side, indices[row])

            images = enlarged(network, images, noise_of)
        return images

    def _noise(self, context: TrainingContext, index: int) -> torch.Tensor:
        """Starting noise of one image, shape (channels, rows, columns)."""
        device = context.compute_device
        generator = torch_generator(device, context.seed, STAGE, "noise", index)
        shape = (self.n_channels, *self.scaling.shape)
        return torch.randn(shape, device=device, generator=generator)

    def _fresh(self, indices: range, context: TrainingContext) -> FreshNoise:
        """Noise for each step of the sampler; that of an image depends on (seed, i, step) alone."""
        device, shape = context.compute_device, (self.n_channels, *self.scaling.shape)

        def of_step(step: int) -> torch.Tensor:
            generators = (
                torch_generator(device, context.seed, STAGE, "churn", i, step) for i in indices
            )
            return torch.stack([torch.randn(shape, device=device, generator=g) for g in generators])

        return of_step

    def small(self, indices: range, context: TrainingContext, condition: Condition) -> Pixels:
        """Draw diffusion images and match each to one training histogram, (b, size, size), uint8.

        Raises:
            StoppedError: A stop was asked for.
            TrainingError: The network gave a value that is not finite.
        """
        noise = torch.stack([self._noise(context, i) for i in indices])
        labels = self._labels(indices, context, condition)
        residuals = noise
        with autocast(context.compute_device, self.settings.diffusion.sampling_precision):
            draw = self.objective.states
            for state in draw(self.diffusion, noise, labels, self._fresh(indices, context)):
                if context.should_stop():
                    raise StoppedError(f"{STAGE}: stopped after {indices[0]} images")
                residuals = state
        _require_finite(residuals)
        scaling = self.scaling.to(context.compute_device)
        small = to_pixels(scaling.to_images(residuals).mean(1, keepdim=True))
        return np.stack(
            [
                self.matching(
                    image, self.histograms, numpy_generator(context.seed, STAGE, "reference", i)
                )
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


def trained_from(settings: DsrGanSettings, tensors: Tensors) -> Trained:
    """Rebuild from the tensors of `Trained.state`.

    Raises:
        WeightsError: Names or shapes do not fit the settings.
    """
    vocabulary = vocabulary_in(tensors)
    _refuse_former(tensors)
    diffusion = new_network(settings, 0, vocabulary.sizes)
    enlargers = {side: untrained_enlarger(settings, side) for side in sides_of(settings)}
    return with_weights(settings, diffusion, enlargers, vocabulary, tensors)


def vocabulary_in(tensors: Tensors) -> Vocabulary:
    """Read the labels of the training images from the tensors of `Trained.state`.

    Raises:
        WeightsError: There are none.
    """
    if VOCABULARY not in tensors:
        raise WeightsError(_misfit(VOCABULARY, "a tensor", "no such tensor"))
    return vocabulary_from(tensors[VOCABULARY])


def with_weights(
    settings: DsrGanSettings,
    diffusion: nn.Module,
    enlargers: Enlargers,
    vocabulary: Vocabulary,
    tensors: Tensors,
) -> Trained:
    """Load the tensors of `Trained.state` into untrained networks.

    Raises:
        WeightsError: Names or shapes do not fit.
    """
    if WINDOW not in tensors:
        raise WeightsError(
            f"weights of dsr-gan: expected tensor {WINDOW!r}, found none: they were written before "
            f"the rows and columns that hold picture were recorded; sample them with "
            f"{FORMER_VERSION}, or train again"
        )
    networks: dict[str, nn.Module] = {DIFFUSION: diffusion}
    networks |= {_prefix_of(side): network for side, network in enlargers.items()}
    _require_shapes(settings, networks, tensors)
    for prefix, network in networks.items():
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        network.load_state_dict(own)
        network.eval().requires_grad_(False)
    scaling = Scaling(tensors[MEAN_IMAGE], tensors[GAIN], _window(settings, tensors[WINDOW]))
    histograms = tensors[HISTOGRAMS].numpy()
    objective = Edm(settings.diffusion)
    return Trained(settings, diffusion, scaling, histograms, enlargers, vocabulary, objective)


def _prefix_of(side: int) -> str:
    """Prefix of the tensor names of the enlarging network that makes images of a side."""
    return f"super_resolution.to_{side}."


def _refuse_former(tensors: Tensors) -> None:
    """Refuse weights of the enlarging network without noise; name the version that reads them."""
    if all(FORMER_ENLARGER + layer in tensors for layer in FORMER_LAYERS):
        raise WeightsError(
            "weights of dsr-gan: expected an enlarging network that draws noise, found one written "
            f"before the enlarging stage drew noise; sample it with {FORMER_VERSION}, or train again"
        )


def _require_shapes(
    settings: DsrGanSettings, networks: Mapping[str, nn.Module], tensors: Tensors
) -> None:
    size = settings.diffusion.size
    expected = {
        **{
            prefix + name: tuple(value.shape)
            for prefix, network in networks.items()
            for name, value in network.state_dict().items()
        },
        MEAN_IMAGE: (1, 1, size, size),
        GAIN: (),
        WINDOW: (4,),
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


def _window(settings: DsrGanSettings, found: torch.Tensor) -> Window:
    """Check and return the window of a checkpoint."""
    size, d = settings.diffusion.size, settings.diffusion
    multiple = d.unshuffle * 2 ** (len(d.channels) - 1)
    top, bottom, left, right = (int(edge) for edge in found)
    for first, end in ((top, bottom), (left, right)):
        if not 0 <= first < end <= size or (end - first) % multiple:
            raise WeightsError(
                _misfit(WINDOW, f"edges within {size}, {multiple} apart", f"{found.tolist()}")
            )
    return top, bottom, left, right


def _misfit(name: str, expected: str, found: str) -> str:
    return (
        f"weights of dsr-gan: tensor {name!r}: expected {expected}, found {found}; "
        "use weights that were trained with these settings"
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"


def _require_finite(residuals: torch.Tensor) -> None:
    if not bool(torch.isfinite(residuals).all()):
        raise TrainingError(
            f"{STAGE}: the diffusion network gave values that are not finite, expected finite "
            "ones; train again with a lower learning_rate of the diffusion stage"
        )
