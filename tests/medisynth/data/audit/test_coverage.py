"""Coverage counts patients and images as one would by hand, and the real listing's numbers hold."""

import numpy as np
import pandas as pd
import pytest

from governance.records.audit import Concentration, CoverageLevel, ListingSummary
from governance.records.base import TEST, TRAINING
from governance.records.dataset import FlowLevel
from medisynth.data.adapters import locate_data_set
from medisynth.data.audit.coverage import (
    ALL,
    NOT_RECORDED,
    absent,
    completeness,
    concentration,
    coverage,
    flow_step,
    listing_summary,
)
from medisynth.intervals import wilson_interval
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")

TABLE = pd.DataFrame(
    {
        "patient_id": ["1", "1", "2", "3"],
        "machine": ["E6", "S10", "E6", None],
        "operator": [None] * 4,
        "plane": ["Fetal brain"] * 4,
    }
).astype("string")


def test_a_patient_counts_once_in_each_level_it_has():
    rows = coverage(TABLE, None, ("machine",))

    one, two = wilson_interval(1, 3), wilson_interval(2, 3)
    assert rows == (
        CoverageLevel(
            attribute="machine",
            level="E6",
            partition="all",
            n_patients=2,
            n_images=2,
            share=2 / 3,
            share_ci95=two,
        ),
        CoverageLevel(
            attribute="machine",
            level="S10",
            partition="all",
            n_patients=1,
            n_images=1,
            share=1 / 3,
            share_ci95=one,
        ),
        CoverageLevel(
            attribute="machine",
            level=NOT_RECORDED,
            partition="all",
            n_patients=1,
            n_images=1,
            share=1 / 3,
            share_ci95=one,
        ),
    )


def test_shares_are_of_the_patients_of_their_own_partition():
    partition = pd.Series([TRAINING, TRAINING, TEST, TEST])
    found = {(r.level, r.partition): r for r in coverage(TABLE, partition, ("machine",))}

    assert found["S10", TRAINING].share == 1
    assert found["E6", TEST].share == 0.5
    assert found["S10", TEST].share == 0
    assert found["S10", TEST].share_ci95 == wilson_interval(0, 2)


def test_an_empty_table_has_no_level():
    assert coverage(TABLE[:0], None, ("machine",)) == ()


def test_a_level_that_a_partition_lacks_is_there_with_zeros():
    partition = pd.Series([TRAINING, TRAINING, TEST], index=[0, 1, 2])  # row 3 was dropped

    rows = coverage(TABLE, partition, ("machine",))

    counts = {(row.level, row.partition): (row.n_patients, row.n_images) for row in rows}
    assert counts["S10", TEST] == (0, 0)
    assert counts["E6", TRAINING] == (1, 1)
    assert counts[NOT_RECORDED, "all"] == (1, 1)
    assert [r.partition for r in rows[:3]] == ["all", TRAINING, TEST]
    for row in rows:
        if row.level == NOT_RECORDED and row.partition != "all":
            assert row.n_images == 0


def test_an_attribute_without_any_value_is_absent_and_has_no_completeness():
    assert absent(TABLE, ("machine", "operator", "site")) == ("operator", "site")
    assert completeness(TABLE, ("machine", "operator", "plane")) == {"machine": 2 / 3, "plane": 1.0}


def summary(name: str) -> ListingSummary:
    return listing_summary(locate_data_set(KIT / name)[0].list_images(KIT / name))


@needs_kit
def test_the_published_numbers_of_the_real_listing_come_out():
    found = summary("fetal_planes_db")

    assert (found.n_images, found.n_patients) == (12_400, 1_792)
    assert found.images_per_partition == {TRAINING: 7_129, TEST: 5_271}
    assert found.patients_per_partition == {TRAINING: 896, TEST: 896}
    assert found.shared_patients == 0
    assert found.images_per_patient == (1, 4, 88)
    assert found.one_sided == ()
    counts = {(r.attribute, r.level, r.partition): (r.n_images, r.n_patients) for r in found.rows}
    assert counts["plane", "Fetal brain", ALL] == (3_092, 1_082)
    s10 = [counts["machine", "Voluson S10", side] for side in (TRAINING, TEST)]
    assert s10 == [(11, 1), (1_071, 90)]
    planes = {"Trans-thalamic": 1_638, "Trans-cerebellum": 714, "Trans-ventricular": 597}
    for plane, n_images in {**planes, "Other": 143}.items():
        assert counts["brain_plane", plane, ALL][0] == n_images


@needs_kit
def test_voluson_e6_brain_planes_match_the_published_counts_per_partition():
    listing = locate_data_set(KIT / "fetal_planes_db")[0].list_images(KIT / "fetal_planes_db")
    e6 = listing.table[listing.table["machine"] == "Voluson E6"]
    rows = coverage(e6, e6["official_partition"], ("brain_plane",))
    found = {(r.level, r.partition): (r.n_images, r.n_patients) for r in rows}

    assert found["Trans-thalamic", TRAINING] == (588, 291)
    assert found["Trans-thalamic", TEST] == (484, 264)
    assert found["Trans-cerebellum", TRAINING] == (268, 213)
    assert found["Trans-cerebellum", TEST] == (224, 164)
    assert found["Trans-ventricular", TRAINING] == (214, 163)
    assert found["Trans-ventricular", TEST] == (194, 131)


@needs_kit
def test_the_official_split_keeps_patients_apart_that_a_random_one_by_image_would_not():
    table = locate_data_set(KIT / "fetal_planes_db")[0].list_images(KIT / "fetal_planes_db").table
    order = np.random.default_rng(0).permutation(len(table))  # all images, seed 0, one in five
    n_test = len(table) // 5
    is_brain = (table["plane"] == "Fetal brain").to_numpy(dtype=bool)
    test, training = (
        set(table["patient_id"].to_numpy()[rows[is_brain[rows]]])
        for rows in (order[:n_test], order[n_test:])
    )

    assert round(len(test & training) / len(test), 2) == 0.88  # patients with brain images in both
    official = table[is_brain].groupby("patient_id")["official_partition"].nunique()
    assert official.max() == 1


@needs_kit
def test_a_level_on_one_side_only_is_named():
    listing = locate_data_set(KIT / "fetal_planes_db")[0].list_images(KIT / "fetal_planes_db")
    is_s10 = (listing.table["machine"] == "Voluson S10").astype(bool)
    is_training = (listing.table["official_partition"] == TRAINING).astype(bool)
    reduced = listing.table[~(is_s10 & is_training)].reset_index(drop=True)
    listing = type(listing)(listing.info, reduced, "", "")

    assert listing_summary(listing).one_sided == (("machine", "Voluson S10", TEST),)


@needs_kit
def test_a_listing_without_official_split_has_no_sides():
    found = summary("hc18")

    assert (found.n_images, found.n_patients) == (999, 806)
    assert found.images_per_partition == {NOT_RECORDED: 999}
    assert found.one_sided == ()
    assert found.shared_patients == 0


FOUR_IMAGES = pd.DataFrame(
    {
        "patient_id": ["1", "1", "2", "3"],
        "plane": ["Fetal brain", "Other", "Other", "Fetal brain"],
        "brain_plane": ["Trans-thalamic", None, None, "Other"],
        "machine": ["E6", "S10", "E6", None],
        "operator": [None] * 4,
        "site": [None] * 4,
    }
).astype("string")


def test_levels_of_each_recorded_attribute_add_up_to_the_step():
    step = flow_step("listed", FOUR_IMAGES, "as published")

    assert (step.n_images, step.n_patients, step.note) == (4, 3, "as published")
    assert {level.attribute for level in step.levels} == {"plane", "brain_plane", "machine"}
    for attribute in ("plane", "brain_plane", "machine"):
        assert sum(x.n_images for x in step.levels if x.attribute == attribute) == 4
    assert FlowLevel(attribute="machine", level="E6", n_images=2, n_patients=2) in step.levels
    assert (
        FlowLevel(attribute="machine", level="not recorded", n_images=1, n_patients=1)
        in step.levels
    )


def table(patients: list[str], planes: list[str | None]) -> pd.DataFrame:
    brain = [None] * len(patients)
    columns = {"patient_id": patients, "plane": planes, "brain_plane": brain}
    return pd.DataFrame(columns).astype("string")


def test_three_images_of_one_patient_and_one_of_another_are_1_6_effective_patients():
    found = concentration(table(["a", "a", "a", "b"], ["Fetal brain"] * 3 + ["Other"]))

    assert found[0] == Concentration(
        attribute="all",
        level="all",
        n_patients=2,
        n_images=4,
        largest_patient="a",
        largest_share=0.75,
        effective_patients=16 / 10,
    )
    assert found[1] == Concentration(
        attribute="plane",
        level="Fetal brain",
        n_patients=1,
        n_images=3,
        largest_patient="a",
        largest_share=1.0,
        effective_patients=1.0,
    )
    assert found[2] == Concentration(
        attribute="plane",
        level="Other",
        n_patients=1,
        n_images=1,
        largest_patient="b",
        largest_share=1.0,
        effective_patients=1.0,
    )
    assert len(found) == 3


def test_equal_patients_are_as_many_effective_ones_and_the_first_by_name_is_named():
    found = concentration(table(["c", "b", "a"], ["Other"] * 3))

    assert found[0].effective_patients == pytest.approx(3)
    assert found[0].largest_patient == "a"


def test_images_without_a_plane_count_in_the_whole_table_only():
    found = concentration(table(["a", "b"], ["Other", None]))

    assert [(x.level, x.n_images) for x in found] == [("all", 2), ("Other", 1)]


def test_an_empty_table_has_no_concentration():
    assert concentration(table([], [])) == ()


@needs_kit
def test_the_real_listing_has_one_patient_with_88_images_and_a_class_beyond_two_per_cent():
    root = KIT / "fetal_planes_db"
    found = {
        (x.attribute, x.level): x
        for x in concentration(locate_data_set(root)[0].list_images(root).table)
    }

    whole = found["all", "all"]
    assert (whole.n_patients, whole.n_images) == (1_792, 12_400)
    assert round(whole.largest_share * whole.n_images) == 88
    brain = found["plane", "Fetal brain"]
    assert (brain.n_patients, brain.n_images) == (1_082, 3_092)
    beyond = [key for key, x in found.items() if x.largest_share > 0.02]
    assert beyond == [("brain_plane", "Other")]
    assert found["brain_plane", "Other"].largest_share == pytest.approx(4 / 143)
