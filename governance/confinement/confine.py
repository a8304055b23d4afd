"""Confinement of the training process to the files it was given.

On Linux 5.13 and later Landlock enforces it, in the kernel, without root, for this process and all
that it starts; it cannot be undone. Elsewhere a Python audit hook refuses what Python opens: that
catches mistakes but stops no determined attacker. The level that was in force is always reported.

Source: Linux, Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

import contextlib
import ctypes
import os
import platform
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from errno import EACCES, ENOSYS, EOPNOTSUPP, EPERM
from pathlib import Path
from typing import Any

from governance.records.errors import IsolationError
from governance.records.partition import RefusedRead

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
    """Audit hook that refuses all but the given folders; for `sys.addaudithook`."""

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


LEVEL_NAMES: dict[int, str] = {
    0: "index lists",
    1: "manifest checked at decode",
    2: "separate process with clean environment and packed view",
    3: "separate process with clean environment and packed view, confined by Landlock",
    4: "separate process with clean environment and packed view, confined by Landlock; sealed copy "
    "of the test images encrypted at rest, key outside the view",
    5: "as level 4, and key held by somebody else",
}

LIMITS: tuple[str, ...] = (
    "Made against mistakes and temptation inside a team, not against the owner of the machine, "
    "who can rebuild a whole consistent history unless somebody else holds the head of the chain.",
    "A public data set cannot be kept secret: whoever has network access or another copy has it.",
    "Confinement goes by path: a copy of a test image, or a hard link to one made earlier, inside "
    "a folder that training may read is not recognised.",
    "Training cannot read these files but can see that they exist: under Landlock, names and sizes "
    "of files whose path is known, and the environment of other processes of the same user, can "
    "still be seen.",
    "TCP is refused from Landlock ABI 4 on; UDP and other kinds of network traffic are not.",
    "Only the sealed copy is encrypted; the originals stay readable for the user, and so do vault "
    "and key, which lie on the same machine; steps before and after training run as that user. "
    "Only the training process is kept from all of them.",
    "Below level 3 a Python audit hook refuses opens; compiled code is not stopped by it.",
)

VAULT_TARGET, KEY_TARGET = "vault of the sealed images", "key of the vault"

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # one number on all current machines
_MACHINES = ("x86_64", "aarch64")
_PR_SET_NO_NEW_PRIVS, _RULE_PATH_BENEATH, _QUERY_VERSION = 38, 1, 1

# Bits of LANDLOCK_ACCESS_FS_*, in the order of their numbers.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_ABI1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_MAKE_DEVICES = (1 << 6) | (1 << 11)  # character and block devices: never
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract unix sockets, signals

_SYSTEM_ROOTS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys")
_DEVICES = (
    *("null", "zero", "full", "random", "urandom", "tty", "shm", "dri", "kfd", "infiniband"),
    *("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps"),
)


@dataclass(frozen=True)
class Confinement:
    """The confinement in force for this process.

    Attributes:
        level: 3 with Landlock, otherwise 2.
        level_name: Name of the level, for reports.
        mechanism: Mechanism that enforces it, e.g. "Landlock ABI 7".
        abi: Landlock ABI; 0 without Landlock.
        is_tcp_refused: Whether TCP connections are refused.
    """

    level: int
    level_name: str
    mechanism: str
    abi: int
    is_tcp_refused: bool


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_ABSENT = {
    ENOSYS: "no Landlock in this kernel or container",
    EOPNOTSUPP: "Landlock is turned off in this kernel",
    EPERM: "Landlock is forbidden here, as a container's seccomp profile does: allow the calls "
    "landlock_create_ruleset, landlock_add_rule and landlock_restrict_self",
}


def landlock_abi() -> int:
    """Return the Landlock ABI version; 0 when it is absent, turned off or forbidden."""
    return _probe()[0]


def landlock_absence() -> str:
    """Return why there is no Landlock here, and what to do about it; "" where there is."""
    return _probe()[1]


def _probe() -> tuple[int, str]:
    """Return the ABI version and, for 0, the reason."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return 0, "no Landlock on this kind of machine"
    try:
        arguments = (None, ctypes.c_size_t(0), ctypes.c_uint32(_QUERY_VERSION))
        return _syscall(_CREATE_RULESET, *arguments), ""
    except OSError as error:
        if error.errno in _ABSENT:
            return 0, _ABSENT[error.errno]
        raise IsolationError(f"Landlock: version cannot be read ({error.strerror})") from error


def confine(
    *,
    read: Sequence[Path],
    write: Sequence[Path],
    allow_tcp: bool = False,
    forbidden: Sequence[Path] = (),
) -> Confinement:
    """Confine this process and all that it starts, irrevocably.

    Call it before a second thread exists: a thread that runs already would stay outside. Device
    nodes that computing needs (null, random, shared memory, GPU) are allowed besides.

    Args:
        read: Files and folders that may be read.
        write: Files and folders that may be read and written.
        allow_tcp: Whether TCP stays possible, for training on several machines.
        forbidden: Paths that no allowed path may contain and no open file may belong to.

    Raises:
        IsolationError: An allowed path is missing or contains a forbidden one, a thread runs
            already, a forbidden file is open, or the kernel refuses.
    """
    _refuse_overlap((*read, *write), forbidden)
    _refuse_open_files(forbidden)
    write = (*write, *_devices())
    for path in (*read, *write):
        if not path.exists():
            raise IsolationError(f"{path}: allowed for training, but there is no such path")
    abi, absence = _probe()
    if abi:
        absence = _apply_landlock(abi, read, write, allow_tcp=allow_tcp)
    if abi and not absence:
        is_tcp_refused = abi >= 4 and not allow_tcp
        note = "" if is_tcp_refused else ", TCP not refused"
        return Confinement(3, LEVEL_NAMES[3], f"Landlock ABI {abi}{note}", abi, is_tcp_refused)
    sys.addaudithook(OpenGuard(read, write, allow_tcp=allow_tcp))
    mechanism = "Python audit hook (a courtesy: compiled code is not stopped)"
    mechanism += f"; {absence}" if absence else ""
    return Confinement(2, LEVEL_NAMES[2], mechanism, 0, False)


def attempt_read(path: Path, target: str) -> RefusedRead:
    """Try to read one byte of a path and return whether the system refused.

    Only a permission error is a refusal: a missing file proves nothing.

    Args:
        path: File or folder to try.
        target: What it is, e.g. "sealed image", without names from the data.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.read(descriptor, 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        refused = isinstance(error, PermissionError)
        name = f"{type(error).__name__} {error.errno}"
        return RefusedRead(target=target, refused=refused, error=name)
    return RefusedRead(target=target, refused=False, error="")


def level_in_force(confined: int, attempts: Sequence[RefusedRead]) -> tuple[int, str]:
    """Return the level of a training process and its name, from confinement and refused reads.

    Encryption counts only where the process tried vault and key and was refused both.

    Args:
        confined: Level of its `Confinement`: 2 or 3.
        attempts: What it tried to read.
    """
    refused = {attempt.target for attempt in attempts if attempt.refused}
    if not {VAULT_TARGET, KEY_TARGET} <= refused:
        return confined, LEVEL_NAMES[confined]
    if confined == 3:
        return 4, LEVEL_NAMES[4]
    return confined, f"{LEVEL_NAMES[confined]}; sealed copy of the test images encrypted at rest"


def python_roots(forbidden: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Return the paths a Python process must read: interpreter, packages, system libraries.

    Of a folder on `sys.path` that contains a forbidden path (a source tree with the data in it)
    only the importable packages and modules are allowed. Neither the working folder as such nor
    the temporary folder is allowed: set TMPDIR to a folder that may be written.

    Args:
        forbidden: Paths that must stay out of reach, e.g. the data root.

    Raises:
        IsolationError: An allowed path contains a forbidden one.
    """
    roots = _wanted_roots(forbidden)
    _refuse_overlap(roots, forbidden)
    return roots


def readable_root(path: Path) -> Path | None:
    """Return the folder that training must be able to read and that contains a path, or None."""
    roots = _wanted_roots([path])
    return next((root for root in roots if _contained(root, [path]) is not None), None)


def _wanted_roots(forbidden: Sequence[Path]) -> tuple[Path, ...]:
    roots = [Path(root) for root in _SYSTEM_ROOTS]
    prefixes = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)]
    roots += [*prefixes, *_editable_sources()]
    roots += [Path(sys.executable).resolve()] if sys.executable else []
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    roots += [Path(entry) for entry in libraries if entry.startswith("/")]
    for entry in map(Path, filter(None, sys.path)):
        if any(entry.resolve().is_relative_to(prefix.resolve()) for prefix in prefixes):
            continue
        if entry.resolve() == Path.cwd() or _contained(entry, forbidden) is not None:
            roots += _importable(entry)
        else:
            roots.append(entry)
    return tuple(dict.fromkeys(root.absolute() for root in roots if root.exists()))


def _editable_sources() -> Iterator[Path]:
    """Yield source folders of editable installs, from setuptools' finders in `sys.meta_path`."""
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        mapping = getattr(module, "MAPPING", None)
        if isinstance(mapping, dict):
            yield from (Path(source) for source in mapping.values())


def _importable(folder: Path) -> list[Path]:
    """Return the packages and modules directly in a folder, sorted."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in (".py", ".so", ".dist-info", ".egg-info")
        or (path / "__init__.py").is_file()
    )


def _contained(root: Path, forbidden: Sequence[Path]) -> Path | None:
    """Return the first forbidden path that is or lies in the root, links resolved, or None."""
    resolved = root.resolve()
    return next((path for path in forbidden if path.resolve().is_relative_to(resolved)), None)


def _refuse_overlap(roots: Sequence[Path], forbidden: Sequence[Path]) -> None:
    for root in roots:
        inside = _contained(root, forbidden)
        if inside is not None:
            raise IsolationError(
                f"{root}: needed for training, but it contains {inside}, which training must not "
                "read; move the data or the run folder out of it"
            )


def _refuse_open_files(forbidden: Sequence[Path]) -> None:
    """Raise an error if a forbidden file is already open: confinement does not close it."""
    descriptors = Path("/proc/self/fd")
    if not forbidden or not descriptors.is_dir():
        return
    for descriptor in descriptors.iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = descriptor.readlink()
            if any(target.is_relative_to(path.resolve()) for path in forbidden):
                raise IsolationError(
                    f"{target}: open in the training process before it was confined; "
                    "start the process with no inherited file"
                )


def _devices() -> list[Path]:
    dev = Path("/dev")
    nodes = [dev / name for name in _DEVICES] + sorted(dev.glob("nvidia[0-9]*"))
    return [node for node in nodes if node.exists()]


def _syscall(number: int, *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _apply_landlock(
    abi: int, read: Sequence[Path], write: Sequence[Path], *, allow_tcp: bool
) -> str:
    """Confine this process; return "", or why the system forbids it: then nothing is in force."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise IsolationError(
            "confinement: a second thread runs already and would stay unconfined; "
            "confine the process before libraries that start threads are imported"
        )
    handled = _ALL_ABI1
    for bit, since in ((_REFER, 2), (_TRUNCATE, 3), (_IOCTL_DEV, 5)):
        handled |= bit if abi >= since else 0
    attributes = _RulesetAttributes(
        handled_access_fs=handled,
        handled_access_net=_TCP if abi >= 4 and not allow_tcp else 0,
        scoped=_SCOPES if abi >= 6 else 0,
    )
    size = ctypes.sizeof(attributes)
    try:
        ruleset = _syscall(
            _CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0)
        )
        try:
            for path in read:
                _allow(ruleset, path, handled & _READ)
            for path in write:
                _allow(ruleset, path, handled & ~_MAKE_DEVICES)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
                raise OSError(ctypes.get_errno(), "prctl failed")
            _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
        finally:
            os.close(ruleset)
    except OSError as error:
        if error.errno in _ABSENT:
            return _ABSENT[error.errno]
        raise IsolationError(
            f"Landlock ABI {abi}: confinement failed ({error}); "
            "nothing was trained, report this with the output of `medisynth-gov doctor`"
        ) from error
    return ""


def _allow(ruleset: int, path: Path, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _FILE_ONLY
        rule = _PathBeneath(allowed_access=access, parent_fd=descriptor)
        _syscall(
            _ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(_RULE_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(descriptor)
