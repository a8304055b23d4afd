"""Adaptive pseudo augmentation (Jiang et al. 2021, arXiv:2111.06849).

When the discriminator is too sure of its training images, some of them are replaced by synthetic
images labelled real, the more of them the more it overfits.
"""

import numpy as np
from numpy.typing import NDArray

from medisynth.training.randomness import numpy_generator


def moved_probability(
    probability: float,
    sign_on_real: float | None,
    *,
    target: float,
    batch_size: int,
    speed_images: int,
) -> float:
    """Return the probability of a pseudo-real image after one more batch.

    Args:
        probability: Now, 0 to 1.
        sign_on_real: Mean sign of the discriminator on training images, -1 to 1: the share it takes
            for real less the share it takes for synthetic. None when the batch had none.
        target: Value that `sign_on_real` should not pass.
        batch_size: Images in the batch.
        speed_images: Images in which the probability would move from 0 to 1.
    """
    if sign_on_real is None:
        return probability
    direction = (sign_on_real > target) - (sign_on_real < target)
    return min(1.0, max(0.0, probability + direction * batch_size / speed_images))


def pseudo_rows(
    probability: float, batch_size: int, seed: int, stage: str, step: int
) -> NDArray[np.bool_]:
    """Choose which images of a global batch become pseudo-real, each with `probability`."""
    drawn = numpy_generator(seed, stage, "pseudo-real", step).random(batch_size)
    return drawn < probability
