"""Unpacking of untrusted ZIP archives: every member is checked before a byte is written."""

import errno
import os
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from governance.records.errors import DataError, ResourceError, first_line
from governance.records.files import working_name

MAX_NAME_BYTES = 255  # of one part of a path, on common file systems
MAX_PATH_BYTES = 1024
_BLOCK_BYTES = 1 << 20
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: written by a system without such kinds
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)

Progress = Callable[[int, int], None]


def unpack_zip(
    archive: Path,
    folder: Path,
    *,
    max_files: int,
    max_bytes: int,
    max_ratio: float,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Unpack a ZIP archive into a new folder, whole or not at all.

    Args:
        archive: ZIP file.
        folder: Folder to make; it may exist if it is empty.
        max_files: Most members, folders included.
        max_bytes: Most bytes of all members together, unpacked.
        max_ratio: Most unpacked bytes for one packed byte, of any member.
        progress: Called after each member with members done and members in all; may raise to stop,
            which leaves nothing behind.

    Returns:
        Names of the files, in the archive's order.

    Raises:
        DataError: D090 no readable ZIP; D091 a name that leads elsewhere or cannot be shown; D092
            a link, special, encrypted or strangely packed member; D093 two names for one file;
            D094 more than the limits; D095 a damaged member; D099 the folder is not empty.
        ResourceError: The disk has no room or refuses to be written.
    """
    _check_target(folder)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check_limits(archive, members, max_files, max_bytes, max_ratio)
            for member in members:
                _check_name(archive, member)
                _check_kind(archive, member)
            _check_collisions(archive, members)
            for member in members:
                _check_header(archive, opened, member)
            _check_room(folder, sum(member.file_size for member in members))
            _unpack(archive, opened, members, folder, progress)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(
            f"{archive.name}: no readable ZIP archive ({error}); fetch it again", code="D090"
        ) from error
    except OSError as error:
        raise _disk_fault(archive, folder, error) from error
    return tuple(member.filename for member in members if not member.is_dir())


def _check_target(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DataError(f"{folder}: exists and is no folder; choose another", code="D099")
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            f"{folder}: is not empty and nothing is overwritten; choose a new folder", code="D099"
        )


def _check_limits(
    archive: Path,
    members: Sequence[zipfile.ZipInfo],
    max_files: int,
    max_bytes: int,
    max_ratio: float,
) -> None:
    if len(members) > max_files:
        raise _refused(archive, "D094", f"has {len(members)} members, expected at most {max_files}")
    n_bytes = sum(member.file_size for member in members)
    if n_bytes > max_bytes:
        raise _refused(
            archive, "D094", f"would unpack to {n_bytes} bytes, expected at most {max_bytes}"
        )
    for member in members:
        if member.file_size > max_ratio * max(member.compress_size, 1):
            raise _refused(
                archive,
                "D094",
                f"member {_shown(member)} unpacks {member.compress_size} bytes to "
                f"{member.file_size}, expected at most {max_ratio:g} times as many",
            )


def _check_name(archive: Path, member: zipfile.ZipInfo) -> None:
    # zipfile cuts `filename` at a zero byte; what the archive says is in `orig_filename`.
    name = member.orig_filename
    parts = name.removesuffix("/").split("/")
    if not name.isprintable():
        fault = "cannot be shown"
    elif "\\" in name or ":" in name:
        fault = "holds a backslash or a colon"
    elif any(part in ("", ".", "..") for part in parts):
        fault = "leads out of the folder or nowhere"
    elif any(part != part.rstrip(". ") for part in parts):
        fault = "ends with a dot or a blank"
    elif len(name.encode()) > MAX_PATH_BYTES or any(
        len(part.encode()) > MAX_NAME_BYTES for part in parts
    ):
        fault = "is too long"
    else:
        return
    raise _refused(archive, "D091", f"the name of member {_shown(member)} {fault}")


def _check_kind(archive: Path, member: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in _KINDS:
        fault = "is a link" if kind == stat.S_IFLNK else "is a special file"
    elif member.is_dir() != (kind == stat.S_IFDIR) and kind != 0:
        fault = "is named like a folder but is a file, or the reverse"
    elif member.is_dir() and member.file_size:
        fault = "is a folder with content"
    elif member.flag_bits & _ENCRYPTED:
        fault = "is encrypted"
    elif member.compress_type not in _METHODS:
        fault = f"is packed by method {member.compress_type}, expected stored or deflated"
    else:
        return
    raise _refused(archive, "D092", f"member {_shown(member)} {fault}")


def _check_collisions(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse two names that some file system takes for one, and a file that is also a folder."""
    seen: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        key = _key(member.filename)
        if key in seen:
            raise _refused(
                archive,
                "D093",
                f"members {_shown(seen[key])} and {_shown(member)} have one name on some systems",
            )
        seen[key] = member
    for member in members:
        parts = _key(member.filename).split("/")
        for depth in range(1, len(parts)):
            above = seen.get("/".join(parts[:depth]))
            if above is not None and not above.is_dir():
                raise _refused(
                    archive,
                    "D093",
                    f"member {_shown(above)} is a file and the folder of {_shown(member)}",
                )


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.removesuffix("/")).casefold()


def _check_header(archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse a member whose own header differs from its entry in the archive's directory."""
    try:
        opened.open(member).close()
    except _DAMAGED as error:
        raise _damaged(archive, member, error) from error


def _check_room(folder: Path, n_bytes: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < n_bytes:
        raise ResourceError(
            f"{folder.parent}: {free / 1e6:,.0f} MB free, {n_bytes / 1e6:,.0f} MB needed to "
            "unpack; make room or choose another disk"
        )


def _unpack(
    archive: Path,
    opened: zipfile.ZipFile,
    members: Sequence[zipfile.ZipInfo],
    folder: Path,
    progress: Progress | None,
) -> None:
    temporary = working_name(folder)
    temporary.mkdir()
    try:
        for k, member in enumerate(members, start=1):
            target = temporary / member.filename
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                _write_member(archive, opened, member, target)
            if progress is not None:
                progress(k, len(members))
        temporary.rename(folder)  # fails if somebody filled the folder meanwhile
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_member(
    archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path
) -> None:
    with target.open("xb") as out:
        try:
            # Never more than the directory says; zipfile compares the checksum at the end.
            with opened.open(member) as stream:
                while block := stream.read(_BLOCK_BYTES):
                    out.write(block)
        except _DAMAGED as error:
            raise _damaged(archive, member, error) from error
        if out.tell() != member.file_size:
            raise _damaged(archive, member, EOFError(f"{out.tell()} bytes"))


def _shown(member: zipfile.ZipInfo) -> str:
    return ascii(member.orig_filename[:120])


def _refused(archive: Path, code: str, fault: str) -> DataError:
    return DataError(
        f"{archive.name}: {fault}; nothing was unpacked, ask the publisher for a plain archive",
        code=code,
    )


def _damaged(archive: Path, member: zipfile.ZipInfo, error: Exception) -> DataError:
    reason = first_line(error) or "ends too early"
    return DataError(
        f"{archive.name}: member {_shown(member)} is damaged ({reason}); nothing was unpacked, "
        "fetch the archive again",
        code="D095",
    )


def _disk_fault(archive: Path, folder: Path, error: OSError) -> ResourceError | DataError:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return DataError(
            f"{folder}: is not empty and nothing is overwritten; choose a new folder", code="D099"
        )
    what = os.fsdecode(error.filename) if error.filename else str(archive)
    return ResourceError(
        f"{what}: {error.strerror or error}; nothing was unpacked, check permission and free space"
    )
