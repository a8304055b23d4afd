"""Runs that are refused, interrupted or fail: one clear line, the right code, and a report."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app

runner = CliRunner()
QUICK = [
    *("run", "--preset", "smoke", "--json"),
    *("-o", "tracking.enabled=false", "-o", "evaluation.extractor=none"),
    *("-o", "model.settings.diffusion.steps=12", "-o", "model.settings.super_resolution.steps=12"),
    *("-o", "training.repeat_steps=0"),
]


def phantoms(folder: Path, **settings) -> Path:
    write_phantoms(folder, PhantomSettings(n_patients=16, image_height_px=80, **settings))
    return folder


def run_on(data: Path, workspace: Path, *more: str):
    result = runner.invoke(app, [*QUICK, "--data", str(data), "-w", str(workspace), *more])
    run_dir = next((workspace / "runs").iterdir())
    return result, run_dir


def summary(run_dir: Path):
    return json.loads((run_dir / "summary.json").read_bytes())


def check_report(run_dir: Path) -> None:
    assert (run_dir / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "medisynth-gov" in (run_dir / "model_card.md").read_text("utf-8")
    verified = runner.invoke(app, ["verify", str(run_dir)])
    assert verified.exit_code == 0, verified.output


@pytest.mark.malformed("png")
@pytest.mark.parametrize("leak", ["truncated-file", "text-file"])
def test_a_bad_image_blocks_the_run_and_is_named(tmp_path, leak):
    data = phantoms(tmp_path / "data", leaks=(leak,))

    result, run_dir = run_on(data, tmp_path / "ws")

    assert result.exit_code == 3, result.output
    findings = json.loads((run_dir / "data" / "findings.json").read_bytes())["findings"]
    assert len(findings) == 1
    assert findings[0]["where"] in result.stderr
    assert "Traceback" not in result.output
    assert "nothing was trained" in summary(run_dir)["verdict"]
    check_report(run_dir)


@pytest.mark.parametrize("leak", ["patient-in-both", "duplicate-other-patient"])
def test_a_planted_leak_across_the_official_split_is_exit_4(tmp_path, leak):
    data = phantoms(tmp_path / "data", leaks=(leak,))

    result, run_dir = run_on(data, tmp_path / "ws")

    assert result.exit_code == 4, result.output
    item = "P4-01" if leak == "patient-in-both" else "P4-02"
    record = json.loads((run_dir / "records" / f"{item}.json").read_bytes())
    assert record["status"] == "failed"
    assert not (run_dir / "checkpoints").exists()
    check_report(run_dir)


def test_a_leak_may_be_dropped_on_record(tmp_path):
    data = phantoms(tmp_path / "data", leaks=("duplicate-other-patient",))

    result, run_dir = run_on(data, tmp_path / "ws", "-o", "split.on_duplicate=drop_training")

    assert result.exit_code == 9, result.output  # only the pin is missing
    split = json.loads((run_dir / "data" / "split.json").read_bytes())
    assert len(split["dropped"]) >= 1
    assert set(split["shared_content"].values()) == {0}


def test_missing_images_are_counted_named_and_may_be_dropped(tmp_path):
    data = phantoms(tmp_path / "data")
    images = sorted((data / "Images").iterdir())
    for image in images[:3]:
        image.unlink()

    refused, run_dir = run_on(data, tmp_path / "ws")
    allowed, _ = run_on(data, tmp_path / "ws2", "-o", "data.missing_images=drop")

    assert refused.exit_code == 3
    assert f"3 of {len(images)} listed images are missing" in refused.stderr
    assert images[0].name in refused.stderr
    check_report(run_dir)
    assert allowed.exit_code == 9


@pytest.mark.malformed("csv")
def test_a_missing_column_names_the_column(tmp_path):
    data = phantoms(tmp_path / "data")
    table = data / "FETAL_PLANES_DB_data.csv"
    table.write_text(table.read_text().replace("US_Machine", "Machine"))

    result, run_dir = run_on(data, tmp_path / "ws")

    assert result.exit_code == 3
    assert "US_Machine" in result.stderr
    check_report(run_dir)


def test_an_unpinned_data_set_ends_with_9_and_the_line_to_copy(tmp_path):
    data = phantoms(tmp_path / "data")

    result, run_dir = run_on(data, tmp_path / "ws")

    digest = json.loads((run_dir / "data" / "dataset.json").read_bytes())["content_sha256"]
    record = json.loads((run_dir / "records" / "P5-01.json").read_bytes())
    assert result.exit_code == 9
    assert record["status"] == "not evaluated"
    assert f"data.digest: {digest}" in record["reason"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_signal_in_training_ends_cleanly_with_a_report(tmp_path, number, code):
    data = phantoms(tmp_path / "data")
    workspace = tmp_path / "ws"
    arguments = [a if a != "model.settings.diffusion.steps=12" else a + "00000" for a in QUICK]
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "pipelines.cli.app", *arguments, "--data", data, "-w", workspace],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COVERAGE_PROCESS_START": ""},
    )
    deadline = time.monotonic() + 120
    for line in process.stderr:
        if '"task": "diffusion"' in line or time.monotonic() > deadline:
            break
        if '"message": "isolation level' in line:
            time.sleep(3)
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == code, err
    assert "Traceback" not in err
    run_dir = Path(json.loads(out)["run_dir"])
    outcome = json.loads((run_dir / "outcome.json").read_bytes())
    assert (outcome["status"], outcome["stopped_at"]) == ("interrupted", "s5_train")
    check_report(run_dir)


def test_a_full_disk_or_read_only_place_is_exit_7(tmp_path):
    place = tmp_path / "file"
    place.write_text("not a folder")

    result = runner.invoke(app, ["run", "--preset", "smoke", "-w", str(place)])

    assert result.exit_code == 7
    assert str(place) in result.stderr


def test_data_phantom_refuses_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "x").write_text("mine")

    result = runner.invoke(app, ["data", "phantom", str(tmp_path), "--patients", "2"])

    assert result.exit_code == 3
    assert (tmp_path / "x").read_text() == "mine"


def test_data_phantom_gives_the_same_bytes_for_the_same_seed(tmp_path):
    for name in ("a", "b"):
        arguments = ["data", "phantom", str(tmp_path / name), "--patients", "2", "--seed", "5"]
        assert runner.invoke(app, arguments).exit_code == 0

    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.png"))
    assert files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    shutil.rmtree(tmp_path / "a")
