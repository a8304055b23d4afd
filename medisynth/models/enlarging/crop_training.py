"""Training of an enlarging network on crops, common to all such stages but for the updates."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Tensors, TrainingContext
from medisynth.models.enlarging.images import (
    bilinear,
    blurred,
    crop_of,
    reduced,
    to_pixels,
    to_unit,
)
from medisynth.models.enlarging.networks import EnlargingNetwork
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.training.loop import (
    DiscriminatorGuard,
    Order,
    Precision,
    averaged,
    gather_state,
    in_parts,
    learning_rate,
    mean_of,
    pairwise_distance,
    require_diverse,
    require_finite,
    restore_state,
    torch_generator,
    workers,
)

STAGE = "super-resolution"
BETAS = (0.5, 0.99)
N_TUNING_IMAGES = 64
N_PREVIEWED = 8
ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Part:
    """Some crops of a batch.

    Attributes:
        real: Crops of training images, shape (b, 1, crop, crop), 0 to 1.
        small: Their reductions, shape (b, 1, crop / factor, crop / factor).
        smooth: The bilinear enlargements of those, as large as the crops.
        noise: Noise for the generator, shape (b, values of one crop).
    """

    real: torch.Tensor
    small: torch.Tensor
    smooth: torch.Tensor
    noise: torch.Tensor


class CropTraining(ABC):
    """Training of a generator and a discriminator on crops; fulfils `medisynth.training.loop.Stage`.

    Args of the constructor:
        settings: Settings of the stage.
        factor: How many times larger the images become, per side.
        networks: Generator and discriminator, before training.
        n_noise: Noise values that the generator needs for one crop.
        training: Images of side `settings.to`.
        tuning: Images of the same side.
        context: Seed and device.
        precision: Precision of training.
        name: Name of the stage; a generator with several gives each its own.

    Attributes:
        name: Name of the stage.
        n_steps: Updates of each network.
        batch_size: Crops an update, over all processes together.
        enlarger: The generator in training.
        discriminator: The discriminator.
    """

    def __init__(
        self,
        settings: EnlargingSettings,
        factor: int,
        networks: tuple[EnlargingNetwork, nn.Module],
        n_noise: int,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
        name: str = STAGE,
    ) -> None:
        self.name = name
        self.n_steps, self.batch_size = settings.steps, settings.batch_size
        self._settings, self._factor, self._n_noise = settings, factor, n_noise
        self._seed, self._device = context.seed, context.compute_device
        self._precision: Precision = precision
        self._pixels = training.pixels
        self._order = Order(len(training), settings.batch_size, context.seed, self.name)
        self.enlarger, self.discriminator = (
            workers().wrap(network.to(self._device)) for network in networks
        )
        self._averaged = averaged(self.enlarger, settings.ema)
        self._guard = DiscriminatorGuard(self.name)
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), betas=BETAS, fused=True)
            for name, network in (("enlarger", self.enlarger), ("critic", self.discriminator))
        }
        n = min(len(tuning), N_TUNING_IMAGES)
        rows = np.linspace(0, len(tuning) - 1, n).round().astype(int)
        self._tuning = tuning.pixels[rows]

    @abstractmethod
    def _made(self, part: Part) -> torch.Tensor:
        """Enlarge crops with the generator in training, gradients kept."""

    @abstractmethod
    def _updates(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> dict[str, float]:
        """Update discriminator and generator.

        Args:
            parts: This process's crops in micro-batches.
            made: The generator's enlargement of each, where it is kept for both updates.
            step: Step, 0 is the first.
            share: Share of the largest learning rates.
        """

    @abstractmethod
    def _drawn(self, small: torch.Tensor, purpose: str, first: int) -> torch.Tensor:
        """Enlarge images with the averaged generator, (b, 1, h, w) to (b, 1, size, size).

        Args:
            small: Images, 0 to 1.
            purpose: Purpose of the images; each purpose has its own noise.
            first: Number of the first image.
        """

    @property
    def final(self) -> EnlargingNetwork:
        """Return the averaged generator."""
        return cast(EnlargingNetwork, self._averaged.module.eval())

    def step(self, step: int) -> Mapping[str, float]:
        """Update the discriminator, then the generator, then its average."""
        share = 1.0
        if self._settings.schedule == "half cosine":
            share = learning_rate(1.0, step, self.n_steps, 0)
        parts = self._parts(step)
        # Kept with their gradients to serve both updates; made again where the batch is cut to
        # save memory.
        made = [self._made(part) for part in parts] if len(parts) == 1 else None
        values = self._updates(parts, made, step, share)
        self._averaged.update_parameters(self.enlarger)
        return {**values, "learning rate": self._settings.learning_rate * share}

    @torch.no_grad()
    def evaluate(self, step: int) -> Mapping[str, float]:
        """Measure L1 distances of enlarged tuning images to real ones, at full and small size."""
        distances: dict[str, list[tuple[float, int]]] = {}
        for first in range(0, len(self._tuning), ROWS_AT_ONCE):
            real = to_unit(self._tuning[first : first + ROWS_AT_ONCE], self._device)
            small = self._reduced(real)
            large, smooth = self._drawn(small, "evaluation", first), bilinear(small, self._factor)
            for name, one, other in (
                ("tuning content loss", large, real),
                ("tuning content loss of bilinear enlargement", smooth, real),
                ("tuning content loss of the reduced image", self._reduced(large), small),
            ):
                found = float(functional.l1_loss(one, other))
                distances.setdefault(name, []).append((found, len(real)))
        values = {name: mean_of(parts) for name, parts in distances.items()}
        require_finite(values, stage=self.name, step=step - 1)
        return values

    @torch.no_grad()
    def preview(self) -> Pixels:
        """Reduce a few tuning images and enlarge them again, shape (n, size, size), uint8.

        Raises:
            TrainingError: After half of the steps or later, the images are all but one image.
        """
        small = self._reduced(to_unit(self._tuning[:N_PREVIEWED], self._device))
        images = to_pixels(self._drawn(small, "preview", 0))
        n_updates = int(self._averaged.n_averaged)
        if len(images) > 1 and 2 * n_updates >= self.n_steps:
            distance = pairwise_distance(self._tuning[:N_PREVIEWED])
            require_diverse(images, self.name, n_updates, real_distance=distance)
        return images

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that training changes, as tensors and JSON facts."""
        tensors = gather_state(self._modules(), self._optimisers)
        return tensors, {"precision": self._precision, "discriminator": self._guard.facts()}

    def load_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        restore_state(self._modules(), self._optimisers, tensors)
        self._guard.restore(facts["discriminator"])

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "enlarger": self.enlarger,
            "discriminator": self.discriminator,
            "average": self._averaged,
        }

    def _reduced(self, large: torch.Tensor) -> torch.Tensor:
        return reduced(large, large.shape[-1] // self._factor)

    def _parts(self, step: int) -> list[Part]:
        """This process's crops, their reductions and noise, cut into micro-batches."""
        share, n_parts = workers().share, self._settings.accumulate
        real = self._crops(share(self._order.batch(step)))
        small = self._disturbed(self._reduced(real), step)
        generator = torch_generator(self._device, self._seed, self.name, "noise", step)
        shape = (self.batch_size, self._n_noise)
        noise = share(torch.randn(shape, device=self._device, generator=generator))
        whole = (real, small, bilinear(small, self._factor), noise)
        cut = zip(*(in_parts(tensor, n_parts) for tensor in whole), strict=True)
        return [Part(*tensors) for tensors in cut]

    def _disturbed(self, small: torch.Tensor, step: int) -> torch.Tensor:
        """Blur small crops and add grain, by amounts drawn for the step."""
        own, place = self._settings, (self._seed, self.name, "disturbance", step)
        generator = torch_generator(self._device, *place)
        n, device = self.batch_size, self._device
        blur, grain = torch.rand(2, n, 1, 1, 1, device=device, generator=generator)
        noise = torch.randn((n, *small.shape[1:]), device=device, generator=generator)
        if own.blur_px > 0:
            small = blurred(small, float(blur[0]) * own.blur_px)
        if own.grain > 0:
            share = workers().share
            small = (small * (1 + own.grain * share(grain) * share(noise))).clamp(0, 1)
        return small

    def _crops(self, places: list[tuple[int, int]]) -> torch.Tensor:
        side, multiple = self._settings.crop, self._factor
        crops = [
            crop_of(self._pixels[index], side, multiple, self._seed, self.name, epoch, index)
            for epoch, index in places
        ]
        return to_unit(np.stack(crops), self._device)
