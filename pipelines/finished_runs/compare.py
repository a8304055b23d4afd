"""Compares two runs: configuration, data, code, item statuses and metrics."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from governance.evidence.folder import RunFolder
from governance.records.base import TEST
from governance.records.dataset import DatasetIdentity
from governance.records.errors import EvidenceError
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.partition import SealRecord, SplitRecord
from governance.records.policy import Policy
from governance.records.rollup import RollUp
from governance.records.run import Plan
from governance.records.training import TrainingRecord

_PLACE_KEYS = frozenset({"workspace"})  # the place of a run, no setting of it
_LINEAGE_KEYS = "lineage."  # facts about a run, no settings of it
NOTHING = "none"
CHECKPOINT = "checkpoint, sha256"


@dataclass(frozen=True)
class Difference:
    """A value that differs, with the text of it in both runs."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class MetricPair:
    """One metric as both runs measured it.

    Attributes:
        name: Family and extractor, with the subgroup: the same measurement at any n.
        a: Result of the first run; None when it has none.
        b: Result of the second run; None when it has none.
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
        """Text on whether the 95 % intervals overlap; "" when one is not known."""
        if self.a is None or self.b is None or not self.a.ci95 or not self.b.ci95:
            return ""
        overlap = self.a.ci95[0] <= self.b.ci95[1] and self.b.ci95[0] <= self.a.ci95[1]
        return "intervals overlap" if overlap else "intervals do not overlap"


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the values that differ, in the order of the first run."""
    return tuple(
        Difference(name, _text(a.get(name, NOTHING)), _text(b.get(name, NOTHING)))
        for name in [*a, *(name for name in b if name not in a)]
        if a.get(name, NOTHING) != b.get(name, NOTHING)
    )


def _text(value: Any) -> str:
    return NOTHING if value is None else str(value)


def config_facts(run: RunFolder) -> dict[str, Any]:
    """Return the configuration by dotted key, without workspace and lineage."""
    return {
        key: value
        for key, value in run.flat_config().items()
        if key not in _PLACE_KEYS and not key.startswith(_LINEAGE_KEYS)
    }


def data_facts(run: RunFolder) -> dict[str, Any]:
    """Return digests and sizes of data set and partitions, by name."""
    dataset, split = run.get(DatasetIdentity), run.get(SplitRecord)
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
    seal = run.get(SealRecord)
    if seal is not None:
        facts[f"{TEST}, Merkle root with labels"] = seal.merkle_root
    return facts


def code_facts(run: RunFolder) -> dict[str, Any]:
    """Return versions, commit, generator, checkpoint and criteria, by name."""
    training = run.get(TrainingRecord)
    return {
        "medisynth-gov": run.identity.tool_version,
        "commit": run.identity.code_commit,
        "uncommitted changes": {None: "unknown", True: "no", False: "yes"}[run.identity.code_clean],
        "generator": run.identity.generator,
        "recipe": training.recipe if training else None,
        CHECKPOINT: training.checkpoint_sha256 if training else None,
        **_criteria(run),
    }


def _criteria(run: RunFolder) -> dict[str, str]:
    """Return the frozen criteria of a run: one with softer limits did not do better."""
    plan = run.get(Plan)
    if plan is None:
        return {}
    try:
        items = Policy.model_validate(plan.policy).items
    except ValidationError as error:
        raise EvidenceError(
            f"{run.path / 'plan.json'}: its policy is not readable; use the version that wrote it"
        ) from error
    return {
        f"criterion of {item.id}": f"{item.criterion.operator} {item.criterion.value}"
        for item in items
        if item.criterion is not None
    }


def unfair(a: RunFolder, b: RunFolder, data: tuple[Difference, ...]) -> tuple[str, ...]:
    """Return why results of two runs cannot be compared as wholes; empty when they can."""
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
        if run.get(EvaluationRecord) is None
    ]
    return tuple(reasons)


def later_openings(a: RunFolder, b: RunFolder) -> tuple[str, ...]:
    """Return a sentence for each run whose test set had been opened before."""
    openings = ((run, run.get(EvaluationRecord)) for run in (a, b))
    return tuple(
        f"run {run.identity.run_id} opened the held-out test set as "
        f"{evaluation.opening.label!r}: later openings favour what was tuned to it"
        for run, evaluation in openings
        if evaluation is not None
        and evaluation.opening is not None
        and evaluation.opening.label != "confirmatory"
    )


def metric_pairs(
    a: RunFolder, b: RunFolder, names: tuple[str, str] = ("run A", "run B")
) -> tuple[MetricPair, ...]:
    """Return the metrics of two runs side by side."""
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


def _metrics(run: RunFolder) -> dict[str, MetricResult]:
    """Return metrics by family and subgroup, not by id: n and extractor in it may differ."""
    evaluation = run.get(EvaluationRecord)
    found: dict[str, MetricResult] = {}
    for metric in evaluation.metrics if evaluation else ():
        name = " ".join(filter(None, (metric.title or metric.id, metric.subgroup)))
        found[name if name not in found else f"{name} ({metric.id})"] = metric
    return found


def why_unfair(
    a: MetricResult | None, b: MetricResult | None, names: tuple[str, str] = ("run A", "run B")
) -> tuple[str, ...]:
    """Return why two values of one metric cannot be compared; empty when they can."""
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
        ("choice of synthetic images", a.synthetic_from, b.synthetic_from),
    )
    return tuple(
        f"other {name}: {x or NOTHING} and {y or NOTHING}" for name, x, y in named if x != y
    )


@dataclass(frozen=True)
class Comparison:
    """Everything in which two runs differ.

    Attributes:
        a: Id of the first run.
        b: Id of the second run.
        unfair: Why results of the two cannot be compared as wholes; empty when they can.
        config: Configuration values that differ.
        data: Digests and sizes of data set and partitions that differ.
        code: Versions, commit, generator and policy that differ.
        items: Items of the policy whose status differs.
        n_items: Items that both runs have.
        metrics: Metrics side by side.
    """

    a: str
    b: str
    unfair: tuple[str, ...]
    config: tuple[Difference, ...]
    data: tuple[Difference, ...]
    code: tuple[Difference, ...]
    items: tuple[Difference, ...]
    n_items: int
    metrics: tuple[MetricPair, ...]

    def facts(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        facts = asdict(self)
        facts["metrics"] = [
            {
                "name": pair.name,
                "a": pair.a.model_dump(mode="json") if pair.a else None,
                "b": pair.b.model_dump(mode="json") if pair.b else None,
                "intervals": pair.intervals or None,
                "unfair": list(pair.unfair),
            }
            for pair in self.metrics
        ]
        facts["is_fair"] = self.is_fair
        return facts

    @property
    def is_fair(self) -> bool:
        """Whether every value that both runs measured can be compared."""
        measured = [pair for pair in self.metrics if pair.is_measured_twice]
        return not self.unfair and not any(pair.unfair for pair in measured)


def compare_runs(a_dir: Path, b_dir: Path) -> Comparison:
    """Compare two finished runs; every file that is read is checked against its digest.

    Raises:
        ConfigError: One is no finished run.
        EvidenceError: A file is missing or is not the one on record.
    """
    a, b = RunFolder.finished(a_dir), RunFolder.finished(b_dir)
    data = differences(data_facts(a), data_facts(b))
    config = differences(config_facts(a), config_facts(b))
    statuses = [{k: r.status.value for k, r in run.records().items()} for run in (a, b)]
    return Comparison(
        a=a.identity.run_id,
        b=b.identity.run_id,
        unfair=(*unfair(a, b, data), *later_openings(a, b)),
        config=config,
        data=data,
        code=differences(code_facts(a) | _judgement(a), code_facts(b) | _judgement(b)),
        items=differences(*statuses),
        n_items=len(set(statuses[0]) & set(statuses[1])),
        metrics=metric_pairs(a, b),
    )


def _judgement(run: RunFolder) -> dict[str, Any]:
    rollup = run.need(RollUp)
    return {"policy": f"{rollup.policy} {rollup.policy_version}", "gate": rollup.gate.value}


def as_text(comparison: Comparison) -> str:
    """Return the comparison as text for the screen."""
    lines = [f"A  {comparison.a}", f"B  {comparison.b}"]
    if comparison.unfair:
        lines.append("not a fair comparison:")
        lines += [f"  {reason}" for reason in comparison.unfair]
    for title, found in (
        ("configuration", comparison.config),
        ("data", comparison.data),
        ("code", comparison.code),
        (f"statuses of {comparison.n_items:,} items", comparison.items),
    ):
        lines.append(f"{title}: {'no difference' if not found else ''}".rstrip())
        lines += [f"  {one.name}: {_short(one.a)} | {_short(one.b)}" for one in found]
    lines.append("metrics (value, 95 % interval):" if comparison.metrics else "metrics: none")
    for pair in comparison.metrics:
        lines.append(f"  {pair.name}: {_value(pair.a)} | {_value(pair.b)}")
        if pair.unfair:
            lines.append(f"    not comparable: {'; '.join(pair.unfair)}")
        elif pair.intervals:
            lines.append(f"    {pair.intervals}")
    return "\n".join(lines)


def _short(text: str) -> str:
    is_digest = len(text) == 64 and not set(text) - set("0123456789abcdef")
    return f"sha256:{text[:12]}" if is_digest else text[:80]


def _value(metric: MetricResult | None) -> str:
    if metric is None:
        return NOTHING
    if metric.value is None:
        return "not evaluated"
    interval = f" [{metric.ci95[0]:.4g}, {metric.ci95[1]:.4g}]" if metric.ci95 else ""
    return f"{metric.value:.4g}{interval}, n {metric.n_real:,}/{metric.n_synthetic:,}"
