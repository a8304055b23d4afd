"""What was built and how it was trained, in words, for the model card."""

from medisynth.models.dsr_gan.deviations import NOT_REPRODUCED
from medisynth.models.dsr_gan.diffusion import DiffusionStage
from medisynth.models.dsr_gan.fitted import Fitted
from medisynth.models.dsr_gan.histograms import N_DRAWN
from medisynth.models.dsr_gan.noise_prediction import FIRST_BETA, LAST_BETA
from medisynth.models.dsr_gan.settings import T_STEPS, DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import SuperResolutionStage
from medisynth.training import GRADIENT_NORM_LIMIT, n_parameters


def describe(
    settings: DsrGanSettings,
    fitted: Fitted,
    diffusion: DiffusionStage,
    enlarging: SuperResolutionStage,
) -> dict[str, str]:
    """Every field of the description, filled."""
    d, s = settings.diffusion, settings.super_resolution
    return {
        "recipe": _recipe(settings),
        "deviations from the corrected recipe": _deviations(settings),
        "architecture": f"{_diffusion_network(settings, diffusion)}; "
        f"{_enlarging_networks(settings, enlarging)}",
        "sizes": f"grey images, {d.size} x {d.size} pixels from the diffusion model, "
        f"{s.to} x {s.to} pixels after super-resolution",
        "losses": _losses(settings),
        "optimiser": _optimiser(settings),
        "schedule": _schedule(settings),
        "augmentation": _augmentation(settings),
        "pre-training": _pretraining(settings),
        "conditioning": _conditioning(settings, fitted),
        "normalisation": _normalisation(settings, fitted),
        "sampler": _sampler(settings),
        "histogram matching": _histogram_matching(settings, fitted),
        "randomness": "derived from (seed, stage, step or epoch and image); no global seed",
    }


def _recipe(settings: DsrGanSettings) -> str:
    if settings.recipe == "published":
        return (
            "published: noise prediction, histogram matching, super-resolution GAN (Iskandar et "
            "al. 2023, arXiv:2304.03941), for comparison and not for use"
        )
    return (
        "corrected: EDM diffusion (Karras et al. 2022), histogram matching, "
        "super-resolution GAN (after Ledig et al. 2017)"
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


def _enlarging_networks(settings: DsrGanSettings, enlarging: SuperResolutionStage) -> str:
    s, deviations = settings.super_resolution, settings.deviations
    kind = "patch"
    blocks = f"{s.blocks} residual blocks of {s.channels} channels"
    if deviations.classic_srgan:
        kind, blocks = "whole-image", f"{blocks} with batch normalisation"
    if deviations.broken_residual_blocks:
        blocks += " (each layer given the block's input)"
    return (
        f"super-resolution generator with {blocks} "
        f"and {settings.factor}-fold pixel shuffle, {n_parameters(enlarging.enlarger):,} "
        f"parameters; {kind} discriminator from {s.discriminator_channels} channels, "
        f"{n_parameters(enlarging.discriminator):,} parameters"
    )


def _losses(settings: DsrGanSettings) -> str:
    d, s, deviations = settings.diffusion, settings.super_resolution, settings.deviations
    denoising = (
        f"weighted denoising error, ln(sigma) normal with mean {d.p_mean} and standard deviation "
        f"{d.p_std}"
    )
    if deviations.noise_prediction:
        denoising = (
            f"squared error of the predicted noise, linear betas {FIRST_BETA} to {LAST_BETA}, "
            f"T = {T_STEPS}"
        )
    content = "mean squared error" if deviations.classic_srgan else "L1"
    adversarial = "saturating" if deviations.saturating_discriminator_loss else "hinge"
    return (
        f"diffusion: {denoising}; super-resolution: {content} content plus "
        f"{s.adversarial_weight} x {adversarial} adversarial loss after {s.content_only_steps} "
        f"steps of {content} alone"
    )


def _optimiser(settings: DsrGanSettings) -> str:
    d, s = settings.diffusion, settings.super_resolution
    second = 0.999 if settings.deviations.constant_learning_rate else 0.99
    return (
        f"fused AdamW without weight decay; diffusion: betas 0.9 and {second}, EMA {d.ema}; "
        f"super-resolution: betas 0.5 and 0.99 for both networks, EMA {s.ema}; "
        f"gradient norm clipped to {GRADIENT_NORM_LIMIT}"
    )


def _schedule(settings: DsrGanSettings) -> str:
    d, s = settings.diffusion, settings.super_resolution
    course = f"after {d.warm_up_steps} steps of warm-up, then a half cosine to 0"
    end = "half cosine to 0"
    if settings.deviations.constant_learning_rate:
        course = end = "constant"
    return (
        f"diffusion: {d.steps} steps of {d.batch_size} images ({d.accumulate} micro-batch(es)), "
        f"learning rate {d.learning_rate} {course}; "
        f"super-resolution: {s.steps} steps of {s.batch_size} crops of {s.crop} x {s.crop} "
        f"pixels ({s.accumulate} micro-batch(es)), learning rate {s.learning_rate}, "
        f"discriminator {s.discriminator_learning_rate}, {end}"
    )


def _augmentation(settings: DsrGanSettings) -> str:
    d, s = settings.diffusion, settings.super_resolution
    told = "told to the network so that samples are drawn without"
    if settings.deviations.classic_unet:
        told = "not told to the network"
    return (
        f"diffusion: mirrored {'at random' if d.flip else 'never'}, zoom 1 to {d.max_zoom}, "
        f"rotation ± {d.max_rotation_rad} rad, {told}; "
        "super-resolution: random crops, mirrored at random, noise of standard "
        f"deviation {s.speckle} x the square root of brightness on the small image (in sampling "
        f"{s.speckle_in_sampling})"
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
    return (
        "training mean image subtracted; scaled by "
        f"{float(fitted.scaling.gain):.4f} to a standard deviation of "
        f"{settings.diffusion.sigma_data}"
    )


def _sampler(settings: DsrGanSettings) -> str:
    d = settings.diffusion
    if settings.deviations.noise_prediction:
        return f"DDIM, {d.sampler_steps} steps (one network evaluation each), fp32"
    return (
        f"Heun's method, {d.sampler_steps} steps ({2 * d.sampler_steps - 1} network "
        f"evaluations an image), sigma {d.sigma_max} to {d.sigma_min}, rho {d.rho}, fp32"
    )


def _histogram_matching(settings: DsrGanSettings, fitted: Fitted) -> str:
    if settings.deviations.one_average_histogram:
        return "all grey values matched to one mean of sorted training pixels"
    return (
        "grey values above the black background matched to those of one training image a "
        f"sample: of {N_DRAWN} drawn at random from {len(fitted.histograms)}, the one whose "
        "histogram is nearest"
    )
