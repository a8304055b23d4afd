"""The fingerprint that later data and later runs are compared with."""

from governance.evidence.documents.base import Document, Sha256
from governance.evidence.documents.evaluation import MetricResult


class ImageStatistic(Document):
    """One statistic over images, as a histogram of equal bins.

    Attributes:
        name: Statistic, e.g. "mean_intensity".
        unit: Its unit; "" when it has none.
        low: Lower end of the first bin; high: upper end of the last. Values beyond are counted in
            the first and the last bin.
        counts: Images in each bin.
        mean: Mean over images; sd: standard deviation over images.
    """

    name: str
    unit: str
    low: float
    high: float
    counts: tuple[int, ...]
    mean: float
    sd: float


class FeatureStatistics(Document):
    """Features of training images in summary.

    Attributes:
        extractor: Feature extractor; extractor_sha256: digest of its weights.
        n_images: Images behind it.
        mean: Mean of each feature; sd: its standard deviation; both to six significant digits.
        total_variance: Trace of the covariance.
        leading_variances: Largest eigenvalues of the covariance, largest first.
    """

    extractor: str
    extractor_sha256: Sha256
    n_images: int
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    total_variance: float
    leading_variances: tuple[float, ...]


class Baseline(Document):
    """What a later run or new data can be held against (metrics/baseline.json).

    Attributes:
        partition: Partition that images and features are of.
        view_sha256: Digest of the view.
        n_images: Images behind the image statistics; n_patients: their patients.
        image_size_px: Side of the squares that the statistics are of.
        images: Statistics of the images.
        features: Statistics of their features; None when they were not extracted.
        metrics: Evaluated metrics of the released generator, with intervals.
        reason: Why features or metrics lack; "" when nothing does.
    """

    partition: str
    view_sha256: Sha256
    n_images: int
    n_patients: int
    image_size_px: int
    images: tuple[ImageStatistic, ...]
    features: FeatureStatistics | None
    metrics: tuple[MetricResult, ...]
    reason: str = ""
