"""A file that is not what was expected is named as what it is, with what to do."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from governance.records.errors import DataError
from medisynth.data.reading.csv_table import read_strict
from medisynth.data.reading.decode import decode_bytes
from medisynth.data.reading.folder import DataFolder
from medisynth.data.reading.png import SIGNATURE

GREY = Image.fromarray(np.full((40, 50), 90, dtype=np.uint8))


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
ANNEX = b"/annex/objects/SHA256E-s1--00.png\n"
DVC = b"outs:\n- md5: 00000000000000000000000000000000\n  path: a.png\n"


@pytest.mark.malformed("png")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encoded(GREY, "JPEG"), "is a JPEG image", id="JPEG"),
        pytest.param(encoded(GREY, "TIFF"), "is a TIFF image", id="TIFF"),
        pytest.param(encoded(GREY, "GIF"), "is a GIF image", id="GIF"),
        pytest.param(encoded(GREY, "BMP"), "is a BMP image", id="BMP"),
        pytest.param(b"\0" * 128 + b"DICM" + b"\0" * 99, "is a DICOM file", id="DICOM"),
        pytest.param(LFS, "is a Git LFS pointer.*`git lfs pull`", id="Git LFS"),
        pytest.param(ANNEX, "is a git-annex pointer.*`git annex get`", id="git-annex"),
        pytest.param(DVC, "is a DVC pointer.*`dvc pull`", id="DVC"),
        pytest.param(gzip.compress(b"a"), r"is a gzip archive.*`gunzip`", id="gzip"),
        pytest.param(b"<html>", "is a web page.*download it again", id="web page"),
        pytest.param(b"\0" * 4096, "is nothing but zero bytes", id="zeros"),
        pytest.param(
            encoded(GREY, "PNG").replace(b"\r\n", b"\n"), "changed by a transfer as text", id="text"
        ),
        pytest.param(b"hello", "is not a PNG file; .*get the file again", id="unknown"),
    ],
)
def test_a_file_that_is_no_png_is_named_as_what_it_is_with_what_to_do(data, expected):
    with pytest.raises(DataError, match=expected) as caught:
        decode_bytes(data, "a.png")
    assert caught.value.code == "D064"


@pytest.mark.malformed("png")
@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.fromarray(np.ones((40, 40), dtype=np.uint16)), "16-bit", id="16-bit"),
        pytest.param(GREY.quantize(4), "palette", id="palette"),
        pytest.param(GREY.convert("1"), "1 bit", id="1 bit"),
    ],
)
def test_pixels_that_would_be_converted_with_loss_are_named_with_what_to_do(image, expected):
    with pytest.raises(DataError, match=f"{expected}.*expected 8-bit grey or RGB; s") as caught:
        decode_bytes(encoded(image, "PNG"), "a.png")
    assert caught.value.code == "D065"


@pytest.mark.malformed("png")
def test_colour_of_16_bits_which_a_decoder_would_halve_in_silence_is_refused():
    rows = b"".join(b"\0" + bytes(40 * 6) for _ in range(40))
    data = (
        SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )

    with pytest.raises(DataError, match="has 16-bit pixels") as caught:
        decode_bytes(data, "a.png")
    assert caught.value.code == "D065"


@pytest.mark.malformed("csv")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(gzip.compress(b"a;b\n"), "is a gzip archive, expected a table", id="gzip"),
        pytest.param(LFS, "is a Git LFS pointer, expected a table", id="Git LFS"),
        pytest.param(b"PK\x03\x04..xl/..", "save the sheet as text", id="Excel"),
    ],
)
def test_a_table_of_another_kind_is_named_as_what_it_is(tmp_path, data, expected):
    (tmp_path / "t.csv").write_bytes(data)

    with pytest.raises(DataError, match=expected) as caught:
        read_strict(tmp_path / "t.csv", delimiter=";", required=("a",))
    assert caught.value.code == "D017"


@pytest.mark.malformed("png")
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("../.git/annex/objects/x/y.png", "is a git-annex link whose file.*`git annex get .` and"),
        ("/store/.dvc/cache/files/md5/aa/bb", "is a DVC link whose file is not there.*`dvc pull`"),
        ("../store/a.png", "is a symbolic link whose file is not there"),
        ("b.png", r"is a symbolic link, expected the image file itself; .*cp -rL"),
    ],
)
def test_a_linked_image_is_refused_with_what_made_the_link_and_what_to_do(
    tmp_path: Path, target: str, expected: str
):
    (tmp_path / "b.png").write_bytes(b"x")
    (tmp_path / "a.png").symlink_to(target)

    with pytest.raises(DataError, match=expected):
        DataFolder(tmp_path).read("a.png")


@pytest.mark.malformed("png")
def test_a_linked_folder_is_named_as_the_reason_that_its_images_lie_outside(tmp_path: Path):
    (tmp_path / "store").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Images").symlink_to(tmp_path / "store")

    with pytest.raises(DataError, match=r"'Images' is a symbolic link; .*cp -rL"):
        DataFolder(tmp_path / "data").read("Images/a.png")
