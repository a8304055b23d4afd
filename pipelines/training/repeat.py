"""Repeats the first steps of training in a second process and compares the states (P2-06)."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from governance.records.errors import IsolationError, MachineError, ProcessError
from governance.records.training import RepeatRecord
from pipelines.current_run.context import RunContext
from pipelines.training.messages import Isolation, Message, Repeated, Trained, TrainingJob
from pipelines.training.parent import run_training
from pipelines.training.segment import FILE

KEPT = "segment kept"
_OFF = "training.repeat_steps is 0, so no segment was repeated"
_NO_SEGMENT = "training kept no state after its first steps, so there is nothing to compare with"


def is_kept(context: RunContext) -> bool:
    """Whether an earlier process of this run kept the segment."""
    return any(event.type == KEPT for event in context.store.journal.events())


def repeat_segment(job: TrainingJob, trained: Trained, context: RunContext) -> None:
    """Repeat the segment that training kept, once a run, and record the comparison.

    The repeat has a folder of its own, keeps no state and draws no image, so it changes nothing of
    the training.

    Args:
        job: The job that trained.
        trained: Its result.
        context: Configuration, store and console of the run.

    Raises:
        IsolationError: The repeating process could read a forbidden path.
        InterruptedByUser: A stop was asked for; a resumed run begins the repeat anew.
    """
    store = context.store
    if RepeatRecord.PATH in store.artifacts():
        return
    bodies = [event.body for event in store.journal.events() if event.type == KEPT]
    if not bodies:
        problem = _OFF if not job.repeat_steps else _NO_SEGMENT
        store.write_document(RepeatRecord(problem=problem))
        return
    kept = bodies[-1]
    started = time.monotonic()
    found, problem = _repeated(_repeat_job(job, kept, trained, context.scratch), context)
    record = RepeatRecord(
        stage=str(kept["stage"]),
        step=int(kept["step"]),
        sha256=str(kept["sha256"]),
        repeated_sha256=found.sha256 if found else None,
        largest_difference=found.largest if found else None,
        largest_at=found.at if found else "",
        relative_difference=found.relative if found else None,
        tolerance=context.config.training.repeat_tolerance,
        compute_device=trained.compute_device,
        duration_s=round(time.monotonic() - started, 3),
        problem=problem,
    )
    store.write_document(record)
    store.journal.append("segment repeated", {"equal": record.is_equal, "problem": problem})
    (Path(job.work) / FILE).unlink(missing_ok=True)


def _repeat_job(
    job: TrainingJob, kept: Mapping[str, Any], trained: Trained, scratch: Path
) -> TrainingJob:
    """Return the same job from its first step, in a folder of its own."""
    folder, segment = scratch / "repeat", Path(job.work) / FILE
    settings = dict(job.settings)
    if settings.get("precision") == "auto":  # training chose it by timing: use the same
        stages = {stage.name: stage.precision for stage in trained.report.stages}
        settings["precision"] = stages.get(kept["stage"], "auto")
    changes = {
        "settings": settings,
        "work": str(folder),
        "checkpoints": str(folder / "checkpoints"),
        "preview_every": 0,
        "committed": {},
        "readable": (*job.readable, str(segment)),
        "repeats": (str(segment), str(kept["sha256"])),
    }
    return job.model_copy(update=changes)


def _repeated(job: TrainingJob, context: RunContext) -> tuple[Repeated | None, str]:
    """Run the repeat; return its comparison and "", or None and why it failed."""
    shutil.rmtree(job.work, ignore_errors=True)
    context.console.say(f"repeating the first {job.repeat_steps} steps")
    try:
        stop = context.console.stop.check
        done = run_training(job, _refuse_reads, stop, keep_open=context.keep_open)
        return done.repeated, ""
    except (ProcessError, MachineError) as error:
        return None, f"the process that repeated the segment failed: {error}"
    finally:
        shutil.rmtree(job.work, ignore_errors=True)


def _refuse_reads(message: Message) -> None:
    """Raise IsolationError if the repeating process could read a forbidden path."""
    if isinstance(message, Isolation):
        read = [attempt.target for attempt in message.attempts if not attempt.refused]
        if read:
            raise IsolationError(
                f"the process that repeated the segment could read: {', '.join(read)}; "
                "it was stopped before its first step"
            )
