import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from governance.records.errors import MetricUndefinedError
from medisynth.data.reading.views import ImageView
from medisynth.metrics.altered_copies import KINDS, altered_copies
from medisynth.metrics.copied_parts import PartSearch
from medisynth.metrics.copying import authenticity, copied_parts, data_copying

SIZE = 48


def _speckled(n: int, seed: int) -> np.ndarray:
    """Heads of different shapes under speckle of their own, on black."""
    rng = np.random.default_rng(seed)
    place = np.linspace(-1, 1, SIZE)
    radius = rng.uniform(0.6, 0.95, (n, 1, 1))
    inside = (place[:, None] ** 2 + place[None, :] ** 2) < radius**2
    smooth = gaussian_filter(rng.normal(size=(n, SIZE, SIZE)), (0, 8, 8))
    speckle = gaussian_filter(rng.normal(size=(n, SIZE, SIZE)), (0, 1, 1))
    grey = 110 + 30 * smooth / smooth.std() + 30 * speckle / speckle.std()
    return np.clip(grey * inside, 0, 255).astype(np.uint8)


def _view(partition: str, pixels: np.ndarray, patients: list[str] | None = None) -> ImageView:
    names = tuple(f"{partition}{number}" for number in range(len(pixels)))
    return ImageView(
        partition, pixels, names, tuple(patients or names), ("",) * len(names), ("",) * len(names)
    )


@pytest.fixture(scope="module")
def training():
    # Two images of each patient, which are alike but for fresh noise.
    pixels = np.repeat(_speckled(22, 0), 2, axis=0)
    noise = np.random.default_rng(9).normal(0, 6, pixels.shape)
    pixels = np.clip(pixels + noise * (pixels > 0), 0, 255).astype(np.uint8)
    return _view("training", pixels, [f"p{number // 2}" for number in range(44)])


@pytest.fixture(scope="module")
def tuning():
    return _view("tuning", _speckled(24, 1))


@pytest.fixture(scope="module")
def search(training):
    return PartSearch(training.pixels, training.patient_ids)


def _parts(synthetic, training, tuning):
    names = [f"s{number}" for number in range(len(synthetic))]
    return copied_parts(synthetic, names, training, tuning, memorised_below=0.0, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_traced_to_its_training_image_however_it_was_altered(
    kind, search, training, tuning
):
    rng = np.random.default_rng(3)
    copies = altered_copies(kind, training.pixels[:8], tuning.pixels[:8], rng)

    found = search.find(copies)

    sources = [training.patient_ids[row] for row in found.source]
    assert sum(a == b for a, b in zip(sources, training.patient_ids[:8], strict=True)) >= 7
    assert np.median(found.agreement) > search.find(tuning.pixels).agreement.max()


def test_images_of_the_same_patient_are_left_out_of_the_null(search, training):
    with_own = search.find(training.pixels[:8]).agreement
    own = training.patient_ids[:8]
    without = search.find(training.pixels[:8], not_of=own)

    assert with_own.min() > 0.99
    assert without.agreement.max() < 0.9
    assert all(
        training.patient_ids[row] != one for row, one in zip(without.source, own, strict=True)
    )


def test_half_copies_of_one_patient_in_a_twentieth_of_the_images_are_confirmed(training, tuning):
    synthetic = _speckled(40, 2)
    rng = np.random.default_rng(4)
    halves = altered_copies("half of the image", training.pixels[[6, 7, 6]], synthetic[:3], rng)
    synthetic = np.concatenate([halves, synthetic[3:]])

    record = _parts(synthetic, training, tuning)

    assert record.n_confirmed == 3
    assert record.n_of_one_patient == 3
    assert {pair.synthetic for pair in record.closest[:3]} == {"s0", "s1", "s2"}
    assert record.n_flagged <= 4
    assert record.recall > 0.9


def test_unseen_images_are_not_confirmed_as_copies(training, tuning):
    record = _parts(_speckled(40, 2), training, tuning)

    assert record.n_confirmed == 0
    assert record.n_flagged <= 1
    assert record.n_unseen_flagged <= 1


def test_black_images_copy_nobody(search):
    assert search.find(np.zeros((2, SIZE, SIZE), np.uint8)).agreement.max() < 0.5


def test_too_few_training_images_or_patients_are_not_searched(training, tuning):
    few = _view("training", training.pixels[:6])
    one = _view("training", training.pixels, ["p"] * 44)

    with pytest.raises(MetricUndefinedError, match="20 training images, got 24, 24 and 6"):
        _parts(tuning.pixels, few, tuning)
    with pytest.raises(MetricUndefinedError, match="two training patients"):
        _parts(tuning.pixels, one, tuning)
    with pytest.raises(MetricUndefinedError, match="24 pixels"):
        PartSearch(training.pixels[:, :20, :20], training.patient_ids)


def test_authenticity_compares_with_the_nearest_training_image_of_another_patient(training, tuning):
    copies = authenticity(training.pixels, training, tuning)
    unseen = authenticity(_speckled(40, 2), training, tuning)

    assert copies.share_nearer == 1.0
    assert unseen.share_nearer == pytest.approx(unseen.control_share, abs=0.2)
    assert unseen.ci95[0] <= unseen.share_nearer <= unseen.ci95[1]


def test_c_t_is_far_below_zero_for_copies_and_near_zero_for_unseen_images(training, tuning):
    assert data_copying(training.pixels, training, tuning, seed=0).value < -3
    assert abs(data_copying(_speckled(40, 2), training, tuning, seed=0).value) < 3


def test_c_t_equals_mann_whitney_in_one_cell(training, tuning):
    from scipy.stats import mannwhitneyu

    from medisynth.metrics.memorisation import nearest_training

    few = _view("tuning", tuning.pixels[:12])
    synthetic = _speckled(30, 5)
    record = data_copying(synthetic, training, few, seed=0)

    drawn = nearest_training(synthetic, training.pixels)[1]
    unseen = nearest_training(few.pixels, training.pixels)[1]
    u = mannwhitneyu(drawn, unseen).statistic
    assert record.n_cells == 1
    assert record.value == pytest.approx((u - 180) / np.sqrt(360 * 43 / 12))
