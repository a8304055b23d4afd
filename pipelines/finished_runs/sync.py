"""`sync` and its outbox: mirrors runs from their folders when that was not done in the run.

The outbox holds one small file for each run whose mirror may be incomplete; the data are in the
run folder. The file is made before the first call to the store and removed after the last, so
that it is still there if the process is killed.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from governance.evidence.chain import utc_text
from governance.evidence.folder import RunFolder, is_ended
from governance.evidence.manifest import JOURNAL, LOCK
from governance.records.errors import ConfigError, MedisynthGovError, RecordWriteError
from governance.records.files import typed
from governance.records.yaml_text import read_yaml
from pipelines.config.sections import TrackingConfig
from pipelines.current_run.console import of_workspace
from pipelines.current_run.lock import folder_lock
from pipelines.finished_runs.promotions import aliases_of
from pipelines.finished_runs.resume import PREPARED
from pipelines.tracking import Tracker
from pipelines.tracking.alias import Release

_SHOWN = 3
_PREPARED_LINE = f'"step":"{PREPARED}"'.encode()


@dataclass(frozen=True)
class LeftBehind:
    """A run that did not end and that no process works on.

    Attributes:
        run_id: Name of its folder.
        can_resume: Whether it got as far as dividing its data, so that it can be resumed.
    """

    run_id: str
    can_resume: bool

    def __str__(self) -> str:
        what = f"run {self.run_id} was cut short"
        if self.can_resume:
            return f"{what}; go on with --resume {self.run_id}"
        return f"{what} before training; there is nothing to go on from"


def is_worked_on(run_dir: Path) -> bool:
    """Whether a process (or a training process left behind) holds the run's lock."""
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # unknown: assume that it is held
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def find_left_behind(workspace: Path) -> tuple[LeftBehind, ...]:
    """Return the runs that were cut short, latest first; the caller holds the workspace's lock."""
    runs = workspace / "runs"
    folders = sorted(runs.iterdir(), reverse=True) if runs.is_dir() else []
    return tuple(
        LeftBehind(folder.name, _is_prepared(folder))
        for folder in folders
        if (folder / JOURNAL).is_file() and not is_ended(folder) and not is_worked_on(folder)
    )


def sentences(left: tuple[LeftBehind, ...]) -> tuple[str, ...]:
    """Return messages on the runs: the latest by name, the number of the others."""
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


OUTBOX = "outbox"


@dataclass(frozen=True)
class Synced:
    """Result of mirroring one run.

    Attributes:
        run_id: The run.
        state: "complete", "off" (its configuration asks for no mirror), "waiting" (the store
            cannot be used now), "working" (a process works on it), "cut short", or "unreadable".
        words: Explanation for the screen.
    """

    run_id: str
    state: str
    words: str

    @property
    def is_left_over(self) -> bool:
        """Whether the run still has to be mirrored."""
        return self.state in ("waiting", "unreadable")


def mark(workspace: Path, run_id: str, why: str) -> None:
    """Note in the outbox that a run's mirror is not complete.

    Raises:
        RecordWriteError: The outbox cannot be written.
    """
    path = _path(workspace, run_id)
    line = json.dumps({"time_utc": utc_text(datetime.now(UTC)), "why": why}, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
    except OSError as error:
        raise RecordWriteError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "check permission and free space, or choose another workspace"
        ) from error


def clear(workspace: Path, run_id: str) -> None:
    """Remove a run from the outbox; if that fails it is only mirrored again."""
    with contextlib.suppress(OSError):
        _path(workspace, run_id).unlink(missing_ok=True)


def waiting(workspace: Path) -> tuple[str, ...]:
    """Return the ids of the runs in the outbox, earliest first."""
    folder = workspace / OUTBOX
    return tuple(sorted(path.stem for path in folder.glob("*.jsonl"))) if folder.is_dir() else ()


def _path(workspace: Path, run_id: str) -> Path:
    return workspace / OUTBOX / f"{run_id}.jsonl"


def recover(workspace: Path, say: Callable[[str], None]) -> None:
    """Report runs that were cut short and end them in the store; never raises.

    Called at the start of every run, which holds the workspace's lock.
    """
    left = find_left_behind(workspace)
    for sentence in sentences(left):
        say(sentence)
    dead = {one.run_id for one in left}
    n_waiting, is_away = 0, False
    for run_id in waiting(workspace):
        run_dir = workspace / "runs" / run_id
        is_cut_short = run_id in dead or not run_dir.is_dir()
        if not is_cut_short and is_worked_on(run_dir):
            continue
        n_waiting += not is_cut_short
        if is_away:  # the store cannot be reached: do not try again for each run
            continue
        try:
            if is_cut_short:
                is_away = _close(run_dir, say).state == "waiting"
            else:
                is_away = not _close_ended(run_dir, say)
        except MedisynthGovError as error:
            say(f"run {run_id} cannot be closed in MLflow: {error}")
    if n_waiting:
        command = f"medisynth-gov sync{of_workspace(workspace)}"
        say(f"finished runs that wait to be mirrored: {n_waiting:,}; {command}")


def sync(workspace: Path, say: Callable[[str], None]) -> tuple[Synced, ...]:
    """Mirror every waiting run; an error of one run becomes its result "unreadable"."""
    done = []
    for run_id in waiting(workspace):
        try:
            done.append(sync_run(workspace / "runs" / run_id, say))
        except MedisynthGovError as error:
            done.append(Synced(run_id, "unreadable", str(error)))
    return tuple(done)


def sync_run(run_dir: Path, say: Callable[[str], None]) -> Synced:
    """Mirror what the store lacks of one run, from its folder, and set its aliases.

    Args:
        run_dir: The run folder; its workspace is the folder above runs/.
        say: Where warnings go.

    Raises:
        ConfigError: It is no run folder.
        EvidenceError: The folder is not what its manifest says.
        MachineError: The workspace cannot be locked.
    """
    workspace, run_id = run_dir.parent.parent, run_dir.name
    if is_worked_on(run_dir):
        return Synced(run_id, "working", "a process works on this run, which mirrors it itself")
    if not is_ended(run_dir):
        return _close(run_dir, say)
    run = RunFolder.finished(run_dir)
    config = tracking_config(run)
    tracker = Tracker(workspace, config, say)
    if not config.enabled:
        clear(workspace, run_id)
        return Synced(run_id, "off", "its configuration asks for no mirror (tracking.enabled)")
    mark(workspace, run_id, "sync began")
    with folder_lock(workspace / OUTBOX):  # two processes would each begin a run
        is_done = tracker.complete(run) and all(
            tracker.set_alias(
                run, Release(line.model, line.to, line.version, run.manifest.evidence_root)
            )
            for line in aliases_of(workspace, run_id)
        )
    if is_done:
        clear(workspace, run_id)
        return Synced(run_id, "complete", "mirrored")
    mark(workspace, run_id, tracker.problem)
    return Synced(run_id, "waiting", f"not mirrored: {tracker.problem}")


def _close(run_dir: Path, say: Callable[[str], None]) -> Synced:
    """End in the store what a run that was cut short left running there."""
    workspace, run_id = run_dir.parent.parent, run_dir.name
    if not run_dir.is_dir():
        clear(workspace, run_id)
        return Synced(run_id, "cut short", "its folder is gone")
    words = f"was cut short; go on with medisynth-gov run --resume {typed(run_dir)}"
    tracker = Tracker(workspace, _config_of_open_run(run_dir), say)
    if tracker.close_left_behind(run_id):
        clear(workspace, run_id)
        return Synced(run_id, "cut short", words)
    return Synced(run_id, "waiting", f"{words}; not closed in MLflow: {tracker.problem}")


def _close_ended(run_dir: Path, say: Callable[[str], None]) -> bool:
    """Tell the store how a finished run ended; return whether that succeeded."""
    run = RunFolder.finished(run_dir)
    return Tracker(run.workspace, tracking_config(run), say).close_ended(run)


def tracking_config(run: RunFolder) -> TrackingConfig:
    """Return the tracking section of a run's configuration."""
    return _tracking_section(run.config().get("tracking", {}), str(run.path))


def _config_of_open_run(run_dir: Path) -> TrackingConfig:
    path = run_dir / "config.yaml"
    values: dict[str, object] = {}
    if path.is_file():
        values = read_yaml(path, may_be_empty=True, may_hold_credentials=True).content
    return _tracking_section(values.get("tracking", {}), str(run_dir))


def _tracking_section(values: object, where: str) -> TrackingConfig:
    try:
        return TrackingConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            f"{where}: config.yaml: the section 'tracking' cannot be read by this version; "
            "use the version of the run"
        ) from error
