"""How long ingest takes, as a ratio to bare decoding of the same files.

    python tests/benchmarks/ingest.py FOLDER [--n 300] [--size 128] [--repeats 3] [--workers 2]

FOLDER holds PNG files at any depth, e.g. what `published_sizes.py` writes. Each repeat runs, in
this order: decoding every file with Pillow in two processes and nothing else; ingest with an empty
cache; ingest again with nothing changed. The least time of each counts; the files have been read
once before, so that all three read from memory.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from PIL import Image

from medisynth.data.reading.ingest import Ingested, ingest_images


def decode(path: str) -> int:
    """Decode one file and say how many pixels it has."""
    with Image.open(path) as image:
        image.load()
        return image.width * image.height


def main() -> int:
    """Measure and print; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    files = sorted(options.folder.rglob("*.png"))
    files = files[:: max(1, len(files) // options.n)][: options.n]
    n_bytes = sum(len(path.read_bytes()) for path in files)
    least = dict.fromkeys(("bare", "cold", "warm"), float("inf"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(decode, [str(path) for path in files[:4]], chunksize=2)  # both have started
        for _ in range(options.repeats):
            started = time.perf_counter()
            n_pixels = sum(pool.imap_unordered(decode, map(str, files), chunksize=16))
            least["bare"] = min(least["bare"], time.perf_counter() - started)
            with tempfile.TemporaryDirectory() as cache:
                for name in ("cold", "warm"):
                    started = time.perf_counter()
                    found = ingest(options, files, Path(cache))
                    least[name] = min(least[name], time.perf_counter() - started)
    sys.stdout.write(
        f"{len(files):,} files, {n_bytes / len(files):,.0f} bytes and "
        f"{n_pixels / len(files):,.0f} pixels each; warm: {found.n_decoded:,} decoded, "
        f"{found.n_from_cache:,} from the cache, {len(found.findings):,} refused\n"
        f"bare {1000 * least['bare'] / len(files):.2f} ms a file\n"
    )
    for name in ("cold", "warm"):
        sys.stdout.write(f"{name} ingest: {least[name] / least['bare']:.3f} x bare decoding\n")
    return 0


def ingest(options: argparse.Namespace, files: list[Path], cache: Path) -> Ingested:
    """Ingest the files once."""
    paths = [path.relative_to(options.folder).as_posix() for path in files]
    table = pd.DataFrame({"image_id": paths, "path": paths})
    return ingest_images(
        options.folder, table, size_px=options.size, n_workers=options.workers, cache=cache
    )


if __name__ == "__main__":
    raise SystemExit(main())
