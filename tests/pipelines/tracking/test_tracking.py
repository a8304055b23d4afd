from datetime import UTC, datetime
from pathlib import Path

import pytest

from governance.records.errors import InterruptedByUser, TrackingError
from governance.records.run import RunIdentity
from pipelines.config.sections import TrackingConfig
from pipelines.tracking import Tracker, metric_name, store_uri
from pipelines.tracking.store import reason_of

IDENTITY = RunIdentity(
    run_id="20260101T000000Z-00000000",
    started_utc=datetime(2026, 1, 1, tzinfo=UTC),
    tool_version="0",
    code_commit=None,
    code_clean=None,
    command=("medisynth-gov", "run"),
    preset="smoke",
    generator="dsr-gan",
    seed=0,
    config_sha256="0" * 64,
)


def client_of(tracker: Tracker):
    assert tracker._store is not None
    return tracker._store.client


def runs_of(tracker: Tracker):
    assert tracker._store is not None
    return tracker._store.client.search_runs([tracker._store.experiment_id])


def test_the_store_is_an_absolute_sqlite_file_in_the_workspace(tmp_path):
    assert store_uri(tmp_path, TrackingConfig()) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"


def test_names_from_data_are_encoded_not_refused():
    assert metric_name("fid/machine=Voluson E6 (2)") == "fid/machine_u003dVoluson E6 _u00282_u0029"
    assert metric_name("a;b") != metric_name("a,b")


def test_a_step_that_raises_is_a_failed_child_run(tmp_path):
    tracker = Tracker(tmp_path, TrackingConfig(), warn=pytest.fail)
    tracker.connect()
    tracker.start(IDENTITY, {"seed": "0"})

    with tracker.step("good"):
        pass
    with pytest.raises(ValueError, match="bad"), tracker.step("bad"):
        raise ValueError("bad")
    tracker.finish("FAILED")

    status = {run.info.run_name: run.info.status for run in runs_of(tracker)}
    assert status == {IDENTITY.run_id: "FAILED", "good": "FINISHED", "bad": "FAILED"}


def test_without_tracking_every_call_does_nothing(tmp_path):
    tracker = Tracker(tmp_path, TrackingConfig(enabled=False), warn=pytest.fail)
    tracker.connect()

    tracker.start(IDENTITY, {})
    with tracker.step("x"):
        pass
    tracker.log_step("s4_split", None)  # no file of the run is looked at
    tracker.finish("FINISHED")

    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_fails_during_a_run_is_said_once_and_stops_nothing(tmp_path):
    warnings: list[str] = []
    tracker = Tracker(tmp_path, TrackingConfig(), warn=warnings.append)
    tracker.connect()
    tracker.start(IDENTITY, {})

    (tmp_path / "mlflow" / "mlflow.db").unlink()
    with tracker.step("after"):
        pass
    with tracker.step("later"):
        pass

    assert len(warnings) == 1
    assert "the run folder stays complete" in warnings[0]


def test_a_store_that_cannot_be_opened_is_refused_before_any_work(tmp_path):
    tracker = Tracker(tmp_path, TrackingConfig(uri="nonsense://x"), warn=pytest.fail)

    with pytest.raises(TrackingError, match=r"tracking\.uri: nonsense://x"):
        tracker.connect()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_text("not a database, but a text of some length")

    with pytest.raises(TrackingError, match="cannot be opened"):
        Tracker(tmp_path, TrackingConfig(), warn=pytest.fail).connect()


def test_the_store_is_not_in_its_place_before_all_its_tables_are_made(tmp_path, monkeypatch):
    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Tracker(tmp_path, TrackingConfig(), warn=pytest.fail).connect()

    assert (tmp_path / "mlflow" / ".mlflow.db.part").is_file()
    assert not (tmp_path / "mlflow" / "mlflow.db").exists()


def test_a_half_made_store_that_a_killed_start_left_is_made_anew(tmp_path):
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / ".mlflow.db.part").write_bytes(b"half a file")
    (folder / ".mlflow.db.part-journal").write_bytes(b"what was to be undone in it")
    (folder / "mlflow.db").touch()  # an older version was killed before its first table

    tracker = Tracker(tmp_path, TrackingConfig(), warn=pytest.fail)
    tracker.connect()
    tracker.start(IDENTITY, {"seed": "0"})

    assert [run.info.status for run in runs_of(tracker)] == ["RUNNING"]
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", ".schema.lock"}


def test_a_resumed_run_goes_on_in_the_same_parent_run(tmp_path):
    first = Tracker(tmp_path, TrackingConfig(), warn=pytest.fail)
    first.connect()
    first.start(IDENTITY, {"seed": "0"})
    with first.step("s1_ingest"):
        pass
    first._start_step("s5_train")  # and then the process was killed

    again = Tracker(tmp_path, TrackingConfig(), warn=pytest.fail)
    again.connect()
    again.resume(IDENTITY, {"seed": "0"})

    client = client_of(again)
    assert again.run_id == first.run_id
    assert client.get_run(str(again.run_id)).info.status == "RUNNING"
    status = {run.info.run_name: run.info.status for run in runs_of(again)}
    assert (status["s1_ingest"], status["s5_train"]) == ("FINISHED", "KILLED")
    again.finish("FINISHED")
    assert client.get_run(str(again.run_id)).info.status == "FINISHED"


def test_a_resumed_run_that_the_store_does_not_know_begins_there_and_says_so(tmp_path):
    said = []
    tracker = Tracker(tmp_path, TrackingConfig(), warn=said.append)
    tracker.connect()

    tracker.resume(IDENTITY, {"seed": "0"})

    assert tracker.run_id is not None
    assert said == ["MLflow has no run of this id; a new one begins here"]


@pytest.mark.parametrize(
    ("error", "word"),
    [(InterruptedByUser(15), "KILLED"), (KeyboardInterrupt(), "KILLED"), (OSError(), "FAILED")],
)
def test_what_leaves_a_run_by_an_exception_leaves_true_statuses(tmp_path, error, word):
    tracker = Tracker(tmp_path, TrackingConfig(), warn=pytest.fail)
    tracker.connect()

    tracker.start(IDENTITY, {"seed": "0"})

    with pytest.raises(type(error)), tracker.closing(), tracker.step("s5_train"):
        raise error

    assert {run.info.status for run in runs_of(tracker)} == {word}


def test_a_run_that_vanished_is_closed_as_killed_and_its_steps_too(tmp_path):
    gone = Tracker(tmp_path, TrackingConfig(), warn=pytest.fail)
    gone.connect()
    gone.start(IDENTITY, {"seed": "0"})
    with gone.step("s1_ingest"):
        pass
    gone._start_step("s5_train")  # and then the process was killed

    assert Tracker(tmp_path, TrackingConfig(), warn=pytest.fail).close_left_behind(IDENTITY.run_id)

    status = {run.info.run_name: run.info.status for run in runs_of(gone)}
    assert status == {IDENTITY.run_id: "KILLED", "s1_ingest": "FINISHED", "s5_train": "KILLED"}


def test_of_a_lost_connection_the_reason_alone_is_said():
    error = ValueError("API request to http://127.0.0.1:9/api failed with exception HTTPConnection")
    error.__cause__ = RuntimeError("Max retries exceeded")
    error.__cause__.__context__ = ConnectionRefusedError(111, "Connection refused")

    assert reason_of(error) == "the tracking server cannot be reached: Connection refused"
    assert reason_of(ValueError("no such run\nand more")) == "no such run"
