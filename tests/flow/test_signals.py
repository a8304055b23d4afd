"""Statuses that are true after exceptions and signals, in journal, exit code and MLflow alike."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.finished_runs import sync as outbox
from pipelines.finished_runs.sync import is_worked_on
from tests.flow.test_resumed_runs import ROOT, arguments, start, wait_for

runner = CliRunner()
TRACKED = ("-o", "tracking.enabled=true")
BEFORE = dict.fromkeys(("s1_ingest", "s2_validate", "s3_audit", "s4_split"), "FINISHED")
AFTER = {"s7_evidence": "FINISHED", "s8_report": "FINISHED"}


def statuses(workspace: Path) -> tuple[str, dict[str, str]]:
    """MLflow's status of the one run of a workspace, and of each step."""
    with closing(sqlite3.connect(workspace / "mlflow" / "mlflow.db")) as store:
        children = store.execute(
            "SELECT r.name, r.status FROM runs r JOIN tags t USING (run_uuid) "
            "WHERE t.key = 'mlflow.parentRunId'"
        ).fetchall()
        ((parent,),) = store.execute(
            "SELECT r.status FROM runs r JOIN tags t USING (run_uuid) "
            "WHERE t.key = 'medisynth.run_id'"
        ).fetchall()
    assert len(dict(children)) == len(children)
    return parent, dict(children)


def outcome(run_dir: Path):
    return json.loads((run_dir / "outcome.json").read_bytes())


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGHUP, 129),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_stop_signal_in_training_is_killed_in_mlflow_and_has_its_exit_code(
    tmp_path, number, code
):
    process = start(*arguments(tmp_path, 60), *TRACKED)
    run_dir = wait_for(tmp_path, process, 1)

    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == code, err
    assert "Traceback" not in err
    assert statuses(tmp_path) == ("KILLED", BEFORE | {"s5_train": "KILLED"} | AFTER)
    assert (outcome(run_dir)["status"], outcome(run_dir)["stopped_at"]) == (
        "interrupted",
        "s5_train",
    )
    assert runner.invoke(app, ["verify", str(run_dir)]).exit_code == 0


def test_a_second_signal_leaves_at_once_and_the_next_start_tells_mlflow(tmp_path):
    process = start(*arguments(tmp_path, 60), *TRACKED)
    run_dir = wait_for(tmp_path, process, 1)

    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert time.monotonic() - sent < 2
    assert process.returncode == -signal.SIGTERM  # a shell says 143
    assert statuses(tmp_path)[0] == "RUNNING"
    deadline = time.monotonic() + 30  # the training process ends after its current step
    while is_worked_on(run_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    said: list[str] = []
    outbox.recover(tmp_path, said.append)
    assert f"run {run_dir.name} was cut short" in said[0]
    parent, steps = statuses(tmp_path)
    assert (parent, steps["s5_train"]) == ("KILLED", "KILLED")


def test_a_terminal_that_goes_away_ends_the_run_cleanly_though_nothing_can_be_said(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "pipelines.cli.app", *arguments(tmp_path, 60), *TRACKED],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    run_dir = wait_for(tmp_path, process, 1)

    os.close(ours)  # from now on writing to the terminal fails
    process.send_signal(signal.SIGHUP)

    assert process.wait(timeout=60) == 129
    assert outcome(run_dir)["status"] == "interrupted"
    assert statuses(tmp_path) == ("KILLED", BEFORE | {"s5_train": "KILLED"} | AFTER)


def test_a_generator_that_raises_is_a_failed_run_with_a_failed_step(tmp_path):
    settings = "{steps: 40, size: 32, fails_at: 7}"

    result = runner.invoke(
        app, [*arguments(tmp_path, 0), *TRACKED, "-o", f"model.settings={settings}"]
    )

    assert result.exit_code == 1, result.output
    assert statuses(tmp_path) == ("FAILED", BEFORE | {"s5_train": "FAILED"} | AFTER)
