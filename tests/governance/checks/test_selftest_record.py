"""Item P4-12 from the record of a self-test, and what the report says of it."""

from datetime import UTC, datetime

import pytest

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS
from governance.evidence.folder import RunFolder
from governance.policy.load import load_policy
from governance.records.base import ItemStatus
from governance.records.selftest import GuardAnswer, NotPlanted, PlantTrial, SelftestRecord
from governance.reports.audit_report import write_html
from governance.reports.evidence import load_evidence
from tests.stored_run.stored import showing, write_run

CAUGHT = GuardAnswer(
    guard="L000",
    status="stopped",
    is_alarm=True,
    exit_code=4,
    sentence="patient 5 is on both sides",
)
SILENT = GuardAnswer(
    guard="L000", status="did not stop it", is_alarm=False, exit_code=None, sentence=""
)


def trial(about, *, answers=(CAUGHT,), control=(SILENT,), fault=""):
    return PlantTrial(
        name=f"{about} plant",
        about=about,
        planted=f"a leak about {about}",
        expected=("L000",),
        failure_exit_code=4,
        answers=answers,
        control=control,
        is_caught=any(answer.is_alarm for answer in answers),
        is_control_clean=not any(answer.is_alarm for answer in control),
        duration_s=1.25,
        fault=fault,
    )


def record(*trials):
    return SelftestRecord(
        scope="quick",
        started_utc=datetime(2026, 1, 1, tzinfo=UTC),
        trials=trials,
        not_planted=(NotPlanted(name="x", planted="a loss", reason="needs training"),),
        duration_s=4.5,
    )


ALL = (trial("patient"), trial("duplicate"), trial("early read"))


@pytest.mark.parametrize(
    ("trials", "status", "words"),
    [
        (ALL, ItemStatus.PASSED, "all 3 planted faults caught"),
        (
            (trial("patient", answers=(SILENT,)), *ALL[1:]),
            ItemStatus.FAILED,
            "patient plant was not caught by L000",
        ),
        (
            (trial("patient", control=(CAUGHT,)), *ALL[1:]),
            ItemStatus.FAILED,
            "patient plant: L000 did not let clean data pass",
        ),
        (ALL[:2], ItemStatus.NOT_EVALUATED, "no leak of this kind was planted: early read"),
        (
            (trial("patient", answers=(), fault="disk full"), *ALL[1:]),
            ItemStatus.NOT_EVALUATED,
            "no leak of this kind was planted: patient, patient plant: disk full",
        ),
    ],
)
def test_p4_12_counts_what_was_not_proven(trials, status, words):
    criterion = load_policy().item("P4-12").criterion

    result = CHECKS["P4-12"].function(JudgedRun(RunFolder.of(record(*trials))), criterion)

    assert result.status is status
    assert words in result.reason


def test_a_run_without_the_record_is_not_evaluated():
    result = CHECKS["P4-12"].function(
        JudgedRun(RunFolder.of()), load_policy().item("P4-12").criterion
    )

    assert result.status is ItemStatus.NOT_EVALUATED
    assert result.reason == "the guards were not tried in this run"


def page(evidence):
    return write_html(evidence).decode()


def test_the_report_shows_what_was_planted_what_caught_it_and_what_was_left_out(tmp_path):
    evidence = load_evidence(write_run(tmp_path))
    missed = trial("duplicate", answers=(SILENT,))

    html = page(showing(evidence, record(ALL[0], missed)))

    assert "Has a guard ever caught anything?" in html
    assert "A leak about patient" in html
    assert "The run stops with error L000, exit code 4" in html
    assert "patient 5 is on both sides" in html
    assert "NOT caught" in html
    assert "no alarm of L000" in html
    assert "Needs training: a loss." in html
    assert "medisynth-gov selftest" in html


def test_the_report_of_a_run_without_a_self_test_says_so(tmp_path):
    html = page(load_evidence(write_run(tmp_path)))

    assert "The guards were not tried on planted faults in this run." in html
