"""The official StyleSwin (microsoft/StyleSwin), trained in the order of its own training script.

The peer is no dependency: it stands in a folder that the caller names. Its `op` package compiles
CUDA code when it is imported; the folder holds it with the calls of `cpp_extension.load` left out,
so that its own functions for the CPU remain, and nothing else that runs is changed.
"""

import sys
import warnings
from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from medisynth.training.loop import Precision

# Defaults of its script; its option `--D_sn` (spectral normalisation) is on, as it is here.
STYLE_WIDTH, MAPPING_LAYERS, MAPPING_RATE = 512, 8, 0.01
G_MULTIPLIER, D_MULTIPLIER = 1, 2
LEARNING_RATE, BETAS, NORM_LIMIT = 2e-4, (0.0, 0.99), 5.0
R1_GAMMA, R1_EVERY = 10.0, 16
EMA_DECAY = 0.5 ** (32 / 10_000)


class StyleSwinPeer:
    """Its generator, discriminator, optimisers and average, on images of three channels."""

    def __init__(self, folder: Path, size: int, batch_size: int, precision: Precision) -> None:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        warnings.filterwarnings("ignore", "torch.meshgrid")
        networks = import_module("models.generator"), import_module("models.discriminator")

        def generator() -> nn.Module:
            made: nn.Module = networks[0].Generator(
                size,
                STYLE_WIDTH,
                MAPPING_LAYERS,
                channel_multiplier=G_MULTIPLIER,
                lr_mlp=MAPPING_RATE,
            )
            return made

        self.generator, self.average = generator(), generator().eval()
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminator: nn.Module = networks[1].Discriminator(
            size, channel_multiplier=D_MULTIPLIER, sn=True
        )
        self._optimisers = [
            torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, betas=BETAS)
            for network in (self.generator, self.discriminator)
        ]
        self._batch_size, self._precision = batch_size, precision
        self._real = torch.rand(batch_size, 3, size, size) * 2 - 1

    def step(self, *, with_r1: bool) -> None:
        """One update of each network: discriminator, every so often R1, generator, average."""
        self._update_discriminator()
        if with_r1:
            self._penalise()
        self._update_generator()
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
            for mean, weight in pairs:  # one by one, as there
                mean.mul_(EMA_DECAY).add_(weight, alpha=1 - EMA_DECAY)

    def _update_discriminator(self) -> None:
        self.generator.requires_grad_(False)
        self.discriminator.requires_grad_(True)
        with self._autocast():
            made, _ = self.generator(self._noise())
            on_made = self.discriminator(made)
            on_real = self.discriminator(self._real)
        loss = functional.softplus(-on_real).mean() + functional.softplus(on_made).mean()
        self.discriminator.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.discriminator.parameters(), NORM_LIMIT)
        self._optimisers[1].step()
        loss.item()

    def _penalise(self) -> None:
        """R1 as there: an update of its own; in fp32, as here."""
        real = self._real.clone().requires_grad_(True)
        scores = self.discriminator(real)
        (gradient,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        penalty = gradient.square().flatten(1).sum(1).mean()
        self.discriminator.zero_grad()
        (R1_GAMMA / 2 * penalty * R1_EVERY).backward()  # type: ignore[no-untyped-call]
        self._optimisers[1].step()
        penalty.item()

    def _update_generator(self) -> None:
        self.generator.requires_grad_(True)
        self.discriminator.requires_grad_(False)
        with self._autocast():
            made, _ = self.generator(self._noise())
            scores = self.discriminator(made)
        loss = functional.softplus(-scores).mean()
        self.generator.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimisers[0].step()
        loss.item()

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._precision == "bf16")

    def _noise(self) -> torch.Tensor:
        return torch.randn(self._batch_size, STYLE_WIDTH)
