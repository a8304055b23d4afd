"""A very small generator for trials of the training step: a mean image and one trained number.

On demand it fails in ways that real generators can. Importable without torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from governance.records.errors import SettingsError, TrainingError, WeightsError
from governance.records.training import Candidate, FitReport, FittedThing, Selection, training_stage
from medisynth.data.reading.views import ImageView, Pixels, load_view
from medisynth.generator import Condition, Tensors, TrainingContext

STAGE, N_STEPS = "self-test", 6
NAME = f"{__name__}:TrialGenerator"
TEST_VIEW = "test"


class TrialSettings(BaseModel):
    """Settings of the trial generator.

    Attributes:
        size: Side of the images, in pixels.
        nan_at_step: Step whose loss is not a number. Default: none.
        statistics_from: Folder with a view of test images that the mean is fitted on too (a leak).
            Default: only the training images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=32, ge=8, le=64)
    nan_at_step: int | None = None
    statistics_from: str | None = None


class TrialGenerator:
    """Generator that draws the mean image scaled by a trained number, with noise."""

    name = "self-test"
    title = "Generator of the self-test"
    Settings: type[BaseModel] = TrialSettings

    def __init__(self, settings: BaseModel) -> None:
        self._settings = TrialSettings.model_validate(settings)
        self._mean: Any = None  # (size, size)
        self._gain: Any = None  # (1,)

    @staticmethod
    def image_size_px(settings: BaseModel) -> int:
        """Return the side of the square images, in pixels."""
        return TrialSettings.model_validate(settings).size

    @staticmethod
    def pretrained_files(settings: BaseModel) -> tuple[str, ...]:
        """Return the files of the view of test images, disguised as pretrained weights."""
        folder = TrialSettings.model_validate(settings).statistics_from
        if folder is None:
            return ()
        return tuple(str(Path(folder) / f"{TEST_VIEW}{end}") for end in (".npy", ".json"))

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Fit the mean and train the number; report truly which images were used."""
        import torch

        from medisynth.training.loop import train

        fitted_on = training
        if self._settings.statistics_from is not None:
            other = load_view(Path(self._settings.statistics_from), TEST_VIEW)
            fitted_on = joined(training, other)
        self._mean = torch.from_numpy(np.asarray(fitted_on.pixels, np.float32).mean(axis=0))
        stage = _Stage(self._mean, training, self._settings.nan_at_step)
        trained = train(stage, context, evaluate_every=N_STEPS)
        self._gain = stage.gain.detach().clone()
        return FitReport(
            description={"architecture": "mean image times one number", "losses": "mean square"},
            stages=(
                training_stage(
                    name=STAGE,
                    n_parameters=1,
                    n_steps=N_STEPS,
                    batch_size=1,
                    duration_s=trained.duration_s,
                    precision="fp32",
                ),
            ),
            fitted=(FittedThing(name="mean image", fit_view_sha256=fitted_on.digest),),
            selection=Selection(
                partition=tuning.partition,
                view_sha256=tuning.digest,
                criterion="last step",
                candidates=(Candidate(step=N_STEPS, score=0.0),),
                chosen_step=N_STEPS,
            ),
        )

    def sample(
        self, n: int, context: TrainingContext, condition: Condition | None = None
    ) -> Pixels:
        """Return n mean images with noise; SettingsError when a condition is asked for."""
        if condition is not None and condition != Condition():
            raise SettingsError("self-test: this generator knows no condition")
        if self._mean is None or self._gain is None:
            raise TrainingError("self-test: nothing to draw from; fit it first")
        noise = np.random.default_rng([context.seed, 0]).normal(0, 40, (n, *self._mean.shape))
        drawn = self._mean.numpy() * float(self._gain) + noise
        images: Pixels = np.clip(np.round(drawn), 0, 255).astype(np.uint8)
        return images

    def state(self) -> Tensors:
        """Return the mean image and the number."""
        if self._mean is None or self._gain is None:
            raise TrainingError("self-test: nothing to save; fit it first")
        return {"mean": self._mean, "gain": self._gain}

    def load_state(self, tensors: Tensors) -> None:
        """Restore what `state` returned; WeightsError when names do not fit."""
        if set(tensors) != {"mean", "gain"}:
            raise WeightsError(f"self-test: expected mean and gain, found {sorted(tensors)}")
        self._mean, self._gain = tensors["mean"], tensors["gain"]


class _Stage:
    """Trains one factor so that the scaled mean image is near the training images."""

    name, n_steps = STAGE, N_STEPS

    def __init__(self, mean: Any, training: ImageView, nan_at_step: int | None) -> None:
        import torch

        self._mean, self._nan_at_step = mean / 255, nan_at_step
        self._images = torch.from_numpy(np.asarray(training.pixels, np.float32)) / 255
        self.gain = torch.nn.Parameter(torch.ones(1))
        self._optimiser = torch.optim.SGD([self.gain], lr=0.01)

    def step(self, step: int) -> Mapping[str, float]:
        """Do one update with the shared function, which checks every loss."""
        from medisynth.training.loop import update

        loss = (self.gain * self._mean - self._images).square().mean()
        if step == self._nan_at_step:
            loss = loss * float("nan")
        return update(self._optimiser, {"loss": loss}, loss, stage=STAGE, step=step, rate=0.01)

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Return no score: no checkpoint is chosen."""
        return {}

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the number."""
        return {"gain": self.gain.detach().clone()}, {}

    def load_state(self, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        import torch

        with torch.no_grad():
            self.gain.copy_(tensors["gain"])


def joined(view: ImageView, more: ImageView) -> ImageView:
    """Return a view with the images of another one appended."""
    return ImageView(
        view.partition,
        np.concatenate([view.pixels, more.pixels]),
        view.image_ids + more.image_ids,
        view.patient_ids + more.patient_ids,
        view.planes + more.planes,
        view.machines + more.machines,
    )
