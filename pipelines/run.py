"""Runs the steps of one run: each is timed, written to the journal and mirrored."""

import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, cast

from governance.evidence.folder import RunFolder
from governance.records.credentials import without_credentials
from governance.records.errors import (
    InterruptedByUser,
    MachineError,
    MedisynthGovError,
    RecordWriteError,
    refusals_named,
)
from governance.records.files import typed
from governance.records.manifest import Manifest
from governance.records.rollup import RollUp
from governance.records.run import Outcome, StepTiming
from governance.verdict.headline import Headline, headline
from pipelines.current_run.context import RunContext
from pipelines.finished_runs import sync
from pipelines.finished_runs.resume import PREPARED, EarlierRun
from pipelines.selftest.trials import try_guards
from pipelines.tracking import Tracker

N_STEPS = 8
_T = TypeVar("_T")
_Inputs = TypeVarTuple("_Inputs")


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        run_dir: Its folder.
        rollup: Statuses, gate and verdict.
        manifest: Manifest of all files written.
        error: The error that stopped it; None when all steps ran.
        exit_code: Exit code of the command line.
        resume_command: Command that resumes it; empty when it cannot be resumed.
        headline: What it comes down to; None when it did not finish.
    """

    run_dir: Path
    rollup: RollUp
    manifest: Manifest
    error: Exception | None
    exit_code: int
    resume_command: str = ""
    headline: Headline | None = None


class Run:
    """A run whose folder is open: does its steps and keeps their times and outcome.

    In a resumed run, steps that an earlier process finished are not repeated, and times add up.
    """

    def __init__(
        self,
        context: RunContext,
        tracker: Tracker,
        earlier: EarlierRun | None = None,
        handed_on: Mapping[str, Any] | None = None,
    ) -> None:
        """Start a new run or continue an earlier one.

        Args:
            context: What every step may use.
            tracker: Mirror of the run, begun.
            earlier: Steps and times of earlier processes; None for a new run.
            handed_on: Step -> result that was read back already for a resumed run.
        """
        self.context = context
        self._tracker = tracker
        self._is_new = earlier is None
        self._handed_on = dict(handed_on or {})
        self._timings: list[StepTiming] = list(earlier.finished) if earlier else []
        self._spent_s = earlier.spent_s if earlier else {}
        self._started = time.monotonic() - (earlier.duration_s if earlier else 0.0)
        self._error: Exception | None = None
        self._can_resume = False

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Run the quick self-test of a new run; make an error of any step the run's outcome."""
        try:
            if self._is_new:
                with refusals_named():
                    try_guards(self.context)
            yield
        except MedisynthGovError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - a bug of ours still leaves a report
            self._error = error
            details = without_credentials(traceback.format_exc())
            self.context.store.write_bytes("crash.txt", details.encode())
        self._can_resume = (
            self._error is not None and self._did(PREPARED) and _status(self._error) != "blocked"
        )
        if not self._can_resume:
            shutil.rmtree(self.context.scratch, ignore_errors=True)

    def step(self, work: Callable[[*_Inputs, RunContext], _T], *inputs: *_Inputs) -> _T:
        """Do one step and return its result; a stop request ends it before it starts.

        For a step that an earlier process finished, return what was read back of it before the run
        was taken up again; None if no later step needs the result.
        """
        name = _name(work)
        if self._did(name):
            return cast(_T, self._handed_on.get(name))
        with self._timed(name), refusals_named():
            handed_on = work(*inputs, self.context)
            self._tracker.log_step(name, self.context.folder)
        return handed_on

    def last_step(self, work: Callable[[*_Inputs, RunContext], _T], *inputs: *_Inputs) -> _T:
        """Do a step that every run ends with, even after errors; it is not timed.

        If it has no room, after an error that has the same cause, that error is raised.
        """
        try:
            with self._tracker.step(_name(work)), refusals_named():
                return work(*inputs, self.context)
        except MachineError as error:
            if isinstance(self._error, MachineError):
                raise self._error from error
            raise

    @property
    def outcome(self) -> Outcome:
        """Status, error and times of steps 1 to 6."""
        failed = next((t for t in self._timings if t.status != "finished"), None)
        error = self._error
        return Outcome(
            status=_status(error) if error is not None else "finished",
            stopped_at=failed.step if failed else None,
            error_code=_code(error) if error is not None else None,
            message=_sentence(error) if error is not None else "",
            steps=tuple(self._timings),
            duration_s=round(time.monotonic() - self._started, 3),
        )

    def result(self, rollup: RollUp, manifest: Manifest) -> RunResult:
        """Complete the mirror from the run folder and return the result of the run."""
        self._complete_mirror()
        error = self._error
        exit_code = _exit_code(error) if error is not None else rollup.exit_code
        resume_command = self.context.resume_command if self._can_resume else ""
        run_dir = self.context.store.run_dir
        found = None if error else headline(RunFolder.finished(run_dir))
        return RunResult(run_dir, rollup, manifest, error, exit_code, resume_command, found)

    def _did(self, step: str) -> bool:
        """Whether a step finished, in this process or in an earlier one."""
        return any(t.step == step and t.status == "finished" for t in self._timings)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        console, journal = self.context.console, self.context.store.journal
        console.say(f"step {_number(name)} of {N_STEPS}  {name}")
        started, status, message = time.monotonic(), "finished", ""
        journal.append("step started", {"step": name})
        try:
            with self._tracker.step(name):
                console.stop.check()
                yield
        except BaseException as error:
            status, message = _status(error), _sentence(error)
            raise
        finally:
            duration_s = round(time.monotonic() - started + self._spent_s.get(name, 0.0), 3)
            timing = {"step": name, "status": status, "message": message, "duration_s": duration_s}
            self._timings.append(StepTiming.model_validate(timing))
            # Where there is no room left for this either, the error that came first is told.
            with suppress(RecordWriteError) if status != "finished" else nullcontext():
                journal.append(f"step {status}", {"step": name, "message": message})

    def _complete_mirror(self) -> None:
        """Mirror the finished run; if that fails it stays in the outbox."""
        context = self.context
        try:
            is_done = self._tracker.complete(RunFolder.finished(context.store.run_dir))
            why = self._tracker.problem
        except MedisynthGovError as error:
            is_done, why = False, str(error)
        if is_done:
            sync.clear(context.workspace, context.store.run_id)
        else:
            context.console.warn(
                f"MLflow mirror is not complete ({why}); "
                f"later: medisynth-gov sync {typed(context.store.run_dir)}"
            )


def _name(work: Callable[..., Any]) -> str:
    """Return the name of a step, which is the name of its function's module."""
    return work.__module__.rpartition(".")[2]


def _number(step: str) -> int:
    """Return the number of a step, e.g. 4 of "s4_split"."""
    return int(step.partition("_")[0].removeprefix("s"))


def _exit_code(error: BaseException) -> int:
    return error.exit_code if isinstance(error, MedisynthGovError) else MedisynthGovError.exit_code


def _code(error: Exception) -> str:
    return error.code if isinstance(error, MedisynthGovError) else MedisynthGovError.code


def _status(error: BaseException) -> str:
    if isinstance(error, InterruptedByUser):
        return "interrupted"
    blocked = isinstance(error, MedisynthGovError) and error.exit_code in (3, 4)
    return "blocked" if blocked else "failed"


def _sentence(error: BaseException) -> str:
    if isinstance(error, MedisynthGovError):
        return str(error)
    return f"a fault of medisynth-gov itself ({type(error).__name__}); crash.txt has the details"
