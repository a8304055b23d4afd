"""A disk that fills up: one sentence, exit 7, nothing lost that was committed, and a way on.

The workspace lies on a small file system of its own (tmpfs), which only root can mount.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.evidence.chain import check_chain
from medisynth import checkpoint
from pipelines.cli.app import app
from pipelines.current_run.console import Console
from tests.flow.test_resumed_runs import (
    arguments,
    check_finished,
    check_same_result,
    events,
    kill,
    resume,
    start,
    wait_for,
)

KIB, MIB = 1 << 10, 1 << 20
SIZES = (0, 4, 16, 64, 256, 1024, 2048, 4096, 8192, 15 * 1024)  # KiB left free
runner = CliRunner()


class Disk:
    """A file system that can be filled and given more room."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def mount(self, n_bytes: int) -> None:
        self.place.mkdir(exist_ok=True)
        done = subprocess.run(  # noqa: S603
            ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(self.place)],  # noqa: S607
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here ({done.stderr.decode().strip()})")

    def leave_free(self, n_bytes: int) -> None:
        """Fill it with one file until so much is left."""
        with (self.place / "ballast").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, self._free() - n_bytes))

    def make_room(self) -> None:
        (self.place / "ballast").unlink()

    def _free(self) -> int:
        return shutil.disk_usage(self.place).free

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=False)  # noqa: S603, S607


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    disk = Disk(tmp_path / "disk")
    disk.mount(64 * MIB)
    yield disk
    disk.unmount()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Folder of a run that nothing interrupted."""
    workspace = tmp_path_factory.mktemp("whole")
    result = runner.invoke(app, arguments(workspace, 0))
    assert result.exit_code == 9, result.output
    return next((workspace / "runs").iterdir())


@pytest.fixture(scope="module")
def killed_workspace(tmp_path_factory) -> Path:
    """Workspace of a run that was killed while it trained, with a mirror of its own."""
    workspace = tmp_path_factory.mktemp("killed")
    process = start(*arguments(workspace, 40))
    wait_for(workspace, process, 4)
    kill(process)
    return workspace


def check_one_sentence(result) -> None:
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 7, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if '"error"' in line]
    assert len(errors) == 1, result.stderr


def check_last_commit_loads(run_dir: Path) -> None:
    data = (run_dir / "journal.jsonl").read_bytes()
    assert check_chain(data[: data.rfind(b"\n") + 1], "journal").faults == ()
    is_trained = events(run_dir, "training states removed")  # then the checkpoint is left
    kind = "checkpoint committed" if is_trained else "step committed"
    for event in {e.body.get("stage"): e for e in events(run_dir, kind)}.values():
        tensors, _ = checkpoint.read(run_dir / str(event.body["path"]), str(event.body["sha256"]))
        assert tensors


@pytest.mark.slow
@pytest.mark.parametrize("kib", SIZES)
def test_a_disk_that_fills_in_training_loses_no_commit_and_the_run_goes_on(
    disk, whole, killed_workspace, kib
):
    workspace = disk.place / "ws"
    shutil.copytree(killed_workspace, workspace, ignore=shutil.ignore_patterns("*.fifo"))
    run_dir = next((workspace / "runs").iterdir())
    disk.leave_free(kib * KIB)

    result = resume(run_dir)

    check_one_sentence(result)
    assert re.search(r"bytes (are free|of free space, found [\d,]+)", result.output)
    check_last_commit_loads(run_dir)
    disk.make_room()
    again = resume(run_dir)
    assert again.exit_code == 9, again.output
    check_finished(run_dir)
    check_same_result(run_dir, whole)


MOMENTS = (  # what the screen says when the disk fills, and KiB left free then
    ("s1_ingest", 0),
    ("s2_validate", 16),
    ("s3_audit", 64),
    ("s4_split", 4),
    ("s5_train", 200),
    ("s6_evaluate", 0),
    ("s6_evaluate", 150),
    ("writing card and reports", 0),
    ("writing card and reports", 300),
    ("writing card and reports", 900),
)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "kib"), MOMENTS)
def test_a_disk_that_fills_anywhere_in_a_run_is_said_in_one_sentence(
    disk, monkeypatch, moment, kib
):
    say, workspace = Console.say, disk.place / "ws"

    def fill(self, text):
        say(self, text)
        if text.endswith(moment):
            disk.leave_free(kib * KIB)

    monkeypatch.setattr(Console, "say", fill)

    result = runner.invoke(app, [*arguments(workspace, 0), "-o", "tracking.enabled=true"])

    check_one_sentence(result)
    (run_dir,) = (workspace / "runs").iterdir()
    check_last_commit_loads(run_dir)
    monkeypatch.undo()
    disk.make_room()
    if events(run_dir, "views packed"):
        again = resume(run_dir)
        assert again.exit_code == 9, again.output
        check_finished(run_dir)


def test_a_run_does_not_begin_on_a_disk_that_is_full(disk):
    disk.leave_free(0)

    result = runner.invoke(app, arguments(disk.place / "ws", 0))

    check_one_sentence(result)
    assert "bytes are free" in result.stderr
    assert list((disk.place / "ws" / "runs").iterdir()) == []
