"""Diffusion objectives: the loss a network learns by and the sampler that fits it.

`Objective` is the interface; EDM is the built-in one: preconditioning, loss and Heun's sampler
(Karras et al. 2022; equation numbers are those of arXiv:2206.00364).
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

import torch
from torch import nn

from medisynth.models.dsr_gan.batches import nothing_told
from medisynth.models.dsr_gan.settings import DiffusionSettings

Labels = torch.Tensor | None  # label numbers, shape (b, 2), 0 for none; None: none are told
FreshNoise = Callable[[int], torch.Tensor]  # step of the sampler to standard normal noise


class Objective(Protocol):
    """A training loss and the sampler that fits it."""

    def training_levels(self, n: int, device: str, generator: torch.Generator) -> torch.Tensor:
        """Draw the noise level of each of n training images, shape (n,)."""
        ...

    def tuning_levels(self, n: int, device: str, generator: torch.Generator) -> torch.Tensor:
        """Equally likely noise levels, one an image, in random order; less scatter than drawing."""
        ...

    def loss(
        self,
        network: nn.Module,
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        told: torch.Tensor,
        labels: Labels = None,
    ) -> torch.Tensor:
        """Mean denoising loss of a batch: 1 for a network that knows nothing, lower is better."""
        ...

    def states(
        self,
        network: nn.Module,
        start: torch.Tensor,
        labels: Labels = None,
        fresh: FreshNoise | None = None,
    ) -> Iterator[torch.Tensor]:
        """Draw from standard normal noise; yields the state after each step, the last is clean.

        Args:
            network: The network.
            start: Standard normal noise, shape (b, channels, rows, columns).
            labels: Label numbers, shape (b, 2); None where none are told.
            fresh: Standard normal noise of that shape for each step, for a sampler that adds some;
                None adds none.
        """
        ...


class Guided(nn.Module):
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598) around a network.

    Moves the output with labels away from the output without. Both samplers are linear in the
    output, so guiding the output guides the denoised image.

    Args of the constructor:
        network: Network that was trained with labels, some of them hidden.
        guidance: 1 gives the output with labels, 0 the one without, more moves further away.
    """

    def __init__(self, network: nn.Module, guidance: float) -> None:
        super().__init__()
        self.network, self.guidance = network, guidance

    def forward(
        self,
        x: torch.Tensor,
        noise_level: torch.Tensor,
        augmentation: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Run the network with and without labels in one batch; return the guided output."""
        both = self.network(
            torch.cat([x, x]),
            torch.cat([noise_level, noise_level]),
            torch.cat([augmentation, augmentation]),
            torch.cat([labels, torch.zeros_like(labels)]),
        )
        with_labels, without = both.chunk(2)
        return without + self.guidance * (with_labels - without)


def guided(network: nn.Module, guidance: float, labels: Labels) -> nn.Module:
    """Wrap a network for guidance; return it as it is where guidance has no effect."""
    return network if labels is None or guidance == 1 else Guided(network, guidance)


# Section 4 of the paper: S_tmin, S_tmax, S_noise, and the most that a step may take back.
CHURN_FROM, CHURN_TO, CHURN_GAIN, MOST_CHURN = 0.05, 10.0, 1.003, math.sqrt(2) - 1


class Edm:
    """The EDM loss and sampler; fulfils `objectives.Objective` with sigmas as levels."""

    def __init__(self, settings: DiffusionSettings) -> None:
        self._settings = settings

    def training_levels(self, n: int, device: str, generator: torch.Generator) -> torch.Tensor:
        """Draw log-normal sigmas."""
        return self._sigma(torch.randn(n, device=device, generator=generator))

    def tuning_levels(self, n: int, device: str, generator: torch.Generator) -> torch.Tensor:
        """Sigmas at equal steps of probability, in random order."""
        middles = (torch.arange(n, device=device) + 0.5) / n
        shuffled = torch.randperm(n, device=device, generator=generator)
        return self._sigma(torch.special.ndtri(middles)[shuffled])

    def loss(
        self,
        network: nn.Module,
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        told: torch.Tensor,
        labels: Labels = None,
    ) -> torch.Tensor:
        """Compute the weighted denoising error."""
        data = self._settings.sigma_data
        return denoising_loss(network, clean, noise, levels, told, data, labels)

    def states(
        self,
        network: nn.Module,
        start: torch.Tensor,
        labels: Labels = None,
        fresh: FreshNoise | None = None,
    ) -> Iterator[torch.Tensor]:
        """Yield the states of Heun's method; the last is the sample."""
        network = guided(network, self._settings.guidance, labels)
        return sample_residuals(network, start, self._settings, labels, fresh)

    def _sigma(self, normal: torch.Tensor) -> torch.Tensor:
        return (normal * self._settings.p_std + self._settings.p_mean).exp()


def denoised(
    network: nn.Module,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    told: torch.Tensor,
    sigma_data: float,
    labels: Labels = None,
) -> torch.Tensor:
    """Estimate the clean residual: D(x; sigma) of equation 7.

    Args:
        network: The raw network F.
        noisy: Shape (b, 1, size, size).
        sigma: Noise level of each image, shape (b,).
        told: Augmentation numbers, shape (b, 4).
        sigma_data: Standard deviation of the clean residuals.
        labels: Label numbers, shape (b, 2); None where none are told.
    """
    c_skip, c_out, c_in, c_noise = preconditioning(sigma, sigma_data)
    return c_skip * noisy + c_out * network(c_in * noisy, c_noise, told, labels).float()


def preconditioning(
    sigma: torch.Tensor, sigma_data: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return c_skip, c_out, c_in, each (b, 1, 1, 1), and c_noise, (b,): table 1, last column."""
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
    labels: Labels = None,
) -> torch.Tensor:
    """Weighted denoising error, equation 8: 1 for a network that knows nothing, lower is better.

    The weight 1 / c_out^2 turns the error of the denoised image into the error of the raw
    network's output against its effective target, which is computed here.

    Args:
        network: The raw network F.
        clean: Clean residuals, shape (b, 1, size, size).
        noise: Standard normal noise of that shape.
        sigma: Noise level of each image, shape (b,).
        told: Augmentation numbers, shape (b, 4).
        sigma_data: Standard deviation of the clean residuals.
        labels: Label numbers, shape (b, 2); None where none are told.
    """
    c_skip, c_out, c_in, c_noise = preconditioning(sigma, sigma_data)
    noisy = clean + sigma[:, None, None, None] * noise
    target = (clean - c_skip * noisy) / c_out
    return (network(c_in * noisy, c_noise, told, labels).float() - target).square().mean()


def noise_levels(settings: DiffusionSettings) -> list[float]:
    """Noise levels of the sampler, largest first, ending with 0: equation 5."""
    n, power = settings.sampler_steps, 1 / settings.rho
    largest, smallest = settings.sigma_max**power, settings.sigma_min**power
    levels = [(largest + i / (n - 1) * (smallest - largest)) ** settings.rho for i in range(n)]
    return [*levels, 0.0]


@torch.no_grad()
def sample_residuals(
    network: nn.Module,
    start: torch.Tensor,
    settings: DiffusionSettings,
    labels: Labels = None,
    fresh: FreshNoise | None = None,
) -> Iterator[torch.Tensor]:
    """Draw residuals by Heun's second-order method: algorithm 2, without fresh noise algorithm 1.

    Each step first adds a little fresh noise (churn), so that errors of earlier steps are drawn
    anew.

    Args:
        network: The raw network F.
        start: Standard normal noise, shape (b, 1, rows, columns).
        settings: Noise levels and churn.
        labels: Label numbers, shape (b, 2); None where none are told.
        fresh: Standard normal noise of that shape for each step; None for no churn.

    Yields:
        The state after each step; the last one is the sample.
    """
    told = nothing_told(len(start), str(start.device))
    levels = noise_levels(settings)
    x = start * levels[0]

    def slope(at: torch.Tensor, level: float) -> torch.Tensor:
        sigma = torch.full((len(at),), level, device=at.device)
        return (at - denoised(network, at, sigma, told, settings.sigma_data, labels)) / level

    for step, (now, following) in enumerate(pairwise(levels)):
        if fresh is not None and settings.churn > 0 and CHURN_FROM <= now <= CHURN_TO:
            raised = now * (1 + min(settings.churn / settings.sampler_steps, MOST_CHURN))
            x = x + math.sqrt(raised**2 - now**2) * CHURN_GAIN * fresh(step)
            now = raised
        first = slope(x, now)
        euler = x + (following - now) * first
        if following > 0:
            second = slope(euler, following)
            euler = x + (following - now) * (first + second) / 2
        x = euler
        yield x
