"""Training of the enlarging stage on crops of training images, and enlarging with its result.

The adversarial loss is relativistic (Jolicoeur-Martineau 2018, arXiv:1807.00734; with softplus as in
Huang et al. 2024, arXiv:2501.05441): each crop is paired with its own enlargement, patch by patch,
so the critic learns which of the two is real and not how real crops look on average.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medisynth.data.views import ImageView, Pixels
from medisynth.generator import Tensors, TrainingContext
from medisynth.models.enlarging.images import bilinear, crop_of, reduced, to_pixels, to_unit
from medisynth.models.enlarging.networks import Enlarger, PatchCritic
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.training import (
    DiscriminatorGuard,
    Order,
    Precision,
    accumulated_update,
    autocast,
    averaged,
    gather_state,
    in_parts,
    learning_rate,
    mean_of,
    pairwise_distance,
    require_diverse,
    require_finite,
    restore_state,
    seeded_weights,
    torch_generator,
    workers,
)

STAGE = "super-resolution"
BETAS = (0.5, 0.99)
N_TUNING_IMAGES = 64
N_PREVIEWED = 8
ROWS_AT_ONCE = 16

Losses = tuple[dict[str, torch.Tensor], torch.Tensor]
Scores = tuple[torch.Tensor, ...]  # of each patch size


def new_enlarger(settings: EnlargingSettings, factor: int, seed: int) -> Enlarger:
    """Build the generator with weights drawn from the seed."""
    with seeded_weights(seed, STAGE):
        enlarger = Enlarger(settings.channels, settings.blocks, factor)
    enlarger.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return enlarger


def new_critic(settings: EnlargingSettings, seed: int) -> PatchCritic:
    """Build the discriminator with weights drawn from the seed."""
    with seeded_weights(seed, f"{STAGE} discriminator"):
        critic = PatchCritic(settings.discriminator_channels)
    critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return critic


@torch.no_grad()
def enlarged(
    network: Enlarger, small: torch.Tensor, noise_of: Callable[[int], torch.Generator]
) -> torch.Tensor:
    """Enlarge images, each with noise of its own, in fp32.

    Args:
        network: The generator, on the device of the images.
        small: Shape (b, 1, h, w), 0 to 1.
        noise_of: Row of `small` to a fresh generator on that device, e.g. `torch_generator(device,
            seed, "sampling", "enlarging noise", index)` with the image's index in the whole sample,
            so that an image meets the same noise however images are batched.

    Returns:
        Shape (b, 1, factor x h, factor x w), 0 to 1.
    """
    n_noise = network.n_noise(*small.shape[2:])
    parts = []
    for first in range(0, len(small), ROWS_AT_ONCE):
        part = small[first : first + ROWS_AT_ONCE]
        noise = torch.stack(
            [
                torch.randn(n_noise, device=small.device, generator=noise_of(first + row))
                for row in range(len(part))
            ]
        )
        parts.append(network(part, noise))
    return torch.cat(parts).clamp(0, 1)


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


class EnlargingStage:
    """Training of generator and discriminator; fulfils `medisynth.training.Stage`.

    Attributes:
        name: "super-resolution".
        n_steps: Updates of each network.
        batch_size: Crops an update, over all processes together.
        enlarger: The generator in training.
        discriminator: The discriminator.
    """

    name = STAGE

    def __init__(
        self,
        settings: EnlargingSettings,
        factor: int,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
    ) -> None:
        self.n_steps, self.batch_size = settings.steps, settings.batch_size
        self._settings, self._factor = settings, factor
        self._seed, self._device = context.seed, context.compute_device
        self._precision: Precision = precision
        self._pixels = training.pixels
        self._order = Order(len(training), settings.batch_size, context.seed, STAGE)
        enlarger = new_enlarger(settings, factor, context.seed).to(self._device)
        critic = new_critic(settings, context.seed).to(self._device)
        side = settings.crop // factor
        self._n_noise = enlarger.n_noise(side, side)
        self.enlarger, self.discriminator = workers().wrap(enlarger), workers().wrap(critic)
        self._averaged = averaged(self.enlarger, settings.ema)
        self._guard = DiscriminatorGuard(STAGE)
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), betas=BETAS, fused=True)
            for name, network in (("enlarger", self.enlarger), ("critic", self.discriminator))
        }
        n = min(len(tuning), N_TUNING_IMAGES)
        rows = np.linspace(0, len(tuning) - 1, n).round().astype(int)
        self._tuning = tuning.pixels[rows]

    @property
    def final(self) -> Enlarger:
        """The averaged generator."""
        return cast(Enlarger, self._averaged.module).eval()

    def step(self, step: int) -> Mapping[str, float]:
        """Update the discriminator, then the generator, then its average."""
        share = learning_rate(1.0, step, self.n_steps, 0)
        parts = self._parts(step)
        # Kept with their gradients, they serve both updates. Parts of a batch are cut to save
        # memory, so there they are made again.
        made = [self._made(part) for part in parts] if len(parts) == 1 else None
        values, on_real = self._update_discriminator(parts, made, step, share)
        values |= self._update_generator(parts, made, on_real, step, share)
        self._averaged.update_parameters(self.enlarger)
        return {**values, "learning rate": self._settings.learning_rate * share}

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Measure on whole tuning images what the averaged generator changes and what it keeps."""
        distances: dict[str, list[tuple[float, int]]] = {}
        for first in range(0, len(self._tuning), ROWS_AT_ONCE):
            real = to_unit(self._tuning[first : first + ROWS_AT_ONCE], self._device)
            small = reduced(real, real.shape[-1] // self._factor)
            large = self._drawn(small, "evaluation", first)
            for name, one, other in (
                ("tuning content loss", large, real),
                ("tuning content loss of bilinear enlargement", self._bilinear(small), real),
                ("tuning content loss of the reduced image", self._reduced(large), small),
            ):
                found = float(functional.l1_loss(one, other))
                distances.setdefault(name, []).append((found, len(real)))
        values = {name: mean_of(parts) for name, parts in distances.items()}
        require_finite(values, stage=STAGE, step=step - 1)
        return values

    def preview(self) -> Pixels:
        """A few tuning images, reduced and enlarged again, shape (n, size, size), uint8.

        Raises:
            TrainingError: After half of the steps or later, the images are all but one image.
        """
        real = to_unit(self._tuning[:N_PREVIEWED], self._device)
        small = reduced(real, real.shape[-1] // self._factor)
        images = to_pixels(self._drawn(small, "preview", 0))
        n_updates = int(self._averaged.n_averaged)
        if len(images) > 1 and 2 * n_updates >= self.n_steps:
            distance = pairwise_distance(self._tuning[:N_PREVIEWED])
            require_diverse(images, STAGE, n_updates, real_distance=distance)
        return images

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that training changes."""
        tensors = gather_state(self._modules(), self._optimisers)
        return tensors, {"precision": self._precision, "discriminator": self._guard.facts()}

    def load_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

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

    def _drawn(self, small: torch.Tensor, purpose: str, first: int) -> torch.Tensor:
        def noise_of(row: int) -> torch.Generator:
            return torch_generator(self._device, self._seed, STAGE, purpose, first + row)

        return enlarged(self.final, small, noise_of)

    def _bilinear(self, small: torch.Tensor) -> torch.Tensor:
        return bilinear(small, self._factor)

    def _reduced(self, large: torch.Tensor) -> torch.Tensor:
        return reduced(large, large.shape[-1] // self._factor)

    def _parts(self, step: int) -> list[Part]:
        """This process's crops, their reductions and noise, cut into micro-batches."""
        share, n_parts = workers().share, self._settings.accumulate
        real = self._crops(share(self._order.batch(step)))
        small = self._reduced(real)
        generator = torch_generator(self._device, self._seed, STAGE, "noise", step)
        shape = (self.batch_size, self._n_noise)
        noise = share(torch.randn(shape, device=self._device, generator=generator))
        whole = (real, small, self._bilinear(small), noise)
        cut = zip(*(in_parts(tensor, n_parts) for tensor in whole), strict=True)
        return [Part(*tensors) for tensors in cut]

    def _crops(self, places: list[tuple[int, int]]) -> torch.Tensor:
        side, multiple = self._settings.crop, self._factor
        crops = [
            crop_of(self._pixels[index], side, multiple, self._seed, STAGE, epoch, index)
            for epoch, index in places
        ]
        return to_unit(np.stack(crops), self._device)

    def _made(self, part: Part) -> torch.Tensor:
        with autocast(self._device, self._precision):
            return self.enlarger(part.small, part.noise)

    def _scores(self, images: torch.Tensor, smooth: torch.Tensor) -> Scores:
        with autocast(self._device, self._precision):
            return self.discriminator(images, smooth)

    def _update_discriminator(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> tuple[dict[str, float], list[Scores]]:
        """Make the update; return its numbers and the scores of the real crops, part by part."""
        kept: list[Scores] = []

        def losses_of(number: int) -> Losses:
            part = parts[number]
            with torch.no_grad():
                fake = self._made(part) if made is None else made[number].detach()
            both = self._scores(torch.cat([part.real, fake]), torch.cat([part.smooth] * 2))
            on_real, on_made = zip(*(scores.chunk(2) for scores in both), strict=True)
            kept.append(tuple(scores.detach() for scores in on_real))
            loss = _relativistic(on_real, on_made)
            penalty = _mean([scores.square() for scores in both])
            return {
                "discriminator loss": loss,
                "discriminator on real": _mean(on_real),
                "discriminator on synthetic": _mean(on_made),
            }, loss + self._settings.logit_penalty * penalty

        values = accumulated_update(
            self._optimisers["critic"],
            range(len(parts)),
            losses_of,
            stage=STAGE,
            step=step,
            rate=self._settings.discriminator_learning_rate * share,
        )
        values["discriminator gradient norm"] = values.pop("gradient norm")
        self._guard.observe(
            step,
            on_real=values["discriminator on real"],
            on_synthetic=values["discriminator on synthetic"],
            loss=values["discriminator loss"],
        )
        return values, kept

    def _update_generator(
        self,
        parts: list[Part],
        made: list[torch.Tensor] | None,
        on_real: list[Scores],
        step: int,
        share: float,
    ) -> dict[str, float]:
        own = self._settings

        def losses_of(number: int) -> Losses:
            part = parts[number]
            fake = self._made(part) if made is None else made[number]
            content = functional.l1_loss(fake, part.real)
            kept = functional.l1_loss(self._reduced(fake), part.small)
            # The real crops' scores are those of the update before: they cost no second pass.
            adversarial = _relativistic(self._scores(fake, part.smooth), on_real[number])
            total = (
                own.content_weight * content
                + own.reduced_weight * kept
                + own.adversarial_weight * adversarial
            )
            return {
                "generator loss": total,
                "content loss (L1)": content,
                "content loss of the reduced image (L1)": kept,
                "adversarial loss": adversarial,
            }, total

        # Frozen, so that no gradient of the discriminator's weights is computed in vain.
        self.discriminator.requires_grad_(False)
        values = accumulated_update(
            self._optimisers["enlarger"],
            range(len(parts)),
            losses_of,
            stage=STAGE,
            step=step,
            rate=own.learning_rate * share,
        )
        self.discriminator.requires_grad_(True)
        return values


def _relativistic(higher: Scores, lower: Scores) -> torch.Tensor:
    """Softplus loss that is small where each patch of `higher` scores above that of `lower`."""
    pairs = zip(higher, lower, strict=True)
    return _mean([functional.softplus(other - one) for one, other in pairs])


def _mean(scores: Scores | list[torch.Tensor]) -> torch.Tensor:
    """Mean over the patch sizes of the mean over patches, so that both sizes weigh the same."""
    return torch.stack([each.mean() for each in scores]).mean()
