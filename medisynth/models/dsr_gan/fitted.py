"""Parts fitted before training, on the training view alone: scaling, histograms, vocabulary.

Each sample is matched to the histogram of one training image. One average histogram for all samples
would give every synthetic image the same gain. One drawn at random often belongs to another scene: a
dark sample stretched to the grey values of a bright frame becomes fog. So a few training images are
drawn and the one with the nearest histogram is taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.exposure import match_histograms
from torch.nn import functional

from governance.records.errors import DataError
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.models.conditioning import Vocabulary, vocabulary_of
from medisynth.models.dsr_gan.settings import DiffusionSettings, DsrGanSettings
from medisynth.models.enlarging.images import reduced, reduced_pixels, to_unit
from medisynth.training.loop import numpy_generator

Window = tuple[int, int, int, int]

ROWS_AT_ONCE = 64
NO_SPREAD = 1e-4  # of full scale 1
DARKEST_PICTURE = 4 / 255  # of full scale 1; rows and columns that never exceed it hold no picture


@dataclass(frozen=True)
class Scaling:
    """Converts between images (0 to 1) and residuals (mean 0, standard deviation sigma_data).

    Residuals cover only the window of rows and columns that hold picture; the black around it is
    put back in sampled images.

    Attributes:
        mean_image: Training mean, shape (1, 1, size, size).
        gain: Residual units per image unit.
        window: First row, row after the last, first column, column after the last.
    """

    mean_image: torch.Tensor
    gain: torch.Tensor
    window: Window

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a residual."""
        top, bottom, left, right = self.window
        return bottom - top, right - left

    def to(self, device: str) -> "Scaling":
        """Return the scaling on another device."""
        return Scaling(self.mean_image.to(device), self.gain.to(device), self.window)

    def to_residuals(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images (b, 1, size, size) into residuals of the window."""
        return self.of_differences(images - self.mean_image)

    def of_differences(self, differences: torch.Tensor) -> torch.Tensor:
        """Turn differences from the mean image (b, c, size, size) into residuals of the window."""
        top, bottom, left, right = self.window
        return differences[:, :, top:bottom, left:right] * self.gain

    def to_images(self, residuals: torch.Tensor) -> torch.Tensor:
        """Turn residuals into whole images, the mean image outside; values may leave 0 to 1."""
        top, bottom, left, right = self.window
        height, width = self.mean_image.shape[2:]
        around = (left, width - right, top, height - bottom)
        return functional.pad(residuals / self.gain, around) + self.mean_image


def fit_mean_image(training: ImageView, device: str) -> torch.Tensor:
    """Mean training image at the view's own size, shape (1, 1, h, h), 0 to 1."""
    total = torch.zeros(training.pixels.shape[1:], dtype=torch.float64)
    for start in range(0, len(training), ROWS_AT_ONCE):
        total += to_unit(training.pixels[start : start + ROWS_AT_ONCE], "cpu").double().sum((0, 1))
    return (total / len(training)).float().to(device)[None, None]


def fit_scaling(
    training: ImageView, mean_image: torch.Tensor, settings: DiffusionSettings
) -> Scaling:
    """Fit the scaling at the size of the diffusion model, on training images alone.

    Raises:
        DataError: All training images are equal.
    """
    device = str(mean_image.device)
    window = fit_window(training, settings, device)
    whole = Scaling(reduced(mean_image, settings.size), torch.ones((), device=device), window)
    squares = 0.0
    for start in range(0, len(training), ROWS_AT_ONCE):
        images = to_unit(training.pixels[start : start + ROWS_AT_ONCE], device)
        rest = whole.to_residuals(reduced(images, settings.size))
        squares += float(rest.double().square().mean((1, 2, 3)).sum())
    spread = math.sqrt(squares / len(training))
    if spread < NO_SPREAD:
        raise DataError(
            f"training view: expected images that differ, found {len(training)} whose standard "
            f"deviation about their mean is {spread:.6f} of full scale; check the images",
            code="D080",
        )
    gain = torch.tensor(settings.sigma_data / spread, device=device)
    return Scaling(whole.mean_image, gain, window)


def fit_window(training: ImageView, settings: DiffusionSettings, device: str) -> Window:
    """Find the window in which some training image holds picture, at the diffusion size.

    Its columns are symmetric, since mirrored images are trained on as well. Rows and columns are
    widened to multiples that the network can halve.
    """
    brightest = torch.zeros(settings.size, settings.size, device=device)
    for start in range(0, len(training), ROWS_AT_ONCE):
        images = to_unit(training.pixels[start : start + ROWS_AT_ONCE], device)
        brightest = brightest.maximum(reduced(images, settings.size).amax((0, 1)))
    holds = brightest > DARKEST_PICTURE
    rows, columns = holds.any(dim=1), holds.any(dim=0)
    multiple = settings.unshuffle * 2 ** (len(settings.channels) - 1)
    return (*_widened(rows, multiple), *_widened(columns | columns.flip(0), multiple))


def _widened(holds: torch.Tensor, multiple: int) -> tuple[int, int]:
    """First and past-the-last true index, widened about their middle to a multiple."""
    places = holds.nonzero().flatten().tolist() or [0, len(holds) - 1]
    first, end = places[0], places[-1] + 1
    length = -(-(end - first) // multiple) * multiple
    first = min(max(0, first - (length - (end - first)) // 2), len(holds) - length)
    return first, first + length


BLACK_MAX = 4  # grey values up to this are background around the sector
FEWEST_PIXELS = 16
N_DRAWN = 16
N_GREYS = 256

Histograms = NDArray[np.int32]
# From an image, the training histograms and a generator to the image with other grey values.
Matching = Callable[[Pixels, Histograms, np.random.Generator], Pixels]


def histograms_of(images: Pixels) -> Histograms:
    """Count grey values: (n, h, w) uint8 to (n, 256)."""
    return np.stack([np.bincount(image.reshape(-1), minlength=N_GREYS) for image in images]).astype(
        np.int32
    )


def matched_to_nearest(
    image: Pixels, histograms: Histograms, generator: np.random.Generator
) -> Pixels:
    """Match an image to the nearest of a few drawn training histograms."""
    return matched(image, drawn_reference(image, histograms, generator))


def drawn_reference(
    image: Pixels, histograms: Histograms, generator: np.random.Generator
) -> NDArray[np.int32]:
    """Draw N_DRAWN training histograms and return the one nearest to the image's own.

    Args:
        image: Grey image, uint8, of the size that the histograms were counted at.
        histograms: Grey value counts of training images, shape (k, 256).
        generator: Where the draw comes from.

    Returns:
        Counts, shape (256,). Nearest by the earth mover's distance, which for grey values is the
        area between the two cumulative histograms.
    """
    drawn = histograms[generator.integers(len(histograms), size=N_DRAWN)]
    own = np.bincount(image.reshape(-1), minlength=N_GREYS)
    distances = np.abs(np.cumsum(drawn - own, axis=1)).sum(axis=1)
    nearest: NDArray[np.int32] = drawn[int(distances.argmin())]
    return nearest


def matched(image: Pixels, reference: NDArray[np.int32]) -> Pixels:
    """Give an image the grey values of a reference, keeping the order of brightness.

    Only pixels brighter than the black background are matched: sectors differ in area, and
    matching the background too would turn black into grey or tissue into black. The background
    becomes 0, as it is in real frames.

    Args:
        image: Grey image, uint8, any shape.
        reference: Counts of the 256 grey values of the reference image.

    Returns:
        Same shape, uint8. Unchanged where either has fewer than 16 pixels above the background.
    """
    is_tissue = image > BLACK_MAX
    greys = np.repeat(np.arange(N_GREYS, dtype=np.uint8), reference)
    greys = greys[greys > BLACK_MAX]
    if min(int(is_tissue.sum()), len(greys)) < FEWEST_PIXELS:
        return image
    result = np.zeros_like(image)
    values = match_histograms(image[is_tissue], greys)
    result[is_tissue] = np.clip(np.rint(values), 0, N_GREYS - 1).astype(np.uint8)
    return result


MOST_HISTOGRAMS = 1024


@dataclass(frozen=True)
class Fitted:
    """Parts fitted before training, which both stages and sampling use.

    Attributes:
        mean_image: Training mean at full size, shape (1, 1, h, h), 0 to 1, which is subtracted
            before augmentation; None where images are augmented as they are.
        scaling: Scaling between images and residuals, at the diffusion size.
        histograms: Grey value counts, shape (k, 256).
        vocabulary: Labels of the training images.
    """

    mean_image: torch.Tensor | None
    scaling: Scaling
    histograms: Histograms
    vocabulary: Vocabulary


def fit_before_training(
    training: ImageView, settings: DsrGanSettings, seed: int, device: str
) -> Fitted:
    """Fit scaling, histograms and vocabulary.

    Raises:
        DataError: All training images are equal.
    """
    mean_image = fit_mean_image(training, device)
    return Fitted(
        mean_image,
        fit_scaling(training, mean_image, settings.diffusion),
        fit_histograms(training, settings, seed),
        vocabulary_of(training, settings.conditioning),
    )


def fit_histograms(training: ImageView, settings: DsrGanSettings, seed: int) -> Histograms:
    """Count the grey values of training images, at most 1024 drawn ones, at the diffusion size."""
    rows = np.arange(len(training))
    if len(rows) > MOST_HISTOGRAMS:
        generator = numpy_generator(seed, "histograms")
        rows = np.sort(generator.choice(rows, MOST_HISTOGRAMS, replace=False))
    return histograms_of(reduced_pixels(training.pixels[rows], settings.diffusion.size))
