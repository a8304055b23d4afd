"""Fitting a TB-GAN: the parts of the schedule in order, and the report of what was done."""

from medisynth.data.views import ImageView
from medisynth.errors import DataError
from medisynth.generator import FitReport, StageReport, TrainingContext
from medisynth.models.conditioning import Vocabulary, vocabulary_of
from medisynth.models.tb_gan.description import describe
from medisynth.models.tb_gan.networks import Networks, new_networks
from medisynth.models.tb_gan.settings import ALL_PLANES, SchedulePart, TbGanSettings
from medisynth.models.tb_gan.trained import GENERATOR, VOCABULARY, Trained, trained_from
from medisynth.models.tb_gan.training_stage import ENERGY, AdversarialStage
from medisynth.training import Precision, TrainedStage, choose_precision, n_parameters, train

TRIAL_STEP = 1  # one without R1, as most are
FEWEST_IMAGES = 2


def fit(
    settings: TbGanSettings, training: ImageView, tuning: ImageView, context: TrainingContext
) -> tuple[Trained, FitReport]:
    """Train every part of the schedule on the training view; choose on the tuning view.

    Raises:
        DataError: A view is empty, has images of another size, no image of a plane, or more labels
            than a network can be told.
        StoppedError: A stop was asked for.
        TrainingError: A loss or gradient was not finite, or a guard fired.
    """
    views = [
        (_of_plane(training, part, settings.size), _of_plane(tuning, part, settings.size))
        for part in settings.schedule
    ]
    # Of the last part, since that is what it draws; labels of others count as not recorded.
    vocabulary = vocabulary_of(views[-1][0], settings.conditioning)
    precision = _precision(settings, views[0], vocabulary, context)
    networks = _networks(settings, vocabulary, context)
    stages, reports = [], []
    for part, (to_train, to_tune) in zip(settings.schedule, views, strict=True):
        stage = AdversarialStage(
            settings, part, to_train, to_tune, context, precision, networks, vocabulary
        )
        took = train(stage, context, evaluate_every=settings.selection_every)
        stages.append(stage)
        reports.append(_report(stage, took))
    last = stages[-1]
    tensors = {GENERATOR + name: value for name, value in last.chosen.items()}
    tensors[VOCABULARY] = vocabulary.to_tensor()
    name = context.score_name or "score" if context.score is not None else ENERGY
    report = FitReport(
        description=describe(settings, networks, vocabulary),
        stages=tuple(reports),
        fitted={
            f"generator and discriminator, part {part.name}": view.digest
            for part, (view, _) in zip(settings.schedule, views, strict=True)
        },
        selection_criterion=f"lowest {name} of {settings.selection_images} samples at most of the "
        f"averaged generator to the tuning view, in the last part ({last.name})",
        # KID is to the whole tuning view, the energy distance to the planes of the last part.
        selection_view_sha256=(tuning if context.score is not None else views[-1][1]).digest,
        candidates=tuple(last.candidates),
        chosen_step=last.chosen_step,
    )
    return trained_from(settings, tensors), report


def _report(stage: AdversarialStage, took: TrainedStage) -> StageReport:
    return StageReport(
        name=stage.name,
        n_parameters=n_parameters(stage.networks.generator, stage.networks.discriminator),
        n_steps=stage.n_steps,
        batch_size=stage.batch_size,
        duration_s=took.duration_s,
        precision=stage.precision,
        n_processes=took.n_processes,
        peak_memory_bytes=took.peak_memory_bytes,
    )


def planes_of(view: ImageView) -> tuple[str, ...]:
    """Plane labels of a view, sorted; without those not recorded."""
    return tuple(sorted(set(view.planes) - {""}))


def _of_plane(view: ImageView, part: SchedulePart, size: int) -> ImageView:
    """The images that a part trains or is scored on."""
    if len(view) < FEWEST_IMAGES:
        raise DataError(
            f"{view.partition} view: expected at least {FEWEST_IMAGES} images, found {len(view)}; "
            "give more data or another split",
            code="D081",
        )
    if view.pixels.shape[1:] != (size, size):
        height, width = view.pixels.shape[1:]
        raise DataError(
            f"{view.partition} view: expected images of {size} x {size} pixels (size), found "
            f"{height} x {width}; pack the view again at that size",
            code="D082",
        )
    if part.plane == ALL_PLANES:
        return view
    rows = [row for row, plane in enumerate(view.planes) if plane == part.plane]
    if len(rows) < FEWEST_IMAGES:
        raise DataError(
            f"schedule part {part.name!r}: expected at least {FEWEST_IMAGES} images of plane "
            f"{part.plane!r} in the {view.partition} view, found {len(rows)}; planes there are "
            f"{', '.join(planes_of(view)) or 'not recorded'}",
            code="D083",
        )
    return ImageView(
        view.partition,
        view.pixels[rows],
        *(
            tuple(labels[row] for row in rows)
            for labels in (view.image_ids, view.patient_ids, view.planes, view.machines)
        ),
    )


def _networks(
    settings: TbGanSettings, vocabulary: Vocabulary, context: TrainingContext
) -> Networks:
    return new_networks(settings, context.seed, context.compute_device, vocabulary.sizes)


def _precision(
    settings: TbGanSettings,
    views: tuple[ImageView, ImageView],
    vocabulary: Vocabulary,
    context: TrainingContext,
) -> Precision:
    """The precision asked for, that of a training to be resumed, or the faster one."""
    first = settings.schedule[0]
    state = context.states.latest(first.name) if context.states else None
    if state is not None:
        found: Precision = state.facts["stage"]["precision"]
        return found
    if settings.precision != "auto":
        return settings.precision

    def stage_in(precision: Precision) -> AdversarialStage:
        networks = _networks(settings, vocabulary, context)
        return AdversarialStage(settings, first, *views, context, precision, networks, vocabulary)

    trials = {"fp32": stage_in("fp32"), "bf16": stage_in("bf16")}

    def one_step(precision: Precision) -> None:
        trials[precision].step(TRIAL_STEP)

    return choose_precision("auto", one_step, context.compute_device)
