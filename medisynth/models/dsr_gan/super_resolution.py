"""Last stage: a super-resolution GAN after Ledig et al. 2017 (arXiv:1609.04802).

Differences, each for a reason: no batch normalisation in the generator (Lim et al. 2017,
arXiv:1707.02921: it costs range and speed), the enlarged input is added to the output so that the
network learns detail only, L1 content on pixels in place of VGG features of photographs, a hinge
loss on patches in place of a sigmoid on the whole image. No spectral normalisation: over a few
hundred steps it left the discriminator unable to tell real from synthetic.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medisynth.data.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan.batches import crop_of, reduced, to_unit
from medisynth.models.dsr_gan.settings import SuperResolutionSettings
from medisynth.training import (
    Order,
    Precision,
    autocast,
    averaged,
    learning_rate,
    mean_of,
    require_finite,
    seeded_weights,
    torch_generator,
    update,
)

STAGE = "super-resolution"
N_TUNING_IMAGES = 64
ROWS_AT_ONCE = 16
SLOPE = 0.2


class ResidualBlock(nn.Module):
    """Two convolutions added to their input; each layer reads the layer before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) to the same shape."""
        return x + self.body(x)


class Enlarger(nn.Module):
    """The generator: (b, 1, h, w), 0 to 1, to (b, 1, factor x h, factor x w).

    Args of the constructor:
        channels: Channels of every layer.
        blocks: Residual blocks.
        factor: 2, 4 or 8.
    """

    def __init__(self, channels: int, blocks: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.after = nn.Conv2d(channels, channels, 3, padding=1)
        stages: list[nn.Module] = []
        for _ in range(round(math.log2(factor))):
            stages += [
                nn.Conv2d(channels, 4 * channels, 3, padding=1),
                nn.PixelShuffle(2),
                nn.PReLU(),
            ]
        self.enlarge = nn.Sequential(*stages)
        self.out = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        """Enlarge; values may leave 0 to 1 a little."""
        smooth = functional.interpolate(
            small, scale_factor=float(self.factor), mode="bilinear", align_corners=False
        )
        stem = self.stem((small - 0.5).contiguous(memory_format=torch.channels_last))
        detail = self.out(self.enlarge(stem + self.after(self.blocks(stem))))
        return smooth + detail.float()


class Discriminator(nn.Module):
    """Scores patches: strided convolutions, each doubling the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in = 1
        for n_out in (channels, 2 * channels, 4 * channels):
            layers += [
                nn.Conv2d(n_in, n_out, 4, stride=2, padding=1),
                nn.LeakyReLU(SLOPE),
            ]
            n_in = n_out
        layers += [
            nn.Conv2d(n_in, n_in, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(n_in, 1, 3, padding=1),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (b, 1, h, w) to patch scores (b, 1, h / 8, w / 8); higher is more real."""
        return self.layers((images - 0.5).contiguous(memory_format=torch.channels_last))


def new_networks(
    settings: SuperResolutionSettings, factor: int, seed: int
) -> tuple[Enlarger, Discriminator]:
    """Build both networks with weights drawn from the seed."""
    with seeded_weights(seed, STAGE):
        enlarger = Enlarger(settings.channels, settings.blocks, factor)
        discriminator = Discriminator(settings.discriminator_channels)
    for network in (enlarger, discriminator):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return enlarger, discriminator


def speckled(
    small: torch.Tensor, noise: torch.Tensor, settings: SuperResolutionSettings
) -> torch.Tensor:
    """Add noise that grows with brightness; the same in training and in sampling.

    A network that maps one small image to one large image can only smear speckle, which is random.
    Noise gives it something to make speckle of, and hides what samples lack of real images. As
    speckle does, it grows with the signal, so that black stays black.

    Args:
        small: Images, 0 to 1.
        noise: Standard normal noise of the same shape.
        settings: How much.
    """
    return (small + settings.speckle * small.sqrt() * noise).clamp(0, 1)


class SuperResolutionStage:
    """Training of the super-resolution GAN on crops of training images.

    Attributes:
        name: "super-resolution".
        n_steps: Updates of each network.
        enlarger: The generator.
        discriminator: The discriminator.
    """

    name = STAGE

    def __init__(
        self,
        settings: SuperResolutionSettings,
        factor: int,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
    ) -> None:
        self.n_steps = settings.steps
        self._settings, self._factor = settings, factor
        self._seed, self._device = context.seed, context.compute_device
        self._precision: Precision = precision
        self._pixels = training.pixels
        self._order = Order(len(training), settings.batch_size, context.seed, STAGE)
        enlarger, discriminator = new_networks(settings, factor, context.seed)
        self.enlarger = enlarger.to(self._device)
        self.discriminator = discriminator.to(self._device)
        self._averaged = averaged(self.enlarger, settings.ema)
        self._optimisers = [
            torch.optim.AdamW(network.parameters(), betas=(0.5, 0.99), weight_decay=0.0, fused=True)
            for network in (self.enlarger, self.discriminator)
        ]
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
        real = self._crops(step)
        small = self._reduced_crops(real, step)
        share = learning_rate(1.0, step, settings.steps, 0)
        rate = settings.learning_rate * share
        with autocast(self._device, self._precision):
            made = self.enlarger(small)
        adversarial = step >= settings.content_only_steps and settings.adversarial_weight > 0
        values: dict[str, float] = {}
        if adversarial:
            faster = settings.discriminator_learning_rate * share
            values |= self._update_discriminator(real, made.detach(), step, faster)
        values |= self._update_generator(real, made, step, rate, adversarial=adversarial)
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

    def _crops(self, step: int) -> torch.Tensor:
        crops = [
            crop_of(
                self._pixels[index],
                self._settings.crop,
                self._factor,
                self._seed,
                STAGE,
                epoch,
                index,
            )
            for epoch, index in self._order.batch(step)
        ]
        return to_unit(np.stack(crops), self._device)

    def _reduced_crops(self, real: torch.Tensor, step: int) -> torch.Tensor:
        """Reduce as the diffusion images are, and speckle."""
        small = reduced(real, real.shape[-1] // self._factor)
        generator = torch_generator(self._device, self._seed, STAGE, "noise", step)
        noise = torch.randn(small.shape, device=self._device, generator=generator)
        return speckled(small, noise, self._settings)

    def _update_discriminator(
        self, real: torch.Tensor, made: torch.Tensor, step: int, rate: float
    ) -> dict[str, float]:
        with autocast(self._device, self._precision):
            scores = self.discriminator(torch.cat([real, made])).float()
        on_real, on_made = scores.chunk(2)
        loss = functional.relu(1 - on_real).mean() + functional.relu(1 + on_made).mean()
        losses = {
            "discriminator loss": loss,
            "discriminator on real": on_real.mean(),
            "discriminator on synthetic": on_made.mean(),
        }
        values = update(self._optimisers[1], losses, loss, stage=STAGE, step=step, rate=rate)
        values["discriminator gradient norm"] = values.pop("gradient norm")
        return values

    def _update_generator(
        self, real: torch.Tensor, made: torch.Tensor, step: int, rate: float, *, adversarial: bool
    ) -> dict[str, float]:
        content = functional.l1_loss(made, real)
        total = content
        if adversarial:
            # Frozen, so that no gradient of the discriminator's weights is computed in vain.
            self.discriminator.requires_grad_(False)
            with autocast(self._device, self._precision):
                score = self.discriminator(made).float().mean()
            self.discriminator.requires_grad_(True)
            total = content - self._settings.adversarial_weight * score
        losses = {"generator loss": total, "content loss (L1)": content}
        return update(self._optimisers[0], losses, total, stage=STAGE, step=step, rate=rate)
