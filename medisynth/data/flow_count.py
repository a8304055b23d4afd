"""Which images each selection step left, by level of each attribute, and whether it adds up."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from medisynth.data.coverage import ATTRIBUTES, absent, coverage


@dataclass(frozen=True)
class FlowLevel:
    """Images and patients of one level of one attribute that a step left.

    Attributes:
        attribute: Attribute, e.g. "machine".
        level: Level; "not recorded" for images without a value.
        n_images: Such images.
        n_patients: Their patients; one may count in several levels.
    """

    attribute: str
    level: str
    n_images: int
    n_patients: int


@dataclass(frozen=True)
class FlowStep:
    """What one selection step left: the flow of images from listing to partitions.

    Attributes:
        step: "listed", "selected", "present", "decoded".
        n_images: Images left.
        n_patients: Patients left; one may count in several levels below.
        note: What the step asked for, or why images were lost.
        levels: The same images by level of each recorded attribute; the images of an attribute's
            levels add up to `n_images`.
    """

    step: str
    n_images: int
    n_patients: int
    note: str = ""
    levels: tuple[FlowLevel, ...] = ()


def flow_step(
    step: str, table: pd.DataFrame, note: str = "", attributes: Sequence[str] = ATTRIBUTES
) -> FlowStep:
    """Count the images and patients that a step left.

    Args:
        step: Name of the step.
        table: The rows it left, with patient_id and the attributes.
        note: What it asked for.
        attributes: Columns to count by; one without any value in these rows is left out.
    """
    gone = absent(table, attributes)
    recorded = [name for name in attributes if name not in gone]
    rows = coverage(table, None, recorded)
    return FlowStep(
        step=step,
        n_images=len(table),
        n_patients=int(table["patient_id"].nunique()),
        note=note,
        levels=tuple(FlowLevel(r.attribute, r.level, r.n_images, r.n_patients) for r in rows),
    )


def flow_faults(steps: Sequence[FlowStep]) -> tuple[str, ...]:
    """Where a flow does not add up, in words; empty when it does.

    Args:
        steps: Steps in order.

    Returns:
        One sentence a fault: an attribute whose levels do not add up to the step, a step or level
        with more images or patients than before, or more patients than images.
    """
    faults = []
    for step in steps:
        faults += _faults_within(step)
    for before, after in pairwise(steps):
        faults += _faults_between(before, after)
    return tuple(faults)


def _faults_within(step: FlowStep) -> list[str]:
    faults = []
    if step.n_patients > step.n_images:
        faults.append(f"{step.step} has {step.n_patients:,} patients in {step.n_images:,} images")
    sums: dict[str, int] = defaultdict(int)
    for level in step.levels:
        sums[level.attribute] += level.n_images
        if not level.n_patients <= min(level.n_images, step.n_patients):
            faults.append(
                f"{step.step}: {level.attribute} {level.level} has {level.n_patients:,} patients "
                f"in {level.n_images:,} images of {step.n_patients:,} patients"
            )
    faults += [
        f"{step.step}: the levels of {attribute} hold {n:,} images, the step {step.n_images:,}"
        for attribute, n in sums.items()
        if n != step.n_images
    ]
    return faults


def _faults_between(before: FlowStep, after: FlowStep) -> list[str]:
    faults = []
    for what, was, now in (
        ("images", before.n_images, after.n_images),
        ("patients", before.n_patients, after.n_patients),
    ):
        if now > was:
            faults.append(f"{after.step} has {now:,} {what}, {before.step} only {was:,}")
    known = {level.attribute for level in before.levels}
    new = dict.fromkeys(x.attribute for x in after.levels if x.attribute not in known)
    faults += [f"{after.step} counts {name}, {before.step} does not" for name in new]
    earlier = {(level.attribute, level.level): level for level in before.levels}
    for level in after.levels:
        if level.attribute in new:
            continue
        found = earlier.get((level.attribute, level.level))
        was_images, was_patients = (found.n_images, found.n_patients) if found else (0, 0)
        if level.n_images > was_images or level.n_patients > was_patients:
            faults.append(
                f"{after.step}: {level.attribute} {level.level} has {level.n_images:,} images of "
                f"{level.n_patients:,} patients, {before.step} only {was_images:,} of "
                f"{was_patients:,}"
            )
    return faults
