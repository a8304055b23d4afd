"""Classifiers of real and other images, judged on the same real patients."""

import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError
from governance.records.utility import ADDED, AUROC, MACRO_F1, REAL
from medisynth.utility.classification import (
    LabelledFeatures,
    fit,
    fit_arms,
    fit_curve,
    judge_arms,
    judge_curve,
    levels_to_tell_apart,
)

LEVELS = ("a", "b", "c")


def drawn(n, seed, *, spread=1.0, levels=LEVELS, patients="p"):
    """Points about one corner for each level, two a patient."""
    random = np.random.default_rng(seed)
    labels = tuple(levels[k % len(levels)] for k in range(n))
    centres = 2.0 * np.eye(len(LEVELS), 8)[[LEVELS.index(label) for label in labels]]
    features = (centres + spread * random.standard_normal((n, 8))).astype(np.float32)
    return LabelledFeatures(features, labels, tuple(f"{patients}{k // 2}" for k in range(n)))


def judged(fitted, test, **groups):
    return judge_arms(fitted, test, groups, least_patients=10, n_resamples=200, seed=0)


@pytest.fixture(scope="module")
def sets():
    return {"training": drawn(90, 1), "tuning": drawn(60, 2), "test": drawn(120, 3)}


def arms(sets, **others):
    return {
        arm.name: arm
        for arm in judged(fit_arms(sets["training"], sets["tuning"], others, LEVELS), sets["test"])
    }


def test_levels_that_can_be_learned_are_told_apart_well_above_chance(sets):
    real = arms(sets)[REAL]

    assert real.measure(MACRO_F1).value > 0.7
    assert real.measure(AUROC).value > 0.85
    low, high = real.measure(MACRO_F1).ci95
    assert low < real.measure(MACRO_F1).value < high
    assert real.measure(MACRO_F1).difference is None


def test_labels_that_are_swapped_make_it_worse(sets):
    training = sets["training"]
    turned = tuple(LEVELS[(LEVELS.index(label) + 1) % 3] for label in training.labels)
    swapped = LabelledFeatures(training.features, turned, training.patients)

    harmed = arms(sets, synthetic=swapped)

    assert harmed["synthetic"].measure(MACRO_F1).value < 0.2
    gain = harmed[ADDED].measure(MACRO_F1)
    assert gain.difference < 0
    assert gain.difference_ci95[1] < 0


def test_plain_copies_of_all_training_images_add_exactly_nothing(sets):
    found = arms(sets, copycat=sets["training"])["real + copycat"]

    assert found.measure(MACRO_F1).difference == 0
    assert found.measure(MACRO_F1).difference_ci95 is None  # it does not vary
    assert (found.n_real, found.n_other) == (90, 90)


def test_more_images_of_the_truth_help_where_real_ones_are_few():
    few = {"training": drawn(15, 1), "tuning": drawn(60, 2), "test": drawn(600, 3)}
    gain = arms(few, synthetic=drawn(300, 5))[ADDED].measure(MACRO_F1)

    assert gain.difference > 0
    assert gain.difference_ci95[0] > 0


def test_an_arm_that_lacks_a_level_is_left_out(sets):
    found = arms(sets, synthetic=drawn(20, 7, levels=("a", "b")))

    assert "synthetic" not in found
    assert ADDED in found


def test_macro_f1_and_auroc_are_those_of_scikit_learn(sets):
    from sklearn.metrics import f1_score, roc_auc_score

    training = LabelledFeatures(
        sets["training"].features[:, :3], sets["training"].labels, sets["training"].patients
    )
    two = [label != "c" for label in sets["test"].labels]
    test = sets["test"].rows(two)
    test = LabelledFeatures(test.features[:, :3], test.labels, test.patients)
    tuning = sets["tuning"].rows([label != "c" for label in sets["tuning"].labels])
    tuning = LabelledFeatures(tuning.features[:, :3], tuning.labels, tuning.patients)
    pair = training.rows([label != "c" for label in training.labels])
    classifier = fit(pair, tuning, ("a", "b"))
    (real,) = judged({REAL: (classifier, len(pair), 0)}, test)

    scores = classifier.scores(test.features)
    chosen = [("a", "b")[k] for k in scores.argmax(axis=1)]
    assert real.measure(MACRO_F1).value == pytest.approx(
        f1_score(test.labels, chosen, average="macro")
    )
    wanted = [label == "b" for label in test.labels]
    assert real.measure(AUROC).value == pytest.approx(
        roc_auc_score(wanted, scores[:, 1] - scores[:, 0])
    )


def test_a_learning_curve_rises_and_synthetic_images_lift_its_left_end(sets):
    fitted = fit_curve(sets["training"], sets["tuning"], drawn(300, 5), LEVELS, seed=0)
    points = {(p.share, p.arm): p for p in judge_curve(fitted, sets["test"])}

    assert points[0.1, REAL].n_patients == 4
    assert points[0.1, REAL].value < points[0.5, REAL].value
    assert points[0.1, ADDED].value > points[0.1, REAL].value
    assert len(points[0.5, REAL].values) == 3


def test_subgroups_with_enough_patients_are_measured(sets):
    machines = ["E6" if k < 104 else "S10" for k in range(120)]
    fitted = fit_arms(sets["training"], sets["tuning"], {}, LEVELS)
    (real,) = judged(fitted, sets["test"], machine=machines)

    ((name, patients, value),) = real.subgroups  # the other has too few
    assert (name, patients) == ("machine=E6", 52)
    assert 0.5 < value <= 1


@pytest.mark.parametrize(
    ("training", "tuning", "said"),
    [
        (["a"] * 9, ["a"] * 9, "found a"),
        ([""] * 9, [""] * 9, "found none"),
        (["a"] * 9 + ["b"] * 4, ["a", "b"], "5 training images each"),
        (["a"] * 9 + ["b"] * 9, ["a", "a"], "that the tuning view has too"),
    ],
)
def test_fewer_than_two_levels_are_nothing_to_tell_apart(training, tuning, said):
    with pytest.raises(MetricUndefinedError, match=said):
        levels_to_tell_apart(training, tuning)


def test_too_few_held_out_patients_are_said(sets):
    fitted = fit_arms(sets["training"], sets["tuning"], {}, LEVELS)
    with pytest.raises(MetricUndefinedError, match="9 held-out patients"):
        judged(fitted, drawn(18, 3))


def test_a_level_that_no_held_out_image_shows_is_named(sets):
    fitted = fit_arms(sets["training"], sets["tuning"], {}, LEVELS)
    with pytest.raises(MetricUndefinedError, match="no held-out image shows c"):
        judged(fitted, drawn(60, 3, levels=("a", "b")))
