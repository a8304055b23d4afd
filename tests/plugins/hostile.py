"""A generator that wants to see the images it must not: every way it knows, while it is fitted.

What came of each way is logged as a curve, 1 for refused and 0 for reached: nothing is kept.
"""

import ctypes
import errno
import mmap
import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from governance.records.training import FitReport
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from tests.plugins.pca_gaussian import PcaGaussian, PcaGaussianSettings

REFUSED = (errno.EACCES, errno.EPERM, errno.EXDEV)  # a link out of reach is as to another disk


class HostileSettings(PcaGaussianSettings):
    """Settings: what it wants, and what it does when it is refused.

    Attributes:
        image: An image that it must not read.
        ways: Names of the ways to try; empty for all.
        after: "swallow" goes on as if nothing had been, "raise" lets the last refusal end it.
        processes: Start method of a child process that tries for it; "" tries itself.
        rank: Only this one of several training processes tries; None for all.
    """

    image: str
    ways: tuple[str, ...] = ()
    after: Literal["swallow", "raise"] = "swallow"
    processes: Literal["", "fork", "spawn"] = ""
    rank: int | None = None


def _open(image: Path) -> None:
    image.open("rb").read(1)


def _memmap(image: Path) -> None:
    np.memmap(image, np.uint8, "r")


def _pyarrow(image: Path) -> None:
    import pyarrow

    pyarrow.OSFile(str(image)).read(1)


def _pyarrow_memory_map(image: Path) -> None:
    import pyarrow

    pyarrow.memory_map(str(image)).read(1)


def _cat(image: Path) -> None:
    done = subprocess.run(["/bin/cat", str(image)], capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        raise PermissionError(errno.EACCES, done.stderr.decode()[:200])


def _shell(image: Path) -> None:
    done = subprocess.run(  # noqa: S602
        f"cat < '{image}'", shell=True, capture_output=True, check=False
    )
    if done.returncode:
        raise PermissionError(errno.EACCES, done.stderr.decode()[:200])


def _symlink(image: Path) -> None:
    link = Path("own symlink")
    link.unlink(missing_ok=True)
    link.symlink_to(image)
    link.read_bytes()


def _hard_link(image: Path) -> None:
    Path("own hard link").hardlink_to(image)
    Path("own hard link").read_bytes()


def _move(image: Path) -> None:
    image.rename("own copy")


def _ctypes(image: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.open(os.fsencode(image), os.O_RDONLY)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mmap.mmap(descriptor, 1, prot=mmap.PROT_READ)


def _below_a_folder(image: Path) -> None:
    # A descriptor for the name alone (O_PATH) is given to everybody; what is below it is not.
    folder = os.open(image.parent, os.O_PATH | os.O_DIRECTORY)
    os.read(os.open(image.name, os.O_RDONLY, dir_fd=folder), 1)


def _list(image: Path) -> None:
    os.listdir(image.parent)  # noqa: PTH208 - as a stranger would write it


def _parents_root(image: Path) -> None:
    Path(f"/proc/{os.getppid()}/root{image}").read_bytes()


def _sqlite(image: Path) -> None:
    try:
        sqlite3.connect(image).execute("PRAGMA schema_version")
    except sqlite3.OperationalError as error:
        raise PermissionError(errno.EACCES, str(error)) from error


def _connect(_image: Path) -> None:
    socket.create_connection(("127.0.0.1", 9), timeout=5).close()


WAYS: dict[str, Callable[[Path], None]] = {
    "open": _open,
    "memmap": _memmap,
    "pyarrow": _pyarrow,
    "pyarrow memory map": _pyarrow_memory_map,
    "cat": _cat,
    "shell": _shell,
    "symlink": _symlink,
    "hard link": _hard_link,
    "move": _move,
    "ctypes": _ctypes,
    "below a folder": _below_a_folder,
    "list": _list,
    "parent's root": _parents_root,
    "sqlite": _sqlite,
    "connect": _connect,
}
# Ways that Python's audit hook does not hear: refused all the same.
UNHEARD = ("pyarrow", "pyarrow memory map", "ctypes")


def refused(way: str, image: Path) -> bool:
    """Whether one way was refused; an answer that is no refusal is an error."""
    try:
        WAYS[way](image)
    except OSError as error:
        if error.errno not in REFUSED and "Permission denied" not in str(error):
            raise
        return True
    return False


def _in_child(ways: tuple[str, ...], image: Path) -> None:
    answers = [refused(way, image) for way in ways]
    raise SystemExit(0 if all(answers) else 2)


class Hostile(PcaGaussian):
    """The example generator, after it tried everything."""

    name = "hostile"
    title = "A generator that wants to see the test set"
    Settings = HostileSettings

    def __init__(self, settings: HostileSettings) -> None:
        super().__init__(settings)
        self._wanted = settings

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Try, then fit as if nothing had been."""
        image, ways = Path(self._wanted.image), self._wanted.ways or tuple(WAYS)
        if self._wanted.rank not in (None, int(os.environ.get("RANK", "0"))):
            ways = ()
        if self._wanted.processes:
            child = get_context(self._wanted.processes).Process(
                target=_in_child, args=(ways, image)
            )
            child.start()
            child.join()
            context.log("child", 0, {"exit code": float(child.exitcode or 0)})
        elif self._wanted.after == "swallow":
            for way in ways:
                context.log("attempts", 0, {way: float(refused(way, image))})
        else:
            for way in ways:
                WAYS[way](image)
        return super().fit(training, tuning, context)
