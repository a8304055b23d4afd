"""A generator for tests that knows conditions: each plane it knows is a brighter copy."""

import numpy as np

from governance.records.errors import SettingsError
from tests.plugins.pca_gaussian import PcaGaussian

PLANES = ("Trans-cerebellum", "Trans-thalamic")


class TwoPlanes(PcaGaussian):
    name = "two-planes"
    title = "PCA Gaussian with two planes"

    def sample(self, n, context, condition=None):
        images = super().sample(n, context)
        if condition is None or condition.plane is None:
            return images
        if condition.plane not in PLANES:
            raise SettingsError(
                f"plane: {condition.plane!a} is in no training image; known are {', '.join(PLANES)}"
            )
        return np.minimum(images, 200) + np.uint8(20 * (1 + PLANES.index(condition.plane)))
