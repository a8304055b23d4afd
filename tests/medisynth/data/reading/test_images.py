"""Images are read once, refused when they are not what they must be, and digested by content."""

import io
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from governance.records.errors import DataError, ResourceError, SettingsError
from medisynth.data.adapters import locate_data_set
from medisynth.data.adapters.selection import missing_images
from medisynth.data.reading.ingest import (
    IMAGE_COLUMNS,
    LEAST_FOR_PROCESSES,
    MAX_PIXELS,
    THUMBNAIL_PX,
    Ingested,
    content_digest,
    decode_bytes,
    ingest_images,
    to_square,
)
from medisynth.data.reading.png import MAX_KEYWORDS, text_keywords
from medisynth.data.reading.reader import ImageReader, Job, ReaderProcesses
from medisynth.data.reading.statistics import sector_fractions
from tests.places import KIT, ROOT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")

GREY = np.arange(60 * 80, dtype=np.uint32).reshape(60, 80).astype(np.uint8)


def png_bytes(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def png_of_mode(mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).convert(mode).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def rgba(alpha: int) -> np.ndarray:
    return np.dstack([GREY, GREY, GREY, np.full_like(GREY, alpha)])


def with_size(data: bytes, width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def code_of(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        decode_bytes(data, "a.png")
    assert len(caught.value.findings) == 1
    assert str(caught.value).startswith("a.png: ")
    return caught.value.code


def test_a_sound_image_keeps_its_pixels():
    decoded = decode_bytes(png_bytes(GREY), "a.png")

    assert np.array_equal(decoded.grey, GREY)
    assert (decoded.width_px, decoded.height_px, decoded.mode) == (80, 60, "L")
    assert decoded.n_bytes == len(png_bytes(GREY))
    assert not decoded.synthetic_mark


def test_equal_pictures_have_equal_digests_however_they_are_stored():
    plain = decode_bytes(png_bytes(GREY), "a.png")
    others = [
        png_bytes(GREY, compress_level=1),
        png_bytes(np.dstack([GREY] * 3)),
        png_bytes(rgba(255)),
        png_of_mode("LA"),
    ]

    for data in others:
        other = decode_bytes(data, "b.png")
        assert other.pixel_sha256 == plain.pixel_sha256
        assert other.file_sha256 != plain.file_sha256
        assert other.mode == "L"


def test_a_different_shape_or_one_different_pixel_changes_the_digest():
    one_off = GREY.copy()
    one_off[5, 5] += 1
    pictures = [GREY, GREY.reshape(80, 60), one_off, np.dstack([GREY, GREY, one_off])]

    digests = {decode_bytes(png_bytes(p), "a.png").pixel_sha256 for p in pictures}

    assert len(digests) == 4


@pytest.mark.malformed("png")
@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "D063", id="empty"),
        pytest.param(b"This is text, not an image.\n", "D064", id="text named .png"),
        pytest.param(png_bytes(GREY)[:-200], "D063", id="cut short"),
        pytest.param(png_bytes(GREY) + b"tail", "D063", id="bytes appended"),
        pytest.param(png_bytes(GREY)[:60] + png_bytes(GREY)[-12:], "D063", id="middle missing"),
        pytest.param(with_size(png_bytes(GREY), 80, 61), "D063", id="a row too few"),
        pytest.param(with_size(png_bytes(GREY), 80, 59), "D063", id="a row too many"),
        pytest.param(with_size(png_bytes(GREY), 50_000, 50_000), "D062", id="claims to be huge"),
        pytest.param(with_size(png_bytes(GREY), 0, 60), "D062", id="no width"),
        pytest.param(png_of_mode("P"), "D065", id="palette"),
        pytest.param(png_bytes(GREY.astype(np.uint16)), "D065", id="16 bit"),
        pytest.param(png_of_mode("1"), "D065", id="1 bit"),
        pytest.param(png_bytes(rgba(128)), "D067", id="transparent"),
        pytest.param(
            png_of_mode("L", save_all=True, append_images=[Image.fromarray(GREY[::-1])]),
            "D066",
            id="animated",
        ),
    ],
)
def test_what_is_not_one_whole_image_is_refused(data, code):
    assert code_of(data) == code


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of(*chunks: bytes, size: tuple[int, int] = (80, 60)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


STREAM = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))


def test_pixel_data_in_many_chunks_are_one_stream():
    parts = [chunk(b"IDAT", STREAM[i : i + 100]) for i in range(0, len(STREAM), 100)]

    assert np.array_equal(decode_bytes(png_of(*parts), "a.png").grey, GREY)


@pytest.mark.malformed("png")
def test_damage_that_every_chunk_checksum_covers_up_is_found():
    wrong_sum = STREAM[:-1] + bytes([STREAM[-1] ^ 1])
    halves = chunk(b"IDAT", STREAM[:200]), chunk(b"IDAT", STREAM[200:])
    note = chunk(b"tEXt", b"Comment\0x")

    assert code_of(png_of(chunk(b"IDAT", wrong_sum))) == "D063"
    assert code_of(png_of(chunk(b"IDAT", STREAM + b"more"))) == "D063"
    assert code_of(png_of(chunk(b"IDAT", STREAM[:-6]))) == "D063"
    assert code_of(png_of(halves[0], note, halves[1])) == "D063"
    assert code_of(png_of(note)) == "D063"
    assert decode_bytes(png_of(*halves, note), "a.png").png_text_keywords == "Comment"


@pytest.mark.parametrize("n_filters", [5, 6])
def test_grey_files_are_decoded_as_pillow_decodes_them_whatever_their_row_filters(n_filters):
    rng = np.random.default_rng(n_filters)
    for _ in range(100):
        height, width = rng.integers(1, 40, 2)
        rows = rng.integers(0, 256, (height, 1 + width), np.uint8)
        rows[:, 0] = rng.integers(0, n_filters, height)  # there is no filter 5
        data = png_of(
            chunk(b"pHYs", bytes(9)),
            chunk(b"IDAT", zlib.compress(rows.tobytes())),
            size=(width, height),
        )
        if (rows[:, 0] == 5).any():
            assert code_of(data) == "D063"
            continue
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image)
        assert np.array_equal(decode_bytes(data, "a.png").grey, expected)


@needs_kit
def test_real_frames_are_decoded_as_pillow_decodes_them():
    paths = [p for name in ("fetal_planes_db", "hc18") for p in sorted((KIT / name).rglob("*.png"))]
    for path in paths[::40]:
        with Image.open(path) as image:
            if image.mode == "L":
                decoded = decode_bytes(path.read_bytes(), path.name)
                assert np.array_equal(decoded.grey, np.asarray(image))


@pytest.mark.malformed("png")
@pytest.mark.parametrize("size", [(80, 30), (80, 60), (2**31 - 1, 2**31 - 1)])
def test_a_second_header_cannot_change_the_size_that_was_checked(size):
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))

    assert code_of(png_of(second, chunk(b"IDAT", STREAM))) == "D063"


@pytest.mark.malformed("png")
def test_a_small_file_that_unpacks_to_more_than_its_header_says_is_refused_unread():
    bomb = zlib.compress(bytes(200_000_000), 9)

    assert code_of(png_of(chunk(b"IDAT", bomb))) == "D063"


def interlaced(pixels: np.ndarray) -> bytes:
    """An Adam7 PNG, written by hand: Pillow reads this form but does not write it."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
    passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [row for x, y, dx, dy in passes for row in pixels[y::dy, x::dx]]
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows if row.size))
    height, width = pixels.shape

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("shape", [(60, 80), (13, 37), (1, 1), (2, 9), (5, 1)])
def test_an_interlaced_image_is_read_as_the_plain_one(shape):
    pixels = GREY[: shape[0], : shape[1]].copy()

    decoded = decode_bytes(interlaced(pixels), "a.png")

    assert np.array_equal(decoded.grey, pixels)
    assert decoded.pixel_sha256 == decode_bytes(png_bytes(pixels), "b.png").pixel_sha256


@pytest.mark.malformed("png")
def test_other_formats_are_refused_even_when_their_pixels_are_fine():
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, format="BMP")

    assert code_of(buffer.getvalue()) == "D064"


@pytest.mark.malformed("png")
def test_a_flipped_bit_anywhere_in_the_pixel_data_is_found():
    data = png_bytes(GREY)
    for position in range(data.index(b"IDAT") + 4, len(data) - 16, 97):
        damaged = bytearray(data)
        damaged[position] ^= 1
        assert code_of(bytes(damaged)) == "D063"


def test_padding_keeps_the_aspect_ratio_and_stretching_fills_the_square():
    grey = np.full((50, 100), 200, dtype=np.uint8)

    padded, stretched = to_square(grey, 40), to_square(grey, 40, "stretch")

    assert padded.shape == stretched.shape == (40, 40)
    assert (padded[:10] == 0).all()
    assert (padded[30:] == 0).all()
    assert (padded[10:30] == 200).all()
    assert (stretched == 200).all()


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (7, 7), (40, 40), (331, 480), (3, 2)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_any_shape_becomes_the_square_asked_for(shape, fit):
    square = to_square(np.full(shape, 90, dtype=np.uint8), 40, fit)

    assert square.shape == (40, 40)
    assert square.dtype == np.uint8
    assert set(np.unique(square)) <= {0, 90}


@pytest.mark.parametrize("shape", [(661, 959), (787, 1137), (392, 640), (1023, 1025)])
def test_a_strong_reduction_keeps_every_part_in_its_place(shape):
    # a slope from 0 to 255 in both directions: what is a pixel off shows as a difference
    slope = np.add.outer(np.linspace(0, 127, shape[0]), np.linspace(0, 127, shape[1]))
    grey = np.rint(slope).astype(np.uint8)
    for size in (32, 64, 128, 256):
        centres = [(np.arange(size) + 0.5) * n / size - 0.5 for n in shape]
        expected = np.add.outer(*(127 * c / (n - 1) for c, n in zip(centres, shape, strict=True)))
        found = to_square(grey, size, "stretch").astype(float)
        assert abs(found - expected)[1:-1, 1:-1].max() < 1.5


def test_reducing_averages_instead_of_picking_pixels():
    stripes = np.zeros((256, 256), dtype=np.uint8)
    stripes[:, ::2] = 200

    assert abs(to_square(stripes, 32).astype(int) - 100).max() <= 2


def folder(root: Path, files: dict[str, bytes]) -> pd.DataFrame:
    (root / "Images").mkdir(exist_ok=True)
    for name, data in files.items():
        (root / "Images" / f"{name}.png").write_bytes(data)
    return pd.DataFrame(
        {
            "image_id": list(files),
            "path": [f"Images/{name}.png" for name in files],
            "patient_id": [str(i) for i in range(len(files))],
        }
    )


def ingest(root: Path, table: pd.DataFrame, n_workers: int = 2) -> Ingested:
    return ingest_images(root, table, size_px=16, n_workers=n_workers)


def test_pixels_and_rows_stay_together_when_bad_files_are_left_out(tmp_path):
    flat = {
        name: png_bytes(np.full((20, 20), level, np.uint8))
        for name, level in (("a", 10), ("b", 20), ("c", 30), ("d", 40))
    }
    flat["b"] = b"not an image"
    table = folder(tmp_path, flat)
    (tmp_path / "Images" / "d.png").unlink()

    found = ingest(tmp_path, table)

    assert found.table["image_id"].tolist() == ["a", "c"]
    assert found.table.index.tolist() == [0, 1]
    assert found.pixels[:, 8, 8].tolist() == [10, 30]
    assert [(f.where, f.code) for f in found.findings] == [
        ("Images/b.png", "D064"),
        ("Images/d.png", "D030"),
    ]
    assert {k: str(v) for k, v in found.table[list(IMAGE_COLUMNS)].dtypes.items()} == IMAGE_COLUMNS


def test_statistics_of_a_half_black_image_are_those_of_hand_computation(tmp_path):
    half = np.zeros((20, 20), dtype=np.uint8)
    half[:, 10:] = 100
    row = ingest(tmp_path, folder(tmp_path, {"a": png_bytes(half)})).table.iloc[0]

    assert row["mean_intensity"] == 50
    assert row["std_intensity"] == 50
    assert row["black_fraction"] == 0.5
    # one column of +100 and one of -100 among 18: the mean is 0, the variance 2 * 100**2 / 18
    assert row["sharpness"] == pytest.approx(2 * 100**2 / 18)


def test_sharpness_of_noise_is_that_of_every_eighth_row(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (41, 33), np.uint8)
    wide = noise.astype(np.int64)
    laplacian = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    laplacian -= 4 * wide[1:-1, 1:-1]

    row = ingest(tmp_path, folder(tmp_path, {"a": png_bytes(noise)})).table.iloc[0]

    assert row["sharpness"] == pytest.approx(np.var(laplacian[::8]))


def test_a_thumbnail_is_the_whole_frame_by_means_over_areas(tmp_path):
    frame = np.zeros((256, 512), dtype=np.uint8)
    frame[:, 256:] = 100
    frame[::2, 384:] = 200  # the last quarter is 150 on average
    found = ingest(tmp_path, folder(tmp_path, {"a": png_bytes(frame)}))

    assert found.thumbnails.shape == (1, THUMBNAIL_PX, THUMBNAIL_PX)
    assert found.thumbnails.dtype == np.uint8
    assert (found.thumbnails[0, :, :32] == 0).all()
    assert (found.thumbnails[0, :, 32:48] == 100).all()
    assert (found.thumbnails[0, :, 48:] == 150).all()


def test_the_sector_holds_its_dark_inside_and_no_mark_beside_it():
    plain = np.zeros((64, 64), dtype=np.uint8)
    plain[16:48, 8:56] = 90
    marked = plain.copy()
    marked[24:40, 20:44] = 0  # fluid
    marked[2:6, 2:12] = 200  # text
    black, full = np.zeros((64, 64), np.uint8), np.full((64, 64), 9, np.uint8)
    sector = 32 * 48 / 64**2

    found = sector_fractions(np.stack([plain, marked, black, full, plain]))

    assert found == [sector, sector, 0, 1, sector]
    assert sector_fractions(np.zeros((0, 64, 64), np.uint8)) == []


def test_text_in_a_file_is_listed_by_keyword_and_never_by_value(tmp_path):
    info = PngInfo()
    info.add_text("Author", "Somebody's name")
    info.add_text("Comment", "packed" * 99, zip=True)
    info.add_itxt("Author", "again")
    table = folder(tmp_path, {"a": png_bytes(GREY), "b": png_bytes(GREY, pnginfo=info)})

    assert ingest(tmp_path, table).table["png_text_keywords"].tolist() == ["", "Author, Comment"]


@pytest.mark.malformed("png")
def test_a_file_full_of_keywords_is_listed_in_part_and_control_characters_are_escaped():
    many = png_of(*(chunk(b"tEXt", f"key{i}".encode() + b"\0v") for i in range(40)))
    odd = png_of(chunk(b"tEXt", b"a\x1bb\0v"), chunk(b"tEXt", b"x" * 500))

    assert text_keywords(many).split(", ") == [
        *(f"key{i}" for i in range(MAX_KEYWORDS)),
        "and more",
    ]
    assert text_keywords(odd) == r"a\x1bb, " + "x" * 79


def test_images_that_cannot_fit_into_memory_are_refused_before_any_is_read(tmp_path):
    table = folder(tmp_path, {f"i{i}": b"not read" for i in range(100)})

    with pytest.raises(ResourceError, match="do not fit into memory"):
        ingest_images(tmp_path, table, size_px=1_000_000)


def test_no_file_outside_the_data_folder_is_ever_read(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(png_bytes(GREY))
    root = tmp_path / "root"
    root.mkdir()
    table = folder(root, {"good": png_bytes(GREY)})
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "Linked").symlink_to(outside)
    (root / "dangling.png").symlink_to(root / "none")
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    paths = [
        "link.png",
        "Linked/secret.png",
        "dangling.png",
        "pipe.png",
        "folder.png",
        "../outside/secret.png",
        str(outside / "secret.png"),
        "nul\0.png",
        "..",
    ]
    rows = pd.DataFrame({"image_id": paths, "path": paths, "patient_id": "1"})

    found = ingest(root, pd.concat([table, rows], ignore_index=True))

    assert found.table["image_id"].tolist() == ["good"]
    assert [f.where for f in found.findings] == paths
    assert {f.code for f in found.findings} <= {"D060", "D061"}


def test_a_file_that_is_not_the_listed_one_is_found(tmp_path):
    table = folder(tmp_path, {"a": png_bytes(GREY), "b": png_bytes(GREY), "c": png_bytes(GREY)})
    digest = decode_bytes(png_bytes(GREY), "a").file_sha256
    table["listed_sha256"] = pd.array([digest, "0" * 64, None], dtype="string")

    found = ingest(tmp_path, table)

    assert found.table["image_id"].tolist() == ["a", "c"]
    assert [f.code for f in found.findings] == ["D068"]


def test_the_number_of_workers_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    files = {f"i{i}": png_bytes(rng.integers(0, 255, (30, 40), np.uint8)) for i in range(20)}
    table = folder(tmp_path, files)
    ticks: list[tuple[int, int]] = []

    one = ingest(tmp_path, table, n_workers=1)
    many = ingest_images(
        tmp_path, table, size_px=16, n_workers=5, progress=lambda i, n: ticks.append((i, n))
    )

    assert one.table.equals(many.table)
    assert np.array_equal(one.pixels, many.pixels)
    assert ticks == [(i + 1, 20) for i in range(20)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Enough tiny files, one of them bad and one not the listed one, to be read by processes."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    files = {
        f"i{i}": png_bytes(rng.integers(0, 255, (5, 9), np.uint8))
        for i in range(LEAST_FOR_PROCESSES + 8)
    }
    files["i5"] = files["i5"][:-1]
    table = folder(root, files)
    table["listed_sha256"] = pd.array([None] * 7 + ["0" * 64] + [None] * 1000, dtype="string")
    return root, table


def assert_all_read(found: Ingested, root: Path, table: pd.DataFrame) -> None:
    by_threads = [ingest(root, part) for part in (table[:500], table[500:])]

    assert [f.where for f in found.findings] == ["Images/i5.png", "Images/i7.png"]
    assert found.findings == tuple(f for part in by_threads for f in part.findings)
    pd.testing.assert_frame_equal(
        found.table, pd.concat([part.table for part in by_threads], ignore_index=True)
    )
    assert np.array_equal(found.pixels, np.concatenate([part.pixels for part in by_threads]))
    assert np.array_equal(
        found.thumbnails, np.concatenate([part.thumbnails for part in by_threads])
    )


def test_processes_read_many_images_as_threads_read_few(many):
    root, table = many
    n_children: list[int] = []

    found = ingest_images(
        root,
        table,
        size_px=16,
        n_workers=2,
        processes=True,
        progress=lambda done, total: n_children.append(len(multiprocessing.active_children())),
    )

    assert max(n_children) == 2
    assert multiprocessing.active_children() == []
    assert_all_read(found, root, table)


def test_when_reading_processes_are_killed_threads_read_the_rest(many):
    root, table = many

    def kill(done: int, total: int) -> None:
        if done == 70:
            for child in multiprocessing.active_children():
                child.kill()

    assert_all_read(
        ingest_images(root, table, size_px=16, n_workers=2, processes=True, progress=kill),
        root,
        table,
    )


def test_a_process_killed_in_the_middle_of_its_answer_is_not_waited_for(many):
    root, table = many
    jobs: list[Job] = [(path, None) for path in table["path"][10:30]]
    reader = ImageReader(root, 300, "pad")  # an answer many times as long as a pipe holds
    with ReaderProcesses(reader, 1) as processes:
        [(process, connection)] = processes._started
        connection.send(jobs)
        assert connection.poll(60)  # its answer has begun, and nobody takes it
        process.kill()
        process.join()
        with pytest.raises((EOFError, OSError)):
            connection.recv()

        outcomes = processes.read(jobs)

    assert [outcome.facts["file_sha256"] for outcome in outcomes] == [
        outcome.facts["file_sha256"] for outcome in reader.read(jobs)
    ]


def test_reading_processes_end_with_their_parent(many):
    root, table = many
    table.to_parquet(root / "table.parquet")
    program = """
import multiprocessing, os, signal, sys
from pathlib import Path
import pandas as pd
from medisynth.data.reading.ingest import ingest_images

def die(done, total):
    if done == 70:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    table = pd.read_parquet(Path(sys.argv[1]) / "table.parquet")
    ingest_images(
        Path(sys.argv[1]), table, size_px=16, n_workers=2, processes=True, progress=die
    )
"""
    script = root / "program.py"
    script.write_text(program)
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, str(script), str(root)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert ended.returncode == -signal.SIGKILL
    pids = ended.stdout.split()
    assert len(pids) == 2
    # run() has returned, so none holds the standard output any more; the dead may await burial
    states = [
        path.read_text().rsplit(")", 1)[1].split()[0]
        for path in (Path("/proc", pid, "stat") for pid in pids)
        if path.exists()
    ]
    assert set(states) <= {"Z", "X"}


def test_an_interruption_ends_the_reading_at_once(tmp_path):
    table = folder(tmp_path, {f"i{i}": png_bytes(GREY) for i in range(50)})

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_images(tmp_path, table, size_px=16, n_workers=2, progress=stop)


def test_an_empty_table_gives_an_empty_result_with_all_columns(tmp_path):
    found = ingest(tmp_path, folder(tmp_path, {}))

    assert found.pixels.shape == (0, 16, 16)
    assert set(IMAGE_COLUMNS) <= set(found.table.columns)


def test_a_size_of_nothing_is_a_setting_error(tmp_path):
    with pytest.raises(SettingsError):
        ingest_images(tmp_path, folder(tmp_path, {}), size_px=0, n_workers=1)


def test_the_limit_of_pixels_is_the_documented_one():
    assert MAX_PIXELS == 25_000_000


def labelled(**changes: object) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "pixel_sha256": ["0" * 64, "1" * 64],
            "patient_id": ["1", "2"],
            "plane": ["Fetal brain"] * 2,
            "brain_plane": [None, "Other"],
            "operator": [None, None],
            "machine": ["E6", "E6"],
            "official_partition": [None, None],
            "path": ["x", "y"],
        }
    ).astype("string")
    for name, value in changes.items():
        table[name] = value
    return table


def test_the_data_set_digest_ignores_order_and_paths_but_no_label():
    digest = content_digest(labelled())

    assert digest == content_digest(labelled().iloc[::-1])
    assert digest == content_digest(labelled(path="elsewhere"))
    changed = [
        labelled(patient_id=["1", "1"]),
        labelled(pixel_sha256=["1" * 64, "0" * 64]),
        labelled(brain_plane=["", "Other"]),
        labelled(machine=["E6", None]),
        labelled().iloc[:1],
    ]
    assert digest not in {content_digest(table) for table in changed}


@needs_kit
def test_real_images_are_all_read_and_equal_their_published_digests():
    root = KIT / "african_planes"
    listing = locate_data_set(root)[0].list_images(root)
    table = listing.table[~missing_images(root, listing.table)]

    found = ingest(root, table)

    assert found.findings == ()
    assert len(found.table) == 125
    assert (found.table["file_sha256"] == found.table["listed_sha256"]).all()
    assert set(found.table["mode"]) == {"L"}  # Egyptian files are RGB with equal channels
    assert not found.table["synthetic_mark"].any()
    sizes = found.table.groupby("site")[["width_px", "height_px"]].nunique()
    assert (sizes == 1).all().all()
