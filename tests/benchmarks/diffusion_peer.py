"""lucidrains' denoising-diffusion-pytorch, trained as its own Trainer does it; images in memory.

The peer is no dependency: it stands in a folder that the caller names, e.g. made by
`pip install --no-deps --target FOLDER denoising-diffusion-pytorch ema-pytorch einops`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from medisynth.metrics.torchvision_guard import import_torchvision
from medisynth.training.loop import Precision

# Defaults of its Trainer.
LEARNING_RATE, BETAS, EMA_DECAY, NORM_LIMIT = 1e-4, (0.9, 0.99), 0.995, 1.0


def use_peer(folder: Path) -> str:
    """Make the peer importable and say its version."""
    import_torchvision()
    # At the end, so that nothing of the project is replaced.
    sys.path.append(str(folder))
    module = import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    vars(module)["tqdm"] = lambda steps, **_: steps  # no progress bar
    return str(import_module("denoising_diffusion_pytorch.version").__version__)


class DiffusionPeer:
    """Its UNet, objective, optimiser and average.

    Args of the constructor:
        dim: Channels of the first level.
        mults: Channels of each level, as multiples of `dim`.
        image_channels: Channels of the images: 3 by default, as grey ones need 1.
        flash: Its flash attention, which its README turns on.
        size: Side of the images.
        sampling_steps: Steps of DDIM; 1000 is ancestral sampling.
        ema_every: Updates between two of the average.
        precision: Precision of training.
    """

    def __init__(
        self,
        dim: int,
        mults: Sequence[int],
        *,
        image_channels: int,
        flash: bool,
        size: int,
        sampling_steps: int,
        ema_every: int,
        precision: Precision,
    ) -> None:
        package = import_module("denoising_diffusion_pytorch")
        self.network: nn.Module = package.Unet(
            dim=dim, dim_mults=tuple(mults), channels=image_channels, flash_attn=flash
        )
        self.diffusion = package.GaussianDiffusion(
            self.network, image_size=size, timesteps=1000, sampling_timesteps=sampling_steps
        )
        self._optimiser = torch.optim.Adam(
            self.diffusion.parameters(), lr=LEARNING_RATE, betas=BETAS
        )
        # It copies the weights in its first 100 updates and averages afterwards: averaged at once.
        self._average = import_module("ema_pytorch").EMA(
            self.diffusion, beta=EMA_DECAY, update_every=ema_every, update_after_step=0
        )
        self._precision = precision
        self._shape = (image_channels, size, size)

    def step(self, images: torch.Tensor) -> float:
        """One update and the average: the body of its `Trainer.train`; images 0 to 1."""
        self.diffusion.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._precision == "bf16"):
            loss = self.diffusion(images)
        value: float = loss.item()
        loss.backward()
        nn.utils.clip_grad_norm_(self.diffusion.parameters(), NORM_LIMIT)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._average.update()
        return value

    def images(self, n: int) -> torch.Tensor:
        """Images to train on."""
        return torch.rand(n, *self._shape)

    def sample(self, n: int) -> torch.Tensor:
        """Draw images by its own sampler."""
        self.diffusion.eval()
        drawn: torch.Tensor = self.diffusion.sample(batch_size=n)
        return drawn

    def some_ancestral_steps(self, n: int, n_steps: int) -> torch.Tensor:
        """The last steps of ancestral sampling of n images; every step costs the same."""
        self.diffusion.eval()
        images = torch.randn(n, *self._shape)
        for step in reversed(range(n_steps)):
            images, _ = self.diffusion.p_sample(images, step)
        return images
