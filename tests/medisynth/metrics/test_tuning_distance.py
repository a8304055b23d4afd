from pathlib import Path

import numpy as np
import pytest

from governance.records.comparison import MUST_BEAT
from medisynth.data.reading.views import ImageView
from medisynth.metrics.controls import control_images
from medisynth.metrics.features import InceptionPool3
from medisynth.metrics.kernel import kernel_distance
from medisynth.metrics.tuning_distance import TuningDistance, evenly

SIZE = 16


class MeansOfQuarters:
    """Features that a hand can compute: mean of each quarter of an image, over 255."""

    name, n_features, weights_sha256, resize = "quarters", 4, "a" * 64, "none"

    def extract(self, pixels, progress=None):
        half = SIZE // 2
        quarters = np.asarray(pixels, np.float64).reshape(-1, 2, half, 2, half).mean(axis=(2, 4))
        if progress is not None:
            progress(len(pixels), len(pixels))
        return quarters.reshape(-1, 4) / 255


@pytest.fixture(autouse=True)
def extractor(monkeypatch):
    monkeypatch.setattr(InceptionPool3, "load", lambda *args, **more: MeansOfQuarters())


def images(n, brightest=256, seed=0):
    return np.random.default_rng(seed).integers(0, brightest, (n, SIZE, SIZE), dtype=np.uint8)


def view(pixels, n_patients=20):
    names = tuple(str(k) for k in range(len(pixels)))
    patients = tuple(f"P{k % n_patients}" for k in range(len(pixels)))
    empty = ("",) * len(pixels)
    return ImageView("tuning", pixels, names, patients, empty, empty)


def distance(pixels, **more):
    return TuningDistance(Path("weights.safetensors"), view(pixels, **more), "cpu")


def test_generator_and_controls_are_compared_with_the_same_tuning_images_at_one_number():
    tuning, training, drawn = images(40, seed=1), images(60, seed=2), images(50, 64, seed=3)

    found = distance(tuning).compare(drawn, training, seed=5)

    extract = MeansOfQuarters().extract
    rows = evenly(50, 40)
    assert found.value == pytest.approx(kernel_distance(extract(tuning), extract(drawn[rows])))
    assert [control.name for control in found.controls] == list(MUST_BEAT)
    for control in found.controls:
        made = control_images(control.name, training, 40, seed=5)
        assert control.value == pytest.approx(kernel_distance(extract(tuning), extract(made)))
        assert control.ci95[0] <= control.value <= control.ci95[1]
    assert (found.n_real, found.n_patients, found.n_images) == (40, 20, 40)
    assert found.metric_id == "kid-quarters-d4-n40"
    assert found.ci95[0] <= found.value <= found.ci95[1]


def test_images_of_the_tuning_kind_are_closer_than_dark_ones():
    tuning, training = images(40, seed=1), images(60, seed=2)

    near = distance(tuning).compare(images(40, seed=4), training, 0).value
    far = distance(tuning).compare(images(40, 30, seed=4), training, 0).value

    assert near < far


def test_fewer_than_ten_patients_have_no_interval():
    found = distance(images(40), n_patients=9).compare(images(40, seed=1), images(40, seed=2), 0)

    assert found.value is not None
    assert found.ci95 is None
    assert [control.ci95 for control in found.controls] == [None, None]


@pytest.mark.parametrize(("n_tuning", "n_drawn"), [(9, 40), (40, 9)])
def test_too_few_images_are_not_compared_and_the_reason_says_so(n_tuning, n_drawn):
    found = distance(images(n_tuning)).compare(images(n_drawn), images(40), 0)

    assert found.value is None
    assert found.reason == (
        f"needs 10 images a set, got {n_tuning} tuning images and {n_drawn} synthetic ones"
    )


def test_black_tuning_images_are_no_reference():
    found = distance(np.zeros((40, SIZE, SIZE), np.uint8)).compare(images(40), images(40), 0)

    assert found.value is None
    assert "cannot be the reference" in found.reason


def test_rows_are_spread_over_all_and_never_repeat():
    assert list(evenly(5, 10)) == [0, 1, 2, 3, 4]
    assert list(evenly(9, 3)) == [0, 4, 8]
    assert list(evenly(0, 3)) == []
