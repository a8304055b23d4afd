"""What was built and how it was trained, in words, for the model card."""

from collections.abc import Sequence

from medisynth.models.dsr_gan.deviations import NOT_REPRODUCED
from medisynth.models.dsr_gan.diffusion import DiffusionStage
from medisynth.models.dsr_gan.fitted import Fitted
from medisynth.models.dsr_gan.histograms import N_DRAWN
from medisynth.models.dsr_gan.noise_prediction import FIRST_BETA, LAST_BETA
from medisynth.models.dsr_gan.refining import BETAS, RefiningStage
from medisynth.models.dsr_gan.settings import T_STEPS, DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import enlarging_settings, sides_of
from medisynth.models.enlarging import description as shared
from medisynth.models.enlarging.crop_training import CropTraining
from medisynth.training.loop import GRADIENT_NORM_LIMIT, n_parameters


def describe(
    settings: DsrGanSettings,
    fitted: Fitted,
    diffusion: DiffusionStage,
    enlarging: Sequence[CropTraining],
    refining: RefiningStage | None,
) -> dict[str, str]:
    """Every field of the description, filled."""
    d, s = settings.diffusion, settings.super_resolution
    large = _super_resolution(settings, enlarging)
    fields = {
        "recipe": _recipe(settings),
        "deviations from the corrected recipe": _deviations(settings),
        "architecture": f"{_diffusion_network(settings, diffusion)}; {large['architecture']}",
        "sizes": f"grey images, {d.size} x {d.size} pixels from the diffusion model, "
        f"{s.to} x {s.to} pixels after super-resolution",
        "losses": f"diffusion: {_losses(settings)}; super-resolution: {large['losses']}",
        "optimiser": f"diffusion: {_optimiser(settings)}; super-resolution: {large['optimiser']}",
        "schedule": f"diffusion: {_schedule(settings)}; super-resolution: {large['schedule']}",
        "augmentation": f"diffusion: {_augmentation(settings)}; super-resolution: {large['augmentation']}",
        "pre-training": _pretraining(settings),
        "conditioning": _conditioning(settings, fitted),
        "normalisation": _normalisation(settings, fitted),
        "sampler": _sampler(settings),
        "histogram matching": _histogram_matching(settings, fitted),
        "randomness": "derived from (seed, stage, step or epoch and image); no global seed",
    }
    for name, words in _refining(settings, refining).items():
        fields[name] += f"; refining: {words}"
    return fields


def _refining(settings: DsrGanSettings, stage: RefiningStage | None) -> dict[str, str]:
    """What the refining stage adds to fields of the description."""
    own = settings.refining
    if own is None or stage is None:
        return {}
    return {
        "architecture": (
            f"generator that doubles the diffusion image, {own.blocks} residual blocks of "
            f"{own.channels} channels with noise, {n_parameters(stage.enlarger):,} parameters; "
            "residual discriminator of whole images, widths "
            f"{', '.join(map(str, own.discriminator_widths))}, "
            f"{n_parameters(stage.discriminator):,} parameters"
        ),
        "losses": (
            f"relativistic softplus of whole images, {own.reduced_weight} x L1 between the reduced "
            f"result and the diffusion image, R1 and R2 with gamma {own.gamma} every {own.every} "
            "updates"
        ),
        "optimiser": (
            f"fused Adam, betas {BETAS[0]} and {BETAS[1]} for both networks, EMA {own.ema}, "
            f"gradient norm clipped to {own.clip_norm}"
        ),
        "schedule": (
            f"{own.steps} steps of {own.batch_size} images, on {own.n_samples} drawn from the "
            f"diffusion model; learning rate {own.learning_rate}, discriminator "
            f"{own.discriminator_learning_rate}, warm-up of {own.warm_up_steps} steps, then half "
            f"a cosine to {own.final_rate_share} of them"
        ),
        "augmentation": "mirrored at random; DiffAug (brightness, translation) of real and made "
        "images alike",
    }


def _recipe(settings: DsrGanSettings) -> str:
    if settings.recipe == "published":
        return (
            "published: noise prediction, histogram matching, super-resolution GAN (Iskandar et "
            "al. 2023, arXiv:2304.03941), for comparison and not for use"
        )
    return (
        "corrected: EDM diffusion (Karras et al. 2022), histogram matching, "
        "super-resolution GAN that draws texture from noise"
    )


def _deviations(settings: DsrGanSettings) -> str:
    switched_on = [f"{name}: {what}" for name, what in settings.deviations.switched_on().items()]
    if settings.recipe == "published":
        switched_on += [
            f"not reproduced, on purpose: {name} ({why})" for name, why in NOT_REPRODUCED.items()
        ]
    return "; ".join(switched_on) or "none"


def _diffusion_network(settings: DsrGanSettings, diffusion: DiffusionStage) -> str:
    d = settings.diffusion
    channels = ", ".join(str(c) for c in d.channels)
    size = f"{n_parameters(diffusion.network):,} parameters"
    if settings.deviations.classic_unet:
        return (
            f"UNet of Ho et al. 2020 on three equal channels, channels {channels}, {d.layers} "
            f"residual layer(s) a level, self-attention at the fifth level and the middle, {size}"
        )
    return (
        f"UNet on {d.unshuffle} x {d.unshuffle} pixel blocks, channels {channels}, "
        f"{d.layers} residual layer(s) a level, self-attention at the lowest level: "
        f"{'yes' if d.attention else 'no'}, {size}"
    )


def _super_resolution(settings: DsrGanSettings, stages: Sequence[CropTraining]) -> dict[str, str]:
    """Fields as those of the shared stage, for the networks of the recipe."""
    stage, own = stages[-1], enlarging_settings(settings, settings.super_resolution.to)
    if not settings.deviations.classic_srgan:
        fields = shared.describe(own, 2, stage)
        if len(stages) > 1:
            sides = " and ".join(f"{side} px" for side in sides_of(settings))
            fields["architecture"] = f"{len(stages)} times, to {sides}: {fields['architecture']}"
        return fields
    fields = shared.describe(own, settings.factor, stage)
    blocks = f"{own.blocks} residual blocks of {own.channels} channels with batch normalisation"
    if settings.deviations.broken_residual_blocks:
        blocks += " (each layer given the block's input)"
    adversarial = "saturating" if settings.deviations.saturating_discriminator_loss else "hinge"
    return fields | {
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


def _losses(settings: DsrGanSettings) -> str:
    d = settings.diffusion
    if settings.deviations.noise_prediction:
        return (
            f"squared error of the predicted noise, linear betas {FIRST_BETA} to {LAST_BETA}, "
            f"T = {T_STEPS}"
        )
    return (
        f"weighted denoising error, ln(sigma) normal with mean {d.p_mean} and standard deviation "
        f"{d.p_std}"
    )


def _optimiser(settings: DsrGanSettings) -> str:
    second = 0.999 if settings.deviations.constant_learning_rate else 0.99
    return (
        f"fused AdamW without weight decay, betas 0.9 and {second}, EMA {settings.diffusion.ema}, "
        f"gradient norm clipped to {GRADIENT_NORM_LIMIT}"
    )


def _schedule(settings: DsrGanSettings) -> str:
    d = settings.diffusion
    course = f"after {d.warm_up_steps} steps of warm-up, then a half cosine to 0"
    if settings.deviations.constant_learning_rate:
        course = "constant"
    return (
        f"{d.steps} steps of {d.batch_size} images ({d.accumulate} micro-batch(es)), "
        f"learning rate {d.learning_rate} {course}"
    )


def _augmentation(settings: DsrGanSettings) -> str:
    d = settings.diffusion
    told = "told to the network so that samples are drawn without"
    if settings.deviations.classic_unet:
        told = "not told to the network"
    return (
        f"mirrored {'at random' if d.flip else 'never'}, zoom 1 to {d.max_zoom}, "
        f"rotation ± {d.max_rotation_rad} rad, {told}"
    )


def _pretraining(settings: DsrGanSettings) -> str:
    given = settings.pretrained
    if given is None:
        return "none; both networks start from random weights of the run's seed"
    return (
        f"diffusion network from {given.source} (sha256:{given.sha256}, licence {given.licence}, "
        f"trained on {given.training_data}); super-resolution networks from random weights"
    )


def _conditioning(settings: DsrGanSettings, fitted: Fitted) -> str:
    vocabulary, d = fitted.vocabulary, settings.diffusion
    if not vocabulary.is_conditional:
        return "unconditional"
    named = zip(("plane", "machine"), vocabulary.sizes, strict=True)
    told = " and ".join(f"{name} ({size} labels)" for name, size in named if size)
    return (
        f"{told}, hidden from the network for {d.condition_dropout:.0%} of training images; "
        f"drawn as often as in training where none is asked for; classifier-free guidance "
        f"{d.guidance}{' (none)' if d.guidance == 1 else ''}"
    )


def _normalisation(settings: DsrGanSettings, fitted: Fitted) -> str:
    if fitted.mean_image is None:
        return "grey values scaled to -1 to 1"
    top, bottom, left, right = fitted.scaling.window
    return (
        f"rows {top} to {bottom - 1} and columns {left} to {right - 1} of {settings.diffusion.size}, "
        "outside which no training image holds picture; training mean image subtracted; scaled by "
        f"{float(fitted.scaling.gain):.4f} to a standard deviation of "
        f"{settings.diffusion.sigma_data}"
    )


def _sampler(settings: DsrGanSettings) -> str:
    d = settings.diffusion
    if settings.deviations.noise_prediction:
        return (
            f"DDIM, {d.sampler_steps} steps (one network evaluation each), {d.sampling_precision}"
        )
    return (
        f"Heun's method, {d.sampler_steps} steps ({2 * d.sampler_steps - 1} network "
        f"evaluations an image), sigma {d.sigma_max} to {d.sigma_min}, rho {d.rho}, "
        f"churn {d.churn:g}, {d.sampling_precision}"
    )


def _histogram_matching(settings: DsrGanSettings, fitted: Fitted) -> str:
    if settings.deviations.one_average_histogram:
        return "all grey values matched to one mean of sorted training pixels"
    return (
        "grey values above the black background matched to those of one training image a "
        f"sample: of {N_DRAWN} drawn at random from {len(fitted.histograms)}, the one whose "
        "histogram is nearest"
    )
