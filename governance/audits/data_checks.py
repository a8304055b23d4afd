"""Checks on the data: validation, who is in it, how it was divided, and which data set it is."""

from collections import defaultdict
from itertools import combinations

from governance.audits.checks import Documents, check, counted, judge, listed, not_evaluated
from governance.evidence.documents import (
    PARTITIONS,
    TEST,
    TRAINING,
    CoverageAudit,
    DatasetIdentity,
    SealRecord,
    SplitRecord,
    ValidationRecord,
)
from governance.evidence.record import CheckResult, Observed
from governance.policies.model import Criterion

ENGINES = ("great_expectations", "pandera")
HIERARCHY_RULE = "brain_plane_only_with_fetal_brain"
LABEL_RULES = (
    HIERARCHY_RULE,
    "fetal_brain_has_brain_plane",
    "plane_allowed",
    "brain_plane_allowed",
)
NOT_RECORDED = "not recorded"  # level of images without a value
_SCOPE_ATTRIBUTES = ("machine", "plane", "brain_plane")
_SOURCE_ATTRIBUTES = ("site", "operator", "machine")
_PAIRS = tuple(combinations(PARTITIONS, 2))

PatientsByLevel = dict[str, int]


@check("P2-12", step="s2_validate")
def data_validation(documents: Documents, criterion: Criterion) -> CheckResult:
    """No critical rule of the data contract fails, and both engines judged the same rules."""
    validation = documents.need(ValidationRecord)
    critical = [rule for rule in validation.rules if rule.severity == "critical"]
    failed = [rule for rule in critical if not rule.passed]
    names = sorted({rule.rule for rule in critical})
    judged_by = {
        engine: {rule.rule for rule in critical if rule.engine == engine and rule.n_evaluated}
        for engine in ENGINES
    }
    idle = [engine for engine, judged in judged_by.items() if not judged]
    one_sided = sorted(set.symmetric_difference(*judged_by.values()))
    method = f"{counted(len(names), 'critical rule')} over {counted(validation.n_rows, 'row')}"
    doubts = ["there was no row to validate"] if validation.n_rows == 0 else []
    doubts += [f"no critical rule was judged by {listed(idle)}"] if idle else []
    doubts += [f"judged by one engine only: {listed(one_sided)}"] if one_sided else []
    if doubts and not failed:
        return not_evaluated("; ".join(doubts), method=method, source=ValidationRecord)
    vacuous = [name for name in names if not any(name in judged for judged in judged_by.values())]
    words = [f"{rule.rule} ({rule.engine}, {rule.n_unexpected:,} rows)" for rule in failed]
    return judge(
        criterion,
        Observed(value=len(failed), n_images=validation.n_rows),
        reason=f"failed: {listed(words)}" if failed else "no critical rule failed in either engine",
        method=f"{method}, by pandera and Great Expectations from one contract",
        source=ValidationRecord,
        limitations=f"Nothing to judge in this data: {listed(vacuous)}." if vacuous else "",
    )


@check("P3-01", step="s3_audit")
def completeness(documents: Documents, criterion: Criterion) -> CheckResult:
    """Share of patients with a value, of the least complete attribute; absent ones are named."""
    coverage, dataset = documents.need(CoverageAudit), documents.need(DatasetIdentity)
    absent = [attribute.name for attribute in dataset.absent_attributes]
    shares = {**coverage.completeness, **dict.fromkeys(absent, 0.0)}
    if not shares:
        return not_evaluated("no attribute is listed as recorded or absent", source=CoverageAudit)
    lowest = min(shares.values())
    nowhere = [name for name, share in shares.items() if share == 0]
    partly = [f"{name} ({share:.1%})" for name, share in shares.items() if 0 < share < 1]
    words = [f"not recorded: {', '.join(nowhere)}"] if nowhere else []
    words += [f"recorded in part: {', '.join(partly)}"] if partly else []
    return judge(
        criterion,
        Observed(value=lowest),
        reason="; ".join(words) or f"all of {', '.join(shares)} are recorded for every patient",
        method="patients with a value of the attribute over all patients; 0 where it is absent",
        source=CoverageAudit,
        limitations=(
            "Simulated data: no patient is behind any image." if dataset.is_simulated else ""
        ),
    )


@check("P3-02", step="s4_split")
def coverage_table(documents: Documents, criterion: Criterion) -> CheckResult:
    """Patients and images are counted for every recorded attribute in every filled partition."""
    documents.need(SealRecord)  # a refused split leaves no coverage by partition
    coverage, split = documents.need(CoverageAudit), documents.need(SplitRecord)
    recorded = recorded_attributes(coverage)
    if not recorded:
        return not_evaluated("no attribute is recorded", source=CoverageAudit)
    counted_pairs = {(level.attribute, level.partition) for level in coverage.levels}
    filled = [part.partition for part in split.partitions if part.n_images]
    gaps = [f"{a} in {p}" for a in recorded for p in filled if (a, p) not in counted_pairs]
    return judge(
        criterion,
        Observed(value=not gaps, n_images=sum(part.n_images for part in split.partitions)),
        reason=f"not counted: {listed(gaps)}" if gaps else f"counted: {', '.join(recorded)}",
        method="patients and images counted for each level of each attribute and partition",
        source=CoverageAudit,
    )


@check("P3-03", step="s4_split")
def smallest_subgroup(documents: Documents, criterion: Criterion) -> CheckResult:
    """Fewest patients that a machine or plane has in training or in the held-out test set."""
    documents.need(SealRecord)  # a refused split leaves no coverage by partition
    coverage = documents.need(CoverageAudit)
    counts = [
        (n, f"{attribute} {level}: {n:,} in {partition}")
        for attribute in recorded_attributes(coverage, _SCOPE_ATTRIBUTES)
        for partition in (TRAINING, TEST)
        for level, n in patients_by_level(coverage, attribute, partition).items()
    ]
    if not counts:
        return not_evaluated("neither machine nor plane is recorded", source=CoverageAudit)
    smallest = min(n for n, _ in counts)
    limit = criterion.value
    small = [words for n, words in sorted(counts) if limit is not None and n < limit]
    return judge(
        criterion,
        Observed(value=smallest, partition=f"{TRAINING} and {TEST}"),
        reason=f"too few patients: {listed(small)}" if small else "every level has enough patients",
        method="patients of each machine and plane, in training and in the held-out test set",
        source=CoverageAudit,
        limitations="The scope is what data.planes selects; a narrower one cannot be declared yet.",
    )


@check("P3-05", step="s4_split")
def partition_shift(documents: Documents, criterion: Criterion) -> CheckResult:
    """Largest total variation of an attribute between training and the held-out test set."""
    documents.need(SealRecord)  # a refused split leaves no coverage by partition
    coverage = documents.need(CoverageAudit)
    distances, one_sided = {}, []
    for attribute in recorded_attributes(coverage):
        training = patients_by_level(coverage, attribute, TRAINING)
        test = patients_by_level(coverage, attribute, TEST)
        if not sum(training.values()) or not sum(test.values()):
            continue
        distances[attribute] = total_variation(training, test)
        one_sided += [f"{attribute} {x}" for x in training if bool(training[x]) != bool(test[x])]
    if not distances:
        return not_evaluated("no attribute is recorded in both partitions", source=CoverageAudit)
    widest = max(distances, key=lambda name: distances[name])
    words = f"largest for {widest}"
    if one_sided:
        words += f"; present in one part only: {listed(one_sided)}"
    return judge(
        criterion,
        Observed(value=distances[widest], partition=f"{TRAINING} and {TEST}"),
        reason=words,
        method="half the sum of absolute differences of the shares of patients, by attribute",
        source=CoverageAudit,
        holds=not one_sided,
    )


@check("P3-08", step="s4_split")
def flow_count(documents: Documents, criterion: Criterion) -> CheckResult:
    """The flow of images never grows and its last step is what the partitions hold together."""
    documents.need(SealRecord)  # a split that was refused passes nothing
    dataset, split = documents.need(DatasetIdentity), documents.need(SplitRecord)
    if not dataset.flow:
        return not_evaluated("the flow of images is not on record", source=DatasetIdentity)
    faults = [
        f"{after.step} has more than {before.step}"
        for before, after in zip(dataset.flow, dataset.flow[1:], strict=False)
        if after.n_images > before.n_images or after.n_patients > before.n_patients
    ]
    last = dataset.flow[-1]
    if dataset.flow[0].n_images > dataset.n_listed:
        faults.append(f"{dataset.flow[0].step} has more than the {dataset.n_listed:,} listed")
    n_images = sum(part.n_images for part in split.partitions)
    n_dropped = len(split.dropped)
    if n_images != last.n_images - n_dropped:
        faults.append(
            f"partitions hold {n_images:,} images, {last.step} left {last.n_images:,} "
            f"and {n_dropped:,} were dropped"
        )
    return judge(
        criterion,
        Observed(value=len(faults), n_images=n_images),
        reason=listed(faults)
        or f"{dataset.n_listed:,} listed, {last.n_images:,} selected, {n_dropped:,} dropped by the "
        f"split, {n_images:,} in partitions",
        method="each step compared with the one before, and the last with the partitions",
        source=DatasetIdentity,
        limitations="Exclusions are counted for each step, not for each subgroup.",
    )


@check("P4-01", step="s4_split")
def shared_patients(documents: Documents, criterion: Criterion) -> CheckResult:
    """Patients in both partitions of any pair."""
    split = documents.need(SplitRecord)
    n, gaps, words = _shared(split.shared_patients)
    if gaps and not n:
        return not_evaluated(f"not counted: {listed(gaps)}", source=SplitRecord)
    if not n:
        documents.need(SealRecord)  # a split that was refused passes nothing
    observed = Observed(value=n, n_patients=sum(part.n_patients for part in split.partitions))
    method = f"each pair of partitions compared by {split.unit}"
    if split.unit != "patient" and not n:
        note = documents.dataset.split_unit_note if documents.dataset else ""
        return not_evaluated(
            f"no {split.unit} is shared, but the data set does not say which {split.unit}s are of "
            f"one patient{f': {note}' if note else ''}",
            observed=observed.model_copy(update={"n_patients": None, "unit": f"{split.unit}s"}),
            method=method,
            source=SplitRecord,
        )
    return judge(
        criterion,
        observed,
        reason=words or "no patient is in two partitions",
        method=method,
        source=SplitRecord,
    )


@check("P4-02", step="s4_split")
def shared_content(documents: Documents, criterion: Criterion) -> CheckResult:
    """Images with equal decoded pixels in both partitions of any pair."""
    split = documents.need(SplitRecord)
    n, gaps, words = _shared(split.shared_content)
    if gaps and not n:
        return not_evaluated(f"not counted: {listed(gaps)}", source=SplitRecord)
    if not n:
        documents.need(SealRecord)  # a split that was refused passes nothing
    return judge(
        criterion,
        Observed(value=n, n_images=sum(part.n_images for part in split.partitions)),
        reason=words or "no image has the same pixels as one in another partition",
        method="SHA-256 of the decoded pixels, each pair of partitions compared",
        source=SplitRecord,
        limitations="Finds equal pixels only; near-duplicates are item P4-03.",
    )


@check("P4-04", step="s4_split")
def official_split(documents: Documents, criterion: Criterion) -> CheckResult:
    """The split that the data set brings is kept, or the departure is stated."""
    documents.need(SealRecord)  # a split that was refused passes nothing
    split = documents.need(SplitRecord)
    if not split.official_available:
        return not_evaluated("the data set brings no official split", source=SplitRecord)
    kept = split.source == "official"
    silent = "the official split was not used and no departure is stated"
    return judge(
        criterion,
        Observed(value=kept or bool(split.deviations)),
        reason="; ".join(split.deviations) or ("kept as published" if kept else silent),
        method="source of the split and its recorded departures",
        source=SplitRecord,
        limitations=(
            "" if kept else "Results are not comparable with those on the official split."
        ),
    )


@check("P4-10", step="s4_split")
def shared_sources(documents: Documents, criterion: Criterion) -> CheckResult:
    """Sites, operators and machines that are in both training and the held-out test set."""
    documents.need(SealRecord)  # a refused split leaves no coverage by partition
    coverage = documents.need(CoverageAudit)
    shared = []
    for attribute in recorded_attributes(coverage, _SOURCE_ATTRIBUTES):
        training = patients_by_level(coverage, attribute, TRAINING)
        test = patients_by_level(coverage, attribute, TEST)
        shared += [f"{attribute} {level}" for level in training if training[level] and test[level]]
    unknown = [a for a in _SOURCE_ATTRIBUTES if a not in recorded_attributes(coverage)]
    method = "levels of site, operator and machine in both partitions; dates are not read"
    if not shared:
        words = ", ".join([*unknown, "date"])
        return not_evaluated(f"not recorded: {words}", method=method, source=CoverageAudit)
    return judge(
        criterion,
        Observed(value=len(shared), partition=f"{TRAINING} and {TEST}"),
        reason=f"in both: {listed(shared)}"
        + (f"; not recorded: {', '.join(unknown)}" if unknown else ""),
        method=method,
        source=CoverageAudit,
    )


@check("P4-13", step="s6_evaluate")
def external_test_set(documents: Documents, criterion: Criterion) -> CheckResult:
    """A test set from another source: none can be configured yet."""
    return not_evaluated(
        "no test set from another source was used; using one is not implemented yet"
    )


@check("P5-01", step="s1_ingest")
def dataset_identity(documents: Documents, criterion: Criterion) -> CheckResult:
    """The content of the selected images is the content that the configuration pins."""
    dataset = documents.need(DatasetIdentity)
    found, pinned = dataset.content_sha256, dataset.pinned_sha256
    if found is None:
        return not_evaluated("the images were not read to the end", source=DatasetIdentity)
    method = "SHA-256 over id, pixel digest and labels of every selected image"
    if pinned is None:
        return not_evaluated(
            "the content of the data set is not pinned; if it is the one you mean, put this line "
            f"into the configuration: `data.digest: {found}`",
            method=method,
            source=DatasetIdentity,
        )
    unstated = [name for name in ("doi", "version", "licence") if not getattr(dataset, name)]
    return judge(
        criterion,
        Observed(value=found == pinned),
        reason=(
            f"content {found[:12]} is the pinned one"
            if found == pinned
            else f"content is {found}, pinned is {pinned}; restore the data or pin the new content"
        ),
        method=method,
        source=DatasetIdentity,
        limitations=f"The data set states no {', no '.join(unstated)}." if unstated else "",
    )


@check("P5-02", step="s2_validate")
def label_hierarchy(documents: Documents, criterion: Criterion) -> CheckResult:
    """Labels are known ones, and a brain plane is given only where the plane is the fetal brain."""
    validation = documents.need(ValidationRecord)
    rules = [rule for rule in validation.rules if rule.rule in LABEL_RULES]
    if not any(rule.rule == HIERARCHY_RULE for rule in rules):
        return not_evaluated(f"the rule {HIERARCHY_RULE} was not run", source=ValidationRecord)
    failed = [rule for rule in rules if not rule.passed]
    # Where all selected images are of the brain, no image is outside it to break the hierarchy;
    # that brain planes are recorded at all is what the other rules show then.
    if not failed and not any(r.n_evaluated for r in rules if r.column == "brain_plane"):
        return not_evaluated("no image carries a brain plane", source=ValidationRecord)
    outside = any(rule.n_evaluated for rule in rules if rule.rule == HIERARCHY_RULE)
    worst: dict[str, int] = {}
    for rule in rules:
        worst[rule.rule] = max(worst.get(rule.rule, 0), rule.n_unexpected)
    names = sorted({f"{rule.rule} ({rule.n_unexpected:,} images)" for rule in failed})
    return judge(
        criterion,
        Observed(value=sum(worst.values()), n_images=validation.n_rows),
        reason=f"broken: {listed(names)}" if failed else "no label breaks schema or hierarchy",
        method=f"rules {', '.join(sorted(worst))}, by {', '.join(sorted({r.engine for r in rules}))}",
        source=ValidationRecord,
        limitations=""
        if outside
        else "No selected image is of another plane than the fetal brain.",
        holds=not failed,
    )


def total_variation(left: PatientsByLevel, right: PatientsByLevel) -> float:
    """Half the sum of absolute differences of two sets of shares; 0 equal, 1 disjoint.

    Args:
        left: Patients by level, at least one in all.
        right: Patients by level, at least one in all.
    """
    n_left, n_right = sum(left.values()), sum(right.values())
    levels = left.keys() | right.keys()
    return 0.5 * sum(abs(left.get(x, 0) / n_left - right.get(x, 0) / n_right) for x in levels)


def recorded_attributes(
    coverage: CoverageAudit, wanted: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Attributes that have a value for at least one patient, of the wanted ones or of all."""
    found = {x.attribute for x in coverage.levels if x.n_patients and x.level != NOT_RECORDED}
    return tuple(a for a in wanted or coverage.attributes if a in found)


def patients_by_level(coverage: CoverageAudit, attribute: str, partition: str) -> PatientsByLevel:
    """Patients of each level in one partition; 0 for a level that only others have."""
    counts: PatientsByLevel = defaultdict(int)
    for level in coverage.levels:
        if level.attribute == attribute and level.level != NOT_RECORDED:
            counts[level.level] += level.n_patients if level.partition == partition else 0
    return counts


def _shared(by_pair: dict[str, int]) -> tuple[int, list[str], str]:
    """Sum over the pairs of partitions, pairs that were not counted, and shared ones in words."""
    found = {frozenset(pair.split(" | ")): n for pair, n in by_pair.items()}
    gaps = [f"{a} | {b}" for a, b in _PAIRS if frozenset((a, b)) not in found]
    words = [f"{n:,} in {pair}" for pair, n in by_pair.items() if n]
    return sum(by_pair.values()), gaps, "; ".join(words)
