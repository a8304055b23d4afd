"""The vault: the encrypted copy of the test images, and its key.

One vault file and one key file for each run, neither in the run folder. Each image is encrypted by
itself (AES-256-GCM) with a fresh 96-bit nonce; its id and the digest of its leaf are authenticated
with it, so an image that was changed, moved or relabelled does not decrypt. A single file for all
images is written and synced once, appears whole or not at all, is removed in one step, and a
listing shows neither names nor sizes of single images.

Layout: magic, Merkle root, check value of the key, number of images; then for each image its nonce,
the length of the ciphertext with its tag, and these.

Source: NIST SP 800-38D (GCM); `cryptography`'s AESGCM does the work.
"""

import contextlib
import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from governance.records.errors import RecordWriteError, SealError

CIPHER = "AES-256-GCM, a nonce an image, bound to its id and leaf"
_MAGIC = b"MSVAULT1"
_HEADER = struct.Struct(">8s32s32sQ")  # magic, Merkle root, check value of the key, images
_ITEM = struct.Struct(">12sQ")  # nonce, length of the ciphertext with its tag
_TAG_BYTES, _KEY_BITS = 16, 256
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class VaultItem:
    """Id and binding of one encrypted image.

    Attributes:
        name: Its id, for messages.
        binding: Bytes that are authenticated with the image.
    """

    name: str
    binding: bytes


@dataclass(frozen=True)
class Vault:
    """The files of one run's encrypted test images and of their key.

    Attributes:
        path: Vault file.
        key_path: File of the key: 64 hex digits, readable by its owner alone.
    """

    path: Path
    key_path: Path

    def write(
        self, merkle_root: str, n_items: int, items: Iterable[tuple[VaultItem, bytes]]
    ) -> int:
        """Make a key and encrypt every image; all or nothing is on disk afterwards.

        Args:
            merkle_root: Root of the seal that the images belong to.
            n_items: Number of images.
            items: Each image's id and binding with its bytes, taken one at a time.

        Returns:
            Bytes of the vault file.

        Raises:
            SealError: There is a vault or a key of this name, or the number of images is not
                the announced one.
            RecordWriteError: A file cannot be written, or the file system of the key keeps no
                permissions.
        """
        if self.path.exists() or self.key_path.exists():
            raise SealError(
                f"{self.path}: this run has a vault or a key already; one run seals once"
            )
        key = AESGCM.generate_key(_KEY_BITS)
        _write_key(self.key_path, key)
        try:
            return self._write_items(key, merkle_root, n_items, items)
        except BaseException:
            with contextlib.suppress(OSError):
                self.key_path.unlink()  # useless without its vault
            raise

    def _write_items(
        self, key: bytes, root: str, n_items: int, items: Iterable[tuple[VaultItem, bytes]]
    ) -> int:
        cipher, n_done = AESGCM(key), 0
        with _whole_file(self.path) as stream:
            stream.write(_HEADER.pack(_MAGIC, bytes.fromhex(root), _check_value(key), n_items))
            for item, data in items:
                nonce = os.urandom(12)
                sealed = cipher.encrypt(nonce, data, item.binding)
                stream.write(_ITEM.pack(nonce, len(sealed)))
                stream.write(sealed)
                n_done += 1
            if n_done != n_items:
                raise SealError(f"{self.path}: {n_done} images came, expected {n_items}")
            return stream.tell()

    def check_present(self) -> None:
        """Check that both files exist, without opening them; SealError if one is missing."""
        for path, what in (
            (self.path, "vault of the test images"),
            (self.key_path, "key of the vault"),
        ):
            try:
                mode = path.lstat().st_mode
            except OSError as error:
                raise SealError(
                    f"{path}: the {what} cannot be found "
                    f"({error.strerror or error}); put the file back, or start a new run"
                ) from error
            if not stat.S_ISREG(mode):
                raise SealError(f"{path}: expected a regular file; put the {what} back")

    def read(self, merkle_root: str, items: Sequence[VaultItem]) -> Iterator[bytes]:
        """Read the key, then decrypt one image after the other, in the order they were written.

        Raises:
            SealError: Vault or key are missing, damaged, of another seal or readable by others,
                or an image is not the one that was sealed under its id.
        """
        key = _read_key(self.key_path)
        cipher = AESGCM(key)
        with _opened(self.path, "vault") as stream:
            self._check_header(stream, key, merkle_root, len(items))
            for item in items:
                nonce, n_bytes = _ITEM.unpack(self._take(stream, _ITEM.size, item.name))
                sealed = self._take(stream, n_bytes, item.name)
                try:
                    yield cipher.decrypt(nonce, sealed, item.binding)
                except InvalidTag as error:
                    raise SealError(
                        f"{self.path}: image {item.name[:80]!r} does not decrypt: it was changed, "
                        "or is not the one that was sealed under this id; restore the vault"
                    ) from error
            if stream.read(1):
                raise SealError(f"{self.path}: goes on after its last image; restore the vault")

    def remove(self) -> int:
        """Remove key and vault, the key first; return how many of the two files existed.

        Raises:
            RecordWriteError: A file cannot be removed.
        """
        n_removed = 0
        for path in (self.key_path, self.path):
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RecordWriteError(
                    f"{path}: cannot be removed ({error.strerror or error}); check permission"
                ) from error
            n_removed += 1
        return n_removed

    def _check_header(self, stream: BinaryIO, key: bytes, root: str, n_items: int) -> None:
        header = _HEADER.unpack(self._take(stream, _HEADER.size, "header"))
        magic, found_root, key_check, found_n = header
        if magic != _MAGIC:
            raise SealError(f"{self.path}: not a vault of this version; restore the vault")
        if found_root.hex() != root or found_n != n_items:
            raise SealError(
                f"{self.path}: {found_n} images of the seal {found_root.hex()[:12]}, expected "
                f"{n_items} of {root[:12]}; restore the vault of this run"
            )
        if key_check != _check_value(key):
            raise SealError(
                f"{self.key_path}: the key of another vault; put the key of {self.path.name} back"
            )

    def _take(self, stream: BinaryIO, n_bytes: int, name: str) -> bytes:
        # A damaged length must not allocate more memory than the file has bytes.
        left = os.fstat(stream.fileno()).st_size - stream.tell()
        if n_bytes > left:
            raise SealError(
                f"{self.path}: ends before {name[:80]!r} does ({left} bytes left, expected "
                f"{n_bytes}); restore the vault"
            )
        return stream.read(n_bytes)


def _check_value(key: bytes) -> bytes:
    """Return a value that tells a wrong key from a damaged image but reveals no key bits."""
    return hashlib.sha256(b"medisynth-gov vault key\x00" + key).digest()


def _write_key(path: Path, key: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
            stream.write(key.hex().encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    if mode & 0o077:
        path.unlink()
        raise RecordWriteError(
            f"{path.parent}: this file system keeps no permissions (a key file came out as "
            f"{mode:04o}, expected 0600); choose a folder elsewhere with seal.key_dir"
        )


def _read_key(path: Path) -> bytes:
    with _opened(path, "key of the vault") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        text = stream.read(4096)
    if mode & 0o077:
        raise SealError(
            f"{path}: readable by others ({mode:04o}, expected 0600), so it is no key any more; "
            f"find out who read it, then: chmod 600 {path}"
        )
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) * 8 != _KEY_BITS:
        raise SealError(f"{path}: no key, expected 64 hex digits; put the key of this run back")
    return key


@contextlib.contextmanager
def _opened(path: Path, what: str) -> Iterator[BinaryIO]:
    """Open a regular file, never through a link."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except OSError as error:
        raise SealError(
            f"{path}: {what} cannot be read ({error.strerror or error}); put the file back"
        ) from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SealError(f"{path}: {what} is not a regular file; put the file back")
        yield stream


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only once it is wholly on disk; mode 0600."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part"
        )
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> RecordWriteError:
    return RecordWriteError(
        f"{path}: cannot be written ({error.strerror or error}); "
        "check permission and free space: the encrypted copy takes as much as the test images"
    )
