"""A run of all tests leaves its result for runs of the same commit to find: --suite-report=FOLDER."""

import platform
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from governance.records.files import sha256_file
from governance.records.software import MalformedInput, SuiteReport
from pipelines.current_run.identity import code_identity
from pipelines.current_run.software import write_suite_report

MALFORMED = "malformed"
WHOLE = ("", "not slow and not gpu")  # all tests, and those of scripts/check
_TELLING = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)  # others: the suite did not end


def add_option(parser: pytest.Parser) -> None:
    """Define --suite-report=FOLDER (with "=": pytest reads it before it knows this option)."""
    parser.addoption("--suite-report", metavar="FOLDER", help="leave the result of a whole run")


def name_kinds(items: list[pytest.Item]) -> None:
    """Write the kind of malformed input into a test's properties: these reach every report."""
    for item in items:
        for mark in item.iter_markers(MALFORMED):
            item.user_properties.append((MALFORMED, mark.args[0]))


class SuiteReporter:
    """Counts outcomes and writes the result; a plug-in of the process that sees all reports."""

    def __init__(self, folder: Path, config: pytest.Config) -> None:
        self._folder, self._config = folder, config
        self._identity = code_identity()
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._malformed: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._n_deselected = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = _outcome(report)
        if outcome:
            self._counts[outcome] += 1
            for name, kind in report.user_properties:
                if name == MALFORMED:
                    self._malformed[str(kind)][outcome] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._counts["error"] += report.failed

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._n_deselected += len(items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:  # of pytest-xdist
        found = getattr(node, "workeroutput", {}).get("n_deselected", 0)
        self._n_deselected = max(self._n_deselected, found)  # every worker collects all tests

    @pytest.hookimpl(trylast=True)  # after the JUnit file was written
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        commit, clean = self._identity
        if commit is None or not is_whole(self._config) or exitstatus not in _TELLING:
            return
        now = code_identity()
        write_suite_report(
            self._report(commit, exitstatus, clean=bool(clean) and now == self._identity),
            self._folder,
        )

    def _report(self, commit: str, exit_status: int, *, clean: bool) -> SuiteReport:
        junit = Path(self._config.option.xmlpath or "")
        return SuiteReport(
            commit=commit,
            clean=clean,
            finished_utc=datetime.now(UTC),
            duration_s=round(time.monotonic() - self._started, 1),
            python=platform.python_version(),
            selection=self._config.option.markexpr,
            exit_status=int(exit_status),
            n_passed=self._counts["passed"],
            n_failed=self._counts["failed"],
            n_errors=self._counts["error"],
            n_skipped=self._counts["skipped"],
            n_deselected=self._n_deselected,
            malformed=tuple(
                MalformedInput(
                    kind=kind,
                    n_passed=found["passed"],
                    n_failed=found["failed"] + found["error"],
                    n_skipped=found["skipped"],
                )
                for kind, found in sorted(self._malformed.items())
            ),
            junit_sha256=sha256_file(junit) if junit.is_file() else None,
        )


def _outcome(report: pytest.TestReport) -> str:
    """What a phase of a test adds to the counts; "" for nothing."""
    if report.when == "call":
        return report.outcome
    if report.failed:
        return "error"
    return "skipped" if report.skipped else ""


def is_whole(config: pytest.Config) -> bool:
    """Whether the tests are all, or those of scripts/check."""
    option = config.option
    limits = (option.keyword, option.deselect, option.ignore, option.ignore_glob)
    is_limited = any((*limits, getattr(option, "lf", False)))
    all_paths = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return all_paths and not is_limited and option.markexpr in WHOLE
