"""A run from start to end: eight steps in order, and a report even if one of them fails."""

from collections.abc import Callable
from pathlib import Path

from pipelines import begin
from pipelines.config.model import RunConfig
from pipelines.current_run.console import Console
from pipelines.run import Run, RunResult
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


def run_flow(config: RunConfig, command: list[str], console: Console) -> RunResult:
    """Run the eight steps. A run that stops early still leaves evidence and a report.

    Raises:
        UsageError: Configuration, policy or declarations cannot be used.
        DataError: The data folder is missing, empty, or has no known layout.
        TrackingError: The tracking store cannot be used.
        MachineError: The workspace or a signing key cannot be used.
    """
    ready = begin.ready(config)
    with begin.opened(ready, command, console) as run:
        return _eight_steps(run)


def resume_flow(
    run_dir: Path, asked: Callable[[RunConfig], RunConfig], command: list[str], console: Console
) -> RunResult:
    """Resume a run that was cut short; finished steps are checked, not repeated.

    Args:
        run_dir: Its folder.
        asked: Takes the run's configuration and returns the one that the command line asks for.
        command: Command line as typed.
        console: Where messages go.

    Raises:
        ConfigError: It is finished or cannot go on, or another configuration or version was asked
            for.
        MachineError: Another process works on it.
        EvidenceError: Something on record is missing, damaged or changed.
        DataError: The data folder is gone.
    """
    with begin.resumed(run_dir, asked, command, console) as run:
        return _eight_steps(run)


def _eight_steps(run: Run) -> RunResult:
    with run.guarded():
        images = run.step(s1_ingest.run)
        images = run.step(s2_validate.run, images)
        audited = run.step(s3_audit.run, images)
        split = run.step(s4_split.run, images, audited)
        trained = run.step(s5_train.run, split)
        run.step(s6_evaluate.run, trained, split)
    rollup = run.last_step(s7_evidence.run, run.outcome)
    manifest = run.last_step(s8_report.run)
    return run.result(rollup, manifest)
