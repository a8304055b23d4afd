"""By the kernel's own word: training processes open no raw and no sealed path."""

import shutil

import pytest

from governance.confinement.confine import landlock_abi
from tests.benchmarks.traced_training import MODELS, read_trace, trace_run

PYTHON = '"/usr/bin/python", "-m"'
TRACE = f"""
10 execve("/usr/bin/python", [{PYTHON}, "pipelines.cli.app", "run"], 0x7f /* 9 vars */) = 0
10 openat(AT_FDCWD</w>, "/data/a.png", O_RDONLY|O_CLOEXEC) = 3</data/a.png>
10 vfork( <unfinished ...>
11 execve("/usr/bin/python", [{PYTHON}, "pipelines.training.child"], 0x7f /* 9 vars */) = 0
10 <... vfork resumed>)                    = 11
11 openat(AT_FDCWD</w>, "link", O_RDONLY) = 3</data/a.png>
11 openat(AT_FDCWD</w>, "/data", O_PATH|O_DIRECTORY) = 4</data>
11 openat(AT_FDCWD</w>, "/data/b.png", O_RDONLY) = -1 EACCES (Permission denied)
11 openat(AT_FDCWD</w>, "/nowhere", O_RDONLY) = -1 ENOENT (No such file or directory)
11 clone3({{flags=CLONE_VFORK, exit_signal=SIGCHLD, stack=0x7, stack_size=0x9000}}, 88) = 12
12 execve("/bin/cat", ["/bin/cat", "/database/x"], 0x7f /* 9 vars */) = 0
12 openat(AT_FDCWD</w>, "/database/x", O_RDONLY <unfinished ...>
13 openat(AT_FDCWD</w>, "/data/c.png", O_RDONLY) = 3</data/c.png>
12 <... openat resumed>)                   = 3</database/x>
12 +++ exited with 0 +++
"""


def test_the_trace_of_training_and_what_it_started_is_read_and_of_nobody_else(tmp_path):
    trace = read_trace(TRACE.splitlines())

    assert trace.n_processes == 2
    assert trace.opened == ("/data/a.png", "/database/x")
    assert len(trace.refused) == 1
    assert trace.opened_in([tmp_path.joinpath("/data")]) == ["/data/a.png"]
    assert trace.opened_in([tmp_path]) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.skipif(landlock_abi() < 4, reason="this kernel has no Landlock with TCP")
@pytest.mark.parametrize("model", MODELS)
def test_a_training_process_opens_no_raw_or_sealed_path(tmp_path, model):
    exit_code, trace, forbidden = trace_run(model, tmp_path, n_patients=16)

    assert (exit_code == 4) == (model == "hostile")
    assert trace.n_processes > 0
    assert len(trace.opened) > 100
    assert trace.opened_in(forbidden) == []
    for folder in forbidden:  # it tried each, so that a zero means something
        assert [call for call in trace.refused if str(folder) in call], folder
