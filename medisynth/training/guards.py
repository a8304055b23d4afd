"""Guards that stop a training that has gone wrong, with the numbers that show it (exit 8)."""

import math
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from governance.records.errors import SettingsError, TrainingError
from medisynth.data.reading.views import Pixels

SATURATION_WINDOW = 200
LOSS_FLOOR = 1e-3
NO_GAP = 1e-6
LEAST_DISTANCE_SHARE = 0.05


def require_finite(values: Mapping[str, float], *, stage: str, step: int) -> None:
    """Refuse numbers that are not finite.

    Raises:
        TrainingError: Names stage, step and the first such number.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"{stage}, step {step + 1}: {name} is {value}, expected a finite number; "
                "the step was not taken; lower the stage's learning_rate or set precision to fp32"
            )


class DiscriminatorGuard:
    """Watches the last observations of a discriminator for two ways of being dead.

    Saturated: it told real from synthetic every time and its loss stayed at the floor, so that the
    generator learns nothing. Blind: it gave real and synthetic images the same score every time.

    Args of the constructor:
        stage: For the message.
        window: Number of observations that must all show it, at least 2.
        floor: Loss at or below which it has nothing left to learn; 0 is the minimum of hinge,
            logistic and least-squares losses.
    """

    def __init__(
        self, stage: str, *, window: int = SATURATION_WINDOW, floor: float = LOSS_FLOOR
    ) -> None:
        self._stage, self._floor = stage, floor
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=window)

    def observe(self, step: int, *, on_real: float, on_synthetic: float, loss: float) -> None:
        """Add the numbers of one update of the discriminator, and check the last ones.

        Args:
            step: Update, 0 is the first.
            on_real: Mean score of real images.
            on_synthetic: Mean score of synthetic images.
            loss: Its loss, penalties not included.

        Raises:
            TrainingError: The discriminator is dead; gives stage, step and the numbers.
        """
        self._seen.append((on_real, on_synthetic, loss))
        if len(self._seen) < (self._seen.maxlen or 0):
            return
        gaps = [real - synthetic for real, synthetic, _ in self._seen]
        losses = [loss for _, _, loss in self._seen]
        if min(gaps) > 0 and max(losses) <= self._floor:
            self._fail(step, f"saturated: largest loss {max(losses):.3g}", "lower")
        if max(abs(gap) for gap in gaps) <= NO_GAP:
            self._fail(step, "blind: real and synthetic images score the same", "raise")

    def facts(self) -> list[list[float]]:
        """The observations, as JSON data for the stage's state."""
        return [list(numbers) for numbers in self._seen]

    def restore(self, facts: Iterable[Iterable[float]]) -> None:
        """Restore what `facts` returned."""
        self._seen.clear()
        for on_real, on_synthetic, loss in facts:
            self._seen.append((on_real, on_synthetic, loss))

    def _fail(self, step: int, what: str, direction: str) -> None:
        on_real, on_synthetic, loss = self._seen[-1]
        raise TrainingError(
            f"{self._stage}, step {step + 1}: the discriminator is {what} over the last "
            f"{len(self._seen)} updates (now {on_real:.4g} on real, {on_synthetic:.4g} on "
            f"synthetic, loss {loss:.4g}); {direction} its learning rate and start again"
        )


def pairwise_distance(images: Pixels) -> float:
    """Mean over all pairs of the root mean squared difference of two images.

    Args:
        images: Shape (n, h, w), uint8, n at least 2; a few dozen, since n squared pairs are made.

    Returns:
        Grey levels, 0 to 255; 0 when all images are equal. Noise, too, is diverse.

    Raises:
        SettingsError: Fewer than two images.
    """
    n = len(images)
    if n < 2:
        raise SettingsError(f"diversity of images: expected at least 2 images, found {n}")
    flat = images.reshape(n, -1).astype(np.float32)
    rows = [np.sqrt(np.square(flat[i + 1 :] - flat[i]).mean(axis=1)) for i in range(n - 1)]
    return float(np.concatenate(rows).mean(dtype=np.float64))


def require_diverse(
    images: Pixels,
    stage: str,
    step: int,
    *,
    real_distance: float,
    least_share: float = LEAST_DISTANCE_SHARE,
) -> None:
    """Refuse samples that have collapsed into one image.

    Only for a stage far enough in training to draw more than its mean image.

    Args:
        images: Samples, shape (n, h, w), uint8, n at least 2.
        stage: For the message.
        step: Updates made.
        real_distance: `pairwise_distance` of as many real images of that size.
        least_share: Smallest share of `real_distance` that passes.

    Raises:
        TrainingError: The samples' distance is a smaller share.
        SettingsError: Fewer than two images.
    """
    distance = pairwise_distance(images)
    if distance < least_share * real_distance:
        raise TrainingError(
            f"{stage}, step {step}: the samples have collapsed: mean distance of {len(images)} "
            f"samples {distance:.3g} grey levels, of real images {real_distance:.3g}, expected at "
            f"least {least_share:.0%} of that; lower the learning rates or train on more images"
        )
