"""Runs that a vanished process left: named, closed in the mirror, and otherwise left as they are."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.errors import MachineError
from pipelines.config.model import load_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.current_run.lock import folder_lock, run_lock
from pipelines.finished_runs.sync import find_left_behind, is_worked_on, sentences
from pipelines.steps import s1_ingest
from tests.pipelines.finished_runs.finished_runs import RUN_ID, finished
from tests.places import ROOT

HOLD = (
    "import sys, time; from pathlib import Path; from pipelines.current_run.lock import run_lock\n"
    "with run_lock(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


def begin(workspace: Path, run_id: str, *, is_prepared: bool = False) -> Path:
    store = EvidenceStore.create(workspace / "runs", run_id, tool_version="0")
    store.journal.append("step started", {"step": "s4_split"})
    if is_prepared:
        store.journal.append("step finished", {"step": "s4_split", "message": ""})
    (store.run_dir / ".lock").write_text("999999999\n")
    return store.run_dir


def test_a_run_without_an_end_and_without_a_process_is_named_with_its_way_on(tmp_path):
    finished(tmp_path)
    begin(tmp_path, "20260401T000000Z-aaaaaaaa", is_prepared=True)
    begin(tmp_path, "20260402T000000Z-bbbbbbbb")

    left = find_left_behind(tmp_path)

    assert [str(one) for one in left] == [
        "run 20260402T000000Z-bbbbbbbb was cut short before training; "
        "there is nothing to go on from",
        "run 20260401T000000Z-aaaaaaaa was cut short; "
        "go on with --resume 20260401T000000Z-aaaaaaaa",
    ]


def test_a_run_killed_between_its_evidence_and_its_report_was_cut_short(tmp_path):
    from tests.stored_run.stored import write_run

    write_run(tmp_path / "runs")

    assert [one.run_id for one in find_left_behind(tmp_path)] == [RUN_ID]


def test_a_finished_run_a_damaged_manifest_and_other_folders_are_not_named(tmp_path):
    damaged = finished(tmp_path)
    (damaged / "manifest.json").write_bytes(b"{")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "file").write_text("x")

    assert find_left_behind(tmp_path) == ()
    assert find_left_behind(tmp_path / "nothing") == ()


def test_a_run_on_which_a_process_works_is_left_alone_until_that_process_is_killed(tmp_path):
    run_dir = begin(tmp_path, RUN_ID)
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != ".lock"}
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", HOLD, str(run_dir)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        assert is_worked_on(run_dir)
        assert find_left_behind(tmp_path) == ()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    assert not is_worked_on(run_dir)
    assert [one.run_id for one in find_left_behind(tmp_path)] == [RUN_ID]
    now = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != ".lock"}
    assert now == before
    with run_lock(run_dir, wait_s=0):  # what was looked at can still be taken up
        pass


def test_many_runs_are_three_lines_and_a_number(tmp_path):
    for day in range(1, 7):
        begin(tmp_path, f"2026040{day}T000000Z-aaaaaaaa")

    lines = sentences(find_left_behind(tmp_path))

    assert len(lines) == 4
    assert "20260406T" in lines[0]
    assert lines[3] == "… and 3 earlier runs were cut short, too"


def _simulate(workspace, started, said) -> None:
    config = load_config(
        preset="smoke", overrides=["data.phantom={n_patients: 8, image_height_px: 64}"]
    )
    store = EvidenceStore.create(workspace / "runs", f"run-{os.getpid()}", tool_version="0")
    context = RunContext(config, load_policy(), store, Console(), workspace)
    started.wait()
    said.put(str(s1_ingest.data_root(context)))


def _stay(folder: str, started: "multiprocessing.synchronize.Event", log: str) -> None:
    started.wait()
    with folder_lock(Path(folder)), Path(log).open("a") as stream:
        stream.write("in\n")
        stream.flush()
        time.sleep(0.02)
        stream.write("out\n")


def test_four_processes_that_begin_at_once_are_one_after_the_other(tmp_path):
    methods = multiprocessing.get_context("fork")
    started, log = methods.Event(), tmp_path / "log"
    processes = [
        methods.Process(target=_stay, args=(str(tmp_path), started, str(log))) for _ in range(4)
    ]
    for process in processes:
        process.start()
    started.set()
    for process in processes:
        process.join()

    assert log.read_text().split() == ["in", "out"] * 4


def test_a_workspace_that_is_held_for_too_long_is_said(tmp_path):
    with (
        folder_lock(tmp_path),
        pytest.raises(MachineError, match="held this for a long time"),
        folder_lock(tmp_path, wait_s=0.1),
    ):
        pass


def test_a_workspace_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(MachineError, match="cannot be written"), folder_lock(tmp_path / "file"):
        pass


def test_of_runs_that_begin_at_once_one_simulates_the_data_and_the_others_take_them(tmp_path):
    methods = multiprocessing.get_context("fork")
    started, said = methods.Event(), methods.SimpleQueue()
    processes = [
        methods.Process(target=_simulate, args=(tmp_path, started, said)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    started.set()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    (root,) = (path for path in (tmp_path / "data").iterdir() if path.is_dir())
    assert {said.get() for _ in processes} == {str(root)}
