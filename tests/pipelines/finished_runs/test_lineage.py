"""Which run a run follows, what changed since, and runs of other seeds, from run folders alone."""

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from governance.evidence.manifest import OUTPUTS, close_evidence
from governance.evidence.store import EvidenceStore
from governance.records.dataset import DatasetIdentity
from governance.records.errors import ConfigError
from governance.records.evaluation import Baseline, EvaluationRecord, ImageStatistic
from governance.records.files import sha256_bytes
from governance.records.lineage import ChangeRecord, Lineage
from governance.records.run import RunIdentity
from governance.records.training import TrainingRecord
from pipelines.config.sections import LineageConfig
from pipelines.finished_runs.lineage import (
    baseline_of,
    drift_between,
    require_parent,
    write_lineage,
)
from pipelines.steps.s8_report import write_outputs
from tests.pipelines.finished_runs.finished_runs import finished
from tests.plugins.small_run import view
from tests.stored_run.stored import START, VERSION

IMAGES = {"img-1": "a", "img-2": "b", "img-3": "c"}
CONFIG = "preset: laptop\nseed: {seed}\nworkspace: {place}\nmodel:\n  name: dsr-gan\n"
_COPIED = ("data/dataset.json", "data/split.json", "metrics/evaluation.json", "plan.json")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A finished run whose documents the runs of these tests take over."""
    return finished(tmp_path_factory.mktemp("source"))


def new_run(
    workspace: Path,
    source: Path,
    name: str,
    *,
    seed: int = 7,
    images: dict[str, str] | None = IMAGES,
    config: str = CONFIG,
    **changes: dict[str, Any],
) -> EvidenceStore:
    """An open run of the workspace; `changes` are fields of its documents, by name of document."""
    store = EvidenceStore.create(workspace / "runs", name, tool_version=VERSION)
    text = config.format(seed=seed, place=workspace).encode()
    store.write_bytes("config.yaml", text)
    identity = RunIdentity.model_validate_json((source / "run.json").read_bytes())
    facts = {"run_id": name, "seed": seed, "config_sha256": sha256_bytes(text)}
    store.write_document(identity.model_copy(update=facts | changes.get("run", {})))
    for path in _COPIED:
        store.write_bytes(path, (source / path).read_bytes())
    store.write_bytes("checkpoints/x.safetensors", f"weights of {name}".encode())
    training = TrainingRecord.model_validate_json((source / "metrics/training.json").read_bytes())
    released = {
        "checkpoint_path": "checkpoints/x.safetensors",
        "checkpoint_sha256": sha256_bytes(f"weights of {name}".encode()),
    }
    store.write_document(training.model_copy(update=released))
    for path, kind, key in (
        ("data/dataset.json", DatasetIdentity, "dataset"),
        ("metrics/evaluation.json", EvaluationRecord, "evaluation"),
    ):
        if key in changes:
            document = kind.model_validate_json((source / path).read_bytes())
            store.write_document(document.model_copy(update=changes[key]))
    if images is not None:
        stream = BytesIO()
        pd.DataFrame({"image_id": images.keys(), "pixel_sha256": images.values()}).to_parquet(
            stream
        )
        store.write_bytes("data/images.parquet", stream.getvalue())
    return store


def end(store: EvidenceStore, source: Path, status: str = "finished") -> Path:
    """Close a run as if it had gone through all steps."""
    outcome = (source / "outcome.json").read_bytes().replace(b'"finished"', f'"{status}"'.encode())
    store.write_bytes("outcome.json", outcome)
    store.write_bytes("summary.json", (source / "summary.json").read_bytes())
    close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version=VERSION,
        journal=store.journal,
        previous_run=None,
        now=START,
    )
    write_outputs(store.run_dir, dict.fromkeys(OUTPUTS, b"rendered"))
    return store.run_dir


def lineage_of(store: EvidenceStore, **lineage: Any) -> tuple[Lineage, ChangeRecord | None]:
    config = SimpleNamespace(lineage=LineageConfig(**lineage))
    write_lineage(SimpleNamespace(store=store, config=config))
    change = store.run_dir / "change.json"
    record = Lineage.model_validate_json((store.run_dir / "lineage.json").read_bytes())
    found = ChangeRecord.model_validate_json(change.read_bytes()) if change.exists() else None
    return record, found


def test_a_first_run_says_so_and_has_nothing_to_be_compared_with(tmp_path, source):
    record, change = lineage_of(new_run(tmp_path, source, "run-1"), reason="never mind")

    assert record.is_first
    assert (record.reason, record.parent, record.delta, record.n_runs) == (
        "first run",
        None,
        None,
        1,
    )
    assert [run.seed for run in record.seeds] == [7]
    assert change is None


def test_the_parent_is_the_latest_finished_run_and_its_images_are_counted(tmp_path, source):
    end(new_run(tmp_path, source, "run-1"), source)
    latest = end(new_run(tmp_path, source, "run-2"), source)
    new_run(tmp_path, source, "run-3")  # still going on
    end(new_run(tmp_path, source, "run-9"), source)  # later than the run in question
    images = {"img-1": "a", "img-2": "changed", "img-4": "d", "img-5": "e"}

    record, change = lineage_of(new_run(tmp_path, source, "run-4", images=images), reason=" more ")

    assert record.parent is not None
    assert record.parent.run_id == latest.name
    assert record.parent.checkpoint == "intact"
    assert record.delta is not None
    assert record.delta.model_dump() == {"n_same": 1, "n_changed": 1, "n_added": 2, "n_removed": 1}
    assert (record.reason, record.is_first, record.n_runs) == ("more", False, 3)
    assert change is not None
    assert change.parent == latest.name


def test_runs_of_another_model_or_data_set_and_runs_that_stopped_are_no_parents(tmp_path, source):
    end(new_run(tmp_path, source, "run-1", run={"generator": "tb-gan"}), source)
    end(new_run(tmp_path, source, "run-2", dataset={"name": "hc18"}), source)
    end(new_run(tmp_path, source, "run-3"), source, status="blocked")

    record, _ = lineage_of(new_run(tmp_path, source, "run-4"))

    assert record.is_first
    assert (record.n_runs, record.n_unreadable) == (1, 0)


def test_what_differs_from_the_parent_is_written_down_and_held_against_the_plan(tmp_path, source):
    end(new_run(tmp_path, source, "run-1"), source)
    store = new_run(
        tmp_path, source, "run-2", seed=8, run={"code_commit": "1" * 40}, dataset={"version": "2"}
    )

    _, change = lineage_of(store, change_plan=("config: *", "data: version"))

    assert change is not None
    assert [(v.name, v.before, v.after) for v in change.config] == [("seed", "7", "8")]
    assert [(v.name, v.before, v.after) for v in change.data] == [("version", "1.0", "2")]
    assert [v.name for v in change.code] == ["commit", "checkpoint, sha256"]
    assert change.outside_plan == ("code: commit",)
    kid = change.metrics[0]
    assert (kid.before, kid.after, kid.intervals) == (0.04567, 0.04567, "intervals overlap")
    assert (change.unfair, change.cautions) == ((), ())


def test_a_metric_that_the_parent_lacks_is_said_to_be_of_the_parent(tmp_path, source):
    end(new_run(tmp_path, source, "run-1", evaluation={"metrics": ()}), source)

    _, change = lineage_of(new_run(tmp_path, source, "run-2"))

    assert change is not None
    assert {metric.unfair for metric in change.metrics} == {("measured in one run only",)}
    assert {metric.before for metric in change.metrics} == {None}


@pytest.mark.parametrize(("spoil", "state"), [(b"other weights", "changed"), (None, "missing")])
def test_a_parents_checkpoint_that_is_not_the_one_on_record_is_told(tmp_path, source, spoil, state):
    parent = end(new_run(tmp_path, source, "run-1"), source)
    checkpoint = parent / "checkpoints" / "x.safetensors"
    if spoil is None:
        checkpoint.unlink()
    else:
        checkpoint.write_bytes(spoil)

    record, change = lineage_of(new_run(tmp_path, source, "run-2"))

    assert record.parent is not None
    assert record.parent.checkpoint == state
    assert change is not None


@pytest.mark.parametrize("path", ["data/split.json", "metrics/training.json", "run.json"])
def test_a_parent_that_was_changed_is_named_with_the_fault(tmp_path, source, path):
    end(new_run(tmp_path, source, "run-1"), source)
    parent = end(new_run(tmp_path, source, "run-2"), source)
    (parent / path).write_bytes((parent / path).read_bytes() + b" ")

    record, change = lineage_of(new_run(tmp_path, source, "run-3"))

    assert not record.is_first
    assert f"run-2/{path}: recorded as sha256" in record.fault
    assert change is None


def test_a_run_whose_files_are_no_json_is_counted_as_unreadable(tmp_path, source):
    parent = end(new_run(tmp_path, source, "run-1"), source)
    (parent / "outcome.json").write_bytes(b"{")

    record, _ = lineage_of(new_run(tmp_path, source, "run-2"))

    assert record.is_first
    assert record.n_unreadable == 1


def test_without_a_table_of_images_the_change_of_the_data_is_unknown(tmp_path, source):
    end(new_run(tmp_path, source, "run-1", images=None), source)

    record, _ = lineage_of(new_run(tmp_path, source, "run-2"))

    assert record.parent is not None
    assert record.delta is None


def test_seeds_are_those_of_runs_that_differ_in_nothing_else(tmp_path, source):
    other = CONFIG + "evaluation:\n  n_bootstrap: 999\n"
    tracked = CONFIG + "tracking:\n  enabled: false\n"
    end(new_run(tmp_path, source, "run-1", seed=1, config=tracked), source)
    end(new_run(tmp_path, source, "run-2", seed=2, config=other), source)
    end(new_run(tmp_path, source, "run-3", seed=3, run={"code_commit": "1" * 40}), source)
    end(new_run(tmp_path, source, "run-4", seed=4, dataset={"content_sha256": "2" * 64}), source)
    damaged = end(new_run(tmp_path, source, "run-5", seed=5), source)
    (damaged / "config.yaml").write_bytes(b"preset: other\n")
    end(new_run(tmp_path, source, "run-6", seed=6), source)

    record, _ = lineage_of(new_run(tmp_path, source, "run-7", seed=0, config=tracked))

    assert [(run.run_id, run.seed, run.value) for run in record.seeds] == [
        ("run-1", 1, 0.04567),
        ("run-6", 6, 0.04567),  # differs in its tracking, too, which changes no result
        ("run-7", 0, 0.04567),
    ]
    assert record.n_runs == 7


def test_a_parent_can_be_named_or_denied(tmp_path, source):
    end(new_run(tmp_path, source, "run-1"), source)
    end(new_run(tmp_path, source, "run-2"), source)

    named, _ = lineage_of(new_run(tmp_path, source, "run-3"), parent="run-1")
    denied, _ = lineage_of(new_run(tmp_path, source, "run-4"), parent="none")

    assert named.parent is not None
    assert (named.parent.run_id, named.is_chosen) == ("run-1", True)
    assert (denied.is_first, denied.is_chosen) == (True, True)


def test_a_parent_by_name_must_be_a_finished_run_of_the_workspace(tmp_path, source):
    end(new_run(tmp_path, source, "run-1"), source)
    new_run(tmp_path, source, "run-2")

    for wanted in ("auto", "none", "run-1"):
        require_parent(tmp_path, LineageConfig(parent=wanted))
    for wanted in ("run-3", "../runs/run-1", "/etc"):
        with pytest.raises(ConfigError, match=r"lineage\.parent: no run .* in "):
            require_parent(tmp_path, LineageConfig(parent=wanted))
    with pytest.raises(ConfigError, match="run run-2 did not come to its end"):
        require_parent(tmp_path, LineageConfig(parent="run-2"))


def test_a_run_without_a_model_has_no_lineage(tmp_path):
    store = EvidenceStore.create(tmp_path / "runs", "run-1", tool_version=VERSION)
    identity = RunIdentity.model_validate_json(
        (finished(tmp_path / "other", blocked=True) / "run.json").read_bytes()
    )
    store.write_document(identity)

    write_lineage(SimpleNamespace(store=store, config=None))

    assert not (store.run_dir / "lineage.json").exists()


def test_the_baseline_holds_every_training_image_and_says_what_it_lacks():
    record = EvaluationRecord(
        metrics=(),
        memorisation=None,
        controls=(),
        opening=None,
        n_synthetic_in_test=None,
        n_test_patients_in_training=None,
    )
    training = view("training", 24, 16)

    baseline = baseline_of(training, None, None, record)

    assert (baseline.n_images, baseline.n_patients, baseline.image_size_px) == (24, 24, 16)
    assert {sum(one.counts) for one in baseline.images} == {24}
    assert (baseline.features, baseline.metrics, baseline.view_sha256) == (
        None,
        (),
        training.digest,
    )


def _baseline(size: int = 16, high: float = 4, **counts: tuple[int, ...]) -> Baseline:
    return Baseline(
        partition="training",
        view_sha256="0" * 64,
        n_images=10,
        n_patients=5,
        image_size_px=size,
        images=tuple(
            ImageStatistic(name=n, unit="", low=0, high=high, counts=c, mean=0, sd=0)
            for n, c in counts.items()
        ),
        features=None,
        metrics=(),
    )


def test_drift_is_the_distance_of_each_statistic_that_both_runs_kept_alike():
    (line,) = drift_between(_baseline(a=(5, 5, 0, 0)), _baseline(a=(0, 5, 5, 0), b=(1, 1, 1, 1)))

    assert (line.name, line.distance) == ("a", 0.5)
    assert drift_between(None, _baseline()) == ()
    assert drift_between(_baseline(a=(1, 1)), _baseline(size=32, a=(1, 1))) == ()
    assert drift_between(_baseline(a=(1, 1)), _baseline(high=5, a=(1, 1))) == ()
