"""Description of the enlarging stage and its training for the model card."""

from medisynth.models.enlarging.crop_training import BETAS, CropTraining
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.training.loop import GRADIENT_NORM_LIMIT, n_parameters

BICUBIC = "last doubling bicubic, without a network and without texture of its own"


def describe(settings: EnlargingSettings, factor: int, stage: CropTraining) -> dict[str, str]:
    """Fields of the description: architecture, losses, optimiser, schedule, augmentation."""
    s = settings
    return {
        "architecture": (
            f"super-resolution generator with {s.blocks} residual blocks of {s.channels} channels, "
            f"{factor}-fold pixel shuffle and noise of learned strength in every block and after "
            "every doubling, its detail added to the bilinear enlargement, "
            f"{n_parameters(stage.enlarger):,} parameters; patch discriminator that is shown the "
            f"bilinear enlargement beside each image, from {s.discriminator_channels} channels, "
            f"{n_parameters(stage.discriminator):,} parameters"
        ),
        "losses": (
            f"{s.content_weight} x L1 content, {s.reduced_weight} x L1 between the reduced result "
            f"and the small image, {s.adversarial_weight} x relativistic softplus loss of each "
            f"crop against its own enlargement, discriminator with {s.logit_penalty} x mean "
            "squared score"
        ),
        "optimiser": (
            f"fused Adam, betas {BETAS[0]} and {BETAS[1]} for both networks, EMA {s.ema}, "
            f"gradient norm clipped to {GRADIENT_NORM_LIMIT}"
        ),
        "schedule": (
            f"{s.steps} steps of {s.batch_size} crops of {s.crop} x {s.crop} pixels "
            f"({s.accumulate} micro-batch(es)), learning rate {s.learning_rate}, discriminator "
            f"{s.discriminator_learning_rate}, "
            f"{'constant' if s.schedule == 'constant' else 'half cosine to 0'}"
        ),
        "augmentation": "random crops, mirrored at random; small crops blurred by up to "
        f"{s.blur_px} pixels and with up to {s.grain} x brightness of noise, in training alone",
    }
