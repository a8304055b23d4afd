"""The search is tried on copies of the data set's own images, and what it misses is said."""

import numpy as np
import pytest

from governance.records.duplicates import CopyRecall, DuplicateAudit
from medisynth.data.duplicates.calibration import CHANGES, calibrate, chosen_rows
from medisynth.data.reading.decode import to_thumbnail

N_MOST = 24


def speckle(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth scene under fully developed speckle."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(number)
    scene = gaussian_filter(rng.standard_normal((height, width)), 12)
    scene = (scene - scene.min()) / (scene.max() - scene.min())
    parts = [gaussian_filter(rng.standard_normal((height, width)), 0.7) for _ in range(2)]
    grain = np.hypot(*parts)
    return np.clip(120 * scene * grain / grain.mean(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def recall() -> dict[str, float]:
    found = calibrate([speckle(k) for k in range(12)], seed=0)
    return {one.kind: one.n_found / one.n_planted for one in found}


def test_small_speckle_frames_are_found_resized_turned_and_cropped_by_3_per_cent(recall):
    for kind in ("resized to half", "turned by 180 degrees", "3 % of width and height cropped"):
        assert recall[kind] == 1, kind


def test_what_is_beyond_the_search_is_measured_and_not_claimed(recall):
    assert set(recall) == set(CHANGES)
    assert recall["8 % cropped on each side"] < 0.5
    assert recall["turned by 3 degrees"] < 0.5
    audit = DuplicateAudit(
        method="",
        n_images=3,
        n_pairs=0,
        n_pairs_across_patients=0,
        n_pairs_across_partitions=0,
        pairs=(),
        calibration=(
            CopyRecall(kind="resized", n_planted=3, n_found=3),
            CopyRecall(kind="8 % crop", n_planted=3, n_found=1),
        ),
    )
    assert "found all of 1 kind, but of 8 % crop 1 of 3" in audit.calibration_sentence
    assert audit.model_copy(update={"calibration": ()}).calibration_sentence == ""


def test_a_calibration_repeats_and_a_flat_or_missing_image_is_none(recall):
    again = calibrate([np.full((96, 128), 7, np.uint8), *map(speckle, range(2))], seed=0)
    assert {one.n_planted for one in again} == {2}
    assert again == calibrate([speckle(0), speckle(1)], seed=0)
    assert calibrate([], seed=0) == ()
    assert len(chosen_rows(1000, N_MOST, 3)) == len(set(chosen_rows(1000, N_MOST, 3))) == N_MOST
    assert chosen_rows(2, N_MOST, 3) == [0, 1]


def test_the_thumbnail_of_a_mirrored_small_frame_is_the_mirrored_thumbnail():
    frame = speckle(1)
    turned = to_thumbnail(np.ascontiguousarray(frame[::-1, ::-1])).astype(int)
    assert np.abs(turned - to_thumbnail(frame)[::-1, ::-1]).max() <= 1
