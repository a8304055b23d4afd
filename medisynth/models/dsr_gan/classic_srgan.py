"""Networks of the published super-resolution GAN, after Ledig et al. 2017 (arXiv:1609.04802).

Only `deviations.classic_srgan` uses them; the corrected recipe has `medisynth.models.enlarging`.
"""

import math

import torch
from torch import nn

SLOPE = 0.2


def upsampling(channels: int, factor: int) -> list[nn.Module]:
    """Convolutions and pixel shuffles, each of which doubles the side."""
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
        # What the other layers make of the input is thrown away, so it is not even computed.
        return x + (self.body[-1](x) if self.broken else self.body(x))


class ClassicEnlarger(nn.Module):
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

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        """Enlarge; values may leave 0 to 1."""
        stem = self.stem(small.contiguous(memory_format=torch.channels_last))
        return self.out(self.enlarge(stem + self.after(self.blocks(stem)))).float()


class ClassicDiscriminator(nn.Module):
    """The published discriminator: one score for a whole image of any size from 16 pixels.

    The paper gives no layout but a size of 5.07 million. Ledig's widths give 5.21 million; without
    their second layer of 128 channels they are 5,066,433 at 64 first channels, which is taken.
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
