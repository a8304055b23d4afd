"""The result of the framework's own tests: writing it after a test run, finding it for a run."""

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from governance.records.files import write_atomic
from governance.records.software import SuiteReport

MAX_BYTES = 1 << 20


def report_name(commit: str, *, clean: bool) -> str:
    """Return the result's file name; a tree with changes has a name of its own."""
    return f"{commit}{'' if clean else '-changed'}.json"


def write_suite_report(report: SuiteReport, folder: Path) -> Path:
    """Write the result of the tests, replacing an earlier one of the same commit.

    Raises:
        RecordWriteError: The folder cannot be written.
    """
    path = folder / report_name(report.commit, clean=report.clean)
    write_atomic(path, report.model_dump_json(indent=1).encode() + b"\n")
    return path


def find_suite_report(
    commit: str | None, folder: Path, warn: Callable[[str], None]
) -> SuiteReport | None:
    """Return the test result of a commit, else that of the commit with changes, else None.

    Args:
        commit: Commit of the framework's source; None when it is unknown.
        folder: Where runs of the tests leave their results.
        warn: Called with a sentence when a result exists but cannot be read.
    """
    for clean in (True, False):
        path = folder / report_name(commit or "", clean=clean)
        if commit is None or not path.is_file():
            continue
        try:
            with path.open("rb") as stream:
                return SuiteReport.model_validate_json(stream.read(MAX_BYTES))
        except (OSError, ValidationError):
            warn(f"{path}: not a readable result of the tests; run make test again")
    return None
