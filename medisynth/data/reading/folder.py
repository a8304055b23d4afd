"""Opening of image files: regular files inside the data folder, of limited size, nothing else."""

import os
import stat
from pathlib import Path, PurePosixPath

from medisynth.data.reading.decode import MAX_FILE_BYTES, image_fault
from medisynth.data.reading.kinds import link_kind, special_kind


class DataFolder:
    """Reads the files of a data folder; safe to use from several threads.

    Args:
        root: The folder.
        most_bytes: Largest file that is read.
    """

    def __init__(self, root: Path, *, most_bytes: int = MAX_FILE_BYTES) -> None:
        self._root, self._most_bytes = root.resolve(), most_bytes
        self._folder_of: dict[str, Path | None] = {}  # a path is resolved once a folder

    def read(self, path: str) -> bytes:
        """Read a regular file inside the folder; nothing else is opened.

        Args:
            path: POSIX path relative to the folder.

        Raises:
            DataError: It lies outside, is missing, a link, no regular file, too large or unreadable.
        """
        pure = PurePosixPath(path)
        folder = self._folder(str(pure.parent))
        if folder is None or pure.name in {"", ".."}:
            raise image_fault("D060", path, self._outside(pure))
        # O_NONBLOCK: a named pipe must not hold the run up before it is refused.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            if stat.S_ISLNK((folder / pure.name).lstat().st_mode):
                kind = link_kind(folder / pure.name)
                raise image_fault(
                    "D061", path, f"is {kind.what}, expected the image file itself; {kind.remedy}"
                )
            with open(os.open(folder / pure.name, flags), "rb") as stream:  # noqa: PTH123
                status = os.fstat(stream.fileno())
                if special := special_kind(status.st_mode):
                    raise image_fault("D061", path, f"is {special}, expected a PNG file")
                if status.st_size > self._most_bytes:
                    raise image_fault(
                        "D062",
                        path,
                        f"has {status.st_size:,} bytes, expected at most {self._most_bytes:,}",
                    )
                return stream.read(status.st_size + 1)
        except FileNotFoundError as error:
            raise image_fault("D030", path, "is listed but missing; complete the folder") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "unusable name"
            raise image_fault("D061", path, f"cannot be read ({reason}); check the file") from error

    def _outside(self, pure: PurePosixPath) -> str:
        """Say why a path leads out of the folder: by a link, named, or by itself."""
        for parent in reversed(pure.parents[:-1]):
            folder = self._root / parent
            if ".." not in parent.parts and folder.is_symlink():
                kind = link_kind(folder)
                return (
                    f"lies outside the data folder, as {parent.as_posix()!a} is {kind.what}; "
                    f"{kind.remedy}"
                )
        return "lies outside the data folder; expected a file inside it"

    def _folder(self, name: str) -> Path | None:
        """The folder with all links resolved; None if it then lies outside the root."""
        if name not in self._folder_of:
            try:
                folder = (self._root / name).resolve()
            except (OSError, RuntimeError, ValueError):
                return None
            self._folder_of[name] = folder if folder.is_relative_to(self._root) else None
        return self._folder_of[name]
