"""Control images whose metrics are known beforehand, to check the metrics."""

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError, SettingsError
from medisynth.data.reading.alterations import about_centre, grey
from medisynth.data.reading.views import Pixels

MEANINGS = {
    "black": "all-black images: every metric must be far worse than the generator's",
    "noise": "random pixels: every metric must be far worse than the generator's",
    "blur": "training images, strongly blurred: shows that lost detail costs",
    "pca": "a Gaussian fitted to training pixels: a generator must beat it",
    "copycat": "training images themselves: win fidelity and must fail the memorisation check",
    "augmentation": "training images mirrored, turned, enlarged, brightened: what a generator must "
    "beat in variety",
}
CONTROLS = tuple(MEANINGS)

_BLUR_FRACTION = 1 / 16  # standard deviation over the shorter side
_TURN_DEGREES, _ZOOM, _GAIN = 10.0, 0.1, 0.2  # largest simple changes of one image
_PCA_IMAGES = 400  # images the Gaussian is fitted to, at most: bounds memory


def control_images(name: str, training_pixels: Pixels, n: int, seed: int) -> Pixels:
    """Make n images of one control.

    Args:
        name: One of `CONTROLS`.
        training_pixels: Real training images, shape (t, height, width), uint8.
        n: Number of images.
        seed: Seed.

    Returns:
        Shape (n, height, width), uint8. Training images are drawn without repetition as long as
        there are enough.

    Raises:
        SettingsError: There is no such control.
        MetricUndefinedError: There are no training images to make it from.
    """
    if name not in MEANINGS:
        raise SettingsError(f"control {name!r} is unknown; known are {', '.join(CONTROLS)}")
    if len(training_pixels) == 0:
        raise MetricUndefinedError(f"control {name!r} needs training images, got none")
    rng = np.random.default_rng([seed, CONTROLS.index(name)])
    shape = (n, *training_pixels.shape[1:])
    if name == "black":
        return np.zeros(shape, np.uint8)
    if name == "noise":
        return rng.integers(0, 256, size=shape, dtype=np.uint8)
    if name == "pca":
        return _gaussian_images(training_pixels, n, rng)
    drawn = training_pixels[_draw(len(training_pixels), n, rng)]
    if name == "augmentation":
        return np.stack([_augmented(image, rng) for image in drawn])
    return np.array(drawn) if name == "copycat" else _blurred(drawn)


def copycat_rows(n_available: int, n: int, seed: int) -> NDArray[np.intp]:
    """Return which training images the control "copycat" shows, for those who know their features.

    They are drawn at random: the first ones of a data set in order are another population.
    """
    return _draw(n_available, n, np.random.default_rng([seed, CONTROLS.index("copycat")]))


def _draw(n_available: int, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    rounds = -(-n // n_available)
    order = [rng.permutation(n_available) for _ in range(rounds)]
    return np.concatenate(order)[:n] if order else np.zeros(0, np.intp)


def _blurred(pixels: Pixels) -> Pixels:
    from scipy.ndimage import gaussian_filter

    sigma = min(pixels.shape[1:]) * _BLUR_FRACTION
    blurred = gaussian_filter(pixels.astype(np.float32), sigma=(0, sigma, sigma))
    return np.asarray(np.round(blurred), np.uint8)


def _augmented(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirror an image (or not), turn and enlarge it about its centre, and make it brighter."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    angle = np.deg2rad(rng.uniform(-_TURN_DEGREES, _TURN_DEGREES))
    zoom, gain = rng.uniform(1 - _ZOOM, 1 + _ZOOM), rng.uniform(1 - _GAIN, 1 + _GAIN)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    return grey(about_centre(image, turn) * gain)


def _gaussian_images(pixels: Pixels, n: int, rng: np.random.Generator) -> Pixels:
    """Draw from the Gaussian with mean and covariance of the training pixels.

    A standard normal mixture of the centred images, over the root of their number less one, has
    exactly their covariance, so no eigenvectors are needed.
    """
    chosen = pixels[_draw(len(pixels), min(len(pixels), _PCA_IMAGES), rng)]
    flat = chosen.reshape(len(chosen), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    scale = np.sqrt(max(len(flat) - 1, 1))
    mixture = rng.standard_normal((n, len(flat))).astype(np.float32) / scale
    drawn = mean + mixture @ (flat - mean)
    return grey(drawn).reshape(n, *pixels.shape[1:])
