"""TB-GAN as published: the built-in generator with the deviations of the published code.

Taken from the paper (arXiv:2304.03941), its public logs and the choices it reports. The code is
new, for comparison and not for use. Importing this module does not import torch.
"""

from typing import Any

from pydantic import BaseModel, Field, model_validator

from governance.records.errors import SettingsError
from governance.records.training import FitReport
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.tb_gan import TbGan, TbGanSettings
from medisynth.studies.midl2023.findings import Deviations

APA_TARGET = 0.95
LEARNING_RATE, DISCRIMINATOR_LEARNING_RATE = 5e-5, 2e-4

PUBLISHED: dict[str, Any] = {
    "size": 256,
    "start": 4,
    "widths": (512, 512, 512, 256, 128, 64, 32),
    "whole_map_up_to": 0,
    "window": 8,
    "mlp_factor": 4,
    "activation": "gelu",
    "depthwise": False,
    "noise": False,
    "positions": "sinusoidal",
    "equalised": False,
    "modulated_images": False,
    "tail_width": 0,
    "style_width": 512,
    "mapping_layers": 8,
    "mapping_rate_factor": 0.01,
    "discriminator": "wavelet",
    "discriminator_widths": (512, 512, 512, 512, 512, 256),
    "loss": "logistic",
    "r1": {"gamma": 10, "every": 16, "r2": False},
    "apa": {},
    "diffaug": ("brightness", "contrast", "translation", "cutout"),
    "brightness_span": 1.0,
    "dequantisation": 0,
    "learning_rate": LEARNING_RATE,
    "discriminator_learning_rate": DISCRIMINATOR_LEARNING_RATE,
    "warm_up_steps": 0,
    "final_rate_share": 1,
    "gradient_clip": 5,
    "batch_size": 24,
    "ema": 0.9978,
    "selection_every": 1000,
    "schedule": ({"steps": 22_500},),
}

NOT_REPRODUCED = {
    "split by image": "here every patient is on one side of the split",
    "pre-training on another plane of held-out patients": "here each part of the schedule sees the "
    "training view alone",
    "reference tensor for FID of floats cast to black": "references are checked before use",
}


class TbGanDeviations(Deviations):
    """Deviations of the published TB-GAN."""

    without_r1: bool = Field(
        default=True,
        description="no R1 penalty: nothing holds back a discriminator that learns a few hundred "
        "images by heart",
    )
    without_ema: bool = Field(
        default=True,
        description="no moving average: samples are drawn with the last weights, which swing from "
        "update to update",
    )
    without_spectral_norm: bool = Field(
        default=True,
        description="no spectral normalisation: the discriminator may become arbitrarily steep",
    )
    without_gradient_clip: bool = Field(
        default=True,
        description="no limit on gradient norms: one bad batch may undo many good ones",
    )
    apa_never_fires: bool = Field(
        default=True,
        description="adaptive pseudo augmentation with the threshold 0.95 where its authors use "
        "0.6: the probability never passes 0.069, so that it is in effect off",
    )
    learning_rates_of_the_code: bool = Field(
        default=True,
        description="learning rates 2e-4 (discriminator) and 5e-5 (generator) as in the published "
        "code, where the paper states 1e-4 and 1e-5",
    )


class TbGanPublishedSettings(TbGanSettings):
    """Settings of TB-GAN with published values as defaults; a deviation overrides other settings.

    Attributes:
        deviations: Deviations of the published code, each on unless it is turned off by name.
    """

    deviations: TbGanDeviations = TbGanDeviations()

    @model_validator(mode="before")
    @classmethod
    def _recipe_is_left_out(cls, data: Any) -> Any:
        # Overrides the built-in generator's validator, which knows no deviations.
        return PUBLISHED | data if isinstance(data, dict) else data

    def in_effect(self) -> TbGanSettings:
        """Return equivalent settings of the built-in generator."""
        values, on = self.model_dump(exclude={"deviations"}), self.deviations
        if on.without_r1:
            values["r1"]["gamma"] = 0.0
        if on.without_ema:
            values["ema"] = 0.0
        if on.without_spectral_norm:
            values["spectral_norm"] = False
        if on.without_gradient_clip:
            values["gradient_clip"] = 0.0
        if on.apa_never_fires and values["apa"] is not None:
            values["apa"]["target"] = APA_TARGET
        if on.learning_rates_of_the_code:
            rates = (LEARNING_RATE, DISCRIMINATOR_LEARNING_RATE)
            values["learning_rate"], values["discriminator_learning_rate"] = rates
            for part in values["schedule"]:
                part["learning_rate"] = part["discriminator_learning_rate"] = None
        return TbGanSettings.model_validate(values)


class TbGanPublished(TbGan):
    """Draws synthetic ultrasound images; fulfils `medisynth.generator.Generator`."""

    name = "tb-gan-published"
    title = "TB-GAN as published (StyleSwin with differentiable augmentation)"
    Settings = TbGanPublishedSettings

    def __init__(self, settings: BaseModel) -> None:
        if not isinstance(settings, TbGanPublishedSettings):
            raise SettingsError(
                f"model.settings: expected TbGanPublishedSettings, found {type(settings).__name__}"
            )
        super().__init__(settings.in_effect())
        self._deviations = settings.deviations

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Train as the built-in generator does, and list deviations from it in the report.

        Raises:
            DataError, StoppedError, TrainingError: As `TbGan.fit`.
        """
        report = super().fit(training, tuning, context)
        recipe = f"published: {report.description['recipe']}"
        switched_on = self._deviations.switched_on().items()
        if switched_on:
            recipe += "; deviations of the published code that are on: " + "; ".join(
                f"{name} ({what})" for name, what in switched_on
            )
        recipe += "; not reproduced: " + "; ".join(
            f"{name} ({why})" for name, why in NOT_REPRODUCED.items()
        )
        return report.model_copy(update={"description": report.description | {"recipe": recipe}})
