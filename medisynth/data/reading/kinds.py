"""What a file is that is not what was expected: by its first bytes, its type, or where it links.

Each answer is what was found and what to do, for the sentence of an error.
"""

import re
import stat
from pathlib import Path
from typing import NamedTuple

START_BYTES = 1024  # enough to tell every kind below


class Kind(NamedTuple):
    """What a file is.

    Attributes:
        what: With its article, e.g. "a JPEG image".
        remedy: What to do to get the file that is needed, an order without a full stop.
    """

    what: str
    remedy: str


_CONVERT = "save it losslessly as 8-bit grey or RGB PNG at its own size"
_EXPORT = f"{_CONVERT}, without names burned in or in its metadata"
_UNPACK = "unpack it"
_AGAIN = "download it again"
_TABLE = "save the sheet as text (CSV, UTF-8)"

# offset, first bytes, kind; the first that fits is taken
_SIGNATURES: tuple[tuple[int, bytes, Kind], ...] = (
    (
        0,
        b"\xff\xd8\xff",
        Kind(
            "a JPEG image",
            "get the original, or add jpeg to data.convert.read to read it as it is",
        ),
    ),
    (0, b"II*\0", Kind("a TIFF image", "add tiff to data.convert.read")),
    (0, b"MM\0*", Kind("a TIFF image", "add tiff to data.convert.read")),
    (0, b"II+\0", Kind("a BigTIFF image", _CONVERT)),
    (0, b"MM\0+", Kind("a BigTIFF image", _CONVERT)),
    (0, b"GIF8", Kind("a GIF image", f"{_CONVERT}, one frame a file")),
    (0, b"\0\0\0\x0cjP", Kind("a JPEG 2000 image", _CONVERT)),
    (0, b"\xff\x4f\xff\x51", Kind("a JPEG 2000 image", _CONVERT)),
    (8, b"WEBP", Kind("a WebP image", _CONVERT)),
    (4, b"ftypavif", Kind("an AVIF image", _CONVERT)),
    (4, b"ftyphei", Kind("an HEIC image", _CONVERT)),
    (4, b"ftypmif1", Kind("an HEIC image", _CONVERT)),
    (4, b"ftyp", Kind("an MP4 film", "save single frames of it as PNG")),
    (8, b"AVI ", Kind("an AVI film", "save single frames of it as PNG")),
    (128, b"DICM", Kind("a DICOM file", "add dicom to data.convert.read")),
    (344, b"n+1\0", Kind("a NIfTI file", _EXPORT)),
    (344, b"ni1\0", Kind("a NIfTI header", _EXPORT)),
    (0, b"NRRD000", Kind("an NRRD file", _EXPORT)),
    (0, b"ObjectType = ", Kind("a MetaImage header", _EXPORT)),
    (0, b"\x93NUMPY", Kind("a NumPy array", _CONVERT)),
    (0, b"\x89HDF\r\n", Kind("an HDF5 file", "save its content as PNG images and a CSV table")),
    (0, b"MATLAB 5.0", Kind("a MATLAB file", "save its content as PNG images and a CSV table")),
    (0, b"\x1f\x8b", Kind("a gzip archive", f"{_UNPACK} (`gunzip`)")),
    (0, b"BZh", Kind("a bzip2 archive", f"{_UNPACK} (`bunzip2`)")),
    (0, b"\xfd7zXZ\0", Kind("an xz archive", f"{_UNPACK} (`unxz`)")),
    (0, b"\x28\xb5\x2f\xfd", Kind("a zstandard archive", f"{_UNPACK} (`unzstd`)")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7-Zip archive", _UNPACK)),
    (0, b"Rar!", Kind("a RAR archive", _UNPACK)),
    (257, b"ustar", Kind("a tar archive", f"{_UNPACK} (`tar xf`)")),
    (0, b"\xd0\xcf\x11\xe0", Kind("an old Excel or Word file", _TABLE)),
    (0, b"PAR1\x15", Kind("a Parquet table", "save it as text (CSV, UTF-8)")),
    (0, b"SQLite format 3", Kind("an SQLite database", "save the table as text (CSV, UTF-8)")),
    (0, b"%PDF", Kind("a PDF document", _AGAIN)),
    (0, b"\x00\x05\x16\x07", Kind("a macOS side file (AppleDouble)", "take the file of the data")),
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        Kind("a Git LFS pointer", "run `git lfs pull` where it was cloned, then copy the data"),
    ),
    (0, b"/annex/objects/", Kind("a git-annex pointer", "run `git annex get` and copy the data")),
    (0, b"../.git/annex/objects/", Kind("a git-annex pointer", "run `git annex get`")),
)
# a PNG that was sent as text: its signature is there to show that
_PNG_AS_TEXT = (b"\x89PNG\n", b"\x89PNG\r\r\n", b"\tPNG\r\n", b"\xef\xbf\xbdPNG", b"\xc2\x89PNG")
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
_SPECIAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of_content(data: bytes) -> Kind | None:
    """Tell what a file holds by its start; None for plain text and for what is not known.

    Args:
        data: The whole file or at least its first `START_BYTES` bytes.
    """
    if data.startswith(b"PK\x03\x04"):
        if b"[Content_Types].xml" in data[:START_BYTES] or b"xl/" in data[:START_BYTES]:
            return Kind("an Excel sheet or another Office file", _TABLE)
        return Kind("a ZIP archive", f"{_UNPACK} (`unzip`)")
    for offset, mark, kind in _SIGNATURES:
        if data.startswith(mark, offset):
            return kind
    if data.startswith(_PNG_AS_TEXT):
        return Kind("a PNG file changed by a transfer as text", "copy it again in binary mode")
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_WEB_PAGE):
        return Kind("a web page", _AGAIN)
    if re.match(rb"outs:\s*\n- (md5|hash|size|path):", start):
        return Kind("a DVC pointer", "run `dvc pull`")
    if data.startswith(b"BM") and b"\0" in data[:16]:
        return Kind("a BMP image", _CONVERT)
    if data and not any(data[:START_BYTES]):
        return Kind("nothing but zero bytes", "copy it again: the copy was not finished")
    return None


def special_kind(mode: int) -> str | None:
    """Name what is no regular file: "a folder", "a named pipe" …; None for a regular file.

    Args:
        mode: `st_mode` of its status.
    """
    return next((name for test, name in _SPECIAL if test(mode)), None)


def obstacle(path: Path) -> Kind | None:
    """Tell what lies at a path where a regular file or a link to one is expected.

    Returns:
        None for a regular file that is no link, and for a link to one; nothing is opened.

    Raises:
        FileNotFoundError: Nothing lies there.
        OSError: The path cannot be looked at.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        try:
            status = path.stat()
        except (FileNotFoundError, RuntimeError):
            return link_kind(path)
    special = special_kind(status.st_mode)
    return None if special is None else Kind(special, "put the file itself there")


def kind_at(path: Path) -> Kind | None:
    """Tell what a regular file holds by its start; None for another or unreadable one as well."""
    try:
        if obstacle(path) is not None:
            return None
        with path.open("rb") as stream:
            return kind_of_content(stream.read(START_BYTES))
    except OSError:
        return None


def link_kind(path: Path) -> Kind:
    """Tell what made a symbolic link, by its target, which is not repeated.

    Args:
        path: The link.
    """
    target = path.readlink().as_posix()
    broken = "" if path.exists() else " whose file is not there"
    if "annex/objects/" in target:
        get = (
            "run `git annex get .` and `git annex unlock .`"
            if broken
            else ("run `git annex unlock .`")
        )
        return Kind(f"a git-annex link{broken}", f"{get} in its repository")
    if ".dvc/" in target or "/files/md5/" in target:
        get = "`dvc pull`, " if broken else ""
        return Kind(
            f"a DVC link{broken}",
            f"run {get}`dvc config cache.type copy` and `dvc checkout --relink` in its repository",
        )
    if broken:
        return Kind(f"a symbolic link{broken}", "put the file itself there")
    return Kind("a symbolic link", "copy the data set with its links followed (`cp -rL`)")
