"""The fallback where the kernel has no Landlock: a Python audit hook that refuses opens.

A courtesy, not a control: it hears what Python opens, lists, changes, starts or connects to, and
nothing that compiled code does (pyarrow, torch storages, ctypes).
"""

import os
from collections.abc import Sequence
from errno import EACCES
from pathlib import Path
from typing import Any

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LISTING = ("os.listdir", "os.scandir")
_CHANGES = {  # audit event -> positions of a path and of the folder descriptor it is relative to
    "os.truncate": ((0, None),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
}
# A program started anew would not have the hook.
_STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn")


class OpenGuard:
    """Audit hook that lets a process use the given folders only; for `sys.addaudithook`."""

    def __init__(self, read: Sequence[Path], write: Sequence[Path], *, allow_tcp: bool) -> None:
        self._writable = tuple(str(path.resolve()) for path in write)
        self._readable = self._writable + tuple(str(path.resolve()) for path in read)
        self._allow_tcp = allow_tcp

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Raise PermissionError when an audited event is not allowed."""
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            self._check(args[0], self._writable if flags & _WRITE_FLAGS else self._readable)
        elif event in _LISTING:
            self._check(args[0], self._readable)
        elif event in _CHANGES:
            for path, folder in _CHANGES[event]:
                if folder is None or args[folder] in (-1, None):
                    self._check(args[path], self._writable)
        elif event in _STARTS:
            raise PermissionError(EACCES, "no other program from the training process")
        elif event in ("socket.connect", "socket.bind"):
            self._check_address(args[1])

    def _check(self, path: Any, roots: tuple[str, ...]) -> None:
        if path is None:
            path = "."
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor that is open already
        real = os.path.realpath(os.fsdecode(path))
        if not any(real == root or real.startswith(f"{root}/") for root in roots):
            raise PermissionError(EACCES, "refused to the training process", os.fsdecode(path))

    def _check_address(self, address: Any) -> None:
        # Internet addresses are tuples, names of unix sockets are text.
        if isinstance(address, tuple) and not self._allow_tcp:
            raise PermissionError(EACCES, "no network for the training process")
