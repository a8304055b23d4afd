"""Cramér's V equals hand-computed values, and its test respects patients."""

import numpy as np
import pandas as pd
import pytest

from governance.records.audit import Confounding
from medisynth.data.adapters import locate_data_set
from medisynth.data.audit.confounding import confounding, cramers_v
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")
PAIR = ("machine", "operator")


def table(**columns: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame(columns).astype("string")


def one(images: pd.DataFrame, n_resamples: int = 199, seed: int = 0) -> Confounding:
    (found,) = confounding(images, PAIR, n_resamples=n_resamples, seed=seed)
    return found


def test_cramers_v_of_a_two_by_two_table_is_the_phi_coefficient():
    counts = np.array([[30.0, 10.0], [10.0, 50.0]])
    phi = (30 * 50 - 10 * 10) / np.sqrt(40 * 60 * 40 * 60)

    assert cramers_v(counts) == pytest.approx(phi)


def test_cramers_v_is_one_for_a_bijection_and_zero_for_independence():
    assert cramers_v(np.diag([5.0, 7.0, 9.0])) == pytest.approx(1)
    assert cramers_v(np.outer([1.0, 2.0, 3.0], [4.0, 5.0])) == pytest.approx(0, abs=1e-7)


def test_an_operator_with_one_machine_is_named_and_the_other_is_not():
    images = table(
        patient_id=list("abcdef"),
        machine=["Aloka", "Aloka", "E6", "E6", "E6", "Aloka"],
        operator=["Op. 3", "Op. 3", "Op. 1", "Op. 1", "Op. 2", "Op. 2"],
    )

    assert one(images).exclusive == (
        "operator Op. 1 only with machine E6",
        "operator Op. 3 only with machine Aloka",
    )


def test_images_without_one_of_the_two_count_nowhere():
    images = table(
        patient_id=list("aabbccd"),
        machine=["x", "x", "y", "y", "x", "x", "x"],
        operator=["1", "1", "2", "2", None, None, "2"],
    )
    found = one(images)

    assert (found.n_images, found.n_patients) == (5, 3)


def test_a_brain_plane_is_not_paired_with_the_plane_that_it_is_part_of():
    images = table(
        patient_id=list("abcd"),
        plane=["Fetal brain", "Fetal brain", "Other", "Other"],
        brain_plane=["Trans-thalamic", "Other", "Other", "Trans-thalamic"],
    )

    assert confounding(images, ("plane", "brain_plane"), n_resamples=50, seed=0) == ()


def test_an_attribute_with_one_level_is_paired_with_nothing():
    images = table(patient_id=list("abc"), machine=["x"] * 3, operator=["1", "2", "1"])

    assert confounding(images, PAIR, n_resamples=50, seed=0) == ()


def test_a_link_that_four_large_patients_make_is_not_taken_for_many_images():
    # 400 images, V = 1; but of the 24 ways to deal 2 + 2 patients every third gives V = 1 again
    patients = [p for p in "abcd" for _ in range(100)]
    sides = ["x" if p in "ab" else "y" for p in patients]
    found = one(table(patient_id=patients, machine=sides, operator=sides), 999)

    assert found.v == pytest.approx(1)
    assert found.p_value == pytest.approx(1 / 3, abs=0.05)


def test_the_same_link_over_forty_patients_is_beyond_chance():
    patients = [str(i) for i in range(40) for _ in range(3)]
    sides = ["x" if int(p) < 20 else "y" for p in patients]
    found = one(table(patient_id=patients, machine=sides, operator=sides))

    assert found.p_value == 1 / 200


@pytest.mark.parametrize("n_levels_of_a_patient", [1, 2])
def test_independent_attributes_are_called_linked_at_most_as_often_as_the_level_says(
    n_levels_of_a_patient,
):
    rng = np.random.default_rng(0)
    p_values = []
    for seed in range(120):
        sizes = rng.integers(1, 15, 40)
        patients = np.repeat(np.arange(40), sizes)
        columns = {}
        for name in PAIR:
            own = rng.integers(0, 3, (40, n_levels_of_a_patient))
            choice = rng.integers(0, n_levels_of_a_patient, len(patients))
            columns[name] = own[patients, choice].astype(str)
        images = pd.DataFrame({"patient_id": patients.astype(str), **columns}).astype("string")
        p_values.append(one(images, 79, seed).p_value)

    assert np.mean(np.array(p_values) <= 0.05) < 0.12  # 0.05 expected, standard error 0.02
    assert 0.35 < np.mean(p_values) < 0.65


def test_the_answer_depends_on_the_seed_alone_and_not_on_the_other_pairs():
    rng = np.random.default_rng(1)
    names = {name: rng.integers(0, 3, 60).astype(str) for name in ("plane", *PAIR)}
    images = pd.DataFrame({"patient_id": np.arange(60).astype(str), **names}).astype("string")
    alone = one(images)
    among = confounding(images, ("plane", *PAIR), n_resamples=199, seed=0)

    assert alone == among[-1]


@needs_kit
def test_operator_and_machine_of_the_real_listing_have_v_0_61_over_images():
    root = KIT / "fetal_planes_db"
    found = {
        (x.left, x.right): x
        for x in confounding(
            locate_data_set(root)[0].list_images(root).table, n_resamples=199, seed=0
        )
    }
    pair = found["machine", "operator"]

    assert round(pair.v, 2) == 0.61
    assert (pair.n_images, pair.n_patients) == (12_400, 1_792)
    assert pair.p_value == 1 / 200
    assert pair.exclusive == (
        "machine Other only with operator Other",
        "machine Voluson S10 only with operator Other",
        "operator Op. 1 only with machine Voluson E6",
        "operator Op. 2 only with machine Voluson E6",
        "operator Op. 3 only with machine Aloka",
    )
    assert max(x.v for key, x in found.items() if key != ("machine", "operator")) < 0.5
