"""Attention over a whole map, or double window attention (Zhang et al. 2022, arXiv:2112.10762).

In windows half of the heads attend within plain windows and half within windows shifted by half
their side, in the same layer, so that one layer sees beyond its window (section 3.2 of the paper).
It uses plain products and softmax, not a fused kernel: the learned position bias needs a gradient,
for which fused attention is three to four times slower on a CPU. The step between the two linear
layers has a hand-written gradient, which avoids the copies of shifting, scaling and stacking in
both directions.
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from medisynth.models.adversarial.layers import linear

BRANCH_GAIN = 0.5**0.5  # of the last layer of a branch that is added to its input
MASKED = -100.0  # exp(-100) is 0 in every precision
PLAIN, SHIFTED = 0, 1

# Places along one axis in half windows: (window, half of it) in windows and in the map.
Halves = tuple[slice, slice | int]
Pieces = tuple[tuple[Halves, Halves], ...]
ALL = slice(None)
WHOLE: Pieces = (((ALL, ALL), (ALL, ALL)),)
# A shifted window begins in the middle of a plain one and ends in the middle of the next; the last
# ends in the first.
ACROSS: Pieces = (
    ((ALL, 0), (ALL, 1)),
    ((slice(None, -1), 1), (slice(1, None), 0)),
    ((slice(-1, None), 1), (slice(None, 1), 0)),
)


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
    """Attention mask for pairs of places in a shifted window that the wrapped edge separates.

    Returns:
        Shape (windows, 1, window², window²): 0, or MASKED across the wrapped edge.
    """
    n, shift = side // window, window // 2
    place = torch.arange(side, device=device)
    # Shifted, the last `shift` rows come from the other edge.
    region = (place >= side - shift).long() + (place >= side - window).long()
    labels = (region[:, None] * 3 + region[None]).view(n, window, n, window)
    labels = labels.transpose(1, 2).reshape(n * n, 1, window**2)
    return torch.where(labels[..., None] == labels[:, :, None], 0.0, MASKED)


def copy_windows(places: torch.Tensor, windows: torch.Tensor, half: int, *, back: bool) -> None:
    """Copy every place of a map to where it lies in windows, or back.

    Args:
        places: Queries, keys, values or any other features of a map, shape (side, side, b, f).
        windows: Their heads in windows, shape (parts, b, windows, heads, window², channels) with
            parts · heads · channels = f.
        half: PLAIN windows or SHIFTED ones.
        back: From windows to the map.
    """
    parts, b, n_windows, heads, area, channels = windows.shape
    n, middle = int(n_windows**0.5), int(area**0.5) // 2
    cut = (n, 2, middle)
    in_map = places.view(*cut, *cut, b, parts, heads, channels)
    in_windows = windows.view(parts, b, n, n, heads, 2, middle, 2, middle, channels)
    in_windows = in_windows.permute(2, 5, 6, 3, 7, 8, 1, 0, 4, 9)
    pieces = ACROSS if half == SHIFTED else WHOLE
    for down, from_down in pieces:
        for across, from_across in pieces:
            there = in_windows[(*down, ALL, *across)]
            here = in_map[(*from_down, ALL, *from_across)]
            if back:
                here.copy_(there)
            else:
                there.copy_(here)


class _Attended(torch.autograd.Function):
    """Attention within windows, of all heads or in two halves.

    Its gradient is that of softmax(scale · Q Kᵀ + bias) V, once differentiable.
    """

    @staticmethod
    def forward(ctx: Any, qkv: torch.Tensor, *biases: torch.Tensor) -> torch.Tensor:
        """Compute attention within the windows.

        Args:
            ctx: torch's context, which keeps tensors for the gradient.
            qkv: Queries, keys and values of the plain windows, then of the shifted ones where there
                are any, shape (side, side, b, 3 · width).
            biases: That of plain windows, shape (1, heads, window², window²); where half of the
                heads attend within shifted ones, theirs, shape (windows, heads, window², window²).

        Returns:
            Values, in the same order, shape (side, side, b, width).
        """
        side, _, b, width = (*qkv.shape[:3], qkv.shape[3] // 3)
        n_halves, heads, area = len(biases), *biases[0].shape[1:3]
        n_windows, channels = side**2 // area, width // (n_halves * heads)
        out = qkv.new_empty(side, side, b, width)
        kept = []
        for half, bias in enumerate(biases):
            parts = qkv.new_empty(3, b, n_windows, heads, area, channels)
            copy_windows(qkv.chunk(n_halves, dim=-1)[half], parts, half, back=False)
            query, key, value = parts.flatten(1, 3)
            scores = torch.bmm(query, key.transpose(1, 2)).view(b, n_windows, heads, area, area)
            scores = torch.add(bias.to(scores.dtype), scores, alpha=channels**-0.5, out=scores)
            weights = scores.softmax(dim=-1)
            values = torch.bmm(weights.flatten(0, 2), value).view_as(parts[:1])
            copy_windows(out.chunk(n_halves, dim=-1)[half], values, half, back=True)
            kept += [parts, weights]
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of `forward`'s arguments."""
        kept = ctx.saved_tensors
        n_halves = len(kept) // 2
        side, _, b, width = gradient.shape
        of_qkv = gradient.new_empty(side, side, b, 3 * width)
        of_biases = []
        for half, (parts, weights) in enumerate(zip(kept[::2], kept[1::2], strict=True)):
            of_values = torch.empty_like(parts[:1])
            copy_windows(gradient.chunk(n_halves, dim=-1)[half], of_values, half, back=False)
            of_parts = torch.empty_like(parts)
            of_scores = _gradients(parts, weights, of_values, of_parts)
            copy_windows(of_qkv.chunk(n_halves, dim=-1)[half], of_parts, half, back=True)
            summed = of_scores.sum(dim=(0, 1) if half == PLAIN else 0)
            of_biases.append(summed[None] if half == PLAIN else summed)
        return of_qkv, *of_biases


def _gradients(
    parts: torch.Tensor, weights: torch.Tensor, of_values: torch.Tensor, of_parts: torch.Tensor
) -> torch.Tensor:
    """Write gradients of queries, keys and values into `of_parts`; return those of the scores."""
    query, key, value = parts.flatten(1, 3)
    of_query, of_key, of_value = of_parts.flatten(1, 3)
    gradient = of_values.flatten(0, 3)
    torch.bmm(weights.flatten(0, 2).transpose(1, 2), gradient, out=of_value)
    of_weights = torch.bmm(gradient, value.transpose(1, 2)).view_as(weights)
    of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
    flat, scale = of_scores.flatten(0, 2), parts.shape[-1] ** -0.5
    torch.bmm(flat, key, out=of_query).mul_(scale)
    torch.bmm(flat.transpose(1, 2), query, out=of_key).mul_(scale)
    return of_scores


class Attention(nn.Module):
    """Self-attention of (side, side, b, width), over the whole map or within two sets of windows.

    Args of the constructor:
        width: Channels.
        heads: Heads; they divide the width. In windows their number is even.
        side: Side of the feature map.
        window: Side of a window, an even number that divides `side`; with `side` itself and
            `is_whole` every head sees the whole map, otherwise half of the windows are shifted.
        is_whole: Whether all heads attend over the whole map.
        equalised: Whether the learning rates of its linear layers are equalised.
    """

    def __init__(
        self, width: int, heads: int, side: int, window: int, *, is_whole: bool, equalised: bool
    ) -> None:
        super().__init__()
        self.side, self.window = side, side if is_whole else window
        self.n_halves = 1 if is_whole else 2
        self.heads = heads // self.n_halves
        self.qkv = linear(width, 3 * width, equalised=equalised)
        self.out = linear(width, width, equalised=equalised, gain=BRANCH_GAIN)
        n_offsets = (2 * self.window - 1) ** 2
        self.bias_table = nn.Parameter(torch.zeros(self.n_halves, n_offsets, self.heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (side, side, b, width) to the same shape."""
        biases = list(self._bias())
        if self.n_halves == 2:
            biases[SHIFTED] = biases[SHIFTED] + shifted_mask(self.side, self.window, x.device)
        attended = _Attended.apply(self.qkv(x), *biases)  # type: ignore[no-untyped-call]
        return self.out(attended)

    def _bias(self) -> torch.Tensor:
        """Position bias, shape (halves, 1, heads, window², window²)."""
        area = self.window**2
        rows = self.bias_table[:, relative_index(self.window, self.bias_table.device)]
        rows = rows.view(self.n_halves, area, area, self.heads)
        return rows.permute(0, 3, 1, 2).contiguous()[:, None]
