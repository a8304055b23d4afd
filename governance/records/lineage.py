"""Documents on the origin of a model: parent run, sibling runs, and what changed."""

from typing import Literal

from governance.records.base import Document, Sha256


class ParentRun(Document):
    """The parent: the latest finished run of the same model and data set.

    Attributes:
        run_id: Its id.
        evidence_root: Root of its evidence, from its manifest.
        checkpoint_path: Its released checkpoint, relative to its run folder.
        checkpoint_sha256: Digest of it on record there.
        checkpoint: Whether the file is still there with that digest.
    """

    run_id: str
    evidence_root: Sha256
    checkpoint_path: str
    checkpoint_sha256: Sha256
    checkpoint: Literal["intact", "changed", "missing"]


class DataDelta(Document):
    """Selected images of this run compared with those of the parent, by image id.

    Attributes:
        n_same: In both, with the same pixels.
        n_changed: In both, with other pixels.
        n_added: In this run only.
        n_removed: In the parent only.
    """

    n_same: int
    n_changed: int
    n_added: int
    n_removed: int

    @property
    def is_empty(self) -> bool:
        """Whether both runs have the same images."""
        return not (self.n_changed or self.n_added or self.n_removed)


class SeedRun(Document):
    """A run that differs from this one only in its seed, or this one itself.

    Attributes:
        value: Its primary endpoint, the overall KID; None where it was not measured.
        metric_id: Id of that metric; it carries what changes the value.
    """

    run_id: str
    seed: int
    value: float | None = None
    metric_id: str = ""


class Lineage(Document):
    """Origin of this model (lineage.json).

    Attributes:
        model: Registered generator name.
        data: Name of the data set.
        parent: The run before; None for a first run, or when it cannot be read (see `fault`).
        is_chosen: Whether the configuration named the parent, or that there is none.
        reason: Why the model was trained; for a first run it says so, else a person gave it.
        delta: Images of this run beside the parent's; None without a parent or its image table.
        fault: Why the parent cannot be read; "" when it can, or when there is none.
        n_runs: Finished runs of this model on this data set in the workspace, with this one.
        n_unreadable: Earlier runs of the workspace that could not be read.
        seeds: Runs of one configuration, data set and code version that differ only in their
            seed, with this one.
    """

    PATH = "lineage.json"
    ABSENCE = "no lineage is on record: no model was trained, or the run's files are damaged"

    model: str
    data: str
    parent: ParentRun | None
    is_chosen: bool
    reason: str
    delta: DataDelta | None = None
    fault: str = ""
    n_runs: int = 1
    n_unreadable: int = 0
    seeds: tuple[SeedRun, ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether this is a first run, without a parent."""
        return self.parent is None and not self.fault


class ChangedValue(Document):
    """A value that differs between the two runs, as each has it."""

    name: str
    before: str
    after: str


class ChangedMetric(Document):
    """One metric as measured in both runs.

    Attributes:
        name: Title, with the subgroup.
        subgroup: "" for all images, else "attribute=level".
        better: "lower", "higher" or "near floor".
        before: In the parent; after: in this run. None where it was not measured.
        before_ci95: Interval of each; None where there is none.
        unfair: Why the two values cannot be compared; empty when they can.
    """

    name: str
    subgroup: str
    better: Literal["lower", "higher", "near floor"]
    before: float | None
    after: float | None
    before_ci95: tuple[float, float] | None = None
    after_ci95: tuple[float, float] | None = None
    unfair: tuple[str, ...] = ()

    @property
    def intervals(self) -> str:
        """Say whether the 95 % intervals overlap; "" when one is not known."""
        if not self.before_ci95 or not self.after_ci95:
            return ""
        overlap = (
            self.before_ci95[0] <= self.after_ci95[1] and self.after_ci95[0] <= self.before_ci95[1]
        )
        return "intervals overlap" if overlap else "intervals do not overlap"


class Drift(Document):
    """Shift of one statistic of the training images from the parent's baseline.

    Attributes:
        name: Statistic, e.g. "mean_intensity".
        distance: Largest difference of the two cumulative histograms, 0 (alike) to 1.
        n_before: Images behind the parent's histogram; n_after: behind this run's.
    """

    name: str
    distance: float
    n_before: int
    n_after: int


class ChangeRecord(Document):
    """Comparison of this run with its parent (change.json); a first run has none.

    Attributes:
        parent: Id of the parent.
        config: Configuration values that differ.
        data: Digests and sizes that differ.
        code: Versions, commit, generator and criteria that differ.
        metrics: Metrics side by side.
        unfair: Why results cannot be compared as wholes; empty when they can.
        cautions: What weakens a comparison, e.g. a later opening of the test set.
        plan: Patterns of what may change, from the configuration; empty when it has none.
        outside_plan: Changes that no pattern names.
        drift: Statistics of the training images beside the parent's baseline; empty if either
            baseline is missing.
    """

    PATH = "change.json"
    ABSENCE = "no change record was written"

    parent: str
    config: tuple[ChangedValue, ...] = ()
    data: tuple[ChangedValue, ...] = ()
    code: tuple[ChangedValue, ...] = ()
    metrics: tuple[ChangedMetric, ...] = ()
    unfair: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()
    outside_plan: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()

    @property
    def n_changes(self) -> int:
        """Number of values that differ in configuration, data and code."""
        return len(self.config) + len(self.data) + len(self.code)
