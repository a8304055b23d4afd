"""Where the published TB-GAN differs from the corrected recipe: one switch each. Imports no torch.

From the paper (arXiv:2304.03941), its public logs and the choices it reports. Written anew.
"""

from pydantic import Field

from medisynth.models.deviations import Deviations

PUBLISHED_APA_TARGET = 0.95
PUBLISHED_LEARNING_RATE = 5e-5
PUBLISHED_DISCRIMINATOR_LEARNING_RATE = 2e-4


class PublishedDeviations(Deviations):
    """Deviations of the published TB-GAN."""

    without_r1: bool = Field(
        default=False,
        description="no R1 penalty: nothing holds back a discriminator that learns a few hundred "
        "images by heart",
    )
    without_ema: bool = Field(
        default=False,
        description="no moving average: samples are drawn with the last weights, which swing from "
        "update to update",
    )
    without_spectral_norm: bool = Field(
        default=False,
        description="no spectral normalisation: the discriminator may become arbitrarily steep",
    )
    without_gradient_clip: bool = Field(
        default=False,
        description="no limit on gradient norms: one bad batch may undo many good ones",
    )
    apa_never_fires: bool = Field(
        default=False,
        description="adaptive pseudo augmentation with the threshold 0.95 where its authors use "
        "0.6: the probability never passes 0.069, so that it is in effect off",
    )
    learning_rates_of_the_code: bool = Field(
        default=False,
        description="learning rates 2e-4 (discriminator) and 5e-5 (generator) as in the published "
        "code, where the paper states 1e-4 and 1e-5",
    )


NOT_REPRODUCED = {
    "split by image": "here every patient is on one side of the split",
    "pre-training on another plane of held-out patients": "here each part of the schedule sees the "
    "training view alone",
    "reference tensor for FID of floats cast to black": "references are checked before use",
}
