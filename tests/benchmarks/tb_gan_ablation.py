"""What each part of TB-GAN's laptop recipe is worth: variants of it trained for equal processor time.

    python -m tests.benchmarks.tb_gan_ablation HC18 --minutes 8 --seeds 3 --out rows.jsonl

HC18 is a folder that one of the adapters reads. The generator of the laptop preset is
trained at 64 x 64 pixels without the rest of the flow; patients (HC18: examinations) are divided,
and distances are to images of held-out ones. Minutes are processor minutes of one thread: a few
trial updates tell how many fit, the schedule is laid over these, and a row says what was used. A row
that stands in `--out` with the same variant, seed and minutes is not trained again.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from governance.records.base import TEST, TRAINING, TUNING
from medisynth.data.adapters import locate_data_set
from medisynth.data.reading.contact_sheet import contact_sheet
from medisynth.data.reading.ingest import ingest_images
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.data.split import split_images
from medisynth.generator import Condition
from medisynth.metrics.features import Features, InceptionPool3
from medisynth.metrics.frechet import frechet_distance
from medisynth.metrics.kernel import kernel_distance
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.models.tb_gan.trained import Trained
from medisynth.models.tb_gan.training_stage import AdversarialStage
from medisynth.training.loop import Precision, pairwise_distance
from pipelines.fetch.weights import find_weights
from tests.benchmarks.own_stages import adversarial_stage, quiet_context, tb_gan

N_IMAGES, N_SHOWN, N_COLUMNS = 136, 48, 8
TEST_FRACTION, TUNING_FRACTION, SPLIT_SEED = 0.2, 0.05, 0
N_UNTIMED, PENALTIES_TIMED = 2, 3

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "depthwise-off": {"depthwise": False},
    "tail-as-attention": {"tail_width": 0, "widths": (128, 96, 64, 32)},
    "window-8-at-16": {"whole_map_up_to": 8, "window": 8},
    "noise-off": {"noise": False},
    "saturating-output": {"saturating_output": True},
    "mirror-off": {"flip": False},
    "gamma-0.3": {"r1": {"gamma": 0.3}},
    "gamma-3": {"r1": {"gamma": 3.0}},
}


@dataclass(frozen=True)
class Images:
    """Images split by patient, and what held-out ones look like to the extractor."""

    training: ImageView
    tuning: ImageView
    held_out: Pixels
    features: Features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, 0, 1, …")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, help="file of JSON lines; rows in it are skipped")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of 48 samples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    extractor = _extractor()
    images = images_of(options.folder, extractor)
    print(
        f"{len(images.training)} training images, {N_IMAGES} images a set, one thread\n\n"
        "| variant | seed | processor minutes | updates | KID | FID | pairwise RMSE ratio |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )
    done = {(row["variant"], row["seed"], row["minutes"]): row for row in _rows(options.out)}
    for seed in range(options.seeds):  # a table of one seed is worth more than half a variant list
        for variant in options.only:
            row = done.get((variant, seed, options.minutes))
            if row is None:
                row = trained_row(variant, seed, options.minutes, images, extractor, options.sheets)
                if options.out is not None:
                    with options.out.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(row) + "\n")
            print(
                f"| {variant} | {seed} | {row['processor_minutes']:.1f} | {row['updates']} | "
                f"{row['kid']:.4f} | {row['fid']:.1f} | {row['pairwise_ratio']:.2f} |",
                flush=True,
            )


def trained_row(
    variant: str,
    seed: int,
    minutes: float,
    images: Images,
    extractor: InceptionPool3,
    sheets: Path | None,
) -> dict[str, Any]:
    """Train one variant, draw samples and measure them."""
    settings = settings_of(variant, minutes, images)
    stage = stage_of(settings, images, seed)
    started = time.thread_time()
    for step in range(stage.n_steps):
        stage.step(step)
    took_s = time.thread_time() - started
    samples = samples_of(stage, seed)
    found = extractor.extract(samples)
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
        name = f"{variant}-{minutes:g}-minutes-seed-{seed}.png"
        (sheets / name).write_bytes(sheet(samples[:N_SHOWN], f"synthetic: {name}"))
    return {
        "variant": variant,
        "seed": seed,
        "minutes": minutes,
        "processor_minutes": took_s / 60,
        "updates": stage.n_steps,
        "kid": kernel_distance(images.features, found),
        "fid": frechet_distance(images.features, found),
        "pairwise_ratio": pairwise_distance(samples) / pairwise_distance(images.held_out),
    }


def settings_of(variant: str, minutes: float, images: Images) -> TbGanSettings:
    """The laptop preset with the variant's changes and as many updates as fit."""
    preset = tb_gan("laptop").model_dump() | {"enlarging": None} | VARIANTS[variant]
    settings = TbGanSettings.model_validate(preset)
    stage = stage_of(settings, images, seed=0)
    n_timed = PENALTIES_TIMED * settings.r1.every
    for step in range(N_UNTIMED):
        stage.step(step)
    started = time.thread_time()
    for step in range(N_UNTIMED, N_UNTIMED + n_timed):
        stage.step(step)
    an_update_s = (time.thread_time() - started) / n_timed
    steps = max(round(60 * minutes / an_update_s), settings.warm_up_steps)
    schedule = [{"name": settings.schedule[0].name, "steps": steps}]
    return TbGanSettings.model_validate(preset | {"schedule": schedule})


def stage_of(settings: TbGanSettings, images: Images, seed: int) -> AdversarialStage:
    """A stage in the precision of the preset."""
    precision: Precision = "fp32" if settings.precision == "fp32" else "bf16"
    return adversarial_stage(settings, precision, (images.training, images.tuning), seed)


def samples_of(stage: AdversarialStage, seed: int) -> Pixels:
    """Samples of the averaged generator, as the product draws them."""
    return Trained(stage.drawing).sample(N_IMAGES, quiet_context(seed), Condition())


def images_of(folder: Path, extractor: InceptionPool3) -> Images:
    """Read and split; the split is the same every time."""
    listing = locate_data_set(folder)[0].list_images(folder)
    size_px = tb_gan("laptop").size
    read = ingest_images(folder, listing.table, size_px=size_px)
    split = split_images(
        read.table,
        read.table["patient_id"],
        source="computed",
        test_fraction=TEST_FRACTION,
        tuning_fraction=TUNING_FRACTION,
        seed=SPLIT_SEED,
        on_duplicate="stop",
    )

    def rows_of(partition: str) -> list[int]:
        chosen = split.partition.index[split.partition == partition]
        return list(read.table.index.get_indexer(chosen))

    def view_of(partition: str) -> ImageView:
        rows = rows_of(partition)
        columns = (
            tuple(read.table[name].fillna("").astype(str).iloc[rows])
            for name in ("image_id", "patient_id", "brain_plane", "machine")
        )
        return ImageView(partition, read.pixels[rows], *columns)

    rows = np.random.default_rng(SPLIT_SEED).permutation(rows_of(TEST))[:N_IMAGES]
    if len(rows) < N_IMAGES:
        raise SystemExit(f"{folder}: {len(rows)} held-out images; {N_IMAGES} are needed")
    held_out = read.pixels[rows]
    return Images(view_of(TRAINING), view_of(TUNING), held_out, extractor.extract(held_out))


def sheet(samples: Pixels, title: str) -> bytes:
    """A contact sheet."""
    starts = range(0, len(samples), N_COLUMNS)
    rows = [(title if k == 0 else "", list(samples[k : k + N_COLUMNS]), ()) for k in starts]
    return contact_sheet(rows, tile_px=samples.shape[1])


def _extractor() -> InceptionPool3:
    weights = find_weights()
    if weights is None:
        raise SystemExit("the FID weights are not here; `medisynth-gov weights fetch` gets them")
    return InceptionPool3.load(weights)


def _rows(out: Path | None) -> list[dict[str, Any]]:
    """Rows of earlier calls."""
    if out is None or not out.exists():
        return []
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    main()
