"""Settings of the published DSR-GAN: its sizes, and one switch for each deviation. Imports no torch.

Taken from the paper (arXiv:2304.03941), its public logs and the sizes it reports; the code is new.
"""

from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from medisynth.models.dsr_gan import DsrGanSettings
from medisynth.models.dsr_gan.settings import refuse_former_fields
from medisynth.studies.midl2023.findings import Deviations


class DsrGanDeviations(Deviations):
    """Deviations of the published DSR-GAN; the last two are faults of `classic_srgan` alone."""

    noise_prediction: bool = Field(
        default=True,
        description="noise prediction under linear betas 1e-4 to 0.02, T = 1000, images scaled to "
        "-1 to 1, DDIM sampling: no mean image is taken away, and half of all training images "
        "keep less than 8 % of their variance",
    )
    classic_unet: bool = Field(
        default=True,
        description="the UNet of Ho et al. 2020 on a grey image repeated in three channels: 113.67 "
        "million parameters at the published sizes, and three noises to remove where one would do",
    )
    constant_learning_rate: bool = Field(
        default=True,
        description="Adam at one learning rate from the first step to the last, in both stages: no "
        "warm-up, and the last weights are as noisy as any",
    )
    one_average_histogram: bool = Field(
        default=True,
        description="every sample is matched to one mean of sorted training pixels: all synthetic "
        "images have the same gain, and black and tissue trade places where sectors differ in area",
    )
    classic_srgan: bool = Field(
        default=True,
        description="generator with batch normalisation and no enlarged input added, mean squared "
        "error as content loss, one probability for a whole image from a discriminator of 5.07 "
        "million parameters: smooth images, since their average has the least squared error",
    )
    broken_residual_blocks: bool = Field(
        default=True,
        description="every layer of a residual block is given the block's input, so that only the "
        "last layer counts: 65.4 % of the published generator never got a gradient",
    )
    saturating_discriminator_loss: bool = Field(
        default=True,
        description="discriminator loss 1 - mean D(real) + mean D(synthetic) on probabilities: once "
        "both are equal it is exactly 1.0, as logged for 189 of 201 epochs, and teaches nothing",
    )

    @model_validator(mode="before")
    @classmethod
    def _faults_go_with_their_network(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("classic_srgan") is False:
            return dict.fromkeys(FAULTS_OF_CLASSIC_SRGAN, False) | values
        return values

    @model_validator(mode="after")
    def _faults_have_their_network(self) -> Self:
        for name in FAULTS_OF_CLASSIC_SRGAN:
            if getattr(self, name) and not self.classic_srgan:
                raise ValueError(
                    f"deviations.{name} is on; allowed with deviations.classic_srgan alone (it is a "
                    "fault of those networks); turn that on as well, or this off"
                )
        return self


FAULTS_OF_CLASSIC_SRGAN = ("broken_residual_blocks", "saturating_discriminator_loss")

NOT_REPRODUCED = {
    "checkpoint chosen on the images it is reported on": "here the tuning view chooses and the "
    "held-out test set is opened once",
    "pre-training on a face model": "only by naming a weights file with its digest, source and "
    "licence (pretrained)",
    "content loss on features of a network for photographs": "its weights are not ours to ship",
}

PUBLISHED_DIFFUSION: dict[str, Any] = {
    "size": 128,
    "unshuffle": 1,
    "channels": (128, 128, 256, 256, 512, 512),
    "layers": 2,
    "learning_rate": 1e-4,
    "warm_up_steps": 0,
    "steps": 80_000,
    "batch_size": 32,
    "sampler_steps": 100,
    "flip": True,
    "max_zoom": 1.1,
    "max_rotation_rad": 0.1,
}
PUBLISHED_SUPER_RESOLUTION: dict[str, Any] = {
    "to": 256,
    "channels": 64,
    "blocks": 5,
    "discriminator_channels": 64,
    "crop": 256,  # the whole image
    "steps": 47_200,  # 200 epochs of the 236 images that were logged; no batch size is stated
    "batch_size": 1,
    "learning_rate": 2e-4,
    "discriminator_learning_rate": 2e-4,
    "adversarial_weight": 1e-3,
    "blur_px": 0.0,
    "grain": 0.0,
}


class DsrGanPublishedSettings(DsrGanSettings):
    """Settings of DSR-GAN, with published defaults for `diffusion` and `super_resolution`.

    Under `deviations.classic_srgan` content_weight, reduced_weight and logit_penalty of
    `super_resolution` have no effect: the published losses have none.

    Attributes:
        deviations: Deviations of the published model, each on unless it is turned off by name.
    """

    deviations: DsrGanDeviations = DsrGanDeviations()

    @model_validator(mode="before")
    @classmethod
    def _former_keys_are_left_out(cls, values: Any) -> Any:
        # Overrides the built-in generator's validator, which knows no deviations.
        refuse_former_fields(values)
        if not isinstance(values, dict):
            return values
        if values.get("refining") is not None:
            raise ValueError("refining is set; the published model has no such stage: leave it out")
        given = dict(values)
        for key, published in (
            ("diffusion", PUBLISHED_DIFFUSION),
            ("super_resolution", PUBLISHED_SUPER_RESOLUTION),
        ):
            own = given.get(key, {})
            if isinstance(own, BaseModel):
                own = own.model_dump(exclude_unset=True)
            given[key] = published | own if isinstance(own, dict) else own
        return given

    @model_validator(mode="after")
    def _deviations_fit(self) -> Self:
        if self.deviations.classic_unet and self.diffusion.unshuffle != 1:
            raise ValueError(
                f"diffusion.unshuffle is {self.diffusion.unshuffle}; allowed is 1 with "
                "deviations.classic_unet (it folds no pixels)"
            )
        return self

    def in_effect(self) -> Self:
        """Return the settings with the values that deviations impose on each stage."""
        if not self.deviations.constant_learning_rate:
            return self
        constant = self.super_resolution.model_copy(update={"schedule": "constant"})
        return self.model_copy(update={"super_resolution": constant})
