"""How much each network computes, and how close each training step comes to the machine's limit.

The limit is what the fastest of a few large 3 x 3 convolutions reaches in the same run. What a step
computes is estimated as is usual: a forward pass of F operations costs 3 F with its backward pass.
In an adversarial update the discriminator D sees two images (6 F) to learn and one (2 F, no
gradient of its weights) to teach, so an update is 3 F of the generator + 8 F of D an image. The
operations counted by torch in that step stand beside it; norms, activations, optimiser and loading
are in neither, but in the time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from medisynth.models.enlarging.stage import new_enlarger
from medisynth.training.loop import Precision
from tests.benchmarks.interleaved import flop_of, interleaved, n_weights, print_table
from tests.benchmarks.own_stages import (
    adversarial_stage,
    diffusion_stage,
    laptop,
    super_resolution_stage,
    tb_gan,
)

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CONVOLUTIONS = ((16, 128, 64), (8, 256, 64), (16, 256, 32), (16, 512, 32))  # batch, channels, side
TEACHING = 8  # forward passes' worth of the discriminator in an adversarial update
LEARNING = 3

Networks = list[tuple[str, int, int]]  # name, parameters, operations of a forward pass an image


@dataclass(frozen=True)
class Work:
    """One training step: how to make it in each precision, images in it, operations an image."""

    name: str
    steps: dict[str, Callable[[], object]]
    batch_size: int
    estimated_flop: int
    counted_flop: float


def work(repeats: int) -> None:
    """Print operations of networks, the limit of the machine and the share reached."""
    networks: Networks = []
    steps = [make(networks) for make in (_diffusion, _super_resolution, _adversarial)]
    rows = [[name, f"{n:,}", f"{flop / 1e9:.3f}"] for name, n, flop in networks]
    header = ["network (laptop sizes)", "parameters", "forward, GFLOP an image"]
    print_table("Operations", header, rows)
    peak = {precision: convolution_peak(precision, repeats) for precision in PRECISIONS}
    print(
        "\nMeasured convolution peak: "
        + ", ".join(f"{flop / 1e12:.3f} TFLOP/s in {name}" for name, flop in peak.items())
    )
    rows = []
    for step in steps:
        times = interleaved(step.steps, repeats)
        for precision in PRECISIONS:
            each_s = times[precision].least / step.batch_size
            rows.append(
                [
                    f"{step.name}, batch {step.batch_size}, {precision}",
                    f"{1 / each_s:.1f}",
                    f"{step.estimated_flop / 1e9:.2f}",
                    f"{step.counted_flop / 1e9:.2f}",
                    f"{step.estimated_flop / each_s / peak[precision]:.0%}",
                ]
            )
    header = ["training step", "images a second", "estimated GFLOP an image"]
    header += ["counted GFLOP an image", "share of peak (estimated)"]
    print_table("Share of the machine's convolution peak", header, rows)


def convolution_peak(precision: Precision, repeats: int) -> float:
    """Operations a second of the fastest convolution."""
    best = 0.0
    for n, channels, side in CONVOLUTIONS:
        images = torch.randn(n, channels, side, side, dtype=DTYPES[precision])
        weight = torch.randn(channels, channels, 3, 3, dtype=DTYPES[precision])
        images, weight = (x.contiguous(memory_format=torch.channels_last) for x in (images, weight))
        once = partial(functional.conv2d, images, weight, padding=1)
        with torch.no_grad():
            took = interleaved({"convolution": once}, repeats)["convolution"]
        best = max(best, 2 * 9 * n * channels**2 * side**2 / took.least)
    return best


def _diffusion(networks: Networks) -> Work:
    settings = laptop()
    stages = {precision: diffusion_stage(settings, precision) for precision in PRECISIONS}
    size, network = settings.diffusion.size, stages["fp32"].network
    told = torch.randn(1, 1, size, size), torch.zeros(1), torch.zeros(1, 4)
    flop = flop_of(partial(network, *told))
    networks.append((f"diffusion UNet, {size} px", n_weights(network), flop))
    steps: dict[str, Callable[[], object]] = {
        precision: partial(stage.step, 200) for precision, stage in stages.items()
    }
    return _work("diffusion", steps, settings.diffusion.batch_size, LEARNING * flop)


def _super_resolution(networks: Networks) -> Work:
    settings = laptop()
    own = settings.super_resolution
    stages = {precision: super_resolution_stage(settings, precision) for precision in PRECISIONS}
    stage, side = stages["fp32"], own.crop
    small, large = (torch.rand(1, 1, n, n) for n in (side // 2, side))
    noise = torch.randn(1, new_enlarger(own, 2, 0).n_noise(*small.shape[2:]))
    flop = [
        flop_of(partial(stage.enlarger, small, noise)),
        flop_of(partial(stage.discriminator, large, large)),
    ]
    for name, network, each in (
        (f"super-resolution generator, crop of {side} px", stage.enlarger, flop[0]),
        (f"super-resolution discriminator, crop of {side} px", stage.discriminator, flop[1]),
    ):
        networks.append((name, n_weights(network), each))
    steps: dict[str, Callable[[], object]] = {
        # The last step, in which both networks learn.
        precision: partial(stage.step, own.steps - 1)
        for precision, stage in stages.items()
    }
    estimated = LEARNING * flop[0] + TEACHING * flop[1]
    return _work("super-resolution", steps, own.batch_size, estimated)


def _adversarial(networks: Networks) -> Work:
    settings = tb_gan("laptop")
    stages = {precision: adversarial_stage(settings, precision) for precision in PRECISIONS}
    made, size = stages["fp32"].networks, settings.size
    flop = [
        flop_of(partial(made.generator, torch.randn(1, made.generator.n_numbers))),
        flop_of(partial(made.discriminator, torch.randn(1, 1, size, size))),
    ]
    for name, network, each in (
        (f"TB-GAN generator, {size} px", made.generator, flop[0]),
        (f"TB-GAN discriminator, {size} px", made.discriminator, flop[1]),
    ):
        networks.append((name, n_weights(network), each))
    steps: dict[str, Callable[[], object]] = {
        precision: partial(stage.step, 1) for precision, stage in stages.items()
    }
    estimated = LEARNING * flop[0] + TEACHING * flop[1]
    return _work("TB-GAN without penalty", steps, settings.batch_size, estimated)


def _work(
    name: str, steps: dict[str, Callable[[], object]], batch_size: int, estimated_flop: int
) -> Work:
    return Work(name, steps, batch_size, estimated_flop, flop_of(steps["fp32"]) / batch_size)
