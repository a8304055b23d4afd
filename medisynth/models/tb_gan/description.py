"""Description of a TB-GAN and its training for the model card."""

import math
from collections.abc import Sequence

from medisynth.models.adversarial.augment import MOST_SHIFT_FRACTION
from medisynth.models.conditioning import AXES, Vocabulary
from medisynth.models.enlarging.crop_training import CropTraining
from medisynth.models.enlarging.description import BICUBIC
from medisynth.models.enlarging.description import describe as describe_enlarging
from medisynth.models.tb_gan.networks import Networks
from medisynth.models.tb_gan.settings import (
    ALL_PLANES,
    ENLARGING_FACTOR,
    SchedulePart,
    TbGanSettings,
)
from medisynth.models.tb_gan.training_stage import BETAS
from medisynth.training.loop import n_parameters


def describe(
    settings: TbGanSettings,
    networks: Networks,
    vocabulary: Vocabulary,
    enlarging: CropTraining | None,
) -> dict[str, str]:
    """Fill in every field of the description."""
    return {
        "recipe": _recipe(settings),
        "architecture": f"{_generator(settings, networks)}; {_discriminator(settings, networks)}",
        "sizes": _sizes(settings),
        **_optimisation(settings),
        "schedule": "; then ".join(_part(settings, part) for part in settings.schedule)
        + f"; batches of {settings.batch_size} images in {settings.accumulate} part(s), "
        + _course(settings),
        "augmentation": _augmentation(settings),
        "pre-training": _pretraining(settings.schedule),
        "conditioning": _conditioning(settings, vocabulary),
        "normalisation": "grey values scaled to -1 to 1"
        + (
            f", with uniform noise of up to {settings.dequantisation} grey levels on real images"
            if settings.dequantisation
            else ""
        ),
        "sampler": "one pass of the averaged generator a sample, normal latent vectors"
        + (" and noise" if settings.noise else "")
        + " without truncation, fp32",
        "enlarging": _enlarging(settings, enlarging),
        "limits": "after few updates or from few images expect blur, repeated motifs, too little "
        "variety and anatomy that is wrong or missing",
        "randomness": "derived from (seed, part, step or epoch and image); no global seed",
    }


def _sizes(settings: TbGanSettings) -> str:
    size, final = settings.size, settings.image_size_px
    sizes = f"grey images, {size} x {size} pixels, one channel"
    return sizes if size == final else f"{sizes}; {final} x {final} pixels after enlarging"


def _enlarging(settings: TbGanSettings, stage: CropTraining | None) -> str:
    if settings.enlarging is None:
        return "none"
    if stage is None:
        return BICUBIC
    fields = describe_enlarging(settings.enlarging, ENLARGING_FACTOR, stage)
    return "; ".join(f"{name}: {text}" for name, text in fields.items())


def _recipe(settings: TbGanSettings) -> str:
    recipe = "generator of the StyleSwin family (Zhang et al. 2022)"
    if settings.diffaug:
        recipe += ", DiffAug (Zhao et al. 2020)"
    if settings.apa is not None:
        recipe += ", APA (Jiang et al. 2021)"
    if settings.loss == "relativistic":
        recipe += ", relativistic loss (Huang et al. 2024)"
    return recipe


def _generator(settings: TbGanSettings, networks: Networks) -> str:
    activation = {"leaky_relu": "leaky ReLU", "gelu": "GELU"}[settings.activation]
    parts = [
        f"generator: {settings.mapping_layers} mapping layers of {settings.style_width} (learning "
        f"rate x {settings.mapping_rate_factor:g}), levels of {settings.start} to "
        f"{settings.last_side} pixels with widths {_list(settings.widths)} and heads "
        f"{_list(settings.heads_of_levels)}, {settings.depth} blocks a level",
        _attention(settings),
        f"perceptrons x {settings.mlp_factor} with {activation}",
    ]
    if settings.depthwise:
        parts.append("a depthwise 3 x 3 residual before each")
    if settings.noise:
        parts.append("noise of learned gains after every branch")
    if settings.positions == "learned":
        parts.append("learned positions from 0")
    else:
        parts.append("sinusoidal positions times one learned number a level, from 0")
    equalised = "equalised" if settings.equalised else "raw"
    parts.append(f"linear layers {equalised}")
    modulated = "modulated" if settings.modulated_images else "plain"
    parts.append(f"a {modulated} image skip a level")
    if settings.tail_width:
        parts.append(
            f"the finest detail from two modulated convolutions of {settings.tail_width} channels "
            f"at {2 * settings.last_side} pixels as Haar bands"
        )
    parts.append("output through tanh" if settings.saturating_output else "linear output")
    return ", ".join(parts) + f", {n_parameters(networks.generator):,} parameters"


def _attention(settings: TbGanSettings) -> str:
    sides = [settings.side_of(level) for level in range(settings.n_levels)]
    whole = [side for level, side in enumerate(sides) if settings.is_whole(level)]
    kinds = []
    if whole:
        kinds.append(f"attention over the whole map at {_list(whole)} pixels")
    if len(whole) < len(sides):
        kinds.append(f"double attention in windows of {settings.window} pixels on larger levels")
    return " and ".join(kinds)


def _discriminator(settings: TbGanSettings, networks: Networks) -> str:
    kind = {"residual": "residual discriminator on Haar bands", "wavelet": "wavelet discriminator"}
    return (
        f"{kind[settings.discriminator]} with minibatch standard deviation, widths "
        f"{_list(settings.widths_of_discriminator)} at 4 to {settings.size // 2} pixels, "
        f"{n_parameters(networks.discriminator):,} parameters"
    )


def _optimisation(settings: TbGanSettings) -> dict[str, str]:
    loss = {
        "relativistic": "relativistic softplus loss",
        "logistic": "non-saturating logistic loss",
    }[settings.loss]
    r1 = "no R1"
    if settings.r1.gamma > 0:
        which = "R1 and R2" if settings.r1.r2 else "R1"
        r1 = f"{which} with gamma {settings.r1.gamma:g} every {settings.r1.every} updates, fp32"
    clip = (
        f"clipped to {settings.clip_norm:g}" if math.isfinite(settings.clip_norm) else "not clipped"
    )
    ema = f"EMA {settings.ema}" if settings.ema > 0 else "no EMA"
    return {
        "losses": f"{loss}; {r1}; spectral normalisation of the discriminator: "
        f"{'yes' if settings.is_spectral else 'no'}",
        "optimiser": f"fused Adam with betas {BETAS[0]} and {BETAS[1]} for both networks, anew in "
        f"every part; {ema} of the generator; gradient norms {clip}",
    }


def _course(settings: TbGanSettings) -> str:
    if settings.final_rate_share == 1:
        return "learning rates constant"
    return (
        f"learning rates rise over {settings.warm_up_steps} updates of each part, then half a "
        f"cosine to {settings.final_rate_share:g} of the largest"
    )


def _augmentation(settings: TbGanSettings) -> str:
    strengths = {
        "brightness": f"brightness ± {settings.brightness_span / 2:g} of -1 to 1",
        "translation": f"translation up to {MOST_SHIFT_FRACTION:g} of the side",
    }
    policy = ", ".join(strengths.get(name, name) for name in settings.diffaug) or "none"
    shown = "real, pseudo-real and synthetic" if settings.apa is not None else "real and synthetic"
    text = (
        f"mirrored {'at random' if settings.flip else 'never'}; DiffAug ({policy}) of {shown} "
        "images alike"
    )
    if settings.apa is None:
        return text + "; no APA"
    return (
        text + f"; APA with target {settings.apa.target} and a speed of "
        f"{settings.apa.speed_images:,} images"
    )


def _conditioning(settings: TbGanSettings, vocabulary: Vocabulary) -> str:
    planes = settings.schedule[-1].plane
    if not vocabulary.is_conditional:
        return f"unconditional; it draws the planes that the last part was trained on ({planes})"
    named = zip(AXES, vocabulary.sizes, strict=True)
    told = " and ".join(f"{name} ({size} labels)" for name, size in named if size)
    return (
        f"{told}, told to the mapping network and by projection to the discriminator (Miyato and "
        f"Koyama 2018); drawn as often as in training where none is asked for; planes of the last "
        f"part: {planes}"
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
