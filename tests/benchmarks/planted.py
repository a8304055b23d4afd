"""Planted copies of phantoms: which kinds of copy the duplicate search finds, and what it alarms on.

Run from the repository root: python -m tests.benchmarks.planted [--copies 200] [--patients 400]
"""

import argparse
import io
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medisynth.data.duplicates.calibration import (
    Change,
    Grey,
    cropped,
    cropped_all_round,
    mirrored,
    turned,
)
from medisynth.data.duplicates.search import find_duplicates
from medisynth.data.phantom import PhantomSettings, simulate_image
from medisynth.data.phantom.cohort import plan_cohort
from medisynth.data.phantom.overlay import draw_callipers
from medisynth.data.reading.decode import to_thumbnail


def recompressed(image: Grey, rng: np.random.Generator) -> Grey:
    """Through JPEG at a quality from 50 to 85."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(rng.integers(50, 86)))
    with Image.open(stream) as picture:
        return np.asarray(picture, dtype=np.uint8)


def resized(image: Grey, rng: np.random.Generator) -> Grey:
    """To 40 to 150 per cent, height and width not quite alike."""
    height, width = image.shape
    factor = rng.uniform(0.4, 1.5)
    size = (round(width * factor), round(height * factor * rng.uniform(0.97, 1.03)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def brighter(image: Grey, rng: np.random.Generator) -> Grey:
    """Gain 1.05 to 1.3, offset 0 to 20, another gamma; white clips."""
    grey = 255 * (image / 255) ** rng.uniform(0.85, 1.15)
    changed = grey * rng.uniform(1.05, 1.3) + rng.uniform(0, 20)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def with_callipers(image: Grey, _rng: np.random.Generator) -> Grey:
    """Two crosses and a dotted line burned in."""
    return draw_callipers(image)


def next_frame(image: Grey, rng: np.random.Generator) -> Grey:
    """The scene moved by up to 0.6 % of the width, with fresh speckle on every echo.

    Speckle: multiplicative, a spot of about three pixels, standard deviation 15 to 25 %.
    """
    from scipy.ndimage import gaussian_filter, shift

    reach = 0.006 * image.shape[1]
    moved = shift(image.astype(np.float32), rng.uniform(-reach, reach, 2), order=1, mode="nearest")
    noise = gaussian_filter(rng.standard_normal(image.shape), 1.2)
    noise *= rng.uniform(0.15, 0.25) / noise.std()
    return np.clip(np.rint(moved * (1 + noise)), 0, 255).astype(np.uint8)


def mirrored_top_bottom(image: Grey, _rng: np.random.Generator) -> Grey:
    """Mirrored top to bottom."""
    return image[::-1].copy()


CHANGES: dict[str, Change] = {
    "recompressed": recompressed,
    "resized": resized,
    "brighter": brighter,
    "with callipers": with_callipers,
    "next frame": next_frame,
    "mirrored left to right": mirrored,
    "mirrored top to bottom": mirrored_top_bottom,
    "turned by 180 degrees": turned,
    "3 % crop": cropped(0.03),
    "3 % crop on each side": cropped_all_round(0.03),
}


@dataclass(frozen=True)
class Planted:
    """Phantoms and copies of some of them.

    Attributes:
        table: image_id, patient_id, file_sha256, pixel_sha256; originals first.
        thumbnails: Shape (n, 64, 64), uint8.
        copies: Id of each copy, its original's id and the kind of change.
    """

    table: pd.DataFrame
    thumbnails: Grey
    copies: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Score:
    """How well a search did.

    Attributes:
        recall: Kind of change -> share of its copies that were paired with their original.
        n_false_images: Originals paired with an image of another patient that is no copy.
        n_originals: Originals.
    """

    recall: dict[str, float]
    n_false_images: int
    n_originals: int


def score(planted: Planted, found: Collection[tuple[str, str]]) -> Score:
    """Hold the pairs found (ids, smaller first) against what was planted."""
    pairs = set(found)
    hits: dict[str, list[bool]] = {kind: [] for kind in CHANGES}
    for copy, original, kind in planted.copies:
        hits[kind].append((min(copy, original), max(copy, original)) in pairs)
    copies = {copy for copy, _, _ in planted.copies}
    rows = zip(planted.table["image_id"], planted.table["patient_id"], strict=True)
    patient = {image: number for image, number in rows if image not in copies}
    false = {
        image
        for pair in pairs
        if pair[0] in patient and pair[1] in patient and patient[pair[0]] != patient[pair[1]]
        for image in pair
    }
    recall = {kind: sum(found) / len(found) for kind, found in hits.items() if found}
    return Score(recall, len(false), len(patient))


def plant(
    n_patients: int,
    n_copies: int,
    seed: int,
    *,
    n_workers: int = 2,
    folder: Path | None = None,
) -> Planted:
    """Simulate phantoms and copy `n_copies` of them in every way, each copy under a new patient.

    Args:
        n_patients: Patients, one to four images each.
        n_copies: Originals that are copied.
        seed: Seed of phantoms and changes.
        n_workers: Threads.
        folder: Where to write every full-size image as "<image id>.png"; None for nowhere.
    """
    settings = PhantomSettings(n_patients=n_patients, seed=seed, max_images_per_patient=4)
    plan = plan_cohort(settings)
    rng = np.random.default_rng(seed)
    chosen = set(rng.choice(len(plan), min(n_copies, len(plan)), replace=False).tolist())

    def keep(name: str, frame: Grey) -> Grey:
        if folder is not None:
            Image.fromarray(frame).save(folder / f"{name}.png", compress_level=1)
        return to_thumbnail(np.ascontiguousarray(frame))

    def one(k: int) -> list[tuple[str, str, str, Grey]]:
        frame = simulate_image(settings, plan[k])
        name = plan[k].name
        made = [(name, f"P{plan[k].patient}", "", keep(name, frame))]
        if k in chosen:
            for number, (kind, change) in enumerate(CHANGES.items()):
                changed = change(frame, np.random.default_rng([seed, k, number]))
                copy = f"{name} {kind}"
                made.append((copy, f"copy {copy}", kind, keep(copy, changed)))
        return made

    with ThreadPoolExecutor(n_workers) as pool:
        rows = [row for made in pool.map(one, range(len(plan))) for row in made]
    rows.sort(key=lambda row: row[2] != "")
    ids = [row[0] for row in rows]
    table = pd.DataFrame({"image_id": ids, "patient_id": [row[1] for row in rows]})
    table["file_sha256"] = table["pixel_sha256"] = [f"digest of {name}" for name in ids]
    copies = tuple((row[0], row[0].removesuffix(f" {row[2]}"), row[2]) for row in rows if row[2])
    return Planted(table.astype("string"), np.stack([row[3] for row in rows]), copies)


def main() -> None:
    """Plant, search and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    planted = plant(options.patients, options.copies, options.seed)
    search = find_duplicates(planted.table, planted.thumbnails)
    near = {(pair.left_id, pair.right_id): pair for pair in search.pairs}
    result = score(planted, near)
    lines = ["| copy | recall | n | lowest similarity |", "| --- | ---: | ---: | ---: |"]
    for kind, recall in result.recall.items():
        names = [tuple(sorted(row[:2])) for row in planted.copies if row[2] == kind]
        values = [near[name].similarity or 1.0 for name in names if name in near]
        lowest = f"{min(values):.3f}" if values else "none"
        lines.append(f"| {kind} | {recall:.2f} | {len(names)} | {lowest} |")
    n_false, n = result.n_false_images, result.n_originals
    lines.append(
        f"\n{n_false} of {n} phantoms of disjoint patients falsely alarmed ({n_false / n:.1%})"
    )
    # among originals alone: copies of one phantom stand under patients of their own
    n_first = len(planted.table) - len(planted.copies)
    null = find_duplicates(planted.table[:n_first], planted.thumbnails[:n_first]).null
    if null is not None and null.highest is not None:
        lines.append(f"most alike pair of different patients: {null.highest:.3f}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
