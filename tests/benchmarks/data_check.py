"""How long a whole data check takes, as a ratio to bare decoding of the same files.

    python tests/benchmarks/data_check.py FOLDER [--repeats 3] [--planes all]

FOLDER is a data set, e.g. the one that `published_sizes.py` writes. Each repeat runs, in this
order: decoding every PNG with Pillow in two processes and nothing else; `data check` with an empty
cache; `data check` again with nothing changed. The least time of each counts. All processes are
fresh, so imports are in the times; the first pass over the files is not counted, so that all read
from the same warm file cache.
"""

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image


def decode(path: str) -> int:
    """Decode one file and say how many pixels it has."""
    with Image.open(path) as image:
        image.load()
        return image.width * image.height


def bare(paths: list[str]) -> float:
    """Seconds to decode all files with Pillow in two processes."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(decode, paths[:4], chunksize=2)  # both workers have started
        started = time.perf_counter()
        sum(pool.imap_unordered(decode, paths, chunksize=64))
        return time.perf_counter() - started


def check(folder: Path, planes: str, cache: Path, out: Path) -> float:
    """Seconds of one data check in a process of its own."""
    command = [sys.executable, "-m", "pipelines.cli.app", "data", "check", str(folder)]
    command += ["-o", f"data.planes={planes}", "-o", f"data.cache={cache}", "--out", str(out)]
    started = time.perf_counter()
    ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if ended.returncode not in (0, 3, 4):
        raise SystemExit(f"data check ended with {ended.returncode}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--planes", default="all")
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.folder.rglob("*.png"))
    times: dict[str, list[float]] = {"bare": [], "cold": [], "warm": []}
    for path in paths:
        Path(path).read_bytes()
    for _ in range(options.repeats):
        times["bare"].append(bare(paths))
        with tempfile.TemporaryDirectory() as folder:
            cache, out = Path(folder) / "cache", Path(folder) / "out"
            for name in ("cold", "warm"):
                times[name].append(check(options.folder, options.planes, cache, out))
        print({name: [round(t, 2) for t in values] for name, values in times.items()}, flush=True)
    least = {name: min(values) for name, values in times.items()}
    print(f"{len(paths):,} files")
    for name in ("cold", "warm"):
        print(f"{name}: {least[name]:.1f} s = {least[name] / least['bare']:.3f} x bare decoding")


if __name__ == "__main__":
    main()
