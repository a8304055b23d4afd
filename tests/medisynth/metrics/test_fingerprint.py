"""A fingerprint counts every image once, and two of them are as far apart as their histograms."""

import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError
from medisynth.metrics.features import RecordedExtractor
from medisynth.metrics.fingerprint import (
    N_BINS,
    feature_fingerprint,
    histogram_distance,
    image_fingerprint,
)

EXTRACTOR = RecordedExtractor("pool3", "0" * 64, 3, "")


def flat(*greys: int) -> np.ndarray:
    return np.stack([np.full((8, 8), grey, np.uint8) for grey in greys])


def test_statistics_of_flat_images_are_their_grey_levels():
    mean, std, black, sharpness = image_fingerprint(flat(0, 10, 20, 250))

    assert (mean.mean, mean.sd) == (70.0, pytest.approx(120.277, abs=1e-3))
    assert (std.mean, std.sd, sharpness.mean) == (0.0, 0.0, 0.0)
    assert black.mean == 0.25
    # Bins are 8 grey levels wide: 0 in the first, 10 in the second, 20 in the third, 250 in the last.
    assert [k for k, n in enumerate(mean.counts) if n] == [0, 1, 2, N_BINS - 1]


def test_every_image_is_in_one_bin_of_each_histogram_even_beyond_its_ends():
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16), dtype=np.uint8)
    stripes = np.tile(np.array([0, 255], np.uint8), (3, 16, 8))  # contrast at the upper end

    for one in image_fingerprint(np.concatenate([noise, stripes])):
        assert sum(one.counts) == 23
        assert len(one.counts) == N_BINS


def test_one_image_has_no_spread_and_none_has_no_fingerprint():
    assert {one.sd for one in image_fingerprint(flat(7))} == {0.0}
    with pytest.raises(MetricUndefinedError, match="at least one image"):
        image_fingerprint(flat(1)[:0])


def test_features_are_summed_up_by_mean_spread_and_variances():
    features = np.array([[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [4.0, 0.0, 5.0]])
    found = feature_fingerprint(features, EXTRACTOR)

    assert found.mean == (2.0, 0.0, 5.0)
    assert found.sd == (2.0, 0.0, 0.0)
    assert found.total_variance == pytest.approx(4.0)
    assert found.leading_variances == (pytest.approx(4.0), pytest.approx(0.0, abs=1e-12))
    assert found.n_images == 3
    assert (found.extractor, found.extractor_sha256) == ("pool3", "0" * 64)


def test_the_variances_are_those_of_the_covariance():
    features = np.random.default_rng(1).normal(size=(12, 5))
    covariance = np.cov(features, rowvar=False)

    found = feature_fingerprint(features, EXTRACTOR)

    assert found.total_variance == pytest.approx(np.trace(covariance))
    expected = np.linalg.eigvalsh(covariance)[::-1]
    assert found.leading_variances[:5] == pytest.approx(tuple(expected), rel=1e-5)


@pytest.mark.parametrize("features", [np.zeros((1, 4)), np.full((3, 4), np.nan)])
def test_features_without_a_spread_are_refused(features):
    with pytest.raises(MetricUndefinedError, match="finite features of 2 images"):
        feature_fingerprint(features, EXTRACTOR)


def test_the_distance_is_the_largest_gap_between_cumulative_shares():
    assert histogram_distance((5, 5, 0), (10, 10, 0)) == 0
    assert histogram_distance((4, 0), (0, 9)) == 1
    assert histogram_distance((1, 1, 2), (2, 1, 1)) == 0.25


@pytest.mark.parametrize(("before", "after"), [((1, 2), (1, 2, 3)), ((0, 0), (1, 2)), ((1,), (0,))])
def test_histograms_that_do_not_fit_have_no_distance(before, after):
    with pytest.raises(MetricUndefinedError, match="same bins"):
        histogram_distance(before, after)
