"""What is said of a generator beside simple controls."""

import pytest

from governance.records.comparison import TuningComparison
from tests.governance.complete_run import comparison


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
