import time

import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError
from medisynth.metrics.frechet import frechet_distance, frechet_from_grams
from medisynth.metrics.gram import grams
from medisynth.metrics.torchvision_guard import import_torchvision


def _features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    scale = 1 / np.sqrt(np.arange(1, d + 1))
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def test_equal_sets_have_distance_zero_by_either_way():
    few, many = _features(20, 50, 0), _features(200, 5, 0)

    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(many, many) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(("n", "d"), [(12, 40), (60, 6)])
def test_a_shifted_set_is_away_by_the_squared_length_of_the_shift(n, d):
    real = _features(n, d, 1)
    shift = np.arange(d) / 10

    assert frechet_distance(real, real + shift) == pytest.approx(shift @ shift, rel=1e-6)


def test_one_feature_gives_the_textbook_formula():
    real = np.array([[0.0], [2.0], [4.0]])  # mean 2, variance 4
    synthetic = np.array([[10.0], [11.0], [12.0]])  # mean 11, variance 1

    # (2 - 11)^2 + (2 - 1)^2
    assert frechet_distance(real, synthetic) == pytest.approx(82)


def test_a_set_scaled_by_two_is_away_by_its_total_variance():
    real = _features(300, 8, 2)
    real -= real.mean(axis=0)

    expected = np.cov(real, rowvar=False).trace()  # tr(C) + tr(4C) - 2 tr(2C)
    assert frechet_distance(real, 2 * real) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # pytorch-fid's call
@pytest.mark.parametrize(("n", "m", "d"), [(30, 25, 64), (64, 200, 64), (150, 200, 24)])
def test_values_are_those_of_pytorch_fid(n, m, d):
    import_torchvision()
    from pytorch_fid.fid_score import calculate_frechet_distance

    real, synthetic = _features(n, d, 3), _features(m, d, 4, shift=0.2)

    theirs = calculate_frechet_distance(
        real.mean(axis=0),
        np.cov(real, rowvar=False),
        synthetic.mean(axis=0),
        np.cov(synthetic, rowvar=False),
    )
    assert frechet_distance(real, synthetic) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_counts_give_what_a_set_with_repeated_images_gives(exact):
    real, synthetic = _features(15, 40, 5), _features(12, 40, 6, shift=0.1)
    rng = np.random.default_rng(7)
    drawn_r, drawn_s = rng.integers(0, 15, 15), rng.integers(0, 12, 12)
    counts_r = np.bincount(drawn_r, minlength=15).astype(float)
    counts_s = np.bincount(drawn_s, minlength=12).astype(float)

    by_counts = frechet_from_grams(grams(real, synthetic), counts_r, counts_s, exact=exact)

    repeated = frechet_distance(real[drawn_r], synthetic[drawn_s])
    assert by_counts == pytest.approx(repeated, rel=1e-6)


def test_few_images_and_many_features_take_well_under_a_second():
    real, synthetic = _features(200, 2048, 8), _features(200, 2048, 9)
    start = time.process_time()
    frechet_distance(real, synthetic)

    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("real", "synthetic"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3))),
        (np.zeros((5, 3)), np.zeros((5, 4))),
        (np.full((5, 3), np.nan), np.zeros((5, 3))),
    ],
)
def test_sets_without_a_distance_are_refused(real, synthetic):
    with pytest.raises(MetricUndefinedError):
        frechet_distance(real, synthetic)


def test_a_resample_of_one_image_is_refused():
    g = grams(_features(4, 3, 0), _features(4, 3, 1))

    with pytest.raises(MetricUndefinedError, match="need 2 images"):
        frechet_from_grams(g, np.array([1.0, 0, 0, 0]), np.ones(4))
