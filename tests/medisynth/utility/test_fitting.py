"""Classifiers of all arms from views of images."""

import numpy as np
import pytest

from governance.records.utility import ADDED, REAL
from medisynth.data.reading.views import ImageView
from medisynth.utility.fitting import DRAWN, GUESSED, FittedClassifiers, fit_classifiers


class Small:
    """Features of a few pixels, so that no network is needed."""

    name, weights_sha256 = "small", "0" * 64

    def __call__(self, pixels):
        return pixels[:, ::4, ::4].reshape(len(pixels), -1).astype(np.float32)


def images(n, seed):
    """Images whose left or right half is bright, as their plane says."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 120, (n, 16, 16)).astype(np.uint8)
    for k in range(n):
        pixels[k, :, :8] += np.uint8(80 if k % 2 else 0)
        pixels[k, :, 8:] += np.uint8(0 if k % 2 else 80)
    return pixels


def view(partition, n, seed, *, planes=("x", "y"), machines=("", "")):
    names = tuple(f"{partition}{k}" for k in range(n))
    patients = tuple(f"{partition}-{k // 2}" for k in range(n))
    by_turn = [tuple(labels[k % 2] for k in range(n)) for labels in (planes, machines)]
    return ImageView(partition, images(n, seed), names, patients, *by_turn)


def fitted(training, tuning, drawn=None, synthetic=None):
    return fit_classifiers(
        training,
        tuning,
        drawn or {},
        images(40, 9) if synthetic is None else synthetic,
        Small(),
        most_images=200,
        seed=0,
        progress=lambda *_: None,
    )


@pytest.fixture(scope="module")
def whole():
    drawn = {("brain_plane", "y"): images(60, 3)[1::2], ("brain_plane", "x"): images(60, 4)[::2]}
    return fitted(view("training", 60, 1), view("tuning", 40, 2), drawn)


def test_every_arm_is_fitted_with_labels_that_images_were_drawn_for(whole):
    assert whole.attribute == "brain_plane"
    assert whole.labels_from == DRAWN
    assert next(iter(whole.arms)) == REAL
    assert len(whole.arms) == 7
    assert whole.arms[ADDED][1:] == (60, 60)
    assert whole.n_training_patients == 30


def test_they_leave_the_process_and_come_back_as_they_were(whole):
    again = FittedClassifiers.from_bytes(whole.to_bytes())

    assert list(again.arms) == list(whole.arms)
    assert list(again.curve) == list(whole.curve)
    for arm, (classifier, *counts) in whole.arms.items():
        assert np.array_equal(again.arms[arm][0].weights, classifier.weights)
        assert list(again.arms[arm][1:]) == counts
    assert again.to_bytes() == whole.to_bytes()


def test_the_same_seed_gives_the_same_classifiers(whole):
    drawn = {("brain_plane", "y"): images(60, 3)[1::2], ("brain_plane", "x"): images(60, 4)[::2]}
    again = fitted(view("training", 60, 1), view("tuning", 40, 2), drawn)

    assert all(
        np.array_equal(again.arms[arm][0].weights, classifier.weights)
        for arm, (classifier, *_) in whole.arms.items()
    )


def test_without_draws_of_a_level_the_real_classifier_gives_labels_and_it_is_said():
    found = fitted(view("training", 60, 1), view("tuning", 40, 2))

    assert found.labels_from == GUESSED
    assert ADDED in found.arms


def test_where_no_plane_is_recorded_machines_are_told_apart():
    names = {"planes": ("", ""), "machines": ("E6", "S10")}
    found = fitted(view("training", 60, 1, **names), view("tuning", 40, 2, **names))

    assert found.attribute == "machine"


def test_nothing_to_tell_apart_and_too_few_patients_are_reasons():
    names = {"planes": ("x", "x"), "machines": ("", "")}
    one = fitted(view("training", 60, 1, **names), view("tuning", 40, 2, **names))
    few = fitted(view("training", 12, 1), view("tuning", 40, 2))

    assert "brain plane: a classifier needs two levels" in one.reason
    assert not one.arms
    assert "6 training patients; at least 10 are needed" in few.reason
