"""P8-04: what synthetic images add for unseen real patients."""

import pytest

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS
from governance.evidence.folder import RunFolder
from governance.records.base import ItemStatus
from governance.records.evaluation import EvaluationRecord
from governance.records.policy import Criterion
from governance.records.utility import ADDED, AUROC, MACRO_F1, REAL, Arm, TaskMeasure, UtilityRecord
from tests.stored_run.stored import stored

SET = Criterion(metric="lower bound", operator=">=", value=-0.02)


def arm(name, value, difference=None, ci95=None):
    f1 = TaskMeasure(name=MACRO_F1, value=value, difference=difference, difference_ci95=ci95)
    measures = (f1, TaskMeasure(name=AUROC, value=value))
    return Arm(name=name, meaning="", n_real=90, n_other=60, penalty=1, measures=measures)


def utility(*arms, **changes):
    facts = {"task": "classification", "attribute": "brain_plane", "levels": ("a", "b")}
    return UtilityRecord(arms=arms, n_test=50, n_test_patients=25, **facts | changes)


def judged(record, criterion=SET):
    evaluated = stored()[EvaluationRecord]
    documents = (evaluated,) if record is None else (evaluated, record)
    return CHECKS["P8-04"].function(JudgedRun(RunFolder.of(*documents)), criterion)


def gained(difference, ci95, *others):
    return utility(arm(REAL, 0.6), arm(ADDED, 0.6 + difference, difference, ci95), *others)


def test_a_lower_bound_within_the_margin_passes_and_below_it_fails():
    assert judged(gained(0.02, (-0.01, 0.05))).status is ItemStatus.PASSED
    failed = judged(gained(0.02, (-0.03, 0.07)))
    assert failed.status is ItemStatus.FAILED
    assert "0.600 by real images alone, 0.620 with 60 synthetic images" in failed.reason
    assert failed.observed.n_patients == 25


def test_without_a_margin_the_gain_is_recorded():
    result = judged(gained(0.02, (-0.03, 0.07)), Criterion(metric="lower bound", operator=">="))

    assert result.status is ItemStatus.RECORDED
    assert "no limit is configured" in result.reason


def test_a_gain_without_an_interval_never_passes():
    assert judged(gained(0.02, None)).status is ItemStatus.FAILED


def test_cheap_additions_that_gain_as_much_are_named_beside_it():
    pca = arm("real + pca", 0.64, 0.04, (0.01, 0.07))
    copies = arm("real + copycat", 0.6, 0.0)
    result = judged(gained(0.02, (0.01, 0.05), pca, copies))

    assert "real + pca gains as much or more" in result.limitations
    assert "copycat" not in result.limitations


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "evaluation.utility is off"),
        (utility(reason="no level"), "no level"),
        (utility(arm(REAL, 0.6)), "are missing"),
    ],
)
def test_what_was_not_compared_is_not_evaluated_with_the_reason(record, said):
    result = judged(record)

    assert result.status is ItemStatus.NOT_EVALUATED
    assert said in result.reason
