"""Distance of synthetic images to tuning images, to choose a checkpoint and for a first look.

Tuning images are not part of the held-out test set, so using them does not open it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from governance.records.comparison import MUST_BEAT, Control, TuningComparison
from governance.records.errors import MetricUndefinedError
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.metrics.controls import MEANINGS, control_images
from medisynth.metrics.features import Features, InceptionPool3, check_reference
from medisynth.metrics.fidelity import kernel_estimate
from medisynth.metrics.kernel import kernel_distance

LEAST_IMAGES = 10  # a set; with fewer, KID moves more by chance than from model to model
_MOST_IMAGES = 128  # tuning images that anything is compared with
_RESAMPLES = 200


class TuningDistance:
    """KID of synthetic images to tuning images on Inception features; lower is closer.

    Attributes:
        name: Name of the distance, for the record.
        weights_sha256: Digest of the extractor's weights once it was used; None before.
    """

    def __init__(self, weights: Path, tuning: ImageView, compute_device: str) -> None:
        self._rows = evenly(len(tuning), _MOST_IMAGES)
        self._weights, self._tuning, self._device = weights, tuning, compute_device
        self._loaded: tuple[InceptionPool3, Features] | None = None
        self.name = f"KID on Inception pool3 features to {len(self._rows)} tuning images"
        self.weights_sha256: str | None = None

    def __call__(self, images: Pixels) -> float:
        """Return the KID of images, shape (n, size, size), uint8, to the tuning images."""
        extractor, real = self._load()
        return kernel_distance(real, extractor.extract(images))

    @property
    def extractor(self) -> InceptionPool3:
        """The network behind the distance, loaded once."""
        return self._load()[0]

    def compare(
        self,
        synthetic: Pixels,
        training: Pixels,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> TuningComparison:
        """Compare synthetic images with the controls `pca` and `blur`, at equal numbers of images.

        Args:
            synthetic: Images of the generator, shape (m, size, size), uint8; as many of them are
                compared as there are tuning images, at most 128.
            training: Training images, from which the controls are made.
            seed: Seed of controls and of resampling.
            progress: Called as progress(done, all) while features are extracted.

        Returns:
            The distances, or the reason for none: fewer than 10 images in a set, or tuning images
            that cannot be a reference.
        """
        real_pixels = np.asarray(self._tuning.pixels[self._rows])
        drawn = synthetic[evenly(len(synthetic), len(real_pixels))]
        n = len(drawn)
        if min(n, len(real_pixels)) < LEAST_IMAGES:
            return TuningComparison(
                reason=f"needs {LEAST_IMAGES} images a set, got {len(real_pixels)} tuning images "
                f"and {len(synthetic)} synthetic ones"
            )
        try:
            check_reference(real_pixels, "tuning images")
        except MetricUndefinedError as error:
            return TuningComparison(reason=str(error))
        extractor, real = self._load()
        sets = [drawn, *(control_images(name, training, n, seed) for name in MUST_BEAT)]
        features = extractor.extract(np.concatenate(sets), progress)
        patients = [self._tuning.patient_ids[row] or str(row) for row in self._rows]
        (value, ci95), *others = (
            kernel_estimate(real, patients, part, n_bootstrap=_RESAMPLES, seed=seed)
            for part in np.split(features, len(sets))
        )
        size = str(n) if n == len(real) else f"{len(real)}x{n}"
        metric_id = f"kid-{extractor.name}-d{extractor.n_features}-n{size}"
        return TuningComparison(
            metric_id=metric_id,
            value=value,
            ci95=ci95,
            controls=tuple(
                Control(
                    name=name,
                    metric_id=metric_id,
                    value=found,
                    meaning=MEANINGS[name],
                    ci95=interval,
                )
                for name, (found, interval) in zip(MUST_BEAT, others, strict=True)
            ),
            n_real=len(real),
            n_patients=len(set(patients)),
            n_images=n,
        )

    def _load(self) -> tuple[InceptionPool3, Features]:
        if self._loaded is None:
            extractor = InceptionPool3.load(self._weights, compute_device=self._device)
            real = extractor.extract(np.asarray(self._tuning.pixels[self._rows]))
            self._loaded = extractor, real
            self.weights_sha256 = extractor.weights_sha256
        return self._loaded


def evenly(n_all: int, n_most: int) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """At most `n_most` row numbers spread evenly over all, ascending, the same at each call."""
    n = min(n_all, n_most)
    return np.linspace(0, max(n_all - 1, 0), n).round().astype(np.intp)
