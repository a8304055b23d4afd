import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import governance
import medisynth
import pipelines
from governance.confinement.confine import (
    KEY_TARGET,
    LEVEL_NAMES,
    LIMITS,
    VAULT_TARGET,
    attempt_read,
    confine,
    landlock_abi,
    level_in_force,
    python_roots,
    readable_root,
)
from governance.records.errors import IsolationError
from governance.records.partition import RefusedRead
from tests.places import ROOT

needs_landlock = pytest.mark.skipif(
    landlock_abi() == 0, reason="this kernel has no Landlock, or has it turned off"
)

# Runs in a process of its own: confinement cannot be undone. A helper `attempt(name, call)` notes
# the error's class and number, or "done".
PROLOGUE = """
import json, os, socket, subprocess, sys
from pathlib import Path

from governance.confinement.confine import attempt_read, confine, python_roots
from governance.confinement.confine import OpenGuard

top = Path(sys.argv[1])
data, view, out = top / "data", top / "view", top / "run" / "work"
secret = data / "patient.png"
results = {}

def attempt(name, call):
    try:
        value = call()
    except OSError as error:
        results[name] = f"{type(error).__name__} {error.errno}"
    else:
        results[name] = value if isinstance(value, str) else "done"

listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
attempt("connect before", lambda: socket.create_connection(address, timeout=5).close())
attempt("read before", lambda: secret.read_bytes())
roots = python_roots([data])
disks = sorted(Path("/dev").glob("[vsx]d[a-z]"))
"""

ATTEMPTS = """
attempt("read view", lambda: (view / "training.npy").read_bytes().decode())
attempt("write and read output", lambda: (out / "weights").write_bytes(b"w"))
attempt("make folders", lambda: (out / "a" / "b").mkdir(parents=True))
attempt("rename", lambda: (out / "weights").rename(out / "a" / "weights"))
attempt("remove", lambda: (out / "a" / "weights").unlink())
attempt("null device", lambda: Path("/dev/null").write_bytes(b"x"))
attempt("random device", lambda: Path("/dev/urandom").open("rb", buffering=0).read(1).hex()[:0])

attempt("read secret", lambda: secret.read_bytes())
attempt("list secrets", lambda: os.listdir(data))
attempt("read through dots", lambda: (view / ".." / "data" / "patient.png").read_bytes())
attempt("read through old symlink", lambda: (view / "symlink").read_bytes())
attempt("read through /proc root", lambda: Path(f"/proc/self/root{secret}").read_bytes())
attempt("write secret", lambda: secret.write_bytes(b"x"))
attempt("remove secret", lambda: secret.unlink())
attempt("write view", lambda: (view / "training.npy").write_bytes(b"x"))
attempt("write run folder", lambda: (top / "run" / "journal.jsonl").write_bytes(b"x"))
attempt("read run folder", lambda: (top / "run" / "data.json").read_bytes())
attempt("list temporary folder", lambda: os.listdir(top))
attempt("make hard link", lambda: os.link(secret, out / "hard"))
attempt("take secret", lambda: os.rename(secret, out / "taken"))
attempt("connect", lambda: socket.create_connection(address, timeout=5).close())
attempt("bind", lambda: socket.create_server(("127.0.0.1", 0)).close())

def packages():
    import governance.verify.folder, governance.reports, governance.records.errors, pipelines
    return ""

attempt("import packages", packages)
print(json.dumps({**results, **extra}))
"""

LANDLOCK = """
kept = confine(read=[*roots, view], write=[out], forbidden=[data])
extra = {"confinement": [kept.level, kept.mechanism, kept.abi, kept.is_tcp_refused]}
extra["proof"] = attempt_read(secret, "sealed image").model_dump()

def cat(path):
    done = subprocess.run(["cat", path], capture_output=True)
    return f"{done.returncode} {done.stdout.decode()}"

attempt("cat secret in a child", lambda: cat(secret))
attempt("cat view in a child", lambda: cat(view / "training.npy"))
os.symlink(secret, out / "new symlink")
attempt("read through new symlink", lambda: (out / "new symlink").read_bytes())
attempt("read through parent's root", lambda: Path(f"/proc/{os.getppid()}/root{secret}").read_bytes())
attempt("read raw disk", lambda: disks[0].open("rb").read(1) if disks else "")
attempt("signal parent", lambda: os.kill(os.getppid(), 0))
attempt("make device", lambda: os.mknod(out / "disk", 0o60600, os.makedev(254, 0)))
fork = os.fork()
if fork == 0:
    os._exit(0 if attempt_read(secret, "").refused else 1)
extra["fork refused"] = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
"""

GUARD = """
sys.addaudithook(OpenGuard([*roots, view], [out, Path("/dev")], allow_tcp=False))
extra = {}
attempt("start a program", lambda: subprocess.run(["cat", secret]))
"""

REFUSED = (
    "read secret",
    "list secrets",
    "read through dots",
    "read through old symlink",
    "read through /proc root",
    "write secret",
    "remove secret",
    "write view",
    "write run folder",
    "read run folder",
    "list temporary folder",
    "connect",
    "bind",
)


def run_python(script: str, top: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", script, str(top)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=top / "run" / "work",
        env={"PATH": os.defpath, "TMPDIR": str(top / "run" / "work")},
        check=False,
    )


def make_folders(top: Path) -> Path:
    for folder in ("data", "view", "run/work"):
        (top / folder).mkdir(parents=True)
    (top / "data" / "patient.png").write_bytes(b"secret")
    (top / "view" / "training.npy").write_bytes(b"view")
    (top / "view" / "symlink").symlink_to(top / "data" / "patient.png")
    (top / "run" / "data.json").write_bytes(b"{}")
    return top


def confined(tmp_path_factory: pytest.TempPathFactory, how: str) -> dict[str, object]:
    top = make_folders(tmp_path_factory.mktemp("confined"))
    done = run_python(PROLOGUE + how + ATTEMPTS, top)
    assert done.returncode == 0, done.stderr
    assert (top / "data" / "patient.png").read_bytes() == b"secret"
    results: dict[str, object] = json.loads(done.stdout)
    return results


@pytest.fixture(scope="module")
def under_landlock(tmp_path_factory):
    if landlock_abi() == 0:
        pytest.skip("this kernel has no Landlock, or has it turned off")
    return confined(tmp_path_factory, LANDLOCK)


@pytest.fixture(scope="module")
def under_guard(tmp_path_factory):
    return confined(tmp_path_factory, GUARD)


def test_before_confinement_the_secret_can_be_read_and_the_listener_reached(
    under_landlock, under_guard
):
    for results in (under_landlock, under_guard):
        assert results["read before"] == results["connect before"] == "done"


def test_landlock_is_reported_with_the_abi_of_the_kernel(under_landlock):
    abi = landlock_abi()
    mechanism = f"Landlock ABI {abi}" + ("" if abi >= 4 else ", TCP not refused")

    assert under_landlock["confinement"] == [3, mechanism, abi, abi >= 4]


def test_under_landlock_what_training_needs_works(under_landlock):
    assert under_landlock["read view"] == "view"
    assert under_landlock["cat view in a child"] == "0 view"
    for name in ("write and read output", "make folders", "rename", "remove", "null device"):
        assert under_landlock[name] == "done", name
    assert under_landlock["random device"] == under_landlock["import packages"] == ""


def test_under_landlock_the_secret_is_out_of_reach_by_every_way(under_landlock):
    if landlock_abi() < 4:
        pytest.skip("this kernel's Landlock does not refuse TCP")
    ways = (*REFUSED, "read through new symlink", "read through parent's root")
    assert {way: under_landlock[way] for way in ways} == dict.fromkeys(ways, "PermissionError 13")
    for way in ("make hard link", "take secret"):  # EACCES, or EXDEV as between file systems
        assert under_landlock[way] in ("PermissionError 13", "OSError 18"), way
    assert str(under_landlock["make device"]).startswith("PermissionError")
    assert under_landlock["cat secret in a child"] == "1 "
    assert under_landlock["fork refused"] is True


@pytest.mark.skipif(landlock_abi() < 6, reason="this kernel's Landlock does not scope signals")
def test_under_landlock_the_parent_cannot_be_signalled(under_landlock):
    assert under_landlock["signal parent"] == "PermissionError 1"


@pytest.mark.skipif(not list(Path("/dev").glob("[vsx]d[a-z]")), reason="no disk device here")
def test_under_landlock_the_raw_disk_cannot_be_read(under_landlock):
    assert under_landlock["read raw disk"] == "PermissionError 13"


def test_the_proof_is_a_real_refusal_and_names_no_file(under_landlock):
    assert under_landlock["proof"] == {
        "target": "sealed image",
        "refused": True,
        "error": "PermissionError 13",
        "way": "",
    }


def test_the_fallback_lets_training_work_and_refuses_what_python_opens(under_guard):
    assert under_guard["read view"] == "view"
    assert under_guard["import packages"] == ""
    for name in ("write and read output", "make folders", "rename", "remove", "null device"):
        assert under_guard[name] == "done", name
    ways = (*REFUSED, "make hard link", "take secret", "start a program")
    assert {way: under_guard[way] for way in ways} == dict.fromkeys(ways, "PermissionError 13")


@needs_landlock
def test_tcp_can_be_left_open_for_several_machines_and_the_mechanism_says_so(tmp_path):
    script = PROLOGUE + (
        "kept = confine(read=[*roots, view], write=[out], allow_tcp=True)\n"
        'attempt("connect", lambda: socket.create_connection(address, timeout=5).close())\n'
        'attempt("read secret", lambda: secret.read_bytes())\n'
        "print(json.dumps([kept.mechanism, kept.is_tcp_refused, results]))\n"
    )

    done = run_python(script, make_folders(tmp_path))

    mechanism, is_tcp_refused, results = json.loads(done.stdout)
    assert mechanism.endswith("TCP not refused")
    assert not is_tcp_refused
    assert results["connect"] == "done"
    assert results["read secret"] == "PermissionError 13"


@needs_landlock
def test_a_process_with_a_second_thread_is_not_confined_by_half(tmp_path):
    script = PROLOGUE + (
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "confine(read=[*roots, view], write=[out])\n"
    )

    done = run_python(script, make_folders(tmp_path))

    assert "IsolationError: confinement: a second thread runs already" in done.stderr


def test_a_forbidden_file_that_is_open_already_stops_the_confinement(tmp_path):
    script = PROLOGUE + "kept = secret.open()\nconfine(read=[], write=[out], forbidden=[data])\n"

    done = run_python(script, make_folders(tmp_path))

    assert "patient.png: open in the training process before it was confined" in done.stderr


def test_an_allowed_folder_that_contains_a_forbidden_one_is_refused(tmp_path):
    make_folders(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path)
    data = tmp_path / "data"

    for allowed in (tmp_path, data, tmp_path / "alias", tmp_path / "view" / ".."):
        with pytest.raises(IsolationError, match=r"it contains .*data, which training must not"):
            confine(read=[allowed], write=[], forbidden=[data])
    with pytest.raises(IsolationError, match="it contains"):
        confine(read=[], write=[tmp_path], forbidden=[data])


def test_an_allowed_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(IsolationError, match="view: allowed for training, but there is no such"):
        confine(read=[tmp_path / "view"], write=[])


def test_python_roots_hold_interpreter_and_packages_but_no_data_and_no_temporary_folder(tmp_path):
    repository = ROOT
    roots = python_roots([repository / "data", repository / "runs", tmp_path])

    assert Path(sys.prefix) in roots
    assert Path(sys.base_prefix) in roots
    assert any(Path(os.__file__).is_relative_to(root) for root in roots)
    for package in (governance, medisynth, pipelines):
        source = Path(str(package.__file__)).resolve()
        assert any(source.is_relative_to(root.resolve()) for root in roots), package
    for place in (repository / "data", repository / "README.md", tmp_path, Path.home() / "x"):
        assert not any(place.resolve().is_relative_to(root.resolve()) for root in roots), place


def test_data_inside_a_folder_that_python_needs_is_refused():
    with pytest.raises(IsolationError, match="/etc: needed for training, but it contains"):
        python_roots([Path("/etc/hosts")])


def test_the_folder_that_training_reads_around_a_path_is_found_before_anything_is_confined(
    tmp_path,
):
    assert readable_root(Path("/usr/share/data")) == Path("/usr")
    assert readable_root(Path(sys.prefix) / "keys" / "none") == Path(sys.prefix)
    assert readable_root(tmp_path) is None


def test_of_a_source_folder_with_data_in_it_only_the_packages_are_allowed(tmp_path, monkeypatch):
    for name in ("package/__init__.py", "module.py", "data/patient.png", "notes/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))

    roots = python_roots([tmp_path / "data"])

    inside = {root.name for root in roots if root.is_relative_to(tmp_path)}
    assert inside == {"package", "module.py"}
    assert tmp_path in python_roots([])


def test_the_working_folder_is_never_allowed_as_such(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert tmp_path not in python_roots([])


def test_an_attempt_that_succeeds_or_finds_no_file_is_not_a_refusal(tmp_path):
    (tmp_path / "file").write_bytes(b"x")

    read = attempt_read(tmp_path / "file", "own file")
    missing = attempt_read(tmp_path / "missing", "missing file")
    folder = attempt_read(tmp_path, "folder")

    assert (read.refused, read.error) == (False, "")
    assert (missing.refused, missing.error) == (False, "FileNotFoundError 2")
    assert (folder.refused, folder.error) == (False, "IsADirectoryError 21")


def test_every_level_has_a_name_and_the_limits_are_sentences():
    assert sorted(LEVEL_NAMES) == [0, 1, 2, 3, 4, 5]
    assert all(limit.endswith(".") for limit in LIMITS)
    assert any("owner of the machine" in limit for limit in LIMITS)
    assert any("public data set" in limit for limit in LIMITS)


def attempts(*refused: str, read: tuple[str, ...] = ()) -> list[RefusedRead]:
    tried = [RefusedRead(target=t, refused=True, error="PermissionError 13") for t in refused]
    return tried + [RefusedRead(target=target, refused=False, error="") for target in read]


@pytest.mark.parametrize(
    ("confined", "tried", "level"),
    [
        (3, attempts("sealed image", VAULT_TARGET, KEY_TARGET), 4),
        (2, attempts("sealed image", VAULT_TARGET, KEY_TARGET), 2),
        (3, attempts("sealed image"), 3),  # nothing was encrypted, or nobody tried
        (3, attempts("sealed image", VAULT_TARGET, read=(KEY_TARGET,)), 3),
        (3, attempts("sealed image", KEY_TARGET, read=(VAULT_TARGET,)), 3),
    ],
)
def test_level_four_needs_landlock_and_a_vault_and_a_key_that_were_refused(confined, tried, level):
    found, name = level_in_force(confined, tried)

    assert found == level
    is_encrypted = {VAULT_TARGET, KEY_TARGET} <= {t.target for t in tried if t.refused}
    assert ("encrypted at rest" in name) == is_encrypted


def test_the_limits_say_that_the_originals_stay_readable():
    assert any("originals stay readable for the user" in limit for limit in LIMITS)


def test_the_tests_themselves_cannot_reach_the_network():
    # The listener lives in the child process only.
    with pytest.raises(Exception, match="socket"):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)


@needs_landlock
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a plain user")
def test_a_plain_user_is_confined_without_any_capability():
    script = """
import json, os, sys
from pathlib import Path
from governance.confinement.confine import attempt_read, confine

top = Path(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
secret, view, out = top / "data" / "patient.png", top / "view", top / "run" / "work"
before = attempt_read(secret, "before").refused
kept = confine(read=[view], write=[out], forbidden=[top / "data"])
(out / "weights").write_bytes(b"w")
fork = os.fork()
if fork == 0:
    os._exit(0 if attempt_read(secret, "").refused else 1)
child = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
print(json.dumps([os.getuid(), before, attempt_read(secret, "").error, child, kept.level]))
"""
    with tempfile.TemporaryDirectory() as folder:  # one that everybody may enter
        top = make_folders(Path(folder))
        for path in (top, *top.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o777)
        done = run_python(script, top)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [65534, False, "PermissionError 13", 0, 3]


FORBIDDING = """
import ctypes, sys
from pathlib import Path
from governance.confinement.confine import confine, landlock_abi

first, last, answer = map(int, sys.argv[1:4])


class Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8),
                ("k", ctypes.c_uint32))


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter)))


LOAD, AT_LEAST, GREATER, RETURN = 0x20, 0x35, 0x25, 0x06
steps = (Filter * 5)(
    Filter(LOAD, 0, 0, 0),  # the number of the call
    Filter(AT_LEAST, 0, 1, first),
    Filter(GREATER, 0, 1, last),
    Filter(RETURN, 0, 0, 0x7FFF0000),  # allow
    Filter(RETURN, 0, 0, 0x00050000 | answer),  # an error
)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, *map(ctypes.c_ulong, (1, 0, 0, 0)))
program = Program(5, steps)
if libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(program), ctypes.c_ulong(0), ctypes.c_ulong(0)):
    sys.exit("no seccomp here")
confined = confine(read=[Path("/usr")], write=[Path(sys.argv[4])])
print(landlock_abi(), confined.level, confined.mechanism, sep="|")
"""


@pytest.mark.skipif(landlock_abi() == 0, reason="this kernel has no Landlock to forbid")
@pytest.mark.parametrize(
    ("first", "last", "answer", "said"),
    [
        (444, 446, errno.EPERM, "seccomp profile does: allow the calls landlock_create_ruleset"),
        (444, 446, errno.ENOSYS, "no Landlock in this kernel or container"),
        (444, 446, errno.EOPNOTSUPP, "turned off"),
        (446, 446, errno.EPERM, "seccomp profile does: allow the calls landlock_create_ruleset"),
    ],
)
def test_where_a_container_forbids_landlock_the_level_is_two_and_the_words_say_what_to_allow(
    tmp_path, first, last, answer, said
):
    arguments = [*map(str, (first, last, answer)), str(tmp_path)]
    command = [sys.executable, "-c", FORBIDDING, *arguments]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=True, cwd=ROOT
    )

    abi, level, mechanism = done.stdout.strip().split("|")
    assert (int(abi) > 0) == (first == 446)
    assert level == "2"
    assert mechanism.startswith("Python audit hook")
    assert said in mechanism
