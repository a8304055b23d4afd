"""What was decoded once is not decoded again, and nothing in the cache can change a result."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medisynth.data.reading.cache import MAX_PACKS, IngestCache, reader_version
from medisynth.data.reading.ingest import IMAGE_COLUMNS, Ingested, ingest_images
from tests.places import ROOT

N_IMAGES = 12


def write_image(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for i in range(N_IMAGES):
        write_image(folder / f"{i}.png", i)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def ingest(root: Path, cache: Path | None, names: list[str] | None = None) -> Ingested:
    names = names or [f"{i}.png" for i in range(N_IMAGES)]
    table = pd.DataFrame({"image_id": names, "path": names})
    return ingest_images(root, table, size_px=16, n_workers=2, cache=cache)


def counts(found: Ingested) -> tuple[int, int, int]:
    return found.n_decoded, found.n_from_cache, len(found.findings)


def assert_same(one: Ingested, other: Ingested) -> None:
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=True)
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.thumbnails, other.thumbnails)
    assert one.findings == other.findings


def packs(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.pack"))


def test_a_second_run_decodes_nothing_and_finds_the_same(root, cache):
    plain = ingest(root, None)
    first, second = ingest(root, cache), ingest(root, cache)

    assert counts(plain) == counts(first) == (N_IMAGES, 0, 0)
    assert counts(second) == (0, N_IMAGES, 0)
    assert_same(plain, first)
    assert_same(plain, second)
    assert set(IMAGE_COLUMNS) <= set(second.table.columns)


def test_a_changed_file_is_seen_even_with_its_old_size_and_time(root, cache):
    ingest(root, cache)
    target = root / "3.png"
    status = target.stat()
    data = bytearray(target.read_bytes())
    data[-30] ^= 1  # damages the pixel data, keeps the length
    target.write_bytes(bytes(data))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    found = ingest(root, cache)

    assert counts(found) == (0, N_IMAGES - 1, 1)
    assert found.findings[0].where == "3.png"


def test_one_new_image_is_the_only_one_decoded(root, cache):
    ingest(root, cache)
    write_image(root / "3.png", 99)

    assert counts(ingest(root, cache)) == (1, N_IMAGES - 1, 0)
    assert counts(ingest(root, cache)) == (0, N_IMAGES, 0)


def test_a_copy_of_the_folder_under_other_names_is_known(root, cache):
    ingest(root, cache)
    (root / "0.png").rename(root / "renamed.png")

    assert counts(ingest(root, cache, ["renamed.png", "5.png"])) == (0, 2, 0)


def test_a_refused_file_is_judged_anew_each_time(root, cache):
    sound = (root / "3.png").read_bytes()
    (root / "3.png").write_bytes(b"not an image")
    assert counts(ingest(root, cache)) == (N_IMAGES - 1, 0, 1)
    assert counts(ingest(root, cache)) == (0, N_IMAGES - 1, 1)

    (root / "3.png").write_bytes(sound)
    assert counts(ingest(root, cache)) == (1, N_IMAGES - 1, 0)


def test_a_listed_digest_is_compared_for_cached_images_too(root, cache):
    ingest(root, cache)
    table = pd.DataFrame({"image_id": ["a"], "path": ["0.png"], "listed_sha256": ["0" * 64]})

    found = ingest_images(root, table, size_px=16, cache=cache)

    assert [f.code for f in found.findings] == ["D068"]


def test_another_size_or_fit_is_not_answered_from_the_cache(root, cache):
    ingest(root, cache)
    table = pd.DataFrame({"image_id": ["a"], "path": ["0.png"]})

    larger = ingest_images(root, table, size_px=20, cache=cache)
    stretched = ingest_images(root, table, size_px=16, fit="stretch", cache=cache)

    assert larger.n_from_cache == stretched.n_from_cache == 0
    assert larger.pixels.shape == (1, 20, 20)


@pytest.mark.parametrize("place", [0, 10, 45, 100, 1500, -1, -200, -3000])
def test_a_flipped_byte_anywhere_in_a_pack_costs_time_and_nothing_else(root, cache, place):
    first = ingest(root, cache)
    (pack,) = packs(cache)
    data = bytearray(pack.read_bytes())
    data[place] ^= 0x40
    pack.write_bytes(bytes(data))

    found = ingest(root, cache)

    assert found.n_decoded >= 1
    assert_same(first, found)
    assert counts(ingest(root, cache)) == (0, N_IMAGES, 0)  # put right
    assert len(packs(cache)) == 1


@pytest.mark.parametrize("length", [0, 7, 47, 60, 2000, 20_000])
def test_a_pack_cut_short_is_rewritten(root, cache, length):
    first = ingest(root, cache)
    (pack,) = packs(cache)
    pack.write_bytes(pack.read_bytes()[:length])

    assert_same(first, ingest(root, cache))
    assert counts(ingest(root, cache)) == (0, N_IMAGES, 0)


def test_a_pack_renamed_to_another_size_is_not_believed(root, cache):
    ingest(root, cache)
    (pack,) = packs(cache)
    pack.rename(pack.with_name(pack.name.replace("-16-pad-", "-16-stretch-")))
    table = pd.DataFrame({"image_id": ["a"], "path": ["0.png"]})

    found = ingest_images(root, table, size_px=16, fit="stretch", cache=cache)

    assert found.n_from_cache == 0


def test_folders_links_and_foreign_files_among_the_packs_are_passed_over(root, cache, tmp_path):
    first = ingest(root, cache)
    (pack,) = packs(cache)
    elsewhere = tmp_path / "elsewhere"
    pack.rename(elsewhere)
    pack.symlink_to(elsewhere)
    prefix = pack.name[: -len("0123456789abcdef.pack")]
    (pack.parent / f"{prefix}folder.pack").mkdir()
    (pack.parent / f"{prefix}text.pack").write_text("a text")
    (pack.parent / "notes.txt").write_text("kept")

    found = ingest(root, cache)

    assert found.n_from_cache == 0
    assert_same(first, found)
    assert (pack.parent / "notes.txt").read_text() == "kept"
    assert elsewhere.is_file()


def test_the_cache_is_private_and_leaves_the_users_folder_as_it_is(root, cache):
    cache.mkdir(mode=0o755)
    ingest(root, cache)
    (pack,) = packs(cache)

    assert stat.S_IMODE(cache.stat().st_mode) == 0o755
    assert stat.S_IMODE(pack.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(pack.stat().st_mode) == 0o600
    assert not list(cache.rglob("*.part"))


def test_a_cache_that_cannot_be_written_does_not_stop_the_reading(root, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")

    assert counts(ingest(root, blocked)) == (N_IMAGES, 0, 0)
    assert counts(ingest(root, Path("/proc/1/none"))) == (N_IMAGES, 0, 0)
    assert blocked.read_text() == "a file where the folder should be"


def test_a_full_disk_does_not_stop_the_reading():
    """A file size limit refuses the write as a full disk does; in a process of its own."""
    program = """
import resource, signal, sys, tempfile
from pathlib import Path
import numpy as np, pandas as pd
from PIL import Image
from medisynth.data.reading.ingest import ingest_images
with tempfile.TemporaryDirectory() as folder:
    root, cache = Path(folder), Path(folder) / "cache"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "a.png")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    table = pd.DataFrame({"image_id": ["a"], "path": ["a.png"]})
    found = ingest_images(root, table, size_px=16, cache=cache)
    print(found.n_decoded, len(found.findings), len(list(cache.rglob("*.p*"))))
"""
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert ended.stdout.split() == ["1", "0", "0"], ended.stderr


def facts_of(n: int) -> list[dict[str, object]]:
    return [{"file_sha256": f"{i:064}", "mean_intensity": i / 3} for i in range(n)]


def store(cache: Path, numbers: range, *, max_bytes: int = 10**9) -> None:
    facts = [facts_of(max(numbers) + 1)[i] for i in numbers]
    pixels = np.zeros((len(facts), 16, 16), np.uint8)
    thumbnails = np.zeros((len(facts), 64, 64), np.uint8)
    with IngestCache(cache, 16, "pad", max_bytes=max_bytes) as kept:
        for fact in facts:
            kept.find(str(fact["file_sha256"]))
        kept.store(facts, pixels, thumbnails)


def test_the_longest_unused_packs_are_removed_beyond_the_limit(cache):
    room = 30 * (16**2 + 64**2 + 1024)  # two packs of ten and their indexes, not three
    for turn in range(3):
        store(cache, range(10 * turn, 10 * turn + 10), max_bytes=room // 2)
        for pack in packs(cache):  # time passes
            status = pack.stat()
            os.utime(pack, ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))

    with IngestCache(cache, 16, "pad") as kept:
        held = [kept.find(f"{i:064}") is not None for i in range(30)]

    assert sum(pack.stat().st_size for pack in packs(cache)) <= room // 2
    assert not any(held[:10])
    assert all(held[20:])


def test_more_images_than_the_limit_holds_are_kept_in_part(cache):
    store(cache, range(100), max_bytes=50_000)

    assert 0 < sum(pack.stat().st_size for pack in packs(cache)) <= 50_000


def test_many_small_packs_become_one(cache):
    for last in range(1, MAX_PACKS + 2):
        store(cache, range(last))
        assert len(packs(cache)) <= MAX_PACKS

    assert len(packs(cache)) == 1
    with IngestCache(cache, 16, "pad") as kept:
        values = [kept.find(f"{i:064}") for i in range(MAX_PACKS + 1)]
    assert [v and v.facts["mean_intensity"] for v in values] == [
        i / 3 for i in range(MAX_PACKS + 1)
    ]


def test_several_processes_share_one_cache(root, cache):
    program = (
        "import sys; from pathlib import Path; import pandas as pd\n"
        "from medisynth.data.reading.ingest import ingest_images\n"
        f"names = [f'{{i}}.png' for i in range({N_IMAGES})]\n"
        "table = pd.DataFrame({'image_id': names, 'path': names})\n"
        "found = ingest_images(Path(sys.argv[1]), table, size_px=16, cache=Path(sys.argv[2]))\n"
        "print(len(found.table), found.table.mean_intensity.sum(), found.pixels.sum())\n"
    )
    command = [sys.executable, "-c", program, str(root), str(cache)]
    running = [
        subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in running}

    assert len(answers) == 1
    assert {process.returncode for process in running} == {0}
    assert counts(ingest(root, cache)) == (0, N_IMAGES, 0)


def test_the_reader_has_one_version_within_one_installation():
    assert reader_version() == reader_version()
    assert len(reader_version()) == 16
