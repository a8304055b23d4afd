"""Checks of principle 3: whom the data represent."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    NO_PARTITIONS,
    NOT_RECORDED,
    by_partition,
    check,
    family_of,
    joined,
    judge,
    listed,
    not_evaluated,
    patients_by_level,
    recorded_attributes,
    seen,
    unit_note,
)
from governance.records.audit import (
    DEVELOPMENT,
    CoverageAudit,
    DemographicsAudit,
    MissingCombination,
    TargetDistance,
)
from governance.records.base import TEST, TRAINING, ItemStatus
from governance.records.dataset import DatasetIdentity, FlowStep
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.item import CheckResult, Observed
from governance.records.partition import SplitRecord
from governance.records.policy import Criterion

Levels = dict[str, dict[str, tuple[int, int]]]  # attribute -> level -> images, patients
_VARIETY = ("coverage", "recall")
_CLASSES = ("plane", "brain_plane")
_BY_CHANCE = 0.05  # p above which a confounding is no more than permuted patients give
_SCOPE_ATTRIBUTES = ("machine", "plane", "brain_plane")


@check("P3-01", step="s4_split")
def completeness(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the share of patients with a value for the least complete attribute."""
    dataset, demographics = documents.need(DatasetIdentity), documents.need(DemographicsAudit)
    shares = _shares(documents.need(CoverageAudit), demographics, dataset)
    if not shares:
        return not_evaluated("no attribute is listed as recorded or absent", source=CoverageAudit)
    nowhere = [name for name, share in shares.items() if share == 0]
    partly = [f"{name} ({share:.1%})" for name, share in shares.items() if 0 < share < 1]
    words = [f"not recorded: {', '.join(nowhere)}"] if nowhere else []
    words += [f"recorded in part: {', '.join(partly)}"] if partly else []
    proxies = [f"{a.column} for {a.name}" for a in demographics.declared if a.is_proxy]
    unit = documents.unit
    return judge(
        criterion,
        Observed(value=min(shares.values()), unit=f"fraction of {unit}s"),
        reason="; ".join(words) or f"all of {', '.join(shares)} are recorded for every {unit}",
        method=f"{unit}s with a value of the attribute over all {unit}s; 0 where it is absent",
        source=CoverageAudit,
        limitations=joined(
            f"A proxy does not count as the attribute: {listed(proxies)}." if proxies else "",
            "Simulated data: no patient is behind any image." if dataset.is_simulated else "",
            unit_note(documents),
        ),
    )


def _shares(
    coverage: CoverageAudit, demographics: DemographicsAudit, dataset: DatasetIdentity
) -> dict[str, float]:
    """Return the share of patients with a value by attribute; 0 for an absent one.

    An attribute recorded only through a proxy is absent. Names are compared without case.
    """
    shares = dict(coverage.completeness)
    proper = [a for a in demographics.declared if not a.is_proxy]
    known = {name.casefold() for name in shares}
    shares |= {a.name: a.completeness for a in proper if a.name.casefold() not in known}
    wanting = [
        *(attribute.name for attribute in dataset.absent_attributes),
        *(a.name for a in demographics.declared if a.is_proxy),
        *demographics.undeclared,
    ]
    for name in wanting:
        if name.casefold() not in {other.casefold() for other in shares}:
            shares[name] = 0.0
    return shares


@check("P3-02", step="s4_split")
def coverage_table(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that patients and images are counted for every attribute in every filled partition."""
    coverage, split = documents.need(CoverageAudit), documents.need(SplitRecord)
    recorded = recorded_attributes(coverage)
    if not recorded:
        return not_evaluated("no attribute is recorded", source=CoverageAudit)
    if split.refused or not by_partition(coverage):
        return not_evaluated(split.refused or NO_PARTITIONS, source=CoverageAudit)
    counted_pairs = {(level.attribute, level.partition) for level in coverage.levels}
    filled = [part.partition for part in split.partitions if part.n_images]
    gaps = [f"{a} in {p}" for a in recorded for p in filled if (a, p) not in counted_pairs]
    return judge(
        criterion,
        Observed(
            value=not gaps,
            n_patients=sum(part.n_patients for part in split.partitions),
            n_images=sum(part.n_images for part in split.partitions),
            partition="all",
        ),
        reason=f"not counted: {listed(gaps)}" if gaps else f"counted: {', '.join(recorded)}",
        method=f"{documents.unit}s and images counted for each level, attribute and partition",
        source=CoverageAudit,
        limitations=unit_note(documents),
    )


@check("P3-03", step="s4_split")
def smallest_subgroup(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the fewest patients of any machine, plane or declared level in training or test set.

    A combination of two declared levels that is missing beyond chance counts as one of 0 patients. A
    level whose count is withheld is unknown: the item then cannot pass.
    """
    coverage = documents.need(CoverageAudit)
    if not by_partition(coverage):
        return not_evaluated(NO_PARTITIONS, source=CoverageAudit)
    counts = [
        (n, f"{attribute} {level}: {n:,} in {partition}", partition)
        for attribute in recorded_attributes(coverage, _SCOPE_ATTRIBUTES)
        for partition in (TRAINING, TEST)
        for level, n in patients_by_level(coverage, attribute, partition).items()
    ]
    audit = documents.get(DemographicsAudit)
    declared, withheld = _declared_counts(audit) if audit else ([], [])
    counts += declared
    if not counts:
        return not_evaluated("neither machine nor plane is recorded", source=CoverageAudit)
    counts.sort()
    smallest, _, partition = counts[0]
    limit, unit = criterion.value, documents.unit
    small = [words for n, words, _ in counts if limit is not None and n < limit]
    if not small:
        documents.need(DemographicsAudit)  # machine and plane alone can fail the item, not pass it
    scope = "machine, plane and declared level" if declared or withheld else "machine and plane"
    told = f"not shown, to protect few {unit}s: {listed(withheld)}" if withheld else ""
    found: dict[str, Any] = {
        "observed": Observed(
            value=smallest, unit=f"{unit}s", n_patients=smallest, partition=partition
        ),
        "method": f"{unit}s of each {scope}, in training and in the held-out test set",
        "source": CoverageAudit,
        "limitations": joined(
            "The scope is what data.planes selects; a narrower one cannot be declared yet.",
            f"{told[:1].upper()}{told[1:]}." if told else "",
            unit_note(documents),
        ),
    }
    if withheld and not small:
        return not_evaluated(f"every level that is shown has enough {unit}s, but {told}", **found)
    return judge(
        criterion,
        reason=f"too few {unit}s: {listed(small)}" if small else f"every level has enough {unit}s",
        **found,
    )


def _declared_counts(
    audit: DemographicsAudit,
) -> tuple[list[tuple[int, str, str]], list[str]]:
    """Return patients, words and partition of each declared level, and the levels withheld.

    Nothing of an audit by an older version, which did not look for missing combinations.
    """
    if audit.missing_combinations is None:
        return [], []
    counts = [(0, _missing_words(gap), gap.partition) for gap in audit.missing_combinations]
    withheld = []
    for cell in audit.cells:
        if len(cell.attributes) > 1 or cell.partition not in (TRAINING, DEVELOPMENT, TEST):
            continue
        level, n = f"{cell.attributes[0]} {cell.levels[0]}", cell.n_patients
        if n is None:
            withheld.append(f"{level} in {cell.partition}")
        else:
            counts.append((n, f"{level}: {n:,} in {cell.partition}", cell.partition))
    return counts, withheld


def _missing_words(gap: MissingCombination) -> str:
    both = " and ".join(f"{a} {level}" for a, level in zip(gap.attributes, gap.levels, strict=True))
    where = "" if gap.partition == "all" else f" in {gap.partition}"
    return f"{both}: none{where} where {gap.expected:.1f} were expected"


@check("P3-04", step="s4_split")
def target_distance(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the upper bound of the largest distance to the declared target population.

    A target attribute that the data set lacks is unknown: the item then cannot pass.
    """
    audit = documents.need(DemographicsAudit)
    lacking = f"not compared: {'; '.join(audit.not_compared)}" if audit.not_compared else ""
    if not audit.distances:
        return not_evaluated(_nothing_to_compare(audit, lacking), source=DemographicsAudit)
    widest = max(audit.distances, key=lambda distance: distance.ci95[1])
    method = (
        f"total variation between shares of {documents.unit}s and those of {audit.target_name}; "
        "the upper bound of the interval is compared"
    )
    limits = joined(
        f"Shares of the target as declared: {widest.source}.",
        f"{lacking[:1].upper()}{lacking[1:]}." if lacking else "",
        unit_note(documents),
    )
    result = judge(
        criterion,
        _seen_distance(widest),
        reason=f"largest for {widest.attribute}: {widest.widest}",
        method=method,
        source=DemographicsAudit,
        limitations=limits,
        compared=widest.ci95[1],
    )
    if lacking and result.status.value == "passed":
        return not_evaluated(
            f"within the limit where it could be compared, but {lacking}",
            observed=result.observed,
            method=method,
            source=DemographicsAudit,
            limitations=limits,
        )
    return result


def _nothing_to_compare(audit: DemographicsAudit, lacking: str) -> str:
    """Return why no distance could be computed, naming the missing attributes."""
    absent = f"not declared: {', '.join(audit.undeclared)}" if audit.undeclared else ""
    if audit.target_name:
        return (
            f"nothing of {audit.target_name} could be compared; {lacking or absent or 'no value'}"
        )
    words = "no target population is declared (audit.target_population)"
    if not audit.declared:
        words += ", and the data contract declares no demographic attribute"
    return f"{words}; {absent}" if absent else words


def _seen_distance(distance: TargetDistance) -> Observed:
    return Observed(
        value=distance.total_variation,
        ci95=distance.ci95,
        n_patients=distance.n_patients,
        partition="all",
    )


@check("P3-08", step="s4_split")
def flow_count(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the image flow adds up to the partitions, by step and by attribute level."""
    dataset, split = documents.need(DatasetIdentity), documents.need(SplitRecord)
    coverage = documents.need(CoverageAudit)
    if split.refused or not dataset.flow:
        words = split.refused or "the flow of images is not on record"
        return not_evaluated(words, source=DatasetIdentity)
    last, n_dropped = dataset.flow[-1], len(split.dropped)
    n_images = sum(part.n_images for part in split.partitions)
    steps = [*dataset.flow, *([split.flow] if split.flow else [])]
    faults = [fault for step in steps for fault in _sum_faults(step)]
    faults += [fault for before, after in pairwise(steps) for fault in _growth(before, after)]
    if dataset.flow[0].n_images > dataset.n_listed:
        faults.append(f"{dataset.flow[0].step} has more than the {dataset.n_listed:,} listed")
    faults += _partition_faults(dataset.flow[-1], split)
    if not faults and recorded_attributes(coverage):
        bare = [step.step for step in steps if not step.levels]
        bare += [] if split.flow else ["partitions"]
        if bare:
            return not_evaluated(f"not counted by subgroup: {listed(bare)}", source=DatasetIdentity)
    return judge(
        criterion,
        Observed(
            value=len(faults),
            n_patients=sum(part.n_patients for part in split.partitions),
            n_images=n_images,
            partition="all",
        ),
        reason=listed(faults)
        or f"{dataset.n_listed:,} listed, {last.n_images:,} selected, {n_dropped:,} dropped by the "
        f"split, {n_images:,} in partitions",
        method="each step and level compared with the one before, the last with the partitions",
        source=DatasetIdentity,
        limitations=joined(
            "" if recorded_attributes(coverage) else "No attribute is recorded to count by.",
            unit_note(documents),
        ),
    )


def _growth(before: FlowStep, after: FlowStep) -> list[str]:
    """List where a later step holds more than the one before, in all or in one level."""
    earlier, later = _levels(before), _levels(after)
    faults = []
    if after.n_images > before.n_images or after.n_patients > before.n_patients:
        faults.append(f"{after.step} has more than {before.step}")
    # A step without levels was not counted by subgroup; that is no fault of the counts.
    for name in sorted({*earlier, *later}) if earlier and later else ():
        old = earlier.get(name, {NOT_RECORDED: (before.n_images, before.n_patients)})
        new = later.get(name, {NOT_RECORDED: (after.n_images, after.n_patients)})
        faults += [
            f"{after.step} has more of {name} {level} than {before.step}"
            for level, (n_images, n_patients) in new.items()
            if n_images > old.get(level, (0, 0))[0] or n_patients > old.get(level, (0, 0))[1]
        ]
    return faults


def _levels(step: FlowStep) -> Levels:
    found: Levels = {}
    for level in step.levels:
        found.setdefault(level.attribute, {})[level.level] = (level.n_images, level.n_patients)
    return found


def _sum_faults(step: FlowStep) -> list[str]:
    """List attributes whose level counts do not add up to the images of the step."""
    sums = {name: sum(n for n, _ in by.values()) for name, by in _levels(step).items()}
    return [
        f"{step.step}: levels of {name} add up to {total:,} of {step.n_images:,} images"
        for name, total in sums.items()
        if total != step.n_images
    ]


def _partition_faults(last: FlowStep, split: SplitRecord) -> list[str]:
    """List partition counts that differ from the last step less the images the split dropped."""
    n_dropped = len(split.dropped)
    held = {"partitions hold": sum(part.n_images for part in split.partitions)}
    held |= {f"{split.flow.step} has": split.flow.n_images} if split.flow else {}
    return [
        f"{words} {n:,} images, {last.step} left {last.n_images:,} and {n_dropped:,} were dropped"
        for words, n in held.items()
        if n != last.n_images - n_dropped
    ]


@check("P3-09", step="s6_evaluate")
def class_coverage(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the smallest coverage or recall of synthetic images over the classes in test."""
    evaluation, coverage = documents.need(EvaluationRecord), documents.need(CoverageAudit)
    by_class = [m for m in evaluation.metrics if family_of(m) in _VARIETY and _is_class(m.subgroup)]
    done = [m for m in by_class if m.status is ItemStatus.RECORDED and m.value is not None]
    if not done:
        reason = next((m.reason for m in by_class if m.reason), "")
        return not_evaluated(
            f"neither coverage nor recall was evaluated by class: {reason}"
            if by_class
            else "no coverage or recall by class is on record: no class has two levels, or the "
            "metrics were not evaluated",
            source=EvaluationRecord,
        )
    gaps = _class_gaps(done, coverage)
    smallest = min(done, key=lambda metric: metric.value or 0.0)
    method = "coverage and recall of synthetic images against real ones, class by class"
    result = judge(
        criterion,
        seen(smallest),
        reason=f"smallest: {smallest.title} of {smallest.subgroup.partition('=')[2]}",
        method=method,
        source=EvaluationRecord,
        limitations=f"Not evaluated: {listed(gaps)}." if gaps else "",
    )
    if gaps and result.status is ItemStatus.PASSED:
        return not_evaluated(
            f"not evaluated: {listed(gaps)}",
            observed=result.observed,
            method=method,
            source=EvaluationRecord,
        )
    return result


def _is_class(subgroup: str) -> bool:
    return subgroup.partition("=")[0] in _CLASSES


def _class_gaps(done: Sequence[MetricResult], coverage: CoverageAudit) -> list[str]:
    """List classes of the held-out test set whose coverage or recall was not evaluated."""
    known = {(family_of(m), m.subgroup) for m in done}
    attributes = {m.subgroup.partition("=")[0] for m in done}
    levels = [
        f"{x.attribute}={x.level}"
        for x in coverage.levels
        if x.attribute in attributes
        and x.partition == TEST
        and x.n_images
        and x.level != NOT_RECORDED
    ]
    return [f"{f} of {group}" for group in levels for f in _VARIETY if (f, group) not in known]
