"""What a generator tries is noticed under any name, and nothing else is taken for an attempt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from governance.confinement.attempts import AttemptWatch, ForbiddenPaths
from governance.confinement.confine import landlock_abi
from governance.records.partition import RefusedRead
from tests.places import ROOT
from tests.plugins.hostile import UNHEARD, WAYS

# What the hook hears of each way: the first is what it does, the others what comes with it.
HEARD = {
    **{"open": {"open"}, "memmap": {"open"}, "cat": {"command"}, "shell": {"command"}},
    **{"symlink": {"symbolic link", "open"}, "hard link": {"hard link"}, "move": {"move"}},
    **{"below a folder": {"open"}, "list": {"list"}, "parent's root": {"open"}, "sqlite": {"open"}},
}

# In a process of its own: neither a hook nor confinement can be taken back.
SCRIPT = """
import json, os, sys
from pathlib import Path

from governance.confinement import confine
from governance.confinement.attempts import AttemptWatch, ForbiddenPaths

top, has_landlock, ways = Path(sys.argv[1]), sys.argv[2] == "landlock", json.loads(sys.argv[3])
if not has_landlock:
    confine.landlock_abi = lambda: 0
heard, answers = [], {}
images = {way: top / "data" / way.replace("'", "") / "image.png" for way in ways}
roots, out = confine.python_roots([top / "data"]), top / "work"
targets = {way: image.parent for way, image in images.items()}
watch = AttemptWatch(ForbiddenPaths(targets, [*roots, out]), heard.append, watch_tcp=True)
sys.addaudithook(watch)
confine.confine(read=roots, write=[out], forbidden=[top / "data"])
images["open"].parent.is_dir(), list(Path.cwd().iterdir())  # no attempt: neither open nor forbidden
watch.start()
from tests.plugins.hostile import UNHEARD, refused

for way, image in images.items():
    if has_landlock or way not in (*UNHEARD, "sqlite"):  # compiled code is not stopped
        answers[way] = refused(way, image)
found = [one.model_dump() for one in heard]
print(json.dumps([answers, found]))
"""


def noticed(top: Path, how: str) -> tuple[dict[str, bool], list[dict]]:
    (top / "work").mkdir(parents=True)
    for way in WAYS:
        folder = top / "data" / way.replace("'", "")
        folder.mkdir(parents=True)
        (folder / "image.png").write_bytes(b"sealed")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", SCRIPT, str(top), how, json.dumps(list(WAYS))],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=top / "work",
        env={"PATH": os.defpath, "TMPDIR": str(top / "work"), "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers, found = json.loads(done.stdout)
    return answers, found


def by_way(found: list[dict]) -> dict[str, set[str]]:
    ways: dict[str, set[str]] = {}
    for one in found:
        assert one["refused"], one
        ways.setdefault(one["target"], set()).add(one["way"])
    return ways


@pytest.mark.skipif(landlock_abi() < 4, reason="this kernel has no Landlock that refuses TCP")
def test_under_landlock_every_way_is_refused_and_all_that_python_does_is_noticed(tmp_path):
    answers, found = noticed(tmp_path, "landlock")

    assert answers == dict.fromkeys(WAYS, True)
    assert by_way(found) == {**HEARD, "network": {"connection"}}
    assert not set(UNHEARD) & {one["target"] for one in found}


def test_without_landlock_the_fallback_refuses_and_the_same_is_noticed(tmp_path):
    answers, found = noticed(tmp_path, "none")

    ways = set(WAYS) - {*UNHEARD, "sqlite"}
    assert answers == dict.fromkeys(ways, True)
    expected = {way: heard for way, heard in HEARD.items() if way in ways}
    assert by_way(found) == {**expected, "network": {"connection"}}


@pytest.fixture
def paths(tmp_path) -> ForbiddenPaths:
    for name in ("data/images", "data2", "home/venv", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "images" / "a b.png").write_bytes(b"")
    (tmp_path / "work" / "link").symlink_to(tmp_path / "data" / "images")
    targets = {
        "data folder": tmp_path / "data",
        "sealed image": tmp_path / "data" / "images" / "a b.png",
        "keys": tmp_path / "home",
    }
    return ForbiddenPaths(targets, allowed=[tmp_path / "home" / "venv", tmp_path / "work"])


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("data", "data folder"),
        ("data/images/a b.png", "sealed image"),  # the innermost
        ("data/images/other.png", "data folder"),
        ("data/../data/images/none/x", "data folder"),  # there need be no such file
        ("work/link", "data folder"),
        ("work/link/a b.png", "sealed image"),
        ("data2", None),
        ("work/weights", None),
        ("home/key", "keys"),
        ("home/venv/python", None),  # what may be used may lie in what may not
        ("", None),  # the folder above: it is not in a target
    ],
)
def test_a_path_is_known_by_where_it_leads(paths, tmp_path, path, target):
    found = paths.named(f"{tmp_path}/{path}")

    assert (found.target if found else None) == target
    through = paths.named(f"/proc/{os.getppid()}/root{tmp_path}/{path}")
    assert through is not None
    assert through.target == (target or "files of another process")
    own = paths.named(f"/proc/self/root{tmp_path}/{path}")
    assert (own.target if own else None) == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("cat '{}/data/images/a b.png'", "sealed image"),
        ("cat {}/data/x|sort", "data folder"),
        ("--input={}/data", "data folder"),
        ('python -c "open({}/data/x)"', "data folder"),
        ("Failed to open local file '{}/data/images/a b.png'. Detail: [errno 13]", "sealed image"),
        ("{}/home/venv/python -m pip", None),
        ("cat {}/data2/x", None),
        ("nvidia-smi --query-gpu=name", None),
    ],
)
def test_a_command_or_a_message_is_known_by_what_it_names(paths, tmp_path, text, target):
    found = paths.named_in(text.format(tmp_path))

    assert (found.target if found else None) == target


def test_own_files_under_proc_are_no_attempt(paths):
    for path in (f"/proc/{os.getpid()}/fd/3", "/proc/self/fd", f"/proc/{os.getppid()}/stat"):
        assert paths.named(path) is None, path
    assert paths.named(f"/proc/{os.getppid()}/cwd/x").target == "files of another process"


def test_an_error_is_heard_through_what_it_was_raised_from(paths, tmp_path):
    heard: list[RefusedRead] = []
    watch = AttemptWatch(paths, heard.append, watch_tcp=False)

    watch.hear_error(PermissionError(13, "no", f"{tmp_path}/data2/x"))
    watch.hear_error(FileNotFoundError(2, "none", f"{tmp_path}/data/x"))
    watch.hear_error(ValueError(f"{tmp_path}/data/x"))
    assert heard == []

    cause = PermissionError(
        f"[Errno 13] Failed to open local file '{tmp_path}/data/images/a b.png'"
    )
    error = RuntimeError("no luck")
    error.__cause__ = ExceptionGroup("all of it", [cause])
    watch.hear_error(error)

    # nothing confines this process, so the watch could read the file: it says so
    (only,) = heard
    assert (only.target, only.way) == ("sealed image", "error that ended training")
    assert not only.refused


def test_a_watch_that_was_not_started_hears_nothing(paths, tmp_path):
    heard: list[RefusedRead] = []
    watch = AttemptWatch(paths, heard.append, watch_tcp=True)

    watch("open", (f"{tmp_path}/data", "r", 0))
    assert heard == []
    watch.start()
    watch("open", (3, "r", 0))
    watch("open", ("a\0b", "r", 0))
    watch("os.listdir", (None,))
    watch("import", ("numpy", None, None, None, None))
    assert heard == []
    watch("open", (os.fsencode(f"{tmp_path}/data"), "r", 0))
    watch("open", (f"{tmp_path}/data/x", "r", 0))  # the same target in the same way: once
    watch("os.link", (f"{tmp_path}/data", f"{tmp_path}/work/x", -1, -1))
    assert [(one.target, one.way) for one in heard] == [
        ("data folder", "open"),
        ("data folder", "hard link"),
    ]
