"""A trained TB-GAN: everything that sampling needs, as tensors and back."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from medisynth.data.views import Pixels
from medisynth.errors import WeightsError
from medisynth.generator import Condition, StoppedError, Tensors, TrainingContext
from medisynth.models.conditioning import Vocabulary, vocabulary_from
from medisynth.models.tb_gan.former import require_present
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.images import (
    IMAGES_AT_ONCE,
    drawn,
    labels_of,
    numbers_of,
    to_pixels,
)
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training import seeded_weights, snapshot

STAGE = "sampling"
GENERATOR = "generator."
VOCABULARY = "vocabulary"


@dataclass(frozen=True)
class Trained:
    """The fitted generator.

    Attributes:
        settings: Settings it was fitted with.
        generator: Averaged weights of the chosen step.
        vocabulary: Labels of the training images and how often each pair occurs.
    """

    settings: TbGanSettings
    generator: StyleSwinGenerator
    vocabulary: Vocabulary

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors needed to sample again."""
        return {
            VOCABULARY: self.vocabulary.to_tensor(),
            **{GENERATOR + name: value for name, value in snapshot(self.generator).items()},
        }

    def sample(self, n: int, context: TrainingContext, condition: Condition) -> Pixels:
        """Draw images; image i depends on (seed, i) alone, up to rounding on other devices.

        Args:
            n: Number of images, at least 1.
            context: Seed, device, progress and stop flag.
            condition: Plane and machine; what it leaves open is drawn as often as in training.

        Returns:
            Shape (n, size, size), uint8.

        Raises:
            SettingsError: No training image has the label, or the networks were not told labels.
            StoppedError: A stop was asked for.
            TrainingError: The network gave a value that is not finite.
        """
        self.vocabulary.require(condition)
        self.generator.to(context.compute_device).eval()
        return np.concatenate(list(self._batches(n, context, condition)))

    def _batches(self, n: int, context: TrainingContext, condition: Condition) -> Iterator[Pixels]:
        device, place = context.compute_device, (context.seed, STAGE)
        for first in range(0, n, IMAGES_AT_ONCE):
            if context.should_stop():
                raise StoppedError(f"{STAGE}: stopped after {first} of {n} images")
            indices = range(first, min(first + IMAGES_AT_ONCE, n))
            numbers = numbers_of(indices, self.generator.n_numbers, device, *place)
            labels = labels_of(indices, self.vocabulary, condition, device, *place)
            yield to_pixels(drawn(self.generator, numbers, labels))
            context.progress(STAGE, indices[-1] + 1, n)


def trained_from(settings: TbGanSettings, tensors: Tensors) -> Trained:
    """Rebuild from the tensors of `Trained.state`.

    Raises:
        WeightsError: Names or shapes do not fit the settings, or they are of the former
            architecture.
    """
    require_present(tensors, GENERATOR, "weights of tb-gan")
    if VOCABULARY not in tensors:
        raise WeightsError(
            _misfit(VOCABULARY, "the labels of the training images", "no such tensor")
        )
    vocabulary = vocabulary_from(tensors[VOCABULARY])
    with seeded_weights(0, "tb-gan"):
        generator = StyleSwinGenerator(settings, vocabulary.sizes)
    own = {k: v for k, v in tensors.items() if k != VOCABULARY}
    expected = {GENERATOR + k: tuple(v.shape) for k, v in generator.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in own.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, given = _shape(expected.get(name)), _shape(found.get(name))
            raise WeightsError(_misfit(name, wanted, given))
    generator.load_state_dict({k.removeprefix(GENERATOR): v for k, v in own.items()})
    generator.eval().requires_grad_(False)
    return Trained(settings, generator, vocabulary)


def _misfit(name: str, expected: str, found: str) -> str:
    return (
        f"weights of tb-gan: tensor {name!r}: expected {expected}, found {found}; use weights that "
        "were trained with these settings"
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"
