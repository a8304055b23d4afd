"""Checks on how the data hang together: shift, concentration, confounding, flow of images."""

from itertools import pairwise

from governance.checks.registry import (
    NOT_RECORDED,
    Documents,
    check,
    counted,
    joined,
    judge,
    listed,
    not_evaluated,
    recorded_attributes,
    unit_note,
)
from governance.records.audit import AttributeShift, Concentration, CoverageAudit, DatasetAudit
from governance.records.base import TEST, TRAINING
from governance.records.dataset import DatasetIdentity, FlowStep
from governance.records.partition import SplitRecord
from governance.records.policy import Criterion
from governance.records.verdict import CheckResult, Observed

Levels = dict[str, dict[str, tuple[int, int]]]  # attribute -> level -> images, patients


@check("P3-05", step="s4_split")
def partition_shift(documents: Documents, criterion: Criterion) -> CheckResult:
    """Largest total variation of an attribute between training and the held-out test set."""
    audit = documents.need(DatasetAudit)
    shifts = [s for s in audit.shifts if {s.left, s.right} == {TRAINING, TEST}]
    if not shifts:
        return not_evaluated(
            "no attribute was compared between training and the held-out test set: none with two "
            "levels is recorded in both, or the partitions are not known",
            source=DatasetAudit,
        )
    widest = max(shifts, key=lambda shift: shift.total_variation)
    one_sided = [f"{s.attribute} {words}" for s in shifts for words in s.one_sided]
    reason = f"largest for {widest.attribute}{_against_chance(widest, documents.unit)}"
    if one_sided:
        reason += f"; in one part only: {listed(one_sided)}"
    return judge(
        criterion,
        Observed(
            value=widest.total_variation, ci95=widest.ci95, partition=f"{TRAINING} and {TEST}"
        ),
        reason=reason,
        method=f"half the sum of absolute differences of the shares of {documents.unit}s, by "
        f"attribute; interval by {documents.unit} bootstrap, {audit.n_resamples:,} resamples",
        source=DatasetAudit,
        limitations=unit_note(documents),
        holds=not one_sided,
    )


def _against_chance(shift: AttributeShift, unit: str) -> str:
    """Whether the shift is more than dealing at random gives; the criterion decides all the same."""
    interval = f", 95 % interval {shift.ci95[0]:.2f} to {shift.ci95[1]:.2f}" if shift.ci95 else ""
    words = f": {shift.total_variation:.3f}{interval}"
    if shift.floor is None:
        return words
    relation = "more" if shift.total_variation > shift.floor else "no more"
    return f"{words}; {relation} than dealing {unit}s at random gives (up to {shift.floor:.3f})"


@check("P3-06", step="s3_audit")
def concentration(documents: Documents, criterion: Criterion) -> CheckResult:
    """Largest share of one patient in the images of a class, or of all images."""
    audit = documents.need(DatasetAudit)
    classes = sorted(
        (c for c in audit.concentration if c.n_images and c.level != NOT_RECORDED),
        key=lambda entry: -entry.largest_share,
    )
    if not classes:
        return not_evaluated("there is no image to count", source=DatasetAudit)
    worst, unit = classes[0], documents.unit
    limit = criterion.value
    over = [c for c in classes if limit is not None and c.largest_share > limit]
    words = [_share_words(c, unit, limit) for c in over or [worst]]
    return judge(
        criterion,
        Observed(
            value=worst.largest_share,
            n_patients=worst.n_patients,
            n_images=worst.n_images,
            partition="all",
        ),
        reason=f"{'above the limit' if over else 'largest'}: {listed(words)}",
        method=f"images of the {unit} with most of them over the images of the class; effective "
        f"{unit}s by the inverse Simpson index",
        source=DatasetAudit,
        limitations=unit_note(documents),
    )


def _share_words(entry: Concentration, unit: str, limit: float | int | bool | None) -> str:
    name = "all images" if entry.attribute == "all" else f"{entry.attribute} {entry.level}"
    words = (
        f"{name} ({entry.largest_share:.1%} by one {unit}; {entry.effective_patients:,.1f} "
        f"effective of {counted(entry.n_patients, unit)}"
    )
    if limit is not None and 1 / entry.n_images > limit:
        words += f"; with {counted(entry.n_images, 'image')} too few to reach the limit"
    return f"{words})"


@check("P3-07", step="s3_audit")
def attribute_confounding(documents: Documents, criterion: Criterion) -> CheckResult:
    """Largest Cramér's V of two attributes; what it makes undecidable is stated as a limit."""
    pairs = sorted(documents.need(DatasetAudit).confounding, key=lambda pair: -pair.v)
    if not pairs:
        return not_evaluated(
            "fewer than two attributes with two levels or more are recorded", source=DatasetAudit
        )
    widest, limit = pairs[0], criterion.value
    over = [pair for pair in pairs if limit is not None and pair.v > limit]
    exclusive = [words for pair in pairs for words in pair.exclusive]
    named = [f"{p.left} and {p.right} (V {p.v:.2f}, p {p.p_value:.3f})" for p in over or [widest]]
    reason = f"{'above the limit' if over else 'largest'}: {listed(named)}"
    tied = [f"{p.left} from {p.right}" for p in over]
    return judge(
        criterion,
        Observed(
            value=widest.v,
            n_patients=widest.n_patients,
            n_images=widest.n_images,
            partition="all",
        ),
        reason=f"{reason}; {listed(exclusive)}" if exclusive else reason,
        method=f"Cramér's V over images; p by permuting whole {documents.unit}s, "
        f"{widest.n_permutations:,} times",
        source=DatasetAudit,
        limitations=joined(
            f"Effects cannot be told apart in this data: {listed(tied)}." if tied else "",
            unit_note(documents),
        ),
    )


@check("P3-08", step="s4_split")
def flow_count(documents: Documents, criterion: Criterion) -> CheckResult:
    """The flow adds up to the partitions, by step and by level of every recorded attribute."""
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


def _partition_faults(last: FlowStep, split: SplitRecord) -> list[str]:
    """Where the partitions are not what the last step left, less what the split dropped."""
    n_dropped = len(split.dropped)
    held = {"partitions hold": sum(part.n_images for part in split.partitions)}
    held |= {f"{split.flow.step} has": split.flow.n_images} if split.flow else {}
    return [
        f"{words} {n:,} images, {last.step} left {last.n_images:,} and {n_dropped:,} were dropped"
        for words, n in held.items()
        if n != last.n_images - n_dropped
    ]


def _sum_faults(step: FlowStep) -> list[str]:
    """Attributes whose levels do not add up to the images of the step."""
    sums = {name: sum(n for n, _ in by.values()) for name, by in _levels(step).items()}
    return [
        f"{step.step}: levels of {name} add up to {total:,} of {step.n_images:,} images"
        for name, total in sums.items()
        if total != step.n_images
    ]


def _growth(before: FlowStep, after: FlowStep) -> list[str]:
    """What a later step has more of than the one before: in all, or of one level."""
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
