"""Burned-in text, callipers and wedges are found, and tissue is not taken for them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from medisynth.data.content.marks import find_overlay, windowed
from medisynth.data.reading.statistics import OVERLAY_FRACTION, overlay_fraction
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real data kit is not here")


def tissue(height=400, width=600, seed=0):
    """Smooth speckle without any mark: noise blurred over about four pixels."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=(height, width))
    blurred = ndimage.gaussian_filter(noise, 2.5)
    return np.clip(90 + 45 * blurred / blurred.std(), 0, 255).astype(np.uint8)


def with_text(image, text, at=(20, 10), grey=230):
    picture = Image.fromarray(image.copy())
    ImageDraw.Draw(picture).text(at, text, fill=grey, font=ImageFont.load_default_imagefont())
    return np.asarray(picture)


def real(path):
    return np.asarray(Image.open(KIT / path).convert("L"))


def test_a_stroke_counts_its_own_pixels_and_nothing_else():
    image = np.zeros((100, 200), dtype=np.uint8)
    image[20:60, 100] = 200
    assert overlay_fraction(image) == 40 / image.size


def test_a_stroke_below_the_rise_does_not_count():
    image = np.full((100, 200), 100, dtype=np.uint8)
    image[20:60, 100] = 150
    assert overlay_fraction(image) == 0
    image[20:60, 100] = 151
    assert overlay_fraction(image) == 40 / image.size


def test_a_layer_across_the_beam_does_not_count():
    image = np.zeros((100, 200), dtype=np.uint8)
    image[50] = 255
    assert overlay_fraction(image) == 0


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 3), (2, 400), (400, 2), (16, 16)])
def test_the_smallest_images_have_no_overlay(shape):
    image = np.full(shape, 255, dtype=np.uint8)
    assert overlay_fraction(image) == 0
    assert find_overlay(image).boxes == ()


def test_smooth_tissue_has_no_overlay():
    for seed in range(5):
        found = find_overlay(tissue(seed=seed))
        assert overlay_fraction(tissue(seed=seed)) < OVERLAY_FRACTION
        assert (found.boxes, found.n_callipers, found.has_wedge) == ((), 0, False)


def test_text_is_boxed_where_it_stands():
    black = np.zeros((400, 600), dtype=np.uint8)
    image = with_text(black, "SMITH ANNA 1980", at=(300, 50))
    found = find_overlay(image)
    assert overlay_fraction(image) >= OVERLAY_FRACTION
    rows, columns = np.nonzero(image)
    left = min(box[0] for box in found.boxes)
    right = max(box[2] for box in found.boxes)
    assert abs(left - columns.min()) <= 3
    assert abs(right - 1 - columns.max()) <= 3
    assert all(rows.min() - 3 <= box[1] and box[3] <= rows.max() + 4 for box in found.boxes)


def test_measuring_crosses_and_a_dotted_line_are_counted():
    image = np.zeros((400, 600), dtype=np.uint8)
    for y, x in ((100, 200), (300, 400)):
        image[y - 5 : y + 6, x] = 255
        image[y, x - 5 : x + 6] = 255
    image[200, 100:500:10] = 220
    found = find_overlay(image)
    assert found.n_callipers == 2
    assert found.n_dots == 38  # 40 dots; the two at the ends have neighbours on one side only


def test_a_wedge_at_the_edge_is_found_and_one_in_the_middle_is_not():
    image = np.zeros((400, 600), dtype=np.uint8)
    ramp = np.linspace(250, 0, 200).astype(np.uint8)[:, None]
    image[50:250, 4:12] = ramp
    assert find_overlay(image).has_wedge
    moved = np.zeros_like(image)
    moved[50:250, 300:308] = ramp
    assert not find_overlay(moved).has_wedge


@needs_kit
def test_every_original_frame_of_fetal_planes_db_has_an_overlay():
    paths = sorted((KIT / "fetal_planes_db/Images").glob("*.png"))[::6]
    assert len(paths) == 20
    assert all(overlay_fraction(real(path)) >= OVERLAY_FRACTION for path in paths)


@needs_kit
def test_frames_without_marks_are_silent_and_frames_with_callipers_speak():
    folder = KIT / "african_planes/images"
    egypt = sorted(folder.glob("*_EGY_*.png"))
    uganda = sorted(folder.glob("*_UGA_*.png"))
    assert (len(egypt), len(uganda)) == (25, 25)
    assert not any(overlay_fraction(real(path)) >= OVERLAY_FRACTION for path in egypt)
    assert all(overlay_fraction(real(path)) >= OVERLAY_FRACTION for path in uganda)
    ghana = find_overlay(real(folder / "patient028_GHA_plane1.png"))
    assert ghana.n_callipers == 5
    assert find_overlay(real(uganda[0])).n_dots >= 10
    assert find_overlay(real(egypt[0])) == find_overlay(np.zeros((100, 100), dtype=np.uint8))


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(9, 7), (40, 53)])
def test_windowed_extremes_are_those_of_scipy(size, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(
        windowed(np.minimum, image, size), ndimage.minimum_filter(image, size=size)
    )
    assert np.array_equal(
        windowed(np.maximum, image, size, axes=(1,)),
        ndimage.maximum_filter1d(image, size, axis=1),
    )
