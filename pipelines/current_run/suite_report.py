"""The result of the framework's own tests: where a run of them leaves it, and how a run finds it."""

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from governance.records.files import write_atomic
from governance.records.software import SuiteReport

MAX_BYTES = 1 << 20


def report_name(commit: str, *, clean: bool) -> str:
    """File name of the result: one of a changed tree never takes the place of the commit's own."""
    return f"{commit}{'' if clean else '-changed'}.json"


def write_suite_report(report: SuiteReport, folder: Path) -> Path:
    """Write the result of a run of the tests; that of the same commit before is replaced.

    Raises:
        RecordWriteError: The folder cannot be written.
    """
    path = folder / report_name(report.commit, clean=report.clean)
    write_atomic(path, report.model_dump_json(indent=1).encode() + b"\n")
    return path


def find_suite_report(
    commit: str | None, folder: Path, warn: Callable[[str], None]
) -> SuiteReport | None:
    """The result of the tests of a commit; of a changed tree of it where there is no other.

    Args:
        commit: Commit of the framework's source; None when it is unknown.
        folder: Where runs of the tests leave their results.
        warn: Told in a sentence when a result is there and cannot be read.
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
