"""Result of the downstream tasks: what synthetic images add for unseen real patients."""

from governance.records.base import Document

REAL, ADDED = "real", "real + synthetic"  # the arms whose difference item P8-04 judges
MACRO_F1, AUROC = "macro F1", "AUROC"  # the latter: mean over one level against the rest


class TaskMeasure(Document):
    """One measure of one arm on the held-out patients.

    Attributes:
        name: `MACRO_F1` or `AUROC`.
        value: The measure, 0 to 1; of a learning curve, its mean over the draws.
        ci95: 95 % interval by patient bootstrap; None without one.
        difference: Value less that of the arm "real" on the same images; None for that arm itself.
        difference_ci95: Interval of the difference; the same patients are resampled in both arms.
    """

    name: str
    value: float
    ci95: tuple[float, float] | None = None
    difference: float | None = None
    difference_ci95: tuple[float, float] | None = None


class Arm(Document):
    """A classifier's training images, and how it did.

    Attributes:
        name: One of `medisynth.utility.classification.ARMS`.
        meaning: Its images, for people.
        n_real: Real training images; n_other: images that were added or stand in their place.
        penalty: Strength of the penalty on the weights that did best on the tuning view.
        measures: Measures on the held-out test set.
        subgroups: Macro F1 of each level of other attributes with enough patients, as
            ("attribute=level", patients, value).
    """

    name: str
    meaning: str
    n_real: int
    n_other: int
    penalty: float
    measures: tuple[TaskMeasure, ...]
    subgroups: tuple[tuple[str, int, float], ...] = ()

    def measure(self, name: str) -> TaskMeasure:
        """Return a measure by name; KeyError where there is none."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)


class CurvePoint(Document):
    """A point of a learning curve.

    Attributes:
        share: Share of the real training patients, 0 to 1.
        arm: "real" or "real + synthetic".
        n_patients: Real training patients; n_draws: draws of as many patients.
        values: Macro F1 on the held-out test set, one for each draw.
    """

    share: float
    arm: str
    n_patients: int
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """Return the mean over the draws."""
        return sum(self.values) / len(self.values)


class UtilityRecord(Document):
    """Classification of real held-out images by classifiers of different training images.

    Attributes:
        task: Title for people.
        attribute: What is told apart: "brain_plane" or "machine"; "" where nothing was.
        levels: Its levels.
        labels_from: How synthetic images got their label.
        arms: One for each set of training images, "real" first; empty where nothing was evaluated.
        curve: Learning curve: shares of the real training patients with and without synthetic images.
        n_test: Held-out images judged; n_test_patients: their patients.
        n_training_patients: Real training patients.
        method: Classifier, choice of its penalty, intervals.
        extractor: Feature extractor; extractor_sha256: digest of its weights.
        seed: Seed of draws and resampling.
        duration_s: Seconds taken by features and classifiers.
        reason: Why nothing was evaluated, or a caution; "" for neither.
    """

    PATH = "metrics/utility.json"
    ABSENCE = "no downstream task was evaluated"

    task: str
    attribute: str = ""
    levels: tuple[str, ...] = ()
    labels_from: str = ""
    arms: tuple[Arm, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    n_test: int = 0
    n_test_patients: int = 0
    n_training_patients: int = 0
    method: str = ""
    extractor: str = ""
    extractor_sha256: str = ""
    seed: int = 0
    duration_s: float = 0.0
    reason: str = ""

    def arm(self, name: str) -> Arm | None:
        """Return an arm by name; None where it was not evaluated."""
        return next((arm for arm in self.arms if arm.name == name), None)
