"""A run in a few lines: its boxes, its three worst findings, and KID beside floor and controls."""

from collections.abc import Mapping
from dataclasses import dataclass

from governance.evidence.folder import RunFolder
from governance.records.base import ItemClass, ItemStatus
from governance.records.comparison import Control
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.item import ItemRecord
from governance.records.rollup import RollUp
from governance.verdict.boxes import VerdictBox, verdict_boxes
from governance.verdict.sentence import plain, short_title

_MOST_FINDINGS = 3
_REASON_CHARACTERS = 160
_OUTRANKS = {ItemStatus.FAILED: 0, ItemStatus.MISSING: 1, ItemStatus.NOT_EVALUATED: 2}
_CLASSES = (ItemClass.CORE, ItemClass.REQUIRED)
# Controls that show what a metric does, not what an easy generator reaches.
_NO_RIVALS = frozenset({"copycat", "augmentation"})


@dataclass(frozen=True)
class Headline:
    """What a run comes down to.

    Attributes:
        boxes: The three boxes of the verdict, worst first.
        findings: At most three failed or unknown items, worst first; gate items before others.
        kid: KID with its interval, the floor and the best control; "" where it was not measured.
        further: "KID, NAME" for each further feature extractor, and the same words on it.
    """

    boxes: tuple[VerdictBox, ...]
    findings: tuple[str, ...]
    kid: str
    further: tuple[tuple[str, str], ...] = ()


def headline(folder: RunFolder) -> Headline:
    """Return the headline of a run that came to its end; errors as `RunFolder.need`."""
    summary, records = folder.need(RollUp), folder.records()
    return Headline(
        verdict_boxes(summary, records),
        worst_findings(summary, records),
        kid_words(folder.get(EvaluationRecord)),
        further_words(folder.get(EvaluationRecord)),
    )


def worst_findings(summary: RollUp, records: Mapping[str, ItemRecord]) -> tuple[str, ...]:
    """Name the computed items that weigh most: gate items first, then failed before unknown."""
    in_gate = {line.item_id for line in summary.gate_items}
    found = [r for r in records.values() if r.kind == "computed" and r.status in _OUTRANKS]
    found = [r for r in found if r.item_class in _CLASSES and _is_worth_naming(r, in_gate)]
    found.sort(
        key=lambda r: (
            r.id not in in_gate,
            _OUTRANKS[r.status],
            _CLASSES.index(r.item_class),
            r.id,
        )
    )
    return tuple(_finding(record) for record in found[:_MOST_FINDINGS])


def _is_worth_naming(record: ItemRecord, in_gate: set[str]) -> bool:
    """An item that is merely unknown is named only where the gate asks for it."""
    return record.status is not ItemStatus.NOT_EVALUATED or record.id in in_gate


def _finding(record: ItemRecord) -> str:
    reason = plain(record.reason)
    if len(reason) > _REASON_CHARACTERS:
        reason = reason[:_REASON_CHARACTERS].rsplit(" ", 1)[0] + " …"
    name = f"{record.id} {short_title(record.title)} ({record.item_class.word})"
    return f"{name}: {record.status.value}{f'; {reason}' if reason else ''}"


def kid_of(evaluation: EvaluationRecord | None) -> MetricResult | None:
    """Return KID of all synthetic images to the held-out ones; None where there is no value."""
    metrics = evaluation.metrics if evaluation else ()
    found = (m for m in metrics if m.id.startswith("kid-") and not m.subgroup)
    return next((m for m in found if m.value is not None), None)


def kid_words(evaluation: EvaluationRecord | None) -> str:
    """Say KID beside its floor and the best control, "" where it was not measured."""
    metric = kid_of(evaluation)
    if evaluation is None or metric is None:
        return ""
    return _words(metric, evaluation.controls)


def further_words(evaluation: EvaluationRecord | None) -> tuple[tuple[str, str], ...]:
    """Say the same by each further extractor, or why its KID is not evaluated."""
    return tuple(
        (
            f"KID, {one.name}",
            _words(one.metric, one.controls) or f"not evaluated: {one.metric.reason}",
        )
        for one in (evaluation.extractors if evaluation else ())
    )


def in_one_line(evaluation: EvaluationRecord | None) -> str:
    """Set KID by all feature extractors side by side; "" where there is but one."""
    if evaluation is None or not evaluation.extractors:
        return ""
    known = [("FID network", kid_of(evaluation), evaluation.controls)]
    known += [(one.name, one.metric, one.controls) for one in evaluation.extractors]
    words = []
    for name, metric, controls in known:
        if metric is None or metric.value is None:
            words.append(f"{name} not evaluated")
            continue
        beside = [] if metric.floor is None else [f"real {metric.floor:.3f}"]
        best = _best_rival(controls)
        beside += [f"{best.name} {best.value:.3f}"] if best else []
        words.append(f"{name} {metric.value:.3f} ({', '.join(beside)})")
    return f"KID by feature extractor, beside real images and the best control: {'; '.join(words)}."


def _best_rival(controls: tuple[Control, ...]) -> Control | None:
    rivals = [c for c in controls if c.metric == "kid" and c.name not in _NO_RIVALS]
    return min(rivals, key=lambda control: control.value) if rivals else None


def _words(metric: MetricResult, controls: tuple[Control, ...]) -> str:
    if metric.value is None:
        return ""
    interval = f" [{metric.ci95[0]:.3f} to {metric.ci95[1]:.3f}]" if metric.ci95 else ""
    words = f"{metric.value:.3f}{interval} (lower is better)"
    if metric.floor is not None:
        words += f"; real against real {metric.floor:.3f}"
    if best := _best_rival(controls):
        words += f"; best control, {best.name}, {best.value:.3f}"
    return words
