"""Between images and what the diffusion network works on; fitted on the training view alone."""

import math
from dataclasses import dataclass

import torch

from medisynth.data.views import ImageView
from medisynth.errors import DataError
from medisynth.models.dsr_gan.settings import DiffusionSettings
from medisynth.models.enlarging.images import reduced, to_unit

ROWS_AT_ONCE = 64
NO_SPREAD = 1e-4  # of full scale 1


@dataclass(frozen=True)
class Scaling:
    """Between images (0 to 1) and residuals (mean 0, standard deviation sigma_data).

    Attributes:
        mean_image: Training mean, shape (1, 1, size, size).
        gain: Residual units per image unit.
    """

    mean_image: torch.Tensor
    gain: torch.Tensor

    def to_residuals(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images into residuals."""
        return (images - self.mean_image) * self.gain

    def to_images(self, residuals: torch.Tensor) -> torch.Tensor:
        """Turn residuals into images; values may leave 0 to 1."""
        return residuals / self.gain + self.mean_image


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
    squares = 0.0
    for start in range(0, len(training), ROWS_AT_ONCE):
        images = to_unit(training.pixels[start : start + ROWS_AT_ONCE], device)
        rest = reduced(images - mean_image, settings.size)
        squares += float(rest.double().square().mean((1, 2, 3)).sum())
    spread = math.sqrt(squares / len(training))
    if spread < NO_SPREAD:
        raise DataError(
            f"training view: expected images that differ, found {len(training)} whose standard "
            f"deviation about their mean is {spread:.6f} of full scale; check the images",
            code="D080",
        )
    gain = torch.tensor(settings.sigma_data / spread, device=device)
    return Scaling(reduced(mean_image, settings.size), gain)


def plain_scaling(training: ImageView, settings: DiffusionSettings, device: str) -> Scaling:
    """Images to -1 to 1, as published: no mean image is taken away.

    Raises:
        DataError: All training images are equal.
    """
    fit_scaling(training, fit_mean_image(training, device), settings)  # refuses equal images
    shape = (1, 1, settings.size, settings.size)
    return Scaling(torch.full(shape, 0.5, device=device), torch.tensor(2.0, device=device))
