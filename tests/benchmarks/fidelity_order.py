"""Fréchet distance and KID of a finished run's images and of controls, all at one number of images.

    python -m tests.benchmarks.fidelity_order RUN

The reference is the run's tuning images, never its held-out test set: the order of black, noise,
PCA, model and real training images is a property of generator and metric that needs no opening.
Ingest, audit and split are repeated from the run's configuration, so the data must still be there.
"""

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy, with_criteria
from medisynth.metrics.controls import control_images
from medisynth.metrics.features import InceptionPool3
from medisynth.metrics.frechet import frechet_distance
from medisynth.metrics.kernel import kernel_distance
from pipelines.config.model import read_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.fetch.weights import find_weights
from pipelines.steps import s1_ingest, s2_validate, s3_audit, s4_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    config = read_config((run / "config.yaml").read_bytes(), "config.yaml")
    with tempfile.TemporaryDirectory() as folder:
        name = f"order-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        store = EvidenceStore.create(Path(folder), name, tool_version="benchmark")
        policy = with_criteria(load_policy(), config.criteria)
        context = RunContext(config, policy, store, Console(), Path(folder))
        images = s2_validate.run(s1_ingest.run(context), context)
        partition = s4_split.divide(images, s3_audit.run(images, context), context).partition
    rows = {
        part: images.table.index.get_indexer(partition.index[partition == part])
        for part in ("training", "tuning")
    }
    training, tuning = images.pixels[rows["training"]], images.pixels[rows["tuning"]]
    files = sorted((run / "samples").glob("*.png"))
    n = min(len(tuning), len(files))
    random = np.random.default_rng(0)
    sets = {c: control_images(c, training, n, seed=0) for c in ("black", "noise", "blur", "pca")}
    sets["model"] = np.stack([np.asarray(Image.open(file)) for file in files[:n]])
    sets["real training images"] = training[random.permutation(len(training))[:n]]
    weights = find_weights()
    if weights is None:
        raise SystemExit("the FID weights are not here; `medisynth-gov weights fetch` gets them")
    extractor = InceptionPool3.load(weights)
    real = extractor.extract(tuning[:n])
    print(f"{n} images a set, reference: tuning images\n\n| set | FID | KID |\n|---|---:|---:|")
    for name, pixels in sets.items():
        found = extractor.extract(pixels)
        distances = frechet_distance(real, found), kernel_distance(real, found)
        print(f"| {name} | {distances[0]:.1f} | {distances[1]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
