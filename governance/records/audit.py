"""Documents of the data set audit: correctness, completeness, coverage, consistency."""

from typing import Literal

from pydantic import Field

from governance.records.base import TEST, TRAINING, Document

Interval = tuple[float, float]

DEVELOPMENT = "training and tuning"  # of demographics, where tuning has few patients


class CoverageLevel(Document):
    """Patients and images of one level of one attribute in one partition.

    Attributes:
        attribute: E.g. "machine".
        level: E.g. "Voluson E6"; "not recorded" for images without a value.
        partition: One of PARTITIONS, or "all".
        n_patients: Patients with at least one such image; one may count in several levels.
        n_images: Such images.
        share: Share of the partition's patients, 0 to 1; None where the partition has none.
            The shares of an attribute's levels add up to more than 1 where patients have several.
        share_ci95: Wilson interval of the share, patients taken as independent.
    """

    attribute: str
    level: str
    partition: str
    n_patients: int
    n_images: int
    share: float | None = None
    share_ci95: Interval | None = None


class CoverageAudit(Document):
    """Patients and images by level of each attribute and partition (data/coverage.json)."""

    PATH = "data/coverage.json"
    ABSENCE = "the audit step did not run to its end"

    attributes: tuple[str, ...]
    levels: tuple[CoverageLevel, ...]
    completeness: dict[str, float]  # attribute -> fraction of patients with a value


class ListingSummary(Document):
    """Counts from a metadata file alone, before an image is read; `data check` prints it.

    Attributes:
        n_images: Rows, one an image.
        n_patients: Patients.
        images_per_partition: Images in each official partition, "not recorded" included.
        patients_per_partition: Patients in each official partition; one in both counts in both.
        shared_patients: Patients in both official partitions.
        rows: Patients and images per level and official partition, and in all.
        one_sided: (attribute, level, partition) of levels seen in one official partition only.
        images_per_patient: Smallest, median and largest number of images of a patient.
    """

    n_images: int
    n_patients: int
    images_per_partition: dict[str, int]
    patients_per_partition: dict[str, int]
    shared_patients: int
    rows: tuple[CoverageLevel, ...]
    one_sided: tuple[tuple[str, str, str], ...]
    images_per_patient: tuple[int, float, int]


class Concentration(Document):
    """How far the images of one class come from few patients.

    Attributes:
        attribute: "all", "plane" or "brain_plane".
        level: Level; "all" for the whole table.
        n_patients: Patients with such images.
        n_images: Such images.
        largest_patient: Patient with most of them; the first by name where several have as many.
        largest_share: That patient's share of the images, 0 to 1.
        effective_patients: Inverse Simpson index of images by patient, 1 to n_patients: as many
            patients with equally many images each would be as concentrated.
    """

    attribute: str
    level: str
    n_patients: int
    n_images: int
    largest_patient: str
    largest_share: float
    effective_patients: float


class Confounding(Document):
    """Association of two attributes over the same images.

    Attributes:
        left: Attribute.
        right: Attribute.
        v: Cramér's V over images, 0 (independent) to 1.
        p_value: Share of permutations of whole patients with a V at least as large, one added to
            both counts.
        n_permutations: Permutations.
        n_patients: Patients with both attributes.
        n_images: Images with both attributes.
        exclusive: Levels of one attribute that occur with a single level of the other,
            e.g. "operator Op. 3 only with machine Aloka".
    """

    left: str
    right: str
    v: float
    p_value: float
    n_permutations: int
    n_patients: int
    n_images: int
    exclusive: tuple[str, ...] = ()


class AttributeShift(Document):
    """Difference between two partitions in one attribute.

    Attributes:
        attribute: Attribute.
        left: Partition, or DEVELOPMENT.
        right: Partition, or DEVELOPMENT.
        total_variation: Half the sum of absolute differences of shares of patients, 0 to 1.
        ci95: Interval by patient bootstrap, or a one-sided bound by the rule of three where the
            patients of each side are all alike; None with fewer than 40 resamples.
        floor: 95th percentile of the same number when patients are dealt at random: what a split
            without any shift would show.
        one_sided: Levels that only one of the two has, e.g. "Voluson S10 only in test".
    """

    attribute: str
    left: str
    right: str
    total_variation: float
    ci95: Interval | None
    floor: float | None
    one_sided: tuple[str, ...] = ()

    @property
    def is_training_to_test(self) -> bool:
        """Whether training, alone or with tuning, is compared with the held-out test set."""
        sides = {self.left, self.right}
        return TEST in sides and bool(sides & {TRAINING, DEVELOPMENT})


class QuantityLevel(Document):
    """Distribution of one number over images or patients of one partition.

    Attributes:
        quantity: Column, e.g. "mean_intensity", "head_circumference_mm".
        unit: E.g. "grey levels", "mm"; "" for none.
        partition: One of PARTITIONS, or "all".
        n_images: Images with a value.
        n_patients: Patients with a value.
        quantiles: Values at 0, 1, 5, 25, 50, 75, 95, 99 and 100 per cent.
        n_outliers: Images beyond three interquartile ranges from the quartiles of all images; 0
            where these quartiles are equal, since they then give no scale.
        outliers: At most 20 of their ids, farthest first.
    """

    quantity: str
    unit: str
    partition: str
    n_images: int
    n_patients: int
    quantiles: tuple[float, ...]
    n_outliers: int = 0
    outliers: tuple[str, ...] = ()


class DatasetAudit(Document):
    """Concentration, confounding, shift and image quality (data/audit.json).

    `shifts` is empty until the partitions are known.
    """

    PATH = "data/audit.json"
    ABSENCE = "the audit step did not run to its end"

    concentration: tuple[Concentration, ...]
    confounding: tuple[Confounding, ...]
    quality: tuple[QuantityLevel, ...]
    shifts: tuple[AttributeShift, ...] = ()
    n_resamples: int = 0
    seed: int = 0


class DeclaredAttribute(Document):
    """A demographic or clinical attribute that the contract declares.

    Attributes:
        name: E.g. "maternal age", "gestational age".
        column: Column of the metadata file.
        kind: "category" or "number".
        unit: Unit of a number; "" for a category.
        is_proxy: True when the column only stands in for the attribute.
        note: How it was recorded, or what the proxy cannot show.
        completeness: Share of patients with a value, 0 to 1.
    """

    name: str
    column: str
    kind: Literal["category", "number"]
    unit: str
    is_proxy: bool
    note: str
    completeness: float


class DemographicCell(Document):
    """Patients of one level, or of one combination of levels, in one partition.

    Attributes:
        attributes: One or two attribute names.
        levels: Level of each.
        partition: One of PARTITIONS, DEVELOPMENT, or "all".
        n_patients: None when the cell is suppressed.
        share: Share of the partition's patients with values; None when suppressed or undefined.
        share_ci95: Wilson interval.
    """

    attributes: tuple[str, ...]
    levels: tuple[str, ...]
    partition: str
    n_patients: int | None
    share: float | None = None
    share_ci95: Interval | None = None


class TargetDistance(Document):
    """Distance of the data set to the declared target population in one attribute.

    Attributes:
        attribute: Attribute.
        total_variation: Half the sum of absolute differences of shares, 0 to 1.
        ci95: Interval by patient bootstrap, or a one-sided bound by the rule of three where all
            patients are alike.
        n_patients: Patients with a value.
        source: Where the target's shares come from, as declared.
        widest: Level with the largest difference, and both shares.
        shares: Level -> share in the target, 0 to 1; empty in older records.
    """

    attribute: str
    total_variation: float
    ci95: Interval
    n_patients: int
    source: str
    widest: str
    shares: dict[str, float] = Field(default_factory=dict)


class MissingCombination(Document):
    """Two levels that no patient has together, although chance would hardly leave them out.

    Attributes:
        attributes: Two attributes, neither of which decides the other.
        levels: Level of each.
        partition: TRAINING or DEVELOPMENT, or "all" where no partition has the combination.
        expected: Patients expected were the two attributes independent.
        p_value: Probability of none by chance, given how often each level occurs.
    """

    attributes: tuple[str, str]
    levels: tuple[str, str]
    partition: str
    expected: float
    p_value: float


class DemographicsAudit(Document):
    """Demographic and clinical attributes of the patients, as declared (data/demographics.json).

    Attributes:
        declared: Attributes that the contract declares.
        undeclared: Names of the usual attributes that it does not declare.
        cells: Levels of each attribute and, for pairs of attributes, combinations of levels.
        numbers: Distributions of attributes that are numbers, by partition.
        smallest_cell: Cells below this number of patients are suppressed.
        n_suppressed: Cells suppressed, complementary ones included.
        target_name: Declared target population; "" when none is declared.
        distances: Distance to it, one an attribute.
        not_compared: Attributes of the target that the data set lacks, with the reason.
        missing_combinations: Combinations of levels that are missing; None where an older version
            did not look for them.
    """

    PATH = "data/demographics.json"
    ABSENCE = "the audit step did not run to its end"

    declared: tuple[DeclaredAttribute, ...]
    undeclared: tuple[str, ...]
    cells: tuple[DemographicCell, ...]
    numbers: tuple[QuantityLevel, ...]
    smallest_cell: int
    n_suppressed: int
    target_name: str = ""
    distances: tuple[TargetDistance, ...] = ()
    not_compared: tuple[str, ...] = ()
    missing_combinations: tuple[MissingCombination, ...] | None = None


class SuspectedLabel(Document):
    """An image whose label is contradicted by the other patients' images.

    Attributes:
        image_id: Image.
        given: Label as recorded.
        suggested: Most probable label.
        probability_of_given: Probability of the recorded label, 0 to 1, by a model that has seen
            no image of this patient.
    """

    image_id: str
    given: str
    suggested: str
    probability_of_given: float


class LabelAudit(Document):
    """Suspected label errors among training images (data/labels.json).

    Attributes:
        label: Attribute audited, e.g. "brain_plane"; "" when none could be.
        method: Features, model, folds and library with its version.
        n_images: Training images with a label.
        n_patients: Their patients.
        classes: Class -> images.
        balanced_accuracy: Of the cross-validated model, 0 to 1; None when not computed.
        n_suspected: Images suspected.
        rate_ci95: 95 % interval of their share of the images judged, exact at the effective number
            of images (by patient); None when not computed.
        suspects: Most suspect first; at most 200.
        reason: Why nothing was computed; empty otherwise.
        effect: How far the suspected labels could move the headline metrics.
        reviewed: Who reviewed the list, or where the review is found; "" when nobody did.
    """

    PATH = "data/labels.json"
    ABSENCE = "the split step did not run to its end"

    label: str
    method: str
    n_images: int
    n_patients: int
    classes: dict[str, int]
    balanced_accuracy: float | None
    n_suspected: int
    rate_ci95: Interval | None
    suspects: tuple[SuspectedLabel, ...]
    reason: str = ""
    effect: str = ""
    reviewed: str = ""
