"""Fitting of a TB-GAN: the parts of the schedule in order, and the report."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from governance.records.errors import DataError
from governance.records.training import (
    Candidate,
    FitReport,
    FittedThing,
    Selection,
    TrainingStage,
    training_stage,
)
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.conditioning import Vocabulary, vocabulary_of
from medisynth.models.enlarging.crop_training import STAGE as ENLARGING_STAGE
from medisynth.models.enlarging.images import reduced_pixels
from medisynth.models.enlarging.networks import Bicubic, EnlargingNetwork
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.models.enlarging.stage import EnlargingStage
from medisynth.models.tb_gan.description import describe
from medisynth.models.tb_gan.networks import Networks, new_networks
from medisynth.models.tb_gan.settings import (
    ALL_PLANES,
    ENLARGING_FACTOR,
    SchedulePart,
    TbGanSettings,
)
from medisynth.models.tb_gan.trained import Trained, state_of, trained_from
from medisynth.models.tb_gan.training_stage import ENERGY, AdversarialStage
from medisynth.training.loop import Precision, TrainedStage, choose_precision, n_parameters, train

TRIAL_STEP = 1  # one without R1, as most are
FEWEST_IMAGES = 2


def fit(
    settings: TbGanSettings, training: ImageView, tuning: ImageView, context: TrainingContext
) -> tuple[Trained, FitReport]:
    """Train every part of the schedule on the training view; choose on the tuning view.

    The enlarging stage, where there is one, learns from real images alone. It comes first, so that
    every candidate of the generator is scored as large as images will be.

    Raises:
        DataError: A view is empty, has images of another size, no image of a plane, or more labels
            than a network can be told.
        StoppedError: A stop was asked for.
        TrainingError: A loss or gradient was not finite, or a guard fired.
    """
    views = [
        (_of_plane(training, part, settings), _of_plane(tuning, part, settings))
        for part in settings.schedule
    ]
    # Labels of the last part, whose images it draws; labels of others count as not recorded.
    vocabulary = vocabulary_of(views[-1][0], settings.conditioning)
    reports, fitted = [], {}
    enlarging = None
    enlarger: EnlargingNetwork | None = None
    if settings.enlarging is not None and settings.enlarging.last_doubling == "bicubic":
        enlarger = Bicubic()
    elif settings.enlarging is not None:
        enlarging, took = _train_enlarging(settings, settings.enlarging, views[-1], context)
        reports.append(took)
        fitted["enlarging networks"] = views[-1][0].digest
        enlarger = enlarging.final
    small = [(_at_size(to_train, settings.size), to_tune) for to_train, to_tune in views]
    precision = _precision(settings, small[0], vocabulary, context)
    networks = _networks(settings, vocabulary, context)
    stages = []
    for part, (to_train, to_tune) in zip(settings.schedule, small, strict=True):
        stage = AdversarialStage(
            settings, part, to_train, to_tune, context, precision, networks, vocabulary, enlarger
        )
        took_part = train(stage, context, evaluate_every=settings.selection_every)
        stages.append(stage)
        both = (networks.generator, networks.discriminator)
        reports.append(_report(stage, took_part, precision=stage.precision, networks=both))
    fitted |= {
        f"generator and discriminator, part {part.name}": view.digest
        for part, (view, _) in zip(settings.schedule, views, strict=True)
    }
    last = stages[-1]
    networks.averaged.module.load_state_dict(last.chosen)
    trained = trained_from(settings, state_of(last.drawing))
    name = context.score_name or "score" if context.score is not None else ENERGY
    report = FitReport(
        description=describe(settings, networks, vocabulary, enlarging),
        stages=tuple(reports),
        fitted=tuple(
            FittedThing(name=name, fit_view_sha256=digest) for name, digest in fitted.items()
        ),
        selection=Selection(
            partition=tuning.partition,
            # KID is to the whole tuning view, the energy distance to the planes of the last part.
            view_sha256=(tuning if context.score is not None else views[-1][1]).digest,
            criterion=f"lowest {name} of {settings.selection_images} samples at most of the "
            f"averaged generator to the tuning view, in the last part ({last.name})",
            candidates=tuple(Candidate(step=step, score=score) for step, score in last.candidates),
            chosen_step=last.chosen_step,
        ),
    )
    return trained, report


def _train_enlarging(
    settings: TbGanSettings,
    own: EnlargingSettings,
    views: tuple[ImageView, ImageView],
    context: TrainingContext,
) -> tuple[EnlargingStage, TrainingStage]:
    def stage_in(precision: Precision) -> EnlargingStage:
        return EnlargingStage(own, ENLARGING_FACTOR, *views, context, precision)

    precision = _begun_in(ENLARGING_STAGE, context)
    if precision is None:
        wanted = own.precision or settings.precision
        precision = wanted if wanted != "auto" else _faster(stage_in, context)
    stage = stage_in(precision)
    took = train(stage, context, evaluate_every=settings.selection_every)
    networks = (stage.enlarger, stage.discriminator)
    return stage, _report(stage, took, precision=precision, networks=networks)


def _report(
    stage: AdversarialStage | EnlargingStage,
    took: TrainedStage,
    *,
    precision: Precision,
    networks: tuple[nn.Module, nn.Module],
) -> TrainingStage:
    return training_stage(
        name=stage.name,
        n_parameters=n_parameters(*networks),
        n_steps=stage.n_steps,
        batch_size=stage.batch_size,
        duration_s=took.duration_s,
        precision=precision,
        n_processes=took.n_processes,
        peak_memory_bytes=took.peak_memory_bytes,
    )


def _at_size(view: ImageView, size: int) -> ImageView:
    """Return the view for the adversarial stage, reduced where an enlarging stage follows."""
    if view.pixels.shape[-1] == size:
        return view
    return replace(view, pixels=reduced_pixels(view.pixels, size))


def planes_of(view: ImageView) -> tuple[str, ...]:
    """Plane labels of a view, sorted; without those not recorded."""
    return tuple(sorted(set(view.planes) - {""}))


def _of_plane(view: ImageView, part: SchedulePart, settings: TbGanSettings) -> ImageView:
    """Return the images that a part of the schedule trains or is scored on."""
    size = settings.image_size_px
    if len(view) < FEWEST_IMAGES:
        raise DataError(
            f"{view.partition} view: expected at least {FEWEST_IMAGES} images, found {len(view)}; "
            "give more data or another split",
            code="D081",
        )
    if view.pixels.shape[1:] != (size, size):
        height, width = view.pixels.shape[1:]
        raise DataError(
            f"{view.partition} view: expected images of {size} x {size} pixels "
            f"({'size' if settings.enlarging is None else 'enlarging.to'}), found "
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
    """Return the precision that is set, that of a training to be resumed, or the faster one."""
    first = settings.schedule[0]
    begun = _begun_in(first.name, context)
    if begun is not None:
        return begun
    if settings.precision != "auto":
        return settings.precision

    def stage_in(precision: Precision) -> AdversarialStage:
        networks = _networks(settings, vocabulary, context)
        return AdversarialStage(settings, first, *views, context, precision, networks, vocabulary)

    return _faster(stage_in, context)


def _begun_in(stage: str, context: TrainingContext) -> Precision | None:
    """Precision of a stage to be resumed, since timing again could choose another; else None."""
    state = context.states.latest(stage) if context.states else None
    if state is None:
        return None
    found: Precision = state.facts["stage"]["precision"]
    return found


def _faster(
    stage_in: Callable[[Precision], AdversarialStage | EnlargingStage], context: TrainingContext
) -> Precision:
    """Choose the faster precision by timing steps of throw-away stages."""
    trials = {"fp32": stage_in("fp32"), "bf16": stage_in("bf16")}

    def one_step(precision: Precision) -> None:
        trials[precision].step(TRIAL_STEP)

    return choose_precision("auto", one_step, context.compute_device)
