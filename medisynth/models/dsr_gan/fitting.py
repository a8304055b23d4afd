"""Fitting a DSR-GAN: both stages in order, and the report of what was done."""

from collections.abc import Callable

import numpy as np
import torch

from medisynth.data.views import ImageView
from medisynth.errors import DataError
from medisynth.generator import FitReport, StageReport, TrainingContext
from medisynth.models.dsr_gan.batches import reduced_pixels
from medisynth.models.dsr_gan.diffusion import (
    DiffusionStage,
    Scaling,
    fit_mean_image,
    fit_scaling,
    new_network,
)
from medisynth.models.dsr_gan.histograms import N_DRAWN, Histograms, histograms_of
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import SuperResolutionStage
from medisynth.models.dsr_gan.trained import Trained
from medisynth.training import (
    GRADIENT_NORM_LIMIT,
    Precision,
    choose_precision,
    n_parameters,
    numpy_generator,
    train,
)

MOST_HISTOGRAMS = 1024


def fit(
    settings: DsrGanSettings, training: ImageView, tuning: ImageView, context: TrainingContext
) -> tuple[Trained, FitReport]:
    """Train both stages on the training view; choose on the tuning view.

    Raises:
        DataError: A view is empty, has images of another size, or all images are equal.
        StoppedError: A stop was asked for.
        TrainingError: A loss or gradient was not finite.
    """
    for view in (training, tuning):
        _require_usable(view, settings.super_resolution.to)
    mean_image = fit_mean_image(training, context.compute_device)
    scaling = fit_scaling(training, mean_image, settings.diffusion)
    histograms = fit_histograms(training, settings.diffusion.size, context.seed)
    diffusion, diffusion_report = _train_diffusion(
        settings, training, tuning, context, mean_image, scaling
    )
    enlarging, enlarging_report = _train_super_resolution(settings, training, tuning, context)

    network = new_network(settings.diffusion, context.seed)
    network.load_state_dict(diffusion.best)
    network.eval().requires_grad_(False)
    trained = Trained(settings, network, scaling, histograms, enlarging.final)
    fitted = (
        "mean image and intensity gain",
        f"grey value histograms ({len(histograms)} training images)",
        "diffusion network",
        "super-resolution network",
    )
    report = FitReport(
        description=describe(settings, scaling, histograms, diffusion, enlarging),
        stages=(diffusion_report, enlarging_report),
        fitted=dict.fromkeys(fitted, training.digest),
        selection_criterion="lowest EMA denoising loss of the diffusion stage on the tuning view",
        selection_view_sha256=tuning.digest,
        candidates=tuple(diffusion.candidates),
        chosen_step=diffusion.best_step,
    )
    return trained, report


def fit_histograms(training: ImageView, size: int, seed: int) -> Histograms:
    """Count the grey values of training images at the diffusion size, 1024 drawn ones at most."""
    rows = np.arange(len(training))
    if len(rows) > MOST_HISTOGRAMS:
        generator = numpy_generator(seed, "histograms")
        rows = np.sort(generator.choice(rows, MOST_HISTOGRAMS, replace=False))
    return histograms_of(reduced_pixels(training.pixels[rows], size))


def _require_usable(view: ImageView, size: int) -> None:
    if len(view) == 0:
        raise DataError(
            f"{view.partition} view: expected at least 1 image, found 0; "
            "give more data or another split",
            code="D081",
        )
    if view.pixels.shape[1:] != (size, size):
        height, width = view.pixels.shape[1:]
        raise DataError(
            f"{view.partition} view: expected images of {size} x {size} pixels "
            f"(super_resolution.to), found {height} x {width}; pack the view again at that size",
            code="D082",
        )


def _train_diffusion(
    settings: DsrGanSettings,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
    mean_image: torch.Tensor,
    scaling: Scaling,
) -> tuple[DiffusionStage, StageReport]:
    def stage_in(precision: Precision) -> DiffusionStage:
        return DiffusionStage(
            settings.diffusion, training, tuning, context, precision, mean_image, scaling
        )

    precision = _precision(settings, stage_in, context)
    stage = stage_in(precision)
    duration_s = train(stage, context, evaluate_every=settings.selection_every)
    return stage, StageReport(
        name=stage.name,
        n_parameters=n_parameters(stage.network),
        n_steps=stage.n_steps,
        batch_size=settings.diffusion.batch_size,
        duration_s=duration_s,
        precision=precision,
    )


def _train_super_resolution(
    settings: DsrGanSettings, training: ImageView, tuning: ImageView, context: TrainingContext
) -> tuple[SuperResolutionStage, StageReport]:
    def stage_in(precision: Precision) -> SuperResolutionStage:
        return SuperResolutionStage(
            settings.super_resolution, settings.factor, training, tuning, context, precision
        )

    precision = _precision(settings, stage_in, context)
    stage = stage_in(precision)
    duration_s = train(stage, context, evaluate_every=settings.selection_every)
    return stage, StageReport(
        name=stage.name,
        n_parameters=n_parameters(stage.enlarger, stage.discriminator),
        n_steps=stage.n_steps,
        batch_size=settings.super_resolution.batch_size,
        duration_s=duration_s,
        precision=precision,
    )


def _precision(
    settings: DsrGanSettings,
    stage_in: Callable[[Precision], DiffusionStage | SuperResolutionStage],
    context: TrainingContext,
) -> Precision:
    if settings.precision != "auto":
        return settings.precision
    trials = {name: stage_in(name) for name in ("fp32", "bf16")}

    def last_step(precision: Precision) -> None:  # the last one, where every network takes part
        stage = trials[precision]
        stage.step(stage.n_steps - 1)

    return choose_precision("auto", last_step, context.compute_device)


def describe(
    settings: DsrGanSettings,
    scaling: Scaling,
    histograms: Histograms,
    diffusion: DiffusionStage,
    enlarging: SuperResolutionStage,
) -> dict[str, str]:
    """Say in words what was built and how it was trained, for the model card."""
    d, s = settings.diffusion, settings.super_resolution
    channels = ", ".join(str(c) for c in d.channels)
    return {
        "recipe": f"{settings.recipe}: EDM diffusion (Karras et al. 2022), histogram matching, "
        "super-resolution GAN (after Ledig et al. 2017)",
        "architecture": (
            f"UNet on {d.unshuffle} x {d.unshuffle} pixel blocks, channels {channels}, "
            f"{d.layers} residual layer(s) a level, self-attention at the lowest level: "
            f"{'yes' if d.attention else 'no'}, {n_parameters(diffusion.network):,} parameters; "
            f"super-resolution generator with {s.blocks} residual blocks of {s.channels} channels "
            f"and {settings.factor}-fold pixel shuffle, {n_parameters(enlarging.enlarger):,} "
            f"parameters; patch discriminator from {s.discriminator_channels} channels, "
            f"{n_parameters(enlarging.discriminator):,} parameters"
        ),
        "sizes": f"grey images, {d.size} x {d.size} pixels from the diffusion model, "
        f"{s.to} x {s.to} pixels after super-resolution",
        "losses": (
            f"diffusion: weighted denoising error, ln(sigma) normal with mean {d.p_mean} and "
            f"standard deviation {d.p_std}; super-resolution: L1 content plus "
            f"{s.adversarial_weight} x hinge adversarial loss after {s.content_only_steps} steps "
            "of L1 alone"
        ),
        "optimiser": (
            f"fused AdamW without weight decay; diffusion: betas 0.9 and 0.99, EMA {d.ema}; "
            f"super-resolution: betas 0.5 and 0.99 for both networks, EMA {s.ema}; "
            f"gradient norm clipped to {GRADIENT_NORM_LIMIT}"
        ),
        "schedule": (
            f"diffusion: {d.steps} steps of {d.batch_size} images, learning rate "
            f"{d.learning_rate} after {d.warm_up_steps} steps of warm-up, then a half cosine to 0; "
            f"super-resolution: {s.steps} steps of {s.batch_size} crops of {s.crop} x {s.crop} "
            f"pixels, learning rate {s.learning_rate}, discriminator "
            f"{s.discriminator_learning_rate}, half cosine to 0"
        ),
        "augmentation": (
            f"diffusion: mirrored {'at random' if d.flip else 'never'}, zoom 1 to {d.max_zoom}, "
            f"rotation ± {d.max_rotation_rad} rad, told to the network so that samples are drawn "
            "without; super-resolution: random crops, mirrored at random, noise of standard "
            f"deviation {s.speckle} x the square root of brightness on the small image (in sampling, "
            "too)"
        ),
        "pre-training": "none; both networks start from random weights of the run's seed",
        "conditioning": "unconditional",
        "normalisation": (
            "training mean image subtracted; scaled by "
            f"{float(scaling.gain):.4f} to a standard deviation of {d.sigma_data}"
        ),
        "sampler": (
            f"Heun's method, {d.sampler_steps} steps ({2 * d.sampler_steps - 1} network "
            f"evaluations an image), sigma {d.sigma_max} to {d.sigma_min}, rho {d.rho}, fp32"
        ),
        "histogram matching": (
            "grey values above the black background matched to those of one training image a "
            f"sample: of {N_DRAWN} drawn at random from {len(histograms)}, the one whose histogram "
            "is nearest"
        ),
        "randomness": "derived from (seed, stage, step or epoch and image); no global seed",
    }
