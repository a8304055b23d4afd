"""What a resumed run is checked for before anything of it changes."""

import fcntl
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from governance.evidence.journal import Journal
from governance.evidence.store import EvidenceStore
from governance.records.errors import ConfigError, MachineError
from pipelines.config.model import changed_config, flat_config, load_config, read_config
from pipelines.current_run.lock import run_lock
from pipelines.finished_runs.find import find_run
from pipelines.finished_runs.resume import _times, open_earlier_run


def event(kind: str, second: int, step: str = ""):
    time_utc = f"2026-01-01T00:00:{second:02d}.000Z"
    return SimpleNamespace(type=kind, time_utc=time_utc, body={"step": step} if step else {})


def test_times_are_those_of_all_processes_that_worked_on_the_run():
    events = [
        event("plan frozen", 0),
        event("step started", 1, "s1_ingest"),
        event("step finished", 4, "s1_ingest"),
        event("step started", 4, "s5_train"),
        event("step committed", 9),  # then killed
        event("run resumed", 30),
        event("step started", 30, "s5_train"),
        event("step interrupted", 32, "s5_train"),
        event("evidence closed", 33),
        event("run resumed", 50),
        event("step started", 50, "s5_train"),
        event("step finished", 53, "s5_train"),
        event("step started", 53, "s6_evaluate"),
        event("test set opened", 54),  # then killed
    ]

    finished, spent_s, total_s = _times(events)

    assert [(t.step, t.duration_s) for t in finished] == [("s1_ingest", 3), ("s5_train", 5 + 2 + 3)]
    assert spent_s == {"s6_evaluate": 1}
    assert total_s == 9 + 3 + 4


@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_a_configuration_that_was_written_reads_back_the_same(preset):
    config = load_config(preset=preset, overrides=["data.planes=[a, b]", "criteria.P4-06=3"])

    assert read_config(config.to_yaml(), "config.yaml").to_yaml() == config.to_yaml()
    with pytest.raises(ConfigError, match=r"config\.yaml: was written by another version"):
        read_config(config.to_yaml() + b"\n", "config.yaml")


def test_what_is_left_out_is_asked_for_as_it_was():
    config = load_config(preset="smoke", overrides=["seed=5"])

    same = changed_config(config)
    other = changed_config(config, overrides=["training.processes=2"])
    whole = changed_config(config, preset="smoke")

    assert flat_config(same) == flat_config(config)
    assert other.seed == 5
    assert other.training.processes == 2
    assert whole.seed == 0


def test_a_preset_has_no_settings_of_its_own_model_for_another():
    config = load_config(preset="smoke", flags={"model.name": "tests.plugins.slow_toy:SlowToy"})

    assert config.model.settings == {}


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path):
    with (
        run_lock(tmp_path),
        pytest.raises(MachineError, match=f"process {os.getpid()} or its training") as caught,
        run_lock(tmp_path, wait_s=0),
    ):
        pass

    assert caught.value.exit_code == 7
    with run_lock(tmp_path, wait_s=0):
        pass


def test_the_training_process_of_a_killed_run_is_waited_for(tmp_path):
    """The number in the lock is that of a process that is gone; its child still holds the lock."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with run_lock(tmp_path) as descriptor:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(gone.pid).encode(), 0)
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(1)"], pass_fds=(descriptor,)
        )

    with run_lock(tmp_path, wait_s=10) as descriptor:
        assert child.poll() is not None
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_run_is_found_by_id_and_by_folder(tmp_path):
    store = EvidenceStore.create(tmp_path / "runs", "20260101T000000Z-aa", tool_version="0.1.0")

    assert find_run("20260101T000000Z-aa", tmp_path) == store.run_dir
    assert find_run(str(store.run_dir), tmp_path / "elsewhere") == store.run_dir
    with pytest.raises(ConfigError, match="did you mean '20260101T000000Z-aa'"):
        find_run("20260101T000000Z-ab", tmp_path)
    with pytest.raises(ConfigError, match="no run ''"):
        find_run("", tmp_path)


def test_a_folder_without_configuration_ended_before_it_began(tmp_path):
    store = EvidenceStore.create(tmp_path / "runs", "r1", tool_version="0.1.0")

    with pytest.raises(ConfigError, match="ended before it began"):
        open_earlier_run(store.run_dir, lambda config: config)

    assert Journal.open(store.journal.path, run_id="r1", tool_version="0").n_events == 0
