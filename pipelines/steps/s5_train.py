"""s5 train: a confined child process that sees the training and tuning views only."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from governance.errors import IsolationError
from governance.evidence.documents import (
    TUNING,
    Candidate,
    Curve,
    FittedThing,
    IsolationRecord,
    PretrainedComponent,
    RefusedRead,
    SampleSet,
    Selection,
    TrainingRecord,
    TrainingStage,
)
from governance.isolation.confine import LIMITS
from governance.isolation.seal import AccessLog
from medisynth.data.synthetic_mark import SyntheticMark, marked_png, read_mark
from medisynth.data.views import ImageView, Pixels, save_view
from medisynth.models.registry import load_generator
from pipelines.context import RunContext, TrainedGenerator
from pipelines.training_process import Message, TrainingJob, run_training


def run(
    training: ImageView,
    tuning: ImageView,
    must_refuse: dict[str, str],
    access_log: AccessLog,
    context: RunContext,
) -> TrainedGenerator:
    """Train a generator and draw the synthetic images.

    Args:
        training: What the generator is fitted on.
        tuning: What the checkpoint is chosen on.
        must_refuse: Description -> path of files that the child must fail to read.
        access_log: Counts reads of sealed files by this process.
        context: What every step may use.

    Raises:
        IsolationError: The child could read what it must not.
        ProcessError: Training failed.
    """
    store, run_dir = context.store, context.store.run_dir
    views = context.scratch / "views"
    for view in (training, tuning):
        save_view(view, views)
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    job = TrainingJob(
        generator=context.config.model.name,
        settings=context.config.generator_settings().model_dump(mode="json"),
        seed=context.config.seed,
        compute_device=context.config.compute_device,
        views=str(views),
        checkpoints=str(run_dir / "checkpoints"),
        work=str(context.scratch / "work"),
        n_synthetic=context.config.evaluation.n_synthetic,
        must_refuse=must_refuse,
        forbidden=tuple(must_refuse.values()),
    )
    store.journal.append(
        "training started",
        {"training_view": training.digest, "tuning_view": tuning.digest, "seed": job.seed},
    )
    messages = _Messages(context, access_log)
    result = run_training(job, messages.receive, context.console.stop.check)
    record = _record(result, messages.curves(), context)
    store.register(record.checkpoint_path)
    store.write_document("metrics/training.json", record)
    synthetic = np.load(context.scratch / "work" / "synthetic.npy", allow_pickle=False)
    paths = _write_samples(synthetic, record, result["sampling_s"], context)
    return TrainedGenerator(record.checkpoint_path, record.checkpoint_sha256, synthetic, paths)


class _Messages:
    """Takes the child's messages: isolation to a record, logs to curves, progress to the screen."""

    def __init__(self, context: RunContext, access_log: AccessLog) -> None:
        self._context, self._access_log = context, access_log
        self._points: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)

    def receive(self, message: Message) -> None:
        match message["type"]:
            case "isolation":
                self._isolation(message)
            case "log":
                for name, value in message["values"].items():
                    self._points[message["stage"], name].append((message["step"], value))
            case "progress":
                self._context.console.progress(message["stage"], message["done"], message["total"])
            case "checkpoint":
                body = {"path": f"checkpoints/{message['path']}", "sha256": message["sha256"]}
                self._context.store.journal.append("checkpoint committed", body)

    def _isolation(self, message: Message) -> None:
        record = IsolationRecord(
            level=message["level"],
            level_name=message["level_name"],
            mechanism=message["mechanism"],
            attempts=tuple(RefusedRead(**attempt) for attempt in message["attempts"]),
            n_sealed_reads=self._access_log.n_opens,
            limits=LIMITS,
        )
        self._context.store.write_document("isolation.json", record)
        self._context.store.journal.append(
            "isolation proved",
            {
                "level": record.level,
                "mechanism": record.mechanism,
                "refused": sum(attempt.refused for attempt in record.attempts),
                "attempts": len(record.attempts),
            },
        )
        self._context.console.say(f"isolation level {record.level}: {record.mechanism}")
        read = [attempt.target for attempt in record.attempts if not attempt.refused]
        if read:
            raise IsolationError(
                f"the training process could read: {', '.join(read)}; "
                "it was stopped before its first step; see isolation.json"
            )

    def curves(self) -> tuple[Curve, ...]:
        return tuple(
            Curve(
                stage=stage,
                name=name,
                steps=tuple(step for step, _ in points),
                values=tuple(value for _, value in points),
            )
            for (stage, name), points in self._points.items()
        )


def _record(result: Message, curves: tuple[Curve, ...], context: RunContext) -> TrainingRecord:
    report: dict[str, Any] = result["report"]
    config = context.config
    generator = load_generator(config.model.name)
    settings = config.generator_settings()
    return TrainingRecord(
        generator=config.model.name,
        title=generator.title,
        recipe=str(getattr(settings, "recipe", "as configured")),
        image_size_px=generator.image_size_px(settings),
        training_view_sha256=result["training_view_sha256"],
        tuning_view_sha256=result["tuning_view_sha256"],
        description=report["description"],
        stages=tuple(_stage(stage) for stage in report["stages"]),
        curves=curves,
        fitted=tuple(
            FittedThing(name=name, fit_view_sha256=digest)
            for name, digest in report["fitted"].items()
        ),
        selection=Selection(
            partition=TUNING,
            view_sha256=report["selection_view_sha256"],
            criterion=report["selection_criterion"],
            candidates=tuple(Candidate(step=s, score=v) for s, v in report["candidates"]),
            chosen_step=report["chosen_step"],
        ),
        checkpoint_path=f"checkpoints/{result['checkpoint']['path']}",
        checkpoint_sha256=result["checkpoint"]["sha256"],
        compute_device=result["compute_device"],
        duration_s=result["duration_s"],
        pretrained=tuple(PretrainedComponent(**part) for part in report["pretrained"]),
    )


def _stage(stage: dict[str, Any]) -> TrainingStage:
    seconds = max(stage["duration_s"], 1e-9)
    images_per_s = stage["n_steps"] * stage["batch_size"] / seconds
    return TrainingStage(**stage, images_per_s=images_per_s)


def _write_samples(
    synthetic: Pixels, record: TrainingRecord, duration_s: float, context: RunContext
) -> tuple[str, ...]:
    """Write every synthetic image with its mark, and read every mark back."""
    store, files = context.store, []
    for index, pixels in enumerate(synthetic):
        mark = SyntheticMark(
            generator=record.generator,
            run_id=store.run_id,
            checkpoint_sha256=record.checkpoint_sha256,
            seed=context.config.seed,
            index=index,
            licence="research use; not for diagnosis",
        )
        artifact = store.write_bytes(f"samples/{index:05d}.png", marked_png(pixels, mark))
        files.append((artifact.path, artifact.sha256, hashlib.sha256(pixels.tobytes()).hexdigest()))
        context.console.progress("writing samples", index + 1, len(synthetic))
    samples = SampleSet(
        generator=record.generator,
        checkpoint_sha256=record.checkpoint_sha256,
        seed=context.config.seed,
        n_images=len(files),
        image_size_px=record.image_size_px,
        files=tuple(files),
        n_marks_read_back=_count_marks([path for path, _, _ in files], record, context),
        duration_s=duration_s,
    )
    store.write_document("samples/manifest.json", samples)
    return tuple(path for path, _, _ in files)


def _count_marks(paths: Sequence[str], record: TrainingRecord, context: RunContext) -> int:
    """Files whose mark, read back from disk, names this generator, run and checkpoint."""
    expected = (record.generator, context.store.run_id, record.checkpoint_sha256)
    marks = (read_mark((context.store.run_dir / path).read_bytes()) for path in paths)
    return sum(
        mark is not None and (mark.generator, mark.run_id, mark.checkpoint_sha256) == expected
        for mark in marks
    )
