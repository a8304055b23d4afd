"""Settings of the enlarging and refining stages. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FACTORS = (2, 4, 8)

Channels = Annotated[int, Field(ge=8, le=1024, multiple_of=8)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Batch = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=10)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class EnlargingSettings(BaseModel):
    """The enlarging networks and their training.

    Attributes:
        to: Side of the images it makes, in pixels; 2, 4 or 8 times that of the small ones.
        last_doubling: "network" trains one for it; "bicubic" enlarges by interpolation, which
            trains nothing and adds no texture.
        channels: Channels of the generator.
        blocks: Residual blocks of the generator.
        discriminator_channels: Channels of the discriminator's first layer.
        crop: Side of the training crops, in pixels of the large image; a multiple of 8.
        steps: Updates of each of the two networks.
        batch_size: Crops an update, over all micro-batches and processes together.
        accumulate: Micro-batches an update, to save memory; divides `batch_size`.
        learning_rate: Largest learning rate of the generator.
        discriminator_learning_rate: Largest learning rate of the discriminator.
        schedule: Course of both learning rates: half a cosine to 0, or constant.
        content_weight: Weight of the L1 distance to the crop.
        reduced_weight: Weight of the L1 distance between the reduced result and the small crop.
        adversarial_weight: Weight of the adversarial loss.
        blur_px: Largest standard deviation of the blur of small crops in training, in small pixels.
        grain: Largest standard deviation of the noise on small crops in training, as a share of
            their brightness.
        logit_penalty: Weight of the discriminator's mean squared score in its own loss.
        ema: Decay of the moving average of the generator's weights.
        precision: Precision of this stage's training; None is that of the generator's settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: int = Field(default=128, ge=16, le=4096)
    last_doubling: Literal["network", "bicubic"] = "network"
    channels: Channels = 32
    blocks: int = Field(default=4, ge=1, le=64)
    discriminator_channels: Channels = 32
    crop: int = Field(default=64, ge=16, le=4096, multiple_of=8)
    steps: Steps = 640
    batch_size: Batch = 16
    accumulate: Batch = 1
    learning_rate: Rate = 1e-3
    discriminator_learning_rate: Rate = 1e-3
    schedule: Literal["half cosine", "constant"] = "half cosine"
    content_weight: Weight = 1.0
    reduced_weight: Weight = 0.5
    adversarial_weight: Weight = 0.015
    blur_px: float = Field(default=0.8, ge=0, le=10)
    grain: float = Field(default=0.3, ge=0, le=2)
    logit_penalty: Weight = 1e-3
    ema: Decay = 0.995
    precision: Literal["auto", "fp32", "bf16"] | None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.crop > self.to:
            raise ValueError(f"crop is {self.crop}; allowed are 16 to {self.to} (at most to)")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate is {self.accumulate}; allowed are divisors of batch_size "
                f"({self.batch_size})"
            )
        return self


class RefiningSettings(BaseModel):
    """The first doubling, trained on the diffusion model's own images against whole real ones.

    Attributes:
        n_samples: Images drawn from the diffusion model to train on.
        channels: Channels of the generator.
        blocks: Residual blocks of the generator.
        discriminator_widths: Channels of the discriminator at 4, 8, … pixels, up to half the side
            of the images it judges.
        steps: Updates of each of the two networks.
        warm_up_steps: Steps in which both learning rates rise; less than `steps`.
        batch_size: Images an update, over all processes together.
        learning_rate: Largest learning rate of the generator.
        discriminator_learning_rate: Largest learning rate of the discriminator.
        final_rate_share: Share of both that is left at the end, after half a cosine.
        reduced_weight: Weight of the L1 distance between the reduced result and the small image.
        gamma: Weight of the penalty on the discriminator's gradient at real and at made images
            (R1 and R2).
        every: Updates between two penalties; the weight is multiplied by it.
        clip_norm: Largest gradient norm of either network.
        ema: Decay of the moving average of the generator's weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(default=1500, ge=2, le=1_000_000)
    channels: Channels = 48
    blocks: int = Field(default=4, ge=1, le=64)
    discriminator_widths: tuple[Channels, ...] = Field(default=(128, 128, 64, 32), min_length=1)
    steps: Steps = 1200
    warm_up_steps: int = Field(default=50, ge=0)
    batch_size: Batch = 16
    learning_rate: Rate = 5e-4
    discriminator_learning_rate: Rate = 2e-3
    final_rate_share: float = Field(default=0.1, ge=0, le=1)
    reduced_weight: float = Field(default=1.0, ge=0, le=1000)
    gamma: float = Field(default=0.3, ge=0, le=1000)
    every: int = Field(default=8, ge=1, le=1000)
    clip_norm: float = Field(default=5.0, gt=0, le=1e6)
    ema: Decay = 0.998

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.warm_up_steps >= self.steps:
            raise ValueError(
                f"refining.warm_up_steps is {self.warm_up_steps}; allowed are 0 to "
                f"{self.steps - 1} (less than refining.steps)"
            )
        return self
