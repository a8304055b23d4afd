"""A run from start to end: eight calls, top to bottom, and a report whatever happens."""

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
        PipelineError: The run could not even begin: workspace or tracking store not usable, or
            what training must not read lies in a folder that it has to read.
        DataError: The data folder is missing, empty, or has no known layout.
        GovernanceError: The policy or the run folder cannot be used.
    """
    ready = begin.ready(config)
    with begin.opened(ready, command, console) as run:
        return _eight_steps(run)


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
