"""A run whose generator reaches for the test set: exit 4, with a report that says what it tried."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.confinement.confine import landlock_abi
from governance.records.base import TEST
from governance.verify.folder import verify_run
from medisynth.data.adapters import load_adapter
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app

QUICK = (
    *("--preset", "smoke", "-o", "model.settings.size=32", "-o", "evaluation.extractor=none"),
    *("-o", "tracking.enabled=false", "-o", "audit.n_text_images=0"),
)
pytestmark = pytest.mark.skipif(landlock_abi() < 4, reason="this kernel has no Landlock with TCP")


def hostile_run(folder: Path, *settings: str) -> tuple[int, dict, Path]:
    """Exit code, facts and folder of a run on few phantoms; it wants one of their test images."""
    data = folder / "data"
    write_phantoms(data, PhantomSettings(n_patients=16, seed=0, image_height_px=64))
    table = load_adapter("phantom").list_images(data).table
    image = data / sorted(table["path"][table["official_partition"] == TEST])[0]
    arguments = ["run", "--data", str(data), "--model", "tests.plugins.hostile:Hostile", *QUICK]
    for setting in (f"image={image}", *settings):
        arguments += ["-o", f"model.settings.{setting}"]
    result = CliRunner().invoke(app, [*arguments, "-w", str(folder / "workspace"), "--json"])
    assert result.stdout, result.stderr
    facts = json.loads(result.stdout)
    return result.exit_code, facts, Path(facts["run_dir"])


def read(run_dir: Path, name: str):
    return json.loads((run_dir / name).read_bytes())


def test_a_generator_that_swallows_every_refusal_ends_the_run_with_exit_4_and_a_report(tmp_path):
    exit_code, _, run_dir = hostile_run(tmp_path)

    assert exit_code == 4
    outcome = read(run_dir, "outcome.json")
    assert (outcome["status"], outcome["stopped_at"]) == ("blocked", "s5_train")
    assert outcome["message"].startswith("the generator tried to reach what training must not")
    noticed = read(run_dir, "isolation.json")["noticed"]
    assert {one["way"] for one in noticed} >= {"open", "hard link", "symbolic link", "command"}
    assert {"data folder", "network"} <= {one["target"] for one in noticed}
    assert all(one["refused"] for one in noticed)
    assert read(run_dir, "records/P4-05.json")["status"] == "failed"
    html = (run_dir / "report.html").read_text()
    assert "What the generator tried while it ran" in html
    assert (run_dir / "report.pdf").stat().st_size > 0
    assert "NOT refused" not in html
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_bytes().splitlines()]
    assert sum(event["type"] == "forbidden attempt" for event in events) == len(noticed)
    assert not [event for event in events if event["type"] == "test set opened"]
    assert verify_run(run_dir).is_intact
    assert not list((tmp_path / "workspace" / "vault").iterdir())
    assert not list((run_dir / "checkpoints").glob("*"))  # no model comes out of such a run


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", ["open", "memmap", "pyarrow", "cat", "symlink", "hard link", "ctypes"]
)
def test_a_refusal_that_ends_the_training_is_exit_4_whichever_way_was_tried(tmp_path, way):
    exit_code, _, run_dir = hostile_run(tmp_path, f'ways=["{way}"]', "after=raise")

    assert exit_code == (1 if way == "ctypes" else 4)  # its error names no path
    assert (run_dir / "report.pdf").is_file()
