"""Settings of DSR-GAN. Imports no torch, so that a configuration is checked in milliseconds."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medisynth.models.enlarging.settings import EnlargingSettings, RefiningSettings
from medisynth.models.recipe import refuse_recipe

Channels = Annotated[int, Field(ge=8, le=1024, multiple_of=8)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Batch = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]

FORMER_VERSION = "medisynth-gov 0.1.0 up to commit e9ee4d5"  # last to read weights without noise

# Settings of the former enlarging stage, which drew no noise; old runs have them on record.
FORMER_FIELDS = ("speckle", "sampling_speckle", "content_only_steps")


def refuse_former_fields(values: Any) -> None:
    """Refuse settings of the former enlarging stage, which drew no noise.

    Raises:
        ValueError: There are some.
    """
    given = values.get("super_resolution") if isinstance(values, dict) else None
    if not isinstance(given, dict):
        return
    for name in FORMER_FIELDS:
        if name in given:
            raise ValueError(
                f"super_resolution.{name} belongs to the enlarging stage before it drew noise; "
                f"leave it out, or use {FORMER_VERSION} for weights of that stage"
            )


def _require_divisor(stage: str, accumulate: int, batch_size: int) -> None:
    if batch_size % accumulate:
        raise ValueError(
            f"{stage}.accumulate is {accumulate}; allowed are divisors of {stage}.batch_size "
            f"({batch_size})"
        )


class DiffusionSettings(BaseModel):
    """The denoising diffusion network and its training.

    Attributes:
        size: Side of the images it draws, in pixels.
        unshuffle: Side of the pixel blocks that the network folds into channels.
        channels: Channels of each level; every level halves the resolution.
        layers: Residual blocks a level, on the way down and on the way up.
        attention: Whether the lowest level has self-attention.
        learning_rate: Largest learning rate of AdamW.
        warm_up_steps: Steps in which the learning rate rises; less than `steps`.
        steps: Updates.
        batch_size: Images an update, over all micro-batches and processes together.
        accumulate: Micro-batches an update, to save memory; divides `batch_size`.
        ema: Decay of the moving average of the weights.
        flip: Whether training images are mirrored at random.
        max_zoom: Largest zoom of a training image; 1 is none.
        max_rotation_rad: Largest rotation of a training image either way.
        p_mean: Mean of ln(sigma) in training.
        p_std: Standard deviation of ln(sigma) in training.
        sigma_data: Standard deviation that the data are scaled to.
        sigma_min: Smallest noise level in sampling.
        sigma_max: Largest noise level in sampling.
        rho: Exponent of the noise levels in sampling.
        sampler_steps: Steps of Heun's method; 2 x steps - 1 network evaluations an image.
        churn: Noise that sampling adds on its way, S_churn of the paper; 0 is none.
        sampling_precision: Precision of the network in sampling.
        condition_dropout: Share of training images whose labels are hidden from the network, so
            that it learns to draw without them as well.
        guidance: Weight of classifier-free guidance in sampling; 1 is none and costs nothing, more
            doubles the work and narrows the variety.
        selection_images: Tuning images that a candidate is scored on, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=64, ge=8, le=1024)
    unshuffle: Literal[1, 2, 4, 8] = 4
    channels: tuple[Channels, ...] = Field(default=(64, 128), min_length=1, max_length=8)
    layers: int = Field(default=1, ge=1, le=8)
    attention: bool = True
    learning_rate: Rate = 2e-3
    warm_up_steps: int = Field(default=100, ge=0)
    steps: Steps = 3500
    batch_size: Batch = 16
    accumulate: Batch = 1
    ema: Decay = 0.995
    flip: bool = True
    max_zoom: float = Field(default=1.1, ge=1, le=2)
    max_rotation_rad: float = Field(default=0.1, ge=0, le=3.1416)
    p_mean: float = Field(default=-1.2, ge=-10, le=10)
    p_std: float = Field(default=1.2, gt=0, le=10)
    sigma_data: float = Field(default=0.5, gt=0, le=10)
    sigma_min: float = Field(default=0.002, gt=0, le=1)
    sigma_max: float = Field(default=80.0, gt=1, le=1000)
    rho: float = Field(default=7.0, ge=1, le=100)
    sampler_steps: int = Field(default=18, ge=2, le=1000)
    churn: float = Field(default=0.0, ge=0, le=1000)
    sampling_precision: Literal["fp32", "bf16"] = "fp32"
    condition_dropout: float = Field(default=0.1, ge=0, lt=1)
    guidance: float = Field(default=1.0, ge=0, le=20)
    selection_images: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        multiple = self.unshuffle * 2 ** (len(self.channels) - 1)
        if self.size % multiple:
            raise ValueError(
                f"diffusion.size is {self.size}; allowed are multiples of {multiple} "
                f"(unshuffle {self.unshuffle} x 2 for each of {len(self.channels) - 1} halvings)"
            )
        if self.warm_up_steps >= self.steps:
            raise ValueError(
                f"diffusion.warm_up_steps is {self.warm_up_steps}; "
                f"allowed are 0 to {self.steps - 1} (less than diffusion.steps)"
            )
        _require_divisor("diffusion", self.accumulate, self.batch_size)
        return self


class PretrainedSettings(BaseModel):
    """A diffusion network trained by somebody else, to start from.

    Attributes:
        path: A safetensors file; names and shapes are those of the diffusion network.
        sha256: Its digest, checked before anything is read.
        source: Where it comes from.
        licence: Its licence, e.g. "Apache-2.0".
        training_data: What it was trained on; who has seen held-out images cannot be judged on them.
        overlap: Whether that is known to hold images of the data set used here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    source: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    training_data: str = Field(min_length=1)
    overlap: Literal["none known", "known", "unknown"] = "unknown"


class DsrGanSettings(BaseModel):
    """Settings of DSR-GAN.

    Attributes:
        precision: Precision of training; "auto" times two steps of each and takes bf16 only where
            it is clearly faster. super_resolution.precision is for that stage alone.
        conditioning: "auto" tells the diffusion network plane and machine where the training view
            records more than one; "none" never does.
        pretrained: Weights that the diffusion network starts from; None starts at random.
        diffusion: First stage.
        refining: The first doubling, if it is trained on the diffusion model's own images against
            whole real ones; None trains it on reductions of real images, as the others.
        super_resolution: Last stage.
        selection_every: Steps between two candidates.
        kept_candidates: Newest candidates that are kept, to be scored on whole images where there
            is a score; without one the lowest tuning loss among them is taken.
        score_images: Images drawn for each kept candidate to score it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    conditioning: Literal["auto", "none"] = "auto"
    pretrained: PretrainedSettings | None = None
    diffusion: DiffusionSettings = DiffusionSettings()
    refining: RefiningSettings | None = None
    super_resolution: EnlargingSettings = EnlargingSettings()
    selection_every: int = Field(default=250, ge=1)
    kept_candidates: int = Field(default=3, ge=1, le=20)
    score_images: int = Field(default=96, ge=2, le=10_000)

    @property
    def factor(self) -> int:
        """How many times larger the final image is than the diffusion image, per side."""
        return self.super_resolution.to // self.diffusion.size

    @model_validator(mode="before")
    @classmethod
    def _former_keys_are_left_out(cls, values: Any) -> Any:
        refuse_recipe(values, "dsr-gan")
        refuse_former_fields(values)
        return values

    @model_validator(mode="after")
    def _refining_fits(self) -> Self:
        if self.refining is None:
            return self
        side, found = 2 * self.diffusion.size, len(self.refining.discriminator_widths)
        expected = side.bit_length() - 3
        if side != 4 << expected or found != expected:
            raise ValueError(
                f"refining.discriminator_widths has {found} numbers; with diffusion.size "
                f"{self.diffusion.size} it needs one for each of 4, 8, … {side // 2} pixels, and "
                "the size a power of two from 4 on"
            )
        return self

    @model_validator(mode="after")
    def _last_doubling_fits(self) -> Self:
        is_plain = self.super_resolution.last_doubling == "bicubic"
        if is_plain and (self.refining is None or self.factor < 4):
            raise ValueError(
                'super_resolution.last_doubling is "bicubic"; it needs refining, and '
                "super_resolution.to of at least 4 times diffusion.size: otherwise no network "
                "would enlarge"
            )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        size, to = self.diffusion.size, self.super_resolution.to
        if to not in (2 * size, 4 * size, 8 * size):
            raise ValueError(
                f"super_resolution.to is {to}; allowed are {2 * size}, {4 * size} and {8 * size} "
                f"(2, 4 or 8 times diffusion.size {size})"
            )
        return self
