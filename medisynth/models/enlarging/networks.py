"""Networks of the enlarging stage: a generator that draws texture from noise, and a patch critic.

A small image does not say where the speckle of the large one lies; a network that maps it to one
large image can only smear speckle or turn it into threads. This generator is given noise of its own
at every layer and learns how much of it each channel takes (Karras et al. 2019, arXiv:1812.04948).
It has no batch normalisation (Lim et al. 2017, arXiv:1707.02921), enlarges by pixel shuffle (Shi et
al. 2016, arXiv:1609.05158; started as in Aitken et al. 2017, arXiv:1707.02937), and the bilinear
enlargement is added, so that it learns detail only.
The critic is shown the enlargement beside each image and scores patches (Isola et al. 2017,
arXiv:1611.07004), so that it judges detail for that very place.
"""

import torch
from torch import nn
from torch.nn import functional

from medisynth.models.enlarging.images import bilinear
from medisynth.models.enlarging.settings import FACTORS

SLOPE = 0.2
FOLD = 2  # side of the pixel blocks that the critic folds into channels
FIRST_GAIN = 0.2  # of noise: from 0 it stays unused over a few hundred updates
N_SHOWN = 2  # an image and the enlargement beside it


class Noise(nn.Module):
    """Adds one map of noise, weighted by a learned gain of each channel.

    Args of the constructor:
        channels: Channels of the layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((channels, 1, 1), FIRST_GAIN))

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) and noise (b, 1, h, w) to (b, c, h, w)."""
        # In the layer's own precision: otherwise every later layer would be widened by it.
        return torch.addcmul(x, noise.to(x.dtype), self.gain.to(x.dtype))


class NoisyBlock(nn.Module):
    """Two convolutions with noise between them, added to their input.

    Args of the constructor:
        channels: Channels of every layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.noise = Noise(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Map (b, c, h, w) and noise (b, 1, h, w) to (b, c, h, w)."""
        return x + self.second(_leaky(self.noise(self.first(x), noise)))


class Doubling(nn.Module):
    """Convolution and pixel shuffle to twice the side, then noise.

    Args of the constructor:
        n_in: Channels in.
        n_out: Channels out.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(n_in, 4 * n_out, 3, padding=1)
        self.noise = Noise(n_out)
        # The four pixels that come from one start alike: otherwise a chequerboard stays for long.
        with torch.no_grad():
            for own in self.spread.parameters():
                own.copy_(own[::4].repeat_interleave(4, dim=0))

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Map (b, n_in, h, w) and noise (b, 1, 2h, 2w) to (b, n_out, 2h, 2w)."""
        return _leaky(self.noise(functional.pixel_shuffle(self.spread(x), 2), noise))


class EnlargingNetwork(nn.Module):
    """A network that enlarges small images given noise, and states how much noise it needs."""

    def n_noise(self, height: int, width: int) -> int:
        """Noise values that one small image of that height and width needs."""
        raise NotImplementedError


class Enlarger(EnlargingNetwork):
    """The generator: small images (b, 1, h, w), 0 to 1, to (b, 1, factor x h, factor x w).

    Args of the constructor:
        channels: Channels of every layer but those at full size, which have half as many: they
            cost most and hold texture alone.
        blocks: Residual blocks at the side of the small image; one more follows every doubling but
            the last.
        factor: 2, 4 or 8.

    Attributes:
        factor: How many times larger its images are, per side.
    """

    def __init__(self, channels: int, blocks: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        layers: list[nn.Module] = [NoisyBlock(channels) for _ in range(blocks)]
        self._sides = [1] * blocks  # of each layer's result, in sides of the small image
        for side in FACTORS[: FACTORS.index(factor)]:
            layers += [Doubling(channels, channels), NoisyBlock(channels)]
            self._sides += [side, side]
        self.layers = nn.ModuleList([*layers, Doubling(channels, channels // 2)])
        self._sides.append(factor)
        self.out = nn.Conv2d(channels // 2, 1, 3, padding=1)
        # Untrained it is the bilinear enlargement.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def n_noise(self, height: int, width: int) -> int:
        """Noise values that one small image of that height and width needs."""
        return height * width * sum(side**2 for side in self._sides)

    def forward(self, small: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Enlarge; values may leave 0 to 1 a little.

        Args:
            small: Shape (b, 1, h, w), 0 to 1.
            noise: Standard normal, shape (b, n_noise(h, w)).
        """
        maps = self._noise_maps(noise, *small.shape[2:])
        x = _leaky(self.stem((small - 0.5).contiguous(memory_format=torch.channels_last)))
        for layer, own in zip(self.layers, maps, strict=True):
            x = layer(x, own)
        return bilinear(small, self.factor) + self.out(x).float()

    def _noise_maps(self, noise: torch.Tensor, height: int, width: int) -> list[torch.Tensor]:
        shapes = [(side * height, side * width) for side in self._sides]
        flat = torch.split(noise, [h * w for h, w in shapes], dim=1)
        return [part.reshape(-1, 1, h, w) for part, (h, w) in zip(flat, shapes, strict=True)]


class Bicubic(EnlargingNetwork):
    """Doubles by cubic convolution (Keys 1981, with a = -0.75): no weights, no noise."""

    def n_noise(self, height: int, width: int) -> int:
        """Return 0: it needs no noise."""
        return 0

    def forward(self, small: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Map (b, 1, h, w) to (b, 1, 2h, 2w); edges may overshoot the range of the input."""
        return functional.interpolate(small, scale_factor=2.0, mode="bicubic", align_corners=False)


class PatchCritic(nn.Module):
    """Scores patches of two sizes, 14 and 32 pixels wide, of images beside their enlargements.

    Pixels are folded 2 x 2 into channels, which costs a quarter and loses nothing.

    Args of the constructor:
        channels: Channels of the first layers; the later ones have twice as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        n_in = N_SHOWN * FOLD**2
        self.near = nn.Sequential(
            nn.Conv2d(n_in, channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )
        self.far = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )
        self.score_near = nn.Conv2d(channels, 1, 3, padding=1)
        self.score_far = nn.Conv2d(2 * channels, 1, 3, padding=1)

    def forward(
        self, images: torch.Tensor, enlargement: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map two (b, 1, h, w) to scores (b, 1, h / 2, w / 2) and (b, 1, h / 4, w / 4).

        Higher is more real. Height and width are multiples of 4.
        """
        shown = functional.pixel_unshuffle(torch.cat([images, enlargement], dim=1) - 0.5, FOLD)
        near = self.near(shown.contiguous(memory_format=torch.channels_last))
        return self.score_near(near).float(), self.score_far(self.far(near)).float()


def _leaky(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, SLOPE)
