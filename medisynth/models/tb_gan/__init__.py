"""TB-GAN: a GAN whose generator is made of Swin transformer blocks (StyleSwin).

After Iskandar et al. 2023 (arXiv:2304.03941) and Zhang et al. 2022 (arXiv:2112.10762), with
differentiable and adaptive pseudo augmentation; unconditional. Importing this module costs no
torch; fitting, sampling and loading do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from medisynth.data.views import ImageView, Pixels
from medisynth.errors import SettingsError, TrainingError
from medisynth.generator import Condition, FitReport, Tensors, TrainingContext
from medisynth.models.tb_gan.settings import ALL_PLANES, TbGanSettings

if TYPE_CHECKING:
    from medisynth.models.tb_gan.trained import Trained

__all__ = ["TbGan", "TbGanSettings"]


class TbGan:
    """Draws synthetic ultrasound images; fulfils `medisynth.generator.Generator`."""

    name = "tb-gan"
    title = "TB-GAN (StyleSwin with differentiable and adaptive pseudo augmentation)"
    Settings: type[BaseModel] = TbGanSettings

    def __init__(self, settings: BaseModel) -> None:
        self._settings = _own(settings)
        self._trained: Trained | None = None

    @staticmethod
    def image_size_px(settings: BaseModel) -> int:
        """Side of the square images it makes and trains on, in pixels."""
        return _own(settings).size

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Train on the training view; choose on the tuning view; return what was done.

        Args:
            training: Images of `image_size_px`; everything fitted is fitted on these alone.
            tuning: Images of the same size; used for choosing and for the tuning curves.
            context: Seed, device, states, log, progress and stop flag.

        Raises:
            DataError: A view is empty, has images of another size, or no image of a plane that the
                schedule names.
            StoppedError: A stop was asked for.
            TrainingError: A loss or gradient was not finite, the discriminator is dead, or the
                samples have collapsed.
        """
        from medisynth.models.tb_gan.fitting import fit

        self._trained, report = fit(self._settings, training, tuning, context)
        return report

    def sample(
        self, n: int, context: TrainingContext, condition: Condition | None = None
    ) -> Pixels:
        """Draw n synthetic images, shape (n, size, size), uint8; same seed, same images.

        Args:
            n: Number of images.
            context: Seed, device, progress and stop flag.
            condition: None, or the plane that the last part of the schedule was trained on.

        Raises:
            SettingsError: n is less than 1, or the condition is another.
            StoppedError: A stop was asked for.
            TrainingError: Nothing has been fitted or loaded, or a value is not finite.
        """
        if n < 1:
            raise SettingsError(f"number of images to sample: expected at least 1, found {n}")
        self._require_possible(condition or Condition())
        return self._fitted().sample(n, context)

    def state(self) -> Tensors:
        """All tensors needed to sample again.

        Raises:
            TrainingError: Nothing has been fitted or loaded.
        """
        return self._fitted().state()

    def load_state(self, tensors: Tensors) -> None:
        """Take tensors written by `state`.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        from medisynth.models.tb_gan.trained import trained_from

        self._trained = trained_from(self._settings, tensors)

    def _require_possible(self, condition: Condition) -> None:
        plane = self._settings.schedule[-1].plane
        if condition.machine is not None:
            raise SettingsError(
                f"tb-gan: expected no machine as condition, found {condition.machine!r}; it cannot "
                "be told what to draw: leave the machine out"
            )
        if condition.plane is not None and (plane == ALL_PLANES or condition.plane != plane):
            able = "no plane" if plane == ALL_PLANES else f"no plane or {plane!r}"
            raise SettingsError(
                f"tb-gan: expected {able} as condition, found {condition.plane!r}; it draws only "
                f"what the last part of its schedule was trained on (plane: {plane}): leave the "
                "plane out or train a schedule that ends on that plane"
            )

    def _fitted(self) -> Trained:
        if self._trained is None:
            raise TrainingError(
                "tb-gan: expected a trained generator, found one without weights; "
                "fit it or load a checkpoint first"
            )
        return self._trained


def _own(settings: BaseModel) -> TbGanSettings:
    if not isinstance(settings, TbGanSettings):
        raise SettingsError(
            f"model.settings: expected TbGanSettings, found {type(settings).__name__}"
        )
    return settings
