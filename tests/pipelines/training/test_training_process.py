"""The training process from the parent's side; what confinement refuses is tested with it."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from governance.records.errors import InterruptedByUser, IsolationError, MachineError, ProcessError
from medisynth.data.reading.views import ImageView, save_view
from pipelines.fetch.weights import find_weights
from pipelines.training import parent
from pipelines.training.child import _error_message, _view
from pipelines.training.messages import (
    FurtherDraw,
    Log,
    Message,
    Result,
    Trained,
    TrainingJob,
    read_message,
)
from pipelines.training.parent import run_training, smaller_batch
from tests.places import ROOT
from tests.plugins.babbling_child import SAYS

TOY = {"steps": 12, "size": 32}


def view(partition: str, n: int) -> ImageView:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32), dtype=np.uint8)
    ids = tuple(f"{partition}-{k}" for k in range(n))
    return ImageView(partition, pixels, ids, ids, ("",) * n, ("",) * n)


def new_job(tmp_path: Path) -> TrainingJob:
    data = tmp_path / "data"
    data.mkdir()
    (data / "secret.png").write_bytes(b"sealed")
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    save_view(view("training", 12), run_dir / "views")
    save_view(view("tuning", 6), run_dir / "views")
    return TrainingJob(
        generator="tests.plugins.slow_toy:SlowToy",
        settings=TOY,
        seed=1,
        compute_device="cpu",
        views=str(run_dir / "views"),
        checkpoints=str(run_dir / "checkpoints"),
        work=str(run_dir / "work"),
        n_synthetic=3,
        must_refuse={"sealed image": str(data / "secret.png"), "data folder": str(data)},
        forbidden=(str(data),),
        commit_every=5,
        preview_every=6,
        processes=1,
        repeat_steps=4,
        python_path=str(ROOT),
    )


@pytest.fixture
def job(tmp_path) -> TrainingJob:
    return new_job(tmp_path)


@dataclass(frozen=True)
class Finished:
    """A job that ran to its end: what it said, and which states there were at each commit."""

    job: TrainingJob
    messages: list[Message]
    result: Trained
    files: list[list[str]]

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message.type == kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    job, messages, files = new_job(tmp_path_factory.mktemp("finished")), [], []

    def note(message):
        messages.append(message)
        if message.type == "committed":
            files.append(sorted(path.name for path in job.states.iterdir()))

    return Finished(job, messages, run_training(job, note, lambda: None).trained, files)


def changed(job: TrainingJob, **values) -> TrainingJob:
    return TrainingJob(**{**job.__dict__, **values})


def test_a_job_trains_saves_and_draws(finished):
    kinds = {message.type for message in finished.messages}
    assert kinds >= {"isolation", "log", "progress", "checkpoint"}
    (checkpoint,) = Path(finished.job.checkpoints).glob("*.safetensors")
    assert checkpoint.name == finished.result.checkpoint.path
    drawn = np.load(Path(finished.job.work) / "synthetic.npy", allow_pickle=False)
    assert drawn.shape == (3, 32, 32)
    assert drawn.dtype == np.uint8


def test_the_refusals_come_before_the_first_step(finished):
    first = finished.messages[0]

    assert first.type == "isolation"
    attempts = first.attempts
    assert [attempt.target for attempt in attempts] == ["sealed image", "data folder"]
    if first.level >= 3:
        assert all(attempt.refused for attempt in attempts)


def test_a_view_that_is_not_the_one_that_was_packed_is_refused(job):
    packed = view("training", 12).digest
    assert _view(changed(job, view_sha256={"training": packed}), "training").digest == packed

    with pytest.raises(IsolationError, match="packed with sha256:000000000000"):
        _view(changed(job, view_sha256={"training": "0" * 64}), "training")


def test_a_proof_of_the_confinement_ends_before_anything_is_trained(job):
    messages = []

    result = run_training(changed(job, proof_only=True), messages.append, lambda: None)

    assert result == Result()
    assert [message.type for message in messages] == ["isolation"]
    assert not list(Path(job.checkpoints).glob("*.safetensors"))


def test_an_error_of_the_generator_keeps_its_code(job):
    bad = changed(job, generator="no-such-generator")

    with pytest.raises(ProcessError) as caught:
        run_training(bad, lambda message: None, lambda: None)

    assert (caught.value.code, caught.value.exit_code) == ("M010", 2)
    assert "no-such-generator" in str(caught.value)


@pytest.mark.parametrize("says", list(SAYS))
def test_a_child_that_does_not_keep_to_the_messages_is_one_sentence_about_it(
    job, monkeypatch, says
):
    monkeypatch.setattr(parent, "_CHILD", "tests.plugins.babbling_child")
    heard = []

    with pytest.raises(ProcessError) as caught:
        run_training(changed(job, settings={"says": says}), heard.append, lambda: None)

    cut_short = says in ("half of one", "nothing")
    assert caught.value.code == ("T900" if cut_short else "T902")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
    assert heard == []


def test_a_job_and_its_messages_are_read_back_as_they_were_sent(job):
    assert TrainingJob.model_validate_json(job.model_dump_json()) == job
    with_draws = changed(job, draws=(FurtherDraw(2, 3, "machine", "x"),), repeats=("f", "a" * 64))
    assert TrainingJob.model_validate_json(with_draws.model_dump_json()) == with_draws
    diverged = Log(stage="x", step=1, values={"loss": float("inf")})
    assert read_message(diverged.model_dump_json().encode()) == diverged


def test_a_child_ended_by_the_system_is_a_machine_error(job):
    def kill(message):
        if message.type == "isolation":
            pids = subprocess.run(  # noqa: S603
                ["/usr/bin/pgrep", "-P", str(os.getpid()), "-f", "pipelines.training.child"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(MachineError, match="SIGKILL"):
        run_training(job, kill, lambda: None)


def test_a_stop_request_ends_the_child_after_it_committed_where_it_stands(job):
    slow = changed(job, settings={**TOY, "pause_ms": 50}, commit_every=1_000)
    messages = []

    def stop():
        if any(message.type == "progress" for message in messages):
            raise InterruptedByUser(signal.SIGINT)

    with pytest.raises(InterruptedByUser):
        run_training(slow, messages.append, stop)

    (committed,) = [message for message in messages if message.type == "committed"]
    assert committed.stage == "first"
    assert 1 <= committed.step < 12
    assert [path.name for path in job.states.iterdir()] == [committed.path]
    assert not list(Path(job.checkpoints).glob("*.safetensors"))


def test_a_child_whose_step_outlasts_the_grace_is_ended_after_one_grace(job, monkeypatch):
    monkeypatch.setattr("pipelines.training.parent._GRACE_S", 0.5)
    slow = changed(job, settings={**TOY, "pause_ms": 60_000}, commit_every=1)
    asked: list[float] = []

    def stop():
        if messages:  # confined, and then in its first step
            asked.append(time.monotonic())
            raise InterruptedByUser(signal.SIGTERM)

    messages: list[Message] = []
    with pytest.raises(InterruptedByUser):
        run_training(slow, messages.append, stop)

    assert time.monotonic() - asked[0] < 2


def test_an_older_state_goes_only_after_the_parent_has_the_new_one(finished):
    received = finished.of("committed")

    steps = [(message.stage, message.step) for message in received]
    assert steps == [(stage, step) for stage in ("first", "second") for step in (5, 10, 12)]
    for message, there in zip(received, finished.files, strict=True):
        assert message.path in there
    # while the third state of a stage is reported, the two before it are still there
    assert len([name for name in finished.files[2] if "first" in name]) == 3
    assert len(list(finished.job.states.iterdir())) == 4


def test_the_next_process_goes_on_from_the_committed_states_to_the_same_bits(finished, job):
    received = finished.of("committed")
    shutil.copytree(finished.job.states, job.states)
    kept = {m.stage: (m.path, m.sha256) for m in received[1::3]}  # steps 10 and 10
    log = []

    resumed = run_training(changed(job, committed=kept), log.append, lambda: None).trained

    assert resumed.checkpoint == finished.result.checkpoint
    assert [m.step for m in log if m.type == "committed"] == [12, 12]
    logged = [m.step for m in log if m.type == "log" and m.stage == "first"]
    assert set(logged) == set(range(1, 13))  # what was logged before is said again


def test_a_state_that_is_gone_is_named(finished, job):
    first = finished.of("committed")[0]
    lost = changed(job, committed={"first": (first.path, first.sha256)})

    with pytest.raises(ProcessError) as caught:
        run_training(lost, lambda message: None, lambda: None)

    assert (caught.value.code, caught.value.exit_code) == ("W000", 5)
    assert first.path in str(caught.value)


def test_previews_are_pictures_in_the_work_folder(finished):
    previews = finished.of("preview")

    places = [(stage, step) for stage in ("first", "second") for step in (6, 12)]
    assert [(m.stage, m.step) for m in previews] == places
    for message in previews:
        data = (Path(finished.job.work) / message.path).read_bytes()
        assert data.startswith(b"\x89PNG")


def test_a_generator_whose_fit_returns_no_report_is_named(job):
    one = changed(job, generator="tests.plugins.faulty:NoReport", settings={"size": 32})

    with pytest.raises(ProcessError, match=r"fit returned dict, expected governance\.records"):
        run_training(one, lambda message: None, lambda: None)


@pytest.mark.slow
@pytest.mark.skipif(find_weights() is None, reason="the FID weights are not on this machine")
def test_candidates_are_scored_by_kid_where_the_weights_are(job):
    weights = str(find_weights().resolve())

    result = run_training(changed(job, weights=weights), lambda message: None, lambda: None).trained

    report = result.report
    assert "KID on Inception pool3 features to 6 tuning images" in report.selection.criterion
    candidates = report.selection.candidates
    assert [one.step for one in candidates] == [10, 12]
    assert all(one.score > 0 for one in candidates)  # noise is far from a flat grey
    assert result.extractor_sha256 is not None
    reason = "needs 10 images a set, got 6 tuning images and 3 synthetic ones"
    assert result.comparison.reason == reason


@pytest.mark.slow
def test_two_processes_see_the_same_images_and_make_the_same_curve(job):
    curves = {}
    for n in (1, 2):
        log = []
        one = changed(job, processes=n, committed={}, checkpoints=f"{job.checkpoints}-{n}")
        Path(one.checkpoints).mkdir()
        result = run_training(one, log.append, lambda: None).trained
        curves[n] = [m.values["loss"] for m in log if "loss" in getattr(m, "values", {})]
        stages = result.report.stages
        assert [stage.n_processes for stage in stages] == [n, n]
        assert [stage.n_steps * stage.batch_size for stage in stages] == [48, 48]
        if n == 2:
            first = log[0]
            assert first.level < 3 or all(attempt.refused for attempt in first.attempts)
            assert first.level < 3 or "TCP not refused" in first.mechanism
    np.testing.assert_allclose(curves[2], curves[1], rtol=1e-5)


@pytest.mark.slow
def test_two_processes_stop_together_and_commit(job):
    slow = changed(job, settings={**TOY, "pause_ms": 100}, processes=2, commit_every=1_000)
    messages = []

    def stop():
        if any(message.type == "progress" for message in messages):
            raise InterruptedByUser(signal.SIGINT)

    with pytest.raises(InterruptedByUser):
        run_training(slow, messages.append, stop)

    assert [message.type for message in messages].count("committed") == 1


def test_what_to_set_when_memory_runs_out_is_named():
    settings = {"a": 1, "diffusion": {"batch_size": 16}, "super_resolution": {"batch_size": 9}}

    assert smaller_batch(settings, "super-resolution") == (
        "start a new run with -o model.settings.super_resolution.batch_size=4"
    )
    assert smaller_batch(settings) == (
        "start a new run with -o model.settings.diffusion.batch_size=8 "
        "-o model.settings.super_resolution.batch_size=4"
    )
    assert smaller_batch({"batch_size": 1}) == "train smaller images"


@pytest.mark.parametrize(
    "words", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"]
)
def test_running_out_of_memory_is_exit_7_with_the_batch_size_to_try(job, words):
    message = _error_message(RuntimeError(words), job, "first")

    assert (message.code, message.exit_code) == ("R001", 7)
    assert words in message.message
    with_size = changed(job, settings={"batch_size": 4})
    assert "-o model.settings.batch_size=2" in _error_message(MemoryError(), with_size, "").message


def test_the_child_sees_a_clean_environment(job, monkeypatch):
    monkeypatch.setenv("A_SECRET", "42")
    from pipelines.training.parent import _clean_environment

    environment = _clean_environment(job)

    assert "A_SECRET" not in environment
    assert environment["TMPDIR"] == job.work
