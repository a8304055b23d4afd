"""Runs that are killed or stopped while they train, and go on as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.evidence.journal import read_journal
from governance.records.files import sha256_file
from pipelines.cli.app import app
from tests.flow.killed_runs import TINY, kill_runs
from tests.places import ROOT

TOY = "tests.plugins.slow_toy:SlowToy"
N_STEPS, COMMIT_EVERY = 40, 5
runner = CliRunner()


def arguments(workspace: Path, pause_ms: int, *more: str) -> list[str]:
    """A run that trains for at least 2 * N_STEPS pauses on a few small phantoms."""
    toy = f"{{steps: {N_STEPS}, pause_ms: {pause_ms}, size: 32}}"
    return [
        *("run", "--preset", "smoke", "--json", "-w", str(workspace), "--model", TOY),
        *("-o", "data.phantom={n_patients: 16, image_height_px: 64}"),
        *("-o", f"model.settings={toy}", "-o", f"training.commit_every={COMMIT_EVERY}"),
        *("-o", "training.preview_every=20", "-o", "evaluation.n_synthetic=16"),
        *("-o", "evaluation.extractor=none", "-o", "evaluation.n_bootstrap=50"),
        *("-o", "tracking.enabled=false", *more),
    ]


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "pipelines.cli.app", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def events(run_dir: Path, kind: str):
    return [event for event in read_journal(run_dir / "journal.jsonl").events if event.type == kind]


def wait_for(workspace: Path, process: "subprocess.Popen[str]", n_committed: int) -> Path:
    """Wait until so many states are committed; return the run folder."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        for journal in workspace.glob("runs/*/journal.jsonl"):
            if len(events(journal.parent, "step committed")) >= n_committed:
                return journal.parent
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"no {n_committed} states: {process.communicate()[1][-2000:]}")


def kill(process: "subprocess.Popen[str]") -> None:
    """End a run and its training process at once, as a power cut would."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.killpg(process.pid, signal.SIGKILL)
    for child in children:
        os.killpg(int(child), signal.SIGKILL)
    process.communicate()


def read(run_dir: Path, name: str):
    return json.loads((run_dir / name).read_bytes())


def resume(run_dir: Path, *more: str):
    return runner.invoke(app, ["run", "--resume", str(run_dir), "--json", *more])


def check_finished(run_dir: Path) -> None:
    outcome = read(run_dir, "outcome.json")
    assert outcome["status"] == "finished"
    steps = ["s1_ingest", "s2_validate", "s3_audit", "s4_split", "s5_train", "s6_evaluate"]
    assert [step["step"] for step in outcome["steps"]] == steps
    verified = runner.invoke(app, ["verify", str(run_dir)])
    assert verified.exit_code == 0, verified.output
    assert not (run_dir / ".scratch").exists()
    assert not (run_dir / "checkpoints" / ".states").exists()


def check_same_result(run_dir: Path, other: Path) -> None:
    """The same weights bit by bit, the same images, the same curves but those of time."""
    training = [read(folder, "metrics/training.json") for folder in (run_dir, other)]
    assert training[0]["checkpoint_sha256"] == training[1]["checkpoint_sha256"]
    curves = [
        [curve for curve in record["curves"] if curve["name"] != "images per second"]
        for record in training
    ]
    assert curves[0] == curves[1]
    samples = [read(folder, "samples/manifest.json")["files"] for folder in (run_dir, other)]
    assert [file[2] for file in samples[0]] == [file[2] for file in samples[1]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Folder of a run that nothing interrupted."""
    workspace = tmp_path_factory.mktemp("whole")
    result = runner.invoke(app, arguments(workspace, 0))
    assert result.exit_code == 9, result.output  # only the pin is missing
    return next((workspace / "runs").iterdir())


@pytest.fixture(scope="module")
def killed_workspace(tmp_path_factory) -> Path:
    """Workspace of a run that was killed while it trained."""
    workspace = tmp_path_factory.mktemp("killed")
    process = start(*arguments(workspace, 40))
    wait_for(workspace, process, 4)
    kill(process)
    return workspace


@pytest.fixture
def killed(killed_workspace, tmp_path) -> Path:
    """Folder of a killed run of one's own."""
    shutil.copytree(killed_workspace, tmp_path / "ws", ignore=shutil.ignore_patterns("*.fifo"))
    return next((tmp_path / "ws" / "runs").iterdir())


def test_a_killed_run_goes_on_at_its_last_committed_step_to_the_same_bits(killed, whole):
    committed = events(killed, "step committed")[-1].body
    n_before = len(events(killed, "step committed"))

    result = resume(killed)

    assert result.exit_code == 9, result.output
    check_finished(killed)
    # The pause is no part of the result; all else was configured alike.
    check_same_result(killed, whole)
    # The first steps were kept before the kill, and repeated once, after the rest.
    assert len(events(killed, "segment kept")) == len(events(killed, "segment repeated")) == 1
    repeats = [read(folder, "metrics/repeat.json") for folder in (killed, whole)]
    assert {r[key] for r in repeats for key in ("sha256", "repeated_sha256")} == {
        repeats[1]["sha256"]
    }
    (resumed,) = events(killed, "run resumed")
    assert resumed.body["reason"] == "killed"
    later = events(killed, "step committed")[n_before:]
    assert (later[0].body["stage"], later[0].body["step"]) == (
        committed["stage"],
        committed["step"] + COMMIT_EVERY,
    )
    assert [event.body["step"] for event in events(killed, "step started")] == [
        *("s1_ingest", "s2_validate", "s3_audit", "s4_split", "s5_train"),
        *("s5_train", "s6_evaluate"),
    ]

    again = resume(killed)

    assert again.exit_code == 2
    assert "is finished" in again.stderr


def test_another_configuration_is_refused_and_its_differences_are_listed(killed):
    before = (killed / "journal.jsonl").read_bytes()

    result = resume(killed, "--seed", "7", "-o", "training.commit_every=6")

    assert result.exit_code == 2
    assert "seed: 0 -> 7" in result.stderr
    assert "training.commit_every: 5 -> 6" in result.stderr
    assert (killed / "journal.jsonl").read_bytes() == before


def test_the_same_configuration_may_be_given_again(killed):
    config = killed / "config.yaml"

    result = runner.invoke(
        app, ["run", str(config), "--resume", str(killed), "--seed", "1", "--json"]
    )

    assert "(seed: 0 -> 1)" in result.stderr  # and nothing else


def test_with_its_newest_state_damaged_a_run_goes_on_from_the_one_before_to_the_same_bits(
    killed, whole
):
    committed = events(killed, "step committed")
    name = Path(committed[-1].body["path"]).name
    state = killed / "checkpoints" / ".states" / name
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)

    result = resume(killed)

    assert result.exit_code == 9, result.output
    assert f"{name}: training state damaged" in result.stderr
    assert [e.body["path"] for e in events(killed, "training state damaged")] == [
        committed[-1].body["path"]
    ]
    again = events(killed, "step committed")[len(committed)].body
    assert (again["stage"], again["step"]) == (
        committed[-1].body["stage"],
        committed[-1].body["step"],
    )
    check_finished(killed)
    check_same_result(killed, whole)


def test_with_both_kept_states_damaged_a_run_stops_and_names_them(killed):
    names = [Path(e.body["path"]).name for e in events(killed, "step committed")[-2:]]
    for name in names:
        (killed / "checkpoints" / ".states" / name).write_bytes(b"cut")

    result = resume(killed)

    assert result.exit_code == 5
    assert all(name in result.stderr.splitlines()[-1] for name in names)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["data/split.json", "config.yaml", ".scratch/views/tuning.npy"])
def test_what_was_changed_since_is_named_and_nothing_goes_on(killed, name):
    path = killed / name
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    before = (killed / "journal.jsonl").read_bytes()

    result = resume(killed)

    assert result.exit_code == 5, result.output
    assert name in result.stderr
    assert (killed / "journal.jsonl").read_bytes() == before


def test_a_run_of_another_version_is_refused_with_both_named(killed):
    from governance.evidence.store import EvidenceStore
    from governance.records.run import RunIdentity

    store = EvidenceStore.reopen(killed, tool_version="9.9")
    identity = RunIdentity.model_validate_json((killed / "run.json").read_bytes())
    store.write_document(identity.model_copy(update={"tool_version": "9.9"}))

    result = resume(killed)

    assert result.exit_code == 2
    assert "medisynth-gov 9.9" in result.stderr


def test_a_name_that_is_no_run_is_refused(killed):
    workspace = killed.parent.parent

    result = runner.invoke(app, ["run", "--resume", killed.name + "x", "-w", str(workspace)])

    assert result.exit_code == 2
    assert f"did you mean '{killed.name}'" in result.stderr


def test_a_run_that_had_not_begun_to_train_is_refused(tmp_path, killed):
    journal = killed / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    trained = next(k for k, line in enumerate(lines) if b'"type":"test set sealed"' in line)
    journal.write_bytes(b"".join(lines[:trained]))

    result = resume(killed)

    assert result.exit_code == 2
    assert "cut short before training" in result.stderr


def test_a_run_that_still_trains_is_not_resumed_and_a_stop_signal_commits(tmp_path, whole):
    process = start(*arguments(tmp_path, 60))
    run_dir = wait_for(tmp_path, process, 1)

    refused = resume(run_dir)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert refused.exit_code == 7
    assert str(process.pid) in refused.stderr
    assert process.returncode == 130, err
    assert json.loads(out)["resume"] == f"medisynth-gov run --resume {run_dir.name} -w {tmp_path}"
    assert runner.invoke(app, ["verify", str(run_dir)]).exit_code == 0
    first_end = sha256_file(run_dir / "manifest.json")

    result = resume(run_dir)

    assert result.exit_code == 9, result.output
    check_finished(run_dir)
    check_same_result(run_dir, whole)
    assert sha256_file(run_dir / "history" / "1" / "manifest.json") == first_end
    assert events(run_dir, "run resumed")[0].body["reason"].startswith("interrupted")


@pytest.mark.slow
def test_many_kills_at_random_moments_lose_nothing(tmp_path, whole):
    rng = random.Random(20261)  # noqa: S311 - moments to kill at
    process = start(*arguments(tmp_path, 20))
    run_dir = wait_for(tmp_path, process, 1)
    n_kills = 0
    while process.poll() is None and n_kills < 12:
        time.sleep(rng.uniform(0, 0.6))
        if process.poll() is None:
            kill(process)
            n_kills += 1
        process = start("run", "--resume", str(run_dir), "--json")
        n = len(events(run_dir, "run resumed"))
        while process.poll() is None and len(events(run_dir, "run resumed")) == n:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 2.5))
    _, err = process.communicate(timeout=120)

    assert process.returncode == 9, err
    assert n_kills >= 3
    check_finished(run_dir)
    check_same_result(run_dir, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "n_kills"), [(TINY, 40), ((), 10)], ids=["tiny", "smoke"])
def test_after_every_kill_the_next_start_works_and_nothing_half_written_is_believed(
    tmp_path, options, n_kills
):
    count = kill_runs(tmp_path, n_kills, seed=20262, options=options, say=print)

    assert count.kills.total() == n_kills
