"""Bytes on disk: digests, canonical JSON and the project's one atomic write."""

import contextlib
import errno
import hashlib
import os
import secrets
import shlex
import shutil
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import rfc8785

from governance.records.errors import RecordWriteError

_CHUNK_BYTES = 1 << 20
_SYNCS_AT_ONCE = 16  # file systems write what is asked for together in one go
WRITTEN_TOGETHER = 256  # so many files of a long series are held in memory and written together


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes, 64 lowercase hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 lowercase hex digits; reads in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def typed(path: Path) -> str:
    """Return a path as a person types it into a shell: from the current folder, and quoted."""
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    text = str(path.relative_to(Path.cwd()) if inside else path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without waiting: a pipe would hang, a device never end.

    Raises:
        OSError: It cannot be opened or is no regular file; `strerror` is the reason.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL character
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "is a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise OSError(errno.EINVAL, what, str(path))
    return os.fdopen(descriptor, "rb")


def canonical_json(value: Any) -> bytes:
    """Return RFC 8785 canonical JSON: equal values give equal bytes.

    Args:
        value: JSON data (dict, list, tuple, str, int, float, bool, None).

    Raises:
        rfc8785.CanonicalizationError: A float is not finite or an integer exceeds 2**53.
    """
    return rfc8785.dumps(value)


def working_name(path: Path) -> Path:
    """Return a new name beside a path for what becomes that path once it is whole.

    Files and folders made under it have the permissions that the umask leaves, while those of
    `tempfile` are private.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def utf8_only(value: Any) -> Any:
    """Return JSON data in which what is no UTF-8 stands written out, e.g. as backslash, "udce9".

    Bytes of a file name that are no UTF-8 are lone surrogates in Python: no record can hold them.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {utf8_only(key): utf8_only(part) for key, part in value.items()}
    return [utf8_only(part) for part in value] if isinstance(value, list | tuple) else value


def unwritable(path: Path, error: OSError, n_bytes: int = 0) -> RecordWriteError:
    """Return the error for a file that cannot be written.

    Args:
        path: The file.
        error: Why.
        n_bytes: Its size, 0 if unknown; on a full disk the message names it and what is free.
    """
    why = error.strerror or str(error)
    advice = "check permission and free space, or choose another folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = next(folder for folder in path.absolute().parents if folder.is_dir())
        with contextlib.suppress(OSError):
            why += f": {shutil.disk_usage(place).free:,} bytes are free"
            why += f", {n_bytes:,} needed for this file" if n_bytes else ""
        advice = "make room, or choose another folder"
    return RecordWriteError(f"{path}: cannot be written ({why}); {advice}")


def write_atomic(path: Path, data: bytes) -> str:
    """Write a whole file or nothing, survive a crash at any moment, and return its SHA-256.

    A temporary file in the same folder is written and synced, moved over the target, and the
    folder is synced. Missing parent folders are made. Who may read the file is what the umask says.

    Raises:
        RecordWriteError: The folder cannot be written or the disk is full.
    """
    _write_file(path, data)
    sync_folder(path.parent)
    return sha256_bytes(data)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files as `write_atomic` does, waiting for the disk once for all of them.

    Each file is whole or absent whenever the machine stops, and all are on disk on return.

    Raises:
        RecordWriteError: A file cannot be written; others may be in their place.
    """
    if len(files) == 1:
        for path, data in files.items():
            write_atomic(path, data)
        return
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as threads:
        for _ in threads.map(_write_file, files.keys(), files.values()):
            pass
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def _write_file(path: Path, data: bytes) -> None:
    """Write and sync a file and move it to its place; its folder is not synced."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = working_name(path)
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise unwritable(path, error, len(data)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Return after the names in a folder are on disk; RecordWriteError if that fails."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unwritable(folder, error) from error
