"""The denoising network: a small UNet over folded pixels.

Why not a library's: docs/decisions/0002-diffusion-network.md.
"""

import math

import torch
from torch import nn
from torch.nn import functional

N_AUGMENTATION_NUMBERS = 4  # mirrored or not, log zoom, sine of the rotation, cosine less 1
HIGHEST_FREQUENCY = 64.0
HEAD_CHANNELS = 64
GROUP_CHANNELS = 16
LABEL_GAIN = 8.0  # one row of a table meets few gradients a step; at 1 it was not heard in time


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP_CHANNELS)), channels)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Set a layer's weights to zero, so that a residual block starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Two convolutions; the embedding of noise level and augmentation modulates between them.

    Args of the constructor:
        n_in: Channels of the input.
        n_out: Channels of the output.
        n_embedding: Width of the embedding.
        attention: Whether self-attention follows.
    """

    def __init__(self, n_in: int, n_out: int, n_embedding: int, *, attention: bool = False) -> None:
        super().__init__()
        self.norm_in = _norm(n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.modulation = nn.Linear(n_embedding, 2 * n_out)
        self.norm_out = _norm(n_out)
        self.conv_out = _zeroed(nn.Conv2d(n_out, n_out, 3, padding=1))
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.attention = SelfAttention(n_out) if attention else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Map (b, n_in, h, w) and (b, n_embedding) to (b, n_out, h, w)."""
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv_out(functional.silu(self.norm_out(hidden) * (1 + scale) + shift))
        return self.attention(self.skip(x) + hidden)


class SelfAttention(nn.Module):
    """Self-attention over all places of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD_CHANNELS)
        while channels % self.heads:
            self.heads -= 1
        self.norm = _norm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) to the same shape."""
        b, c, h, w = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.permute(1, 0, 2, 4, 3)
        if x.device.type == "cpu":
            # For these few places the fused kernel's backward pass costs six times as much.
            weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(dim=-1)
            attended = weights.to(v.dtype) @ v
        else:
            attended = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(2, 3).reshape(b, c, h, w))


class LabelEmbeddings(nn.Module):
    """Embeds the labels of plane and machine as one vector; number 0 is no label.

    The embeddings start as zero, so that a network with labels starts as one without.

    Args of the constructor:
        sizes: Labels of each axis; 0 for an axis that is not told.
        n_embedding: Width of the vector.
    """

    def __init__(self, sizes: tuple[int, int], n_embedding: int) -> None:
        super().__init__()
        self.axes = [axis for axis, size in enumerate(sizes) if size]
        self.tables = nn.ModuleList(nn.Embedding(sizes[a] + 1, n_embedding) for a in self.axes)
        for table in self.tables:
            nn.init.zeros_(table.weight)  # type: ignore[arg-type]

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Map label numbers (b, 2) to (b, n_embedding)."""
        told = [table(labels[:, a]) for a, table in zip(self.axes, self.tables, strict=True)]
        return LABEL_GAIN * torch.stack(told).sum(0)


class UNet(nn.Module):
    """Predicts the target of the preconditioning from a noisy image and its noise level.

    Args of the constructor:
        unshuffle: Side of the pixel blocks folded into channels.
        channels: Channels of each level.
        layers: Residual blocks a level and direction.
        attention: Whether the lowest level has self-attention.
        label_sizes: Plane and machine labels that it can be told; (0, 0) for none.
    """

    def __init__(
        self,
        unshuffle: int,
        channels: tuple[int, ...],
        layers: int,
        *,
        attention: bool,
        label_sizes: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        first, last, n_embedding = channels[0], channels[-1], 4 * channels[0]
        self.unshuffle = unshuffle
        self.frequencies: torch.Tensor
        self.register_buffer(
            "frequencies",
            torch.exp(torch.linspace(0, math.log(HIGHEST_FREQUENCY), first // 2)),
            persistent=False,
        )
        self.noise_in = nn.Linear(2 * (first // 2), n_embedding)
        self.augmentation_in = nn.Linear(N_AUGMENTATION_NUMBERS, n_embedding, bias=False)
        self.noise_out = nn.Linear(n_embedding, n_embedding)
        # Without labels there is nothing: neither a weight nor a random number drawn for one.
        self.labels = LabelEmbeddings(label_sizes, n_embedding) if any(label_sizes) else None
        self.stem = nn.Conv2d(unshuffle**2, first, 3, padding=1)
        self._build_levels(channels, layers, n_embedding, attention=attention)
        self.middle_in = ResidualBlock(last, last, n_embedding, attention=attention)
        self.middle_out = ResidualBlock(last, last, n_embedding)
        self.norm = _norm(first)
        self.out = _zeroed(nn.Conv2d(first, unshuffle**2, 3, padding=1))

    def _build_levels(
        self, channels: tuple[int, ...], layers: int, n_embedding: int, *, attention: bool
    ) -> None:
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        self.grow = nn.ModuleList()
        self.up = nn.ModuleList()
        before = channels[0]
        for width, above in zip(channels, (*channels[1:], None), strict=True):
            attends = attention and above is None
            widths = [before, *[width] * (layers - 1)]
            for path, sources in ((self.down, widths), (self.up, [2 * width] * layers)):
                path.append(
                    nn.ModuleList(
                        ResidualBlock(n, width, n_embedding, attention=attends) for n in sources
                    )
                )
            if above is not None:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                self.grow.append(nn.Conv2d(above, width, 3, padding=1))
            before = width

    def forward(
        self,
        x: torch.Tensor,
        noise_level: torch.Tensor,
        augmentation: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map a noisy image to the network's raw output.

        Args:
            x: Scaled noisy images, shape (b, 1, size, size).
            noise_level: c_noise of each image, shape (b,).
            augmentation: Augmentation numbers of each image, shape (b, 4); 0 means none.
            labels: Label numbers, shape (b, 2), 0 for none; None for a network without labels.

        Returns:
            Shape (b, 1, size, size).
        """
        embedding = self._embed(noise_level, augmentation, labels)
        folded = functional.pixel_unshuffle(x, self.unshuffle)
        hidden = self.stem(folded.contiguous(memory_format=torch.channels_last))
        kept: list[torch.Tensor] = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                hidden = block(hidden, embedding)
                kept.append(hidden)
            if level < len(self.shrink):
                hidden = self.shrink[level](hidden)
        hidden = self.middle_out(self.middle_in(hidden, embedding), embedding)
        for level in reversed(range(len(self.up))):
            for block in self.up[level]:  # type: ignore[attr-defined]
                hidden = block(torch.cat([hidden, kept.pop()], dim=1), embedding)
            if level > 0:
                # The convolution comes before the enlargement, where it is four times cheaper.
                hidden = functional.interpolate(self.grow[level - 1](hidden), scale_factor=2.0)
        return functional.pixel_shuffle(
            self.out(functional.silu(self.norm(hidden))), self.unshuffle
        )

    def _embed(
        self, noise_level: torch.Tensor, augmentation: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        angles = noise_level[:, None] * self.frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        told = self.noise_in(waves) + self.augmentation_in(augmentation)
        if self.labels is not None and labels is not None:
            told = told + self.labels(labels)
        hidden = functional.silu(told)
        return functional.silu(self.noise_out(hidden))
