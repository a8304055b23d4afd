"""Sync: a finished run is mirrored from its folder, wholly and once, whenever the store is back."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.evidence.folder import RunFolder
from governance.evidence.store import EvidenceStore
from governance.records.evaluation import EvaluationRecord
from governance.records.training import TrainingRecord
from pipelines.cli.app import app
from pipelines.config.sections import TrackingConfig
from pipelines.current_run.lock import run_lock
from pipelines.finished_runs import sync as outbox
from pipelines.tracking import Tracker, store_uri
from pipelines.tracking.mirror import RunMirror
from tests.pipelines.finished_runs.finished_runs import NO_TRACKING, RUN_ID, finished, releasable

runner = CliRunner()
MIRRORED = b"preset: laptop\nseed: 7\n"
OTHER_ID = "20260305T101112Z-b2c3d4e5"
NAMED = ("--by", "Ada Beispiel", "--reason", "Best of three seeds.")


def client(workspace: Path):
    from mlflow import MlflowClient

    uri = store_uri(workspace, TrackingConfig())
    return MlflowClient(uri, registry_uri=uri)


def rows(workspace: Path, table: str) -> int:
    with sqlite3.connect(workspace / "mlflow" / "mlflow.db") as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    connection.close()
    return int(count)


TABLES = ("runs", "params", "metrics", "logged_models", "datasets", "inputs", "tags")


def counts(workspace: Path):
    return {table: rows(workspace, table) for table in TABLES}


def parent(workspace: Path, run_id: str = RUN_ID):
    store = client(workspace)
    experiment = store.get_experiment_by_name("medisynth-gov")
    (run,) = store.search_runs(
        [experiment.experiment_id], filter_string=f"tags.`medisynth.run_id` = '{run_id}'"
    )
    return run


def model_id(workspace: Path) -> str:
    store = client(workspace)
    experiment = store.get_experiment_by_name("medisynth-gov")
    (model,) = store.search_logged_models([experiment.experiment_id])
    return str(model.model_id)


def points_on_record(run_dir: Path) -> int:
    run = RunFolder.finished(run_dir)
    training = run.need(TrainingRecord)
    curves = sum(len(curve.steps) for curve in training.curves)
    compared = training.comparison
    values = 1 + len(compared.controls) if compared and compared.value is not None else 0
    for metric in run.need(EvaluationRecord).metrics:
        if metric.value is not None:
            values += 1 + 2 * (metric.ci95 is not None) + (metric.floor is not None)
    return curves + values


def test_a_run_that_waits_is_mirrored_wholly_and_a_second_sync_doubles_nothing(tmp_path):
    run_dir = finished(tmp_path, config=MIRRORED)
    outbox.mark(tmp_path, RUN_ID, "the server was away")

    first = runner.invoke(app, ["sync", "-w", str(tmp_path)])
    after_first = counts(tmp_path)
    again = runner.invoke(app, ["sync", RUN_ID, "-w", str(tmp_path)])

    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert counts(tmp_path) == after_first
    assert after_first["metrics"] == points_on_record(run_dir)
    assert outbox.waiting(tmp_path) == ()
    run = parent(tmp_path)
    assert run.info.status == "FINISHED"
    manifest = RunFolder.finished(run_dir).manifest
    assert run.data.tags["medisynth.evidence_root"] == manifest.evidence_root
    assert run.data.params == {"preset": "laptop", "seed": "7"}
    names = {file.path for file in client(tmp_path).list_artifacts(run.info.run_id)}
    assert {"report.pdf", "model_card.md", "manifest.json"} <= names


def test_what_a_broken_mirror_wrote_before_is_completed_not_doubled(tmp_path):
    run_dir = finished(tmp_path, config=MIRRORED)
    run = RunFolder.finished(run_dir)
    tracker = Tracker(tmp_path, TrackingConfig(), warn=pytest.fail)
    tracker.connect()
    tracker.start(run.identity, {"seed": "7"})
    with tracker.step("s1_ingest"):
        pass
    tracker._start_step("s5_train")  # the server goes away here
    record = run.need(TrainingRecord)
    half = record.curves[0].model_copy(
        update={"steps": record.curves[0].steps[:1], "values": record.curves[0].values[:1]}
    )
    assert tracker._store is not None
    mirror = RunMirror(tracker._store, run.identity, {})
    mirror.write_training(
        record.model_copy(update={"curves": (half,)}), run_dir / record.checkpoint_path
    )

    done = outbox.sync_run(run_dir, pytest.fail)

    assert done.state == "complete"
    assert rows(tmp_path, "metrics") == points_on_record(run_dir)
    assert rows(tmp_path, "logged_models") == 1
    modified = client(tmp_path).get_logged_model(model_id(tmp_path)).last_updated_timestamp
    outbox.sync_run(run_dir, pytest.fail)  # a complete model is not uploaded again
    assert client(tmp_path).get_logged_model(model_id(tmp_path)).last_updated_timestamp == modified
    steps = client(tmp_path).search_runs(
        [parent(tmp_path).info.experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{parent(tmp_path).info.run_id}'",
    )
    names = sorted(step.info.run_name for step in steps)
    assert names == [
        *("s1_ingest", "s2_validate", "s3_audit", "s4_split"),
        *("s5_train", "s6_evaluate", "s7_evidence", "s8_report"),
    ]
    assert {step.info.status for step in steps} == {"FINISHED"}


def test_a_workspace_that_was_moved_keeps_its_mirror_and_the_old_place_stays_empty(
    tmp_path, monkeypatch
):
    run_dir = finished(tmp_path / "old", config=MIRRORED)
    assert outbox.sync_run(run_dir, pytest.fail).state == "complete"
    before = counts(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()  # as in another process, which is what comes back later

    for run in (f"new/runs/{RUN_ID}", str(tmp_path / "new" / "runs" / RUN_ID)):
        compared = runner.invoke(app, ["verify", run, "--mirror"])
        assert "MLflow: digest of model" not in compared.output, compared.output
    assert runner.invoke(app, ["sync", RUN_ID, "-w", "new"]).exit_code == 0
    finished(tmp_path / "new", config=MIRRORED, run_id=OTHER_ID)
    assert runner.invoke(app, ["sync", OTHER_ID, "-w", "new"]).exit_code == 0

    assert not (tmp_path / "old").exists()
    assert rows(tmp_path / "new", "logged_models") == before["logged_models"] + 1
    database = sqlite3.connect(tmp_path / "new" / "mlflow" / "mlflow.db")
    assert "/old/" not in "".join(database.iterdump())
    database.close()


def test_while_the_store_is_away_the_run_waits_and_exit_6_says_so(tmp_path):
    run_dir = finished(tmp_path, config=MIRRORED)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_text("not a database, but a text of some length")

    away = runner.invoke(app, ["sync", str(run_dir)])
    assert away.exit_code == 6
    assert "not mirrored" in away.output
    assert outbox.waiting(tmp_path) == (RUN_ID,)

    (tmp_path / "mlflow" / "mlflow.db").unlink()
    assert runner.invoke(app, ["sync", "-w", str(tmp_path)]).exit_code == 0
    assert outbox.waiting(tmp_path) == ()


def test_a_promotion_moves_the_alias_and_nothing_else_does(tmp_path):
    first = releasable(tmp_path, config=MIRRORED)
    second = releasable(tmp_path, config=MIRRORED, run_id=OTHER_ID)

    for run_dir, stage in ((first, "released"), (second, "candidate")):
        done = runner.invoke(app, ["promote", str(run_dir), *NAMED, "--to", stage])
        assert done.exit_code == 0, done.output
        assert f"{stage} points at this version" in done.output
    store = client(tmp_path)
    released = store.get_model_version_by_alias("dsr-gan", "released")
    candidate = store.get_model_version_by_alias("dsr-gan", "candidate")
    assert released.run_id == parent(tmp_path).info.run_id
    assert candidate.tags["medisynth.run_id"] == OTHER_ID
    assert (released.tags["medisynth.version"], candidate.tags["medisynth.version"]) == ("1", "2")

    runner.invoke(app, ["promote", str(second), *NAMED, "--to", "released"])
    assert outbox.sync_run(first, pytest.fail).state == "complete"

    again = store.get_model_version_by_alias("dsr-gan", "released")
    assert again.version == candidate.version
    assert len(store.search_model_versions("name = 'dsr-gan'")) == 2


def test_a_promotion_stands_while_the_store_is_away_and_sync_sets_the_alias_later(tmp_path):
    run_dir = releasable(tmp_path, config=MIRRORED)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_text("not a database, but a text of some length")

    promoted = runner.invoke(app, ["promote", str(run_dir), *NAMED, "--to", "released"])

    assert promoted.exit_code == 0
    assert "later: medisynth-gov sync " in promoted.output
    assert (tmp_path / "promotions.jsonl").stat().st_size > 0
    (tmp_path / "mlflow" / "mlflow.db").unlink()
    assert runner.invoke(app, ["sync", "-w", str(tmp_path)]).exit_code == 0
    version = client(tmp_path).get_model_version_by_alias("dsr-gan", "released")
    assert version.run_id == parent(tmp_path).info.run_id


def test_a_run_without_tracking_is_mirrored_nowhere(tmp_path):
    run_dir = finished(tmp_path, config=NO_TRACKING)
    outbox.mark(tmp_path, RUN_ID, "promoted")

    result = runner.invoke(app, ["sync", "-w", str(tmp_path), "--json"])

    assert [one["state"] for one in json.loads(result.stdout)] == ["off"]
    assert outbox.waiting(tmp_path) == ()
    assert not (tmp_path / "mlflow").exists()
    assert run_dir.is_dir()


def test_a_run_that_goes_on_is_left_alone(tmp_path):
    run_dir = finished(tmp_path, config=MIRRORED)
    outbox.mark(tmp_path, RUN_ID, "run began")

    with run_lock(run_dir):
        done = outbox.sync(tmp_path, pytest.fail)

    assert [one.state for one in done] == ["working"]
    assert outbox.waiting(tmp_path) == (RUN_ID,)


def test_one_damaged_folder_does_not_keep_the_others_from_being_mirrored(tmp_path):
    damaged = finished(tmp_path, config=NO_TRACKING)
    finished(tmp_path, config=NO_TRACKING, run_id=OTHER_ID)
    path = damaged / "config.yaml"
    path.write_bytes(path.read_bytes() + b" ")
    for run_id in (RUN_ID, OTHER_ID):
        outbox.mark(tmp_path, run_id, "the server was away")

    result = runner.invoke(app, ["sync", "-w", str(tmp_path)])

    assert result.exit_code == 6
    assert "config.yaml: recorded as" in result.output
    assert outbox.waiting(tmp_path) == (RUN_ID,)


def cut_short(workspace: Path, run_id: str, config: bytes) -> Path:
    """A run whose process was killed in training, after it had begun its mirror."""
    store = EvidenceStore.create(workspace / "runs", run_id, tool_version="0")
    store.write_bytes("config.yaml", config)
    identity = RunFolder.finished(finished(workspace / "other")).identity
    tracker = Tracker(workspace, TrackingConfig(), pytest.fail)
    outbox.mark(workspace, run_id, "run began")
    tracker.connect()
    tracker.start(identity.model_copy(update={"run_id": run_id}), {"seed": "7"})
    tracker._start_step("s5_train")
    return store.run_dir


def test_the_next_run_names_a_killed_run_and_closes_it_in_the_mirror_once(tmp_path):
    run_dir = cut_short(tmp_path, OTHER_ID, MIRRORED)
    finished(tmp_path, config=MIRRORED)
    outbox.mark(tmp_path, RUN_ID, "the server was away")
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    said: list[str] = []

    outbox.recover(tmp_path, said.append)

    assert said == [
        f"run {OTHER_ID} was cut short before training; there is nothing to go on from",
        f"finished runs that wait to be mirrored: 1; medisynth-gov sync -w {tmp_path}",
    ]
    assert parent(tmp_path, OTHER_ID).info.status == "KILLED"
    assert outbox.waiting(tmp_path) == (RUN_ID,)
    assert {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("blocked", "word"), [(False, "FINISHED"), (True, "FAILED")])
def test_the_next_run_says_how_a_run_ended_that_was_killed_in_its_mirror(tmp_path, blocked, word):
    run_dir = finished(tmp_path, config=MIRRORED, blocked=blocked, gate_passed=not blocked)
    tracker = Tracker(tmp_path, TrackingConfig(), pytest.fail)
    tracker.connect()
    outbox.mark(tmp_path, RUN_ID, "run began")
    tracker.start(RunFolder.finished(run_dir).identity, {"seed": "7"})
    tracker._start_step("s8_report")  # and then the process was killed
    said: list[str] = []

    outbox.recover(tmp_path, said.append)

    assert said == [f"finished runs that wait to be mirrored: 1; medisynth-gov sync -w {tmp_path}"]
    run = parent(tmp_path)
    assert run.info.status == word
    assert run.data.tags["medisynth.verdict"] != "running"
    assert run.info.end_time == int(
        RunFolder.finished(run_dir).manifest.created_utc.timestamp() * 1000
    )
    assert outbox.waiting(tmp_path) == (RUN_ID,)  # curves, metrics and files are still to come
    outbox.sync(tmp_path, pytest.fail)
    assert outbox.waiting(tmp_path) == ()


def test_a_killed_run_with_a_damaged_configuration_stops_no_other_run(tmp_path):
    run_dir = EvidenceStore.create(tmp_path / "runs", OTHER_ID, tool_version="0").run_dir
    (run_dir / "config.yaml").write_bytes(b"tracking: [")
    outbox.mark(tmp_path, OTHER_ID, "run began")
    said: list[str] = []

    outbox.recover(tmp_path, said.append)

    assert [line.split(":")[0] for line in said][1] == (
        f"run {OTHER_ID} cannot be closed in MLflow"
    )


def test_nothing_waits_in_a_fresh_workspace(tmp_path):
    result = runner.invoke(app, ["sync", "-w", str(tmp_path)])

    assert (result.exit_code, result.output) == (0, "no run waits to be mirrored\n")
