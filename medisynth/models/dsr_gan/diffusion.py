"""First stage: a denoising diffusion model with EDM preconditioning (Karras et al. 2022).

Images are worked on as residuals: the training mean image is taken away and what remains is scaled
to a standard deviation of sigma_data. Equation numbers are those of arXiv:2206.00364.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from medisynth.data.views import ImageView
from medisynth.errors import DataError
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan.batches import (
    Augmentation,
    augmentation_of,
    augmented,
    nothing_told,
    reduced,
    to_unit,
)
from medisynth.models.dsr_gan.network import UNet
from medisynth.models.dsr_gan.settings import DiffusionSettings
from medisynth.training import (
    Order,
    Precision,
    autocast,
    averaged,
    learning_rate,
    mean_of,
    require_finite,
    seeded_weights,
    snapshot,
    torch_generator,
    update,
)

STAGE = "diffusion"
ROWS_AT_ONCE = 64
NO_SPREAD = 1e-4  # of full scale 1


@dataclass(frozen=True)
class Scaling:
    """Between images (0 to 1) and residuals (mean 0, standard deviation sigma_data).

    Attributes:
        mean_image: Training mean, shape (1, 1, size, size).
        gain: Residual units per image unit.
    """

    mean_image: torch.Tensor
    gain: torch.Tensor

    def to_residuals(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images into residuals."""
        return (images - self.mean_image) * self.gain

    def to_images(self, residuals: torch.Tensor) -> torch.Tensor:
        """Turn residuals into images; values may leave 0 to 1."""
        return residuals / self.gain + self.mean_image


def fit_mean_image(training: ImageView, device: str) -> torch.Tensor:
    """Mean training image at the view's own size, shape (1, 1, h, h), 0 to 1."""
    total = torch.zeros(training.pixels.shape[1:], dtype=torch.float64)
    for start in range(0, len(training), ROWS_AT_ONCE):
        total += to_unit(training.pixels[start : start + ROWS_AT_ONCE], "cpu").double().sum((0, 1))
    return (total / len(training)).float().to(device)[None, None]


def fit_scaling(
    training: ImageView, mean_image: torch.Tensor, settings: DiffusionSettings
) -> Scaling:
    """Fit the scaling at the size of the diffusion model, on training images alone.

    Raises:
        DataError: All training images are equal.
    """
    device = str(mean_image.device)
    squares = 0.0
    for start in range(0, len(training), ROWS_AT_ONCE):
        images = to_unit(training.pixels[start : start + ROWS_AT_ONCE], device)
        rest = reduced(images - mean_image, settings.size)
        squares += float(rest.double().square().mean((1, 2, 3)).sum())
    spread = math.sqrt(squares / len(training))
    if spread < NO_SPREAD:
        raise DataError(
            f"training view: expected images that differ, found {len(training)} whose standard "
            f"deviation about their mean is {spread:.6f} of full scale; check the images",
            code="D080",
        )
    gain = torch.tensor(settings.sigma_data / spread, device=device)
    return Scaling(reduced(mean_image, settings.size), gain)


def denoised(
    network: nn.Module,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    told: torch.Tensor,
    sigma_data: float,
) -> torch.Tensor:
    """Estimate the clean residual: D(x; sigma) of equation 7.

    Args:
        network: The raw network F.
        noisy: Shape (b, 1, size, size).
        sigma: Noise level of each image, shape (b,).
        told: Augmentation numbers, shape (b, 4).
        sigma_data: Standard deviation of the clean residuals.
    """
    c_skip, c_out, c_in, c_noise = preconditioning(sigma, sigma_data)
    return c_skip * noisy + c_out * network(c_in * noisy, c_noise, told).float()


def preconditioning(
    sigma: torch.Tensor, sigma_data: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """c_skip, c_out, c_in, each (b, 1, 1, 1), and c_noise, (b,): table 1, last column."""
    level = sigma[:, None, None, None]
    total = (level.square() + sigma_data**2).sqrt()
    return (
        sigma_data**2 / total.square(),
        level * sigma_data / total,
        1 / total,
        sigma.log() / 4,
    )


def denoising_loss(
    network: nn.Module,
    clean: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    told: torch.Tensor,
    sigma_data: float,
) -> torch.Tensor:
    """Weighted denoising error, equation 8: 1 for a network that knows nothing, lower is better.

    The weight 1 / c_out^2 turns the error of the denoised image into that of the raw network's
    output against its effective target, which is what is computed.

    Args:
        network: The raw network F.
        clean: Clean residuals, shape (b, 1, size, size).
        noise: Standard normal noise of that shape.
        sigma: Noise level of each image, shape (b,).
        told: Augmentation numbers, shape (b, 4).
        sigma_data: Standard deviation of the clean residuals.
    """
    c_skip, c_out, c_in, c_noise = preconditioning(sigma, sigma_data)
    noisy = clean + sigma[:, None, None, None] * noise
    target = (clean - c_skip * noisy) / c_out
    return (network(c_in * noisy, c_noise, told).float() - target).square().mean()


def noise_levels(settings: DiffusionSettings) -> list[float]:
    """Noise levels of the sampler, largest first, ending with 0: equation 5."""
    n, power = settings.sampler_steps, 1 / settings.rho
    largest, smallest = settings.sigma_max**power, settings.sigma_min**power
    levels = [(largest + i / (n - 1) * (smallest - largest)) ** settings.rho for i in range(n)]
    return [*levels, 0.0]


@torch.no_grad()
def sample_residuals(
    network: nn.Module, start: torch.Tensor, settings: DiffusionSettings
) -> Iterator[torch.Tensor]:
    """Draw residuals by Heun's second-order method, algorithm 1, without churn.

    Args:
        network: The raw network F.
        start: Standard normal noise, shape (b, 1, size, size).
        settings: Noise levels.

    Yields:
        The state after each step; the last one is the sample.
    """
    told = nothing_told(len(start), str(start.device))
    levels = noise_levels(settings)
    x = start * levels[0]

    def slope(at: torch.Tensor, level: float) -> torch.Tensor:
        sigma = torch.full((len(at),), level, device=at.device)
        return (at - denoised(network, at, sigma, told, settings.sigma_data)) / level

    for now, following in pairwise(levels):
        first = slope(x, now)
        euler = x + (following - now) * first
        if following > 0:
            second = slope(euler, following)
            euler = x + (following - now) * (first + second) / 2
        x = euler
        yield x


def new_network(settings: DiffusionSettings, seed: int) -> UNet:
    """Build the network with weights drawn from the seed."""
    with seeded_weights(seed, STAGE):
        network = UNet(
            settings.unshuffle, settings.channels, settings.layers, attention=settings.attention
        )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class DiffusionStage:
    """Training of the diffusion network.

    Attributes:
        name: "diffusion".
        n_steps: Updates.
        candidates: (step, tuning loss of the averaged weights) of every evaluation so far.
        best: Averaged weights of the lowest tuning loss.
        best_step: Step of those weights.
    """

    name = STAGE

    def __init__(
        self,
        settings: DiffusionSettings,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
        mean_image: torch.Tensor,
        scaling: Scaling,
    ) -> None:
        self.n_steps = settings.steps
        self.candidates: list[tuple[int, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_step = 0
        self._settings, self._seed, self._device = settings, context.seed, context.compute_device
        self._precision: Precision = precision
        self._pixels, self._mean_image, self._scaling = training.pixels, mean_image, scaling
        self._limits = Augmentation(settings.flip, settings.max_zoom, settings.max_rotation_rad)
        self._order = Order(len(training), settings.batch_size, context.seed, STAGE)
        self.network = new_network(settings, context.seed).to(self._device)
        self._averaged = averaged(self.network, settings.ema)
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        self._tuning = list(self._tuning_batches(tuning))

    def step(self, step: int) -> Mapping[str, float]:
        """Make one update."""
        settings = self._settings
        clean, told = self._batch(step)
        generator = torch_generator(self._device, self._seed, STAGE, "noise", step)
        sigma = self._sigma(torch.randn(len(clean), device=self._device, generator=generator))
        noise = torch.randn(clean.shape, device=self._device, generator=generator)
        with autocast(self._device, self._precision):
            loss = denoising_loss(self.network, clean, noise, sigma, told, settings.sigma_data)
        rate = learning_rate(settings.learning_rate, step, settings.steps, settings.warm_up_steps)
        values = update(
            self._optimiser, {"training loss": loss}, loss, stage=STAGE, step=step, rate=rate
        )
        self._averaged.update_parameters(self.network)
        return {**values, "learning rate": rate}

    @torch.no_grad()
    def evaluate(self, step: int) -> Mapping[str, float]:
        """Score the averaged weights on the tuning view with fixed noise; keep the best."""
        network = self._averaged.module.eval()
        loss = mean_of(
            (
                float(
                    denoising_loss(
                        network,
                        clean,
                        noise,
                        sigma,
                        nothing_told(len(clean), self._device),
                        self._settings.sigma_data,
                    )
                ),
                len(clean),
            )
            for clean, noise, sigma in self._tuning
        )
        require_finite({"tuning loss": loss}, stage=STAGE, step=step - 1)
        if not self.candidates or loss < min(score for _, score in self.candidates):
            self.best, self.best_step = snapshot(network), step
        self.candidates.append((step, loss))
        return {"tuning loss": loss}

    def _sigma(self, normal: torch.Tensor) -> torch.Tensor:
        return (normal * self._settings.p_std + self._settings.p_mean).exp()

    def _batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        places = self._order.batch(step)
        images = to_unit(self._pixels[[index for _, index in places]], self._device)
        draws = [
            augmentation_of(self._limits, self._seed, STAGE, epoch, index)
            for epoch, index in places
        ]
        # Moved at full size and reduced afterwards, so that the interpolation blurs nothing.
        moved, told = augmented(images - self._mean_image, draws)
        return reduced(moved, self._settings.size) * self._scaling.gain, told

    def _tuning_batches(
        self, tuning: ImageView
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Clean residuals, noise and noise levels, the same for every candidate."""
        settings, n = self._settings, min(len(tuning), self._settings.selection_images)
        chosen = torch.linspace(0, len(tuning) - 1, n).round().long().tolist()
        generator = torch_generator(self._device, self._seed, STAGE, "tuning")
        # Equally likely levels, one an image, in an order of the seed: less scatter than drawing.
        middles = (torch.arange(n, device=self._device) + 0.5) / n
        shuffled = torch.randperm(n, device=self._device, generator=generator)
        levels = self._sigma(torch.special.ndtri(middles)[shuffled])
        for start in range(0, n, ROWS_AT_ONCE):
            rows = chosen[start : start + ROWS_AT_ONCE]
            images = to_unit(tuning.pixels[rows], self._device)
            clean = self._scaling.to_residuals(reduced(images, settings.size))
            noise = torch.randn(clean.shape, device=self._device, generator=generator)
            yield clean, noise, levels[start : start + ROWS_AT_ONCE]
