"""The attack finds a generator that copies its training patients, and nothing where none was copied."""

import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError
from medisynth.metrics.membership import membership_attack

SIDE = 16


def _frames(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE), dtype=np.uint8)


def _attack(synthetic, n_patients=30):
    patients = [f"t{k // 2}" for k in range(2 * n_patients)]
    others = [f"u{k // 3}" for k in range(3 * n_patients)]
    training = _frames(2 * n_patients, 1)
    tuning = _frames(3 * n_patients, 2)
    return membership_attack(synthetic(training), training, patients, tuning, others, seed=0)


def test_copies_of_training_images_give_every_patient_away():
    found = _attack(lambda training: training)

    assert found.auc == 1
    assert found.ci95[0] > 0.85
    assert found.ci95[1] == 1
    assert (found.n_training, found.n_tuning) == (30, 30)


def test_images_that_copy_nobody_tell_no_more_than_chance():
    found = _attack(lambda _training: _frames(60, 3))

    assert found.ci95[0] < 0.5 < found.ci95[1]


def test_copies_of_half_of_the_patients_are_noticed():
    found = _attack(lambda training: np.concatenate([training[:30], _frames(30, 3)]))

    assert found.ci95[0] > 0.5


def test_too_few_patients_and_images_equally_far_are_undefined():
    with pytest.raises(MetricUndefinedError, match="10 patients a side"):
        _attack(lambda training: training, n_patients=9)
    with pytest.raises(MetricUndefinedError, match="equally far"):
        _attack(lambda training: np.zeros_like(training))
