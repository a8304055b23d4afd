"""Checks of principle 3 on how attributes are spread: shift, concentration, confounding."""

from typing import Any

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    NOT_RECORDED,
    TRAINING_IMAGES,
    check,
    counted,
    joined,
    judge,
    listed,
    not_evaluated,
    unit_note,
)
from governance.records.audit import (
    AttributeShift,
    Concentration,
    DatasetAudit,
)
from governance.records.item import CheckResult, Observed
from governance.records.policy import Criterion

Levels = dict[str, dict[str, tuple[int, int]]]  # attribute -> level -> images, patients
_VARIETY = ("coverage", "recall")
_CLASSES = ("plane", "brain_plane")
_BY_CHANCE = 0.05  # p above which a confounding is no more than permuted patients give
_SCOPE_ATTRIBUTES = ("machine", "plane", "brain_plane")


@check("P3-05", step="s4_split", needs=TRAINING_IMAGES)
def partition_shift(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the largest total variation of an attribute between training and test set."""
    audit = documents.need(DatasetAudit)
    shifts = [s for s in audit.shifts if s.is_training_to_test]
    if not shifts:
        return not_evaluated(
            "no attribute was compared between training and the held-out test set: none with two "
            "levels is recorded in both, or the partitions are not known",
            source=DatasetAudit,
        )
    unit, limit = documents.unit, criterion.value
    one_sided = [f"{s.attribute} {words}" for s in shifts for words in s.one_sided]
    over = [s for s in shifts if limit is not None and s.total_variation > limit]
    beyond = [s for s in over if s.floor is None or s.total_variation > s.floor]
    # What fails is named; where nothing is beyond chance, the largest shift alone is given.
    widest = max(beyond or shifts, key=lambda shift: shift.total_variation)
    reason = f"largest for {widest.attribute}: {_shift_words(widest, unit, bool(beyond))}"
    if one_sided:
        reason += f"; in one part only: {listed(one_sided)}"
    found: dict[str, Any] = {
        "observed": Observed(
            value=widest.total_variation,
            ci95=widest.ci95,
            partition=f"{widest.left} and {widest.right}",
        ),
        "method": f"half the sum of absolute differences of the shares of {unit}s, by attribute, "
        f"beside the 95th percentile when {unit}s are dealt at random; interval by {unit} "
        f"bootstrap, {audit.n_resamples:,} resamples",
        "source": DatasetAudit,
        "limitations": unit_note(documents),
    }
    if over and not beyond and not one_sided:
        return not_evaluated(
            f"{reason}; above the limit of {limit:g}, but dealing {unit}s at random gives up to "
            f"{widest.floor:.3f}: with so few {unit}s chance cannot be told from a shift",
            **found,
        )
    return judge(criterion, reason=reason, holds=not one_sided, **found)


def _shift_words(shift: AttributeShift, unit: str, is_beyond: bool) -> str:
    """Return a shift with its interval, and the chance level that it is beyond."""
    interval = f", 95 % interval {shift.ci95[0]:.2f} to {shift.ci95[1]:.2f}" if shift.ci95 else ""
    words = f"{shift.total_variation:.3f}{interval}"
    if shift.floor is None or not is_beyond:
        return words
    return f"{words}; more than dealing {unit}s at random gives (up to {shift.floor:.3f})"


@check("P3-06", step="s4_split")
def concentration(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the largest share that one patient has of the images of a class, or of all."""
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


@check("P3-07", step="s4_split")
def attribute_confounding(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the largest Cramér's V of two attributes, and which effects it confounds."""
    pairs = sorted(documents.need(DatasetAudit).confounding, key=lambda pair: -pair.v)
    if not pairs:
        return not_evaluated(
            "fewer than two attributes with two levels or more are recorded", source=DatasetAudit
        )
    limit, unit = criterion.value, documents.unit
    above = [pair for pair in pairs if limit is not None and pair.v > limit]
    over = [pair for pair in above if pair.p_value <= _BY_CHANCE]
    widest = (over or pairs)[0]
    exclusive = [words for pair in pairs for words in pair.exclusive]
    named = [f"{p.left} and {p.right} (V {p.v:.2f}, p {p.p_value:.3f})" for p in over or [widest]]
    reason = f"{'above the limit' if over else 'largest'}: {listed(named)}"
    tied = [f"{p.left} from {p.right}" for p in above]
    found: dict[str, Any] = {
        "observed": Observed(
            value=widest.v,
            n_patients=widest.n_patients,
            n_images=widest.n_images,
            partition="all",
        ),
        "method": f"Cramér's V over images; p by permuting whole {unit}s, "
        f"{widest.n_permutations:,} times",
        "source": DatasetAudit,
        "limitations": joined(
            f"Effects cannot be told apart in this data: {listed(tied)}." if tied else "",
            unit_note(documents),
        ),
    }
    if above and not over:
        return not_evaluated(
            f"{reason}; above the limit of {limit:g}, but permuting {unit}s gives as much in more "
            "than one case in twenty: chance cannot be told from confounding",
            **found,
        )
    return judge(
        criterion, reason=f"{reason}; {listed(exclusive)}" if exclusive else reason, **found
    )
