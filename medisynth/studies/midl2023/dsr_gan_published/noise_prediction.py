"""Objective of the published network: noise prediction under linear betas, DDIM sampling.

Ho et al. 2020 (arXiv:2006.11239) and Song et al. 2021 (arXiv:2010.02502, deterministic). Equation
numbers are those of the latter.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from medisynth.models.dsr_gan.batches import nothing_told
from medisynth.models.dsr_gan.objectives import FreshNoise, Labels, guided
from medisynth.models.dsr_gan.settings import DiffusionSettings

T_STEPS = 1000  # noise levels
FIRST_BETA, LAST_BETA = 1e-4, 0.02
BOUND = 1.0  # clean images are -1 to 1


class NoisePrediction:
    """Noise prediction and DDIM; fulfils `objectives.Objective` with time steps 0 to 999 as levels.

    Attributes:
        kept: Share of the signal's variance left at each time step, alpha-bar, shape (1000,).
    """

    def __init__(self, settings: DiffusionSettings) -> None:
        self._settings = settings
        betas = torch.linspace(FIRST_BETA, LAST_BETA, T_STEPS, dtype=torch.float64)
        self.kept = (1 - betas).cumprod(0).float()

    def training_levels(self, n: int, device: str, generator: torch.Generator) -> torch.Tensor:
        """Draw time steps, each equally likely."""
        return torch.randint(T_STEPS, (n,), device=device, generator=generator)

    def tuning_levels(self, n: int, device: str, generator: torch.Generator) -> torch.Tensor:
        """Time steps at equal distances, in random order."""
        middles = ((torch.arange(n, device=device) + 0.5) * (T_STEPS / n)).long()
        return middles[torch.randperm(n, device=device, generator=generator)]

    def loss(
        self,
        network: nn.Module,
        clean: torch.Tensor,
        noise: torch.Tensor,
        levels: torch.Tensor,
        told: torch.Tensor,
        labels: Labels = None,
    ) -> torch.Tensor:
        """Compute the unweighted mean squared error of the predicted noise."""
        kept = self.kept.to(clean.device)[levels][:, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        return (network(noisy, levels / T_STEPS, told, labels).float() - noise).square().mean()

    def time_steps(self) -> list[int]:
        """Time steps of the sampler, largest first, at equal distances, the last is 0."""
        stride = T_STEPS // self._settings.sampler_steps
        return [stride * i for i in reversed(range(self._settings.sampler_steps))]

    @torch.no_grad()
    def states(
        self,
        network: nn.Module,
        start: torch.Tensor,
        labels: Labels = None,
        fresh: FreshNoise | None = None,
    ) -> Iterator[torch.Tensor]:
        """Yield the states of DDIM, equation 12 with sigma 0; clips clean estimates to -1 to 1."""
        network = guided(network, self._settings.guidance, labels)
        told = nothing_told(len(start), str(start.device))
        steps = self.time_steps()
        kept = [*(float(self.kept[step]) for step in steps), 1.0]
        x = start
        for step, (now, following) in zip(steps, pairwise(kept), strict=True):
            level = torch.full((len(x),), step / T_STEPS, device=x.device)
            noise = network(x, level, told, labels).float()
            clean = ((x - (1 - now) ** 0.5 * noise) / now**0.5).clamp(-BOUND, BOUND)
            # The noise that belongs to the clipped estimate, so that both stay on one path.
            noise = (x - now**0.5 * clean) / (1 - now) ** 0.5
            x = following**0.5 * clean + (1 - following) ** 0.5 * noise
            yield x
