"""Description of a DSR-GAN and its training for the model card."""

from collections.abc import Mapping, Sequence

from medisynth.models.dsr_gan.diffusion import DiffusionStage
from medisynth.models.dsr_gan.fitted import N_DRAWN, Fitted
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import enlarging_settings, sides_of_stages
from medisynth.models.enlarging import description as shared
from medisynth.models.enlarging.crop_training import CropTraining
from medisynth.models.enlarging.refining import BETAS, RefiningStage
from medisynth.training.loop import GRADIENT_NORM_LIMIT, n_parameters


def describe(
    settings: DsrGanSettings,
    fitted: Fitted,
    small: Mapping[str, str],
    large: Mapping[str, str],
    refining: RefiningStage | None,
) -> dict[str, str]:
    """Fill in every field of the description.

    Args:
        settings: Settings of the whole generator.
        fitted: Parts that were fitted before training.
        small: Fields of the diffusion stage, those of `describe_diffusion`.
        large: The same fields of the enlarging stages.
        refining: The refining stage, where there is one.
    """
    d, s = settings.diffusion, settings.super_resolution
    fields = {
        "recipe": "EDM diffusion (Karras et al. 2022), histogram matching, super-resolution GAN "
        "that draws texture from noise",
        "architecture": f"{small['architecture']}; {large['architecture']}",
        "sizes": f"grey images, {d.size} x {d.size} pixels from the diffusion model, "
        f"{s.to} x {s.to} pixels after super-resolution",
        **{
            name: f"diffusion: {small[name]}; super-resolution: {large[name]}"
            for name in ("losses", "optimiser", "schedule", "augmentation")
        },
        "pre-training": _pretraining(settings),
        "conditioning": _conditioning(settings, fitted),
        "normalisation": _normalisation(settings, fitted),
        "sampler": _sampler(settings),
        "histogram matching": _histogram_matching(fitted),
        "randomness": "derived from (seed, stage, step or epoch and image); no global seed",
    }
    for name, words in _refining(settings, refining).items():
        fields[name] += f"; refining: {words}"
    return fields


def describe_diffusion(settings: DsrGanSettings, stage: DiffusionStage) -> dict[str, str]:
    """Architecture, losses, optimiser, schedule and augmentation of the diffusion stage."""
    d = settings.diffusion
    return {
        "architecture": (
            f"UNet on {d.unshuffle} x {d.unshuffle} pixel blocks, channels "
            f"{', '.join(map(str, d.channels))}, {d.layers} residual layer(s) a level, "
            f"self-attention at the lowest level: {'yes' if d.attention else 'no'}, "
            f"{n_parameters(stage.network):,} parameters"
        ),
        "losses": (
            f"weighted denoising error, ln(sigma) normal with mean {d.p_mean} and standard "
            f"deviation {d.p_std}"
        ),
        "optimiser": (
            f"fused AdamW without weight decay, betas 0.9 and 0.99, EMA {d.ema}, "
            f"gradient norm clipped to {GRADIENT_NORM_LIMIT}"
        ),
        "schedule": (
            f"{d.steps} steps of {d.batch_size} images ({d.accumulate} micro-batch(es)), learning "
            f"rate {d.learning_rate} after {d.warm_up_steps} steps of warm-up, then a half cosine "
            "to 0"
        ),
        "augmentation": (
            f"mirrored {'at random' if d.flip else 'never'}, zoom 1 to {d.max_zoom}, rotation ± "
            f"{d.max_rotation_rad} rad, told to the network so that samples are drawn without"
        ),
    }


def describe_enlarging(settings: DsrGanSettings, stages: Sequence[CropTraining]) -> dict[str, str]:
    """Return the fields of `describe_diffusion` for the enlarging stages."""
    if not stages:
        others = ("losses", "optimiser", "schedule", "augmentation")
        return {"architecture": shared.BICUBIC} | dict.fromkeys(others, "none beside refining")
    own = enlarging_settings(settings, settings.super_resolution.to)
    fields = shared.describe(own, 2, stages[-1])
    if len(stages) > 1:
        sides = " and ".join(f"{side} px" for side in sides_of_stages(settings))
        fields["architecture"] = f"{len(stages)} times, to {sides}: {fields['architecture']}"
    if own.last_doubling == "bicubic":
        fields["architecture"] += f"; {shared.BICUBIC}"
    return fields


def _refining(settings: DsrGanSettings, stage: RefiningStage | None) -> dict[str, str]:
    """Text that the refining stage adds to fields of the description."""
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
    top, bottom, left, right = fitted.scaling.window
    return (
        f"rows {top} to {bottom - 1} and columns {left} to {right - 1} of {settings.diffusion.size}, "
        "outside which no training image holds picture; training mean image subtracted; scaled by "
        f"{float(fitted.scaling.gain):.4f} to a standard deviation of "
        f"{settings.diffusion.sigma_data}"
    )


def _sampler(settings: DsrGanSettings) -> str:
    d = settings.diffusion
    return (
        f"Heun's method, {d.sampler_steps} steps ({2 * d.sampler_steps - 1} network "
        f"evaluations an image), sigma {d.sigma_max} to {d.sigma_min}, rho {d.rho}, "
        f"churn {d.churn:g}, {d.sampling_precision}"
    )


def _histogram_matching(fitted: Fitted) -> str:
    return (
        "grey values above the black background matched to those of one training image a "
        f"sample: of {N_DRAWN} drawn at random from {len(fitted.histograms)}, the one whose "
        "histogram is nearest"
    )
