"""Count this process's opens of sealed files, between sealing and opening."""

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class AccessLog:
    """Counts how often this process opens sealed files.

    It hears what Python's audit hook hears: `open` and all that is built on it. It does not hear
    reads by compiled code (pyarrow, torch storages, ctypes) and does not watch other processes: it
    finds mistakes but is no control. The control is confinement (`confine.py`).
    """

    def __init__(self, n_earlier: int = 0) -> None:
        self.n_opens = n_earlier  # opens counted by earlier processes of a resumed run
        self._files: frozenset[tuple[int, int]] = frozenset()
        self._paths: frozenset[str] = frozenset()

    def start(self, paths: Iterable[Path]) -> None:
        """Start counting opens of these files, under whatever name they are opened."""
        files = set()
        resolved = set()
        for path in paths:
            resolved.add(os.path.realpath(path))
            found = _identity(path)
            if found is not None:
                files.add(found)
        self._files, self._paths = frozenset(files), frozenset(resolved)
        with _listening:
            _listeners.add(self)
            _install_hook()

    def stop(self) -> int:
        """Stop counting and return the number of opens, earlier ones included."""
        with _listening:
            _listeners.discard(self)
        return self.n_opens

    def _hear(self, path: str | bytes) -> None:
        identity = _identity(path)
        known = identity in self._files or os.fsdecode(os.path.realpath(path)) in self._paths
        self.n_opens += known


_listening = threading.Lock()
_listeners: set[AccessLog] = set()
_hooks: list[object] = []


def _install_hook() -> None:
    """Install this process's one audit hook; it cannot be removed, only left idle."""
    if not _hooks:
        _hooks.append(_hook)
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _listeners or event != "open" or not isinstance(args[0], str | bytes):
        return
    for listener in tuple(_listeners):
        listener._hear(args[0])


def _identity(path: str | bytes | Path) -> tuple[int, int] | None:
    """Return device and inode of a file, equal for all its names; None without a file."""
    try:
        found = Path(os.fsdecode(path)).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
