"""What training processes really open: a run under strace, its opens counted by the kernel's word.

    python -m tests.benchmarks.traced_training [dsr-gan] [tb-gan] [hostile]

strace follows every process of a run and prints, for each file that was opened, the path it really
is (`-y`): through links, folder descriptors and other names. Those of the training process and of
all that it starts are looked at: none may be in the data folder, the vaults, the keys or the cache.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from governance.records.base import TEST
from medisynth.data.adapters import load_adapter
from medisynth.data.phantom import PhantomSettings, write_phantoms

CHILD = "pipelines.training.child"
MODELS = ("dsr-gan", "tb-gan", "hostile")
_HOSTILE = "tests.plugins.hostile:Hostile"
_ROOT = Path(__file__).resolve().parents[2]
_LINE = re.compile(r"^(\d+)\s+(.*)$")
_EXEC = re.compile(r'^execve\("[^"]*", \[(.*)\]')
_OPEN = re.compile(r"^(?:open|openat|openat2|creat)\(")
_OPENED = re.compile(r"\) = \d+<(.*)>$")
_STARTED = re.compile(r"^(?:clone|clone3|fork|vfork)\(.* = (\d+)(?:<.*>)?$")
_UNFINISHED, _RESUMED = " <unfinished ...>", re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_REFUSED = re.compile(r" = -1 (?:EACCES|EPERM|EXDEV) ")


@dataclass(frozen=True)
class Trace:
    """What the training processes of one run opened.

    Attributes:
        n_processes: Training processes and all that they started.
        opened: Files and folders opened with success, by their real path, each time.
        refused: Calls about files that were refused, as strace prints them.
    """

    n_processes: int
    opened: tuple[str, ...]
    refused: tuple[str, ...]

    def opened_in(self, folders: Iterable[Path]) -> list[str]:
        """Successful opens of a folder or of what lies in it."""
        roots = [str(folder.resolve()) for folder in folders]
        return [p for p in self.opened if any(p == r or p.startswith(f"{r}/") for r in roots)]


def read_trace(lines: Iterable[str]) -> Trace:
    """Read the output of `strace -f -y`; of all processes those that training started."""
    family: set[str] = set()
    started: dict[str, str] = {}  # process -> the one that started it
    begun: dict[str, str] = {}
    opened, refused = [], []
    for pid, call in _calls(lines, begun):
        if match := _STARTED.match(call):
            started[match[1]] = pid
        elif (match := _EXEC.match(call)) and f'"{CHILD}"' in match[1]:
            family.add(pid)
        if pid in family or _started_by(pid, started, family):
            family.add(pid)
            if _REFUSED.search(call):
                refused.append(call)
            elif "O_PATH" in call:
                continue  # a handle for the name alone: nothing can be read through it
            elif _OPEN.match(call) and (match := _OPENED.search(call)):
                opened.append(match[1])
    return Trace(len(family), tuple(opened), tuple(refused))


def _calls(lines: Iterable[str], begun: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Process and call, calls put together again that others came between."""
    for line in lines:
        if match := _LINE.match(line.rstrip("\n")):
            pid, call = match[1], match[2]
            if call.endswith(_UNFINISHED):
                begun[pid] = call.removesuffix(_UNFINISHED)
                continue
            if resumed := _RESUMED.match(call):
                call = begun.pop(pid, "") + resumed[2].replace(")       =", ") =")
            yield pid, re.sub(r"\)\s+= ", ") = ", call)


def _started_by(pid: str, started: dict[str, str], family: set[str]) -> bool:
    known = set()
    while pid in started and pid not in known:
        known.add(pid)
        pid = started[pid]
        if pid in family:
            return True
    return False


def trace_run(model: str, folder: Path, *, n_patients: int = 40) -> tuple[int, Trace, list[Path]]:
    """Exit code, trace and forbidden folders of one smoke run under strace, in an empty folder."""
    data, workspace, output = folder / "data", folder / "workspace", folder / "strace.txt"
    cache = folder / "cache"
    write_phantoms(data, PhantomSettings(n_patients=n_patients, seed=0, image_height_px=64))
    arguments = ["run", "--preset", "smoke", "--data", str(data), "-w", str(workspace)]
    arguments += ["-o", "evaluation.extractor=none", "-o", "tracking.enabled=false"]
    arguments += ["-o", "audit.n_text_images=0", "-o", f"data.cache={cache}"]
    if model == "hostile":
        table = load_adapter("phantom").list_images(data).table
        image = data / sorted(table["path"][table["official_partition"] == TEST])[0]
        arguments += ["--model", _HOSTILE, "-o", "model.settings.size=32"]
        arguments += ["-o", f"model.settings.image={image}"]
    else:
        arguments += ["--model", model]
    done = subprocess.run(
        [
            *("strace", "-f", "-y", "--seccomp-bpf", "-s", "4096", "-o", str(output)),
            *("-e", "trace=%file,%process", sys.executable, "-m", "pipelines.cli.app", *arguments),
        ],
        cwd=_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    with output.open(errors="replace") as lines:
        trace = read_trace(lines)
    return done.returncode, trace, [data, workspace / "vault", workspace / "keys", cache]


def main() -> None:
    """Print one line a model; exit 1 when a forbidden path was opened or nothing was traced."""
    if shutil.which("strace") is None:
        sys.exit("strace is not installed")
    is_sound = True
    for model in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            code, trace, forbidden = trace_run(model, Path(folder))
            found = trace.opened_in(forbidden)
            tries = [c for c in trace.refused if any(str(f.resolve()) in c for f in forbidden)]
        is_sound = is_sound and not found and bool(tries) and trace.n_processes > 0
        print(
            f"{model}: exit {code}; {trace.n_processes} processes of training, "
            f"{len(trace.opened):,} successful opens, {len(found)} of them of raw or sealed paths; "
            f"{len(tries)} calls on such paths refused"
        )
    sys.exit(0 if is_sound else 1)


if __name__ == "__main__":
    main()
