"""Locks: one for a run and its training process, and short ones on other folders."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from governance.evidence.manifest import LOCK
from governance.records.errors import MachineError

_FOLDER_WAIT_S = 120.0
_WAIT_S = 15.0  # the training process of a killed run ends after its current step


@contextmanager
def run_lock(run_dir: Path, *, wait_s: float = _WAIT_S) -> Iterator[int]:
    """Hold the lock of a run folder; yield its descriptor, which a child may keep open.

    Args:
        run_dir: Folder of the run.
        wait_s: How long to wait for the training process of a run that was killed.

    Raises:
        MachineError: Another process works on this run, or the folder cannot be written.
    """
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise MachineError(
            f"{run_dir / LOCK}: cannot be written ({error.strerror}); check permission"
        ) from error
    try:
        _acquire(descriptor, run_dir, wait_s)
        with suppress(OSError):  # a full disk: the number is for people, the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, run_dir: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise MachineError(
                    f"{run_dir / LOCK}: cannot be locked ({error.strerror}); "
                    "put the workspace on a file system with locks"
                ) from error
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            if _is_alive(holder) or time.monotonic() > deadline:
                raise MachineError(
                    f"{run_dir}: process {holder or 'unknown'} or its training process still works "
                    "on this run; wait for its end, or stop it"
                ) from error
            time.sleep(0.2)
        else:
            return


def _is_alive(pid: str) -> bool:
    """Whether a process has this number; True if the text is not a number."""
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def folder_lock(folder: Path, *, wait_s: float = _FOLDER_WAIT_S) -> Iterator[None]:
    """Hold a workspace, or a folder in it, for a short piece of work; others wait.

    Raises:
        MachineError: The folder cannot be written, or another process holds it for too long.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be written ({error.strerror}); check permission"
        ) from error
    try:
        _wait(descriptor, path, time.monotonic() + wait_s)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise MachineError(
                    f"{path}: cannot be locked ({error.strerror}); "
                    "put the workspace on a file system with locks"
                ) from error
            if time.monotonic() > deadline:
                raise MachineError(
                    f"{path}: another medisynth-gov has held this for a long time; "
                    "wait for it, or end it"
                ) from error
            time.sleep(0.05)
        else:
            return
