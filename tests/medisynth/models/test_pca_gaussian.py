"""The example plug-in does what its mathematics says, and fulfils the protocol."""

import numpy as np
import pytest

from governance.records.errors import DataError, SettingsError, TrainingError, WeightsError
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import Condition
from tests.plugins.pca_gaussian import PcaGaussian, PcaGaussianSettings, _surprise
from tests.plugins.small_run import context, view


def gaussian_view(partition: str, n: int, seed: int) -> ImageView:
    """Images that vary along two directions only: left half by 30, upper half by 10 levels."""
    rng = np.random.default_rng(seed)
    amounts = rng.standard_normal((n, 2))
    pixels = np.full((n, 8, 8), 128.0)
    pixels[:, :, :4] += 30 * amounts[:, 0, None, None]
    pixels[:, :4, :] += 10 * amounts[:, 1, None, None]
    ids = tuple(f"{partition}-{k}" for k in range(n))
    packed = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return ImageView(partition, packed, ids, ids, ("",) * n, ("",) * n)


def fitted(**settings):
    generator = PcaGaussian(PcaGaussianSettings(**{"size": 8, "components": 2, **settings}))
    report = generator.fit(
        gaussian_view("training", 400, 0), gaussian_view("tuning", 100, 1), context()
    )
    return generator, report


def test_samples_have_the_mean_and_the_spread_of_the_training_images():
    generator, _ = fitted()

    drawn = generator.sample(4000, context()).astype(float)

    assert drawn.mean() == pytest.approx(128, abs=1.5)
    # lower left varies by 30 levels, upper right by 10, lower right not at all
    assert drawn[:, 6, 1].std() == pytest.approx(30, rel=0.1)
    assert drawn[:, 1, 6].std() == pytest.approx(10, rel=0.1)
    assert drawn[:, 6, 6].std() < 1


def test_the_number_of_eigen_images_is_the_true_one_when_more_were_allowed():
    _, report = fitted(components=8)

    assert report.selection.chosen_step in (2, 4)
    scores = {one.step: one.score for one in report.selection.candidates}
    assert list(scores) == [1, 2, 4, 8]
    assert scores[1] > scores[2]


def test_the_contexts_score_chooses_when_there_is_one():
    generator = PcaGaussian(PcaGaussianSettings(size=8, components=4))
    scores = iter([3.0, 1.0, 2.0])

    report = generator.fit(
        gaussian_view("training", 50, 0),
        gaussian_view("tuning", 20, 1),
        context(score=lambda images: next(scores), score_name="KID"),
    )

    found = [(one.step, one.score) for one in report.selection.candidates]
    assert found == [(1, 3.0), (2, 1.0), (4, 2.0)]
    assert report.selection.chosen_step == 2
    assert report.selection.criterion == "lowest KID"


def test_the_surprise_of_one_point_is_the_gaussian_density_by_hand():
    # two pixels, variances 4 and 1, one component: -log N((2, 1); 0, diag(4, 1)) / 2 pixels
    centred = np.array([[2.0, 1.0]], np.float32)
    vectors = np.eye(2, dtype=np.float32)
    variances = np.array([4.0, 1.0], np.float32)

    expected = (2 * np.log(2 * np.pi) + np.log(4) + 1 + 1) / 2 / 2
    assert _surprise(centred, vectors, variances, 1) == pytest.approx(expected)


def test_a_reloaded_generator_draws_the_same_images():
    generator, _ = fitted()
    tensors, _ = checkpoint.decode(checkpoint.encode(generator.state(), {}))
    other = PcaGaussian(PcaGaussianSettings(size=8))
    other.load_state(tensors)

    assert np.array_equal(generator.sample(5, context(9)), other.sample(5, context(9)))
    assert not np.array_equal(other.sample(5, context(9)), other.sample(5, context(10)))


def test_misuse_is_refused():
    generator, _ = fitted()
    empty = PcaGaussian(PcaGaussianSettings(size=8))

    with pytest.raises(SettingsError, match="knows no condition"):
        generator.sample(1, context(), Condition(plane="x"))
    with pytest.raises(TrainingError):
        empty.sample(1, context())
    with pytest.raises(TrainingError):
        empty.state()
    with pytest.raises(WeightsError):
        PcaGaussian(PcaGaussianSettings(size=16)).load_state(generator.state())
    with pytest.raises(DataError):
        empty.fit(view("training", 2, 8), view("tuning", 2, 8), context())
