"""Speed of the two generators: against other implementations, and against the machine's limit.

Run from the repository root, one part or several:

    python -m tests.benchmarks.generators diffusion sampling --diffusion-peer FOLDER
    python -m tests.benchmarks.generators styleswin --styleswin-peer FOLDER
    python -m tests.benchmarks.generators loader work

In every comparison the contestants take turns in one process with equal threads, and the least of
`--repeats` times of each counts. The range in brackets is that of the ratios within each turn: a
wide one means that something else was running. Expect 20 to 25 minutes for all parts on two idle
cores, half of them for `styleswin`, which holds four pairs of networks of 60 million parameters.
What the two peers are is said in `diffusion_peer.py` and `styleswin_peer.py`.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.tb_gan.networks import Networks
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training.loop import Precision, choose_precision
from tests.benchmarks.diffusion_peer import DiffusionPeer, use_peer
from tests.benchmarks.interleaved import (
    Times,
    flop_of,
    interleaved,
    n_weights,
    print_machine,
    print_table,
)
from tests.benchmarks.loading import loader
from tests.benchmarks.own_stages import (
    adversarial_stage,
    diffusion_stage,
    heun_samples,
    laptop,
    tb_gan,
)
from tests.benchmarks.styleswin_peer import R1_EVERY, STYLE_WIDTH, StyleSwinPeer
from tests.benchmarks.work import work

SIZE = 64
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

# Equal networks: as many levels and residual blocks; of all channels (multiples of 8) whose
# parameters differ by less than 2 %, those that are nearest in operations of a forward pass too.
PEER_DIM, PEER_MULTS = 40, (1, 2, 4)
CHANNELS, LAYERS = (48, 96, 120), 2
MOST_PARAMETERS_APART = 0.02

# The peer's README.
README_DIM, README_MULTS, README_CHANNELS, README_DDIM_STEPS = 64, (1, 2, 4, 8), 3, 250
ALL_STEPS = 1000
TRIAL_STEP = 200  # after warm-up of the learning rate


def equal_settings(batch_size: int) -> DsrGanSettings:
    """The laptop preset with the network that is compared: no folded pixels, as the peer's."""
    preset = laptop()
    changed = {"unshuffle": 1, "channels": CHANNELS, "layers": LAYERS, "batch_size": batch_size}
    diffusion = preset.diffusion.model_copy(update=changed)
    return preset.model_copy(update={"diffusion": diffusion})


def equal_peer(precision: Precision, sampling_steps: int) -> DiffusionPeer:
    """The peer with a network of equal size, for grey images, averaged in every update."""
    return DiffusionPeer(
        PEER_DIM,
        PEER_MULTS,
        image_channels=1,
        flash=False,
        size=SIZE,
        sampling_steps=sampling_steps,
        ema_every=1,
        precision=precision,
    )


def readme_peer(sampling_steps: int) -> DiffusionPeer:
    """The peer as its README builds it, averaged in every tenth update as its Trainer does."""
    return DiffusionPeer(
        README_DIM,
        README_MULTS,
        image_channels=README_CHANNELS,
        flash=True,
        size=SIZE,
        sampling_steps=sampling_steps,
        ema_every=10,
        precision="fp32",
    )


def diffusion(options: argparse.Namespace) -> None:
    """Compare one update: images to gradient to weights to average."""
    _describe_networks()
    rows = []
    for batch_size in options.batches:
        rows += _equal_rows(batch_size, options.repeats)
    rows.append(_default_row(options.repeats))
    header = ["update", "peer, s", "this project, s", "ratio (range)"]
    print_table("Diffusion training step, 64 x 64 pixels", header, rows)
    print(
        "\nThis project's step also reads 128 x 128 uint8 images, moves them and reduces them; "
        "the peer is given its tensor."
    )


def _describe_networks() -> None:
    noisy, level = torch.randn(1, 1, SIZE, SIZE), torch.zeros(1)
    rows = []
    for name, own, peer, colour in (
        ("equal", equal_settings(2), equal_peer("fp32", ALL_STEPS), noisy),
        ("defaults", laptop(), readme_peer(ALL_STEPS), noisy.expand(-1, 3, -1, -1)),
    ):
        network = diffusion_stage(own, "fp32").network
        counts = n_weights(peer.network), n_weights(network)
        apart = counts[1] / counts[0] - 1
        if name == "equal" and abs(apart) > MOST_PARAMETERS_APART:
            raise SystemExit(f"networks are not equal: {counts[0]:,} and {counts[1]:,} parameters")
        told = torch.zeros(1, 4)
        flop = (
            flop_of(partial(peer.network, colour, level)),
            flop_of(partial(network, noisy, level, told)),
        )
        rows.append([name, *(f"{n:,}" for n in counts), *(f"{n / 1e9:.2f}" for n in flop)])
    header = ["networks", "peer, parameters", "this project, parameters"]
    header += ["peer, GFLOP an image", "this project, GFLOP an image"]
    print_table("Diffusion networks (one forward pass)", header, rows)


def _equal_rows(batch_size: int, repeats: int) -> list[list[str]]:
    settings = equal_settings(batch_size)
    contestants: dict[str, Callable[[], object]] = {}
    for precision in PRECISIONS:
        stage, peer = diffusion_stage(settings, precision), equal_peer(precision, ALL_STEPS)
        contestants[f"own {precision}"] = partial(stage.step, TRIAL_STEP)
        contestants[f"peer {precision}"] = partial(peer.step, peer.images(batch_size))
    chosen = choose_precision("auto", lambda which: _call(contestants[f"own {which}"]), "cpu")
    times = interleaved(contestants, repeats)
    pairs = [(precision, precision) for precision in PRECISIONS] + [("fp32", chosen)]
    return [
        _row(
            f"equal, batch {batch_size}, peer {theirs}, this project "
            + (f"auto ({own})" if place == len(PRECISIONS) else own),
            times[f"peer {theirs}"],
            times[f"own {own}"],
        )
        for place, (theirs, own) in enumerate(pairs)
    ]


def _default_row(repeats: int) -> list[str]:
    settings, peer = laptop(), readme_peer(ALL_STEPS)
    batch_size = settings.diffusion.batch_size
    steps = {
        precision: partial(diffusion_stage(settings, precision).step, TRIAL_STEP)
        for precision in PRECISIONS
    }
    chosen = choose_precision("auto", lambda which: _call(steps[which]), "cpu")
    images = peer.images(batch_size)
    times = interleaved({"peer": partial(peer.step, images), "own": steps[chosen]}, repeats)
    name = f"defaults, batch {batch_size}, peer fp32 (README), this project auto ({chosen}, laptop)"
    return _row(name, times["peer"], times["own"])


def sampling(options: argparse.Namespace) -> None:
    """Compare drawing the same number of images, all in fp32."""
    rows = []
    for name, settings, make in (
        ("equal", equal_settings(2), partial(equal_peer, "fp32")),
        ("defaults", laptop(), readme_peer),
    ):
        rows += _sampling_rows(name, settings, make, options)
    header = ["sampling", "peer, s an image", "this project, s an image", "ratio (range)"]
    print_table(f"Sampling {options.images} images at once, 64 x 64 pixels, fp32", header, rows)


def _sampling_rows(
    name: str,
    settings: DsrGanSettings,
    make: Callable[[int], DiffusionPeer],
    options: argparse.Namespace,
) -> list[list[str]]:
    n, n_ancestral = options.images, options.ancestral_steps
    n_heun = settings.diffusion.sampler_steps
    n_evaluations = 2 * n_heun - 1
    stage = diffusion_stage(settings, "fp32")
    stage.network.eval()
    contestants = {
        "own": partial(heun_samples, stage, settings, n),
        "ddim": partial(make(n_evaluations).sample, n),
        "ancestral": partial(make(ALL_STEPS).some_ancestral_steps, n, n_ancestral),
    }
    times = interleaved(contestants, options.repeats, warm_up=1)
    rows = []
    for against, kind, n_steps, n_measured in (
        ("DDIM, as many evaluations", "ddim", n_evaluations, n_evaluations),
        (f"DDIM {README_DDIM_STEPS}", "ddim", README_DDIM_STEPS, n_evaluations),
        (f"ancestral {ALL_STEPS}", "ancestral", ALL_STEPS, n_ancestral),
    ):
        # Every step costs the same, so that a part of a long sampling tells the whole.
        seconds = (n_steps / n_measured * each for each in times[kind].seconds)
        scaled = "" if n_steps == n_measured else f", scaled from {n_measured} steps"
        label = f"{name}: Heun {n_heun} ({n_evaluations} evaluations) against {against}{scaled}"
        rows.append(_row(label, Times(tuple(seconds)), times["own"], n_images=n))
    return rows


def styleswin_settings(batch_size: int) -> TbGanSettings:
    """The paper preset with widths and heads of the official code at 64 pixels; all augmentations."""
    changes = {
        "size": SIZE,
        "widths": (512, 512, 512, 512, 256),
        "heads": (16, 16, 16, 16, 8),
        "discriminator_widths": (512, 512, 512, 512),
        "batch_size": batch_size,
    }
    return TbGanSettings.model_validate(tb_gan("paper").model_dump() | changes)


def styleswin(options: argparse.Namespace) -> None:
    """Compare one update of both networks with the official code at its own widths."""
    folder, batch_size = options.styleswin_peer, options.styleswin_batch
    settings = styleswin_settings(batch_size)
    own = {precision: adversarial_stage(settings, precision) for precision in PRECISIONS}
    peers = {
        precision: StyleSwinPeer(folder, SIZE, batch_size, precision) for precision in PRECISIONS
    }
    _print_styleswin_networks(own["fp32"].networks, peers["fp32"])
    contestants: dict[str, Callable[[], object]] = {}
    for precision in PRECISIONS:
        for with_r1 in (False, True):
            place, step = f"{precision} {with_r1}", R1_EVERY if with_r1 else 1
            contestants[f"own {place}"] = partial(own[precision].step, step)
            contestants[f"peer {place}"] = partial(peers[precision].step, with_r1=with_r1)
    chosen = choose_precision("auto", lambda which: _call(contestants[f"own {which} False"]), "cpu")
    times = interleaved(contestants, options.repeats, warm_up=1)
    print_table(
        f"StyleSwin training step, equal widths, {SIZE} x {SIZE} pixels, batch {batch_size}",
        ["update", "peer, s", "this project, s", "ratio (range)"],
        _styleswin_rows(times, chosen),
    )
    print(
        "\nThis project draws synthetic images once for both updates where the official code draws "
        "them twice; it augments all images, which the official code does not by default."
    )


def _print_styleswin_networks(networks: Networks, peer: StyleSwinPeer) -> None:
    latent = torch.randn(1, STYLE_WIDTH)
    numbers = torch.randn(1, networks.generator.n_numbers)
    own_image, image = torch.randn(1, 1, SIZE, SIZE), torch.randn(1, 3, SIZE, SIZE)
    rows = []
    for name, theirs, ours, given, taken in (
        ("generator", peer.generator, networks.generator, latent, numbers),
        ("discriminator", peer.discriminator, networks.discriminator, image, own_image),
    ):
        counts = (f"{n_weights(network):,}" for network in (theirs, ours))
        flop = (flop_of(partial(theirs, given)), flop_of(partial(ours, taken)))
        rows.append([name, *counts, *(f"{n / 1e9:.2f}" for n in flop)])
    header = ["networks", "peer (three channels), parameters", "this project (one), parameters"]
    header += ["peer, GFLOP an image", "this project, GFLOP an image"]
    print_table("StyleSwin networks (one forward pass)", header, rows)


def _styleswin_rows(times: dict[str, Times], chosen: Precision) -> list[list[str]]:
    rows = []
    pairs = ("fp32", "fp32", "fp32"), ("bf16", "bf16", "bf16"), ("fp32", chosen, f"auto ({chosen})")
    for theirs, ours, name in pairs:
        for part, pick in (
            ("without R1", _without_r1),
            (f"mean of {R1_EVERY}, one with R1", _mean_update),
        ):
            of_peer, of_own = pick(times, f"peer {theirs}"), pick(times, f"own {ours}")
            rows.append(_row(f"peer {theirs}, this project {name}, {part}", of_peer, of_own))
    return rows


def _without_r1(times: dict[str, Times], name: str) -> Times:
    return times[f"{name} False"]


def _mean_update(times: dict[str, Times], name: str) -> Times:
    """Mean update where one of so many has R1."""
    turns = zip(times[f"{name} False"].seconds, times[f"{name} True"].seconds, strict=True)
    return Times(tuple(((R1_EVERY - 1) * plain + r1) / R1_EVERY for plain, r1 in turns))


def _row(name: str, peer: Times, own: Times, n_images: int = 1) -> list[str]:
    each = (f"{times.least / n_images:.3f}" for times in (peer, own))
    return [name, *each, f"**{peer.against(own)}**"]


def _call(function: Callable[[], object]) -> None:
    function()


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "diffusion": diffusion,
    "sampling": sampling,
    "styleswin": styleswin,
    "loader": lambda options: loader(options.files, options.repeats),
    "work": lambda options: work(options.repeats),
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--diffusion-peer", type=Path)
    parser.add_argument("--styleswin-peer", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--images", type=int, default=4, help="images drawn at once")
    parser.add_argument("--ancestral-steps", type=int, default=35, help="measured, of 1000")
    parser.add_argument("--styleswin-batch", type=int, default=8)
    parser.add_argument("--files", type=int, default=64, help="PNG files that are decoded")
    options = parser.parse_args()
    for part, needed in (
        ("diffusion", "diffusion_peer"),
        ("sampling", "diffusion_peer"),
        ("styleswin", "styleswin_peer"),
    ):
        if part in options.parts and getattr(options, needed) is None:
            parser.error(f"{part} needs --{needed.replace('_', '-')} FOLDER")
    torch.set_num_threads(options.threads)
    print_machine()
    if options.diffusion_peer is not None:
        print(f"denoising-diffusion-pytorch {use_peer(options.diffusion_peer)}")
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
