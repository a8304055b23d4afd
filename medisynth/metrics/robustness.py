"""Robustness: what is lost when the held-out images are taken otherwise, beside real images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from governance.records.evaluation import RobustnessLoss
from medisynth.data.reading.alterations import about_centre, enlarged, grey, recompressed
from medisynth.data.reading.views import Pixels
from medisynth.intervals import Counts, image_counts, patient_counts, percentile_interval
from medisynth.metrics.features import Features
from medisynth.metrics.fidelity import MIN_PATIENTS
from medisynth.metrics.gram import grams
from medisynth.metrics.kernel import kernel_distances_from_grams

_GAIN = 1.25  # about 2 dB of amplitude
_SPECKLE = 0.2  # standard deviation of the factor on each pixel
_ZOOM, _DEGREES, _JPEG_QUALITY = 1.1, 10.0, 40


def altered(name: str, pixels: Pixels, seed: int) -> Pixels:
    """Return images as another setting of scanner or archive would show them.

    Args:
        name: One of `ALTERATIONS`.
        pixels: Images, shape (n, height, width), uint8.
        seed: Seed of the speckle.
    """
    rng = np.random.default_rng(seed)
    return np.stack([_ALTERED[name](image, rng) for image in pixels])


def robustness_losses(
    test: Features,
    test_patients: Sequence[str],
    of_altered: Mapping[str, Features],
    synthetic: Features,
    training: Features,
    training_patients: Sequence[str],
    *,
    n_bootstrap: int,
    seed: int,
) -> tuple[RobustnessLoss, ...]:
    """Measure by how much more synthetic than real images fall behind when the reference changes.

    The loss is the KID of synthetic images above that of real training images, to altered held-out
    images, less the same to the held-out images as they are. It is 0 on average for images of the
    real distribution; positive where synthetic images suit one setting only.

    Args:
        test: Features of held-out images as they are, shape (n, d).
        test_patients: Patient of each, length n.
        of_altered: Alteration -> features of the same images altered, shape (n, d).
        synthetic: Features of synthetic images, shape (m, d).
        training: Features of real training images, shape (t, d).
        training_patients: Patient of each, length t.
        n_bootstrap: Resamples behind each interval.
        seed: Seed.

    Returns:
        One entry for each alteration; none below 10 patients or 40 resamples.
    """
    if len(set(test_patients)) < MIN_PATIENTS or min(len(synthetic), len(training)) < 2:
        return ()
    rng = np.random.default_rng(seed)
    real = _with_all(patient_counts(test_patients, n_bootstrap, rng))
    drawn = _with_all(image_counts(len(synthetic), n_bootstrap, rng))
    floor = _with_all(patient_counts(training_patients, n_bootstrap, rng))

    def above_floor(features: Features) -> NDArray[np.float64]:
        to_synthetic = kernel_distances_from_grams(grams(features, synthetic), real, drawn)
        return to_synthetic - kernel_distances_from_grams(grams(features, training), real, floor)

    as_it_is = above_floor(test)
    found = []
    for name, features in of_altered.items():
        loss = above_floor(features) - as_it_is
        ci95 = percentile_interval(float(loss[0]), loss[1:])
        if ci95 is not None:
            found.append(
                RobustnessLoss(
                    alteration=name, value=float(loss[0]), ci95=ci95, n_images=len(features)
                )
            )
    return tuple(found)


def _with_all(counts: Counts) -> Counts:
    """Return the counts below a first row that holds every image once."""
    return np.vstack([np.ones(counts.shape[1]), counts])


def _gain(image: Pixels, _rng: np.random.Generator) -> Pixels:
    return grey(image.astype(np.float64) * _GAIN)


def _speckle(image: Pixels, rng: np.random.Generator) -> Pixels:
    return grey(image * rng.normal(1.0, _SPECKLE, image.shape))


def _zoom(image: Pixels, _rng: np.random.Generator) -> Pixels:
    return enlarged(image, _ZOOM)


def _rotation(image: Pixels, _rng: np.random.Generator) -> Pixels:
    angle = np.deg2rad(_DEGREES)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return grey(about_centre(image, turn))


def _compression(image: Pixels, _rng: np.random.Generator) -> Pixels:
    return recompressed(image, _JPEG_QUALITY)


_ALTERED: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "gain": _gain,
    "speckle": _speckle,
    "zoom": _zoom,
    "rotation": _rotation,
    "compression": _compression,
}
ALTERATIONS = tuple(_ALTERED)
