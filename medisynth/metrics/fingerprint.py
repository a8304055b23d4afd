"""Summary statistics of images and features, for comparison with later ones."""

import numpy as np

from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import FeatureStatistics, ImageStatistic
from medisynth.data.reading.statistics import intensity_statistics
from medisynth.data.reading.views import Pixels
from medisynth.metrics.features import ExtractorFacts, Features

N_BINS = 32
N_LEADING = 16
_SIGNIFICANT = 6
# Statistic -> (name as recorded, unit, lower end of the first bin, upper end of the last).
_RANGES = {
    "mean_intensity": ("mean_intensity", "grey levels", 0.0, 256.0),
    "std_intensity": ("std_intensity", "grey levels", 0.0, 128.0),
    "black_fraction": ("black_fraction", "fraction of pixels", 0.0, 1.0),
    "sharpness": ("log10_sharpness", "log10 of 1 + squared grey levels", 0.0, 6.0),
}


def image_fingerprint(pixels: Pixels) -> tuple[ImageStatistic, ...]:
    """Summarise brightness, contrast, share of background and sharpness over images.

    Args:
        pixels: Images, shape (n, height, width), uint8. The numbers depend on the size of the
            images: compare only fingerprints of one size.

    Returns:
        One entry for each statistic of `intensity_statistics`, always in the same order.

    Raises:
        MetricUndefinedError: There are no images.
    """
    if len(pixels) == 0:
        raise MetricUndefinedError("a fingerprint needs at least one image, got none")
    rows = [intensity_statistics(image) for image in pixels]
    found = []
    for key, (name, unit, low, high) in _RANGES.items():
        values = np.array([row[key] for row in rows])
        if key == "sharpness":
            values = np.log10(1 + values)
        # Values beyond the ends are counted in the outermost bins.
        counts, _ = np.histogram(np.clip(values, low, high), N_BINS, (low, high))
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        found.append(
            ImageStatistic(
                name=name,
                unit=unit,
                low=low,
                high=high,
                counts=tuple(int(n) for n in counts),
                mean=float(values.mean()),
                sd=spread,
            )
        )
    return tuple(found)


def feature_fingerprint(features: Features, extractor: ExtractorFacts) -> FeatureStatistics:
    """Mean, spread and leading variances of features.

    Args:
        features: Shape (n >= 2, d), float64, finite.
        extractor: Facts about the extractor of the features.

    Raises:
        MetricUndefinedError: Fewer than two images, or a feature is not finite.
    """
    if len(features) < 2 or not np.isfinite(features).all():
        raise MetricUndefinedError(
            f"a fingerprint needs finite features of 2 images, got {len(features)} images"
        )
    centred = features - features.mean(axis=0)
    # The covariance has the eigenvalues of the n x n inner products of the centred features.
    variances = np.linalg.eigvalsh(centred @ centred.T / (len(features) - 1))[::-1]
    return FeatureStatistics(
        extractor=extractor.name,
        extractor_sha256=extractor.weights_sha256,
        n_images=len(features),
        mean=_rounded(features.mean(axis=0)),
        sd=_rounded(features.std(axis=0, ddof=1)),
        total_variance=float(np.maximum(variances, 0).sum()),
        leading_variances=_rounded(np.maximum(variances[: min(N_LEADING, len(features) - 1)], 0)),
    )


def _rounded(values: Features) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_SIGNIFICANT}g}") for value in values)


def histogram_distance(before: tuple[int, ...], after: tuple[int, ...]) -> float:
    """Largest difference of two cumulative histograms over the same bins (Kolmogorov-Smirnov).

    Args:
        before: Counts, at least one above 0.
        after: Counts over the same bins.

    Returns:
        0 (alike) to 1 (apart); never more than the distance of the values themselves.

    Raises:
        MetricUndefinedError: Numbers of bins differ, or a histogram is empty.
    """
    if len(before) != len(after) or not sum(before) or not sum(after):
        raise MetricUndefinedError("two histograms over the same bins are needed, none empty")
    shares = [np.cumsum(counts) / np.sum(counts) for counts in (before, after)]
    return float(np.abs(shares[0] - shares[1]).max())
