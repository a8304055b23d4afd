"""What is said of a generator beside simple controls."""

import pytest

from governance.records.comparison import (
    Control,
    TuningComparison,
    control_verdicts,
    misbehaving,
    to_beat,
)
from governance.records.policy import ControlOrder
from tests.governance.checks.faults import comparison


@pytest.mark.parametrize(
    ("value", "controls", "sentence"),
    [
        (
            0.364,
            {"pca": 0.229, "blur": 0.300},
            "The images are no better than simple controls on the tuning images: "
            "KID 0.364, pca 0.229, blur 0.300.",
        ),
        (
            0.300,
            {"pca": 0.229, "blur": 0.352},
            "The images are no better than the simple control pca on the tuning images: "
            "KID 0.300, pca 0.229, blur 0.352.",
        ),
        (
            0.210,
            {"pca": 0.229, "blur": 0.352},
            "The images are better than simple controls on the tuning images: "
            "KID 0.210, pca 0.229 (intervals overlap), blur 0.352.",
        ),
    ],
)
def test_one_sentence_says_which_controls_are_beaten(value, controls, sentence):
    assert comparison(value, **controls).sentence == sentence


def test_a_control_as_close_as_the_generator_is_not_beaten():
    assert comparison(0.2, pca=0.2, blur=0.3).not_beaten == ("pca",)


def test_without_a_comparison_nothing_is_said():
    found = TuningComparison(reason="no FID weights")

    assert found.sentence == ""
    assert found.not_beaten == ()


WORSE = ControlOrder(control="blur", metrics=("kid", "recall"), must_be="worse", than="copycat")
NO_BETTER = ControlOrder(control="pca", metrics=("recall",), must_be="no better", than="copycat")
FLAGGED = ControlOrder(control="copycat", metrics=("memorisation",), must_be="at least", than=0.99)
OF_GENERATOR = ControlOrder(control="pca", metrics=("kid",), must_be="worse", than="generator")


def control(name, metric, value, ci95=None):
    return Control(name=name, metric_id=f"{metric}-x", value=value, ci95=ci95, meaning="")


@pytest.mark.parametrize(
    ("order", "metric", "here", "other", "holds"),
    [
        (WORSE, "kid", (0.3, (0.2, 0.4)), (0.1, (0.05, 0.15)), True),
        (WORSE, "kid", (0.3, (0.1, 0.4)), (0.1, (0.05, 0.15)), False),  # not apart
        (WORSE, "kid", (0.1, (0.05, 0.15)), (0.3, (0.2, 0.4)), False),
        (WORSE, "kid", (0.3, None), (0.1, (0.05, 0.15)), None),
        (WORSE, "kid", (0.1, None), (0.3, None), False),
        (WORSE, "recall", (0.1, (0.0, 0.2)), (0.8, (0.7, 0.9)), True),
        (WORSE, "recall", (0.8, (0.7, 0.9)), (0.1, (0.0, 0.2)), False),
        (NO_BETTER, "recall", (0.9, (0.8, 1.0)), (0.8, (0.7, 0.9)), True),  # better, not apart
        (NO_BETTER, "recall", (0.9, (0.8, 1.0)), (0.4, (0.3, 0.5)), False),
        (NO_BETTER, "recall", (0.9, None), (0.4, None), None),
    ],
)
def test_a_control_stands_in_its_order_or_not(order, metric, here, other, holds):
    controls = (control(order.control, metric, *here), control("copycat", metric, *other))

    (verdict,) = control_verdicts(controls, (order,))

    assert (verdict.metric, verdict.holds) == (metric, holds)
    assert bool(misbehaving(metric, (verdict,))) == (holds is False)


@pytest.mark.parametrize(("value", "holds"), [(1.0, True), (0.99, True), (0.98, False)])
def test_copies_must_be_flagged_nearly_all(value, holds):
    (verdict,) = control_verdicts((control("copycat", "memorisation", value),), (FLAGGED,))

    assert verdict.holds is holds


def test_a_ratio_of_frechet_distances_misbehaves_with_them():
    order = ControlOrder(control="black", metrics=("fid",), must_be="worse", than="copycat")
    controls = (control("black", "fid", 1.0), control("copycat", "fid", 2.0))

    assert "black 1 must be worse than copycat 2" in misbehaving(
        "fd_ratio", control_verdicts(controls, (order,))
    )


def test_controls_that_were_not_measured_give_no_verdict():
    assert control_verdicts((control("blur", "kid", 0.1),), (WORSE, OF_GENERATOR)) == ()
    assert to_beat((WORSE, OF_GENERATOR), "kid") == ("pca",)
