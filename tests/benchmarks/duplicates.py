"""The duplicate search: growth with the number of images, and two other tools on the same images.

Run from the repository root:

    python -m tests.benchmarks.duplicates growth [--sizes 10000 30000 100000]
    python -m tests.benchmarks.duplicates peers [--peer-python PYTHON] [--patients 400]

PYTHON is an interpreter that has imagededup and cleanvision; without it their rows are skipped.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from medisynth.data.duplicates.search import find_duplicates
from medisynth.data.reading.decode import to_thumbnail
from tests.benchmarks.planted import CHANGES, Planted, plant, score

Grey = NDArray[np.uint8]

_TOOLS = ("imagededup-phash", "imagededup-cnn", "cleanvision")


def simulated_thumbnails(n_images: int, seed: int = 0) -> Grey:
    """Head-like outlines on smooth noise inside a sector on black, shape (n_images, 64, 64).

    Far cheaper than phantoms, so that 100,000 take half a minute; no two are alike.
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    frames = np.empty((n_images, 64, 64), dtype=np.uint8)
    y, x = np.mgrid[0:64, 0:64] / 63.0 - 0.5
    for start in range(0, n_images, 1_000):
        n = min(1_000, n_images - start)
        grey = np.zeros((n, 64, 64), dtype=np.float32)
        for sigma, weight in ((1.2, 0.5), (3.0, 0.8), (7.0, 1.0)):
            noise = rng.standard_normal((n, 64, 64), dtype=np.float32)
            noise = gaussian_filter(noise, (0, sigma, sigma))
            grey += weight * noise / noise.std()
        half_x, half_y = rng.uniform(0.25, 0.4, (n, 1, 1)), rng.uniform(0.2, 0.35, (n, 1, 1))
        middle_x, middle_y = rng.normal(0, 0.05, (2, n, 1, 1))
        radius = np.hypot((x - middle_x) / half_x, (y - middle_y) / half_y)
        grey = 60 + 25 * grey + 120 * np.exp(-(((radius - 1) / 0.08) ** 2)) - 20 * (radius < 1)
        sector = np.abs(x) < 0.25 + 0.5 * (y + 0.5) * rng.uniform(0.7, 1, (n, 1, 1))
        frames[start : start + n] = np.clip(grey, 0, 255) * sector
    return frames


def grow_once(n_images: int) -> dict[str, float]:
    """Search simulated thumbnails, four a patient; seconds, peak memory before and after, pairs."""
    import resource

    frames = simulated_thumbnails(n_images)
    ids = [f"i{k:06d}" for k in range(n_images)]
    columns = {"image_id": ids, "patient_id": [f"p{k // 4:06d}" for k in range(n_images)]}
    table = pd.DataFrame(columns | {"file_sha256": ids, "pixel_sha256": ids}).astype("string")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    search = find_duplicates(table, frames)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    near = sum(not pair.is_one_patient for pair in search.pairs)
    return {"seconds": seconds, "before_mib": before, "peak_mib": after, "false_pairs": near}


def growth(sizes: Collection[int]) -> None:
    """Print time and memory for each size, each in its own process."""
    print("| images | time, s | thumbnails and table, MiB | peak, MiB | false pairs |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for size in sizes:
        command = [sys.executable, "-m", "tests.benchmarks.duplicates", "once", str(size)]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(ended.stdout)
        print(
            f"| {size:,} | {found['seconds']:.1f} | {found['before_mib']:.0f} | "
            f"{found['peak_mib']:.0f} | {found['false_pairs']:.0f} |",
            flush=True,
        )


def search_files(planted: Planted, folder: Path) -> tuple[float, set[tuple[str, str]]]:
    """Search the files as the other tools do, reading them included; seconds and pairs."""

    def read(image_id: str) -> Grey:
        with Image.open(folder / f"{image_id}.png") as picture:
            return to_thumbnail(np.asarray(picture))

    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        frames = np.stack(list(pool.map(read, planted.table["image_id"])))
    search = find_duplicates(planted.table, frames)
    pairs = {(pair.left_id, pair.right_id) for pair in search.pairs}
    return time.perf_counter() - started, pairs


def search_with_peer(
    tool: str, python: str, folder: Path
) -> tuple[float, set[tuple[str, str]]] | str:
    """Seconds and pairs of another tool, or why there are none."""
    script = Path(__file__).with_name("duplicate_peers.py")
    ended = subprocess.run(
        [python, str(script), tool, str(folder)], check=False, capture_output=True, text=True
    )
    if ended.returncode or not ended.stdout.strip():
        return (ended.stderr.strip().splitlines() or ["no answer"])[-1]
    answer = json.loads(ended.stdout.strip().splitlines()[-1])
    if "reason" in answer:
        return str(answer["reason"])
    names = ((Path(one).stem, Path(other).stem) for one, other in answer["pairs"])
    return answer["seconds"], {(min(pair), max(pair)) for pair in names}


def compare(n_patients: int, n_copies: int, seed: int, peer_python: str | None) -> None:
    """Print one table of all tools on the same files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted = plant(n_patients, n_copies, seed, folder=folder)
        results: dict[str, tuple[float, set[tuple[str, str]]] | str]
        results = {"this project": search_files(planted, folder)}
        for tool in _TOOLS:
            results[tool] = (
                search_with_peer(tool, peer_python, folder)
                if peer_python
                else "no --peer-python given"
            )
    skipped = {tool: why for tool, why in results.items() if isinstance(why, str)}
    ran = {tool: found for tool, found in results.items() if not isinstance(found, str)}
    scores = {tool: score(planted, pairs) for tool, (_, pairs) in ran.items()}
    n = next(iter(scores.values())).n_originals
    rows = [["", *ran], ["---", *("---:" for _ in ran)]]
    rows.append(["time with reading, s", *(f"{seconds:.1f}" for seconds, _ in ran.values())])
    rows.append(
        [
            f"of {n:,} disjoint phantoms alarmed",
            *(f"{s.n_false_images:,} ({s.n_false_images / n:.1%})" for s in scores.values()),
        ]
    )
    rows += [
        [f"recall: {kind}", *(f"{s.recall[kind]:.2f}" for s in scores.values())] for kind in CHANGES
    ]
    print(f"{len(planted.table):,} images, {len(planted.copies):,} of them planted copies")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    for tool, why in skipped.items():
        print(f"{tool}: skipped: {why}")


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parts = parser.add_subparsers(dest="part", required=True)
    grow = parts.add_parser("growth")
    grow.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parts.add_parser("once").add_argument("n_images", type=int)
    peers = parts.add_parser("peers")
    peers.add_argument("--peer-python")
    peers.add_argument("--patients", type=int, default=400)
    peers.add_argument("--copies", type=int, default=200)
    peers.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    if options.part == "growth":
        growth(options.sizes)
    elif options.part == "once":
        print(json.dumps(grow_once(options.n_images)))
    else:
        compare(options.patients, options.copies, options.seed, options.peer_python)


if __name__ == "__main__":
    main()
