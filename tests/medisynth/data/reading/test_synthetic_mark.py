"""Every synthetic image says in its file that it is one, and is recognised."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from governance.records.errors import SettingsError
from medisynth.data.reading.ingest import decode_bytes
from medisynth.data.reading.png import text_chunks
from medisynth.data.reading.synthetic_mark import (
    DESCRIPTION,
    KEY,
    SyntheticMark,
    burn_in,
    is_marked_synthetic,
    marked_png,
    read_mark,
)
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")

MARK = SyntheticMark(
    generator="dsr-gan 0.1.0",
    run_id="20250101T000000Z-abc",
    checkpoint_sha256="a" * 64,
    seed=7,
    index=3,
    licence="CC BY 4.0 <& 'quoted' · ünïcode>",
)
PIXELS = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)


def png_with(**texts: str) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key.replace("_", "-"), text)
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def test_the_mark_comes_back_whole_and_the_pixels_are_unchanged():
    data = marked_png(PIXELS, MARK)

    assert read_mark(data) == MARK
    assert is_marked_synthetic(data)
    decoded = decode_bytes(data, "s.png")
    assert np.array_equal(decoded.grey, PIXELS)
    assert decoded.synthetic_mark


def test_the_mark_says_so_in_plain_words_and_in_the_iptc_vocabulary():
    texts = text_chunks(marked_png(PIXELS, MARK))

    assert texts["Description"] == DESCRIPTION == "SYNTHETIC IMAGE - not a patient"
    assert "digitalsourcetype/trainedAlgorithmicMedia" in texts["XML:com.adobe.xmp"]


def test_the_embedded_xmp_is_well_formed_whatever_the_licence_says():
    from xml.etree import ElementTree

    xmp = text_chunks(marked_png(PIXELS, MARK))["XML:com.adobe.xmp"]

    assert MARK.licence in "".join(ElementTree.fromstring(xmp).itertext())  # noqa: S314 - our own


def test_equal_pixels_and_mark_give_equal_bytes():
    assert marked_png(PIXELS, MARK) == marked_png(PIXELS.copy(), MARK)


def test_a_real_image_carries_no_mark():
    data = png_with(Title="a scan")

    assert read_mark(data) is None
    assert not is_marked_synthetic(data)


@pytest.mark.parametrize(
    "payload",
    ["", "{", "[]", "{}", '{"seed": 1}', "[" * 5000, '{"generator": 1}'],
)
def test_a_damaged_mark_reads_as_none_but_still_keeps_the_image_out(payload):
    data = png_with(medisynth_gov=payload)

    assert read_mark(data) is None
    assert is_marked_synthetic(data)


def test_a_mark_with_a_value_of_another_type_is_damaged():
    good = text_chunks(marked_png(PIXELS, MARK))[KEY]

    assert read_mark(png_with(medisynth_gov=good)) == MARK
    assert read_mark(png_with(medisynth_gov=good.replace('"seed":7', '"seed":true'))) is None


def test_other_makers_synthetic_images_are_recognised():
    assert is_marked_synthetic(png_with(parameters="a fetal head, steps: 20"))
    xmp = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG", pnginfo=info)
    assert is_marked_synthetic(buffer.getvalue())


def test_a_text_that_would_fill_memory_is_left_out():
    info = PngInfo()
    info.add_text("Comment", "x" * (3 << 20), zip=True)
    info.add_text("Title", "short", zip=True)
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG", pnginfo=info)

    assert text_chunks(buffer.getvalue()) == {"Title": "short"}


@pytest.mark.parametrize(
    "data", [b"", b"text", marked_png(PIXELS, MARK)[:100], b"\x89PNG\r\n\x1a\n"]
)
def test_reading_a_mark_from_anything_gives_none_and_no_error(data):
    assert read_mark(data) is None


@pytest.mark.parametrize("pixels", [PIXELS.astype(np.float32), np.dstack([PIXELS] * 3)])
def test_only_grey_bytes_can_be_marked(pixels):
    with pytest.raises(SettingsError, match="uint8"):
        marked_png(pixels, MARK)


@needs_kit
def test_a_real_diffusion_output_of_another_tool_is_recognised():
    folder = KIT / "synthetic_examples"
    data = (folder / "lora_img2img_of_Patient01220_Plane3_1_of_2.png").read_bytes()

    assert is_marked_synthetic(data)


OPTIONAL = ("plane", "machine", "visible")
CONDITIONAL = dataclasses.replace(MARK, plane="Trans-thalamic", machine="Aloka", visible=True)


def test_condition_and_visible_mark_come_back():
    assert read_mark(marked_png(PIXELS, CONDITIONAL)) == CONDITIONAL


def test_the_mark_says_synthetic_in_a_field_for_machines():
    assert json.loads(text_chunks(marked_png(PIXELS, MARK))[KEY])["synthetic"] is True


def test_a_mark_of_the_first_six_fields_alone_is_still_read():
    first = {k: v for k, v in dataclasses.asdict(MARK).items() if k not in OPTIONAL}

    assert len(first) == 6
    assert read_mark(png_with(medisynth_gov=json.dumps(first))) == MARK


@pytest.mark.parametrize(
    "change",
    [{"plane": 3}, {"visible": 1}, {"synthetic": False}, {"synthetic": 1}, {"more": "x"}],
)
def test_an_optional_field_of_another_type_is_damage(change):
    values = {**dataclasses.asdict(CONDITIONAL), **change}

    assert read_mark(png_with(medisynth_gov=json.dumps(values))) is None


@pytest.mark.parametrize("size", [64, 65, 100, 256])
def test_the_visible_mark_takes_the_lower_edge_and_nothing_else(size):
    images = np.full((2, size, size), 90, np.uint8)

    burned = burn_in(images)

    assert (images == 90).all()
    rows = np.flatnonzero((burned != 90).any(axis=(0, 2)))
    assert rows[-1] == size - 1
    assert size / 32 <= len(rows) <= size / 8
    assert (burned[:, : rows[0]] == 90).all()
    assert set(np.unique(burned[:, rows[0] :])) == {0, 255}
    assert np.array_equal(burned[0], burned[1])


@pytest.mark.parametrize("size", [64, 256])
def test_the_visible_mark_reads_synthetic(size):
    """Letter by letter against the font's own picture, at the place where it must stand."""
    burned = burn_in(np.zeros((1, size, size), np.uint8))[0]
    columns = np.flatnonzero(burned.any(axis=0))
    scale = size * 3 // 4 // 62 or 1
    font = ImageFont.load_default_imagefont()
    start = (size - 62 * scale) // 2

    assert columns[0] >= start
    assert columns[-1] < start + 62 * scale
    for place, letter in enumerate("SYNTHETIC"):
        picture = Image.new("1", (6, 11))
        ImageDraw.Draw(picture).text((0, 0), letter, fill=1, font=font)
        wanted = np.asarray(picture)[3:9]
        left = start + place * 7 * scale
        found = burned[-7 * scale : -scale : scale, left : left + 6 * scale : scale] > 0
        assert np.array_equal(found, wanted), letter


def test_an_image_too_small_for_the_word_is_refused():
    with pytest.raises(SettingsError, match="at least 64 x 64 pixels, these have 63 x 200"):
        burn_in(np.zeros((1, 63, 200), np.uint8))
