"""A trained TB-GAN: everything that sampling needs, as tensors and back."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from medisynth.data.views import Pixels
from medisynth.errors import WeightsError
from medisynth.generator import StoppedError, Tensors, TrainingContext
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.images import IMAGES_AT_ONCE, drawn, latents_of
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training import seeded_weights, snapshot

STAGE = "sampling"
GENERATOR = "generator."


@dataclass(frozen=True)
class Trained:
    """The fitted generator.

    Attributes:
        settings: Settings it was fitted with.
        generator: Averaged weights of the chosen step.
    """

    settings: TbGanSettings
    generator: StyleSwinGenerator

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors needed to sample again."""
        return {GENERATOR + name: value for name, value in snapshot(self.generator).items()}

    def sample(self, n: int, context: TrainingContext) -> Pixels:
        """Draw images; image i depends on (seed, i) alone, up to rounding on other devices.

        Args:
            n: Number of images, at least 1.
            context: Seed, device, progress and stop flag.

        Returns:
            Shape (n, size, size), uint8.

        Raises:
            StoppedError: A stop was asked for.
            TrainingError: The network gave a value that is not finite.
        """
        self.generator.to(context.compute_device).eval()
        return np.concatenate(list(self._batches(n, context)))

    def _batches(self, n: int, context: TrainingContext) -> Iterator[Pixels]:
        for first in range(0, n, IMAGES_AT_ONCE):
            if context.should_stop():
                raise StoppedError(f"{STAGE}: stopped after {first} of {n} images")
            indices = range(first, min(first + IMAGES_AT_ONCE, n))
            width, device = self.settings.style_width, context.compute_device
            yield drawn(self.generator, latents_of(indices, width, device, context.seed, STAGE))
            context.progress(STAGE, indices[-1] + 1, n)


def trained_from(settings: TbGanSettings, tensors: Tensors) -> Trained:
    """Rebuild from the tensors of `Trained.state`.

    Raises:
        WeightsError: Names or shapes do not fit the settings.
    """
    with seeded_weights(0, "tb-gan"):
        generator = StyleSwinGenerator(settings)
    expected = {GENERATOR + k: tuple(v.shape) for k, v in generator.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise WeightsError(
                f"weights of tb-gan: tensor {name!r}: expected {_shape(expected.get(name))}, "
                f"found {_shape(found.get(name))}; use weights that were trained with these "
                "settings"
            )
    generator.load_state_dict({k.removeprefix(GENERATOR): v for k, v in tensors.items()})
    generator.eval().requires_grad_(False)
    return Trained(settings, generator)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"
