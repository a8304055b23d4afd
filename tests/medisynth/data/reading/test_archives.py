import stat
import struct
import zipfile

import pytest

from governance.records.errors import DataError, ResourceError
from medisynth.data.reading.archive import unpack_zip

LIMITS = {"max_files": 100, "max_bytes": 1_000_000, "max_ratio": 100.0}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out" / "set"


def packed(tmp_path, members, *, method=zipfile.ZIP_STORED):
    """A ZIP of (name or ZipInfo, bytes) pairs, written as they are, two of one name included."""
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def info(name, mode, **fields):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def refused(archive, folder, code, match, **limits):
    with pytest.raises(DataError, match=match) as caught:
        unpack_zip(archive, folder, **{**LIMITS, **limits})
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert not folder.parent.exists() or not any(folder.parent.iterdir())


def test_a_plain_archive_is_unpacked_byte_for_byte(tmp_path, folder):
    members = [("Images/", b""), ("Images/a.png", bytes(range(256)) * 12), ("data.csv", b"x;y\n")]
    archive = packed(tmp_path, members, method=zipfile.ZIP_DEFLATED)
    told = []

    names = unpack_zip(archive, folder, **LIMITS, progress=lambda *done: told.append(done))

    assert names == ("Images/a.png", "data.csv")
    assert (folder / "Images" / "a.png").read_bytes() == bytes(range(256)) * 12
    assert (folder / "data.csv").read_bytes() == b"x;y\n"
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [path.name for path in folder.parent.iterdir()] == ["set"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_an_empty_folder_is_filled(tmp_path, folder):
    folder.mkdir(parents=True)

    unpack_zip(packed(tmp_path, [("a", b"1")]), folder, **LIMITS)

    assert (folder / "a").read_bytes() == b"1"


def test_a_folder_with_a_file_in_it_is_left_alone(tmp_path, folder):
    folder.mkdir(parents=True)
    (folder / "mine").write_text("mine")

    with pytest.raises(DataError, match="nothing is overwritten") as caught:
        unpack_zip(packed(tmp_path, [("mine", b"theirs")]), folder, **LIMITS)

    assert caught.value.code == "D099"
    assert (folder / "mine").read_text() == "mine"


@pytest.mark.malformed("archive")
@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside",
        "a/../../outside",
        "a//b",
        "./a",
        "..",
        "C:/a",
        "a\\..\\b",
        "bell\x07",
        "right\u202eto left",
        "line\nbreak",
        "zero\x00.png",
        "ends.",
        "ends ",
        "x" * 256,
        "/".join(["d" * 200] * 6),
    ],
)
def test_a_name_that_leads_elsewhere_or_cannot_be_shown_is_refused(name, tmp_path, folder):
    # zipfile cleans some names as it writes them, so they are put in place afterwards.
    stand_in = "@" * len(name.encode())
    path = packed(tmp_path, [("good", b"1"), (stand_in, b"2")])
    data = path.read_bytes().replace(stand_in.encode(), name.encode())
    if not name.isascii():
        data = as_utf8(data)
    path.write_bytes(data)

    refused(path, folder, "D091", "the name of member")


def as_utf8(data):
    """Set the flag "name is UTF-8" in every header."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            (flags,) = struct.unpack_from("<H", changed, at + offset)
            struct.pack_into("<H", changed, at + offset, flags | 0x800)
            at = data.find(mark, at + 1)
    return bytes(changed)


@pytest.mark.malformed("archive")
@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (stat.S_IFLNK, "is a link"),
        (stat.S_IFIFO, "is a special file"),
        (stat.S_IFCHR, "is a special file"),
        (stat.S_IFSOCK, "is a special file"),
        (stat.S_IFDIR, "named like a folder but is a file, or the reverse"),
    ],
)
def test_links_and_special_files_are_refused(kind, word, tmp_path, folder):
    archive = packed(tmp_path, [("good", b"1"), (info("bad", kind | 0o777), b"/etc/passwd")])

    refused(archive, folder, "D092", f"'bad' .*{word}")


@pytest.mark.malformed("archive")
def test_an_encrypted_member_is_refused(tmp_path, folder):
    path = packed(tmp_path, [("secret", b"1")])
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)

    refused(path, folder, "D092", "'secret' is encrypted")


@pytest.mark.malformed("archive")
def test_a_method_other_than_stored_and_deflated_is_refused(tmp_path, folder):
    archive = packed(tmp_path, [("a", b"1" * 100)], method=zipfile.ZIP_LZMA)

    refused(archive, folder, "D092", "packed by method 14")


def test_a_folder_with_content_is_refused(tmp_path, folder):
    archive = packed(tmp_path, [(info("a/", stat.S_IFDIR | 0o755), b"")])
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\x01\x02") + 24, 5)  # unpacked size
    archive.write_bytes(data)

    refused(archive, folder, "D092", "is a folder with content", max_ratio=1000.0)


@pytest.mark.malformed("archive")
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "a.png"),
        ("A.png", "a.png"),
        ("straße", "STRASSE"),
        ("\u00e9.png", "e\u0301.png"),
        ("a/", "a"),
        ("a", "a/b"),
        ("Images/x", "images"),
    ],
)
def test_two_members_for_one_file_are_refused(names, tmp_path, folder):
    refused(packed(tmp_path, [(name, b"") for name in names]), folder, "D093", "member")


@pytest.mark.malformed("archive")
def test_too_many_members_are_refused(tmp_path, folder):
    archive = packed(tmp_path, [(str(k), b"") for k in range(6)])

    refused(archive, folder, "D094", "has 6 members, expected at most 5", max_files=5)


@pytest.mark.malformed("archive")
def test_too_many_bytes_are_refused(tmp_path, folder):
    archive = packed(tmp_path, [("a", b"1" * 60), ("b", b"2" * 60)])

    refused(archive, folder, "D094", "would unpack to 120 bytes", max_bytes=119)


@pytest.mark.malformed("archive")
def test_a_member_that_swells_is_refused(tmp_path, folder):
    archive = packed(tmp_path, [("bomb", bytes(500_000))], method=zipfile.ZIP_DEFLATED)

    refused(archive, folder, "D094", "'bomb' unpacks .* bytes to 500000")


@pytest.mark.malformed("archive")
def test_a_member_that_unpacks_to_more_than_it_says_is_damaged(tmp_path, folder):
    archive = packed(tmp_path, [("liar", b"ab" * 500)], method=zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\x01\x02") + 24, 10)
    archive.write_bytes(data)

    refused(archive, folder, "D095", "'liar' is damaged")


@pytest.mark.malformed("archive")
def test_a_damaged_member_is_named_and_nothing_is_left(tmp_path, folder):
    archive = packed(tmp_path, [("good", b"1"), ("bad.png", b"unmistakable")])
    archive.write_bytes(archive.read_bytes().replace(b"unmistakable", b"unmistakably"))

    refused(archive, folder, "D095", r"set\.zip: member 'bad\.png' is damaged \(Bad CRC-32")


@pytest.mark.malformed("archive")
def test_damaged_packed_bytes_are_named(tmp_path, folder):
    archive = packed(tmp_path, [("a.png", bytes(range(256)) * 9)], method=zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    data[36:60] = b"\xff" * 24  # behind the header of 30 bytes and the name
    archive.write_bytes(data)

    refused(archive, folder, "D095", r"'a\.png' is damaged")


@pytest.mark.malformed("archive")
def test_a_header_that_names_another_file_than_the_directory_is_refused_unwritten(tmp_path, folder):
    archive = packed(tmp_path, [("good", b"1"), ("seen", b"2")])
    archive.write_bytes(archive.read_bytes().replace(b"seen", b"evil", 1))

    refused(archive, folder, "D095", "'seen' is damaged")


@pytest.mark.malformed("archive")
@pytest.mark.parametrize("content", [b"", b"<html>please log in</html>", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path, folder):
    path = tmp_path / "set.zip"
    path.write_bytes(content)

    refused(path, folder, "D090", r"set\.zip: no readable ZIP archive")


def test_an_archive_that_is_not_there_is_named(tmp_path, folder):
    with pytest.raises(ResourceError, match=r"absent\.zip: No such file"):
        unpack_zip(tmp_path / "absent.zip", folder, **LIMITS)


def test_stopping_leaves_nothing_behind(tmp_path, folder):
    def stop(done, _total):
        if done == 2:
            raise KeyboardInterrupt

    archive = packed(tmp_path, [(str(k), b"1") for k in range(5)])

    with pytest.raises(KeyboardInterrupt):
        unpack_zip(archive, folder, **LIMITS, progress=stop)

    assert not any(folder.parent.iterdir())
    unpack_zip(archive, folder, **LIMITS)
    assert len(list(folder.iterdir())) == 5


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, folder, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 7, 3))

    with pytest.raises(ResourceError, match="needed to unpack") as caught:
        unpack_zip(packed(tmp_path, [("a", b"1234")]), folder, **LIMITS)

    assert caught.value.exit_code == 7
    assert not folder.exists()
