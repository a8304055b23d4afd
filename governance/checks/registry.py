"""The registry of checks, and the item records made from their results.

A check is a pure function of a run's documents and one criterion. It computes one item of the
policy. An absent document gives NOT_EVALUATED with a reason, never a pass or a failure.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from statistics import fmean, stdev
from typing import Literal

from pydantic import ValidationError

from governance.checks.judged_run import JudgedRun
from governance.evidence.folder import RunFolder
from governance.people.rules import human_result
from governance.records.audit import CoverageAudit
from governance.records.base import PARTITIONS, TEST, TRAINING, Document, ItemStatus
from governance.records.errors import EvidenceError, NotRunError, PolicyError
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.item import Artifact, CheckResult, FrozenCriterion, ItemRecord, Observed
from governance.records.lineage import Lineage
from governance.records.people import Declarations
from governance.records.policy import Criterion, Item, Policy, Principle
from governance.records.run import Plan
from governance.records.training import TrainingRecord

NO_CHECK = "not implemented yet"
_NAMES_SHOWN = 5
_FROM_A_CHECK = (
    ItemStatus.PASSED,
    ItemStatus.FAILED,
    ItemStatus.RECORDED,
    ItemStatus.NOT_EVALUATED,
)

Check = Callable[[JudgedRun, Criterion], CheckResult]
Needs = Literal["", "our training", "training images"]
OUR_TRAINING: Needs = "our training"
TRAINING_IMAGES: Needs = "training images"


@dataclass(frozen=True)
class RegisteredCheck:
    """A check, and the step of the flow that writes the evidence it reads."""

    function: Check
    step: str


CHECKS: dict[str, RegisteredCheck] = {}


def check(item_id: str, *, step: str, needs: Needs = "") -> Callable[[Check], Check]:
    """Register a check under the id of the item it computes.

    Args:
        item_id: Id of a computed item, e.g. "P4-01".
        step: Step that leaves the evidence, e.g. "s4_split".
        needs: What the item says nothing without: `OUR_TRAINING`, or `TRAINING_IMAGES`. Where
            images were made elsewhere and it is missing, the item is not evaluated.

    Raises:
        PolicyError: Another check has this id.
    """

    def register(function: Check) -> Check:
        if item_id in CHECKS:
            taken = CHECKS[item_id].function.__name__
            raise PolicyError(f"{item_id}: the check {taken!r} has this id; an item has one check")

        @functools.wraps(function)
        def complete(documents: JudgedRun, criterion: Criterion) -> CheckResult:
            try:
                if needs and (why := _made_elsewhere(documents, needs)):
                    return not_evaluated(why, source=TrainingRecord)
                return function(documents, criterion)
            except NotRunError as absence:
                return not_evaluated(absence.absence)

        CHECKS[item_id] = RegisteredCheck(complete, step)
        return complete

    return register


def _made_elsewhere(documents: JudgedRun, needs: Needs) -> str:
    """Return why an item is unknown where images were made elsewhere; "" where it is known."""
    training = documents.get(TrainingRecord)
    if training is None or training.elsewhere is None:
        return ""
    if needs == OUR_TRAINING:
        return "trained elsewhere: nothing is known of how the generator was trained"
    if training.knows_training:
        return ""
    return "trained elsewhere, and the images that the generator was trained on were not given"


def not_evaluated(
    reason: str,
    *,
    observed: Observed | None = None,
    method: str = "",
    source: type[Document] | None = None,
    limitations: str = "",
) -> CheckResult:
    """Return the result of a check that could not be computed, with the reason."""
    return CheckResult(
        status=ItemStatus.NOT_EVALUATED,
        observed=observed,
        reason=reason,
        method=method,
        artifact=source.PATH if source else None,
        limitations=limitations,
    )


def judge(
    criterion: Criterion,
    observed: Observed,
    *,
    reason: str,
    method: str,
    source: type[Document],
    limitations: str = "",
    compared: float | None = None,
    holds: bool = True,
) -> CheckResult:
    """Compare an observed value with a criterion.

    Args:
        criterion: What must hold. Without a limit the result is RECORDED, never PASSED.
        observed: What was measured; the criterion's unit is filled in where it has none.
        reason: Why the status is what it is.
        method: How it was measured.
        source: Document it was read from.
        limitations: What the result does not show.
        compared: Number to compare instead of the observed value, e.g. a bound of its interval.
        holds: Whether the item's other conditions, beside the criterion, hold.
    """
    value = observed.value if compared is None else compared
    if isinstance(value, float) and not math.isfinite(value):
        return not_evaluated(f"the measured value is {value}; {reason}", source=source)
    if criterion.operator == "none" or criterion.value is None:
        status = ItemStatus.RECORDED if holds else ItemStatus.FAILED
        if status is ItemStatus.RECORDED and criterion.operator != "none":
            reason = f"{reason}; no limit is configured, so it is recorded and not judged"
    else:
        meets = holds and _meets(value, criterion)
        status = ItemStatus.PASSED if meets else ItemStatus.FAILED
    return CheckResult(
        status=status,
        observed=observed.model_copy(update={"unit": observed.unit or criterion.unit}),
        reason=reason,
        method=method,
        artifact=source.PATH,
        limitations=limitations,
    )


def _meets(value: float | int | bool | str | None, criterion: Criterion) -> bool:
    limit = criterion.value
    if criterion.operator == "==":
        # In Python True == 1: a boolean must not pass for a count, or a count for a boolean.
        return isinstance(value, bool) == isinstance(limit, bool) and value == limit
    if isinstance(value, bool | str) or value is None or limit is None:
        return False
    return value <= limit if criterion.operator == "<=" else value >= limit


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return number and noun in agreement: "1 image", "12,400 images"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """Join the first names with commas and count the rest: "a, b and 3 more"."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def judge_items(
    policy: Policy,
    folder: RunFolder,
    *,
    now: datetime,
    artifacts: Mapping[str, str],
    only: Collection[str] | None = None,
) -> tuple[ItemRecord, ...]:
    """Compute the items of a policy from the documents of a run.

    Args:
        policy: Policy in force; the same that the plan froze, when there is a plan.
        folder: What the run has left so far.
        now: Time of writing, with a time zone.
        artifacts: SHA-256 by path in the run folder.
        only: Ids to compute; None for all.

    Returns:
        One record an item, in the order of the policy; none is left out.

    Raises:
        EvidenceError: The frozen plan holds another policy, or a check returned what none may.
        PolicyError: `only` names an item that the policy does not have.
    """
    if unknown := set(only or ()) - {item.id for item in policy.items}:
        raise PolicyError(f"{min(unknown)}: the policy has no such item")
    _refuse_other_policy(policy, folder.get(Plan))
    documents = JudgedRun(folder, now)
    return tuple(
        _record(principle, item, documents, now, artifacts)
        for principle in policy.principles
        for item in principle.items
        if only is None or item.id in only
    )


def _refuse_other_policy(policy: Policy, plan: Plan | None) -> None:
    """Raise an error unless the policy to judge by is the one that was frozen."""
    if plan is None:
        return
    try:
        frozen = Policy.model_validate(plan.policy)
    except ValidationError as error:
        raise EvidenceError(
            "plan.json: its policy is not readable; rerun from the start"
        ) from error
    if frozen != policy:
        raise EvidenceError(
            "plan.json: the frozen policy differs from the one to judge by; "
            "judge by the frozen one or start a new run"
        )


def _record(
    principle: Principle,
    item: Item,
    documents: JudgedRun,
    now: datetime,
    artifacts: Mapping[str, str],
) -> ItemRecord:
    result = _result(item, documents)
    artifact = None
    if result.artifact is not None and result.artifact in artifacts:
        artifact = Artifact(path=result.artifact, sha256=artifacts[result.artifact])
    return ItemRecord(
        id=item.id,
        title=item.title,
        principle=principle.id,
        item_class=item.item_class,
        kind=item.kind,
        status=result.status,
        criterion=_frozen(item.criterion, documents),
        observed=result.observed,
        method=result.method,
        artifact=artifact,
        reason=result.reason,
        limitations=result.limitations,
        time_utc=now,
    )


def _result(item: Item, documents: JudgedRun) -> CheckResult:
    if item.kind == "human" or item.criterion is None:
        word = documents.get(Declarations)
        return human_result(item, word, documents.facts, documents.today)
    registered = CHECKS.get(item.id)
    if registered is None:
        return not_evaluated(NO_CHECK)
    result = registered.function(documents, item.criterion)
    if result.status not in _FROM_A_CHECK:
        raise EvidenceError(f"{item.id}: its check returned {result.status.value!r}; none may")
    if not result.reason:
        raise EvidenceError(f"{item.id}: its check gave no reason for {result.status.value!r}")
    return result


def _frozen(criterion: Criterion | None, documents: JudgedRun) -> FrozenCriterion | None:
    plan = documents.get(Plan)
    if criterion is None or plan is None or documents.plan_sha256 is None:
        return None
    return FrozenCriterion(
        **criterion.model_dump(),
        frozen_at=plan.frozen_utc,
        frozen_sha256=documents.plan_sha256,
    )


NOT_RECORDED = "not recorded"  # level of images without a value
NO_PARTITIONS = "counts by partition are not on record"
_PAIRS = tuple(combinations(PARTITIONS, 2))


def recorded_attributes(
    coverage: CoverageAudit, wanted: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Return the attributes, of the wanted ones or of all, with a value for some patient."""
    found = {x.attribute for x in coverage.levels if x.n_patients and x.level != NOT_RECORDED}
    return tuple(a for a in wanted or coverage.attributes if a in found)


def patients_by_level(coverage: CoverageAudit, attribute: str, partition: str) -> dict[str, int]:
    """Count the patients of each level in one partition; 0 for a level found only elsewhere."""
    counts: dict[str, int] = defaultdict(int)
    for level in coverage.levels:
        if level.attribute == attribute and level.level != NOT_RECORDED:
            counts[level.level] += level.n_patients if level.partition == partition else 0
    return counts


def by_partition(coverage: CoverageAudit) -> bool:
    """Whether training and held-out test set were counted apart, not only the whole data set."""
    return {TRAINING, TEST} <= {level.partition for level in coverage.levels if level.n_images}


def across_pairs(by_pair: dict[str, int]) -> tuple[int, list[str], str]:
    """Return the sum over partition pairs, the pairs not counted, and a text of the counts."""
    found = {frozenset(pair.split(" | ")) for pair in by_pair}
    gaps = [f"{a} | {b}" for a, b in _PAIRS if frozenset((a, b)) not in found]
    words = [f"{n:,} in {pair}" for pair, n in by_pair.items() if n]
    return sum(by_pair.values()), gaps, "; ".join(words)


def unit_note(documents: JudgedRun) -> str:
    """Return the limitation of counting by examination; empty when patients are counted."""
    if documents.unit == "patient":
        return ""
    return (
        f"Counted by {documents.unit}: the data set does not say which {documents.unit}s are of "
        "one patient."
    )


def joined(*sentences: str) -> str:
    """Join the sentences that are not empty with a space."""
    return " ".join(sentence for sentence in sentences if sentence)


LEAST_SEEDS = 3


def seed_values(lineage: Lineage) -> dict[int, float]:
    """Return the primary endpoint by seed, of runs that measured it as this run does."""
    own = lineage.seeds[-1].metric_id if lineage.seeds else ""
    return {r.seed: r.value for r in lineage.seeds if r.value is not None and r.metric_id == own}


def spread_words(lineage: Lineage) -> str:
    """Describe mean and standard deviation of the primary endpoint over seeds."""
    values = seed_values(lineage)
    if len(values) < 2:
        return f"no spread: the primary endpoint is known of {counted(len(values), 'seed')}"
    mean, sd = fmean(values.values()), stdev(values.values())
    share = f", {100 * sd / mean:.1f} % of the mean" if mean > 0 else ""
    return f"KID over {len(values)} seeds: mean {mean:.4g}, SD {sd:.3g}{share}"


def seen(metric: MetricResult) -> Observed:
    """Return a metric as the observed value of a check."""
    return Observed(
        value=metric.value,
        ci95=metric.ci95,
        n_patients=metric.n_patients,
        n_images=metric.n_real,
        partition=metric.partition,
    )


def evaluated(evaluation: EvaluationRecord) -> Sequence[MetricResult]:
    """Return the metrics that were recorded with a value."""
    return [
        metric
        for metric in evaluation.metrics
        if metric.status is ItemStatus.RECORDED and metric.value is not None
    ]


def no_metric(evaluation: EvaluationRecord) -> str:
    """Return why an evaluation holds no metric with a value."""
    reason = next((metric.reason for metric in evaluation.metrics if metric.reason), "")
    return f"no metric was evaluated{f': {reason}' if reason else ''}"


def family_of(metric: MetricResult) -> str:
    """Return the first word of a metric id: "kid" of "kid-inception_pool3-d2048-n100"."""
    return metric.id.split("-")[0].lower()


def overall_metrics(evaluation: EvaluationRecord) -> list[MetricResult]:
    """Return the metrics with a value that were computed on all images."""
    return [
        m
        for m in evaluation.metrics
        if not m.subgroup and m.status is ItemStatus.RECORDED and m.value is not None
    ]


def estimated(value: float, ci95: tuple[float, float] | None) -> str:
    """Write a value and its 95 % interval with three decimals."""
    return f"{value:.3f}" + (f" [{ci95[0]:.3f} to {ci95[1]:.3f}]" if ci95 else "")
