"""Concentration equals what one counts by hand, and holds on the real listing."""

import pandas as pd
import pytest

from governance.records.audit import Concentration
from medisynth.data.adapters import locate_data_set
from medisynth.data.audit.coverage import concentration
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")


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
