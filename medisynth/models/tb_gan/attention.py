"""Double window attention (Zhang et al. 2022, arXiv:2112.10762, section 3.2).

Half of the heads attend within plain windows and half within windows shifted by half their side, in
the same layer, so that one layer sees beyond its window. Both halves are one batch of matrix
products. Plain products and softmax in place of a fused kernel: the learned position bias needs a
gradient, for which fused attention is three to four times slower on a CPU.
"""

from functools import cache

import torch
from torch import nn

MASKED = -100.0  # exp(-100) is 0 in every precision


@cache
def relative_index(window: int, device: torch.device) -> torch.Tensor:
    """Row of the bias table for each pair of places in a window, shape (window⁴,)."""
    place = torch.arange(window, device=device)
    rows, columns = (axis.flatten() for axis in torch.meshgrid(place, place, indexing="ij"))
    down = rows[:, None] - rows[None] + window - 1
    across = columns[:, None] - columns[None] + window - 1
    return (down * (2 * window - 1) + across).flatten()


@cache
def shifted_mask(side: int, window: int, device: torch.device) -> torch.Tensor:
    """What to add where two places of a shifted window were not neighbours before the shift.

    Returns:
        Shape (windows, 1, window², window²): 0, or MASKED across the wrapped edge.
    """
    shift = window // 2
    place = torch.arange(side, device=device)
    # Rolled by `shift`, the last `shift` rows come from the other edge.
    region = (place >= side - shift).long() + (place >= side - window).long()
    labels = windows_of((region[:, None] * 3 + region[None])[None, :, :, None], window)
    labels = labels.flatten(1)
    return torch.where(labels[:, None, :, None] == labels[:, None, None, :], 0.0, MASKED)


def windows_of(x: torch.Tensor, window: int) -> torch.Tensor:
    """Cut (b, h, w, c) into (b · windows, window, window, c), row by row."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c).transpose(2, 3)
    return x.reshape(-1, window, window, c)


def joined(windows: torch.Tensor, side: int) -> torch.Tensor:
    """Put windows back together: inverse of `windows_of` for square images of a side."""
    window, c = windows.shape[1], windows.shape[3]
    n = side // window
    x = windows.view(-1, n, n, window, window, c).transpose(2, 3)
    return x.reshape(-1, side, side, c)


class DoubleAttention(nn.Module):
    """Self-attention of (b, side, side, width), half in plain and half in shifted windows.

    Args of the constructor:
        width: Channels.
        heads: Heads, an even number that divides the width.
        side: Side of the feature map.
        window: Side of a window; divides `side`.
    """

    def __init__(self, width: int, heads: int, side: int, window: int) -> None:
        super().__init__()
        self.side, self.window = side, window
        self.half_heads = heads // 2
        self.channels = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros(2, (2 * window - 1) ** 2, self.half_heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (b, side, side, width) to the same shape."""
        plain, shifted = self.qkv(x).chunk(2, dim=-1)
        shift = self.window // 2
        shifted = shifted.roll((-shift, -shift), dims=(1, 2))
        bias = self._bias()
        masked = bias[1] + shifted_mask(self.side, self.window, x.device)
        plain = self._attended(plain, bias[0])
        shifted = self._attended(shifted, masked).roll((shift, shift), dims=(1, 2))
        return self.out(torch.cat([plain, shifted], dim=-1))

    def _bias(self) -> torch.Tensor:
        """Position bias of both halves, shape (2, 1, heads / 2, window², window²)."""
        area = self.window**2
        rows = self.bias_table[:, relative_index(self.window, self.bias_table.device)]
        return rows.view(2, area, area, self.half_heads).permute(0, 3, 1, 2)[:, None]

    def _attended(self, qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Attend within windows of one half; bias of shape (1 or windows, heads, area, area)."""
        n, window, heads, channels = (
            self.side // self.window,
            self.window,
            self.half_heads,
            self.channels,
        )
        b, area = qkv.shape[0], window**2
        parts = qkv.view(b, n, window, n, window, 3, heads, channels).permute(
            5, 0, 1, 3, 6, 2, 4, 7
        )
        query, key, value = parts.reshape(3, b, n * n, heads, area, channels)
        scores = (query * channels**-0.5) @ key.transpose(-2, -1)
        weights = (scores + bias.to(scores.dtype)).softmax(dim=-1)
        values = (weights @ value).view(b, n, n, heads, window, window, channels)
        return values.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, self.side, self.side, -1)
