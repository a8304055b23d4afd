"""Training of the enlarging stage on crops of training images, and enlarging with its result.

The adversarial loss is relativistic (Jolicoeur-Martineau 2018, arXiv:1807.00734; with softplus as in
Huang et al. 2024, arXiv:2501.05441): each crop is paired with its own enlargement, patch by patch,
so the critic learns which of the two is real and not how real crops look on average.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from governance.records.errors import TrainingError
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.enlarging.crop_training import ROWS_AT_ONCE, STAGE, CropTraining, Part
from medisynth.models.enlarging.networks import Enlarger, EnlargingNetwork, PatchCritic
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.training.loop import (
    Precision,
    accumulated_update,
    autocast,
    seeded_weights,
    torch_generator,
)

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
    network: EnlargingNetwork, small: torch.Tensor, noise_of: Callable[[int], torch.Generator]
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

    Raises:
        TrainingError: A value is not finite.
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
    images = torch.cat(parts)
    if not bool(torch.isfinite(images).all()):
        raise TrainingError(
            f"the {STAGE} network gave values that are not finite, expected finite ones; train "
            f"again with a lower learning_rate of the {STAGE} stage"
        )
    return images.clamp(0, 1)


class EnlargingStage(CropTraining):
    """Training of enlarger and patch critic; fulfils `medisynth.training.loop.Stage`.

    Args of the constructor:
        settings: Settings of the stage.
        factor: How many times larger the images become, per side: 2, 4 or 8.
        training: Images of side `settings.to`.
        tuning: Images of the same side.
        context: Seed and device.
        precision: Precision of training.
        name: Name of the stage; a generator with several gives each its own.
    """

    def __init__(
        self,
        settings: EnlargingSettings,
        factor: int,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
        name: str = STAGE,
    ) -> None:
        enlarger = new_enlarger(settings, factor, context.seed)
        critic = new_critic(settings, context.seed)
        side = settings.crop // factor
        n_noise = enlarger.n_noise(side, side)
        super().__init__(
            settings,
            factor,
            (enlarger, critic),
            n_noise,
            training,
            tuning,
            context,
            precision,
            name,
        )

    def _drawn(self, small: torch.Tensor, purpose: str, first: int) -> torch.Tensor:
        def noise_of(row: int) -> torch.Generator:
            return torch_generator(self._device, self._seed, self.name, purpose, first + row)

        return enlarged(self.final, small, noise_of)

    def _updates(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> dict[str, float]:
        values = self._update_discriminator(parts, made, step, share)
        return values | self._update_generator(parts, made, step, share)

    def _made(self, part: Part) -> torch.Tensor:
        with autocast(self._device, self._precision):
            return self.enlarger(part.small, part.noise)

    def _scores(self, images: torch.Tensor, smooth: torch.Tensor) -> Scores:
        with autocast(self._device, self._precision):
            return self.discriminator(images, smooth)

    def _update_discriminator(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> dict[str, float]:
        def losses_of(number: int) -> Losses:
            part = parts[number]
            with torch.no_grad():
                fake = self._made(part) if made is None else made[number].detach()
            both = self._scores(torch.cat([part.real, fake]), torch.cat([part.smooth] * 2))
            on_real, on_made = zip(*(scores.chunk(2) for scores in both), strict=True)
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
            stage=self.name,
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
        return values

    def _update_generator(
        self, parts: list[Part], made: list[torch.Tensor] | None, step: int, share: float
    ) -> dict[str, float]:
        own = self._settings

        def losses_of(number: int) -> Losses:
            part = parts[number]
            fake = self._made(part) if made is None else made[number]
            content = functional.l1_loss(fake, part.real)
            kept = functional.l1_loss(self._reduced(fake), part.small)
            # Scored anew: what an update adds to all scores alike cancels only within one critic.
            with torch.no_grad():
                on_real = self._scores(part.real, part.smooth)
            adversarial = _relativistic(self._scores(fake, part.smooth), on_real)
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
            stage=self.name,
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
