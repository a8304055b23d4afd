import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from governance.records.errors import InterruptedByUser, TrackingError, first_line
from governance.records.run import RunIdentity
from pipelines.config.sections import TrackingConfig
from pipelines.tracking import Tracker, metric_name, open_store, store, store_uri
from pipelines.tracking.store import open_known_store, reason_of

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


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:////proc/x.db", "No such file"),
        ("sqlite:////proc/x.db?timeout=5", "unable to open"),
        ("postgresql+pg8000://127.0.0.1/db", "no driver for postgresql .* pip install pg8000"),
        ("mysql+pymysql://127.0.0.1/db", "no driver for mysql here .* pip install pymysql"),
        ("mysql://127.0.0.1/db", "no driver for mysql here .* pip install mysqlclient"),
        ("mssql+pyodbc://127.0.0.1/db", "no driver for mssql here .* pip install pyodbc"),
        ("postgresql:", "Could not parse"),
        ("postgresql+nothing://x/y", "postgresql.nothing"),
    ],
)
def test_a_database_that_cannot_be_opened_is_refused_at_once_with_its_reason(tmp_path, uri, said):
    began = time.monotonic()
    with pytest.raises(TrackingError, match=said) as caught:
        Tracker(tmp_path, TrackingConfig(uri=uri), warn=pytest.fail).connect()

    assert caught.value.exit_code == 6
    assert time.monotonic() - began < 5


def test_a_database_that_another_program_holds_is_said_to_be_held(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_PATIENCE_S", 0.1)
    open_store(tmp_path, TrackingConfig())
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db", isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")

        with pytest.raises(TrackingError, match=r"locked.*another program holds the database"):
            open_store(tmp_path, TrackingConfig())


def test_the_database_of_another_version_is_said_to_be_that(tmp_path):
    open_store(tmp_path / "new", TrackingConfig())
    old = tmp_path / "old" / "mlflow" / "mlflow.db"
    old.parent.mkdir(parents=True)
    shutil.copyfile(tmp_path / "new" / "mlflow" / "mlflow.db", old)
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '867495a8f9d4'")

    with pytest.raises(TrackingError, match=r"another version of MLflow .*mlflow db upgrade"):
        open_store(tmp_path / "old", TrackingConfig())


@pytest.mark.parametrize("name", ["what?now=1", "my%20data", "100%", "a#b"])
def test_a_workspace_whose_name_means_something_to_a_url_keeps_its_store_inside(tmp_path, name):
    workspace = tmp_path / "all" / name
    there = open_store(workspace, TrackingConfig())
    run = there.client.create_run(there.experiment_id)
    there.client.log_text(run.info.run_id, "text", "note.txt")

    assert (workspace / "mlflow" / "mlflow.db").is_file()
    assert list(workspace.rglob("note.txt"))
    assert [path.name for path in (tmp_path / "all").iterdir()] == [name]
    known = open_known_store(workspace, TrackingConfig())
    assert known.client.get_run(run.info.run_id)
    assert [path.name for path in (tmp_path / "all").iterdir()] == [name]


def test_files_of_a_configured_database_lie_beside_it_not_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    uri = f"sqlite:///{tmp_path}/elsewhere/m.db"
    there = open_store(tmp_path / "ws", TrackingConfig(uri=uri))
    run = there.client.create_run(there.experiment_id)
    there.client.log_text(run.info.run_id, "text", "note.txt")

    assert list((tmp_path / "here").iterdir()) == []
    assert list((tmp_path / "elsewhere" / "artifacts").rglob("note.txt"))


def test_what_another_program_says_is_never_cut_within_a_word():
    assert first_line("  one\ntwo") == "one"
    assert first_line("abc " * 100, 50) == "abc " * 12 + "…"
    assert first_line("x" * 100, 50) == "x" * 50 + " …"
    assert first_line("") == ""


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
