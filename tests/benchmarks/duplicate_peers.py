"""Runs another tool's duplicate search on a folder of PNG files; for that tool's own Python.

python duplicate_peers.py {imagededup-phash,imagededup-cnn,cleanvision} FOLDER
Prints one JSON line: seconds and pairs of file names, or the reason why there are none.
"""

import contextlib
import importlib
import importlib.util
import itertools
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

Pairs = list[list[str]]


def imagededup_phash(folder: str) -> Pairs:
    """64-bit perceptual hash at the default threshold (10 bits)."""
    spec = importlib.util.find_spec("imagededup")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("imagededup is not installed")
    # Two packages import the neural network, hence torchvision, before the hashes: step round them.
    for part in ("methods", "utils"):
        package = types.ModuleType(f"imagededup.{part}")
        package.__path__ = [str(Path(spec.submodule_search_locations[0]) / part)]
        sys.modules[f"imagededup.{part}"] = package
    method = importlib.import_module("imagededup.methods.hashing").PHash(verbose=False)
    return _pairs(method.find_duplicates(image_dir=folder))


def imagededup_cnn(folder: str) -> Pairs:
    """MobileNet features at the default threshold (cosine 0.9); needs published weights."""
    method = importlib.import_module("imagededup.methods").CNN(verbose=False)
    return _pairs(method.find_duplicates(image_dir=folder))


def cleanvision(folder: str) -> Pairs:
    """Near-duplicate and exact checks with their defaults."""
    lab = importlib.import_module("cleanvision").Imagelab(data_path=folder)
    lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, verbose=False)
    pairs = {
        tuple(sorted(Path(name).name for name in pair))
        for kind in ("near_duplicates", "exact_duplicates")
        for group in lab.info[kind]["sets"]
        for pair in itertools.combinations(group, 2)
    }
    return [list(pair) for pair in sorted(pairs)]


def _pairs(duplicates: dict[str, list[Any]]) -> Pairs:
    pairs = {tuple(sorted((one, other))) for one, others in duplicates.items() for other in others}
    return [list(pair) for pair in sorted(pairs)]


def main() -> None:
    """Search and print."""
    tool, folder = sys.argv[1:]
    searches = {
        "imagededup-phash": imagededup_phash,
        "imagededup-cnn": imagededup_cnn,
        "cleanvision": cleanvision,
    }
    answer: dict[str, Any]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            started = time.perf_counter()
            pairs = searches[tool](folder)
        answer = {"seconds": time.perf_counter() - started, "pairs": pairs}
    except Exception as error:  # noqa: BLE001 - whatever ails another tool is the row's reason
        answer = {"reason": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
