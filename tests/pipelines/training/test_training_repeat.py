"""When the first steps are repeated, and what is written down where they cannot be."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from governance.evidence.store import EvidenceStore
from governance.records.comparison import TuningComparison
from governance.records.errors import InterruptedByUser, IsolationError, MachineError
from governance.records.partition import RefusedRead
from governance.records.training import FitReport, TrainingRecord
from pipelines.training import repeat as training_repeat
from pipelines.training.messages import (
    Checkpoint,
    Isolation,
    Repeated,
    Result,
    Trained,
    TrainingJob,
)
from pipelines.training.repeat import KEPT, is_kept, repeat_segment
from pipelines.training.segment import FILE
from tests.stored_run.stored import change, stored

A, B = "a" * 64, "b" * 64
STORED = stored()[TrainingRecord]
TRAINED = Trained(
    report=FitReport(
        description={},
        stages=(change(STORED.stages[0], name="first", precision="bf16"),),
        fitted=(),
        selection=STORED.selection,
    ),
    training_view_sha256=A,
    tuning_view_sha256=A,
    compute_device="cpu",
    duration_s=1.0,
    sampling_s=1.0,
    checkpoint=Checkpoint(path="x.safetensors", sha256=A),
    comparison=TuningComparison(reason="none"),
    extractor_sha256=None,
)


@pytest.fixture
def context(tmp_path):
    store = EvidenceStore.create(tmp_path, "run", tool_version="0.1.0")
    stop = SimpleNamespace(check=lambda: None)
    training = SimpleNamespace(repeat_tolerance=0.001)
    return SimpleNamespace(
        store=store,
        scratch=store.run_dir / ".scratch",
        console=SimpleNamespace(say=lambda text: None, stop=stop),
        config=SimpleNamespace(training=training),
        keep_open=(),
    )


@pytest.fixture
def job(context) -> TrainingJob:
    work = context.scratch / "work"
    work.mkdir(parents=True)
    (work / FILE).write_bytes(b"state")
    return TrainingJob(
        generator="x",
        settings={"precision": "auto"},
        seed=1,
        compute_device="cpu",
        views="views",
        checkpoints="checkpoints",
        work=str(work),
        n_synthetic=3,
        must_refuse={},
        forbidden=(),
        committed={"first": ("state", A)},
        commit_every=200,
        preview_every=5,
        processes=1,
        repeat_steps=10,
    )


def keep(context, sha256: str = A) -> None:
    context.store.journal.append(KEPT, {"stage": "first", "step": 10, "sha256": sha256})


def answers(monkeypatch, answer):
    """Let the repeating process say this; its job is returned as it was asked."""
    jobs: list[TrainingJob] = []

    def run(job, on_message, check_stop, *, keep_open):
        jobs.append(job)
        if isinstance(answer, Exception):
            raise answer
        for message in answer[:-1]:
            on_message(message)
        return answer[-1]

    monkeypatch.setattr(training_repeat, "run_training", run)
    return jobs


def repeated(sha256: str, **difference) -> Result:
    return Result(repeated=Repeated(stage="first", step=10, sha256=sha256, **difference))


def record(context) -> dict:
    return json.loads((context.store.run_dir / "metrics/repeat.json").read_bytes())


def test_the_repeat_starts_anew_in_a_folder_of_its_own_with_the_precision_that_was_chosen(
    context, job, monkeypatch
):
    jobs = answers(monkeypatch, [repeated(A)])
    keep(context)

    repeat_segment(job, TRAINED, context)

    (again,) = jobs
    assert (again.committed, again.preview_every) == ({}, 0)
    assert again.settings == {"precision": "bf16"}
    assert Path(again.work).parent == context.scratch
    assert Path(again.checkpoints).is_relative_to(again.work)
    assert again.repeats == (str(Path(job.work) / FILE), A)
    assert (record(context)["sha256"], record(context)["repeated_sha256"]) == (A, A)
    assert not (Path(job.work) / FILE).exists()


def test_it_is_made_once_a_run(context, job, monkeypatch):
    jobs = answers(monkeypatch, [repeated(A)])
    keep(context)

    repeat_segment(job, TRAINED, context)
    repeat_segment(job, TRAINED, context)

    assert len(jobs) == 1
    assert [
        e.body["equal"] for e in context.store.journal.events() if e.type == "segment repeated"
    ] == [True]


def test_a_state_that_differs_is_recorded_with_the_difference(context, job, monkeypatch):
    answers(monkeypatch, [repeated(B, largest=0.5, at="w", relative=0.01)])
    keep(context)

    repeat_segment(job, TRAINED, context)

    found = record(context)
    assert (found["largest_difference"], found["largest_at"]) == (0.5, "w")
    assert (found["relative_difference"], found["tolerance"]) == (0.01, 0.001)


@pytest.mark.parametrize(("steps", "words"), [(0, "repeat_steps is 0"), (10, "kept no state")])
def test_without_a_kept_state_no_process_is_started(context, job, monkeypatch, steps, words):
    jobs = answers(monkeypatch, [Result()])

    repeat_segment(job.model_copy(update={"repeat_steps": steps}), TRAINED, context)

    assert jobs == []
    assert words in record(context)["problem"]
    assert not is_kept(context)


def test_a_repeat_that_fails_is_no_failed_run_and_no_comparison(context, job, monkeypatch):
    answers(monkeypatch, MachineError("ended by signal 9"))
    keep(context)

    repeat_segment(job, TRAINED, context)

    assert "ended by signal 9" in record(context)["problem"]
    assert record(context)["repeated_sha256"] is None


def test_a_stop_request_leaves_the_repeat_to_the_resumed_run(context, job, monkeypatch):
    answers(monkeypatch, InterruptedByUser(2))
    keep(context)

    with pytest.raises(InterruptedByUser):
        repeat_segment(job, TRAINED, context)

    assert not (context.store.run_dir / "metrics/repeat.json").exists()
    assert (Path(job.work) / FILE).exists()
    assert is_kept(context)


def test_a_repeat_that_could_read_a_sealed_file_ends_the_run(context, job, monkeypatch):
    attempts = (RefusedRead(target="sealed image", refused=False, error=""),)
    said = Isolation(level=4, level_name="", mechanism="", attempts=attempts)
    answers(monkeypatch, [said, repeated(A)])
    keep(context)

    with pytest.raises(IsolationError, match="could read: sealed image"):
        repeat_segment(job, TRAINED, context)
