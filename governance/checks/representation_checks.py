"""Checks on whom the data show: completeness, coverage, smallest subgroup, target population."""

from governance.checks.registry import (
    NO_PARTITIONS,
    Documents,
    by_partition,
    check,
    joined,
    judge,
    listed,
    not_evaluated,
    patients_by_level,
    recorded_attributes,
    unit_note,
)
from governance.records.audit import CoverageAudit, DemographicsAudit, TargetDistance
from governance.records.base import TEST, TRAINING
from governance.records.dataset import DatasetIdentity
from governance.records.partition import SplitRecord
from governance.records.policy import Criterion
from governance.records.verdict import CheckResult, Observed

_SCOPE_ATTRIBUTES = ("machine", "plane", "brain_plane")


@check("P3-01", step="s3_audit")
def completeness(documents: Documents, criterion: Criterion) -> CheckResult:
    """Share of patients with a value, of the least complete attribute; absent ones are named."""
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
    """Attribute -> share with a value: recorded, declared, and with 0 the absent ones.

    An attribute that only a proxy stands in for is absent. Names are compared without case.
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
def coverage_table(documents: Documents, criterion: Criterion) -> CheckResult:
    """Patients and images are counted for every recorded attribute in every filled partition."""
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
def smallest_subgroup(documents: Documents, criterion: Criterion) -> CheckResult:
    """Fewest patients that a machine or plane has in training or in the held-out test set."""
    coverage = documents.need(CoverageAudit)
    if not by_partition(coverage):
        return not_evaluated(NO_PARTITIONS, source=CoverageAudit)
    counts = sorted(
        (n, f"{attribute} {level}: {n:,} in {partition}", partition)
        for attribute in recorded_attributes(coverage, _SCOPE_ATTRIBUTES)
        for partition in (TRAINING, TEST)
        for level, n in patients_by_level(coverage, attribute, partition).items()
    )
    if not counts:
        return not_evaluated("neither machine nor plane is recorded", source=CoverageAudit)
    smallest, _, partition = counts[0]
    limit, unit = criterion.value, documents.unit
    small = [words for n, words, _ in counts if limit is not None and n < limit]
    return judge(
        criterion,
        Observed(value=smallest, unit=f"{unit}s", n_patients=smallest, partition=partition),
        reason=f"too few {unit}s: {listed(small)}" if small else f"every level has enough {unit}s",
        method=f"{unit}s of each machine and plane, in training and in the held-out test set",
        source=CoverageAudit,
        limitations=joined(
            "The scope is what data.planes selects; a narrower one cannot be declared yet.",
            unit_note(documents),
        ),
    )


@check("P3-04", step="s3_audit")
def target_distance(documents: Documents, criterion: Criterion) -> CheckResult:
    """Upper bound of the largest distance to the declared target population.

    Attributes of the target that the data set lacks are unknown: they never let the item pass.
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


def _seen_distance(distance: TargetDistance) -> Observed:
    return Observed(
        value=distance.total_variation,
        ci95=distance.ci95,
        n_patients=distance.n_patients,
        partition="all",
    )


def _nothing_to_compare(audit: DemographicsAudit, lacking: str) -> str:
    """Why there is no distance, naming what is absent."""
    absent = f"not declared: {', '.join(audit.undeclared)}" if audit.undeclared else ""
    if audit.target_name:
        return (
            f"nothing of {audit.target_name} could be compared; {lacking or absent or 'no value'}"
        )
    words = "no target population is declared (audit.target_population)"
    if not audit.declared:
        words += ", and the data contract declares no demographic attribute"
    return f"{words}; {absent}" if absent else words
