import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError
from medisynth.metrics.gram import grams
from medisynth.metrics.kernel import kernel_distance, kernel_distances_from_grams


def test_two_images_a_set_give_the_value_worked_out_by_hand():
    real = np.array([[1.0], [2.0]])
    synthetic = np.array([[0.0], [3.0]])

    # d = 1: k(1,2) = 27; k(0,3) = 1; cross: 1, 64, 1, 343 -> mean 102.25
    assert kernel_distance(real, synthetic) == pytest.approx(27 + 1 - 2 * 102.25)


def test_the_value_is_the_plain_double_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.normal(size=(9, 4)) + 0.5

    def k(a, b):
        return (a @ b / 4 + 1) ** 3

    within_x = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * between)


def test_it_is_unbiased_at_few_images():
    rng = np.random.default_rng(1)
    values = [
        kernel_distance(rng.normal(size=(10, 16)), rng.normal(size=(10, 16))) for _ in range(2000)
    ]

    standard_error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * standard_error
    assert min(values) < 0


def test_resampling_alone_does_not_raise_it():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 16)), rng.normal(size=(40, 16)) + 0.3
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=(2, 2000)).astype(float)

    resampled = kernel_distances_from_grams(grams(x, y), counts[0], counts[1])

    value = kernel_distance(x, y)
    assert resampled.mean() == pytest.approx(value, abs=0.2 * resampled.std())


def test_a_resample_of_one_distinct_image_has_no_value():
    rng = np.random.default_rng(3)
    g = grams(rng.normal(size=(3, 2)), rng.normal(size=(3, 2)))

    found = kernel_distances_from_grams(g, np.array([[3.0, 0, 0]]), np.ones((1, 3)))

    assert np.isnan(found).all()


def test_one_image_is_refused():
    with pytest.raises(MetricUndefinedError, match="need 2 images"):
        kernel_distance(np.zeros((1, 2)), np.zeros((4, 2)))
