import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from governance.records.software import SuiteReport
from pipelines.current_run.software import find_suite_report, write_suite_report
from tests.places import ROOT

COMMIT = "1" * 40
CONFTEST = f"""
import tests.suite_report as report
from tests.conftest import pytest_addoption, pytest_configure, pytest_collection_modifyitems
from tests.conftest import pytest_deselected

states = [("{COMMIT}", True)] * 2
report.code_identity = lambda: states.pop(0)
"""
SUITE = """
import pytest

@pytest.mark.malformed("csv")
@pytest.mark.parametrize("text", ["", "x"])
def test_refused(text): pass

@pytest.mark.malformed("png")
def test_accepted(): assert False

@pytest.mark.malformed("csv")
def test_skipped(): pytest.skip("no data")

@pytest.mark.slow
def test_slow(): pass

@pytest.fixture
def broken(): raise ValueError

def test_with_error(broken): pass

@pytest.mark.xfail
def test_known(): assert False
"""
MARKERS = "slow: long\n  gpu: device\n  malformed(kind): input"


def run_tests(folder: Path, *arguments: str, selection: str = "not slow and not gpu") -> int:
    (folder / "suite").mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text(f"[pytest]\ntestpaths = suite\nmarkers =\n  {MARKERS}\n")
    (folder / "suite" / "conftest.py").write_text(CONFTEST)
    (folder / "suite" / "test_some.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-m", selection, "--suite-report=left"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(  # noqa: S603
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, check=False
    ).returncode


def report(**changes: object) -> SuiteReport:
    fields = {
        "commit": COMMIT,
        "clean": True,
        "finished_utc": datetime(2026, 11, 2, tzinfo=UTC),
        "duration_s": 300.0,
        "python": "3.11.7",
        "selection": "",
        "exit_status": 0,
        "n_passed": 3000,
        "n_failed": 0,
        "n_errors": 0,
        "n_skipped": 2,
        "n_deselected": 10,
        "malformed": (),
    }
    return SuiteReport.model_validate(fields | changes)


def test_a_whole_run_by_two_processes_leaves_its_counts_by_outcome_and_kind(tmp_path):
    assert run_tests(tmp_path, "-n", "2", "--junitxml", "left/junit.xml") == 1

    found = json.loads((tmp_path / "left" / f"{COMMIT}.json").read_bytes())
    counts = {name: found[f"n_{name}"] for name in ("passed", "failed", "errors", "skipped")}
    assert counts == {"passed": 2, "failed": 1, "errors": 1, "skipped": 2}
    assert (found["n_deselected"], found["exit_status"], found["clean"]) == (1, 1, True)
    assert [
        (m["kind"], m["n_passed"], m["n_failed"], m["n_skipped"]) for m in found["malformed"]
    ] == [
        ("csv", 2, 0, 1),
        ("png", 0, 1, 0),
    ]
    assert found["junit_sha256"] is not None


def test_a_run_of_part_of_the_tests_leaves_nothing(tmp_path):
    assert run_tests(tmp_path, "-k", "refused") == 0
    assert run_tests(tmp_path, selection="malformed and not slow") == 1

    assert not (tmp_path / "left").exists()


def test_the_result_of_a_commit_is_found_and_that_of_its_changed_tree_only_without_one(tmp_path):
    changed, own = report(clean=False, n_failed=3), report()
    warned: list[str] = []

    assert find_suite_report(COMMIT, tmp_path, warned.append) is None
    write_suite_report(changed, tmp_path)
    assert find_suite_report(COMMIT, tmp_path, warned.append) == changed
    write_suite_report(own, tmp_path)
    write_suite_report(changed, tmp_path)
    assert find_suite_report(COMMIT, tmp_path, warned.append) == own
    assert find_suite_report("2" * 40, tmp_path, warned.append) is None
    assert find_suite_report(None, tmp_path, warned.append) is None
    assert warned == []


@pytest.mark.malformed("config")
@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 9999])
def test_a_result_that_cannot_be_read_is_told_and_not_taken(tmp_path, data):
    warned: list[str] = []
    (tmp_path / f"{COMMIT}.json").write_bytes(data)

    assert find_suite_report(COMMIT, tmp_path, warned.append) is None
    assert len(warned) == 1
    assert "not a readable result of the tests" in warned[0]
