"""Membership attack: can synthetic images tell who was in training?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import MembershipRecord
from medisynth.data.reading.views import Pixels
from medisynth.intervals import most_unseen, percentile_interval
from medisynth.metrics.memorisation import SIDE, nearest_training

N_RESAMPLES = 1000
LEAST_PATIENTS = 10  # of a side; fewer make the interval far too narrow


def membership_attack(
    synthetic: Pixels,
    training: Pixels,
    training_patients: Sequence[str],
    tuning: Pixels,
    tuning_patients: Sequence[str],
    *,
    seed: int,
) -> MembershipRecord:
    """Attack by distance: training patients should lie no nearer to synthetic images than others.

    Each real image's relative distance to its nearest synthetic image is taken as in the search for
    copies; a patient's score is the mean over the patient's images, so that many images make
    nobody nearer. Tuning patients, whom no generator was fitted to, are the control.

    Args:
        synthetic: Images, shape (m, height, width), uint8, at least 2.
        training: Training images, shape (t, height, width), uint8.
        training_patients: Patient of each, length t.
        tuning: Tuning images of other patients, shape (u, height, width), uint8.
        tuning_patients: Patient of each, length u.
        seed: Seed of resampling.

    Returns:
        AUC: how often a training patient is nearer than a tuning patient; 0.5 tells nothing, 1
        tells all. Its interval resamples patients of both sides. A generator that copies few
        patients moves it little: read it beside the search for copies.

    Raises:
        MetricUndefinedError: Fewer than 10 patients on a side, or fewer than 2 synthetic images, or
            all real images are equally far from the synthetic ones.
    """
    members = _scores(training, training_patients, synthetic)
    others = _scores(tuning, tuning_patients, synthetic)
    if min(len(members), len(others)) < LEAST_PATIENTS:
        raise MetricUndefinedError(
            f"an attack needs {LEAST_PATIENTS} patients a side, got {len(members)} of training and "
            f"{len(others)} of tuning"
        )
    wins = (members[:, None] < others[None, :]) + 0.5 * (members[:, None] == others[None, :])
    if np.ptp(np.concatenate([members, others])) == 0:
        raise MetricUndefinedError("all real images are equally far from the synthetic ones")
    rng = np.random.default_rng(seed)
    drawn_m = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), N_RESAMPLES)
    drawn_o = rng.multinomial(len(others), np.full(len(others), 1 / len(others)), N_RESAMPLES)
    resampled = ((drawn_m @ wins) * drawn_o).sum(axis=1) / (len(members) * len(others))
    auc = float(wins.mean())
    ci95 = percentile_interval(auc, resampled, centred=False)
    if ci95 is None:  # one side lies wholly before the other, in every resample
        bound = most_unseen(min(len(members), len(others)))
        ci95 = (1 - bound, 1.0) if auc == 1 else (0.0, bound)
    return MembershipRecord(
        method=f"relative distance to the nearest synthetic image at {SIDE} x {SIDE}, mean over the "
        "images of a patient; training against tuning patients",
        auc=auc,
        ci95=ci95,
        n_training=len(members),
        n_tuning=len(others),
    )


def _scores(pixels: Pixels, patients: Sequence[str], synthetic: Pixels) -> NDArray[np.float64]:
    """Mean relative distance of each patient's images to their nearest synthetic image."""
    _, distance = nearest_training(pixels, synthetic)
    _, codes = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    return np.bincount(codes, weights=distance) / np.bincount(codes)
