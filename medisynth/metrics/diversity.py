"""Diversity: how varied images are among themselves, beside real images."""

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import DiversityRecord
from medisynth.data.reading.views import Pixels
from medisynth.metrics.features import Features

N_PAIRS = 200
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales of MS-SSIM
_WINDOW = 11  # pixels of the Gaussian window of SSIM: the smallest scale must hold it


def diversity(
    synthetic: Features,
    real: Features,
    synthetic_pixels: Pixels,
    real_pixels: Pixels,
    *,
    seed: int,
) -> DiversityRecord:
    """Compare the variety of synthetic images with that of as many real training images.

    Args:
        synthetic: Features, shape (n, d), float64.
        real: Features of real training images, shape (t, d).
        synthetic_pixels: The images themselves, shape (n, height, width), uint8.
        real_pixels: Shape (t, height, width), uint8.
        seed: Seed of the pairs.

    Raises:
        MetricUndefinedError: Fewer than two images of a kind.
    """
    n = min(len(synthetic), len(real))
    pairs = (ms_ssim_of_pairs(pixels[:n], seed) for pixels in (synthetic_pixels, real_pixels))
    similarity, real_similarity = (float(found.mean()) for found in pairs)
    return DiversityRecord(
        vendi=vendi_score(synthetic[:n]),
        vendi_real=vendi_score(real[:n]),
        ms_ssim=similarity,
        ms_ssim_real=real_similarity,
        n_images=n,
        n_pairs=min(N_PAIRS, n * (n - 1) // 2),
    )


def vendi_score(features: Features) -> float:
    """Effective number of different images among n.

    Args:
        features: Shape (n, d), n at least 1; compared by the cosine of their angle.

    Returns:
        1 (all alike) to n (all orthogonal): the exponential of the entropy of the eigenvalues of
        the similarities over n. Grows with n: compare at equal n.

    Raises:
        MetricUndefinedError: No image, or a feature is not finite.

    Source:
        Friedman and Dieng 2023, arXiv:2210.02410.
    """
    if len(features) == 0 or not np.isfinite(features).all():
        raise MetricUndefinedError("a Vendi score needs images with finite features")
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, length, out=np.zeros_like(features), where=length > 0)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    shares = values[values > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def ms_ssim_of_pairs(pixels: Pixels, seed: int) -> NDArray[np.float64]:
    """Multi-scale structural similarity of random pairs of images.

    Args:
        pixels: Shape (n, height, width), uint8, n at least 2; the shorter side 11 pixels or more.
        seed: Seed of the pairs; all pairs where there are at most 200.

    Returns:
        One value a pair, at most 1: 1 for equal images. Of the five scales only those are used
        whose images hold the window of 11 pixels, with their weights made to add up to 1.

    Raises:
        MetricUndefinedError: Fewer than two images, or images smaller than the window.

    Source:
        Wang et al. 2003, doi:10.1109/ACSSC.2003.1292216; as a measure of variety Odena et al.
        2017, arXiv:1610.09585.
    """
    side = min(pixels.shape[1:])
    if len(pixels) < 2 or side < _WINDOW:
        raise MetricUndefinedError(
            f"similarity of pairs needs 2 images of {_WINDOW} pixels, got {len(pixels)} of {side}"
        )
    left, right = np.triu_indices(len(pixels), k=1)
    if len(left) > N_PAIRS:
        chosen = np.random.default_rng(seed).choice(len(left), N_PAIRS, replace=False)
        left, right = left[chosen], right[chosen]
    return np.array([_ms_ssim(pixels[a], pixels[b]) for a, b in zip(left, right, strict=True)])


def _ms_ssim(left: Pixels, right: Pixels) -> float:
    one, other = left.astype(np.float64), right.astype(np.float64)
    found: list[tuple[float, float]] = []
    while len(found) < len(_WEIGHTS) and min(one.shape) >= _WINDOW:
        found.append(_ssim(one, other))
        one, other = _halved(one), _halved(other)
    weights = np.array(_WEIGHTS[: len(found)])
    weights /= weights.sum()
    # Luminance counts at the coarsest scale alone, contrast and structure at every one.
    terms = [contrast for _, contrast in found[:-1]] + [found[-1][0] * found[-1][1]]
    return float(np.prod(np.maximum(terms, 0.0) ** weights))


def _ssim(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Mean luminance term, and mean contrast and structure term, of two grey images."""
    from scipy.ndimage import gaussian_filter

    def smooth(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(image, 1.5, truncate=3.5))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = smooth(one), smooth(other)
    var_a = smooth(one * one) - mean_a**2
    var_b = smooth(other * other) - mean_b**2
    covariance = smooth(one * other) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    return float(luminance.mean()), float(contrast.mean())


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = (length // 2 * 2 for length in image.shape)
    trimmed = image[:rows, :columns]
    blocks = trimmed.reshape(rows // 2, 2, columns // 2, 2)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float64)
