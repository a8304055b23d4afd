"""Count of parameters without effect on a network's output, and first layers of FID's Inception."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from governance.records.errors import WeightsError
from medisynth.data.reading.views import Pixels
from medisynth.metrics.features import Features
from medisynth.metrics.inception_weights import INCEPTION_SHA256, arrays_sha256, build_network

LAYERS = {64: 0, 192: 1}
"""Feature size of a layer -> its block in pytorch-fid's network."""

_BATCH = 8
_SIDE_PX = 8  # any picture shows which parameters take part


def parameters_without_gradient(network: nn.Module) -> tuple[int, int]:
    """Count parameters that have no effect on the output, by one backward pass.

    Args:
        network: Takes one grey picture, (2, 1, 8, 8).

    Returns:
        Number without a gradient, and number of all.
    """
    network.zero_grad(set_to_none=True)
    network(torch.zeros(2, 1, _SIDE_PX, _SIDE_PX)).sum().backward()
    sizes = [(p.numel(), p.grad is None) for p in network.parameters()]
    return sum(n for n, untouched in sizes if untouched), sum(n for n, _ in sizes)


def early_layers(weights: Path) -> Callable[[Pixels], dict[int, Features]]:
    """Load the extractor of the first two layers that FID implementations offer, pooled features.

    Args:
        weights: File written by `medisynth-gov weights fetch`.

    Returns:
        A function from pictures, (n, h, w) uint8, to features (n, 64) and (n, 192), float64, by
        feature size.

    Raises:
        WeightsError: The file is missing, unreadable or holds other weights.
    """
    try:
        arrays = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{weights}: Inception weights cannot be read ({error}); run "
            "`medisynth-gov weights fetch`"
        ) from error
    if arrays_sha256(arrays) != INCEPTION_SHA256:
        raise WeightsError(
            f"{weights}: holds other Inception weights; delete the file and run "
            "`medisynth-gov weights fetch`"
        )
    network = build_network(arrays)
    blocks = cast(nn.ModuleList, network.get_submodule("blocks"))
    return lambda pixels: _extract(blocks, pixels)


def _extract(blocks: nn.ModuleList, pixels: Pixels) -> dict[int, Features]:
    features = {size: np.empty((len(pixels), size)) for size in LAYERS}
    with torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            grey = torch.from_numpy(np.array(pixels[start : start + _BATCH]))
            x = grey.unsqueeze(1).float().expand(-1, 3, -1, -1) / 255
            # As pytorch-fid: 299 x 299 pixels, bilinear, values -1 to 1.
            x = 2 * nn.functional.interpolate(x, (299, 299), mode="bilinear") - 1
            for size, place in LAYERS.items():
                x = blocks[place](x)
                features[size][start : start + len(grey)] = x.mean((2, 3)).numpy()
    return features
