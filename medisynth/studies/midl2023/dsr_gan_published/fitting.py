"""Fitting of a published DSR-GAN: both stages in order, choice of a checkpoint, report."""

from dataclasses import replace

import torch

from governance.records.training import FitReport
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan.diffusion import STAGE as DIFFUSION_STAGE
from medisynth.models.dsr_gan.diffusion import DiffusionStage
from medisynth.models.dsr_gan.fitted import Fitted, Scaling, fit_before_training
from medisynth.models.dsr_gan.fitting import (
    assembled,
    choose,
    fit_report,
    require_usable,
    train_stage,
)
from medisynth.models.dsr_gan.super_resolution import stage_name, super_resolution_stage
from medisynth.models.dsr_gan.trained import Trained
from medisynth.models.enlarging.crop_training import CropTraining
from medisynth.studies.midl2023.dsr_gan_published.classic_srgan import ClassicStage
from medisynth.studies.midl2023.dsr_gan_published.description import describe_published
from medisynth.studies.midl2023.dsr_gan_published.settings import DsrGanPublishedSettings
from medisynth.studies.midl2023.dsr_gan_published.trained import (
    as_published,
    enlarged_sides,
    mean_histogram,
    n_channels,
    new_diffusion,
    objective_of,
)
from medisynth.training.loop import Precision


def fit(
    settings: DsrGanPublishedSettings,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
) -> tuple[Trained, FitReport]:
    """Train all stages on the training view; choose on the tuning view.

    Raises:
        DataError, StoppedError, TrainingError, WeightsError: As `medisynth.models.dsr_gan.fitting.fit`.
    """
    for view in (training, tuning):
        require_usable(view, settings.super_resolution.to)
    fitted = fit_parts(settings, training, context)
    diffusion, diffusion_report = train_stage(
        settings,
        settings.precision,
        DIFFUSION_STAGE,
        lambda precision: diffusion_stage(settings, training, tuning, context, precision, fitted),
        context,
    )
    reports = [diffusion_report]
    enlarging: dict[int, CropTraining] = {}
    for side in enlarged_sides(settings):

        def stage_in(precision: Precision, side: int = side) -> CropTraining:
            return enlarging_stage(settings, side, training, tuning, context, precision)

        setting = settings.super_resolution.precision or settings.precision
        name = stage_name(settings, side)
        enlarging[side], took = train_stage(settings, setting, name, stage_in, context)
        reports.append(took)
    network = new_diffusion(settings, 0, fitted.vocabulary.sizes)
    enlargers = {side: stage.final for side, stage in enlarging.items()}
    trained = assembled(settings, fitted, network, diffusion.candidates.best, enlargers)
    choice = choose(as_published(settings, trained), diffusion, context)
    description = describe_published(settings, fitted, diffusion, list(enlarging.values()))
    things = _things(settings, fitted)
    report = fit_report(settings, training, tuning, choice, description, reports, things)
    return choice.trained, report


def fit_parts(
    settings: DsrGanPublishedSettings, training: ImageView, context: TrainingContext
) -> Fitted:
    """Fit scaling, histograms and vocabulary.

    Raises:
        DataError: All training images are equal.
    """
    fitted = fit_before_training(training, settings, context.seed, context.compute_device)
    if settings.deviations.noise_prediction:
        scaling = plain_scaling(settings.diffusion.size, context.compute_device)
        fitted = replace(fitted, mean_image=None, scaling=scaling)
    if settings.deviations.one_average_histogram:
        fitted = replace(fitted, histograms=mean_histogram(fitted.histograms))
    return fitted


def plain_scaling(size: int, device: str) -> Scaling:
    """Scaling of whole images to -1 to 1: no mean image is subtracted and no border cut off."""
    grey = torch.full((1, 1, size, size), 0.5, device=device)
    return Scaling(grey, torch.tensor(2.0, device=device), (0, size, 0, size))


def diffusion_stage(
    settings: DsrGanPublishedSettings,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
    precision: Precision,
    fitted: Fitted,
) -> DiffusionStage:
    """Build the untrained diffusion stage."""
    return DiffusionStage(
        settings,
        training,
        tuning,
        context,
        precision,
        fitted,
        network=new_diffusion(settings, context.seed, fitted.vocabulary.sizes),
        n_channels=n_channels(settings),
        objective=objective_of(settings),
        constant_rate=settings.deviations.constant_learning_rate,
    )


def enlarging_stage(
    settings: DsrGanPublishedSettings,
    side: int,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
    precision: Precision,
) -> CropTraining:
    """Build the untrained stage that makes images of one of `enlarged_sides`."""
    if settings.deviations.classic_srgan:
        return ClassicStage(settings, training, tuning, context, precision)
    return super_resolution_stage(settings, side, training, tuning, context, precision)


def _things(settings: DsrGanPublishedSettings, fitted: Fitted) -> list[str]:
    """Names of everything that was fitted, for the report."""
    n = len(fitted.histograms)
    is_average = settings.deviations.one_average_histogram
    histograms = (
        "one mean histogram" if is_average else f"grey value histograms ({n} training images)"
    )
    means = [] if fitted.mean_image is None else ["mean image and intensity gain"]
    networks = ["diffusion network", "super-resolution networks"]
    return [histograms, "labels and their frequencies", *means, *networks]
