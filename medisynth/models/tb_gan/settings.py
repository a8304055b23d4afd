"""Settings of TB-GAN. Imports no torch, so that a configuration is checked in milliseconds."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medisynth.models.adversarial.settings import SMALLEST_SIDE, n_levels
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.models.recipe import refuse_recipe

ALL_PLANES = "all"
SMALLEST_HEAD = 4
WIDEST_HEAD = 32
LEAST_HEADS, LEAST_HEADS_IN_WINDOWS = 2, 4
DISCRIMINATOR_WIDTHS = 32, 128  # at the finest level, and at most
ENLARGING_FACTOR = 2
TAIL_FACTOR = 4  # side of the images over that of the last level before a tail

Width = Annotated[int, Field(ge=16, le=1024, multiple_of=8)]
Heads = Annotated[int, Field(ge=1, le=64)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Rate = Annotated[float, Field(gt=0, le=1)]
AugmentationName = Literal["brightness", "contrast", "translation", "cutout"]


class R1Settings(BaseModel):
    """Penalty on the discriminator's gradient at the images it is shown.

    Attributes:
        gamma: Weight; 0 is none.
        every: Updates between two penalties; the weight is multiplied by it.
        r2: Whether synthetic images are penalised like real ones (Huang et al. 2024), rather than
            real ones alone (Mescheder et al. 2018).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma: float = Field(default=1.0, ge=0, le=1000)
    every: int = Field(default=8, ge=1, le=1000)
    r2: bool = True


class ApaSettings(BaseModel):
    """Adaptive pseudo augmentation (Jiang et al. 2021, arXiv:2111.06849).

    Attributes:
        target: Mean sign of the discriminator on training images above which pseudo-real images
            become more frequent.
        speed_images: Images seen while the probability moves from 0 to 1 at its fastest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: float = Field(default=0.6, ge=-1, le=1)
    speed_images: int = Field(default=125_000, ge=1)


class SchedulePart(BaseModel):
    """One part of the training; it starts from the networks and average of the part before.

    Attributes:
        name: Name of the part in curves, states and reports.
        plane: Label of the planes that it trains on, or "all".
        steps: Updates of each network.
        learning_rate: Learning rate of the generator; default: the model's.
        discriminator_learning_rate: Learning rate of the discriminator; default: the model's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="adversarial", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    plane: str = Field(default=ALL_PLANES, min_length=1)
    steps: Steps = 3900
    learning_rate: Rate | None = None
    discriminator_learning_rate: Rate | None = None


class TbGanSettings(BaseModel):
    """Settings of TB-GAN; the defaults are for training on one core at 64 x 64 pixels.

    Attributes:
        size: Side of the images that the generator draws, in pixels.
        enlarging: Doubling of that side by networks trained on real images or by interpolation;
            None for none.
        start: Side of the learned constant that the first level begins with.
        widths: Channels of the generator at each level: `start`, twice that, … up to `size`, or to
            a quarter of it where there is a tail.
        heads: Attention heads of each level, an even number in windows; None gives heads of 32
            channels or more, an even number, at least 2 on whole maps and 4 in windows.
        whole_map_up_to: Largest side of a level whose attention sees the whole map; 0 is none.
        window: Side of an attention window on larger levels; the level where that is smaller.
        depth: Blocks a level.
        mlp_factor: Channels within a perceptron, over those outside.
        activation: Activation between the layers of a perceptron.
        depthwise: Whether a 3 x 3 convolution of each channel by itself is added before a
            perceptron.
        noise: Whether noise is added after every branch and in the tail, by gains learned from 0.
        positions: "learned": a table a level, from 0; "sinusoidal": sines and cosines times one
            learned number a level, from 0, on all levels but the first.
        equalised: Whether the learning rates of linear layers in blocks, between levels and of
            unmodulated image skips are equalised.
        modulated_images: Whether the image of each level is read with weights of the style.
        tail_width: Channels of the convolutions that draw the finest detail as Haar bands; 0 has no
            tail, but levels up to `size`.
        saturating_output: Whether greys end in a tanh; otherwise they are clipped when drawn.
        style_width: Length of latent and style vectors.
        mapping_layers: Layers from latent to style.
        mapping_rate_factor: Their learning rate over that of other layers.
        discriminator: "residual", small; or "wavelet", that of StyleSwin.
        discriminator_widths: Channels of the discriminator at 4, 8, … `size` / 2 pixels; None
            gives 32 at the finest level and twice as many on each following one, up to 128.
        spectral_norm: Whether the wavelet discriminator's layers are spectrally normalised.
        conditioning: "auto" tells both networks plane and machine where the training view records
            more than one; "none" never does.
        loss: Adversarial loss, "relativistic" or "logistic".
        r1: Penalty on the discriminator's gradient.
        learning_rate: Largest learning rate of the generator.
        discriminator_learning_rate: Largest learning rate of the discriminator.
        warm_up_steps: Updates of each part in which the rates rise.
        final_rate_share: Share of the largest rates that half a cosine ends at; 1 keeps them.
        ema: Decay of the moving average of the generator's weights; 0 follows the weights.
        gradient_clip: Largest gradient norm of either network; 0 is no limit.
        apa: Adaptive pseudo augmentation; None is off.
        diffaug: Differentiable augmentations of all that the discriminator sees.
        brightness_span: Range of the brightness that is added, of the 2 from black to white.
        dequantisation: Uniform noise on real images, in grey levels of 255; 0 is none.
        flip: Whether training images are mirrored at random.
        batch_size: Images an update, over all processes together.
        accumulate: Parts that a batch is cut into to save memory.
        precision: Precision of training; "auto" times two steps of each and takes bf16 only where
            it is clearly faster. Sampling is always in fp32.
        schedule: Parts of the training, in order.
        selection_every: Updates between two candidates.
        selection_images: Samples that a candidate is scored on, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Literal[32, 64, 128, 256] = 64
    enlarging: EnlargingSettings | None = None
    start: Literal[4, 8] = 8
    widths: tuple[Width, ...] = (128, 96)
    heads: tuple[Heads, ...] | None = None
    whole_map_up_to: Literal[0, 4, 8, 16, 32] = 16
    window: Literal[4, 8, 16] = 8
    depth: int = Field(default=2, ge=1, le=8)
    mlp_factor: int = Field(default=2, ge=1, le=8)
    activation: Literal["leaky_relu", "gelu"] = "leaky_relu"
    depthwise: bool = True
    noise: bool = True
    positions: Literal["learned", "sinusoidal"] = "learned"
    equalised: bool = True
    modulated_images: bool = True
    tail_width: Literal[0] | Width = 32
    saturating_output: bool = False
    style_width: int = Field(default=64, ge=16, le=1024)
    mapping_layers: int = Field(default=2, ge=1, le=16)
    mapping_rate_factor: float = Field(default=0.1, gt=0, le=1)
    discriminator: Literal["residual", "wavelet"] = "residual"
    discriminator_widths: tuple[Width, ...] | None = None
    spectral_norm: bool = True
    conditioning: Literal["auto", "none"] = "auto"
    loss: Literal["relativistic", "logistic"] = "relativistic"
    r1: R1Settings = R1Settings()
    learning_rate: Rate = 1.5e-3
    discriminator_learning_rate: Rate = 1.5e-3
    warm_up_steps: int = Field(default=100, ge=0)
    final_rate_share: float = Field(default=0.1, ge=0, le=1)
    ema: float = Field(default=0.998, ge=0, lt=1)
    gradient_clip: float = Field(default=0.0, ge=0, le=1e6)
    apa: ApaSettings | None = None
    diffaug: tuple[AugmentationName, ...] = ("brightness", "translation")
    brightness_span: float = Field(default=0.3, gt=0, le=2)
    dequantisation: float = Field(default=0.5, ge=0, le=2)
    flip: bool = True
    batch_size: int = Field(default=16, ge=2, le=4096)
    accumulate: int = Field(default=1, ge=1, le=4096)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    schedule: tuple[SchedulePart, ...] = Field(default=(SchedulePart(),), min_length=1)
    selection_every: int = Field(default=975, ge=1)
    selection_images: int = Field(default=128, ge=2)

    @property
    def image_size_px(self) -> int:
        """Side of the final images, which is that of the views, in pixels."""
        return self.size if self.enlarging is None else self.enlarging.to

    @property
    def last_side(self) -> int:
        """Side of the generator's last level, in pixels."""
        return self.size // TAIL_FACTOR if self.tail_width else self.size

    @property
    def n_levels(self) -> int:
        """Levels of the generator."""
        return int(math.log2(self.last_side // self.start)) + 1

    def side_of(self, level: int) -> int:
        """Side of a level of the generator, 0 is the first, in pixels."""
        return self.start * 2**level

    def is_whole(self, level: int) -> bool:
        """Whether attention sees the whole map of a level."""
        return self.side_of(level) <= self.whole_map_up_to

    @property
    def heads_of_levels(self) -> tuple[int, ...]:
        """Attention heads of each level."""
        if self.heads is not None:
            return self.heads
        return tuple(
            max(
                LEAST_HEADS if self.is_whole(level) else LEAST_HEADS_IN_WINDOWS,
                width // WIDEST_HEAD // 2 * 2,
            )
            for level, width in enumerate(self.widths)
        )

    @property
    def widths_of_discriminator(self) -> tuple[int, ...]:
        """Channels of the discriminator at 4, 8, … `size` / 2 pixels."""
        if self.discriminator_widths is not None:
            return self.discriminator_widths
        finest, widest = DISCRIMINATOR_WIDTHS
        return tuple(
            min(widest, finest * 2**level) for level in reversed(range(n_levels(self.size)))
        )

    def rates_of(self, part: SchedulePart) -> tuple[float, float]:
        """Learning rates (generator, discriminator) of one part of the schedule."""
        return (
            part.learning_rate or self.learning_rate,
            part.discriminator_learning_rate or self.discriminator_learning_rate,
        )

    @property
    def is_spectral(self) -> bool:
        """Whether the discriminator's layers are spectrally normalised."""
        return self.discriminator == "wavelet" and self.spectral_norm

    @property
    def clip_norm(self) -> float:
        """Largest gradient norm; infinite for no limit."""
        return self.gradient_clip or math.inf

    @model_validator(mode="before")
    @classmethod
    def _recipe_is_left_out(cls, data: Any) -> Any:
        refuse_recipe(data, "tb-gan")
        return data

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        levels = f"{self.start} to {self.last_side} pixels"
        lists = (
            ("widths", self.widths, self.n_levels, levels),
            ("heads", self.heads_of_levels, self.n_levels, levels),
            (
                "discriminator_widths",
                self.widths_of_discriminator,
                n_levels(self.size),
                f"{SMALLEST_SIDE} to {self.size // 2} pixels",
            ),
        )
        for name, values, expected, sides in lists:
            if len(values) != expected:
                raise ValueError(
                    f"{name} has {len(values)} numbers; size {self.size} needs {expected}, one for "
                    f"each level of {sides}"
                )
        for level, (width, heads) in enumerate(zip(self.widths, self.heads_of_levels, strict=True)):
            if width % heads or width // heads < SMALLEST_HEAD:
                raise ValueError(
                    f"heads: {heads} heads do not divide a width of {width} into parts of at least "
                    f"{SMALLEST_HEAD} channels"
                )
            if heads % 2 and not self.is_whole(level):
                raise ValueError(
                    f"heads: {heads} heads at {self.side_of(level)} pixels; in windows their "
                    "number is even, half of them on shifted windows"
                )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate is {self.accumulate}; allowed are divisors of batch_size "
                f"({self.batch_size})"
            )
        names = [part.name for part in self.schedule]
        if len(set(names)) < len(names):
            raise ValueError(f"schedule: names must differ, found {', '.join(names)}")
        if "sampling" in names:
            raise ValueError('schedule: the name "sampling" is taken; choose another')
        for part in self.schedule:
            if self.warm_up_steps > part.steps:
                raise ValueError(
                    f"warm_up_steps is {self.warm_up_steps}; allowed are 0 to {part.steps}, the "
                    f"steps of schedule part {part.name!r}"
                )
        return self

    @model_validator(mode="after")
    def _enlarging_fits(self) -> Self:
        if self.enlarging is not None and self.enlarging.to != ENLARGING_FACTOR * self.size:
            raise ValueError(
                f"enlarging.to is {self.enlarging.to}; allowed is {ENLARGING_FACTOR * self.size}, "
                f"{ENLARGING_FACTOR} times size ({self.size})"
            )
        if "super-resolution" in (part.name for part in self.schedule):
            raise ValueError('schedule: the name "super-resolution" is taken; choose another')
        return self

    @model_validator(mode="after")
    def _apa_fits(self) -> Self:
        if self.apa is not None and self.loss == "relativistic":
            raise ValueError(
                "apa: expected none with the relativistic loss, found one; APA reads how many real "
                "images are scored above 0, which means nothing where only differences of scores "
                'count: leave apa out, or set loss to "logistic"'
            )
        return self
