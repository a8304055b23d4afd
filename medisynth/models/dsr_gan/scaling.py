"""Scaling between images and the diffusion network's residuals, fitted on training images."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from governance.records.errors import DataError
from medisynth.data.reading.views import ImageView
from medisynth.models.dsr_gan.settings import DiffusionSettings
from medisynth.models.enlarging.images import reduced, to_unit

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
