"""A run from start to end: eight calls, top to bottom, and a report whatever happens."""

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from governance.errors import GovernanceError
from governance.evidence.documents import (
    DOCUMENTS,
    Document,
    Manifest,
    Outcome,
    RollUp,
    SplitRecord,
    StepTiming,
    TrainingRecord,
)
from governance.evidence.store import EvidenceStore
from governance.policies.load import load_policy, with_criteria
from medisynth.errors import MedisynthError
from pipelines.config import RunConfig
from pipelines.console import Console
from pipelines.context import RunContext
from pipelines.errors import InterruptedByUser, MachineError, PipelineError
from pipelines.identity import environment, new_run_id, run_identity, test_plan, tool_version
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
    """

    run_dir: Path
    rollup: RollUp
    manifest: Manifest
    error: Exception | None
    exit_code: int


def run_flow(config: RunConfig, command: list[str], console: Console) -> RunResult:
    """Run the eight steps. A run that stops early still leaves evidence and a report.

    Raises:
        PipelineError: The run could not even begin: workspace or tracking store not usable.
        DataError: The data folder is missing, empty, or has no known layout.
        GovernanceError: The policy or the run folder cannot be used.
    """
    policy = with_criteria(load_policy(), config.criteria)
    s1_ingest.find_adapter(config.data)  # a mistyped folder is no run
    workspace = config.workspace_path
    _make_workspace(workspace)
    tracker = Tracker(workspace, config.tracking, console.warn)
    tracker.connect()
    config_yaml = config.to_yaml()
    run_id = new_run_id(config_yaml)
    store = EvidenceStore.create(workspace / "runs", run_id, tool_version=tool_version())
    console.say(f"run {run_id}")
    context = RunContext(config, policy, store, console, workspace)
    identity = run_identity(run_id, config, config_yaml, command)
    store.write_bytes("config.yaml", config_yaml)
    store.write_document("run.json", identity)
    plan = store.write_document("plan.json", test_plan(config, identity.config_sha256, policy))
    store.journal.append("plan frozen", {"plan_sha256": plan.sha256})
    tracker.start(identity, _parameters(config))
    steps = _Steps(context, tracker)
    error: Exception | None = None
    try:
        _guarded_steps(context, tracker, steps, plan.sha256)
    except EXPECTED_ERRORS as caught:
        error = caught
    except Exception as caught:  # noqa: BLE001 - a bug of ours still leaves a report
        error = caught
        store.write_bytes("crash.txt", traceback.format_exc().encode())
    shutil.rmtree(context.scratch, ignore_errors=True)
    return _finish(context, tracker, steps, error)


def _guarded_steps(
    context: RunContext, tracker: Tracker, steps: "_Steps", plan_sha256: str
) -> None:
    """Steps 1 to 6: what may be refused."""
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
    del images  # from here on the test set exists as a seal only
    with steps.step("s5_train"):
        trained = s5_train.run(
            split.training, split.tuning, split.must_refuse, split.access_log, context
        )
        checkpoint = context.store.run_dir / trained.checkpoint_path
        tracker.log_training(_read(context, TrainingRecord), checkpoint, split.training.digest)
    with steps.step("s6_evaluate"):
        record = s6_evaluate.run(
            trained,
            split.training,
            split.tuning,
            split.sealed_test,
            split.access_log,
            plan_sha256,
            context,
        )
        tracker.log_evaluation(record.metrics, _read(context, SplitRecord).partitions[-1])


def _finish(
    context: RunContext, tracker: Tracker, steps: "_Steps", error: Exception | None
) -> RunResult:
    """Steps 7 and 8, with whatever the run has."""
    context.store.write_document("environment.json", environment(_compute_device(context)))
    outcome = steps.outcome(error)
    with tracker.step("s7_evidence"):
        rollup, manifest = s7_evidence.run(outcome, tool_version(), context)
    with tracker.step("s8_report"):
        context.console.say("writing card and reports")
        manifest = s8_report.run(context.store.run_dir)
    _mirror(context, tracker, rollup, manifest, outcome)
    exit_code = _exit_code(error) if error is not None else rollup.exit_code
    return RunResult(context.store.run_dir, rollup, manifest, error, exit_code)


def _exit_code(error: Exception) -> int:
    return getattr(error, "exit_code", 1)


def _mirror(
    context: RunContext, tracker: Tracker, rollup: RollUp, manifest: Manifest, outcome: Outcome
) -> None:
    listed = [f.path for f in (*manifest.evidence, *manifest.outputs)]
    small = [p for p in listed if not p.startswith(("samples/0", "records/", "checkpoints/"))]
    tracker.log_artifacts(context.store.run_dir, [*small, "manifest.json"])
    tracker.log_verdict(
        rollup,
        evidence_root=manifest.evidence_root,
        journal_head=manifest.journal_head,
        journal_events=manifest.journal_events,
    )
    words = {"finished": "FINISHED", "interrupted": "KILLED"}
    tracker.finish(words.get(outcome.status, "FAILED"))


class _Steps:
    """Keeps the time of each step and tells journal and mirror about it."""

    def __init__(self, context: RunContext, tracker: Tracker) -> None:
        self._context, self._tracker = context, tracker
        self._timings: list[StepTiming] = []
        self._started = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run one step; a stop request ends it before it starts."""
        console, journal = self._context.console, self._context.store.journal
        console.say(name)
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
            duration_s = round(time.monotonic() - started, 3)
            self._timings.append(
                StepTiming.model_validate(
                    {"step": name, "status": status, "duration_s": duration_s, "message": message}
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
    except OSError as error:
        raise MachineError(
            f"{workspace}: the workspace cannot be written ({error.strerror}); "
            "choose another with --workspace"
        ) from error


def _parameters(config: RunConfig) -> dict[str, str]:
    """The configuration as flat names for the tracking store's table of parameters."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = str(value)

    plain = config.model_dump(mode="json")
    plain["model"]["settings"] = config.generator_settings().model_dump(mode="json")
    walk("", plain)
    return flat


def _read(context: RunContext, document: type[_D]) -> _D:
    """A document that an earlier step wrote."""
    name = next(name for name, kind in DOCUMENTS.items() if kind is document)
    return document.model_validate_json((context.store.run_dir / name).read_bytes())


def _compute_device(context: RunContext) -> str:
    if (context.store.run_dir / "metrics" / "training.json").exists():
        return _read(context, TrainingRecord).compute_device
    return "none: nothing was trained"
