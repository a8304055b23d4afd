"""Results of the evaluation, and the baseline that later runs are compared with."""

from typing import Literal

from pydantic import AwareDatetime

from governance.records.base import TEST, Document, ItemStatus, Sha256
from governance.records.comparison import Control
from governance.records.training import Overlap, PretrainedComponent

Better = Literal["lower", "higher", "near floor"]


class MetricResult(Document):
    """One metric of the synthetic images, with all settings that change its value.

    Attributes:
        id: Id that carries what changes the value, e.g. "fid-inception_pool3-d2048-n100".
        title: Name for people, e.g. "Fréchet Inception distance (FID)".
        status: RECORDED or NOT_EVALUATED.
        value: The number; None when not evaluated.
        ci95: 95 % interval; None when there is none.
        interval_method: How the interval was computed; "" for the patient bootstrap.
        floor: The same metric, real training against real test images, at the same n.
        floor_ci95: Its interval.
        better: "lower", "higher" or "near floor".
        n_real: Real images; n_synthetic: synthetic images used; n_patients: patients behind n_real.
        partition: Partition that is the reference.
        subgroup: "" for all, else "attribute=level".
        synthetic_from: For a subgroup, which synthetic images were compared: drawn for its level,
            or all; "" for all images, and in older runs.
        extractor: Feature extractor; extractor_sha256: digest of its weights.
        n_features: Length of a feature vector.
        resize: How images were brought to the extractor's size.
        seed: Seed of resampling.
        reason: Why it was not evaluated, or a caution.
    """

    id: str
    title: str
    status: ItemStatus
    value: float | None = None
    ci95: tuple[float, float] | None = None
    interval_method: str = ""
    floor: float | None = None
    floor_ci95: tuple[float, float] | None = None
    better: Better = "lower"
    n_real: int = 0
    n_synthetic: int = 0
    n_patients: int = 0
    partition: str = TEST
    subgroup: str = ""
    synthetic_from: str = ""
    extractor: str = ""
    extractor_sha256: str = ""
    n_features: int = 0
    resize: str = ""
    seed: int = 0
    reason: str = ""


class FurtherExtractor(Document):
    """KID of the synthetic images by another feature extractor than the FID network.

    Attributes:
        name: Registered name; title: for people.
        sha256: Digest of its file, on record before the test set was opened; "" where none is.
        words: What came of fitting it.
        training_data: What its weights were trained on before the run; "" where it was fitted to
            the training images alone.
        overlap: Whether it was trained on images of the reference, the held-out test set.
        metric: KID with interval and floor; its reason says why it was not evaluated.
        controls: KID of the controls.
    """

    name: str
    title: str = ""
    sha256: str = ""
    words: str = ""
    training_data: str = ""
    overlap: Overlap = "unknown"
    metric: MetricResult
    controls: tuple[Control, ...] = ()

    @property
    def trained_on(self) -> str:
        """What it was trained on, in words."""
        return self.training_data or "this run's training images"


class SubgroupGap(Document):
    """The two levels of one attribute that are furthest apart in KID above the floor.

    Attributes:
        attribute: E.g. "machine".
        worst: Level with the larger distance; best: with the smaller one.
        value: Difference of KID less floor, worst less best, 0 or more.
        ci95: Its interval by patient bootstrap.
        p_value: Two-sided, from the bootstrap's standard deviation; adjusted by Holm over all
            pairs of levels of all attributes.
        n_comparisons: Number of these pairs.
    """

    attribute: str
    worst: str
    best: str
    value: float
    ci95: tuple[float, float]
    p_value: float
    n_comparisons: int


class SamplingRepeat(Document):
    """KID of images drawn from the released checkpoint with one seed."""

    seed: int
    value: float
    metric_id: str


class RobustnessLoss(Document):
    """What synthetic images lose, beyond real ones, when the held-out images are altered.

    Attributes:
        alteration: "gain", "speckle", "zoom", "rotation" or "compression".
        value: Rise of KID above the floor; 0 on average for images of the real distribution.
        ci95: Its interval by patient bootstrap.
        n_images: Held-out images altered.
    """

    alteration: str
    value: float
    ci95: tuple[float, float]
    n_images: int


class NearestPair(Document):
    """A synthetic image, its nearest training image and their relative distance."""

    synthetic: str
    training_id: str
    distance: float


class MemorisationRecord(Document):
    """Evidence on whether synthetic images copy training images.

    Attributes:
        method: Distance, size and normalisation used.
        threshold: Distance at or below which a synthetic image is flagged: 1st percentile of the
            null.
        null_median: Median distance of real tuning images to their nearest training image.
        synthetic_median: Median distance of synthetic images to their nearest training image.
        n_null: Tuning images; n_synthetic: synthetic images.
        n_flagged: Synthetic images at or below the threshold.
        share_ci95: 95 % interval of the flagged share; images are drawn independently.
        interval_method: How it was computed; "" for Wilson's, in older runs.
        null_distances: Sorted distances of the null; 500 quantiles if there are more.
        synthetic_distances: Sorted distances of the synthetic images; likewise.
        closest: The 12 closest pairs, closest first.
    """

    method: str
    threshold: float
    null_median: float
    synthetic_median: float
    n_null: int
    n_synthetic: int
    n_flagged: int
    share_ci95: tuple[float, float]
    interval_method: str = ""
    null_distances: tuple[float, ...]
    synthetic_distances: tuple[float, ...]
    closest: tuple[NearestPair, ...]


class PlantedRecall(Document):
    """How many copies of training images, altered in one way, the search for parts finds."""

    kind: str
    n: int
    n_found: int


class CopiedPartsRecord(Document):
    """Whether synthetic images show training images, whole or in part, by their speckle.

    Attributes:
        method: What is compared, and how.
        threshold: Agreement from which an image is flagged, -1 to 1.
        confirmed_from: Agreement from which it counts as a confirmed copy: halfway to 1.
        null_median: Median agreement of training images with those of other patients.
        synthetic_median: Median agreement of synthetic images with training images.
        n_null: Training images behind the threshold; n_synthetic: synthetic images searched.
        n_flagged: Flagged by this search; n_confirmed: confirmed among them.
        n_flagged_either: Flagged by this search or by the one by whole images.
        share_ci95: 95 % interval of the share flagged by either; interval_method: how.
        n_of_one_patient: Most flagged images that go back to one training patient.
        n_unseen: Tuning images searched; n_unseen_flagged: flagged though they copy nobody.
        unseen_ci95: Interval of their share.
        planted: What the search finds of altered copies.
        null_agreements: Sorted agreements of the null; synthetic_agreements: of synthetic images.
        closest: The 12 closest pairs; their distance is one minus the agreement.
    """

    method: str
    threshold: float
    confirmed_from: float
    null_median: float
    synthetic_median: float
    n_null: int
    n_synthetic: int
    n_flagged: int
    n_confirmed: int
    n_flagged_either: int
    share_ci95: tuple[float, float]
    interval_method: str
    n_of_one_patient: int
    n_unseen: int
    n_unseen_flagged: int
    unseen_ci95: tuple[float, float]
    planted: tuple[PlantedRecall, ...]
    null_agreements: tuple[float, ...]
    synthetic_agreements: tuple[float, ...]
    closest: tuple[NearestPair, ...]

    @property
    def recall(self) -> float:
        """Share of all altered copies that the search finds."""
        return sum(p.n_found for p in self.planted) / max(sum(p.n for p in self.planted), 1)


class AuthenticityRecord(Document):
    """Images nearer to a training image than its own nearest one of another patient is.

    Attributes:
        method: Distance used.
        share_nearer: Their share of the synthetic images; authenticity is one minus it.
        ci95: Its interval; interval_method: how it was computed.
        control_share: The same share of real tuning images; control_ci95: its interval.
        n_synthetic: Synthetic images; n_control: tuning images.
    """

    method: str
    share_nearer: float
    ci95: tuple[float, float]
    interval_method: str
    control_share: float
    control_ci95: tuple[float, float]
    n_synthetic: int
    n_control: int


class DataCopyingRecord(Document):
    """C_T: z-score of how much nearer to training images synthetic images lie than unseen ones.

    Attributes:
        method: Distance, cells and test.
        value: Far below 0 for copies, near 0 for images like unseen ones.
        n_cells: Cells with enough images of both kinds.
        n_synthetic: Synthetic images; n_tuning: tuning images, one of each patient.
    """

    method: str
    value: float
    n_cells: int
    n_synthetic: int
    n_tuning: int


class MembershipRecord(Document):
    """How well an attack tells training patients from others by the synthetic images.

    Attributes:
        method: What the attack goes by.
        auc: How often a training patient looks more like one than a tuning patient; 0.5 by chance.
        ci95: Its interval by patient bootstrap.
        n_training: Training patients; n_tuning: tuning patients.
    """

    method: str
    auc: float
    ci95: tuple[float, float]
    n_training: int
    n_tuning: int


class DiversityRecord(Document):
    """Variety of the synthetic images beside as many real training images.

    Attributes:
        vendi: Effective number of different synthetic images; vendi_real: of real ones.
        ms_ssim: Mean similarity of pairs of synthetic images; ms_ssim_real: of real ones. 1 is
            equal.
        n_images: Images of each kind; n_pairs: pairs compared of each.
    """

    vendi: float
    vendi_real: float
    ms_ssim: float
    ms_ssim_real: float
    n_images: int
    n_pairs: int


class Opening(Document):
    """One recorded opening of the sealed test set."""

    number: int  # counted over all runs that sealed the same set
    label: str  # "confirmatory" or "exploratory, opening k"
    purpose: str
    plan_sha256: Sha256
    model_sha256: Sha256
    opened_utc: AwareDatetime
    n_images: int


class ExternalSet(Document):
    """A test set from another source, and the same synthetic images compared with it.

    Attributes:
        name: Name in the configuration; title, adapter, licence: of the data set.
        content_sha256: Digest of the selected images.
        unit: "patient" or what stands for it.
        n_listed: Images selected; n_left_out: of them, those that this run's data hold as well.
        left_out: The first 20 of these, each with the reason.
        n_images: Images compared; n_patients: their patients.
        metrics: As for the held-out test set; the floor is this run's real training images against
            this set, so it holds the shift between the sources.
        reason: Why nothing was measured; "" where something was.
    """

    name: str
    title: str
    adapter: str
    licence: str
    content_sha256: Sha256
    unit: str
    n_listed: int
    n_left_out: int
    left_out: tuple[str, ...]
    n_images: int
    n_patients: int
    metrics: tuple[MetricResult, ...] = ()
    reason: str = ""

    @property
    def kid(self) -> MetricResult | None:
        """The kernel distance; None where it was not measured."""
        found = (m for m in self.metrics if m.id.startswith("kid-") and m.value is not None)
        return next(found, None)


class EvaluationRecord(Document):
    """All results on the synthetic images (metrics/evaluation.json).

    `pretrained` says where the weights of the feature extractors come from, for item P2-09.
    `n_test_images_in_training` counts test images whose pixels are in the training or tuning view,
    under whatever name; None where an older run did not count. `extraction_s`: seconds of loading
    the extractors and of extracting features; None in older runs. `gaps`: the largest of each
    attribute; `least_patients`: held-out patients below which a subgroup is "too few", None where
    none was measured. `repeats`: the primary endpoint with other seeds of sampling, the run's own
    first. `robustness`: one entry for each alteration of the held-out images. `membership`,
    `diversity`, `parts`, `authenticity` and `data_copying`: None where they were not measured; the
    notes say why. `external`: test sets from other sources. `extractors`: KID by other networks than
    the FID network.
    """

    PATH = "metrics/evaluation.json"
    ABSENCE = "the evaluation step did not run to its end"

    metrics: tuple[MetricResult, ...]
    memorisation: MemorisationRecord | None
    controls: tuple[Control, ...]
    opening: Opening | None
    n_synthetic_in_test: int | None
    n_test_patients_in_training: int | None
    n_test_images_in_training: int | None = None
    notes: tuple[str, ...] = ()
    pretrained: tuple[PretrainedComponent, ...] = ()
    extraction_s: float | None = None
    gaps: tuple[SubgroupGap, ...] = ()
    least_patients: int | None = None
    repeats: tuple[SamplingRepeat, ...] = ()
    robustness: tuple[RobustnessLoss, ...] = ()
    membership: MembershipRecord | None = None
    diversity: DiversityRecord | None = None
    external: tuple[ExternalSet, ...] = ()
    parts: CopiedPartsRecord | None = None
    authenticity: AuthenticityRecord | None = None
    data_copying: DataCopyingRecord | None = None
    extractors: tuple[FurtherExtractor, ...] = ()


class ImageStatistic(Document):
    """One statistic over images, as a histogram of equal bins.

    Attributes:
        name: Statistic, e.g. "mean_intensity"; sharpness is kept as log10(1 + sharpness),
            "log10_sharpness".
        unit: Its unit; "" when it has none.
        low: Lower end of the first bin; high: upper end of the last. Values beyond are counted in
            the first and the last bin.
        counts: Images in each bin.
        mean: Mean over images; sd: standard deviation over images, n - 1 in the denominator; 0 for
            one image.
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
        leading_variances: The 16 largest eigenvalues of the covariance, largest first; fewer when
            there are fewer images.
    """

    extractor: str
    extractor_sha256: Sha256
    n_images: int
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    total_variance: float
    leading_variances: tuple[float, ...]


class Baseline(Document):
    """Statistics that a later run or new data can be compared with (metrics/baseline.json).

    Attributes:
        partition: Partition that images and features are of.
        view_sha256: Digest of the view.
        n_images: Images behind the image statistics; n_patients: their patients.
        image_size_px: Side of the squares that the statistics are of.
        images: Statistics of the images.
        features: Statistics of their features; None when they were not extracted.
        metrics: Evaluated metrics of the released generator, with intervals.
        reason: Why features or metrics are missing; "" when none is.
    """

    PATH = "metrics/baseline.json"
    ABSENCE = "the evaluation step did not run to its end"

    partition: str
    view_sha256: Sha256
    n_images: int
    n_patients: int
    image_size_px: int
    images: tuple[ImageStatistic, ...]
    features: FeatureStatistics | None
    metrics: tuple[MetricResult, ...]
    reason: str = ""
