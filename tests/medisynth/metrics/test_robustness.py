"""Losses when the reference is altered: none for real images, one for images of one setting."""

import numpy as np
import pytest

from medisynth.metrics.robustness import ALTERATIONS, altered, robustness_losses

D = 8


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(40, 200, (3, 24, 32), dtype=np.uint8)


@pytest.mark.parametrize("name", ALTERATIONS)
def test_every_alteration_changes_every_image_and_repeats(name, frames):
    first, again = altered(name, frames, 3), altered(name, frames, 3)

    assert (first.shape, first.dtype) == (frames.shape, np.uint8)
    assert (first == again).all()
    assert (first != frames).any(axis=(1, 2)).all()


def _features(n, seed, shift=0.0):
    features = np.random.default_rng(seed).normal(size=(n, D))
    features[:, 0] += shift
    return features


def _losses(synthetic, n_patients=60):
    people = [f"p{k % n_patients}" for k in range(60)]
    return robustness_losses(
        _features(60, 1),
        people,
        {"gain": _features(60, 1, shift=2.0)},
        synthetic,
        _features(60, 2),
        people,
        n_bootstrap=100,
        seed=0,
    )


def test_images_of_the_real_distribution_lose_no_more_than_real_ones():
    (loss,) = _losses(_features(60, 3))

    assert loss.alteration == "gain"
    assert loss.ci95[0] < 0 < loss.ci95[1]


def test_images_that_lie_away_from_the_altered_ones_lose_more():
    (loss,) = _losses(_features(60, 3, shift=-2.0))

    assert loss.ci95[0] > 0.1


def test_few_patients_give_no_result():
    assert _losses(_features(60, 3), n_patients=9) == ()
