"""Interface of a diffusion objective: the loss a network learns by and the sampler that fits it."""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import nn

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
