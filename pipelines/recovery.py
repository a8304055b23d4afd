"""Runs that a vanished process left behind.

Nothing in a run folder is changed here, so that `run --resume` finds what was left.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from governance.evidence.manifest import JOURNAL
from pipelines.finished_run import is_ended
from pipelines.resume import PREPARED
from pipelines.run_lock import LOCK

_SHOWN = 3
_PREPARED_LINE = f'"step":"{PREPARED}"'.encode()


@dataclass(frozen=True)
class LeftBehind:
    """A run that did not come to its end and on which nobody works.

    Attributes:
        run_id: Name of its folder.
        can_resume: Whether its data were divided, so that there is something to go on from.
    """

    run_id: str
    can_resume: bool

    def __str__(self) -> str:
        what = f"run {self.run_id} was cut short"
        if self.can_resume:
            return f"{what}; go on with --resume {self.run_id}"
        return f"{what} before training; there is nothing to go on from"


def is_worked_on(run_dir: Path) -> bool:
    """Whether a process, or the training process that it left, holds the run's lock."""
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # cannot be told; nobody is called dead on a guess
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def find_left_behind(workspace: Path) -> tuple[LeftBehind, ...]:
    """Runs of the workspace that were cut short, latest first; call it under the workspace's lock."""
    runs = workspace / "runs"
    folders = sorted(runs.iterdir(), reverse=True) if runs.is_dir() else []
    return tuple(
        LeftBehind(folder.name, _is_prepared(folder))
        for folder in folders
        if (folder / JOURNAL).is_file() and not is_ended(folder) and not is_worked_on(folder)
    )


def sentences(left: tuple[LeftBehind, ...]) -> tuple[str, ...]:
    """What to say of them: the latest ones by name, the others by number."""
    shown = [str(one) for one in left[:_SHOWN]]
    if len(left) > _SHOWN:
        shown.append(f"… and {len(left) - _SHOWN:,} earlier runs were cut short, too")
    return tuple(shown)


def _is_prepared(run_dir: Path) -> bool:
    try:
        lines = (run_dir / JOURNAL).read_bytes().splitlines()
    except OSError:
        return False
    return any(b'"step finished"' in line and _PREPARED_LINE in line for line in lines)
