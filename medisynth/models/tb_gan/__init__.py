"""TB-GAN: a GAN whose generator is made of Swin transformer blocks (StyleSwin).

After Iskandar et al. 2023 (arXiv:2304.03941) and Zhang et al. 2022 (arXiv:2112.10762), with
differentiable and adaptive pseudo augmentation; conditioned on plane and machine where the training
view records them. Importing this module does not import torch; fitting, sampling and loading do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from governance.records.errors import SettingsError, TrainingError
from governance.records.training import FitReport
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Condition, Tensors, TrainingContext
from medisynth.models.tb_gan.settings import TbGanSettings

if TYPE_CHECKING:
    from medisynth.models.tb_gan.trained import Trained

__all__ = ["TbGan", "TbGanSettings"]


class TbGan:
    """Draws synthetic ultrasound images; fulfils `medisynth.generator.Generator`."""

    name = "tb-gan"
    title = "TB-GAN (StyleSwin with differentiable augmentation)"
    Settings: type[BaseModel] = TbGanSettings

    def __init__(self, settings: BaseModel) -> None:
        self._settings = _own(settings)
        self._trained: Trained | None = None

    @staticmethod
    def image_size_px(settings: BaseModel) -> int:
        """Side of the square images it makes and trains on, in pixels."""
        return _own(settings).image_size_px

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Train on the training view, choose on the tuning view; return a report.

        Args:
            training: Images of `image_size_px`; everything fitted is fitted on these alone.
            tuning: Images of the same size; used for choosing and for the tuning curves.
            context: Seed, device, states, log, progress and stop flag.

        Raises:
            DataError: A view is empty, has images of another size, no image of a plane that the
                schedule names, or more labels than a network can be told.
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
            condition: Plane and machine; labels left open, or all with None, are drawn as often as
                in training.

        Raises:
            SettingsError: n is less than 1, no training image has the label, or the networks were
                not told labels.
            StoppedError: A stop was asked for.
            TrainingError: Nothing has been fitted or loaded, or a value is not finite.
        """
        if n < 1:
            raise SettingsError(f"number of images to sample: expected at least 1, found {n}")
        return self._fitted().sample(n, context, condition or Condition())

    def state(self) -> Tensors:
        """All tensors needed to sample again.

        Raises:
            TrainingError: Nothing has been fitted or loaded.
        """
        return self._fitted().state()

    def load_state(self, tensors: Tensors) -> None:
        """Load tensors written by `state`.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        from medisynth.models.tb_gan.trained import trained_from

        self._trained = trained_from(self._settings, tensors)

    def _fitted(self) -> Trained:
        if self._trained is None:
            raise TrainingError(
                f"{self.name}: expected a trained generator, found one without weights; "
                "fit it or load a checkpoint first"
            )
        return self._trained


def _own(settings: BaseModel) -> TbGanSettings:
    if not isinstance(settings, TbGanSettings):
        raise SettingsError(
            f"model.settings: expected TbGanSettings, found {type(settings).__name__}"
        )
    return settings
