"""An example of a generator of one's own: a Gaussian in the space of eigen-images.

Take it as a template: it has all that `medisynth.generator.Generator` asks for and nothing more.
Real images are centred, their main directions of change (eigen-images) are found, and a synthetic
image is the mean plus a random amount of each. It has no notion of anatomy and blurs what varies
in place: a floor that any learned generator must beat.

How many eigen-images are kept is chosen on the tuning view, by the context's own score where there
is one, else by how likely the tuning images are under the model.

`medisynth.metrics.controls` draws from a Gaussian too, without eigenvectors but out of the training
images themselves. A released generator must do without them, so the two share no code.

Source:
    Tipping and Bishop 1999, Probabilistic principal component analysis, J. R. Stat. Soc. B 61(3).
"""

import time

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from governance.records.errors import DataError, SettingsError, TrainingError, WeightsError
from governance.records.training import Candidate, FitReport, FittedThing, Selection, training_stage
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Condition, Tensors, TrainingContext

Floats = NDArray[np.float32]


class PcaGaussianSettings(BaseModel):
    """Settings of the PCA Gaussian: frozen, closed, and importable without torch.

    Attributes:
        size: Side of the images, in pixels.
        components: Eigen-images kept, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=64, ge=8, le=512)
    components: int = Field(default=32, ge=1, le=512)


class PcaGaussian:
    """Draws images from a Gaussian over eigen-images."""

    name = "pca-gaussian"
    title = "PCA Gaussian (eigen-images)"
    Settings: type[BaseModel] = PcaGaussianSettings

    def __init__(self, settings: BaseModel) -> None:
        if not isinstance(settings, PcaGaussianSettings):
            raise SettingsError(
                f"model.settings: expected PcaGaussianSettings, found {type(settings).__name__}"
            )
        self._settings = settings
        self._mean: Floats | None = None  # (size * size,)
        self._scaled: Floats | None = None  # (k, size * size): eigen-image times its deviation

    @staticmethod
    def image_size_px(settings: BaseModel) -> int:
        """Side of the square images it makes and trains on, in pixels."""
        return int(PcaGaussianSettings.model_validate(settings).size)

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Find mean and eigen-images of the training view; choose their number on the tuning view.

        Raises:
            DataError: There are fewer than three training images, or all are equal.
        """
        started = time.monotonic()
        x = _flat(training)
        if len(x) < 3 or not x.std():
            raise DataError("pca-gaussian: expected at least 3 training images that differ")
        mean = x.mean(axis=0)
        _, singular, vectors = np.linalg.svd(x - mean, full_matrices=False)
        variances = np.asarray(singular**2 / (len(x) - 1), np.float32)
        candidates, scaled = [], np.sqrt(variances)[:, None] * vectors
        most = min(self._settings.components, len(x) - 2)  # the last direction is noise of rounding
        for k in sorted({*(2**power for power in range(9) if 2**power < most), most}):
            self._mean, self._scaled = mean, scaled[:k]
            if context.score is not None:
                score = context.score(self.sample(min(64, len(tuning)), context))
            else:
                score = _surprise(_flat(tuning) - mean, vectors, variances, k)
            candidates.append(Candidate(step=k, score=score))
            context.log("eigen-images", k, {"tuning score": score})
            context.progress("eigen-images", k, most)
        chosen = min(candidates, key=lambda candidate: candidate.score).step
        self._scaled = scaled[:chosen]
        stage = training_stage(
            name="eigen-images",
            n_parameters=(chosen + 1) * x.shape[1],
            n_steps=1,
            batch_size=len(x),
            duration_s=time.monotonic() - started,
            precision="fp32",
        )
        criterion = "tuning images' mean negative log-likelihood a pixel, in nats"
        return FitReport(
            description={
                "architecture": f"mean and {chosen} eigen-images, independent normal amounts",
                "image size": f"{self._settings.size} x {self._settings.size} pixels",
                "losses": "none: closed form",
                "optimiser": "none: singular value decomposition",
                "schedule": "one pass",
                "augmentation": "none",
                "pre-training": "none",
                "sampler": "direct",
            },
            stages=(stage,),
            fitted=(FittedThing(name="mean and eigen-images", fit_view_sha256=training.digest),),
            selection=Selection(
                partition=tuning.partition,
                view_sha256=tuning.digest,
                criterion=f"lowest {context.score_name if context.score else criterion}",
                candidates=tuple(candidates),
                chosen_step=chosen,
            ),
        )

    def sample(
        self, n: int, context: TrainingContext, condition: Condition | None = None
    ) -> Pixels:
        """Draw n images, shape (n, size, size), uint8; same seed, same images.

        Raises:
            SettingsError: A condition is asked for: it knows none.
            TrainingError: Nothing has been fitted or loaded.
        """
        if condition is not None and condition != Condition():
            raise SettingsError("pca-gaussian: knows no condition; leave plane and machine out")
        if self._mean is None or self._scaled is None:
            raise TrainingError("pca-gaussian: nothing to draw from; fit it or load a checkpoint")
        rng = np.random.default_rng([context.seed, 0])  # derived: nothing global, no clock
        images = np.empty((n, self._settings.size, self._settings.size), np.uint8)
        for number in range(n):
            amounts = rng.standard_normal(len(self._scaled), dtype=np.float32)
            drawn = self._mean + amounts @ self._scaled
            images[number] = np.clip(np.round(drawn), 0, 255).reshape(images.shape[1:])
        return images

    def state(self) -> Tensors:
        """Mean and scaled eigen-images."""
        import torch  # here, so that a configuration is checked without it

        if self._mean is None or self._scaled is None:
            raise TrainingError("pca-gaussian: nothing to save; fit it or load a checkpoint")
        return {"mean": torch.from_numpy(self._mean), "scaled": torch.from_numpy(self._scaled)}

    def load_state(self, tensors: Tensors) -> None:
        """Take what `state` gave.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        n_pixels = self._settings.size**2
        k = shapes.get("scaled", (0,))[0]
        if shapes != {"mean": (n_pixels,), "scaled": (k, n_pixels)}:
            raise WeightsError(
                f"pca-gaussian: expected mean ({n_pixels},) and scaled (k, {n_pixels}), "
                f"found {shapes}; use a checkpoint of the same settings"
            )
        self._mean, self._scaled = tensors["mean"].numpy(), tensors["scaled"].numpy()


def _flat(view: ImageView) -> Floats:
    return np.asarray(view.pixels, np.float32).reshape(len(view), -1)


def _surprise(centred: Floats, vectors: Floats, variances: Floats, k: int) -> float:
    """Mean negative log-likelihood a pixel under probabilistic PCA with k components, in nats."""
    d = centred.shape[1]
    amounts = centred @ vectors[:k].T
    rest = (centred**2).sum(axis=1) - (amounts**2).sum(axis=1)
    noise = max(float(variances[k:].sum()) / (d - k), 1e-6)
    squares = (amounts**2 / variances[:k]).sum(axis=1) + rest / noise
    logs = np.log(2 * np.pi) * d + np.log(variances[:k]).sum() + (d - k) * np.log(noise)
    return float((squares.mean() + logs) / 2 / d)
