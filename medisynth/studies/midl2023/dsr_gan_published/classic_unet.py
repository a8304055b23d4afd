"""The UNet of Ho et al. 2020 (arXiv:2006.11239, section 4 and appendix B), implemented anew.

Residual blocks with group normalisation, self-attention at one resolution, sinusoidal time
embedding, strided convolutions down, nearest neighbour and a convolution up. Three channels in and
out, as in the published DSR-GAN; with 128, 128, 256, 256, 512, 512 channels and two residual
blocks a level it has 113,673,219 parameters.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.dsr_gan.network import LabelEmbeddings
from medisynth.studies.midl2023.dsr_gan_published.noise_prediction import T_STEPS

N_CHANNELS = 3
ATTENTION_LEVEL = 4  # the fifth
N_GROUPS = 32
EPSILON = 1e-6
LONGEST_PERIOD = 10_000.0


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(N_GROUPS, channels), channels, eps=EPSILON)


class ClassicBlock(nn.Module):
    """Two convolutions; the embedding is added between them."""

    def __init__(self, n_in: int, n_out: int, n_embedding: int, *, attention: bool) -> None:
        super().__init__()
        self.norm_in = _norm(n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.embedding_in = nn.Linear(n_embedding, n_out)
        self.norm_out = _norm(n_out)
        self.conv_out = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.attention = ClassicAttention(n_out) if attention else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Map (b, n_in, h, w) and (b, n_embedding) to (b, n_out, h, w)."""
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        hidden = hidden + self.embedding_in(functional.silu(embedding))[:, :, None, None]
        hidden = self.conv_out(functional.silu(self.norm_out(hidden)))
        return self.attention(self.skip(x) + hidden)


class ClassicAttention(nn.Module):
    """One head over all places of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) to the same shape."""
        b, c, h, w = x.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(b, 3, c, h * w).transpose(2, 3).unbind(1)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(1, 2).reshape(b, c, h, w))


class ClassicUNet(nn.Module):
    """Predicts the noise in an image of three channels.

    Args of the constructor:
        channels: Channels of each level.
        layers: Residual blocks a level on the way down; one more on the way up.
        label_sizes: Plane and machine labels that it can be told; (0, 0) for none.
    """

    def __init__(
        self, channels: tuple[int, ...], layers: int, label_sizes: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        first, last, n_embedding = channels[0], channels[-1], 4 * channels[0]
        self.frequencies: torch.Tensor
        half = first // 2
        periods = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half) / half)
        self.register_buffer("frequencies", periods, persistent=False)
        self.time_in = nn.Linear(2 * half, n_embedding)
        self.time_out = nn.Linear(n_embedding, n_embedding)
        self.labels = LabelEmbeddings(label_sizes, n_embedding) if any(label_sizes) else None
        self.stem = nn.Conv2d(N_CHANNELS, first, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        kept, before = [first], first
        for level, width in enumerate(channels):
            blocks = nn.ModuleList()
            for _ in range(layers):
                attends = level == ATTENTION_LEVEL
                blocks.append(ClassicBlock(before, width, n_embedding, attention=attends))
                kept.append(width)
                before = width
            self.down.append(blocks)
            if level < len(channels) - 1:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                kept.append(width)
        self.middle_in = ClassicBlock(last, last, n_embedding, attention=True)
        self.middle_out = ClassicBlock(last, last, n_embedding, attention=False)
        self._build_way_up(channels, layers, n_embedding, kept)
        self.norm = _norm(first)
        self.out = nn.Conv2d(first, N_CHANNELS, 3, padding=1)

    def _build_way_up(
        self, channels: tuple[int, ...], layers: int, n_embedding: int, kept: list[int]
    ) -> None:
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        before = channels[-1]
        for level, width in reversed(list(enumerate(channels))):
            blocks = nn.ModuleList()
            for _ in range(layers + 1):
                attends = level == ATTENTION_LEVEL
                n_in = before + kept.pop()
                blocks.append(ClassicBlock(n_in, width, n_embedding, attention=attends))
                before = width
            self.up.append(blocks)
            if level > 0:
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))

    def forward(
        self,
        x: torch.Tensor,
        noise_level: torch.Tensor,
        augmentation: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map noisy images to their noise.

        Args:
            x: Shape (b, 3, size, size).
            noise_level: Time step of each image in units of T = 1000, 0 to 1, shape (b,).
            augmentation: Ignored: the published network is not told of augmentation.
            labels: Label numbers, shape (b, 2), 0 for none; None for a network without labels.

        Returns:
            Shape (b, 3, size, size).
        """
        embedding = self._embed(noise_level, labels)
        hidden = self.stem(x.contiguous(memory_format=torch.channels_last))
        kept = [hidden]
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                hidden = block(hidden, embedding)
                kept.append(hidden)
            if level < len(self.shrink):
                hidden = self.shrink[level](hidden)
                kept.append(hidden)
        hidden = self.middle_out(self.middle_in(hidden, embedding), embedding)
        for number, blocks in enumerate(self.up):
            for block in blocks:  # type: ignore[attr-defined]
                hidden = block(torch.cat([hidden, kept.pop()], dim=1), embedding)
            if number < len(self.grow):
                hidden = self.grow[number](functional.interpolate(hidden, scale_factor=2.0))
        return self.out(functional.silu(self.norm(hidden)))

    def _embed(self, noise_level: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        angles = T_STEPS * noise_level[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        embedding = self.time_out(functional.silu(self.time_in(waves)))
        if self.labels is not None and labels is not None:
            embedding = embedding + self.labels(labels)
        return embedding
