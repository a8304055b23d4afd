"""Batches of an update: images, labels, all random draws for them, and pseudo augmentation.

Adaptive pseudo augmentation (Jiang et al. 2021, arXiv:2111.06849): when the discriminator is too sure
of its training images, some of them are replaced by synthetic images labelled real, the more of them
the more it overfits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medisynth.data.reading.views import ImageView
from medisynth.models.adversarial.augment import Draws, draws_for
from medisynth.models.adversarial.images import HALF_SCALE, mirrored, to_signed
from medisynth.models.conditioning import Vocabulary
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training.loop import Order, in_parts, torch_generator, workers
from medisynth.training.randomness import numpy_generator


def moved_probability(
    probability: float,
    sign_on_real: float | None,
    *,
    target: float,
    batch_size: int,
    speed_images: int,
) -> float:
    """Return the probability of a pseudo-real image after one more batch.

    Args:
        probability: Now, 0 to 1.
        sign_on_real: Mean sign of the discriminator on training images, -1 to 1: the share it takes
            for real less the share it takes for synthetic. None when the batch had none.
        target: Value that `sign_on_real` should not pass.
        batch_size: Images in the batch.
        speed_images: Images in which the probability would move from 0 to 1.
    """
    if sign_on_real is None:
        return probability
    direction = (sign_on_real > target) - (sign_on_real < target)
    return min(1.0, max(0.0, probability + direction * batch_size / speed_images))


def pseudo_rows(
    probability: float, batch_size: int, seed: int, stage: str, step: int
) -> NDArray[np.bool_]:
    """Choose which images of a global batch become pseudo-real, each with `probability`."""
    drawn = numpy_generator(seed, stage, "pseudo-real", step).random(batch_size)
    return drawn < probability


@dataclass(frozen=True)
class Part:
    """Some images of a batch, with all random draws for them.

    Attributes:
        real: Training images, shape (b, 1, size, size), -1 to 1.
        labels: Numbers of plane and machine of the training images, shape (b, 2); synthetic images
            take the same. None where the networks are told none.
        numbers: Normal numbers of the synthetic images, shape (b, n_numbers).
        pseudo: Rows in which a pseudo-real image replaces the training image.
        pseudo_numbers: Normal numbers of the pseudo-real images, shape (pseudo rows, n_numbers).
        draws: Augmentation of real, of synthetic images, and of those in the generator's update.
    """

    real: torch.Tensor
    labels: torch.Tensor | None
    numbers: torch.Tensor
    pseudo: torch.Tensor
    pseudo_numbers: torch.Tensor
    draws: tuple[Draws, Draws, Draws]

    @property
    def pseudo_labels(self) -> torch.Tensor | None:
        """Labels of the pseudo-real images: those of the training images that they replace."""
        return None if self.labels is None else self.labels[self.pseudo]


class Batches:
    """The batches of one part of the schedule; batch k depends on (seed, part, k) alone.

    Args of the constructor:
        settings: Batch size, augmentation.
        name: Name of the part of the schedule.
        training: Its training images, of `settings.size`.
        vocabulary: Labels that the networks are told.
        n_numbers: Normal numbers that one synthetic image is made from.
        seed: Seed of the training.
        device: torch device name.
    """

    def __init__(
        self,
        settings: TbGanSettings,
        name: str,
        training: ImageView,
        vocabulary: Vocabulary,
        n_numbers: int,
        seed: int,
        device: str,
    ) -> None:
        self._settings, self._name, self._n_numbers = settings, name, n_numbers
        self._seed, self._device = seed, device
        self._pixels = training.pixels
        pairs = list(zip(training.planes, training.machines, strict=True))
        self._labels = vocabulary.numbers(pairs, device)
        self._order = Order(len(training), settings.batch_size, seed, name)

    def parts(self, step: int, pseudo_probability: float) -> list[Part]:
        """Draw this process's share of a batch, cut into parts for gradient accumulation."""
        n, group = self._settings.batch_size, workers()
        pairs = group.share(self._order.batch(step))
        rows = [index for _, index in pairs]
        pixels = self._pixels[rows]
        if self._settings.flip:
            pixels = mirrored(pixels, pairs, self._seed, self._name)
        real = to_signed(pixels, self._device)
        if self._settings.dequantisation:
            real = real + self._dequantisation(step)
        drawn_rows = pseudo_rows(pseudo_probability, n, self._seed, self._name, step)
        pseudo = np.asarray(group.share(drawn_rows), dtype=np.bool_)
        numbers = self._normal("latent", step)
        others = self._normal("pseudo-real latent", step) if pseudo.any() else numbers
        labels = None if self._labels is None else self._labels[rows]
        parts = []
        for cut in in_parts(list(range(len(pairs))), self._settings.accumulate):
            own = slice(cut[0], cut[-1] + 1)
            chosen = torch.from_numpy(np.flatnonzero(pseudo[own])).to(self._device)
            parts.append(
                Part(
                    real[own],
                    None if labels is None else labels[own],
                    numbers[own],
                    chosen,
                    others[own][chosen],
                    (
                        self._draws("real", step, own),
                        self._draws("synthetic", step, own),
                        self._draws("generator", step, own),
                    ),
                )
            )
        return parts

    def _normal(self, what: str, step: int) -> torch.Tensor:
        generator = torch_generator("cpu", self._seed, self._name, what, step)
        shape = (self._settings.batch_size, self._n_numbers)
        numbers = torch.randn(shape, generator=generator)
        return workers().share(numbers).to(self._device)

    def _dequantisation(self, step: int) -> torch.Tensor:
        """Uniform noise in place of the fractions lost by rounding to whole grey levels."""
        generator = torch_generator("cpu", self._seed, self._name, "dequantisation", step)
        shape = (self._settings.batch_size, 1, *self._pixels.shape[1:])
        noise = workers().share(torch.rand(shape, generator=generator))
        return (noise * (self._settings.dequantisation / HALF_SCALE)).to(self._device)

    def _draws(self, what: str, step: int, rows: slice) -> Draws:
        place = (self._seed, self._name, "augmentation", step, what)
        return draws_for(self._settings.batch_size, self._device, workers(), *place, rows=rows)
