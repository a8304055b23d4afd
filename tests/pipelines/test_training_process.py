"""The training process from the parent's side; what confinement refuses is tested with it."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from medisynth.data.views import ImageView, save_view
from pipelines.errors import InterruptedByUser, MachineError, ProcessError
from pipelines.training_process import TrainingJob, run_training

TINY = {
    "precision": "fp32",
    "selection_every": 2,
    "diffusion": {
        **{"size": 16, "unshuffle": 1, "channels": [8, 8], "layers": 1, "attention": False},
        **{"steps": 4, "warm_up_steps": 1, "batch_size": 4, "sampler_steps": 2},
    },
    "super_resolution": {
        **{"to": 32, "channels": 8, "blocks": 1, "discriminator_channels": 8, "crop": 16},
        **{"steps": 4, "content_only_steps": 1, "batch_size": 4},
    },
}


def view(partition: str, n: int) -> ImageView:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32), dtype=np.uint8)
    ids = tuple(f"{partition}-{k}" for k in range(n))
    return ImageView(partition, pixels, ids, ids, ("",) * n, ("",) * n)


@pytest.fixture
def job(tmp_path) -> TrainingJob:
    data = tmp_path / "data"
    data.mkdir()
    (data / "secret.png").write_bytes(b"sealed")
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    save_view(view("training", 12), run_dir / "views")
    save_view(view("tuning", 6), run_dir / "views")
    return TrainingJob(
        generator="dsr-gan",
        settings=TINY,
        seed=1,
        compute_device="cpu",
        views=str(run_dir / "views"),
        checkpoints=str(run_dir / "checkpoints"),
        work=str(run_dir / "work"),
        n_synthetic=3,
        must_refuse={"sealed image": str(data / "secret.png"), "data folder": str(data)},
        forbidden=(str(data),),
    )


def changed(job: TrainingJob, **values) -> TrainingJob:
    return TrainingJob(**{**job.__dict__, **values})


def test_a_job_trains_saves_and_draws(job):
    messages = []

    result = run_training(job, messages.append, lambda: None)

    kinds = {message["type"] for message in messages}
    assert kinds >= {"isolation", "log", "progress", "checkpoint"}
    (checkpoint,) = Path(job.checkpoints).iterdir()
    assert checkpoint.name == result["checkpoint"]["path"]
    drawn = np.load(Path(job.work) / "synthetic.npy", allow_pickle=False)
    assert drawn.shape == (3, 32, 32)
    assert drawn.dtype == np.uint8


def test_the_refusals_come_before_the_first_step(job):
    messages = []

    run_training(job, messages.append, lambda: None)

    assert messages[0]["type"] == "isolation"
    attempts = messages[0]["attempts"]
    assert [attempt["target"] for attempt in attempts] == ["sealed image", "data folder"]
    if messages[0]["level"] >= 3:
        assert all(attempt["refused"] for attempt in attempts)


def test_an_error_of_the_generator_keeps_its_code(job):
    bad = changed(job, generator="no-such-generator")

    with pytest.raises(ProcessError) as caught:
        run_training(bad, lambda message: None, lambda: None)

    assert (caught.value.code, caught.value.exit_code) == ("M010", 2)
    assert "no-such-generator" in str(caught.value)


def test_a_child_ended_by_the_system_is_a_machine_error(job):
    def kill(message):
        if message["type"] == "isolation":
            pids = subprocess.run(  # noqa: S603
                ["/usr/bin/pgrep", "-P", str(os.getpid()), "-f", "pipelines.training_process"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)

    with pytest.raises(MachineError, match="SIGKILL"):
        run_training(job, kill, lambda: None)


def test_a_stop_request_ends_the_child(job):
    def stop():
        raise InterruptedByUser(signal.SIGINT)

    with pytest.raises(InterruptedByUser):
        run_training(job, lambda message: None, stop)

    assert list(Path(job.checkpoints).iterdir()) == []


def test_the_child_sees_a_clean_environment(job, monkeypatch):
    monkeypatch.setenv("A_SECRET", "42")
    from pipelines.training_process import _clean_environment

    environment = _clean_environment(Path(job.work))

    assert "A_SECRET" not in environment
    assert environment["TMPDIR"] == job.work
