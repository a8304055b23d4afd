import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError, SettingsError
from medisynth.metrics.controls import CONTROLS, MEANINGS, control_images, copycat_rows


@pytest.fixture
def training():
    return np.random.default_rng(0).integers(0, 256, (12, 32, 48), dtype=np.uint8)


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_has_the_asked_form_and_repeats(name, training):
    first, second = (control_images(name, training, 7, seed=3) for _ in range(2))

    assert first.shape == (7, 32, 48)
    assert first.dtype == np.uint8
    assert (first == second).all()
    assert MEANINGS[name]


def test_black_is_black(training):
    assert control_images("black", training, 3, 0).max() == 0


def test_noise_fills_the_range_and_no_two_images_are_alike(training):
    noise = control_images("noise", training, 4, 0)

    assert noise.min() == 0
    assert noise.max() == 255
    assert len(np.unique(noise.reshape(4, -1), axis=0)) == 4


def test_copycat_returns_different_training_images_while_there_are_enough(training):
    copies = control_images("copycat", training, 12, 5)

    assert {image.tobytes() for image in copies} == {image.tobytes() for image in training}


def test_copycat_begins_again_when_there_are_not_enough(training):
    assert len(control_images("copycat", training[:5], 12, 5)) == 12


def test_augmentation_changes_every_image_a_little():
    training = np.zeros((6, 40, 40), np.uint8)
    training[:, 15:25, 15:25] = 100  # a square in the middle: turns and mirrors keep it there

    changed = control_images("augmentation", training, 6, 4)

    assert len(np.unique(changed.reshape(6, -1), axis=0)) == 6
    assert (changed[:, 17:23, 17:23].mean(axis=(1, 2)) >= 80).all()
    assert (changed[:, 17:23, 17:23].mean(axis=(1, 2)) <= 120).all()
    assert changed[:, :8].max() == 0
    assert changed[:, 32:].max() == 0


def test_blur_keeps_brightness_and_loses_contrast(training):
    blurred = control_images("blur", training, 12, 1)

    assert blurred.mean() == pytest.approx(training.mean(), abs=1)
    assert blurred.std() < training.std() / 3


def test_pca_has_mean_and_covariance_of_the_training_pixels():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(2, 3, 3)) * 8
    training = np.round(128 + np.tensordot(rng.normal(size=(400, 2)), weights, 1)).astype(np.uint8)

    drawn = control_images("pca", training, 6000, 2)

    ours, theirs = (np.cov(p.reshape(len(p), -1), rowvar=False) for p in (drawn, training))
    assert np.abs(drawn.mean(axis=0) - training.mean(axis=0)).max() < 0.6
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()


def test_an_unknown_control_is_named_with_the_known_ones(training):
    with pytest.raises(SettingsError, match="'grey' is unknown; known are black"):
        control_images("grey", training, 1, 0)


def test_no_training_images_are_refused():
    with pytest.raises(MetricUndefinedError, match="needs training images"):
        control_images("copycat", np.zeros((0, 4, 4), np.uint8), 1, 0)


def test_copycat_shows_training_images_from_the_whole_set_however_it_is_ordered():
    ordered = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 4, axis=1)
    ordered = np.repeat(ordered, 4, axis=2)

    shown = control_images("copycat", ordered, 64, seed=5)

    rows = copycat_rows(len(ordered), 64, seed=5)
    assert (shown == ordered[rows]).all()  # features known already are those of these images
    assert len(set(rows)) == 64
    assert abs(rows.mean() - 99.5) < 25  # the first 64 would have a mean of 31.5
