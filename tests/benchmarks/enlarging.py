"""Train the enlarging stage on HC18 and measure how far its images are from real ones.

    python -m tests.benchmarks.enlarging HC18 [--seeds 0 1] [--factors 2 4] [--at-once]
                                         [--sheets FOLDER]

HC18 is a folder with `metadata.csv` and `images`. Whole examinations are held out: one half of
theirs is the reference, the images of the other half are reduced, enlarged again and compared with
it, so that no image meets itself. How far the second half is from the first as it is (`real`) is
what the measure cannot resolve. Times are processor seconds of the training steps alone.

Four times larger means two networks in turn, each of which doubles and is trained by itself, as in
DSR-GAN; with `--at-once` one network enlarges four times.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from medisynth.data.reading.contact_sheet import contact_sheet
from medisynth.data.reading.decode import to_square
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import TrainingContext
from medisynth.metrics.features import Features, InceptionPool3
from medisynth.metrics.frechet import frechet_distance
from medisynth.metrics.kernel import kernel_distance
from medisynth.models.enlarging.images import reduced, to_pixels, to_unit
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.models.enlarging.stage import EnlargingStage, enlarged
from medisynth.training.loop import Precision, torch_generator
from pipelines.fetch.weights import find_weights

Trained = tuple[EnlargingStage, float]  # and the processor seconds it took

N_IMAGES = 136
N_SHOWN = 24


@dataclass(frozen=True)
class Images:
    """HC18 split by examination; reference and judged hold `N_IMAGES` each."""

    training: ImageView
    reference: Pixels
    judged: Pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--factors", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--at-once", action="store_true", help="one network for any factor")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of real and enlarged images")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="settings")
    options = parser.parse_args()
    settings = EnlargingSettings.model_validate(dict(pair.split("=", 1) for pair in options.set))
    weights = find_weights()
    if weights is None:
        raise SystemExit("the FID weights are not here; `medisynth-gov weights fetch` gets them")
    extractor = InceptionPool3.load(weights)
    images = images_of(options.folder, settings.to)
    reference = extractor.extract(images.reference)
    print(
        f"{N_IMAGES} images a set, {settings.to} px, {len(images.training)} training images, "
        f"{torch.get_num_threads()} thread(s), {options.precision}\n\n"
        "| set | factor | seed | updates | processor s | KID | FID |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )

    def print_row(name: str, facts: str, pixels: Pixels) -> None:
        kid, fid = distances(reference, extractor.extract(pixels))
        print(f"| {name} | {facts} | {kid:.4f} | {fid:.1f} |", flush=True)
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            file = options.sheets / f"{name} {facts}.png".replace(" | ", "_").replace(" ", "_")
            file.write_bytes(sheet(pixels))

    print_row("real", "1 | | |", images.judged)
    small = {factor: small_of(images.judged, factor) for factor in options.factors}
    for factor, pixels in small.items():
        print_row("bicubic", f"{factor} | | |", bicubic(pixels, settings.to))
    for seed in options.seeds:
        trained: dict[tuple[int, int], Trained] = {}  # by side and factor
        for factor, pixels in small.items():
            steps = [factor] if options.at_once else [2] * (factor.bit_length() - 1)
            n_updates, took_s = 0, 0.0
            for step in steps:
                key = pixels.shape[-1] * step, step
                if key not in trained:
                    trained[key] = train(settings, *key, images.training, seed, options.precision)
                stage, stage_s = trained[key]
                n_updates, took_s = n_updates + stage.n_steps, took_s + stage_s
                pixels = drawn(stage, pixels, seed)
            print_row("enlarged", f"{factor} | {seed} | {n_updates} | {took_s:.1f}", pixels)


def images_of(folder: Path, size_px: int) -> Images:
    """Read and split; the split is the same every time."""
    table = pd.read_csv(folder / "metadata.csv", dtype={"exam_id": str})
    exams = sorted(table["exam_id"].unique())
    order = np.random.default_rng(0).permutation(len(exams))
    by_exam = table.groupby("exam_id")["file_name"].agg(list)
    files = [name for place in order for name in by_exam[exams[place]]]
    owners = [exams[place] for place in order for _ in by_exam[exams[place]]]
    sets: list[list[int]] = []
    start = 0
    for _ in range(2):
        end = start + N_IMAGES
        while owners[end] == owners[end - 1]:  # the rest of an examination is left out
            end += 1
        sets.append(list(range(start, start + N_IMAGES)))
        start = end
    rest = list(range(start, len(files)))

    def read(rows: list[int]) -> Pixels:
        greys = (
            np.asarray(Image.open(folder / "images" / files[row]).convert("L")) for row in rows
        )
        return np.stack([to_square(grey, size_px) for grey in greys])

    ids = tuple(files[row] for row in rest)
    blank = ("",) * len(rest)
    training = ImageView(
        "training", read(rest), ids, tuple(owners[row] for row in rest), blank, blank
    )
    return Images(training, read(sets[0]), read(sets[1]))


def small_of(pixels: Pixels, factor: int) -> Pixels:
    """Reduced by area means to whole grey values, as a generator hands them on."""
    return to_pixels(reduced(to_unit(pixels, "cpu"), pixels.shape[-1] // factor))


def bicubic(small: Pixels, size_px: int) -> Pixels:
    """Enlarged without any training."""
    sides = (size_px, size_px)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize(sides, Image.BICUBIC)) for image in small]
    )


def train(
    settings: EnlargingSettings,
    side: int,
    factor: int,
    training: ImageView,
    seed: int,
    precision: Precision,
) -> Trained:
    """Train a network that makes images of a side; return it and the processor seconds it took."""
    own = settings.model_copy(update={"to": side, "crop": min(settings.crop, side)})
    view = replace(training, pixels=small_of(training.pixels, settings.to // side))
    context = TrainingContext(seed, "cpu", lambda *_: None, lambda *_: None, lambda: False)
    stage = EnlargingStage(own, factor, view, view, context, precision)
    began = time.process_time()
    for step in range(stage.n_steps):
        stage.step(step)
    return stage, time.process_time() - began


def drawn(stage: EnlargingStage, small: Pixels, seed: int) -> Pixels:
    """Enlarge with the averaged network."""
    return to_pixels(
        enlarged(
            stage.final,
            to_unit(small, "cpu"),
            lambda row: torch_generator("cpu", seed, "sampling", small.shape[-1], row),
        )
    )


def sheet(pixels: Pixels) -> bytes:
    """The first images in rows of eight, as a PNG."""
    rows = [("", list(pixels[first : first + 8]), ()) for first in range(0, N_SHOWN, 8)]
    return contact_sheet(rows, tile_px=pixels.shape[-1])


def distances(reference: Features, found: Features) -> tuple[float, float]:
    """KID and FID."""
    return kernel_distance(reference, found), frechet_distance(reference, found)


if __name__ == "__main__":
    main()
