"""Starts and controls the training process, a child that can read only two packed views.

The parent starts `pipelines.training.child` with a clean environment, sends one JSON job and reads
messages, one a line of JSON (`pipelines.training.messages`). The child confines itself, proves it by trying forbidden reads, and only
then imports the generator. A message that asks for an answer gets one line: a state is committed,
and an older one may be deleted, only after the parent has it in the journal.

Forbidden attempts of the generator come through a pipe of their own, from every process that the
hook of `governance.confinement.attempts` reaches; they end the training, even if it succeeded.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from governance.records.errors import (
    InterruptedByUser,
    IsolationError,
    MachineError,
    ProcessError,
    ResourceError,
    first_line,
)
from governance.records.partition import RefusedRead
from governance.records.yaml_text import flatten
from pipelines.training.messages import (
    AWAITED,
    LONGEST_BYTES,
    Attempt,
    Committed,
    Failure,
    Message,
    Result,
    Segment,
    TrainingJob,
    broken,
    read_message,
)

_GRACE_S = 5.0  # a child asked to stop has this long before it is ended; reports follow
_KEEP_ENVIRONMENT = (
    *("PATH", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    "LD_LIBRARY_PATH",  # a Python or a CUDA in a place of its own does not start without
)
_LISTEN_S = 3.0  # attempts come in bursts: collect this long after the first
_CHILD = "pipelines.training.child"
FURTHER = "further.npz"  # images of `TrainingJob.draws`, in the work folder, by their place
CLASSIFIERS = "classifiers.npz"  # of `TrainingJob.task_images`, in the work folder
EXTRACTOR = "extractor-{}.safetensors"  # one of `TrainingJob.extractors`, in the work folder
MESSAGES, ANSWERS, ATTEMPTS, JOB = "messages.fifo", "answers.fifo", "attempts.fifo", "job.json"


def batch_sizes(settings: dict[str, Any]) -> dict[str, int]:
    """Return the batch sizes of a generator's settings by their keys in the configuration."""
    found = flatten(settings, "model.settings")
    return {
        key: size
        for key, size in found.items()
        if key.endswith(".batch_size") and isinstance(size, int)
    }


def usable_device(wanted: str) -> str:
    """Return the torch device for "auto", "cpu", "cuda" or "mps".

    Raises:
        ResourceError: This machine has no such device.
    """
    if wanted == "cpu":
        return wanted
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next((name for name, there in available.items() if there), "cpu")
    if not available[wanted]:
        raise ResourceError(f"compute_device: {wanted!r} is not available; use auto or cpu")
    return wanted


def smaller_batch(settings: dict[str, Any], stage: str = "") -> str:
    """Return advice for lack of memory: options that halve the batch sizes (of one stage)."""
    sizes = {key: size // 2 for key, size in batch_sizes(settings).items() if size > 1}
    name = stage.replace("-", "_").replace(" ", "_")
    own = {key: size for key, size in sizes.items() if name and f".{name}." in f"{key}."}
    tries = " ".join(f"-o {key}={size}" for key, size in (own or sizes).items())
    return f"start a new run with {tries}" if tries else "train smaller images"


def run_training(
    job: TrainingJob,
    on_message: Callable[[Message], None],
    check_stop: Callable[[], None],
    *,
    keep_open: Sequence[int] = (),
) -> Result:
    """Run a job in a child process and return its result.

    Args:
        job: The job.
        on_message: Called with every message but result and error.
        check_stop: Called several times a second; an exception from it stops the child cleanly.
        keep_open: Descriptors that stay open as long as the child lives, e.g. of the run's lock.

    Raises:
        IsolationError: The generator made forbidden attempts; each was a message
            `Attempt` before.
        ProcessError: The child reported an error; code and exit code are the child's.
        MachineError: The child was ended by the system.
    """
    work = Path(job.work)
    work.mkdir(parents=True, exist_ok=True)
    job.states.mkdir(parents=True, exist_ok=True)
    for old in work.glob("error-*.json"):
        old.unlink()
    attempts = _Attempts(work / ATTEMPTS, on_message)
    with (work / "training.log").open("wb") as log:
        child = (
            _start_one(job, log.fileno(), keep_open)
            if job.processes == 1
            else _start_several(job, log.fileno(), keep_open)
        )
        try:
            return _watched(child, job, attempts, on_message, check_stop)
        finally:
            child.end()
            attempts.close()


class _Attempts:
    """Reads forbidden attempts from the named pipe and passes each kind on once."""

    def __init__(self, path: Path, on_message: Callable[[Message], None]) -> None:
        self._path, self._pipe, self._on_message = path, _named_pipe(path), on_message
        self._found: dict[tuple[str, str], RefusedRead] = {}
        self._since: float | None = None

    def look(self) -> None:
        """Read new attempts; IsolationError once `_LISTEN_S` passed since the first one."""
        self._take()
        if self._since is not None and time.monotonic() - self._since > _LISTEN_S:
            self.judge()

    def judge(self) -> None:
        """Read the remaining attempts; IsolationError if there was any."""
        self._take()
        if self._found:
            raise IsolationError(_what_was_tried(list(self._found.values())))

    def close(self) -> None:
        """Close and remove the pipe."""
        os.close(self._pipe)
        self._path.unlink(missing_ok=True)

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while block := os.read(self._pipe, 1 << 16):  # a line is written whole or not at all
                for line in block.splitlines():
                    self._add(_attempt(line))

    def _add(self, attempt: RefusedRead) -> None:
        self._since = self._since or time.monotonic()
        if (attempt.target, attempt.way) not in self._found:
            self._found[attempt.target, attempt.way] = attempt
            self._on_message(Attempt(found=attempt))


def _attempt(line: bytes) -> RefusedRead:
    try:
        return RefusedRead.model_validate_json(line)
    except ValidationError:
        return RefusedRead(target="list of attempts", refused=False, error="", way="change")


def _what_was_tried(attempts: Sequence[RefusedRead]) -> str:
    ways: dict[str, list[str]] = {}
    for attempt in attempts:
        ways.setdefault(attempt.target, []).append(attempt.way)
    named = "; ".join(f"{target} ({', '.join(how)})" for target, how in ways.items())
    reached = [f"{a.target} ({a.way})" for a in attempts if not a.refused]
    answer = f"NOT refused: {'; '.join(reached)}" if reached else "the system refused all of it"
    return (
        f"the generator tried to reach what training must not: {named}; {answer}; its training was "
        "ended; see isolation.json, and read the generator's code before it is run again"
    )


class _Child:
    """A process with a pipe for its messages and one for answers."""

    def __init__(self, process: "subprocess.Popen[bytes]", messages: int, answers: int) -> None:
        self.process, self._messages, self._answers = process, messages, answers

    def messages(self, look: Callable[[], None]) -> Iterator[Message]:
        """Yield messages until the process is gone; call `look` several times a second."""
        pending = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._messages, selectors.EVENT_READ)
            while True:
                look()
                gone = self.process.poll() is not None
                if not selector.select(timeout=0 if gone else 0.2):
                    if gone:
                        return
                    continue
                block = os.read(self._messages, 1 << 16)
                if not block:
                    return
                *lines, pending = (pending + block).split(b"\n")
                if len(pending) > LONGEST_BYTES:
                    raise broken(f"more than {LONGEST_BYTES:,} bytes without an end")
                for line in lines:
                    yield read_message(line)

    def answer(self, message: Message) -> None:
        """Send an answer if the message asks for one."""
        if isinstance(message, AWAITED):
            with suppress(BrokenPipeError):
                os.write(self._answers, b"\n")

    def end(self) -> None:
        """Ask a running child to stop; after `_GRACE_S` kill it and all that it started."""
        with suppress(OSError):
            os.close(self._answers)  # a child that waits for an answer sees the end of the pipe
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        with suppress(OSError):
            os.close(self._messages)

    def kill(self) -> None:
        """Kill the child and all that it started; committed states stay."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # it leads a session of its own
        self.process.wait()


def _start_one(job: TrainingJob, log: int, keep_open: Sequence[int]) -> _Child:
    """Start the child; job and answers go to its standard input."""
    job_end, answers = os.pipe()
    messages, message_end = os.pipe()
    try:
        process = _popen(
            [sys.executable, "-m", _CHILD], job, (job_end, message_end, log), keep_open
        )
    finally:
        os.close(job_end)
        os.close(message_end)
    child = _Child(process, messages, answers)
    with suppress(BrokenPipeError), os.fdopen(os.dup(answers), "wb") as stream:
        stream.write(job.model_dump_json().encode() + b"\n")
    return child


def _start_several(job: TrainingJob, log: int, keep_open: Sequence[int]) -> _Child:
    """Start torchrun, and talk with its processes by a file and two named pipes.

    torchrun itself imports torch unconfined, but it reads no data and has the same clean
    environment; the processes that it starts confine themselves first.
    """
    work = Path(job.work)
    messages, answers = _named_pipe(work / MESSAGES), _named_pipe(work / ANSWERS)
    for pipe in (messages, answers):
        os.set_blocking(pipe, True)
    (work / JOB).write_text(job.model_dump_json(), "utf-8")
    command = [sys.executable, "-m", _CHILD, "--agent", str(job.processes), str(work / JOB)]
    with Path(os.devnull).open("rb") as nothing:
        process = _popen(command, job, (nothing.fileno(), log, log), keep_open)
    return _Child(process, messages, answers)


def _named_pipe(path: Path) -> int:
    """Make a named pipe and return a descriptor that does not block."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    # Open for reading and writing: opening does not wait, and no message is lost in between.
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)


def _popen(
    command: list[str], job: TrainingJob, streams: tuple[int, int, int], keep_open: Sequence[int]
) -> "subprocess.Popen[bytes]":
    stdin, stdout, stderr = streams
    return subprocess.Popen(  # noqa: S603 - fixed arguments
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=job.work,
        env=_clean_environment(job),
        close_fds=True,
        pass_fds=tuple(keep_open),
        start_new_session=True,  # Ctrl-C reaches the parent, which asks the child to stop
    )


def _clean_environment(job: TrainingJob) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _KEEP_ENVIRONMENT if name in os.environ}
    environment |= {"TMPDIR": job.work, "HOME": job.work, "PYTHONUNBUFFERED": "1"}
    if job.python_path is not None:
        environment["PYTHONPATH"] = job.python_path
    # Threads that wait must sleep: spinning made training 30 times slower beside one busy process.
    environment["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    # The C library keeps the memory of a step for the next one. Given back, it would have to be
    # mapped and filled with zeros again in every step: a twelfth of the time of training on a CPU.
    return environment | {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def _watched(
    child: _Child,
    job: TrainingJob,
    attempts: _Attempts,
    on_message: Callable[[Message], None],
    check_stop: Callable[[], None],
) -> Result:
    """Relay messages until the child ends; a forbidden attempt outranks every other outcome."""

    def look() -> None:
        attempts.look()
        check_stop()

    try:
        result = _converse(child, job, on_message, look)
    except (ProcessError, MachineError, InterruptedByUser):
        attempts.judge()
        raise
    attempts.judge()
    return result


def _converse(
    child: _Child,
    job: TrainingJob,
    on_message: Callable[[Message], None],
    check_stop: Callable[[], None],
) -> Result:
    stage = ""
    try:
        for message in child.messages(check_stop):
            stage = getattr(message, "stage", stage)
            if isinstance(message, Result):
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(_GRACE_S)
                return message
            if isinstance(message, Failure):
                raise _reported(message)
            if isinstance(message, Attempt):
                raise broken("attempts are heard on a way of their own")
            on_message(message)
            child.answer(message)
    except InterruptedByUser:
        _stop(child, on_message)
        raise
    raise _no_result(child, job, stage)


def _stop(child: _Child, on_message: Callable[[Message], None]) -> None:
    """Ask the child to stop, and record the states that it still commits."""
    child.process.terminate()
    deadline = time.monotonic() + _GRACE_S

    def look() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    try:
        for message in child.messages(look):
            if isinstance(message, (Committed, Segment)):
                on_message(message)
            child.answer(message)
    except TimeoutError:
        child.kill()  # the time is over


def _reported(message: Failure) -> ProcessError:
    return ProcessError(message.message, code=message.code, exit_code=message.exit_code)


def _no_result(child: _Child, job: TrainingJob, stage: str) -> Exception:
    """Return the error for a child that ended without a result."""
    code = child.process.wait()
    work = Path(job.work)
    for path in sorted(work.glob("error-*.json")):
        return _reported(Failure.model_validate_json(path.read_bytes()))
    if code < 0:
        return MachineError(
            f"the training process was ended by signal {-code} "
            f"({signal.Signals(-code).name}); when memory ran out, "
            f"{smaller_batch(job.settings, stage)}"
        )
    log = (work / "training.log").read_text("utf-8", "replace")
    tail = log.strip().splitlines()[-1:] or ["no output"]
    return ProcessError(
        f"the training process ended without a result ({first_line(tail[0])})", code="T900"
    )
