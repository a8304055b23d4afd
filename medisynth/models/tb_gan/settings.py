"""Settings of TB-GAN. Imports no torch, so that a configuration is checked in milliseconds."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medisynth.models.tb_gan.deviations import (
    PUBLISHED_APA_TARGET,
    PUBLISHED_DISCRIMINATOR_LEARNING_RATE,
    PUBLISHED_LEARNING_RATE,
    PublishedDeviations,
)

ALL_PLANES = "all"
SMALLEST_SIDE = 4
SMALLEST_HEAD = 4
WIDEST_HEAD = 32
LEAST_HEADS = 4

Width = Annotated[int, Field(ge=16, le=1024, multiple_of=8)]
Heads = Annotated[int, Field(ge=2, le=64, multiple_of=2)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Rate = Annotated[float, Field(gt=0, le=1)]
AugmentationName = Literal["brightness", "contrast", "translation", "cutout"]


class R1Settings(BaseModel):
    """Penalty on the discriminator's gradient at training images (Mescheder et al. 2018).

    Attributes:
        gamma: Weight; 0 is none.
        every: Updates between two penalties; the weight is multiplied by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma: float = Field(default=10.0, ge=0, le=1000)
    every: int = Field(default=16, ge=1, le=1000)


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
    """One part of the training; it takes both networks and the average from the part before.

    Attributes:
        name: Name of the part in curves, states and reports.
        plane: Label of the planes that it trains on, or "all".
        steps: Updates of each network.
        learning_rate: That of the generator; None takes the model's.
        discriminator_learning_rate: That of the discriminator; None takes the model's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="adversarial", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    plane: str = Field(default=ALL_PLANES, min_length=1)
    steps: Steps = 1500
    learning_rate: Rate | None = None
    discriminator_learning_rate: Rate | None = None


class TbGanSettings(BaseModel):
    """Settings of TB-GAN.

    Attributes:
        recipe: "corrected", or "published": every deviation of the published code is on.
        deviations: Deviations by name; one that is named keeps its value in either recipe.
        size: Side of the images, in pixels.
        widths: Channels of the generator at each level: 4, 8, … `size` pixels.
        heads: Attention heads of each level, half of them on shifted windows; None gives heads of
            32 channels, but at least 4 heads.
        discriminator_widths: Channels of the discriminator at 4, 8, … `size` / 2 pixels; None
            takes the generator's, less the second to last.
        style_width: Length of latent and style vectors.
        mapping_layers: Layers from latent to style.
        depth: Blocks a level.
        window: Side of an attention window; the whole level where that is smaller.
        position_gain: Factor on the position encoding that is added at every level; 1 as in the
            paper. In short trainings the rows and columns of 1 stay visible in the images.
        learning_rate: That of the generator.
        discriminator_learning_rate: That of the discriminator.
        r1: Penalty on the discriminator's gradient.
        ema: Decay of the moving average of the generator's weights.
        spectral_norm: Whether the discriminator's layers are spectrally normalised.
        gradient_clip: Largest gradient norm of either network; 0 is no limit.
        apa: Adaptive pseudo augmentation.
        diffaug: Differentiable augmentations of all that the discriminator sees.
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

    recipe: Literal["corrected", "published"] = "corrected"
    deviations: PublishedDeviations = PublishedDeviations()
    size: Literal[32, 64, 128, 256] = 64
    widths: tuple[Width, ...] = (128, 128, 128, 64, 32)
    heads: tuple[Heads, ...] | None = None
    discriminator_widths: tuple[Width, ...] | None = None
    style_width: int = Field(default=128, ge=16, le=1024)
    mapping_layers: int = Field(default=4, ge=1, le=16)
    depth: int = Field(default=2, ge=1, le=8)
    window: Literal[4, 8, 16] = 8
    position_gain: float = Field(default=1.0, ge=0, le=1)
    learning_rate: Rate = 5e-5
    discriminator_learning_rate: Rate = 4e-4
    r1: R1Settings = R1Settings()
    ema: float = Field(default=0.99, ge=0, lt=1)
    spectral_norm: bool = True
    gradient_clip: float = Field(default=5.0, ge=0, le=1e6)
    apa: ApaSettings = ApaSettings()
    diffaug: tuple[AugmentationName, ...] = ("brightness", "contrast", "translation", "cutout")
    flip: bool = True
    batch_size: int = Field(default=8, ge=2, le=4096)
    accumulate: int = Field(default=1, ge=1, le=4096)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    schedule: tuple[SchedulePart, ...] = Field(default=(SchedulePart(),), min_length=1)
    selection_every: int = Field(default=250, ge=1)
    selection_images: int = Field(default=128, ge=2)

    @property
    def n_levels(self) -> int:
        """Levels of the generator: 4, 8, … `size` pixels."""
        return int(math.log2(self.size)) - 1

    @property
    def heads_of_levels(self) -> tuple[int, ...]:
        """Attention heads of each level."""
        if self.heads is not None:
            return self.heads
        return tuple(max(LEAST_HEADS, width // WIDEST_HEAD // 2 * 2) for width in self.widths)

    @property
    def widths_of_discriminator(self) -> tuple[int, ...]:
        """Channels of the discriminator at 4, 8, … `size` / 2 pixels."""
        if self.discriminator_widths is not None:
            return self.discriminator_widths
        return (*self.widths[:-2], self.widths[-1])

    @property
    def switched_on(self) -> dict[str, str]:
        """Published deviations that are on, name to what they did."""
        return self.deviations.switched_on()

    def rates_of(self, part: SchedulePart) -> tuple[float, float]:
        """Learning rates (generator, discriminator) of one part of the schedule."""
        if self.deviations.learning_rates_of_the_code:
            return PUBLISHED_LEARNING_RATE, PUBLISHED_DISCRIMINATOR_LEARNING_RATE
        return (
            part.learning_rate or self.learning_rate,
            part.discriminator_learning_rate or self.discriminator_learning_rate,
        )

    @property
    def r1_gamma(self) -> float:
        """Weight of R1 in effect."""
        return 0.0 if self.deviations.without_r1 else self.r1.gamma

    @property
    def ema_decay(self) -> float:
        """Decay of the moving average in effect; 0 follows the weights."""
        return 0.0 if self.deviations.without_ema else self.ema

    @property
    def is_spectral(self) -> bool:
        """Whether spectral normalisation is in effect."""
        return self.spectral_norm and not self.deviations.without_spectral_norm

    @property
    def clip_norm(self) -> float:
        """Largest gradient norm in effect; infinite for no limit."""
        unlimited = self.deviations.without_gradient_clip or self.gradient_clip == 0
        return math.inf if unlimited else self.gradient_clip

    @property
    def apa_target(self) -> float:
        """Target of adaptive pseudo augmentation in effect."""
        return PUBLISHED_APA_TARGET if self.deviations.apa_never_fires else self.apa.target

    @model_validator(mode="before")
    @classmethod
    def _published_turns_all_on(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("recipe") != "published":
            return data
        named = data.get("deviations", {})
        if isinstance(named, PublishedDeviations):
            named = {name: getattr(named, name) for name in named.model_fields_set}
        if not isinstance(named, dict):
            return data
        on = dict.fromkeys(PublishedDeviations.model_fields, True)
        return {**data, "deviations": {**on, **named}}

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        lists = (
            ("widths", self.widths, self.n_levels, f"4 to {self.size} pixels"),
            ("heads", self.heads_of_levels, self.n_levels, f"4 to {self.size} pixels"),
            (
                "discriminator_widths",
                self.widths_of_discriminator,
                self.n_levels - 1,
                f"4 to {self.size // 2} pixels",
            ),
        )
        for name, values, expected, levels in lists:
            if len(values) != expected:
                raise ValueError(
                    f"{name} has {len(values)} numbers; size {self.size} needs {expected}, one for "
                    f"each level of {levels}"
                )
        for width, heads in zip(self.widths, self.heads_of_levels, strict=True):
            if width % heads or width // heads < SMALLEST_HEAD:
                raise ValueError(
                    f"heads: {heads} heads do not divide a width of {width} into parts of at least "
                    f"{SMALLEST_HEAD} channels"
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
        return self
