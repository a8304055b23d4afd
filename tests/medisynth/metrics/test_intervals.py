import numpy as np
import pytest
from scipy.stats import binomtest

from governance.records.errors import MetricUndefinedError
from medisynth.intervals import (
    image_counts,
    most_unseen,
    patient_bootstrap,
    patient_counts,
    percentile_interval,
    share_interval,
    wilson_interval,
)


def test_images_of_one_patient_are_drawn_together():
    counts = patient_counts(["a", "b", "a", "c", "b"], 100, np.random.default_rng(0))

    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_every_resample_of_images_has_as_many_images():
    assert (image_counts(7, 50, np.random.default_rng(0)).sum(axis=1) == 7).all()


def _mean_of_real(values):
    return lambda real, _synthetic: real @ values / real.sum(axis=1)


def test_images_of_few_patients_give_a_wider_interval_than_as_many_patients():
    rng = np.random.default_rng(0)
    patients = [str(index // 10) for index in range(200)]
    values = np.repeat(rng.normal(size=20), 10)

    def width(people):
        low, high = patient_bootstrap(
            _mean_of_real(values), values.mean(), people, 5, n_resamples=500, seed=1
        )
        return high - low

    assert width(patients) > 2 * width([str(index) for index in range(200)])


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(3).normal(size=400)
    people = [str(index) for index in range(400)]

    low, high = patient_bootstrap(
        _mean_of_real(values), values.mean(), people, 5, n_resamples=4000, seed=2
    )

    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(30.0)
    people = [str(index) for index in range(30)]
    first, second = (
        patient_bootstrap(_mean_of_real(values), 14.5, people, 5, n_resamples=100, seed=9)
        for _ in range(2)
    )

    assert first == second


def test_the_bias_of_resampling_is_taken_off():
    resampled = np.linspace(120, 140, 101)  # spread of 20 about 130

    assert percentile_interval(100.0, resampled) == pytest.approx((90.5, 109.5))


def test_too_few_finite_resamples_give_no_interval():
    assert percentile_interval(1.0, np.array([1.0] * 39 + [np.nan] * 100)) is None


def test_wilson_interval_equals_published_values():
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_interval_of_all_reaches_one_and_of_none_zero():
    assert wilson_interval(5, 5)[1] == 1
    assert wilson_interval(0, 5)[0] == 0


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_shares_are_refused(k, n):
    with pytest.raises(MetricUndefinedError):
        wilson_interval(k, n)


def test_plain_means_keep_plain_percentiles():
    assert percentile_interval(0.1, np.linspace(0, 1, 101), centred=False) == pytest.approx(
        (0.025, 0.975)
    )


def _marks(n_hits, n):
    return np.array([1.0] * n_hits + [0.0] * (n - n_hits))


@pytest.mark.parametrize(("n_hits", "n"), [(1, 20), (7, 50), (49, 50)])
def test_a_share_of_independent_images_has_the_interval_of_clopper_and_pearson(n_hits, n):
    exact = binomtest(n_hits, n).proportion_ci(0.95, method="exact")

    found, method = share_interval(_marks(n_hits, n), [str(i) for i in range(n)])

    assert found == pytest.approx((exact.low, exact.high))
    assert method == f"exact (Clopper-Pearson), n = {n}"


@pytest.mark.parametrize(("n_hits", "ends"), [(0, (0.0, 0.1391)), (20, (0.8609, 1.0))])
def test_no_share_is_exactly_none_or_all(n_hits, ends):
    found, method = share_interval(_marks(n_hits, 20), [str(i) for i in range(20)])

    assert found == pytest.approx(ends, abs=5e-5)
    assert method.startswith("one-sided 95 % bound by the rule of three")


def test_a_bound_counts_patients_and_not_their_images():
    found, method = share_interval(_marks(0, 200), [str(i // 10) for i in range(200)])

    assert found == (0.0, most_unseen(20))
    assert method.endswith("n = 20")


def test_images_of_one_patient_that_agree_count_about_as_one():
    patients = [str(i // 10) for i in range(400)]
    agreeing = np.repeat(np.random.default_rng(0).random(40) < 0.4, 10).astype(float)
    mixed = np.tile([1.0, 1, 1, 1, 0, 0, 0, 0, 0, 0], 40)

    (low, high), method = share_interval(agreeing, patients)
    exact = binomtest(int(agreeing.sum()) // 10, 40).proportion_ci(0.95, method="exact")

    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.02)
    assert "Korn-Graubard" in method
    assert np.ptp(share_interval(mixed, patients)[0]) < (high - low) / 2


def test_the_interval_of_a_clustered_share_holds_the_truth_in_19_of_20_samples():
    rng, covered = np.random.default_rng(4), 0
    patients = [str(i // 5) for i in range(150)]
    for _ in range(300):
        marks = (rng.random(150) < np.repeat(rng.beta(1, 9, 30), 5)).astype(float)
        low, high = share_interval(marks, patients)[0]
        covered += low <= 0.1 <= high

    assert covered >= 0.93 * 300


def test_resamples_that_are_all_equal_give_no_interval():
    assert percentile_interval(0.3, np.full(100, 0.3)) is None


def test_the_rule_of_three():
    assert most_unseen(100) == pytest.approx(3 / 100, rel=0.02)
    with pytest.raises(MetricUndefinedError):
        most_unseen(0)
