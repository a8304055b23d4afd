"""Drawing of whole images by index: random numbers, labels, generator, enlarger."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from governance.records.errors import TrainingError
from medisynth.data.reading.views import Pixels
from medisynth.generator import Condition
from medisynth.models.adversarial.images import to_pixels
from medisynth.models.conditioning import Vocabulary
from medisynth.models.enlarging.networks import EnlargingNetwork
from medisynth.models.enlarging.stage import enlarged
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.training.randomness import numpy_generator, torch_generator


@dataclass(frozen=True)
class Drawing:
    """Networks and labels that images are drawn with.

    Attributes:
        generator: The generator; averaged weights.
        vocabulary: Labels of the training images.
        enlarger: Network that doubles the side of the generator's images; None for none.
    """

    generator: StyleSwinGenerator
    vocabulary: Vocabulary
    enlarger: EnlargingNetwork | None

    @torch.no_grad()
    def pixels(
        self,
        indices: Sequence[int],
        condition: Condition,
        device: str,
        seed: int,
        *place: str | int,
    ) -> Pixels:
        """Draw images in fp32; image i depends on (seed, place, i) alone, up to rounding.

        Args:
            indices: Numbers of the images.
            condition: Plane and machine; labels left open are drawn as often as in training.
            device: torch device name, where the networks are.
            seed: Seed.
            place: Purpose of the images; each purpose has its own images.

        Returns:
            Shape (b, side, side), uint8.

        Raises:
            TrainingError: A network gave a value that is not finite.
        """
        numbers = numbers_of(indices, self.generator.n_numbers, device, seed, *place)
        labels = labels_of(indices, self.vocabulary, condition, device, seed, *place)
        images = self.generator(numbers, labels)
        if not bool(torch.isfinite(images).all()):
            raise TrainingError(
                "sampling: the generator gave values that are not finite, expected finite ones; "
                "train again with a lower learning_rate"
            )
        if self.enlarger is None:
            return to_pixels(images)

        def noise_of(row: int) -> torch.Generator:
            return torch_generator(device, seed, *place, "enlarging noise", indices[row])

        small = ((images + 1) / 2).clamp(0, 1)
        return to_pixels(2 * enlarged(self.enlarger, small, noise_of) - 1)


def numbers_of(
    indices: Sequence[int], n_numbers: int, device: str, seed: int, *place: str | int
) -> torch.Tensor:
    """Draw normal numbers (b, n_numbers); those of image i depend on (seed, place, i) alone."""
    rows = [
        torch.randn(n_numbers, generator=torch_generator("cpu", seed, *place, "latent", i))
        for i in indices
    ]
    return torch.stack(rows).to(device)


def labels_of(
    indices: Sequence[int],
    vocabulary: Vocabulary,
    condition: Condition,
    device: str,
    seed: int,
    *place: str | int,
) -> torch.Tensor | None:
    """Draw labels (b, 2), as often as in training where the condition leaves them open.

    Those of image i depend on (seed, place, i) alone; None where the generator is told none.
    """
    if not vocabulary.is_conditional:
        return None
    pairs = [
        vocabulary.drawn(condition, numpy_generator(seed, *place, "labels", i)) for i in indices
    ]
    return vocabulary.numbers(pairs, device)
