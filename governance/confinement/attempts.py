"""Report a generator's attempts to reach what training must not, even if it hides the refusal.

Confinement (`confine.py`) refuses access; this module reports it, so that a generator cannot
swallow the refusal. It sees the events of Python's audit hook: opens, lists, links, changes,
commands, connections. It does not see compiled code (pyarrow, ctypes) or Python programs started
anew; a permission error of these is noticed only if it ends training.
"""

import errno
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.confinement.confine import attempt_read
from governance.records.partition import RefusedRead

NETWORK_TARGET, PROCESS_TARGET = "network", "files of another process"

_PATHS = {  # audit event -> way, positions of the paths among its arguments
    "open": ("open", (0,)),
    "sqlite3.connect": ("open", (0,)),
    "os.listdir": ("list", (0,)),
    "os.scandir": ("list", (0,)),
    "os.chdir": ("enter", (0,)),
    "os.link": ("hard link", (0, 1)),
    "os.symlink": ("symbolic link", (0, 1)),
    "os.rename": ("move", (0, 1)),
    "os.remove": ("remove", (0,)),
    "os.rmdir": ("remove", (0,)),
    "os.mkdir": ("change", (0,)),
    "os.truncate": ("change", (0,)),
    "os.chmod": ("change", (0,)),
    "ctypes.dlopen": ("load as library", (0,)),
}
_COMMANDS = {  # audit event -> positions of program, arguments and working folder
    "subprocess.Popen": (0, 1, 2),
    "os.exec": (0, 1),
    "os.posix_spawn": (0, 1),
    "os.spawn": (1, 2),
    "os.system": (0,),
    "pty.spawn": (0,),
}
_CONNECT = "socket.connect"
_ROOT_OF = re.compile(r"/proc/(?:\d+|self|thread-self)(?:/task/\d+)?/root(?=/|$)")
_PROCESS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/(?:root|cwd|fd|mem|map_files)(?:/|$)")
_QUOTED, _BETWEEN = re.compile(r"""['"]([^'"]+)['"]"""), re.compile(r"""[\s=:;,<>|&()'"]+""")
_MOST_WORDS = 200  # of one command


@dataclass(frozen=True)
class Named:
    """A forbidden target that was named: its description, and the path that named it."""

    target: str
    path: str


class ForbiddenPaths:
    """Finds which forbidden target, if any, a path leads to, under any of its names.

    Args:
        targets: Description -> path; what lies in a folder counts as the folder.
        allowed: What may be used although it lies in one of them.
    """

    def __init__(self, targets: Mapping[str, Path], allowed: Sequence[Path] = ()) -> None:
        self._targets = {os.path.realpath(path): target for target, path in targets.items()}
        self._allowed = tuple(os.path.realpath(path) for path in allowed)

    def named(self, path: str) -> Named | None:
        """Return the innermost forbidden target that a path is or lies in; None if it may be used.

        Links are followed. A link that may not be read (`/proc/PID/root` of another process) is
        judged by its name.
        """
        real = os.path.realpath(_ROOT_OF.sub("", path) or "/")
        if not any(_is_in(real, root) for root in self._allowed):
            around = [root for root in self._targets if _is_in(real, root)]
            if around:
                return Named(self._targets[max(around, key=len)], path)
        process = _PROCESS.match(path)
        if process is not None and int(process[1]) != os.getpid():
            return Named(PROCESS_TARGET, path)
        return None

    def named_in(self, text: str) -> Named | None:
        """Return the first forbidden target named in a command or error message; None for none."""
        words = [text, *_QUOTED.findall(text), *_BETWEEN.split(text)][:_MOST_WORDS]
        found = (self.named(word) for word in words if word and "\0" not in word)
        return next((named for named in found if named is not None), None)


class AttemptWatch:
    """Audit hook that reports each forbidden attempt once; for `sys.addaudithook`.

    It refuses nothing and raises nothing. It repeats each attempt itself, so that the report holds
    the system's own answer. Add it before confinement, whose fallback hook would otherwise refuse
    an attempt first, and start it afterwards.

    Args:
        forbidden: What must not be reached.
        report: Called with each attempt, in whichever process or thread made it.
        watch_tcp: Whether a TCP connection is an attempt, too.
    """

    def __init__(
        self,
        forbidden: ForbiddenPaths,
        report: Callable[[RefusedRead], None],
        *,
        watch_tcp: bool,
    ) -> None:
        self._forbidden, self._report = forbidden, report
        self._watch_tcp = watch_tcp
        self._seen: set[tuple[str, str]] = set()
        self._own = threading.local()  # marks what the watch itself causes
        self._is_on = False

    def start(self) -> None:
        """Start reporting attempts."""
        self._is_on = True

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Check one audit event for a forbidden attempt."""
        if event not in _PATHS and event not in _COMMANDS and event != _CONNECT:
            return
        if self._is_on and not getattr(self._own, "busy", False):
            with self._unheard():
                self._hear(event, args)

    def hear_error(self, error: BaseException) -> None:
        """Report a permission error that ended training, if it names something forbidden.

        Args:
            error: The error; its causes and the errors handled when it arose count, too.
        """
        for one in _chain(error):
            if isinstance(one, PermissionError):
                texts = [str(name) for name in (one.filename, one.filename2) if name is not None]
                with self._unheard():
                    for text in (*texts, str(one)):
                        self._try(self._forbidden.named_in(text), "error that ended training")

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        """Pause the audit hook while the watch opens files; ignore its own errors."""
        self._own.busy = True
        try:
            yield
        except (OSError, ValueError):
            pass  # a path or an address that no system call would take either; nobody listens
        finally:
            self._own.busy = False

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == _CONNECT:
            self._hear_connection(*args)
        elif event in _PATHS:
            way, places = _PATHS[event]
            for path in _texts([args[place] for place in places]):
                self._try(self._forbidden.named(path), way)
        else:
            for place in _COMMANDS[event]:
                given = args[place]
                parts = given if isinstance(given, list | tuple) else [given]
                for text in _texts([part for part in parts if part is not None]):
                    self._try(self._forbidden.named_in(text), "command")

    def _try(self, named: Named | None, way: str) -> None:
        if named is not None and self._is_new(named.target, way):
            answer = attempt_read(Path(named.path), named.target)
            self._report(answer.model_copy(update={"way": way}))

    def _hear_connection(self, connection: Any, address: Any) -> None:
        is_tcp = isinstance(address, tuple) and connection.type == socket.SOCK_STREAM
        if not (is_tcp and self._watch_tcp and self._is_new(NETWORK_TARGET, "connection")):
            return
        try:
            with socket.socket(connection.family, socket.SOCK_STREAM) as own:
                own.setblocking(False)
                number = own.connect_ex(address)
        except PermissionError as error:  # of the fallback's own audit hook
            number = error.errno or errno.EACCES
        is_refused = number in (errno.EACCES, errno.EPERM)
        name = f"PermissionError {number}" if is_refused else errno.errorcode.get(number, "")
        self._report(
            RefusedRead(target=NETWORK_TARGET, refused=is_refused, error=name, way="connection")
        )

    def _is_new(self, target: str, way: str) -> bool:
        known = (target, way) in self._seen
        self._seen.add((target, way))
        return not known


def _is_in(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _texts(given: Sequence[Any]) -> Iterator[str]:
    """Yield paths as text; None is the working folder, and open descriptors are left out."""
    for one in given:
        if one is None:
            yield "."
        elif isinstance(one, str | bytes | os.PathLike):
            yield os.fsdecode(one)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and the errors being handled, each once."""
    waiting, known = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) not in known:
            known.add(id(one))
            yield one
            waiting += [e for e in (one.__cause__, one.__context__) if e is not None]
            waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []
