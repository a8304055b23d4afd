"""Last stages: the enlarging stage that generators share, or the published super-resolution GAN.

The shared stage doubles. Where images become four times larger, two networks double one after the
other, each trained by itself: one network that enlarges four times at once turns speckle into
threads (docs/dsr_gan.md has the figures).

`ClassicStage` trains the networks of Ledig et al. 2017 (arXiv:1609.04802) as published, for the
audit: mean squared error as content loss, one score a whole image.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan.classic_srgan import ClassicDiscriminator, ClassicEnlarger
from medisynth.models.dsr_gan.refining import new_refiner
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.enlarging.crop_training import STAGE, CropTraining, Part
from medisynth.models.enlarging.images import reduced_pixels
from medisynth.models.enlarging.networks import Enlarger
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.models.enlarging.stage import (
    EnlargingStage,
    enlarged,
    new_critic,
    new_enlarger,
    require_finite_images,
)
from medisynth.training.loop import Precision, accumulated_update, autocast, seeded_weights

Losses = tuple[dict[str, torch.Tensor], torch.Tensor]


def sides_of(settings: DsrGanSettings) -> tuple[int, ...]:
    """Side of the images that each network makes, in pixels, the final one last."""
    to = settings.super_resolution.to
    if settings.deviations.classic_srgan:
        return (to,)
    n_doublings = settings.factor.bit_length() - 1
    return tuple(to >> left for left in range(n_doublings - 1, -1, -1))


def stage_name(settings: DsrGanSettings, side: int) -> str:
    """Name of the stage that makes images of a side."""
    return STAGE if side == settings.super_resolution.to else f"{STAGE} to {side} px"


def super_resolution_stage(
    settings: DsrGanSettings,
    side: int,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
    precision: Precision,
) -> "EnlargingStage | ClassicStage":
    """The stage of the recipe that makes images of one of `sides_of`, before its first step."""
    if settings.deviations.classic_srgan:
        return ClassicStage(settings, training, tuning, context, precision)
    own, name = enlarging_settings(settings, side), stage_name(settings, side)
    views = [_at_side(view, side) for view in (training, tuning)]
    return EnlargingStage(own, 2, views[0], views[1], context, precision, name)


def enlarging_settings(settings: DsrGanSettings, side: int) -> EnlargingSettings:
    """Settings of the stage that makes images of a side, under these deviations."""
    own = settings.super_resolution
    schedule = "constant" if settings.deviations.constant_learning_rate else "half cosine"
    return own.model_copy(update={"schedule": schedule, "to": side, "crop": min(own.crop, side)})


def _at_side(view: ImageView, side: int) -> ImageView:
    if view.pixels.shape[-1] == side:
        return view
    return replace(view, pixels=reduced_pixels(view.pixels, side))


def untrained_enlarger(settings: DsrGanSettings, side: int) -> nn.Module:
    """A network to load the weights of a side into."""
    if settings.refining is not None and side == sides_of(settings)[0]:
        return new_refiner(settings.refining, seed=0)
    return new_networks(settings, side, seed=0)[0]


def new_networks(settings: DsrGanSettings, side: int, seed: int) -> tuple[nn.Module, nn.Module]:
    """Build generator and discriminator for a side with weights drawn from the seed."""
    own, deviations = enlarging_settings(settings, side), settings.deviations
    if not deviations.classic_srgan:
        return new_enlarger(own, 2, seed), new_critic(own, seed)
    with seeded_weights(seed, STAGE):
        broken = deviations.broken_residual_blocks
        enlarger = ClassicEnlarger(own.channels, own.blocks, settings.factor, broken=broken)
        discriminator = ClassicDiscriminator(own.discriminator_channels)
    for network in (enlarger, discriminator):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return enlarger, discriminator


@torch.no_grad()
def large_images(
    network: nn.Module, small: torch.Tensor, noise_of: Callable[[int], torch.Generator]
) -> torch.Tensor:
    """Enlarge by a trained network of either recipe; arguments and errors as `enlarged`."""
    if isinstance(network, Enlarger):
        return enlarged(network, small, noise_of)
    images: torch.Tensor = network(small)
    require_finite_images(images)
    return images.clamp(0, 1)


class ClassicStage(CropTraining):
    """Training of the published super-resolution GAN; fulfils `medisynth.training.loop.Stage`.

    Args of the constructor:
        settings: Settings of the whole generator, deviations included.
        training: Images of side `super_resolution.to`.
        tuning: Images of the same side.
        context: Seed and device.
        precision: Precision of training.
    """

    def __init__(
        self,
        settings: DsrGanSettings,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
    ) -> None:
        self._saturating = settings.deviations.saturating_discriminator_loss
        super().__init__(
            enlarging_settings(settings, settings.super_resolution.to),
            settings.factor,
            new_networks(settings, settings.super_resolution.to, context.seed),
            0,
            training,
            tuning,
            context,
            precision,
        )

    def _made(self, part: Part) -> torch.Tensor:
        with autocast(self._device, self._precision):
            return self.enlarger(part.small)

    def _drawn(self, small: torch.Tensor, purpose: str, first: int) -> torch.Tensor:
        return self.final(small)

    def _updates(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> dict[str, float]:
        values = self._update_discriminator(parts, made, step, share)
        return values | self._update_generator(parts, made, step, share)

    def _update_discriminator(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> dict[str, float]:
        def losses_of(number: int) -> Losses:
            part = parts[number]
            with torch.no_grad():
                fake = self._made(part) if made is None else made[number].detach()
            with autocast(self._device, self._precision):
                scores = self._scores(torch.cat([part.real, fake]))
            on_real, on_made = scores.chunk(2)
            if self._saturating:
                loss = 1 - on_real.mean() + on_made.mean()
            else:
                loss = functional.relu(1 - on_real).mean() + functional.relu(1 + on_made).mean()
            return {
                "discriminator loss": loss,
                "discriminator on real": on_real.mean(),
                "discriminator on synthetic": on_made.mean(),
            }, loss

        values = accumulated_update(
            self._optimisers["critic"],
            range(len(parts)),
            losses_of,
            stage=STAGE,
            step=step,
            rate=self._settings.discriminator_learning_rate * share,
        )
        values["discriminator gradient norm"] = values.pop("gradient norm")
        self._watch(step, values)
        return values

    def _update_generator(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> dict[str, float]:
        def losses_of(number: int) -> Losses:
            part = parts[number]
            fake = self._made(part) if made is None else made[number]
            content = functional.mse_loss(fake, part.real)
            with autocast(self._device, self._precision):
                score = self._scores(fake).mean()
            total = content - self._settings.adversarial_weight * score
            return {"generator loss": total, "content loss (squared)": content}, total

        # Frozen, so that no gradient of the discriminator's weights is computed in vain.
        self.discriminator.requires_grad_(False)
        values = accumulated_update(
            self._optimisers["enlarger"],
            range(len(parts)),
            losses_of,
            stage=STAGE,
            step=step,
            rate=self._settings.learning_rate * share,
        )
        self.discriminator.requires_grad_(True)
        return values

    def _scores(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.discriminator(images).float()
        return scores.sigmoid() if self._saturating else scores

    def _watch(self, step: int, values: Mapping[str, float]) -> None:
        # The published loss is blind by design; the audit wants to see it run.
        if not self._saturating:
            self._guard.observe(
                step,
                on_real=values["discriminator on real"],
                on_synthetic=values["discriminator on synthetic"],
                loss=values["discriminator loss"],
            )
