"""This project's training stages on simulated views, for comparisons of time."""

import numpy as np
import torch

from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.conditioning import vocabulary_of
from medisynth.models.dsr_gan.diffusion import DiffusionStage
from medisynth.models.dsr_gan.fitted import fit_before_training
from medisynth.models.dsr_gan.objectives import sample_residuals
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import super_resolution_stage as new_stage
from medisynth.models.enlarging.crop_training import CropTraining
from medisynth.models.tb_gan.networks import new_networks
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.models.tb_gan.training_stage import AdversarialStage
from medisynth.training.loop import Precision
from pipelines.config.model import load_config

N_TRAINING, N_TUNING = 64, 8


def laptop() -> DsrGanSettings:
    """Settings of DSR-GAN in the laptop preset."""
    return DsrGanSettings.model_validate(load_config(preset="laptop").model.settings)


def tb_gan(preset: str) -> TbGanSettings:
    """Settings of TB-GAN in a preset."""
    config = load_config(preset=preset, overrides=["model.name=tb-gan"])
    return TbGanSettings.model_validate(config.model.settings)


def quiet_context(seed: int = 0) -> TrainingContext:
    """A training that tells nobody, keeps nothing and is never stopped."""
    return TrainingContext(seed, "cpu", lambda *_: None, lambda *_: None, lambda: False)


def view(n: int, partition: str, size: int) -> ImageView:
    """Smooth noise with some spread from image to image: time does not depend on what is shown."""
    rng = np.random.default_rng(len(partition))
    coarse = rng.integers(0, 256, (n, size // 8, size // 8), dtype=np.uint8)
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    ids = tuple(f"{partition}{k}" for k in range(n))
    return ImageView(partition, pixels, ids, ids, ("",) * n, ("",) * n)


def diffusion_stage(settings: DsrGanSettings, precision: Precision) -> DiffusionStage:
    """The first stage of DSR-GAN, ready to train."""
    size, context = settings.super_resolution.to, quiet_context()
    training, tuning = view(N_TRAINING, "training", size), view(N_TUNING, "tuning", size)
    fitted = fit_before_training(training, settings, 0, "cpu")
    return DiffusionStage(settings, training, tuning, context, precision, fitted)


def super_resolution_stage(settings: DsrGanSettings, precision: Precision) -> CropTraining:
    """The last stage of DSR-GAN, ready to train."""
    size = settings.super_resolution.to
    training, tuning = view(N_TRAINING, "training", size), view(N_TUNING, "tuning", size)
    return new_stage(settings, size, training, tuning, quiet_context(), precision)


def adversarial_stage(
    settings: TbGanSettings,
    precision: Precision,
    views: tuple[ImageView, ImageView] | None = None,
    seed: int = 0,
) -> AdversarialStage:
    """The first stage of TB-GAN, ready to train, on simulated views unless others are given."""
    training, tuning = views or (
        view(N_TRAINING, "training", settings.size),
        view(N_TUNING, "tuning", settings.size),
    )
    vocabulary = vocabulary_of(training, settings.conditioning)
    networks = new_networks(settings, seed, "cpu", vocabulary.sizes)
    return AdversarialStage(
        settings,
        settings.schedule[0],
        training,
        tuning,
        quiet_context(seed),
        precision,
        networks,
        vocabulary,
    )


def heun_samples(stage: DiffusionStage, settings: DsrGanSettings, n_images: int) -> torch.Tensor:
    """Draw images of the diffusion network by Heun's method, as sampling does."""
    size = settings.diffusion.size
    start = torch.randn(n_images, 1, size, size)
    *_, last = sample_residuals(stage.network, start, settings.diffusion)
    return last
