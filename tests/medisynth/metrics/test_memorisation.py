import csv
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import MemorisationRecord
from medisynth.metrics.controls import control_images
from medisynth.metrics.membership import membership_attack
from medisynth.metrics.memorisation import memorisation, nearest_training
from tests.places import KIT

HC18 = KIT / "hc18"


def _smooth_images(n: int, seed: int, size: int = 64) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(n, size, size))
    smooth = gaussian_filter(noise, (0, size / 12, size / 12), mode="wrap")
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def _names(pixels: np.ndarray, prefix: str) -> list[str]:
    return [f"{prefix}{index}" for index in range(len(pixels))]


def _audit(synthetic, training, tuning) -> MemorisationRecord:
    return memorisation(synthetic, _names(synthetic, "s"), training, _names(training, "t"), tuning)


@pytest.fixture(scope="module")
def training():
    return _smooth_images(300, 0)


@pytest.fixture(scope="module")
def tuning():
    return _smooth_images(150, 1)


def test_every_training_image_is_nearest_to_itself(training):
    index, distance = nearest_training(training, training)

    assert (index == np.arange(len(training))).all()
    assert distance.max() < 1e-6


def test_the_copycat_control_is_flagged(training, tuning):
    copies = control_images("copycat", training, 200, seed=4)

    audit = _audit(copies, training, tuning)

    assert audit.n_flagged == 200
    assert audit.share_ci95[0] > 0.97
    assert audit.synthetic_median < 1e-6


def test_unseen_images_are_hardly_ever_flagged(training, tuning):
    audit = _audit(_smooth_images(300, 2), training, tuning)

    assert audit.n_flagged <= 0.04 * 300
    assert audit.synthetic_median == pytest.approx(audit.null_median, rel=0.05)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image[:, ::-1],
        lambda image: image[::-1],
        lambda image: np.roll(image, 1, axis=1),
        lambda image: np.clip(image * 0.8 + 30, 0, 255).astype(np.uint8),
        lambda image: np.asarray(Image.fromarray(image).resize((128, 128)).resize((64, 64))),
    ],
    ids=["mirrored", "upside down", "shifted", "brighter", "resized"],
)
def test_changed_copies_are_flagged_and_their_source_is_named(change, training, tuning):
    copies = np.stack([change(image) for image in training[:60]])

    audit = _audit(copies, training, tuning)

    assert audit.n_flagged >= 0.95 * 60
    assert all(pair.synthetic[1:] == pair.training_id[1:] for pair in audit.closest)


@pytest.mark.parametrize("control", ["black", "noise", "pca"])
def test_images_that_copy_nothing_are_not_flagged(control, training, tuning):
    assert _audit(control_images(control, training, 50, 0), training, tuning).n_flagged <= 1


def test_sizes_need_not_be_equal_nor_multiples_of_anything(training):
    resized = np.stack([np.asarray(Image.fromarray(p).resize((50, 37))) for p in training[:20]])

    index, _ = nearest_training(resized, training)

    assert (index == np.arange(20)).all()


def test_copies_are_flagged_even_when_tuning_images_are_copies_too(training):
    audit = _audit(training[:10], training, training[:40])

    assert audit.n_flagged == 10


def test_the_closest_pairs_and_sorted_distances_are_on_record(training, tuning):
    record = _audit(_smooth_images(20, 9), training, tuning)

    assert MemorisationRecord.model_validate_json(record.model_dump_json()) == record
    assert len(record.closest) == 12
    assert list(record.synthetic_distances) == sorted(record.synthetic_distances)


def test_many_distances_are_kept_as_five_hundred_quantiles(training, tuning):
    audit = _audit(_smooth_images(700, 10), training, tuning)

    assert audit.n_synthetic == 700
    assert len(audit.synthetic_distances) == 500


def test_nothing_to_compare_is_refused(training, tuning):
    with pytest.raises(MetricUndefinedError, match="2 tuning images"):
        _audit(training[:3], training, tuning[:1])
    with pytest.raises(MetricUndefinedError, match="2 training images"):
        _audit(training[:3], training[:1], tuning)


def _hc18() -> tuple[np.ndarray, np.ndarray]:
    """All HC18 frames, cropped to the centre at 64 x 64, and their examinations."""
    with (HC18 / "metadata.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    frames = []
    for row in rows:
        with Image.open(HC18 / "images" / row["file_name"]) as image:
            frames.append(np.asarray(image.resize((96, 64), Image.Resampling.BILINEAR)))
    return np.stack(frames)[:, :, 16:80], np.array([row["exam_id"] for row in rows])


@pytest.mark.skipif(not HC18.is_dir(), reason="the HC18 sample is not beside the repository")
def test_on_real_frames_copies_are_found_and_unseen_examinations_are_not():
    frames, exams = _hc18()
    order = np.random.default_rng(1).permutation(np.unique(exams))
    tuning, training, unseen = (
        frames[np.isin(exams, part)] for part in (order[:160], order[160:640], order[640:])
    )

    def recompressed(image):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=40)
        return np.asarray(Image.open(stream))

    changed = {
        "copycat": training,
        "recompressed": np.stack([recompressed(image) for image in training]),
        "brighter": np.clip(training.astype(int) + 25, 0, 255).astype(np.uint8),
        "shifted": np.roll(training, (1, 1), axis=(1, 2)),
    }
    shares = {
        name: _audit(copies, training, tuning).n_flagged / len(copies)
        for name, copies in changed.items()
    }
    assert shares["copycat"] >= 0.99
    assert min(shares.values()) >= 0.95, shares
    assert _audit(unseen, training, tuning).n_flagged <= 0.02 * len(unseen)


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
