"""Last stage: a super-resolution GAN after Ledig et al. 2017 (arXiv:1609.04802).

L1 content on pixels in place of features of a network for photographs, and a hinge loss on patches
in place of a sigmoid on the whole image; the published losses are behind their switches.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medisynth.data.views import ImageView, Pixels
from medisynth.generator import Tensors, TrainingContext
from medisynth.models.dsr_gan.batches import crop_of, reduced, to_pixels, to_unit
from medisynth.models.dsr_gan.enlarging_networks import (
    ClassicDiscriminator,
    ClassicEnlarger,
    Discriminator,
    Enlarger,
)
from medisynth.models.dsr_gan.settings import DsrGanSettings
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
N_TUNING_IMAGES = 64
N_PREVIEWED = 8
ROWS_AT_ONCE = 16

Part = tuple[torch.Tensor, torch.Tensor]  # real crops and what the generator is given of them
Losses = tuple[dict[str, torch.Tensor], torch.Tensor]


def new_networks(settings: DsrGanSettings, seed: int) -> tuple[nn.Module, nn.Module]:
    """Build generator and discriminator with weights drawn from the seed."""
    own, deviations = settings.super_resolution, settings.deviations
    broken = deviations.broken_residual_blocks
    enlarger: nn.Module
    discriminator: nn.Module
    with seeded_weights(seed, STAGE):
        if deviations.classic_srgan:
            enlarger = ClassicEnlarger(own.channels, own.blocks, settings.factor, broken=broken)
            discriminator = ClassicDiscriminator(own.discriminator_channels)
        else:
            enlarger = Enlarger(own.channels, own.blocks, settings.factor, broken=broken)
            discriminator = Discriminator(own.discriminator_channels)
    for network in (enlarger, discriminator):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return enlarger, discriminator


def speckled(small: torch.Tensor, noise: torch.Tensor, level: float) -> torch.Tensor:
    """Add noise that grows with brightness.

    A network that maps one small image to one large image can only smear speckle, which is random.
    Noise gives it something to make speckle of, and hides what samples lack of real images. As
    speckle does, it grows with the signal, so that black stays black.

    Args:
        small: Images, 0 to 1.
        noise: Standard normal noise of the same shape.
        level: Standard deviation where the image is white.
    """
    return (small + level * small.sqrt() * noise).clamp(0, 1)


class SuperResolutionStage:
    """Training of the super-resolution GAN on crops of training images.

    Attributes:
        name: "super-resolution".
        n_steps: Updates of each network.
        batch_size: Crops an update, over all processes together.
        enlarger: The generator.
        discriminator: The discriminator.
    """

    name = STAGE

    def __init__(
        self,
        settings: DsrGanSettings,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
    ) -> None:
        own = settings.super_resolution
        self.n_steps, self.batch_size = own.steps, own.batch_size
        self._settings, self._deviations = own, settings.deviations
        self._factor = settings.factor
        self._seed, self._device = context.seed, context.compute_device
        self._precision: Precision = precision
        self._pixels = training.pixels
        self._order = Order(len(training), own.batch_size, context.seed, STAGE)
        enlarger, discriminator = new_networks(settings, context.seed)
        self.enlarger = workers().wrap(enlarger.to(self._device))
        self.discriminator = workers().wrap(discriminator.to(self._device))
        self._averaged = averaged(self.enlarger, own.ema)
        self._guard = DiscriminatorGuard(STAGE)
        self._optimisers = {
            name: torch.optim.AdamW(
                network.parameters(), betas=(0.5, 0.99), weight_decay=0.0, fused=True
            )
            for name, network in (("enlarger", self.enlarger), ("critic", self.discriminator))
        }
        n = min(len(tuning), N_TUNING_IMAGES)
        rows = np.linspace(0, len(tuning) - 1, n).round().astype(int)
        self._tuning = tuning.pixels[rows]

    @property
    def final(self) -> nn.Module:
        """The averaged generator."""
        return self._averaged.module.eval()

    def step(self, step: int) -> Mapping[str, float]:
        """Update the discriminator, once it takes part, and then the generator."""
        settings = self._settings
        share = learning_rate(1.0, step, settings.steps, 0)
        if self._deviations.constant_learning_rate:
            share = 1.0
        rate = settings.learning_rate * share
        parts = self._parts(step)
        # Kept from the discriminator's update for the generator's, where one part is all there is.
        made = [self._made(small) for _, small in parts] if len(parts) == 1 else None
        adversarial = step >= settings.content_only_steps and settings.adversarial_weight > 0
        values: dict[str, float] = {}
        if adversarial:
            faster = settings.discriminator_learning_rate * share
            values |= self._update_discriminator(parts, made, step, faster)
        values |= self._update_generator(parts, made, step, rate, adversarial=adversarial)
        self._averaged.update_parameters(self.enlarger)
        return {**values, "learning rate": rate}

    @torch.no_grad()
    def evaluate(self, step: int) -> Mapping[str, float]:
        """Measure the content loss of the averaged generator on whole tuning images."""
        network = self.final
        parts, plain = [], []
        for start in range(0, len(self._tuning), ROWS_AT_ONCE):
            real = to_unit(self._tuning[start : start + ROWS_AT_ONCE], self._device)
            small = reduced(real, real.shape[-1] // self._factor)
            smooth = functional.interpolate(
                small, scale_factor=float(self._factor), mode="bilinear", align_corners=False
            )
            parts.append((float(functional.l1_loss(network(small), real)), len(real)))
            plain.append((float(functional.l1_loss(smooth, real)), len(real)))
        values = {
            "tuning content loss": mean_of(parts),
            "tuning content loss of bilinear enlargement": mean_of(plain),
        }
        require_finite(values, stage=STAGE, step=step - 1)
        return values

    @torch.no_grad()
    def preview(self) -> Pixels:
        """A few tuning images, reduced and enlarged again, shape (n, size, size), uint8.

        Raises:
            TrainingError: After half of the steps or later, the images are all but one image.
        """
        real = to_unit(self._tuning[:N_PREVIEWED], self._device)
        small = reduced(real, real.shape[-1] // self._factor)
        generator = torch_generator(self._device, self._seed, STAGE, "preview")
        noise = torch.randn(small.shape, device=self._device, generator=generator)
        images = to_pixels(self.final(speckled(small, noise, self._settings.speckle_in_sampling)))
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

    def _parts(self, step: int) -> list[Part]:
        """This process's crops and their speckled reductions, cut into micro-batches."""
        share, n_parts = workers().share, self._settings.accumulate
        real = self._crops(share(self._order.batch(step)))
        side = self._settings.crop // self._factor
        generator = torch_generator(self._device, self._seed, STAGE, "noise", step)
        shape = (self.batch_size, 1, side, side)
        noise = share(torch.randn(shape, device=self._device, generator=generator))
        small = speckled(reduced(real, side), noise, self._settings.speckle)
        return list(zip(in_parts(real, n_parts), in_parts(small, n_parts), strict=True))

    def _crops(self, places: list[tuple[int, int]]) -> torch.Tensor:
        side, multiple = self._settings.crop, self._factor
        crops = [
            crop_of(self._pixels[index], side, multiple, self._seed, STAGE, epoch, index)
            for epoch, index in places
        ]
        return to_unit(np.stack(crops), self._device)

    def _made(self, small: torch.Tensor) -> torch.Tensor:
        with autocast(self._device, self._precision):
            return self.enlarger(small)

    def _update_discriminator(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, rate: float
    ) -> dict[str, float]:
        def losses_of(number: int) -> Losses:
            real, small = parts[number]
            with torch.no_grad():
                fake = self._made(small) if made is None else made[number].detach()
            with autocast(self._device, self._precision):
                scores = self._scores(torch.cat([real, fake]))
            on_real, on_made = scores.chunk(2)
            if self._deviations.saturating_discriminator_loss:
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
            rate=rate,
        )
        values["discriminator gradient norm"] = values.pop("gradient norm")
        self._watch(step, values)
        return values

    def _update_generator(
        self,
        parts: list[Part],
        made: list[torch.Tensor] | None,
        step: int,
        rate: float,
        *,
        adversarial: bool,
    ) -> dict[str, float]:
        def losses_of(number: int) -> Losses:
            real, small = parts[number]
            fake = self._made(small) if made is None else made[number]
            content = self._content(fake, real)
            total = content
            if adversarial:
                # Frozen, so that no gradient of the discriminator's weights is computed in vain.
                self.discriminator.requires_grad_(False)
                with autocast(self._device, self._precision):
                    score = self._scores(fake).mean()
                self.discriminator.requires_grad_(True)
                total = content - self._settings.adversarial_weight * score
            return {"generator loss": total, f"content loss ({self._content_name})": content}, total

        return accumulated_update(
            self._optimisers["enlarger"],
            range(len(parts)),
            losses_of,
            stage=STAGE,
            step=step,
            rate=rate,
        )

    @property
    def _content_name(self) -> str:
        return "squared" if self._deviations.classic_srgan else "L1"

    def _content(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        if self._deviations.classic_srgan:
            return functional.mse_loss(made, real)
        return functional.l1_loss(made, real)

    def _scores(self, images: torch.Tensor) -> torch.Tensor:
        scores = self.discriminator(images).float()
        return scores.sigmoid() if self._deviations.saturating_discriminator_loss else scores

    def _watch(self, step: int, values: Mapping[str, float]) -> None:
        # The published loss is blind by design; the audit wants to see it run.
        if not self._deviations.saturating_discriminator_loss:
            self._guard.observe(
                step,
                on_real=values["discriminator on real"],
                on_synthetic=values["discriminator on synthetic"],
                loss=values["discriminator loss"],
            )
