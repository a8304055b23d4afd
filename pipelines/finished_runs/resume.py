"""Opens a run that was cut short, decides whether it can go on, and reads what it did.

Everything that can refuse a resumption is checked here, before anything of the run changes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from governance.evidence.folder import CONFIG, RunFolder
from governance.evidence.journal import EVIDENCE_CLOSED, RUN_RESUMED, JournalEvent
from governance.evidence.manifest import JOURNAL, MANIFEST, OUTPUTS, SIGNATURE, read_manifest
from governance.evidence.store import EvidenceStore
from governance.records.errors import ConfigError, EvidenceError, first_line
from governance.records.files import typed
from governance.records.run import Outcome, RunIdentity, StepTiming
from governance.verify.folder import verify_run
from pipelines.config.model import RunConfig, flat_config, read_config
from pipelines.current_run.identity import code_identity, tool_version

PREPARED = "s4_split"  # a run can go on only if this step finished
_STEP_ENDS = ("step finished", "step blocked", "step failed", "step interrupted")
_PLACE_KEYS = ("workspace",)  # the place of the run, no setting of it


@dataclass(frozen=True)
class EarlierRun:
    """A run that can go on.

    Attributes:
        store: Its evidence, checked against its recorded digests.
        config: Its configuration.
        identity: Identity of the run.
        finished: Steps that finished, with their times.
        spent_s: Step -> seconds of its unfinished attempts.
        duration_s: Seconds that all its processes worked in total.
        reason: Why it ended.
    """

    store: EvidenceStore
    config: RunConfig
    identity: RunIdentity
    finished: tuple[StepTiming, ...]
    spent_s: dict[str, float]
    duration_s: float
    reason: str

    def did(self, step: str) -> bool:
        """Whether a step finished."""
        return any(timing.step == step for timing in self.finished)


def open_earlier_run(run_dir: Path, asked: Callable[[RunConfig], RunConfig]) -> EarlierRun:
    """Open and check a run that was cut short.

    Args:
        run_dir: Its folder.
        asked: Takes the run's configuration and returns the one that the command line asks for.

    Raises:
        ConfigError: It is finished or cannot go on, was made by another version, or another
            configuration was asked for.
        EvidenceError: Something on record is missing, damaged or changed.
    """
    if (run_dir / MANIFEST).exists():
        faults = verify_run(run_dir, is_ended=False).faults
        # A run that was resumed and then killed has an open journal: its manifest is outdated.
        if faults and not _is_open(run_dir):
            raise EvidenceError(f"{run_dir}: {faults[0]}; a run goes on from intact evidence only")
    store = EvidenceStore.reopen(run_dir, tool_version=tool_version())
    events = store.journal.events()
    config, identity = _config(store), _identity(store)
    _refuse_other_code(identity)
    _refuse_other_config(config, asked(config))
    finished, spent_s, duration_s = _times(events)
    earlier = EarlierRun(
        store, config, identity, finished, spent_s, duration_s, _reason(store, events)
    )
    _refuse_what_cannot_go_on(earlier, events)
    return earlier


def _is_open(run_dir: Path) -> bool:
    lines = (run_dir / JOURNAL).read_bytes().splitlines()
    return not lines or f'"type":"{EVIDENCE_CLOSED}"'.encode() not in lines[-1]


def _config(store: EvidenceStore) -> RunConfig:
    path = store.run_dir / CONFIG
    if not {CONFIG, RunIdentity.PATH} <= set(store.artifacts()):
        raise ConfigError(f"{store.run_dir}: ended before it began; start a new run")
    return read_config(path.read_bytes(), str(path))


def _identity(store: EvidenceStore) -> RunIdentity:
    identity = RunFolder.open(store).identity
    if identity.config_sha256 != store.artifacts()[CONFIG]:
        path = store.run_dir / RunIdentity.PATH
        raise EvidenceError(f"{path}: names another config.yaml than there is; restore both")
    return identity


def _refuse_other_code(identity: RunIdentity) -> None:
    """Refuse another version or commit: only the same code leads to the same result."""
    now = tool_version()
    if identity.tool_version != now:
        raise ConfigError(
            f"--resume: the run was made by medisynth-gov {identity.tool_version}, this is {now}; "
            "resume with that version, or start a new run"
        )
    commit, _ = code_identity()
    if commit is not None and identity.code_commit not in (None, commit):
        raise ConfigError(
            f"--resume: the run was made from commit {str(identity.code_commit)[:12]}, this is "
            f"{commit[:12]}; check that commit out, or start a new run"
        )


def _refuse_other_config(config: RunConfig, asked: RunConfig) -> None:
    was, now = flat_config(config), flat_config(asked)
    nothing = object()
    keys = [
        key
        for key in sorted({*was, *now} - {*_PLACE_KEYS})
        if was.get(key, nothing) != now.get(key, nothing)
    ]
    if keys:
        words = ", ".join(f"{key}: {_words(was, key)} -> {_words(now, key)}" for key in keys)
        raise ConfigError(
            f"--resume: another configuration than the run's ({words}); leave these out, or start "
            "a new run with them"
        )


def _words(values: dict[str, Any], key: str) -> str:
    return repr(values[key])[:80] if key in values else "none"


def _refuse_what_cannot_go_on(earlier: EarlierRun, events: Sequence[JournalEvent]) -> None:
    store = earlier.store
    closed = bool(events) and events[-1].type == EVIDENCE_CLOSED
    outcome = RunFolder.open(store).get(Outcome) if closed else None
    if outcome is not None and outcome.status == "finished" and _is_whole(earlier):
        raise ConfigError(f"--resume: run {store.run_id} is finished; nothing is left to do")
    if outcome is not None and outcome.status == "blocked":
        raise ConfigError(
            f"--resume: run {store.run_id} was blocked ({first_line(outcome.message)}); "
            "mend that and start a new run"
        )
    if not earlier.did(PREPARED):
        raise ConfigError(
            f"--resume: run {store.run_id} was cut short before training, so there is nothing to "
            f"go on from; start a new run: medisynth-gov run {typed(store.run_dir / 'config.yaml')}"
        )


def _is_whole(earlier: EarlierRun) -> bool:
    """Whether card and reports are written and listed, and the manifest is signed if it is to."""
    run_dir = earlier.store.run_dir
    ended = [MANIFEST, *OUTPUTS]
    if earlier.config.signing.key is not None:
        ended.append(SIGNATURE)
    if not all((run_dir / name).is_file() for name in ended):
        return False
    return {*OUTPUTS} <= {file.path for file in read_manifest(run_dir).outputs}


def _reason(store: EvidenceStore, events: Sequence[JournalEvent]) -> str:
    outcome = RunFolder.open(store).get(Outcome)
    if not events or events[-1].type != EVIDENCE_CLOSED or outcome is None:
        return "killed"
    return f"{outcome.status}: {outcome.message}" if outcome.message else outcome.status


def _times(
    events: Sequence[JournalEvent],
) -> tuple[tuple[StepTiming, ...], dict[str, float], float]:
    """Return finished steps, seconds of unfinished attempts by step, and seconds in total."""
    finished: dict[str, StepTiming] = {}
    spent_s: dict[str, float] = {}
    total_s = 0.0
    for session in _sessions(events):
        total_s += _seconds(session[0], session[-1])
        for step, took_s, is_finished in _attempts(session):
            spent_s[step] = spent_s.get(step, 0.0) + took_s
            if is_finished:
                duration_s = round(spent_s.pop(step), 3)
                finished[step] = StepTiming(step=step, status="finished", duration_s=duration_s)
    return tuple(finished.values()), spent_s, round(total_s, 3)


def _sessions(events: Sequence[JournalEvent]) -> Iterator[Sequence[JournalEvent]]:
    """Yield the events of each process that worked on the run; none is empty."""
    starts = [place for place, event in enumerate(events) if event.type == RUN_RESUMED]
    for start, end in pairwise([0, *starts, len(events)]):
        if start < end:
            yield events[start:end]


def _attempts(session: Sequence[JournalEvent]) -> Iterator[tuple[str, float, bool]]:
    """Yield (step, seconds, whether it finished) for each step that a process began."""
    running: JournalEvent | None = None
    for event in session:
        if event.type == "step started":
            running = event
        elif running is not None and event.type in _STEP_ENDS:
            is_finished = event.type == "step finished"
            yield str(running.body["step"]), _seconds(running, event), is_finished
            running = None
    if running is not None:
        yield str(running.body["step"]), _seconds(running, session[-1]), False


def _seconds(start: JournalEvent, end: JournalEvent) -> float:
    moments = (datetime.fromisoformat(event.time_utc) for event in (end, start))
    return (next(moments) - next(moments)).total_seconds()
