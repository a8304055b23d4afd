"""Plants between the steps: what one step hands to the next is not what it made."""

from dataclasses import replace

import numpy as np
import pandas as pd

from governance.records.base import TEST, TRAINING, TUNING
from pipelines.selftest.bench import INTEGRITY, LONGER, TRAINS, Answers, Bench, Plant, stopped_by
from pipelines.steps import boundaries

_BROKEN, _DAMAGED = "D071", "G030"


def picture_lost(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the ingest hands on one picture fewer than its table has rows."""
    run = bench.prepared
    images = run.images
    if is_planted:
        images = replace(images, pixels=images.pixels[:-1])
    return stopped_by(_BROKEN, lambda: boundaries.images_ingested(images, run.context))


def label_changed(bench: Bench, is_planted: bool) -> Answers:
    """Plant: one patient's name in the table changes after the ingest recorded it."""
    run = bench.prepared
    images = run.images
    if is_planted:
        table = images.table.copy()
        table.loc[table.index[0], "patient_id"] = table["patient_id"].iloc[-1]
        images = replace(images, table=table)
    return stopped_by(_BROKEN, lambda: boundaries.images_validated(images, run.context))


def patient_in_two_groups(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the audit puts one image of a patient into a group of its own."""
    run = bench.prepared
    images, audited = run.images, run.audited
    if is_planted:
        groups = audited.groups.copy()
        groups.iloc[_place_of_shared_patient(images.table["patient_id"])] = "another"
        audited = replace(audited, groups=groups)
    return stopped_by(_BROKEN, lambda: boundaries.groups_made(images, audited, run.context))


def group_in_two_partitions(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the split moves one image of a patient from training into the test set."""
    run = bench.prepared
    images, audited = run.images, run.audited
    partition = _partition(bench)
    if is_planted:
        place = _place_of_shared_patient(images.table["patient_id"].loc[partition.index])
        partition.iloc[place] = TEST if partition.iloc[place] != TEST else TRAINING

    def check() -> None:
        boundaries.partitions_made(images, audited.groups, partition, run.context)

    return stopped_by(_BROKEN, check)


def pictures_shifted(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the packed training pictures stand one place beside their names."""
    run = bench.prepared
    split = run.split
    if is_planted:
        training = split.training
        split = replace(
            split, training=replace(training, pixels=np.roll(training.pixels, 1, axis=0))
        )
    return stopped_by(_BROKEN, lambda: boundaries.views_packed(run.images, split, run.context))


def sample_exchanged(bench: Bench, is_planted: bool) -> Answers:
    """Plant: one synthetic image is exchanged between drawing and evaluation."""
    run = bench.trained_control
    trained = run.trained
    if is_planted:
        synthetic = trained.synthetic.copy()
        synthetic[0] = 255 - synthetic[0]
        trained = replace(trained, synthetic=synthetic)
    return stopped_by(_DAMAGED, lambda: boundaries.samples_drawn(trained, run.context))


def _place_of_shared_patient(patients: "pd.Series[str]") -> int:
    """Return the place of an image whose patient has another one."""
    return int(np.flatnonzero(patients.duplicated())[0])


def _partition(bench: Bench) -> "pd.Series[str]":
    """Return the partition of each row of the prepared run."""
    split, table = bench.prepared.split, bench.prepared.images.table
    named = {
        **dict.fromkeys(split.training.image_ids, TRAINING),
        **dict.fromkeys(split.tuning.image_ids, TUNING),
        **{leaf.id: TEST for leaf in split.sealed_test.leaves},
    }
    return table["image_id"].astype(str).map(named).dropna()


BOUNDARY_PLANTS = (
    Plant(
        "picture-lost",
        "step boundary",
        "one picture fewer than rows of the image table, from step 1 to step 2",
        (_BROKEN,),
        INTEGRITY,
        picture_lost,
        LONGER,
    ),
    Plant(
        "table-changed",
        "step boundary",
        "an image's patient changed in the image table between steps 1 and 3",
        (_BROKEN,),
        INTEGRITY,
        label_changed,
        LONGER,
    ),
    Plant(
        "patient-in-two-groups",
        "step boundary",
        "images of one patient in two groups, from step 3 to step 4",
        (_BROKEN,),
        INTEGRITY,
        patient_in_two_groups,
        LONGER,
    ),
    Plant(
        "group-in-two-partitions",
        "step boundary",
        "an image moved to another partition after the split",
        (_BROKEN,),
        INTEGRITY,
        group_in_two_partitions,
        LONGER,
    ),
    Plant(
        "pictures-shifted",
        "step boundary",
        "packed training pictures one place beside their names, from step 4 to step 5",
        (_BROKEN,),
        INTEGRITY,
        pictures_shifted,
    ),
    Plant(
        "sample-exchanged",
        "step boundary",
        "a synthetic image exchanged between steps 5 and 6",
        (_DAMAGED,),
        INTEGRITY,
        sample_exchanged,
        TRAINS,
    ),
)
