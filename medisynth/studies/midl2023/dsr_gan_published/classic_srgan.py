"""The published super-resolution GAN, after Ledig et al. 2017 (arXiv:1609.04802).

Its content loss is the mean squared error; its discriminator gives one score a whole image.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.enlarging.crop_training import STAGE, CropTraining, Part
from medisynth.models.enlarging.networks import EnlargingNetwork
from medisynth.studies.midl2023.dsr_gan_published.settings import DsrGanPublishedSettings
from medisynth.training.loop import Precision, accumulated_update, autocast, seeded_weights

Losses = tuple[dict[str, torch.Tensor], torch.Tensor]

SLOPE = 0.2


def upsampling(channels: int, factor: int) -> list[nn.Module]:
    """Make pairs of a convolution and a pixel shuffle, each of which doubles the side."""
    layers: list[nn.Module] = []
    for _ in range(round(math.log2(factor))):
        layers += [
            nn.Conv2d(channels, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
            nn.PReLU(),
        ]
    return layers


class ClassicBlock(nn.Module):
    """A residual block with batch normalisation.

    Args of the constructor:
        channels: Channels of every layer.
        broken: Whether every layer is given the block's input, as published.
    """

    def __init__(self, channels: int, *, broken: bool) -> None:
        super().__init__()
        self.broken = broken
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) to the same shape."""
        # The outputs of the other layers are discarded, so they are not computed.
        return x + (self.body[-1](x) if self.broken else self.body(x))


class ClassicEnlarger(EnlargingNetwork):
    """The published generator: (b, 1, h, w), 0 to 1, to (b, 1, factor x h, factor x w).

    With 64 channels, 5 blocks and factor 2 it has 565,768 parameters.

    Args of the constructor:
        channels: Channels of every layer.
        blocks: Residual blocks.
        factor: 2, 4 or 8.
        broken: Whether every layer of a block is given the block's input.
    """

    def __init__(self, channels: int, blocks: int, factor: int, *, broken: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(ClassicBlock(channels, broken=broken) for _ in range(blocks)))
        self.after = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        )
        self.enlarge = nn.Sequential(*upsampling(channels, factor))
        self.out = nn.Conv2d(channels, 1, 9, padding=4)

    def n_noise(self, height: int, width: int) -> int:
        """Return 0: it needs no noise."""
        return 0

    def forward(self, small: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Enlarge; values may leave 0 to 1."""
        stem = self.stem(small.contiguous(memory_format=torch.channels_last))
        return self.out(self.enlarge(stem + self.after(self.blocks(stem)))).float()


class ClassicDiscriminator(nn.Module):
    """The published discriminator: one score for a whole image of any size from 16 pixels.

    The paper gives no layout, only a size of 5.07 million parameters. Ledig's widths give 5.21
    million; without their second layer of 128 channels they give 5,066,433 at 64 first channels,
    which is used.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.LeakyReLU(SLOPE)]
        n_in = channels
        for width, stride in ((1, 2), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)):
            n_out = width * channels
            layers += [
                nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1),
                nn.BatchNorm2d(n_out),
                nn.LeakyReLU(SLOPE),
            ]
            n_in = n_out
        layers += [
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(n_in, 2 * n_in, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * n_in, 1, 1),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (b, 1, h, w) to scores (b, 1, 1, 1); higher is more real."""
        return self.layers(images.contiguous(memory_format=torch.channels_last))


def new_networks(
    settings: DsrGanPublishedSettings, seed: int
) -> tuple[ClassicEnlarger, ClassicDiscriminator]:
    """Build generator and discriminator with weights drawn from the seed."""
    own, broken = settings.super_resolution, settings.deviations.broken_residual_blocks
    with seeded_weights(seed, STAGE):
        enlarger = ClassicEnlarger(own.channels, own.blocks, settings.factor, broken=broken)
        discriminator = ClassicDiscriminator(own.discriminator_channels)
    for network in (enlarger, discriminator):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return enlarger, discriminator


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
        settings: DsrGanPublishedSettings,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
    ) -> None:
        self._saturating = settings.deviations.saturating_discriminator_loss
        super().__init__(
            settings.super_resolution,
            settings.factor,
            new_networks(settings, context.seed),
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
        # No guard under the published loss, which is blind by design: the audit must see it run.
        if not self._saturating:
            self._guard.observe(
                step,
                on_real=values["discriminator on real"],
                on_synthetic=values["discriminator on synthetic"],
                loss=values["discriminator loss"],
            )
