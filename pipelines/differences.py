"""What two runs have in common and what differs, fact by fact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from governance.errors import EvidenceError
from governance.evidence.documents import (
    TEST,
    DatasetIdentity,
    EvaluationRecord,
    MetricResult,
    Plan,
    SealRecord,
    SplitRecord,
    TrainingRecord,
)
from governance.policies.model import Policy
from pipelines.finished_run import RunFiles

_PLACE_KEYS = frozenset({"workspace"})  # where a run lies, not what it does
_LINEAGE_KEYS = "lineage."  # what is said of a run, not what it does
NOTHING = "none"
CHECKPOINT = "checkpoint, sha256"


@dataclass(frozen=True)
class Difference:
    """Something that is not equal, as both runs have it."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class MetricPair:
    """One metric as both runs measured it.

    Attributes:
        name: Family and extractor, with the subgroup: the same measurement at any n.
        a: In the first run; None when it has none.
        b: In the second run; None when it has none.
        unfair: Why the two values cannot be compared; empty when they can.
    """

    name: str
    a: MetricResult | None
    b: MetricResult | None
    unfair: tuple[str, ...]

    @property
    def is_measured_twice(self) -> bool:
        """Whether both runs have a value."""
        return None not in (self.a and self.a.value, self.b and self.b.value)

    @property
    def intervals(self) -> str:
        """Whether the 95 % intervals overlap, in words; "" when one is not known."""
        if self.a is None or self.b is None or not self.a.ci95 or not self.b.ci95:
            return ""
        overlap = self.a.ci95[0] <= self.b.ci95[1] and self.b.ci95[0] <= self.a.ci95[1]
        return "intervals overlap" if overlap else "intervals do not overlap"


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Names whose values are not equal, in the order of the first run."""
    return tuple(
        Difference(name, _text(a.get(name, NOTHING)), _text(b.get(name, NOTHING)))
        for name in [*a, *(name for name in b if name not in a)]
        if a.get(name, NOTHING) != b.get(name, NOTHING)
    )


def _text(value: Any) -> str:
    return NOTHING if value is None else str(value)


def config_facts(run: RunFiles) -> dict[str, Any]:
    """Every value of the configuration that says what the run does, by its dotted key."""
    return {
        key: value
        for key, value in run.flat_config().items()
        if key not in _PLACE_KEYS and not key.startswith(_LINEAGE_KEYS)
    }


def data_facts(run: RunFiles) -> dict[str, Any]:
    """Digests and sizes of data set and partitions."""
    dataset, split = run.document(DatasetIdentity), run.document(SplitRecord)
    facts: dict[str, Any] = {}
    if dataset is not None:
        facts |= {
            "data set": dataset.name,
            "version": dataset.version,
            "images selected, sha256": dataset.content_sha256,
            "metadata file, sha256": dataset.metadata_sha256,
        }
    for part in split.partitions if split else ():
        facts |= {
            f"{part.partition}, sha256": part.sha256,
            f"{part.partition}, images": part.n_images,
            f"{part.partition}, patients": part.n_patients,
        }
    seal = run.document(SealRecord)
    if seal is not None:
        facts[f"{TEST}, Merkle root with labels"] = seal.merkle_root
    return facts


def code_facts(run: RunFiles) -> dict[str, Any]:
    """Versions, commit, generator, checkpoint and criteria."""
    training = run.document(TrainingRecord)
    return {
        "medisynth-gov": run.identity.tool_version,
        "commit": run.identity.code_commit,
        "uncommitted changes": {None: "unknown", True: "no", False: "yes"}[run.identity.code_clean],
        "generator": run.identity.generator,
        "recipe": training.recipe if training else None,
        CHECKPOINT: training.checkpoint_sha256 if training else None,
        **_criteria(run),
    }


def _criteria(run: RunFiles) -> dict[str, str]:
    """Frozen criteria of both runs: a run that met a softer limit did not do better."""
    plan = run.document(Plan)
    if plan is None:
        return {}
    try:
        items = Policy.model_validate(plan.policy).items
    except ValidationError as error:
        raise EvidenceError(
            f"{run.folder / 'plan.json'}: its policy is not readable; use the version that wrote it"
        ) from error
    return {
        f"criterion of {item.id}": f"{item.criterion.operator} {item.criterion.value}"
        for item in items
        if item.criterion is not None
    }


def unfair(a: RunFiles, b: RunFiles, data: tuple[Difference, ...]) -> tuple[str, ...]:
    """Why results of two runs cannot be compared as wholes; empty when they can."""
    reasons = []
    parts = {
        "images selected, sha256": "the data sets differ",
        f"{TEST}, sha256": "the held-out test sets differ",
        f"{TEST}, Merkle root with labels": "images or labels of the held-out test sets differ",
    }
    reasons += [words for name, words in parts.items() if name in {d.name for d in data}]
    reasons += [
        f"run {run.identity.run_id} was not evaluated"
        for run in (a, b)
        if run.document(EvaluationRecord) is None
    ]
    return tuple(reasons)


def later_openings(a: RunFiles, b: RunFiles) -> tuple[str, ...]:
    """Which of two runs did not open its held-out test set for the first time, in words."""
    openings = ((run, run.document(EvaluationRecord)) for run in (a, b))
    return tuple(
        f"run {run.identity.run_id} opened the held-out test set as "
        f"{evaluation.opening.label!r}: later openings favour what was tuned to it"
        for run, evaluation in openings
        if evaluation is not None
        and evaluation.opening is not None
        and evaluation.opening.label != "confirmatory"
    )


def metric_pairs(
    a: RunFiles, b: RunFiles, names: tuple[str, str] = ("run A", "run B")
) -> tuple[MetricPair, ...]:
    """Metrics of two runs side by side."""
    first, second = _metrics(a), _metrics(b)
    return tuple(
        MetricPair(
            name,
            first.get(name),
            second.get(name),
            why_unfair(first.get(name), second.get(name), names),
        )
        for name in [*first, *(name for name in second if name not in first)]
    )


def _metrics(run: RunFiles) -> dict[str, MetricResult]:
    """Metrics by family and subgroup; the id carries n and extractor, which may differ."""
    evaluation = run.document(EvaluationRecord)
    found: dict[str, MetricResult] = {}
    for metric in evaluation.metrics if evaluation else ():
        name = " ".join(filter(None, (metric.title or metric.id, metric.subgroup)))
        found[name if name not in found else f"{name} ({metric.id})"] = metric
    return found


def why_unfair(
    a: MetricResult | None, b: MetricResult | None, names: tuple[str, str] = ("run A", "run B")
) -> tuple[str, ...]:
    """Why two values of one metric, of runs by these names, cannot be compared; empty when they can."""
    if a is None or b is None:
        return ("measured in one run only",)
    reasons = [
        f"not evaluated in {which}: {metric.reason or 'no reason given'}"
        for which, metric in zip(names, (a, b), strict=True)
        if metric.value is None
    ]
    if reasons:
        return tuple(reasons)
    named = (
        ("real images", a.n_real, b.n_real),
        ("synthetic images", a.n_synthetic, b.n_synthetic),
        ("patients", a.n_patients, b.n_patients),
        ("reference partition", a.partition, b.partition),
        ("extractor", a.extractor, b.extractor),
        ("extractor weights", a.extractor_sha256[:12], b.extractor_sha256[:12]),
        ("features", a.n_features, b.n_features),
        ("resizing", a.resize, b.resize),
    )
    return tuple(
        f"other {name}: {x or NOTHING} and {y or NOTHING}" for name, x, y in named if x != y
    )
