"""Halving, doubling and the Haar wavelet by ordinary convolutions, without custom kernels."""

from functools import cache

import torch
from torch.nn import functional

BLUR = (
    1.0,
    3.0,
    3.0,
    1.0,
)  # binomial; the low pass that StyleGAN2 (arXiv:1912.04958) resamples with


@cache
def blur_kernel(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Kernel of the 4 x 4 low pass, sum 1, shape (1, 1, 4, 4)."""
    line = torch.tensor(BLUR, dtype=torch.float64)
    kernel = torch.outer(line, line)
    return (kernel / kernel.sum()).to(device, dtype)[None, None]


def blurred(images: torch.Tensor, padding: int, stride: int = 1) -> torch.Tensor:
    """Apply a low pass to every channel; zeros outside.

    Args:
        images: Shape (b, c, h, w).
        padding: Zeros added at each side.
        stride: Pixels between two results; only results that are kept are computed.
    """
    kernel = blur_kernel(images.device, images.dtype).expand(images.shape[1], 1, 4, 4)
    return functional.conv2d(images, kernel, stride=stride, padding=padding, groups=images.shape[1])


def halved(images: torch.Tensor) -> torch.Tensor:
    """Apply a low pass and keep every second pixel: (b, c, h, w) to (b, c, h / 2, w / 2).

    The same as `blurred` with padding 1 and stride 2: its kernel is that of three running means of
    two pixels. Means stay in fp32 under autocast, where a convolution does not.
    """
    wider = functional.avg_pool2d(images, 2, stride=1, padding=1)
    return functional.avg_pool2d(functional.avg_pool2d(wider, 2, stride=1), 2)


def doubled(images: torch.Tensor) -> torch.Tensor:
    """Enlarge two times: (b, c, h, w) to (b, c, 2 h, 2 w).

    Bilinear interpolation between pixel centres weighs neighbours 3 to 1: it is the same low pass
    after zeros are put between pixels, but repeats the edge in place of darkening it.
    """
    return functional.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)


def haar(images: torch.Tensor) -> torch.Tensor:
    """Haar wavelet transform: (b, c, h, w) to (b, 4 c, h / 2, w / 2); keeps the sum of squares.

    Returns:
        Channels in the order mean, horizontal, vertical, diagonal difference; c of each.
    """
    top_left, top_right = images[..., ::2, ::2], images[..., ::2, 1::2]
    low_left, low_right = images[..., 1::2, ::2], images[..., 1::2, 1::2]
    top, low = top_left + top_right, low_left + low_right
    across, across_low = top_left - top_right, low_left - low_right
    bands = (top + low, across + across_low, top - low, across - across_low)
    return torch.cat(bands, dim=1) * 0.5


def from_haar(bands: torch.Tensor) -> torch.Tensor:
    """Inverse Haar wavelet transform: (b, 4 c, h, w) to (b, c, 2 h, 2 w); undoes `haar`."""
    mean, across, down, diagonal = bands.chunk(4, dim=1)
    left, right = mean + across, mean - across
    left_down, right_down = down + diagonal, down - diagonal
    corners = (left + left_down, right + right_down, left - left_down, right - right_down)
    # Pixel shuffle reads the four corners of a channel one after the other.
    return functional.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2) * 0.5, 2)
