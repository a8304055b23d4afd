"""A count of opens of sealed files by this process, between sealing and opening."""

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class AccessLog:
    """Counts how often this process opens sealed files.

    It hears what Python's audit hook hears: `open` and what is built on it. Reads by compiled
    code (pyarrow, torch storages, ctypes) are not heard and other processes are not watched: a
    courtesy that finds mistakes, not a control. The control is confinement (`confine.py`).
    """

    def __init__(self, n_earlier: int = 0) -> None:
        self.n_opens = n_earlier  # of a run that is resumed: what an earlier process counted
        self._files: frozenset[tuple[int, int]] = frozenset()
        self._paths: frozenset[str] = frozenset()

    def start(self, paths: Iterable[Path]) -> None:
        """Count from now on opens of these files, under whatever name they are opened."""
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
        """Stop counting; return the opens since `start`."""
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
    """Install the one audit hook of this process; it cannot be removed, only left idle."""
    if not _hooks:
        _hooks.append(_hook)
        sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _listeners or event != "open" or not isinstance(args[0], str | bytes):
        return
    for listener in tuple(_listeners):
        listener._hear(args[0])


def _identity(path: str | bytes | Path) -> tuple[int, int] | None:
    """Device and number of a file, equal for all its names; None when there is no such file."""
    try:
        found = Path(os.fsdecode(path)).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
