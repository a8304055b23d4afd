"""s5 train: trains in a confined child process that can read training and tuning views only."""

import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from governance.confinement.attempts import ForbiddenPaths
from governance.confinement.confine import LIMITS, level_in_force
from governance.evidence.manifest import STATES
from governance.records.comparison import TuningComparison
from governance.records.errors import (
    EvidenceTamperedError,
    IsolationError,
    WeightsError,
)
from governance.records.files import WRITTEN_TOGETHER, sha256_bytes, sha256_file
from governance.records.partition import IsolationRecord, RefusedRead
from governance.records.run import Figure
from governance.records.training import (
    Curve,
    Elsewhere,
    PretrainedComponent,
    SampleSet,
    TrainingRecord,
)
from governance.sealing.access_log import AccessLog
from medisynth.data.reading.ingest import decode_bytes
from medisynth.data.reading.synthetic_mark import LICENCE, SyntheticMark, marked_png, read_mark
from medisynth.data.reading.views import Pixels
from medisynth.models.elsewhere import ElsewhereSettings
from medisynth.models.registry import generator_origin, import_folder, load_generator
from medisynth.training.states import N_KEPT
from pipelines.config.model import RunConfig
from pipelines.current_run.context import (
    ATTEMPT,
    ISOLATION,
    RunContext,
    SplitImages,
    TrainedGenerator,
    add_figures,
)
from pipelines.fetch.weights import find_weights, inception_component
from pipelines.steps import further_draws, further_extractors, usefulness
from pipelines.training import messages as told
from pipelines.training.messages import Message, Trained, TrainingJob, broken
from pipelines.training.parent import run_training
from pipelines.training.repeat import KEPT, is_kept, repeat_segment

COMMITTED = "step committed"
_PREVIEWS_SHOWN = 6


def run(split: SplitImages, context: RunContext) -> TrainedGenerator:
    """Train a generator, from the last committed step on, and draw the synthetic images.

    Args:
        split: Training view (to fit the generator), tuning view (to choose the checkpoint), and the
            paths that the child must fail to read.
        context: Configuration, store and console of the run.

    Raises:
        IsolationError: The child could read a forbidden path, or the generator tried to.
        ProcessError: Training failed, or a view is not the one that was packed.
    """
    store = context.store
    if SampleSet.PATH in store.artifacts():  # an earlier process trained and drew all images
        return reload(context)
    if any(event.type == ATTEMPT for event in store.journal.events()):
        raise IsolationError(
            "the generator tried to reach what training must not before this run was cut short; "
            "see isolation.json, and start a new run once its code was read"
        )
    packed = {view.partition: view.digest for view in (split.training, split.tuning)}
    draws = further_draws.wanted(split.training, context)
    given = {"view_sha256": packed, "committed": intact_states(context), "draws": draws}
    job = _job(split.must_refuse, context).model_copy(update=given)
    Path(job.checkpoints).mkdir(exist_ok=True)
    store.journal.append(
        "training started",
        {**{f"{name}_view": digest for name, digest in packed.items()}, "seed": job.seed},
    )
    context.console.say(f"a run that is cut short goes on with: {context.resume_command}")
    messages = _Messages(context, split.access_log)
    try:
        trained = run_training(
            job, messages.receive, context.console.stop.check, keep_open=context.keep_open
        ).trained
    except IsolationError:
        _discard_checkpoints(job, context)
        raise
    if trained is None:
        raise broken("a result without training")
    record = _record(trained, messages.curves(), context)
    store.register(record.checkpoint_path)
    store.write_document(record)
    _tell_comparison(record.comparison, context)
    repeat_segment(job, trained, context)
    add_figures(_previews(context), store)
    synthetic = np.load(context.scratch / "work" / "synthetic.npy", allow_pickle=False)
    if draws:
        further_draws.put_on_record(draws, context)
    usefulness.put_on_record(context)
    further_extractors.put_on_record(context)
    paths = _write_samples(synthetic, record, trained.sampling_s, context)
    _remove_states(job.states, context)
    return TrainedGenerator(
        record.checkpoint_path,
        record.checkpoint_sha256,
        synthetic,
        paths,
        *further_draws.read(synthetic.shape[1:], context),
    )


def prove_isolation(
    must_refuse: dict[str, str], access_log: AccessLog, context: RunContext
) -> None:
    """Start the training process only to let it confine itself and prove it.

    Raises:
        IsolationError: The child could read a forbidden path; isolation.json names it.
    """
    job = _job(must_refuse, context).model_copy(update={"proof_only": True})
    Path(job.checkpoints).mkdir(exist_ok=True)
    messages = _Messages(context, access_log)
    run_training(job, messages.receive, context.console.stop.check)


def reload(context: RunContext) -> TrainedGenerator:
    """Read this step's result back from a run that was cut short.

    Raises:
        EvidenceTamperedError: A synthetic image has other pixels than its record says.
    """
    run_dir, folder = context.store.run_dir, context.folder
    record, samples = folder.need(TrainingRecord), folder.need(SampleSet)
    images = []
    for path, _, sha256 in samples.files:
        pixels = decode_bytes((run_dir / path).read_bytes(), path).grey
        found = sha256_bytes(pixels.tobytes())
        if found != sha256:
            raise EvidenceTamperedError(run_dir / path, expected=sha256, found=found)
        images.append(pixels)
    return TrainedGenerator(
        record.checkpoint_path,
        record.checkpoint_sha256,
        np.stack(images),
        tuple(path for path, _, _ in samples.files),
        *further_draws.read(images[0].shape, context),
    )


def _job(must_refuse: dict[str, str], context: RunContext) -> TrainingJob:
    config, run_dir = context.config, context.store.run_dir
    # The checkpoint is chosen with the extractor only if the run may use the extractor.
    wanted = config.training.selection == "auto" and config.evaluation.extractor == "inception"
    weights = find_weights() if wanted else None
    return TrainingJob(
        generator=config.model.name,
        settings=config.generator_settings().model_dump(mode="json"),
        seed=config.seed,
        compute_device=config.compute_device,
        views=str(context.scratch / "views"),
        checkpoints=str(run_dir / "checkpoints"),
        work=str(context.scratch / "work"),
        n_synthetic=config.evaluation.n_synthetic,
        must_refuse=must_refuse,
        forbidden=tuple(must_refuse.values()),
        commit_every=config.training.commit_every,
        preview_every=config.training.preview_every,
        processes=config.training.processes,
        weights=str(weights.resolve()) if weights is not None else None,
        python_path=_import_folder(config.model.name),
        readable=_pretrained_files(must_refuse, context),
        repeat_steps=config.training.repeat_steps,
        segment_kept=is_kept(context),
        task_images=usefulness.wanted(context),
        extractors=further_extractors.wanted(context),
    )


def _import_folder(name: str) -> str | None:
    """Return the folder that a generator outside the installed packages is imported from."""
    folder = import_folder(name)
    return str(folder) if folder is not None else None


def _pretrained_files(must_refuse: dict[str, str], context: RunContext) -> tuple[str, ...]:
    """Return the paths of pretrained weights that the generator asks for.

    Raises:
        IsolationError: One of them is in a place that training must not read.
    """
    config = context.config
    files = getattr(load_generator(config.model.name), "pretrained_files", None)
    named: tuple[str, ...] = files(config.generator_settings()) if files is not None else ()
    forbidden = ForbiddenPaths({target: Path(path) for target, path in must_refuse.items()})
    paths = tuple(str(Path(name).expanduser().resolve()) for name in named)
    for path in paths:
        found = forbidden.named(path)
        if found is not None:
            raise IsolationError(
                f"{path}: the generator asks for it as weights to start from, but it is in what "
                f"training must not read ({found.target}); keep weights elsewhere"
            )
    return paths


def intact_states(context: RunContext) -> dict[str, tuple[str, str]]:
    """Return stage -> (file, digest) of the newest state on record that is as it was written.

    A damaged or missing newest state is named, journaled and put aside; training goes on from the
    one before and comes to the same result.

    Raises:
        WeightsError: A stage has committed states, and none that is kept is intact.
    """
    by_stage: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in context.store.journal.events():
        if event.type == COMMITTED:
            # After an earlier fall-back a step is committed again, and counts in its place.
            stage, step = event.body["stage"], event.body["step"]
            earlier = [body for body in by_stage[stage] if body["step"] < step]
            by_stage[stage] = [*earlier, event.body]
    found = {}
    for stage, states in by_stage.items():
        kept = states[-N_KEPT:]
        intact = next((body for body in reversed(kept) if _is_intact(body, context)), None)
        if intact is None:
            names = ", ".join(Path(body["path"]).name for body in kept)
            raise WeightsError(
                f"{context.store.run_dir / STATES}: no committed training state of {stage} is as "
                f"it was written ({names}); restore one of them, or start a new run"
            )
        found[stage] = (Path(intact["path"]).name, str(intact["sha256"]))
    return found


def _is_intact(committed: Mapping[str, Any], context: RunContext) -> bool:
    """Whether a state is as committed; if not, say so, journal it and put the file aside."""
    file = context.store.run_dir / STATES / Path(committed["path"]).name
    now = sha256_file(file) if file.is_file() and not file.is_symlink() else None
    if now == committed["sha256"]:
        return True
    if now is not None:
        file.replace(file.with_name(f"{file.name}.damaged"))
    what = "missing" if now is None else "damaged"
    context.store.journal.append(f"training state {what}", {**committed, "found": now})
    context.console.warn(
        f"{STATES}/{file.name}: training state {what}; the one before is tried, which leads to the "
        "same result"
    )
    return False


def _discard_checkpoints(job: TrainingJob, context: RunContext) -> None:
    """Delete checkpoints and states of a training whose isolation is in doubt."""
    files = list(Path(job.checkpoints).glob("*.safetensors"))
    for path in files:
        path.unlink()
    shutil.rmtree(job.states, ignore_errors=True)
    context.store.journal.append("checkpoints discarded", {"n_files": len(files)})


def _remove_states(states: Path, context: RunContext) -> None:
    """Delete the training states; only the released checkpoint is kept."""
    n_files = sum(1 for _ in states.iterdir()) if states.is_dir() else 0
    shutil.rmtree(states, ignore_errors=True)
    context.store.journal.append("training states removed", {"n_files": n_files})


def _previews(context: RunContext) -> list[Figure]:
    """Return figures of some preview sheets, evenly spaced over each stage of training."""
    paths: dict[str, list[str]] = defaultdict(list)
    for path in sorted(context.store.artifacts()):
        if match := re.fullmatch(r"figures/preview/(.+)-(\d+)\.png", path):
            paths[match[1]].append(path)
    shown = []
    for stage, all_of_it in paths.items():
        places = np.linspace(0, len(all_of_it) - 1, min(_PREVIEWS_SHOWN, len(all_of_it)))
        for path in (all_of_it[int(place)] for place in places.round()):
            step = int(path.rsplit("-", 1)[1].removesuffix(".png"))
            shown.append(
                Figure(
                    path=path,
                    title=f"Synthetic images while training: {stage}, step {step:,}",
                    caption="Drawn while training went on, with the same noise each time; "
                    "none picked by hand.",
                )
            )
    return shown


class _Messages:
    """Handles the child's messages: writes records and journal, collects curves, shows progress."""

    def __init__(self, context: RunContext, access_log: AccessLog) -> None:
        self._context, self._access_log = context, access_log
        self._points: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)

    def receive(self, message: Message) -> None:
        match message:
            case told.Isolation():
                self._isolation(message)
            case told.Attempt():
                self._attempt(message.found)
            case told.Log():
                for name, value in message.values.items():
                    self._points[message.stage, name].append((message.step, value))
            case told.Progress():
                self._context.console.progress(message.stage, message.done, message.total)
            case told.Committed():
                self._committed(message)
            case told.Preview():
                self._preview(message)
            case told.Segment():
                body = message.model_dump(include={"stage", "step", "sha256"})
                self._context.store.journal.append(KEPT, body)
            case told.Checkpoint():
                body = {"path": f"checkpoints/{message.path}", "sha256": message.sha256}
                self._context.store.journal.append("checkpoint committed", body)

    def _committed(self, message: told.Committed) -> None:
        """Commit a state by naming it in the journal; the training process waits for this."""
        body = message.model_dump(include={"stage", "step", "sha256"})
        body["path"] = f"{STATES}/{message.path}"
        self._context.store.journal.append(COMMITTED, body)

    def _preview(self, message: told.Preview) -> None:
        sheet = self._context.scratch / "work" / message.path
        self._context.store.write_bytes(f"figures/preview/{message.path}", sheet.read_bytes())
        sheet.unlink()

    def _isolation(self, message: told.Isolation) -> None:
        level, level_name = level_in_force(message.level, message.attempts)
        record = IsolationRecord(
            level=level,
            level_name=level_name,
            mechanism=message.mechanism,
            attempts=message.attempts,
            n_sealed_reads=self._access_log.n_opens,
            limits=LIMITS,
        )
        self._context.store.journal.append(ISOLATION, record.model_dump(mode="json"))
        self._context.console.say(f"isolation level {record.level}: {record.mechanism}")
        read = [attempt.target for attempt in record.attempts if not attempt.refused]
        if read:
            raise IsolationError(
                f"the training process could read: {', '.join(read)}; "
                "it was stopped before its first step; see isolation.json"
            )

    def _attempt(self, attempt: RefusedRead) -> None:
        """Record an attempt of the generator at once, not only when training ends."""
        self._context.store.journal.append(ATTEMPT, attempt.model_dump(mode="json"))
        answer = "refused" if attempt.refused else "NOT refused"
        self._context.console.warn(
            f"the generator tried: {attempt.target} ({attempt.way}): {answer}"
        )

    def curves(self) -> tuple[Curve, ...]:
        """Return the curves by stage and name, in the same order after a resumption."""
        stages = list(dict.fromkeys(stage for stage, _ in self._points))
        ordered = sorted(self._points.items(), key=lambda i: (stages.index(i[0][0]), i[0][1]))
        return tuple(
            Curve(
                stage=stage,
                name=name,
                steps=tuple(step for step, _ in points),
                values=tuple(value for _, value in points),
            )
            for (stage, name), points in ordered
        )


def _record(trained: Trained, curves: tuple[Curve, ...], context: RunContext) -> TrainingRecord:
    report, config = trained.report, context.config
    generator = load_generator(config.model.name)
    settings = config.generator_settings()
    return TrainingRecord(
        generator=config.model.name,
        title=generator.title,
        recipe=str(getattr(settings, "recipe", "as configured")),
        image_size_px=generator.image_size_px(settings),
        training_view_sha256=trained.training_view_sha256,
        tuning_view_sha256=trained.tuning_view_sha256,
        description=report.description
        | {"generator code": str(generator_origin(config.model.name))},
        stages=report.stages,
        curves=curves,
        fitted=report.fitted,
        selection=report.selection,
        checkpoint_path=f"checkpoints/{trained.checkpoint.path}",
        checkpoint_sha256=trained.checkpoint.sha256,
        compute_device=trained.compute_device,
        duration_s=trained.duration_s,
        pretrained=(*report.pretrained, *_extractor(trained)),
        comparison=trained.comparison,
        elsewhere=elsewhere_of(config),
    )


def elsewhere_of(config: RunConfig) -> Elsewhere | None:
    """Return what is known of images made elsewhere; None where the run trains a generator."""
    settings = config.generator_settings()
    if not isinstance(settings, ElsewhereSettings):
        return None
    return Elsewhere(
        n_images=config.evaluation.n_synthetic,
        sha256=settings.digest,
        has_training=settings.has_training,
    )


def _tell_comparison(comparison: TuningComparison | None, context: RunContext) -> None:
    """Print and journal whether the images are better than simple controls."""
    if comparison is None:
        return
    context.store.journal.append(
        "compared with controls",
        {
            "kid": comparison.value,
            "controls": {control.name: control.value for control in comparison.controls},
            "not_beaten": list(comparison.not_beaten),
            "reason": comparison.reason,
        },
    )
    if comparison.not_beaten:
        context.console.warn(comparison.sentence)
    elif comparison.sentence:
        context.console.say(comparison.sentence)


def _extractor(trained: Trained) -> tuple[PretrainedComponent, ...]:
    """Return the feature extractor that scored images in training; empty for none."""
    if trained.extractor_sha256 is None:
        return ()
    used_for = "features of distances to tuning images: candidates, simple controls"
    return (inception_component(trained.extractor_sha256, used_for),)


def _write_samples(
    synthetic: Pixels, record: TrainingRecord, duration_s: float, context: RunContext
) -> tuple[str, ...]:
    """Write every synthetic image with its mark, read the marks back; return the paths."""
    store, files = context.store, []
    mark = SyntheticMark(
        generator=record.generator,
        run_id=store.run_id,
        checkpoint_sha256=record.checkpoint_sha256,
        seed=context.config.seed,
        index=0,
        licence=LICENCE,
    )
    for first in range(0, len(synthetic), WRITTEN_TOGETHER):
        images: dict[str, bytes] = {}
        for index in range(first, min(first + WRITTEN_TOGETHER, len(synthetic))):
            data = marked_png(synthetic[index], replace(mark, index=index))
            images[f"samples/{index:05d}.png"] = data
            context.console.progress("writing samples", index + 1, len(synthetic))
        for index, artifact in enumerate(store.write_files(images), start=first):
            pixels_sha256 = sha256_bytes(synthetic[index].tobytes())
            files.append((artifact.path, artifact.sha256, pixels_sha256))
    samples = SampleSet(
        generator=record.generator,
        checkpoint_sha256=record.checkpoint_sha256,
        seed=context.config.seed,
        n_images=len(files),
        image_size_px=record.image_size_px,
        files=tuple(files),
        n_marks_read_back=_count_marks([path for path, _, _ in files], record, context),
        duration_s=duration_s,
        n_asked=context.config.evaluation.n_synthetic,
        n_drawn=len(synthetic),
    )
    store.write_document(samples)
    return tuple(path for path, _, _ in files)


def _count_marks(paths: Sequence[str], record: TrainingRecord, context: RunContext) -> int:
    """Count the files whose mark, read from disk, names this generator, run and checkpoint."""
    expected = (record.generator, context.store.run_id, record.checkpoint_sha256)
    marks = (read_mark((context.store.run_dir / path).read_bytes()) for path in paths)
    return sum(
        mark is not None and (mark.generator, mark.run_id, mark.checkpoint_sha256) == expected
        for mark in marks
    )
