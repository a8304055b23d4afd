"""Assessments of images made elsewhere, from folders to report."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app

runner = CliRunner()
TABLE = "FETAL_PLANES_DB_data.csv"


def phantoms(folder: Path, seed: int, n: int = 16) -> Path:
    write_phantoms(folder, PhantomSettings(n_patients=n, seed=seed, image_height_px=64))
    return folder


def part(folder: Path, source: Path, patients: range) -> Path:
    """Copy some patients of a phantom set, table and images."""
    lines = (source / TABLE).read_text("utf-8-sig").splitlines()
    kept = [line for line in lines[1:] if int(line.split(";")[1]) in patients]
    (folder / "Images").mkdir(parents=True)
    (folder / TABLE).write_text("\n".join([lines[0], *kept, ""]), "utf-8")
    for line in kept:
        name = f"{line.split(';')[0]}.png"
        shutil.copy(source / "Images" / name, folder / "Images" / name)
    return folder


def assess(workspace: Path, **folders: Path):
    options = [part for key, path in folders.items() for part in (f"--{key}", str(path))]
    quick = ("tracking.enabled=false", "evaluation.extractor=none", "evaluation.n_bootstrap=50")
    more = [part for one in quick for part in ("-o", one)]
    result = runner.invoke(
        app, ["assess", *options, "--size", "32", "-w", str(workspace), "--json", *more]
    )
    return result, next((workspace / "runs").iterdir())


def item(run_dir: Path, name: str):
    return json.loads((run_dir / "records" / f"{name}.json").read_bytes())


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """An assessment of "synthetic" images that are training images, and one of the real ones."""
    folder = tmp_path_factory.mktemp("copied")
    whole = phantoms(folder / "whole", 1, 28)
    training = part(folder / "training", whole, range(1, 15))
    real = part(folder / "real", whole, range(15, 29))
    synthetic = folder / "synthetic"
    synthetic.mkdir()
    for path in sorted((training / "Images").iterdir())[:30]:
        shutil.copy(path, synthetic / path.name)
    for path in sorted((real / "Images").iterdir())[:2]:
        shutil.copy(path, synthetic / f"real-{path.name}")
    return assess(folder / "ws", real=real, training=training, synthetic=synthetic)


def test_copies_of_training_images_are_flagged(copied):
    _, run_dir = copied
    record = json.loads((run_dir / "metrics" / "evaluation.json").read_bytes())

    assert record["memorisation"]["n_flagged"] >= 30


def test_a_real_image_among_the_synthetic_ones_fails_its_item(copied):
    result, run_dir = copied

    found = item(run_dir, "P4-11")
    record = json.loads((run_dir / "metrics" / "evaluation.json").read_bytes())
    assert record["n_synthetic_in_test"] + record["memorisation"]["n_flagged"] >= 31
    assert found["status"] == ("failed" if record["n_synthetic_in_test"] else "passed")
    assert result.exit_code in (4, 9)


def test_what_rests_on_a_training_here_is_not_evaluated_and_says_so(copied):
    _, run_dir = copied

    for name in ("P2-06", "P4-05", "P4-07", "P4-08", "P6-01", "P6-06"):
        assert item(run_dir, name)["status"] == "not evaluated"
        assert "trained elsewhere" in item(run_dir, name)["reason"]
    assert item(run_dir, "P4-01")["status"] == "passed"


def test_it_verifies_and_the_report_says_that_nothing_was_trained(copied):
    _, run_dir = copied

    assert runner.invoke(app, ["verify", str(run_dir)]).exit_code == 0
    page = (run_dir / "report.html").read_text("utf-8")
    assert "Nothing was trained in this run" in page


def test_a_training_patient_among_the_real_ones_ends_it_with_4(tmp_path):
    data = phantoms(tmp_path / "data", 1)
    both = tmp_path / "both"
    shutil.copytree(data, both)
    synthetic = tmp_path / "synthetic"
    shutil.copytree(phantoms(tmp_path / "other", 3) / "Images", synthetic)

    result, run_dir = assess(tmp_path / "ws", real=data, training=both, synthetic=synthetic)

    assert result.exit_code == 4
    assert "is on both sides" in result.stderr
    assert (run_dir / "report.pdf").is_file()
