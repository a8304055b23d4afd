"""Fitting a TB-GAN: the parts of the schedule in order, and the report of what was done."""

import math
from collections.abc import Sequence

from medisynth.data.views import ImageView
from medisynth.errors import DataError
from medisynth.generator import FitReport, StageReport, TrainingContext
from medisynth.models.tb_gan.deviations import NOT_REPRODUCED
from medisynth.models.tb_gan.networks import Networks, new_networks
from medisynth.models.tb_gan.settings import ALL_PLANES, SchedulePart, TbGanSettings
from medisynth.models.tb_gan.trained import GENERATOR, Trained, trained_from
from medisynth.models.tb_gan.training_stage import (
    BETAS,
    ENERGY,
    AdversarialStage,
)
from medisynth.training import Precision, TrainedStage, choose_precision, n_parameters, train

TRIAL_STEP = 1  # one without R1, as most are
FEWEST_IMAGES = 2


def fit(
    settings: TbGanSettings, training: ImageView, tuning: ImageView, context: TrainingContext
) -> tuple[Trained, FitReport]:
    """Train every part of the schedule on the training view; choose on the tuning view.

    Raises:
        DataError: A view is empty, has images of another size, or no image of a plane.
        StoppedError: A stop was asked for.
        TrainingError: A loss or gradient was not finite, or a guard fired.
    """
    views = [
        (_of_plane(training, part, settings.size), _of_plane(tuning, part, settings.size))
        for part in settings.schedule
    ]
    precision = _precision(settings, views[0], context)
    networks = new_networks(settings, context.seed, context.compute_device)
    stages, reports = [], []
    for part, (to_train, to_tune) in zip(settings.schedule, views, strict=True):
        stage = AdversarialStage(settings, part, to_train, to_tune, context, precision, networks)
        took = train(stage, context, evaluate_every=settings.selection_every)
        stages.append(stage)
        reports.append(_report(stage, took))
    last = stages[-1]
    tensors = {GENERATOR + name: value for name, value in last.chosen.items()}
    name = context.score_name or "score" if context.score is not None else ENERGY
    report = FitReport(
        description=describe(settings, networks),
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


def _precision(
    settings: TbGanSettings, views: tuple[ImageView, ImageView], context: TrainingContext
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
        networks = new_networks(settings, context.seed, context.compute_device)
        return AdversarialStage(settings, first, *views, context, precision, networks)

    trials = {"fp32": stage_in("fp32"), "bf16": stage_in("bf16")}

    def one_step(precision: Precision) -> None:
        trials[precision].step(TRIAL_STEP)

    return choose_precision("auto", one_step, context.compute_device)


def describe(settings: TbGanSettings, networks: Networks) -> dict[str, str]:
    """Say in words what was built and how it was trained, for the model card."""
    return {
        **_architecture(settings, networks),
        **_optimisation(settings),
        "schedule": "; then ".join(_part(settings, part) for part in settings.schedule)
        + f"; batches of {settings.batch_size} images in {settings.accumulate} part(s), learning "
        "rates constant",
        "augmentation": _augmentation(settings),
        "pre-training": _pretraining(settings.schedule),
        "conditioning": "unconditional; it draws the planes that the last part was trained on "
        f"({settings.schedule[-1].plane})",
        "normalisation": "grey values scaled to -1 to 1",
        "sampler": "one pass of the averaged generator a sample, normal latent vectors without "
        "truncation, fp32",
        "limits": "after few updates or from few images expect blur, bands along rows and columns, "
        "repeated texture and no recognisable anatomy",
        "randomness": "derived from (seed, part, step or epoch and image); no global seed",
    }


def _architecture(settings: TbGanSettings, networks: Networks) -> dict[str, str]:
    deviations = settings.switched_on
    recipe = f"{settings.recipe}: StyleSwin (Zhang et al. 2022) with DiffAug and APA"
    if deviations:
        recipe += "; deviations of the published code that are on: " + "; ".join(
            f"{name} ({what})" for name, what in deviations.items()
        )
    if settings.recipe == "published":
        recipe += "; not reproduced: " + "; ".join(
            f"{name} ({why})" for name, why in NOT_REPRODUCED.items()
        )
    return {
        "recipe": recipe,
        "architecture": (
            f"StyleSwin generator: {settings.mapping_layers} mapping layers of "
            f"{settings.style_width}, levels of 4 to {settings.size} pixels with widths "
            f"{_list(settings.widths)} and heads {_list(settings.heads_of_levels)}, "
            f"{settings.depth} blocks a level, double attention in windows of {settings.window} "
            f"pixels, {n_parameters(networks.generator):,} parameters; wavelet discriminator with "
            "minibatch standard deviation, widths "
            f"{_list(settings.widths_of_discriminator)} at 4 to {settings.size // 2} pixels, "
            f"{n_parameters(networks.discriminator):,} parameters"
        ),
        "sizes": f"grey images, {settings.size} x {settings.size} pixels, one channel",
    }


def _optimisation(settings: TbGanSettings) -> dict[str, str]:
    r1 = (
        f"R1 with gamma {settings.r1_gamma} every {settings.r1.every} updates"
        if settings.r1_gamma > 0
        else "no R1"
    )
    clip = (
        f"clipped to {settings.clip_norm}" if math.isfinite(settings.clip_norm) else "not clipped"
    )
    ema = f"EMA {settings.ema_decay}" if settings.ema_decay > 0 else "no EMA"
    return {
        "losses": f"non-saturating logistic loss; {r1}; spectral normalisation of the "
        f"discriminator: {'yes' if settings.is_spectral else 'no'}",
        "optimiser": f"fused Adam with betas {BETAS[0]} and {BETAS[1]} for both networks, anew in "
        f"every part; {ema} of the generator; gradient norms {clip}",
    }


def _augmentation(settings: TbGanSettings) -> str:
    policy = ", ".join(settings.diffaug) or "none"
    return (
        f"mirrored {'at random' if settings.flip else 'never'}; DiffAug ({policy}) of real, "
        f"pseudo-real and synthetic images alike; APA with target {settings.apa_target} and a "
        f"speed of {settings.apa.speed_images:,} images"
    )


def _part(settings: TbGanSettings, part: SchedulePart) -> str:
    rate, discriminator_rate = settings.rates_of(part)
    planes = "all planes" if part.plane == ALL_PLANES else f"plane {part.plane}"
    return (
        f"{part.name}: {part.steps} updates on {planes}, learning rate {rate:g}, discriminator "
        f"{discriminator_rate:g}"
    )


def _pretraining(schedule: Sequence[SchedulePart]) -> str:
    if len(schedule) == 1:
        return "none; both networks start from random weights of the run's seed"
    earlier = ", ".join(f"{part.name} (plane {part.plane})" for part in schedule[:-1])
    return f"on images of the same training view: {earlier}; before that, random weights"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
