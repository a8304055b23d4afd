"""A run from start to end: eight calls, top to bottom, and a report whatever happens."""

import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from governance.evidence.folder import FinishedRun
from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy, with_criteria
from governance.records.base import Document
from governance.records.dataset import DatasetIdentity
from governance.records.errors import (
    GovernanceError,
    InterruptedByUser,
    MachineError,
    MedisynthError,
    PipelineError,
)
from governance.records.manifest import Manifest
from governance.records.partition import SplitRecord
from governance.records.run import Outcome, RollUp, StepTiming
from governance.records.run_files import DOCUMENTS
from governance.records.training import TrainingRecord
from pipelines.config.model import RunConfig, flat_config
from pipelines.current_run.begin import refuse_readable_folders, write_known, write_used
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext, SplitImages, TrainedGenerator
from pipelines.current_run.identity import (
    code_identity,
    hazard_list,
    new_run_id,
    run_identity,
    test_plan,
    tool_version,
)
from pipelines.current_run.keys import open_signer, stamp_at_end
from pipelines.current_run.lock import folder_lock, run_lock
from pipelines.current_run.vulnerability_scan import read_scan
from pipelines.finished_runs import sync as outbox
from pipelines.finished_runs.lineage import require_parent
from pipelines.finished_runs.resume import PREPARED, EarlierRun, open_earlier_run
from pipelines.people.read import known_use, read_declarations
from pipelines.selftest.trials import try_guards
from pipelines.steps import (
    s1_ingest,
    s2_validate,
    s3_audit,
    s4_split,
    s5_train,
    s6_evaluate,
    s7_evidence,
    s8_report,
)
from pipelines.tracking import Tracker

_D = TypeVar("_D", bound=Document)

_LEAST_FREE_BYTES = 32 << 20  # for records, reports and the tracking store of the smallest run

EXPECTED_ERRORS = (GovernanceError, MedisynthError, PipelineError)


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        run_dir: Its folder.
        rollup: Statuses, gate and verdict.
        manifest: What was written.
        error: The error that stopped it; None when all steps ran.
        exit_code: Exit code of the command line.
        resume_command: What to type to go on with it; empty when that cannot be.
    """

    run_dir: Path
    rollup: RollUp
    manifest: Manifest
    error: Exception | None
    exit_code: int
    resume_command: str = ""


def run_flow(config: RunConfig, command: list[str], console: Console) -> RunResult:
    """Run the eight steps. A run that stops early still leaves evidence and a report.

    Raises:
        PipelineError: The run could not even begin: workspace or tracking store not usable, or
            what training must not read lies in a folder that it has to read.
        DataError: The data folder is missing, empty, or has no known layout.
        GovernanceError: The policy or the run folder cannot be used.
    """
    policy = with_criteria(load_policy(), config.criteria)
    signer = open_signer(config.signing)
    declared = read_declarations(config.declarations, policy) if config.declarations else None
    scan = read_scan(config.evidence)
    s1_ingest.find_adapter(config.data)  # a mistyped folder is no run
    refuse_readable_folders(config)
    workspace = config.workspace_path
    require_parent(workspace, config.lineage)
    _make_workspace(workspace)
    tracker = Tracker(workspace, config.tracking, console.warn)
    config_yaml = config.to_yaml()
    run_id = new_run_id(config_yaml)
    with ExitStack() as held, tracker.closing():
        with folder_lock(workspace):
            tracker.connect()
            outbox.recover(workspace, console.warn)
            store = EvidenceStore.create(workspace / "runs", run_id, tool_version=tool_version())
            lock = held.enter_context(run_lock(store.run_dir))
        console.say(f"run {run_id}")
        context = RunContext(config, policy, store, console, workspace, (lock,), signer)
        identity = run_identity(run_id, config, config_yaml, command)
        store.write_bytes("config.yaml", config_yaml)
        store.write_document("run.json", identity)
        if declared is not None:
            declared.put_on_record(store)
            for sentence in declared.warnings(identity, used=known_use(config)):
                console.warn(sentence)
        write_known(identity, scan, store, console.warn)
        plan = store.write_document("plan.json", test_plan(config, identity.config_sha256, policy))
        store.journal.append("plan frozen", {"plan_sha256": plan.sha256})
        store.write_document("hazards.json", hazard_list(config))
        if tracker.is_on:
            outbox.mark(workspace, run_id, "run began")
        tracker.start(identity, _parameters(config))
        steps = _Steps(context, tracker)
        return _to_the_end(steps, lambda: _prepare(context, tracker, steps))


def resume_flow(
    run_dir: Path, asked: Callable[[RunConfig], RunConfig], command: list[str], console: Console
) -> RunResult:
    """Go on with a run that was cut short: what finished is checked and not done again.

    Args:
        run_dir: Its folder.
        asked: The configuration that the command line names, given the run's own.
        command: Command line as typed.
        console: Where messages go.

    Raises:
        PipelineError: Another process works on it, it is finished or cannot go on, or another
            configuration or version was asked for.
        GovernanceError: Something on record is missing, damaged or changed.
        DataError: The data folder is gone.
    """
    with run_lock(run_dir) as lock, ExitStack() as ending:
        earlier = open_earlier_run(run_dir, asked)
        config, store, workspace = earlier.config, earlier.store, run_dir.parent.parent
        policy = with_criteria(load_policy(), config.criteria)
        signer = open_signer(config.signing)
        context = RunContext(config, policy, store, console, workspace, (lock,), signer)
        split = None
        if not earlier.did("s6_evaluate"):
            split = s4_split.reload(s1_ingest.data_root(context), context)
        tracker = Tracker(workspace, config.tracking, console.warn)
        tracker.connect()
        ending.enter_context(tracker.closing())
        _take_up(earlier, command)
        console.say(f"run {store.run_id} goes on ({earlier.reason})")
        if tracker.is_on:
            outbox.mark(workspace, store.run_id, "run went on")
        tracker.resume(earlier.identity, _parameters(config))
        partitions = _read(context, SplitRecord).partitions
        tracker.log_partitions(_read(context, DatasetIdentity).name, partitions)
        return _to_the_end(_Steps(context, tracker, earlier), lambda: split)


def _take_up(earlier: EarlierRun, command: list[str]) -> None:
    """Say in the journal that the run goes on, and with which code."""
    commit, clean = code_identity()
    earlier.store.resume(
        {
            "reason": earlier.reason,
            "finished_steps": [timing.step for timing in earlier.finished],
            "command": command,
            "code_commit": commit,
            "code_clean": clean,
        }
    )


def _to_the_end(steps: "_Steps", prepare: Callable[[], SplitImages | None]) -> RunResult:
    """What a new and a resumed run share: training, evaluation, evidence, report.

    `prepare` gives what the split hands on; None when nothing after it is left to do.
    """
    context, tracker = steps.context, steps.tracker
    error: Exception | None = None
    try:
        split = prepare()
        if split is not None:
            _train_and_evaluate(context, tracker, steps, split)
    except EXPECTED_ERRORS as caught:
        error = caught
    except Exception as caught:  # noqa: BLE001 - a bug of ours still leaves a report
        error = caught
        context.store.write_bytes("crash.txt", traceback.format_exc().encode())
    can_resume = _can_resume(steps, error)
    if not can_resume:
        shutil.rmtree(context.scratch, ignore_errors=True)
    return _finish(context, tracker, steps, error, can_resume=can_resume)


def _can_resume(steps: "_Steps", error: Exception | None) -> bool:
    """Whether the packed views are worth keeping: a blocked run has to be started anew."""
    return error is not None and steps.did(PREPARED) and _status(error) != "blocked"


def _prepare(context: RunContext, tracker: Tracker, steps: "_Steps") -> SplitImages:
    """Steps 1 to 4; what they decoded of the test set ends here: afterwards it is a seal only."""
    try_guards(context)
    with steps.step("s1_ingest"):
        listed = s1_ingest.list_data(context)
        images = s1_ingest.run(listed, context)
    with steps.step("s2_validate"):
        images = s2_validate.run(images, context)
    with steps.step("s3_audit"):
        audited = s3_audit.run(images, context)
    with steps.step("s4_split"):
        split = s4_split.run(images, audited, context)
        tracker.log_partitions(images.info.name, _read(context, SplitRecord).partitions)
    return split


def _train_and_evaluate(
    context: RunContext, tracker: Tracker, steps: "_Steps", split: SplitImages
) -> None:
    """Steps 5 and 6."""
    if steps.did("s5_train"):
        trained = s5_train.reload(context)
    else:
        with steps.step("s5_train"):
            trained = _train(context, split)
            checkpoint = context.store.run_dir / trained.checkpoint_path
            tracker.log_training(_read(context, TrainingRecord), checkpoint)
    with steps.step("s6_evaluate"):
        record = s6_evaluate.run(
            trained,
            split.training,
            split.tuning,
            split.sealed_test,
            split.access_log,
            context.store.artifacts()["plan.json"],
            context,
        )
        tracker.log_evaluation(record.metrics, _read(context, SplitRecord).partitions[-1])


def _train(context: RunContext, split: SplitImages) -> TrainedGenerator:
    if s5_train.is_done(context):
        return s5_train.reload(context)
    return s5_train.run(split.training, split.tuning, split.must_refuse, split.access_log, context)


def _finish(
    context: RunContext,
    tracker: Tracker,
    steps: "_Steps",
    error: Exception | None,
    *,
    can_resume: bool,
) -> RunResult:
    """Steps 7 and 8, with whatever the run has."""
    write_used(context.store)
    outcome = steps.outcome(error)
    with tracker.step("s7_evidence"):
        rollup, manifest = s7_evidence.run(outcome, tool_version(), context)
    with tracker.step("s8_report"):
        context.console.say("writing card and reports")
        manifest = s8_report.run(context.store.run_dir, context.signer)
        stamp_at_end(context.store.run_dir, context.config.signing, context.console.warn)
    _mirror(context, tracker)
    exit_code = _exit_code(error) if error is not None else rollup.exit_code
    resume_command = context.resume_command if can_resume else ""
    return RunResult(context.store.run_dir, rollup, manifest, error, exit_code, resume_command)


def _exit_code(error: Exception) -> int:
    return getattr(error, "exit_code", 1)


def _mirror(context: RunContext, tracker: Tracker) -> None:
    """Complete the mirror from the run folder; what cannot be done now waits in the outbox."""
    try:
        is_done = tracker.complete(FinishedRun(context.store.run_dir))
        why = tracker.problem
    except EXPECTED_ERRORS as error:
        is_done, why = False, str(error)
    if is_done:
        outbox.clear(context.workspace, context.store.run_id)
    else:
        context.console.warn(
            f"MLflow mirror is not complete ({why}); later: medisynth-gov sync {context.store.run_id}"
        )


class _Steps:
    """Keeps the time of each step and tells journal and mirror about it.

    A resumed run goes on counting: its times are those of all processes that worked on it.
    """

    def __init__(
        self, context: RunContext, tracker: Tracker, earlier: EarlierRun | None = None
    ) -> None:
        self.context, self.tracker = context, tracker
        self._timings: list[StepTiming] = list(earlier.finished) if earlier else []
        self._spent_s = earlier.spent_s if earlier else {}
        self._started = time.monotonic() - (earlier.duration_s if earlier else 0.0)

    def did(self, step: str) -> bool:
        """Whether a step finished, in this process or in an earlier one."""
        return any(t.step == step and t.status == "finished" for t in self._timings)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run one step; a stop request ends it before it starts."""
        console, journal = self.context.console, self.context.store.journal
        console.say(name)
        started, status, message = time.monotonic(), "finished", ""
        journal.append("step started", {"step": name})
        try:
            with self.tracker.step(name):
                console.stop.check()
                yield
        except BaseException as error:
            status, message = _status(error), _sentence(error)
            raise
        finally:
            duration_s = time.monotonic() - started + self._spent_s.get(name, 0.0)
            self._timings.append(
                StepTiming.model_validate(
                    {
                        **{"step": name, "status": status, "message": message},
                        "duration_s": round(duration_s, 3),
                    }
                )
            )
            journal.append(f"step {status}", {"step": name, "message": message})

    def outcome(self, error: Exception | None) -> Outcome:
        """How steps 1 to 6 went, all together."""
        failed = next((t for t in self._timings if t.status != "finished"), None)
        return Outcome(
            status=_status(error) if error is not None else "finished",
            stopped_at=failed.step if failed else None,
            error_code=getattr(error, "code", "B000") if error is not None else None,
            message=_sentence(error) if error is not None else "",
            steps=tuple(self._timings),
            duration_s=round(time.monotonic() - self._started, 3),
        )


def _status(error: BaseException) -> str:
    if isinstance(error, InterruptedByUser):
        return "interrupted"
    blocked = isinstance(error, EXPECTED_ERRORS) and _exit_code(error) in (3, 4)
    return "blocked" if blocked else "failed"


def _sentence(error: BaseException) -> str:
    if isinstance(error, EXPECTED_ERRORS):
        return str(error)
    return f"a fault of medisynth-gov itself ({type(error).__name__}); crash.txt has the details"


def _make_workspace(workspace: Path) -> None:
    try:
        (workspace / "runs").mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(workspace).free
    except OSError as error:
        raise MachineError(
            f"{workspace}: the workspace cannot be written ({error.strerror}); "
            "choose another with --workspace"
        ) from error
    if free < _LEAST_FREE_BYTES:
        raise MachineError(
            f"{workspace}: {free:,} bytes are free, a run needs at least {_LEAST_FREE_BYTES:,}; "
            "make room, or choose another workspace with --workspace"
        )


def _parameters(config: RunConfig) -> dict[str, str]:
    """The configuration as flat names for the tracking store's table of parameters."""
    return {key: str(value) for key, value in flat_config(config).items()}


def _read(context: RunContext, document: type[_D]) -> _D:
    """A document that an earlier step wrote."""
    name = next(name for name, kind in DOCUMENTS.items() if kind is document)
    return document.model_validate_json((context.store.run_dir / name).read_bytes())
