"""DSR-GAN as published: its sizes, and deviations of the published code as named switches.

After Iskandar et al. 2023 (arXiv:2304.03941); for comparison and not for use. A deviation turned
off behaves as the built-in generator. Importing this module does not import torch.
"""

from pydantic import BaseModel

from governance.records.errors import SettingsError
from governance.records.training import FitReport
from medisynth.data.reading.views import ImageView
from medisynth.generator import Tensors, TrainingContext
from medisynth.models.dsr_gan import DsrGan
from medisynth.studies.midl2023.dsr_gan_published.settings import DsrGanPublishedSettings

__all__ = ["DsrGanPublished", "DsrGanPublishedSettings"]


class DsrGanPublished(DsrGan):
    """Draws synthetic ultrasound images; fulfils `medisynth.generator.Generator`."""

    name = "dsr-gan-published"
    title = "DSR-GAN as published (diffusion, histogram matching, super-resolution GAN)"
    Settings = DsrGanPublishedSettings

    def __init__(self, settings: BaseModel) -> None:
        if not isinstance(settings, DsrGanPublishedSettings):
            raise SettingsError(
                f"model.settings: expected DsrGanPublishedSettings, found {type(settings).__name__}"
            )
        super().__init__(settings)
        self._published = settings.in_effect()

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Train on the training view, choose on the tuning view; return a report.

        Raises:
            DataError, StoppedError, TrainingError, WeightsError: As `DsrGan.fit`.
        """
        from medisynth.studies.midl2023.dsr_gan_published.fitting import fit

        self._trained, report = fit(self._published, training, tuning, context)
        return report

    def load_state(self, tensors: Tensors) -> None:
        """Load tensors written by `state`.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        from medisynth.studies.midl2023.dsr_gan_published.trained import trained_from

        self._trained = trained_from(self._published, tensors)
