"""Two runs side by side, from their folders alone, and whether the comparison is fair."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from governance.evidence.documents import MetricResult, RollUp
from pipelines.differences import (
    NOTHING,
    Difference,
    MetricPair,
    code_facts,
    config_facts,
    data_facts,
    differences,
    later_openings,
    metric_pairs,
    unfair,
)
from pipelines.finished_run import FinishedRun


@dataclass(frozen=True)
class Comparison:
    """All that differs.

    Attributes:
        a: Id of the first run.
        b: Id of the second run.
        unfair: Why results of the two cannot be compared as wholes; empty when they can.
        config: Configuration values.
        data: Digests and sizes of data set and partitions.
        code: Versions, commit, generator and policy.
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
        """The comparison as JSON data."""
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
    """Compare two finished runs; every file read is compared with its digest.

    Raises:
        ConfigError: One is no finished run.
        EvidenceError: A file is missing or is not the one on record.
    """
    a, b = FinishedRun(a_dir), FinishedRun(b_dir)
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


def _judgement(run: FinishedRun) -> dict[str, Any]:
    rollup = run.required(RollUp)
    return {"policy": f"{rollup.policy} {rollup.policy_version}", "gate": rollup.gate.value}


def as_text(comparison: Comparison) -> str:
    """The comparison for people."""
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
