"""What the published networks hold: parameters without effect, the upscaler's wiring, FID's Inception."""

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
from medisynth.studies.midl2023.findings import CODE, PAPER, Finding, Verdict, count, not_evaluated

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


_NUMBER, _TITLE = "5.3", "Wiring of the upscaler"
_CLAIM = '"then scale them up to 256x256 using SRGAN", citing Ledig et al. 2017'
_WHERE = f"{PAPER}, section 2.1 Diffusion-Super-Resolution-GAN"
_RULE = (
    "network of 64 channels and 5 residual blocks, 2 x enlargement, one backward pass; parameters "
    "whose gradient is None"
)


def upscaler_wiring(faulty: tuple[int, int], correct: tuple[int, int]) -> Finding:
    """Report the share of the published upscaler that never gets a gradient.

    Args:
        faulty: Numbers of parameters without a gradient and of all, wired as published.
        correct: The same with each layer reading the layer before it.
    """
    values = (
        count("parameters without a gradient, as published", faulty[0], _RULE, of=faulty[1]),
        count(
            "parameters without a gradient, each layer reading the one before",
            correct[0],
            "the same network in the wiring of Ledig et al.",
            of=correct[1],
        ),
    )
    return Finding(
        _NUMBER,
        _TITLE,
        _CLAIM,
        _WHERE,
        values,
        Verdict.NOT_AS_STATED if faulty[0] else Verdict.REPRODUCED,
        "The residual blocks are not those of the cited network: only the last layer of each takes "
        "part, the others stay as they were drawn."
        if faulty[0]
        else "Every parameter takes part.",
        "a network built here in both wirings",
        "the wiring: each layer of a residual block is given the block's input "
        f"({CODE}, notebooks/difussion-super-resolution-gan/DSRGAN.ipynb)",
    )


def upscaler_wiring_missing() -> Finding:
    """Return finding 5.3 as not evaluated, since networks were not requested."""
    reason = "networks were not asked for; give --networks"
    return not_evaluated(_NUMBER, _TITLE, claim=_CLAIM, where=_WHERE, reason=reason, source="none")
