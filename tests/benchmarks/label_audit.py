"""Swapped labels: how many of them the label audit suspects, and how many it suspects wrongly.

Run from the repository root: python -m tests.benchmarks.label_audit [--patients 300] [--real]
"""

import argparse
import csv
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from governance.records.audit import LabelAudit
from medisynth.data.audit.labels import audit_labels
from medisynth.data.phantom import PhantomSettings, simulate_image
from medisynth.data.phantom.cohort import PhantomImage, plan_cohort

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "fetal_planes_db"
SIZE_PX = 64
N_TIMED = 7_129  # images of the published training part


@dataclass(frozen=True)
class Labelled:
    """Thumbnails with patient and label."""

    name: str
    label: str
    thumbnails: NDArray[np.uint8]
    patients: tuple[str, ...]
    labels: tuple[str, ...]

    def table(self, labels: tuple[str, ...]) -> pd.DataFrame:
        columns = {
            "image_id": [str(k) for k in range(len(labels))],
            "patient_id": self.patients,
            "plane": labels if self.label == "plane" else ["Fetal brain"] * len(labels),
            "brain_plane": labels if self.label == "brain_plane" else [pd.NA] * len(labels),
        }
        return pd.DataFrame(columns, dtype="string")


def small(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("L").resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX))


def _phantom(settings: PhantomSettings, image: PhantomImage) -> NDArray[np.uint8]:
    return small(Image.fromarray(simulate_image(settings, image)))


def phantoms(n_patients: int) -> Labelled:
    settings = PhantomSettings(n_patients=n_patients, seed=3)
    plan = plan_cohort(settings)
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 2)) as pool:
        thumbnails = list(pool.map(partial(_phantom, settings), plan, chunksize=32))
    return Labelled(
        "phantoms, 3 brain planes",
        "brain_plane",
        np.stack(thumbnails),
        tuple(str(image.patient) for image in plan),
        tuple(image.brain_plane for image in plan),
    )


def real_planes() -> Labelled:
    with (REAL / "FETAL_PLANES_DB_data.csv").open() as stream:
        rows = [
            (row, path)
            for row in csv.DictReader(stream, delimiter=";")
            if (path := REAL / "Images" / f"{row['Image_name']}.png").is_file()
        ]
    return Labelled(
        "FETAL_PLANES_DB images, 6 planes",
        "plane",
        np.stack([small(Image.open(path)) for _, path in rows]),
        tuple(row["Patient_num"] for row, _ in rows),
        tuple(row["Plane"] for row, _ in rows),
    )


def swapped(labels: tuple[str, ...], share: float, seed: int) -> tuple[tuple[str, ...], set[str]]:
    """Give a share of the images another class, any with the same chance; also their ids."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    classes = sorted(set(labels))
    changed = list(labels)
    for k in chosen:
        changed[k] = str(rng.choice([name for name in classes if name != labels[k]]))
    return tuple(changed), {str(k) for k in chosen}


def found(audit: LabelAudit, wrong: set[str]) -> str:
    hits = sum(suspect.image_id in wrong for suspect in audit.suspects)
    top = sum(suspect.image_id in wrong for suspect in audit.suspects[:20])
    precision = f"{hits / audit.n_suspected:.2f}" if audit.n_suspected else "none suspected"
    recall = f"{hits / len(wrong):.2f}" if wrong else "-"
    return (
        f"balanced accuracy {audit.balanced_accuracy:.2f}, suspected {audit.n_suspected}, "
        f"swapped {len(wrong)}, precision {precision}, recall {recall}, right in the first 20: {top}"
    )


def results(data: Labelled, n_repeats: int) -> Iterator[str]:
    for share in (0.0, 0.05, 0.1):
        for seed in range(n_repeats if share else 1):
            labels, wrong = swapped(data.labels, share, seed)
            audit = audit_labels(data.table(labels), data.thumbnails, label=data.label, seed=0)
            yield f"{data.name}, {len(labels)} images, {share:.0%} swapped: {found(audit, wrong)}"


def seconds(data: Labelled) -> float:
    """Processor time for as many images as the published training part has."""
    times = -(-N_TIMED // len(data.labels))
    noise = np.random.default_rng(0).normal(0, 4, (N_TIMED, SIZE_PX, SIZE_PX))
    images = np.concatenate([data.thumbnails] * times)[:N_TIMED] + noise
    patients = [f"{copy}-{patient}" for copy in range(times) for patient in data.patients]
    many = Labelled(
        data.name,
        data.label,
        np.clip(images, 0, 255).astype(np.uint8),
        tuple(patients[:N_TIMED]),
        (data.labels * times)[:N_TIMED],
    )
    start = time.process_time()
    audit_labels(many.table(many.labels), many.thumbnails, seed=0)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--real", action="store_true", help="also the real images, where present")
    chosen = parser.parse_args()
    simulated = phantoms(chosen.patients)
    for data in (simulated, *((real_planes(),) if chosen.real else ())):
        for line in results(data, chosen.repeats):
            print(line)
    print(f"{N_TIMED} images: {seconds(simulated):.1f} s of processor time")


if __name__ == "__main__":
    main()
