"""Description of a published DSR-GAN and its training for the model card."""

from collections.abc import Sequence

from medisynth.models.dsr_gan.description import describe, describe_diffusion, describe_enlarging
from medisynth.models.dsr_gan.diffusion import DiffusionStage
from medisynth.models.dsr_gan.fitted import Fitted
from medisynth.models.enlarging import description as shared
from medisynth.models.enlarging.crop_training import CropTraining
from medisynth.studies.midl2023.dsr_gan_published.noise_prediction import (
    FIRST_BETA,
    LAST_BETA,
    T_STEPS,
)
from medisynth.studies.midl2023.dsr_gan_published.settings import (
    NOT_REPRODUCED,
    DsrGanPublishedSettings,
)
from medisynth.training.loop import GRADIENT_NORM_LIMIT, n_parameters

RECIPE = (
    "published: noise prediction, histogram matching, super-resolution GAN (Iskandar et al. 2023, "
    "arXiv:2304.03941), for comparison and not for use"
)


def describe_published(
    settings: DsrGanPublishedSettings,
    fitted: Fitted,
    diffusion: DiffusionStage,
    enlarging: Sequence[CropTraining],
) -> dict[str, str]:
    """Fill in every field of the description, from the built-in's unless a deviation is on."""
    small = describe_diffusion(settings, diffusion) | _small(settings, diffusion)
    if settings.deviations.classic_srgan:
        large = _large(settings, enlarging[-1])
    else:
        large = describe_enlarging(settings, enlarging)
    head = {"recipe": RECIPE, "deviations from the corrected recipe": _deviations(settings)}
    fields = head | describe(settings, fitted, small, large, None) | head
    d, on = settings.diffusion, settings.deviations
    if on.noise_prediction:
        fields["normalisation"] = "grey values scaled to -1 to 1"
        fields["sampler"] = (
            f"DDIM, {d.sampler_steps} steps (one network evaluation each), {d.sampling_precision}"
        )
    if on.one_average_histogram:
        matched = "all grey values matched to one mean of sorted training pixels"
        fields["histogram matching"] = matched
    return fields


def _deviations(settings: DsrGanPublishedSettings) -> str:
    switched_on = [f"{name}: {what}" for name, what in settings.deviations.switched_on().items()]
    left_out = [
        f"not reproduced, on purpose: {name} ({why})" for name, why in NOT_REPRODUCED.items()
    ]
    return "; ".join(switched_on + left_out)


def _small(settings: DsrGanPublishedSettings, stage: DiffusionStage) -> dict[str, str]:
    """Return the fields of the diffusion stage that deviations change."""
    d, on = settings.diffusion, settings.deviations
    fields = {}
    if on.classic_unet:
        fields["architecture"] = (
            f"UNet of Ho et al. 2020 on three equal channels, channels "
            f"{', '.join(map(str, d.channels))}, {d.layers} residual layer(s) a level, "
            "self-attention at the fifth level and the middle, "
            f"{n_parameters(stage.network):,} parameters"
        )
        fields["augmentation"] = (
            f"mirrored {'at random' if d.flip else 'never'}, zoom 1 to {d.max_zoom}, rotation ± "
            f"{d.max_rotation_rad} rad, not told to the network"
        )
    if on.noise_prediction:
        fields["losses"] = (
            f"squared error of the predicted noise, linear betas {FIRST_BETA} to {LAST_BETA}, "
            f"T = {T_STEPS}"
        )
    if on.constant_learning_rate:
        fields["optimiser"] = (
            f"fused AdamW without weight decay, betas 0.9 and 0.999, EMA {d.ema}, gradient norm "
            f"clipped to {GRADIENT_NORM_LIMIT}"
        )
        fields["schedule"] = (
            f"{d.steps} steps of {d.batch_size} images ({d.accumulate} micro-batch(es)), learning "
            f"rate {d.learning_rate} constant"
        )
    return fields


def _large(settings: DsrGanPublishedSettings, stage: CropTraining) -> dict[str, str]:
    """Return the fields of the published super-resolution GAN."""
    own, on = settings.super_resolution, settings.deviations
    blocks = f"{own.blocks} residual blocks of {own.channels} channels with batch normalisation"
    if on.broken_residual_blocks:
        blocks += " (each layer given the block's input)"
    adversarial = "saturating" if on.saturating_discriminator_loss else "hinge"
    return shared.describe(own, settings.factor, stage) | {
        "architecture": (
            f"super-resolution generator with {blocks} and {settings.factor}-fold pixel shuffle, "
            f"{n_parameters(stage.enlarger):,} parameters; whole-image discriminator from "
            f"{own.discriminator_channels} channels, {n_parameters(stage.discriminator):,} "
            "parameters"
        ),
        "losses": (
            f"mean squared error content plus {own.adversarial_weight} x {adversarial} "
            "adversarial loss"
        ),
    }
