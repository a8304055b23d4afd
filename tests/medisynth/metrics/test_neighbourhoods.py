import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError
from medisynth.metrics.coverage import neighbourhoods


def _line(*places: float) -> np.ndarray:
    return np.array(places, dtype=float)[:, None]


def test_points_on_a_line_give_the_values_read_off_by_hand():
    real = _line(0, 1, 2, 10)  # reach of the nearest other point: 1, 1, 1, 8
    synthetic = _line(0.5, 5, 30)  # reach: 4.5, 4.5, 25

    found = neighbourhoods(real, synthetic, k=1)

    assert found.precision.tolist() == [1, 1, 0]  # 5 lies within 8 of 10
    assert found.density.tolist() == [2, 1, 0]  # 0.5 lies in the balls of 0 and 1
    assert found.coverage.tolist() == [1, 1, 0, 1]
    assert found.recall.tolist() == [1, 1, 1, 1]  # 10 lies within 25 of 30


def test_values_are_those_of_a_plain_double_loop():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(30, 6)), rng.normal(0.4, 0.8, size=(25, 6))
    found = neighbourhoods(real, synthetic)

    def reach(points):
        return [sorted(np.linalg.norm(points - point, axis=1))[5] for point in points]

    def inside(points, centres, reaches):
        return np.array(
            [
                [
                    np.linalg.norm(point - centre) <= far
                    for centre, far in zip(centres, reaches, strict=True)
                ]
                for point in points
            ]
        )

    in_real = inside(synthetic, real, reach(real))
    in_synthetic = inside(real, synthetic, reach(synthetic))
    assert (found.precision == in_real.any(axis=1)).all()
    assert (found.density == in_real.sum(axis=1) / 5).all()
    assert (found.coverage == in_real.any(axis=0)).all()
    assert (found.recall == in_synthetic.any(axis=1)).all()


def test_a_copy_of_the_real_set_has_full_precision_recall_and_coverage():
    real = np.random.default_rng(1).normal(size=(40, 8))

    found = neighbourhoods(real, real.copy())

    assert found.precision.mean() == found.recall.mean() == found.coverage.mean() == 1


def test_density_of_one_distribution_is_about_one():
    rng = np.random.default_rng(2)
    found = neighbourhoods(rng.normal(size=(2000, 4)), rng.normal(size=(2000, 4)))

    assert found.density.mean() == pytest.approx(1, abs=0.05)


def test_as_many_images_as_neighbours_are_too_few():
    with pytest.raises(MetricUndefinedError, match="need 6 images a set, got 5 real"):
        neighbourhoods(np.zeros((5, 2)), np.zeros((9, 2)))
