"""Variety: one picture many times is one, and pairs are as alike as a known implementation says."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from governance.records.errors import MetricUndefinedError
from medisynth.metrics.diversity import diversity, ms_ssim_of_pairs, vendi_score


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 24, 40), dtype=np.uint8)


@pytest.mark.parametrize(
    ("features", "n"),
    [(np.ones((5, 3)), 1), (np.eye(4), 4), (np.repeat(np.eye(3), 2, axis=0), 3)],
)
def test_the_vendi_score_counts_different_images(features, n):
    assert vendi_score(features) == pytest.approx(n)


def test_equal_images_are_wholly_alike_and_noise_is_not(pixels):
    assert ms_ssim_of_pairs(np.repeat(pixels[:1], 4, axis=0), 0) == pytest.approx(1)
    assert ms_ssim_of_pairs(pixels, 0).mean() < 0.3


def test_one_scale_is_the_structural_similarity_of_scikit_image():
    rng = np.random.default_rng(1)
    one = rng.integers(0, 256, (20, 20)).astype(np.uint8)  # halved it is too small for a window
    other = np.clip(one + rng.normal(0, 20, one.shape), 0, 255).astype(np.uint8)
    expected = structural_similarity(
        one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )

    assert ms_ssim_of_pairs(np.stack([one, other]), 0)[0] == pytest.approx(expected, abs=0.02)


def test_collapse_shows_in_both_figures(pixels):
    rng = np.random.default_rng(2)
    alike = np.clip(pixels[:1] + rng.normal(0, 2, (8, 24, 40)), 0, 255).astype(np.uint8)
    spread, near = rng.normal(size=(8, 16)), 5 + rng.normal(0, 0.1, size=(8, 16))

    found = diversity(near, spread, alike, pixels, seed=0)

    assert found.vendi < 1.1 < 4 < found.vendi_real
    assert found.ms_ssim > 0.9 > 0.3 > found.ms_ssim_real
    assert (found.n_images, found.n_pairs) == (8, 28)


def test_what_has_no_variety_is_undefined(pixels):
    with pytest.raises(MetricUndefinedError):
        ms_ssim_of_pairs(pixels[:1], 0)
    with pytest.raises(MetricUndefinedError):
        ms_ssim_of_pairs(pixels[:, :8], 0)
    with pytest.raises(MetricUndefinedError):
        vendi_score(np.zeros((0, 3)))
