"""The training process: a child that sees two packed views and nothing else of the data.

The parent starts `python -m pipelines.training_process` with a clean environment, sends one JSON
job on standard input and reads JSON messages, one a line, from standard output. The child confines
itself, proves it by trying to read what it must not, and only then imports the generator.
"""

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from governance.errors import GovernanceError
from governance.files import sha256_bytes, write_atomic
from medisynth.errors import MedisynthError, ResourceError
from pipelines.errors import MachineError, ProcessError

if TYPE_CHECKING:
    from medisynth.generator import TrainingContext

_PR_SET_PDEATHSIG = 1
_GRACE_S = 8.0  # a child asked to stop has this long before it is ended
_KEEP_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class TrainingJob:
    """All that the training process is told.

    Attributes:
        generator: Registered generator name.
        settings: Its settings, as JSON data.
        seed: Seed of training and sampling.
        compute_device: "auto", "cpu", "cuda" or "mps".
        views: Folder of the packed training and tuning views (read).
        checkpoints: Folder for checkpoints (write).
        work: Folder for everything else, also TMPDIR (write).
        n_synthetic: Synthetic images to draw after training.
        must_refuse: Description -> path of what it tries to read before its first step.
        forbidden: Folders that must not be inside anything it may read.
    """

    generator: str
    settings: dict[str, Any]
    seed: int
    compute_device: str
    views: str
    checkpoints: str
    work: str
    n_synthetic: int
    must_refuse: dict[str, str]
    forbidden: tuple[str, ...]


Message = dict[str, Any]

_NO_MEMORY = "not enough memory to train ({}); lower the batch size"


def run_training(
    job: TrainingJob, on_message: Callable[[Message], None], check_stop: Callable[[], None]
) -> Message:
    """Run a job in a child process and return its result message.

    Args:
        job: What to do.
        on_message: Called with every message but the result.
        check_stop: Called several times a second; an exception from it stops the child cleanly.

    Raises:
        ProcessError: The child reported an error; code and exit code are the child's.
        MachineError: The child was ended by the system.
    """
    work = Path(job.work)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "training.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.training_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=work,
            env=_clean_environment(work),
            close_fds=True,
            start_new_session=True,  # Ctrl-C reaches the parent, which asks the child to stop
        )
        try:
            return _converse(process, job, on_message, check_stop, work / "training.log")
        finally:
            _end(process)


def _clean_environment(work: Path) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _KEEP_ENVIRONMENT if name in os.environ}
    environment |= {"TMPDIR": str(work), "HOME": str(work), "PYTHONUNBUFFERED": "1"}
    # Threads that wait must sleep: spinning made training 30 times slower beside one busy process.
    environment["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def _converse(
    process: "subprocess.Popen[bytes]",
    job: TrainingJob,
    on_message: Callable[[Message], None],
    check_stop: Callable[[], None],
    log: Path,
) -> Message:
    if process.stdin is None or process.stdout is None:
        raise MachineError("the training process has no pipes; check the limit of open files")
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(asdict(job)).encode())
        process.stdin.close()
    for message in _messages(process.stdout, check_stop):
        if message["type"] == "result":
            process.wait()
            return message
        if message["type"] == "error":
            text = str(message["message"])
            raise ProcessError(text, code=message["code"], exit_code=message["exit_code"])
        on_message(message)
    code = process.wait()
    if code < 0:
        raise MachineError(
            f"the training process was ended by signal {-code} "
            f"({signal.Signals(-code).name}); when memory ran out, lower the batch size"
        )
    tail = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
    raise ProcessError(
        f"the training process ended without a result ({tail[0][:200]})", code="T900", exit_code=1
    )


def _messages(stream: IO[bytes], check_stop: Callable[[], None]) -> Iterator[Message]:
    """Messages as they come; looks for a stop request in between."""
    descriptor, pending = stream.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            check_stop()
            if not selector.select(timeout=0.2):
                continue
            block = os.read(descriptor, 1 << 16)
            if not block:
                return
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                yield json.loads(line)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a child that still runs to stop, then end it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


# ---------------------------------------------------------------- the child


def main() -> int:
    """Entry point of the child; its last message is a result or an error."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log, not between the messages

    def send(**message: Any) -> None:
        out.write(json.dumps(message) + "\n")

    values = json.loads(sys.stdin.buffer.read())
    job = TrainingJob(**values | {"forbidden": tuple(values["forbidden"])})
    try:
        _confine(job, send)
        # Only now: whatever the generator imports or runs is confined from its first line, and
        # no library has started a thread that would have stayed outside.
        return _work(job, send)
    except (MedisynthError, GovernanceError) as error:
        send(type="error", code=error.code, exit_code=error.exit_code, message=str(error))
        return int(error.exit_code)
    except MemoryError:
        send(
            type="error", code="R001", exit_code=7, message=_NO_MEMORY.format("the system refused")
        )
        return 7
    except Exception as error:  # noqa: BLE001 - the boundary of a process
        traceback.print_exc()
        send(**_unexpected(error))
        return 1


def _unexpected(error: Exception) -> Message:
    text = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
    if "out of memory" in text.lower() or "can't allocate memory" in text.lower():
        return {
            "type": "error",
            "code": "R001",
            "exit_code": 7,
            "message": _NO_MEMORY.format(text),
        }
    message = f"the generator failed: {type(error).__name__}: {text}"
    return {"type": "error", "code": "T901", "exit_code": 1, "message": message}


def _work(job: TrainingJob, send: Callable[..., None]) -> int:
    """Train, keep the checkpoint, draw; return the exit code."""
    from medisynth.generator import StoppedError, TrainingContext

    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    context = TrainingContext(
        seed=job.seed,
        compute_device=_compute_device(job.compute_device),
        log=lambda stage, step, values: send(
            type="log", stage=stage, step=step, values=dict(values)
        ),
        progress=_throttled(send),
        should_stop=lambda: stopping,
    )
    try:
        send(type="result", **_train_and_draw(job, context, send))
    except StoppedError:
        return 128 + signal.SIGTERM
    return 0


def _train_and_draw(
    job: TrainingJob, context: "TrainingContext", send: Callable[..., None]
) -> dict[str, Any]:
    import numpy as np

    from medisynth import checkpoint
    from medisynth.data.views import load_view
    from medisynth.models.registry import load_generator

    generator_type = load_generator(job.generator)
    settings = generator_type.Settings.model_validate(job.settings)
    generator = generator_type(settings)
    training = load_view(Path(job.views), "training")
    tuning = load_view(Path(job.views), "tuning")
    started = time.monotonic()
    report = generator.fit(training, tuning, context)
    duration_s = time.monotonic() - started

    data = checkpoint.encode(generator.state(), {"generator": job.generator})
    digest = sha256_bytes(data)
    path = Path(job.checkpoints) / f"{job.generator}-{digest[:12]}.safetensors"
    write_atomic(path, data)
    send(type="checkpoint", path=path.name, sha256=digest)

    # Drawn by a generator that was read back, so that what is tested is what is released.
    released = generator_type(settings)
    released.load_state(checkpoint.load(path, digest))
    started = time.monotonic()
    synthetic = released.sample(job.n_synthetic, context)
    sampling_s = time.monotonic() - started
    np.save(Path(job.work) / "synthetic.npy", synthetic, allow_pickle=False)
    return {
        "report": asdict(report),
        "training_view_sha256": training.digest,
        "tuning_view_sha256": tuning.digest,
        "compute_device": context.compute_device,
        "duration_s": duration_s,
        "sampling_s": sampling_s,
        "checkpoint": {"path": path.name, "sha256": digest},
    }


def _confine(job: TrainingJob, send: Callable[..., None]) -> None:
    """Give up every right that training does not need, and prove it."""
    from governance.isolation.confine import attempt_read, confine, python_roots

    forbidden = [Path(path) for path in job.forbidden]
    confinement = confine(
        read=[*python_roots(forbidden=forbidden), Path(job.views)],
        write=[Path(job.checkpoints), Path(job.work)],
        forbidden=forbidden,
    )
    attempts = [attempt_read(Path(path), target) for target, path in job.must_refuse.items()]
    send(
        type="isolation",
        level=confinement.level,
        level_name=confinement.level_name,
        mechanism=confinement.mechanism,
        attempts=[attempt.model_dump(mode="json") for attempt in attempts],
    )


def _compute_device(wanted: str) -> str:
    import torch

    if wanted == "cpu":
        return wanted
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next((name for name, there in available.items() if there), "cpu")
    if not available[wanted]:
        raise ResourceError(f"compute_device: {wanted!r} is not available; use auto or cpu")
    return wanted


def _throttled(send: Callable[..., None]) -> Callable[[str, int, int], None]:
    """Send progress at most five times a second, and always the last of a stage."""
    last = 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last > 0.2:
            last = now
            send(type="progress", stage=stage, done=done, total=total)

    return progress


if __name__ == "__main__":
    sys.exit(main())
