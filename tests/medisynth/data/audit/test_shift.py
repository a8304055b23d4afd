"""Shift between partitions equals hand-computed distances; its floor is what chance gives."""

import numpy as np
import pandas as pd
import pytest

from governance.records.base import TEST, TRAINING, TUNING
from medisynth.data.adapters import locate_data_set
from medisynth.data.audit.shift import shifts
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")


def listed(levels: dict[str, list[str | None]]) -> tuple[pd.DataFrame, pd.Series]:
    """One image a patient, by partition."""
    rows = [(level, part) for part, found in levels.items() for level in found]
    table = pd.DataFrame(
        {
            "patient_id": [str(i) for i in range(len(rows))],
            "machine": [level for level, _ in rows],
        }
    ).astype("string")
    return table, pd.Series([part for _, part in rows], index=table.index)


def test_distance_and_one_sided_level_are_those_counted_by_hand():
    table, partition = listed({TRAINING: ["x"] * 6 + ["y"] * 4, TEST: ["x"] * 9 + ["z"]})
    (found,) = shifts(table, partition, ("machine",), n_resamples=200, seed=0)

    assert found.total_variation == pytest.approx(0.4)  # |0.6 - 0.9| + 0.4 + 0.1, halved
    assert found.one_sided == ("y only in training", "z only in held-out test set")
    assert found.ci95 is not None
    assert 0 <= found.ci95[0] <= 0.4 <= found.ci95[1] <= 1


def test_a_patient_with_many_images_counts_once():
    table, partition = listed({TRAINING: ["x", "y"], TEST: ["x", "y"]})
    table = pd.concat([table] + [table.iloc[[0]]] * 20, ignore_index=True)
    partition = pd.concat([partition] + [partition.iloc[[0]]] * 20, ignore_index=True)
    (found,) = shifts(table, partition, ("machine",), n_resamples=50, seed=0)

    assert found.total_variation == 0


def test_every_pair_of_partitions_is_compared_and_unassigned_rows_are_not():
    table, partition = listed({TRAINING: ["x", "y"], TEST: ["x"], TUNING: ["y"], "": ["z"]})
    partition = partition[partition != ""]
    found = shifts(table, partition, ("machine",), n_resamples=50, seed=0)

    assert [(x.left, x.right, x.total_variation) for x in found] == [
        (TRAINING, TUNING, 0.5),
        (TRAINING, TEST, 0.5),
        (TUNING, TEST, 1.0),
    ]


def test_an_attribute_that_one_partition_has_no_value_of_is_left_out():
    table, partition = listed({TRAINING: ["x", "y"], TEST: [None, None]})

    assert shifts(table, partition, ("machine", "site"), n_resamples=50, seed=0) == ()


def test_a_random_split_stays_below_the_floor_as_often_as_the_floor_says():
    rng = np.random.default_rng(0)
    table, _ = listed({"": rng.choice(list("xyz"), 200).tolist()})
    below = []
    for seed in range(100):
        partition = pd.Series(np.where(rng.permutation(200) < 120, TRAINING, TEST))
        (found,) = shifts(table, partition, ("machine",), n_resamples=100, seed=seed)
        below.append(found.total_variation <= (found.floor or 0))

    assert np.mean(below) > 0.87  # 0.95 expected, standard error 0.022


def test_the_interval_covers_the_distance_of_the_population():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(100):
        table, partition = listed(
            {
                TRAINING: rng.choice(list("xy"), 150, p=[0.7, 0.3]).tolist(),
                TEST: rng.choice(list("xy"), 150, p=[0.4, 0.6]).tolist(),
            }
        )
        (found,) = shifts(table, partition, ("machine",), n_resamples=200, seed=seed)
        assert found.ci95 is not None
        covered.append(found.ci95[0] <= 0.3 <= found.ci95[1])

    assert np.mean(covered) > 0.87


@needs_kit
def test_the_real_machines_are_further_apart_than_chance_and_the_scanner_is_one_sided_when_it_is():
    root = KIT / "fetal_planes_db"
    table = locate_data_set(root)[0].list_images(root).table
    official = table["official_partition"]
    found = {x.attribute: x for x in shifts(table, official, n_resamples=200, seed=0)}

    assert set(found) == {"plane", "brain_plane", "machine", "operator"}
    assert found["machine"].total_variation == pytest.approx(0.1023, abs=1e-4)
    assert found["machine"].total_variation > (found["machine"].floor or 1)
    assert found["machine"].one_sided == ()  # 11 images of one patient are in training

    lone = (table["machine"] == "Voluson S10") & (official == TRAINING)
    without = shifts(table, official[~lone], ("machine",), n_resamples=50, seed=0)
    assert without[0].one_sided == ("Voluson S10 only in held-out test set",)
