"""A run whose generator reaches for the test set: exit 4, with a report that says what it tried."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.confinement.confine import landlock_abi
from governance.records.base import TEST
from governance.verify.folder import verify_run
from medisynth.data.adapters import load_adapter
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app
from tests.benchmarks.traced_training import MODELS, read_trace, trace_run

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


PYTHON = '"/usr/bin/python", "-m"'
TRACE = f"""
10 execve("/usr/bin/python", [{PYTHON}, "pipelines.cli.app", "run"], 0x7f /* 9 vars */) = 0
10 openat(AT_FDCWD</w>, "/data/a.png", O_RDONLY|O_CLOEXEC) = 3</data/a.png>
10 vfork( <unfinished ...>
11 execve("/usr/bin/python", [{PYTHON}, "pipelines.training.child"], 0x7f /* 9 vars */) = 0
10 <... vfork resumed>)                    = 11
11 openat(AT_FDCWD</w>, "link", O_RDONLY) = 3</data/a.png>
11 openat(AT_FDCWD</w>, "/data", O_PATH|O_DIRECTORY) = 4</data>
11 openat(AT_FDCWD</w>, "/data/b.png", O_RDONLY) = -1 EACCES (Permission denied)
11 openat(AT_FDCWD</w>, "/nowhere", O_RDONLY) = -1 ENOENT (No such file or directory)
11 clone3({{flags=CLONE_VFORK, exit_signal=SIGCHLD, stack=0x7, stack_size=0x9000}}, 88) = 12
12 execve("/bin/cat", ["/bin/cat", "/database/x"], 0x7f /* 9 vars */) = 0
12 openat(AT_FDCWD</w>, "/database/x", O_RDONLY <unfinished ...>
13 openat(AT_FDCWD</w>, "/data/c.png", O_RDONLY) = 3</data/c.png>
12 <... openat resumed>)                   = 3</database/x>
12 +++ exited with 0 +++
"""


def test_the_trace_of_training_and_what_it_started_is_read_and_of_nobody_else(tmp_path):
    trace = read_trace(TRACE.splitlines())

    assert trace.n_processes == 2
    assert trace.opened == ("/data/a.png", "/database/x")
    assert len(trace.refused) == 1
    assert trace.opened_in([tmp_path.joinpath("/data")]) == ["/data/a.png"]
    assert trace.opened_in([tmp_path]) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.skipif(landlock_abi() < 4, reason="this kernel has no Landlock with TCP")
@pytest.mark.parametrize("model", MODELS)
def test_a_training_process_opens_no_raw_or_sealed_path(tmp_path, model):
    exit_code, trace, forbidden = trace_run(model, tmp_path, n_patients=16)

    assert (exit_code == 4) == (model == "hostile")
    assert trace.n_processes > 0
    assert len(trace.opened) > 100
    assert trace.opened_in(forbidden) == []
    for folder in forbidden:  # it tried each, so that a zero means something
        assert [call for call in trace.refused if str(folder) in call], folder
