"""Files that are no 8-bit PNG are converted as asked, on record, or refused with what to set."""

import io
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from governance.records.errors import DataError, Finding
from medisynth.data.reading import converted_set
from medisynth.data.reading.conversion import Conversion, Window
from medisynth.data.reading.converted_set import Decoders, convert_set, remove_others
from medisynth.data.reading.decode import decode_bytes, windowed
from medisynth.data.reading.pictures import convert

GREY = np.arange(48 * 40, dtype=np.uint32).reshape(48, 40).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
DEEP = np.linspace(0, 65535, GREY.size).round().astype(np.uint16).reshape(GREY.shape)


def encoded(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def converted(data, frame=None, **settings):
    [image] = convert(data, "a", [frame], Conversion(**settings))
    return image


def refusal(data, frame=None, **settings):
    with pytest.raises(DataError) as caught:
        converted(data, frame, **settings)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_lossless_tiff_keeps_its_pixels(pixels, compression):
    image = converted(encoded(pixels, "TIFF", compression=compression), read=("tiff",))

    assert np.array_equal(image.pixels, pixels)
    assert "lossy" not in image.how


def test_a_jpeg_gives_the_pixels_of_its_decoder_and_is_named_lossy():
    data = encoded(COLOUR, "JPEG", quality=90)

    image = converted(data, read=("jpeg",))

    assert np.array_equal(image.pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert image.how.startswith("JPEG (lossy)")


def test_a_palette_is_expanded_to_its_colours_without_loss():
    picture = Image.fromarray(COLOUR).quantize(64)

    image = converted(encoded(picture), palette="expand")

    assert np.array_equal(image.pixels, np.asarray(picture.convert("RGB")))


def test_transparency_is_dropped_or_put_on_black_as_asked():
    picture = Image.fromarray(COLOUR).convert("RGBA")
    picture.putalpha(51)  # a fifth
    data = encoded(picture)

    dropped, black = converted(data, alpha="drop"), converted(data, alpha="black")

    assert np.array_equal(dropped.pixels, COLOUR)
    assert np.abs(black.pixels.astype(int) - COLOUR / 5).max() <= 1
    assert "black" in black.how


def test_an_opaque_alpha_channel_needs_no_setting():
    assert np.array_equal(
        converted(encoded(Image.fromarray(COLOUR).convert("RGBA"))).pixels, COLOUR
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_full_range_of_16_bits_is_scaled_to_8(kind):
    image = converted(encoded(DEEP, kind), read=("tiff",), window="full")

    assert np.array_equal(image.pixels, np.rint(DEEP.astype(float) / 257).astype(np.uint8))
    assert image.how.endswith("0 to 65535 scaled to 0 to 255")


def test_a_window_follows_the_formula_of_dicom():
    # PS3.3 C.11.2.1.2.1, the example there: centre 2048, width 4096
    values = np.array([[-1.0, 0.0, 2047.5, 4095.0, 5000.0]])
    asked = Conversion(window=Window(centre=2048, width=4096))

    levels, words = windowed(values, (0.0, 1.0), None, "a", asked)

    assert levels.tolist() == [[0, 0, 128, 255, 255]]
    assert words == "window centre 2048 and width 4096"


def test_a_film_gives_the_frame_that_is_asked_for():
    pages = [Image.fromarray(np.full((40, 40), level, np.uint8)) for level in (10, 20, 30)]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])

    frames = list(convert(data, "a", [3, 1], Conversion(read=("tiff",))))

    assert [int(frame.pixels[0, 0]) for frame in frames] == [30, 10]
    assert refusal(data, read=("tiff",))[0] == "D066"
    assert "no frame 4" in refusal(data, 4, read=("tiff",))[1]


@pytest.mark.malformed("png")
@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (encoded(GREY, "JPEG"), "D064", "add jpeg to data.convert.read"),
        (encoded(GREY, "TIFF"), "D064", "add tiff to data.convert.read"),
        (encoded(DEEP), "D065", "data.convert.window to full"),
        (encoded(Image.fromarray(COLOUR).quantize(8)), "D065", "data.convert.palette: expand"),
        (encoded(Image.new("RGBA", (40, 40), (9, 9, 9, 9))), "D067", "data.convert.alpha to drop"),
        (b"", "D063", "is empty"),
        (b"hello", "D064", "is not a PNG file"),
    ],
)
def test_what_nobody_asked_for_is_refused_with_what_to_set(data, code, words):
    found, message = refusal(data)

    assert found == code
    assert words in message


@pytest.mark.malformed("png")
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_every_cut_of_a_file_is_refused(kind):
    data = encoded(GREY, kind)

    for length in range(0, len(data) - 1, 97):
        with pytest.raises(DataError) as caught:
            converted(data[:length], read=("jpeg", "tiff"))
        assert caught.value.code in ("D063", "D064", "D065")


def test_metadata_that_may_name_somebody_is_told_by_kind_without_its_value():
    exif = Image.Exif()
    exif[0x013B] = "Jane Doe"
    data = encoded(GREY, "JPEG", exif=exif, comment=b"Jane Doe")

    image = converted(data, read=("jpeg",))

    assert image.metadata == ("EXIF", "JPEG comment")
    assert "Jane" not in repr(image.how)


def folder_of(tmp_path, **files):
    root = tmp_path / "data"
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    rows = {"image_id": list(files), "path": list(files)}
    return root, pd.DataFrame(rows, dtype="string")


def test_a_set_is_converted_once_and_again_only_where_a_file_changed(tmp_path):
    root, table = folder_of(tmp_path, a=encoded(GREY, "JPEG"), b=encoded(COLOUR, "JPEG"))
    out, asked = tmp_path / "out", Conversion(read=("jpeg",))

    first = convert_set(root, table, out, asked)
    again = convert_set(root, table, out, asked)
    (root / "b").write_bytes(encoded(COLOUR[::-1], "JPEG"))
    after = convert_set(root, table, out, asked)

    assert [first.n_new, again.n_new, after.n_new] == [2, 0, 1]
    assert list(first.table["path"]) == ["a.png", "b.png"]
    assert list(first.table["source_path"]) == ["a", "b"]
    grey = decode_bytes((out / "a.png").read_bytes(), "a.png").grey
    assert np.array_equal(grey, np.asarray(Image.open(io.BytesIO(encoded(GREY, "JPEG")))))

    remove_others(out, frozenset({"a"}))
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.png"]


def test_a_converted_image_that_was_changed_is_made_anew(tmp_path):
    root, table = folder_of(tmp_path, a=encoded(GREY, "JPEG"))
    out, asked = tmp_path / "out", Conversion(read=("jpeg",))
    convert_set(root, table, out, asked)
    whole = (out / "a.png").read_bytes()
    (out / "a.png").write_bytes(encoded(COLOUR))

    assert convert_set(root, table, out, asked).n_new == 1
    assert (out / "a.png").read_bytes() == whole


def test_a_bad_file_becomes_a_finding_and_the_others_are_converted(tmp_path):
    root, table = folder_of(tmp_path, a=b"hello", b=encoded(GREY, "JPEG"))

    result = convert_set(root, table, tmp_path / "out", Conversion(read=("jpeg",)))

    assert [finding.code for finding in result.findings] == ["D064"]
    assert list(result.table["image_id"]) == ["b"]


def hang(connection):
    connection.send_bytes(b"ready")
    time.sleep(60)


def die(connection):
    connection.send_bytes(b"ready")
    connection.recv_bytes()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("serve", "words"), [(hang, "takes more than 0.5 s"), (die, "ended the process")]
)
def test_a_decoder_that_hangs_or_dies_costs_one_image_only(monkeypatch, serve, words):
    monkeypatch.setattr(converted_set, "_serve", serve)

    with Decoders(1, time_limit_s=0.5) as decoders:
        answers = decoders.convert(b"x", "a.jpg", [1, 2], Conversion())

    assert len(answers) == 2
    assert all(isinstance(answer, Finding) and answer.code == "D069" for answer in answers)
    assert all(words in answer.message for answer in answers)
