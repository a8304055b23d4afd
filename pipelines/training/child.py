"""The training process: confines itself first, then trains and draws.

This module imports no heavy library: a thread that one starts before the confinement would stay
unconfined. With several processes, torchrun starts this module once for each.
"""

import ctypes
import gc
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from governance.records.errors import (
    IsolationError,
    MedisynthGovError,
    SettingsError,
    TrainingError,
    first_line,
)
from governance.records.files import sha256_bytes, write_atomic
from pipelines.training import messages as told
from pipelines.training.messages import Message, Result, TrainingJob
from pipelines.training.parent import (
    ANSWERS,
    ATTEMPTS,
    CLASSIFIERS,
    FURTHER,
    MESSAGES,
    smaller_batch,
    usable_device,
)
from pipelines.training.segment import Comparison, Keeper

if TYPE_CHECKING:
    from governance.confinement.attempts import AttemptWatch
    from governance.records.comparison import TuningComparison
    from governance.records.partition import RefusedRead
    from medisynth.data.reading.views import ImageView, Pixels
    from medisynth.generator import Generator, TrainingContext
    from medisynth.metrics.features import InceptionPool3
    from medisynth.metrics.tuning_distance import TuningDistance

_PR_SET_PDEATHSIG = 1
_NOTHING_TO_COMPARE_BY = (
    "training had no feature extractor (no FID weights on this machine, or turned off in the "
    "configuration) or fewer than 2 tuning images"
)
_PREVIEW_COLUMNS = 8


class Parent:
    """Sends messages to the parent; of several processes only the first really does.

    Attributes:
        stage: Last stage named in a message, for errors.
    """

    def __init__(self, out: IO[str] | None, answers: IO[bytes] | None) -> None:
        self._out, self._answers = out, answers
        self.stage = ""

    def send(self, message: Message) -> None:
        """Send one message."""
        self.stage = getattr(message, "stage", self.stage)
        if self._out is not None:
            self._out.write(message.model_dump_json() + "\n")
            self._out.flush()

    def ask(self, message: Message) -> None:
        """Send one of `AWAITED` and wait for the answer; StoppedError when the parent is gone."""
        from medisynth.generator import StoppedError

        self.send(message)
        if self._answers is not None and not self._answers.readline():
            raise StoppedError("the process that started this one is gone")


def main() -> int:
    """Entry point of the child; its last message is a result or an error."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if sys.argv[1:2] == ["--agent"]:
        _become_agent(sys.argv[2], sys.argv[3])
    rank = int(os.environ.get("RANK", "0"))
    if len(sys.argv) > 1:
        job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_bytes())
        parent = _named_pipes(Path(job.work)) if rank == 0 else Parent(None, None)
    else:
        parent = Parent(os.fdopen(os.dup(1), "w", encoding="utf-8"), sys.stdin.buffer)
        os.dup2(2, 1)  # output of libraries goes to the log, not among the messages
        job = TrainingJob.model_validate_json(sys.stdin.buffer.readline())
    watch: AttemptWatch | None = None
    try:
        watch = _confine(job, parent, rank)
        if job.proof_only:
            parent.send(Result())
            return 0
        # Only now is the generator imported: all its code is confined, and no library has
        # started a thread that would have stayed unconfined.
        return _work(job, parent, rank)
    except Exception as error:  # noqa: BLE001 - the boundary of a process
        if watch is not None:
            watch.hear_error(error)
        message = _error_message(error, job, parent.stage)
        if rank == 0:
            parent.send(message)
        else:
            (Path(job.work) / f"error-{rank}.json").write_text(message.model_dump_json(), "utf-8")
        return message.exit_code


def _become_agent(n: str, job: str) -> None:
    """Replace this process by torchrun, which still ends when the parent does."""
    arguments = ["--standalone", "--nproc-per-node", n, "-m", "pipelines.training.child", job]
    os.execv(  # noqa: S606 - fixed arguments
        sys.executable, [sys.executable, "-m", "torch.distributed.run", *arguments]
    )


def _named_pipes(work: Path) -> Parent:
    out = (work / MESSAGES).open("w", encoding="utf-8")
    return Parent(out, (work / ANSWERS).open("rb", buffering=0))


def _error_message(error: Exception, job: TrainingJob, stage: str) -> told.Failure:
    """Return the error message for the parent; print the traceback of a bug to the log."""
    if isinstance(error, MedisynthGovError):
        code, exit_code, message = error.code, error.exit_code, str(error)
    else:
        text = first_line(error)
        words = ("out of memory", "can't allocate memory")
        if isinstance(error, MemoryError) or any(word in text.lower() for word in words):
            tries = smaller_batch(job.settings, stage)
            code, exit_code = "R001", 7
            message = f"not enough memory to train ({text or 'the system refused'}); {tries}"
        else:
            traceback.print_exc()
            code, exit_code = "T901", 1
            message = f"the generator failed: {type(error).__name__}: {text}"
    return told.Failure(code=code, exit_code=exit_code, message=message)


def _confine(job: TrainingJob, parent: Parent, rank: int) -> "AttemptWatch":
    """Confine this process, send the proof to the parent, and start the attempt watch."""
    from governance.confinement.attempts import AttemptWatch, ForbiddenPaths
    from governance.confinement.confine import attempt_read, confine, python_roots

    forbidden = [Path(path) for path in job.forbidden]
    files = [Path(path) for path in (*job.readable, *([job.weights] if job.weights else []))]
    read = [*python_roots(forbidden=forbidden), Path(job.views), *files]
    write = [Path(job.checkpoints), Path(job.work)]
    targets = {target: Path(path) for target, path in job.must_refuse.items()}
    is_alone = job.processes == 1  # processes that train together talk over TCP
    watch = AttemptWatch(
        ForbiddenPaths(targets, allowed=(*read, *write)), _reporter(job), watch_tcp=is_alone
    )
    sys.addaudithook(watch)
    confinement = confine(read=read, write=write, allow_tcp=not is_alone, forbidden=forbidden)
    attempts = [attempt_read(Path(path), target) for target, path in job.must_refuse.items()]
    if rank > 0 and confinement.level >= 3 and not all(attempt.refused for attempt in attempts):
        raise IsolationError(f"training process {rank + 1} could read what it must not")
    parent.send(
        told.Isolation(
            level=confinement.level,
            level_name=confinement.level_name,
            mechanism=confinement.mechanism,
            attempts=tuple(attempts),
        )
    )
    watch.start()
    return watch


def _reporter(job: TrainingJob) -> "Callable[[RefusedRead], None]":
    """Return a function that reports an attempt as one line, in one write, to the named pipe."""
    pipe = os.open(Path(job.work) / ATTEMPTS, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def report(attempt: "RefusedRead") -> None:
        os.write(pipe, attempt.model_dump_json().encode() + b"\n")

    return report


class _Stop:
    """Whether a stop signal came; until `heed` is called one ends the process at once.

    Loading libraries, images and weights takes seconds on a busy machine, and leaves nothing that
    a clean end would keep.
    """

    def __init__(self) -> None:
        self._came = False

    def heed(self) -> None:
        """From now on a stop signal is only noted, and obeyed between two steps of training."""
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self._came = True

    def __call__(self) -> bool:
        return self._came


def _work(job: TrainingJob, parent: Parent, rank: int) -> int:
    """Train and draw, or repeat the segment; send the result and return the exit code."""
    from medisynth.generator import StoppedError

    work = _train_and_draw if job.repeats is None else _repeat
    try:
        result = work(job, parent, _Stop(), rank)
    except StoppedError:
        return 128 + signal.SIGTERM
    if rank == 0:
        parent.send(result)
    return 0


def _context(
    job: TrainingJob,
    parent: Parent,
    should_stop: Callable[[], bool],
    score: "TuningDistance | None",
) -> "TrainingContext":
    from medisynth.generator import TrainingContext
    from medisynth.training.states import StateFolder

    states = StateFolder(
        job.states,
        generator=job.generator,
        committed=job.committed,
        on_commit=lambda stage, step, path, sha256: parent.ask(
            told.Committed(stage=stage, step=step, path=path, sha256=sha256)
        ),
        write=write_atomic,
    )
    return TrainingContext(
        seed=job.seed,
        compute_device=usable_device(job.compute_device),
        log=lambda stage, step, values: parent.send(
            told.Log(stage=stage, step=step, values=dict(values))
        ),
        progress=_throttled(parent.send),
        should_stop=should_stop,
        states=states,
        commit_every=job.commit_every,
        preview=_preview(job, parent) if job.preview_every else None,
        preview_every=job.preview_every,
        score=score,
        score_name=score.name if score is not None else "",
        segment=Keeper(job, parent.ask) if job.repeat_steps else None,
        repeat_steps=job.repeat_steps,
    )


def _repeat(job: TrainingJob, parent: Parent, should_stop: _Stop, rank: int) -> Result:
    """Train anew until the segment is reached; return its comparison with the kept one."""
    from medisynth.data.reading.views import load_view
    from medisynth.generator import StoppedError
    from medisynth.models.registry import load_generator

    file, sha256 = job.repeats or ("", "")
    comparison = Comparison(Path(file), sha256)
    generator_type = load_generator(job.generator)
    generator = generator_type(generator_type.Settings.model_validate(job.settings))
    training, tuning = (load_view(Path(job.views), name) for name in ("training", "tuning"))
    context = replace(
        _context(job, parent, should_stop, _score(job, tuning)),
        states=None,
        should_stop=lambda: comparison.found is not None or should_stop(),
        segment=comparison,
    )
    should_stop.heed()
    try:
        generator.fit(training, tuning, context)
    except StoppedError:
        if should_stop():
            raise
    if rank == 0 and comparison.found is None:
        raise TrainingError("the repeat did not reach the segment that training kept")
    return Result(repeated=comparison.found)


def _train_and_draw(job: TrainingJob, parent: Parent, should_stop: _Stop, rank: int) -> Result:
    """Train, write the checkpoint, draw; the result is empty for all but the first process."""
    import numpy as np

    from governance.records.training import FitReport
    from medisynth import checkpoint
    from medisynth.models.registry import load_generator
    from pipelines.training.extractors import fit_extractors

    generator_type = load_generator(job.generator)
    settings = generator_type.Settings.model_validate(job.settings)
    generator = generator_type(settings)
    training, tuning = _view(job, "training"), _view(job, "tuning")
    score = _score(job, tuning)
    context = _context(job, parent, should_stop, score)
    should_stop.heed()
    started = time.monotonic()
    report = generator.fit(training, tuning, context)
    duration_s = time.monotonic() - started
    if rank > 0:
        return Result()
    if not isinstance(report, FitReport):
        raise TrainingError(
            f"{job.generator}: fit returned {type(report).__name__}, expected "
            "governance.records.training.FitReport; see docs/plugins.md"
        )

    data = checkpoint.encode(generator.state(), {"generator": generator_type.name})
    digest = sha256_bytes(data)
    path = Path(job.checkpoints) / f"{generator_type.name}-{digest[:12]}.safetensors"
    write_atomic(path, data)
    written = told.Checkpoint(path=path.name, sha256=digest)
    parent.send(written)

    # Draw with the checkpoint read back from disk, so that the released file is tested.
    released = generator_type(settings)
    released.load_state(checkpoint.load(path, digest))
    started = time.monotonic()
    synthetic = released.sample(job.n_synthetic, context)
    sampling_s = time.monotonic() - started
    np.save(Path(job.work) / "synthetic.npy", synthetic, allow_pickle=False)
    drawn = _draw_further(job, released, context)
    if job.task_images and score is not None:
        _fit_classifiers(job, training, tuning, drawn, synthetic, score.extractor, context)
    fit_extractors(job.extractors, Path(job.work), training, tuning, context)
    comparison = _compare(score, synthetic, training, context)
    return Result(
        trained=told.Trained(
            report=report,
            training_view_sha256=training.digest,
            tuning_view_sha256=tuning.digest,
            compute_device=context.compute_device,
            duration_s=duration_s,
            sampling_s=sampling_s,
            checkpoint=written,
            comparison=comparison,
            extractor_sha256=score.weights_sha256 if score is not None else None,
        )
    )


def _draw_further(
    job: TrainingJob, released: "Generator", context: "TrainingContext"
) -> "dict[tuple[str, str], Pixels]":
    """Write the job's further draws, and return those of a level by attribute and level.

    Draws that the generator knows no condition for are left out.
    """
    import numpy as np

    from medisynth.generator import Condition
    from medisynth.models.registry import takes_condition

    drawn = {}
    for place, draw in enumerate(job.draws):
        own = replace(context, seed=draw.seed)
        if not draw.attribute:
            drawn[str(place)] = released.sample(draw.n, own)
        elif takes_condition(released):
            key = "machine" if draw.attribute == "machine" else "plane"
            with suppress(SettingsError):
                drawn[str(place)] = released.sample(draw.n, own, Condition(**{key: draw.level}))
    if job.draws:
        np.savez(Path(job.work) / FURTHER, allow_pickle=False, **drawn)
    return {
        (draw.attribute, draw.level): drawn[str(place)]
        for place, draw in enumerate(job.draws)
        if draw.attribute and str(place) in drawn
    }


def _fit_classifiers(
    job: TrainingJob,
    training: "ImageView",
    tuning: "ImageView",
    drawn: "dict[tuple[str, str], Pixels]",
    synthetic: "Pixels",
    extractor: "InceptionPool3",
    context: "TrainingContext",
) -> None:
    """Fit and write the classifiers of all arms, which the parent judges on the held-out images."""
    from medisynth.generator import StoppedError
    from medisynth.utility.fitting import TaskFeatures, fit_classifiers

    def progress(done: int, total: int) -> None:
        if context.should_stop():
            raise StoppedError("asked to stop while classifiers were fitted")
        context.progress("classifiers of real and synthetic images", done, total)

    fitted = fit_classifiers(
        training,
        tuning,
        drawn,
        synthetic,
        TaskFeatures(extractor),
        most_images=job.task_images,
        seed=job.seed,
        progress=progress,
    )
    write_atomic(Path(job.work) / CLASSIFIERS, fitted.to_bytes())


def _view(job: TrainingJob, partition: str) -> "ImageView":
    """Load a packed view; IsolationError if its digest changed since it was packed."""
    from medisynth.data.reading.views import load_view

    view = load_view(Path(job.views), partition)
    packed = job.view_sha256.get(partition, "")
    if packed and view.digest != packed:
        raise IsolationError(
            f"the packed {partition} images are not those of the split: packed with "
            f"sha256:{packed[:12]}, now sha256:{view.digest[:12]}; nothing was trained, start a "
            "new run"
        )
    return view


def _score(job: TrainingJob, tuning: "ImageView") -> "TuningDistance | None":
    """Return the score for candidates; None without weights or with under 2 tuning images."""
    from medisynth.metrics.tuning_distance import TuningDistance

    if job.weights is None or len(tuning) < 2:
        return None
    return TuningDistance(Path(job.weights), tuning, usable_device(job.compute_device))


def _compare(
    score: "TuningDistance | None",
    synthetic: "Pixels",
    training: "ImageView",
    context: "TrainingContext",
) -> "TuningComparison":
    """Compare the drawn images with simple controls; without a score, give the reason."""
    from governance.records.comparison import TuningComparison
    from medisynth.generator import StoppedError

    if score is None:
        return TuningComparison(reason=_NOTHING_TO_COMPARE_BY)

    def progress(done: int, total: int) -> None:
        if context.should_stop():
            raise StoppedError("asked to stop while comparing with controls")
        context.progress("comparing with simple controls", done, total)

    return score.compare(synthetic, training.pixels, context.seed, progress)


def _preview(job: TrainingJob, parent: Parent) -> "Callable[[str, int, Pixels], None]":
    """Return a function that writes a sheet of samples (PNG) and tells the parent to store it."""

    def preview(stage: str, step: int, images: "Pixels") -> None:
        from medisynth.data.reading.contact_sheet import contact_sheet

        rows = [
            (
                f"SYNTHETIC: {stage}, step {step:,}" if first == 0 else "",
                list(images[first : first + _PREVIEW_COLUMNS]),
                (),
            )
            for first in range(0, len(images), _PREVIEW_COLUMNS)
        ]
        name = f"{re.sub(r'[^a-z0-9]+', '-', stage.lower())}-{step:07d}.png"
        write_atomic(Path(job.work) / name, contact_sheet(rows))
        parent.send(told.Preview(stage=stage, step=step, path=name))

    return preview


def _throttled(send: Callable[..., None]) -> Callable[[str, int, int], None]:
    """Return a progress function that sends at most 5 times a second, and the last always."""
    last = 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last > 0.2:
            last = now
            send(told.Progress(stage=stage, done=done, total=total))

    return progress


if __name__ == "__main__":
    code = main()
    gc.freeze()  # at its end the interpreter would look for cycles in all that training made
    sys.exit(code)
