"""Exact duplicates are found and tie patients together, however long the chain."""

import numpy as np
import pandas as pd
import pytest

from governance.records.duplicates import DuplicatePair
from medisynth.data.adapters import locate_data_set
from medisynth.data.adapters.selection import missing_images
from medisynth.data.duplicates.exact import (
    across_partitions,
    duplicate_pair,
    exact_pairs,
    leakage_groups,
)
from medisynth.data.reading.ingest import ingest_images
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")


def images(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    columns = ["image_id", "patient_id", "pixel_sha256", "file_sha256"]
    return pd.DataFrame(rows, columns=columns).astype("string")


def test_equal_files_and_equal_pixels_are_told_apart():
    table = images(
        ("c", "3", "P", "F2"), ("a", "1", "P", "F1"), ("b", "2", "P", "F1"), ("d", "4", "Q", "F3")
    )

    assert exact_pairs(table) == (
        duplicate_pair("same file", ("a", "1"), ("b", "2")),
        duplicate_pair("same pixels", ("b", "2"), ("c", "3")),
    )


def test_n_equal_images_give_n_minus_1_pairs():
    table = images(*[(f"i{n:04d}", str(n), "P", "F") for n in range(1_000)])

    pairs = exact_pairs(table)

    assert len(pairs) == 999
    assert leakage_groups(table, pairs).nunique() == 1


def test_patients_linked_through_others_are_one_group():
    # 1 - 2 share P, 2 - 3 share Q: 1 and 3 have nothing in common but must not be parted
    table = images(
        ("a", "1", "P", "F1"),
        ("b", "2", "P", "F2"),
        ("c", "2", "Q", "F3"),
        ("d", "3", "Q", "F3"),
        ("e", "3", "R", "F4"),
        ("f", "9", "S", "F5"),
    )

    groups = leakage_groups(table, exact_pairs(table))

    assert groups.tolist() == ["1", "1", "1", "1", "1", "9"]


def test_groups_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(3)
    rows = [
        (f"i{n}", str(rng.integers(40)), f"P{rng.integers(80)}", f"F{rng.integers(90)}")
        for n in range(100)
    ]
    table = images(*rows)
    shuffled = table.sample(frac=1, random_state=1)

    assert exact_pairs(table) == exact_pairs(shuffled)
    groups = leakage_groups(table, exact_pairs(table))
    assert leakage_groups(shuffled, exact_pairs(shuffled)).sort_index().equals(groups)


def test_without_duplicates_each_patient_is_its_own_group():
    table = images(("a", "1", "P", "F1"), ("b", "1", "Q", "F2"), ("c", "2", "R", "F3"))

    assert exact_pairs(table) == ()
    assert leakage_groups(table, ()).tolist() == ["1", "1", "2"]
    assert leakage_groups(table.iloc[:0], ()).empty


def test_a_pair_within_one_patient_is_said_to_be_one():
    assert duplicate_pair("same file", ("a", "1"), ("b", "1")).is_one_patient
    assert not duplicate_pair("same file", ("a", "1"), ("b", "2")).is_one_patient


def test_a_pair_declared_distinct_is_not_named_but_other_copies_stay_tied():
    table = images(("a", "1", "P", "F"), ("b", "2", "P", "F"), ("c", "3", "P", "F"))

    assert exact_pairs(table.iloc[:2], {("a", "b")}) == ()
    named = [(pair.left_id, pair.right_id) for pair in exact_pairs(table, {("a", "b")})]
    assert named == [("a", "c"), ("b", "c")]


def test_near_duplicates_tie_patients_too():
    table = images(("a", "1", "P", "F1"), ("b", "2", "Q", "F2"), ("c", "3", "R", "F3"))
    near = duplicate_pair("near-duplicate", ("b", "2"), ("c", "3"), "as is", 0.97)

    assert leakage_groups(table, [near]).tolist() == ["1", "2", "2"]


def test_a_pair_says_in_words_what_it_is():
    near = duplicate_pair("near-duplicate", ("a", "1"), ("b", "2"), "mirrored left to right", 0.971)

    assert duplicate_pair("same file", ("a", "1"), ("b", "2")).sentence == (
        "a (patient 1) and b (patient 2) are the same file"
    )
    assert near.sentence == (
        "a (patient 1) and b (patient 2) are near-duplicates "
        "(similarity 0.97, mirrored left to right)"
    )


def test_only_near_duplicates_in_two_partitions_are_counted_across_them():
    def near(left: str, right: str) -> DuplicatePair:
        return duplicate_pair("near-duplicate", (left, "1"), (right, "2"), "as is", 0.96)

    partition = {
        "a": "training",
        "b": "tuning",
        "c": "held-out test set",
        "d": "training",
        "e": "held-out test set",
    }
    pairs = [
        near("a", "c"),
        near("c", "d"),
        near("b", "d"),
        near("a", "d"),
        near("a", "dropped"),
        duplicate_pair("same file", ("a", "1"), ("e", "2")),
    ]

    assert across_partitions(pairs, partition) == {
        "training | tuning": 1,
        "training | held-out test set": 2,
        "tuning | held-out test set": 0,
    }


def kit_table(name: str) -> pd.DataFrame:
    root = KIT / name
    table = locate_data_set(root)[0].list_images(root).table
    table = table[~missing_images(root, table)]
    return ingest_images(root, table, size_px=8, n_workers=2).table


@needs_kit
def test_the_known_duplicates_of_the_african_set_are_found():
    pairs = exact_pairs(kit_table("african_planes"))

    assert len(pairs) == 10
    assert {pair.kind for pair in pairs} == {"same file"}
    assert not any(pair.is_one_patient for pair in pairs)


@needs_kit
def test_the_known_duplicate_of_hc18_is_found_within_its_examination():
    pairs = exact_pairs(kit_table("hc18"))

    assert pairs == (duplicate_pair("same file", ("392_2HC", "392"), ("392_HC", "392")),)


@needs_kit
def test_the_47_listed_duplicates_tie_patients_and_22_cross_the_official_split():
    root = KIT / "african_planes"
    table = locate_data_set(root)[0].list_images(root).table
    table["file_sha256"] = table["pixel_sha256"] = table["listed_sha256"]

    pairs = exact_pairs(table)
    side = dict(zip(table["image_id"], table["official_partition"], strict=True))

    assert len(pairs) == 47
    assert sum(side[pair.left_id] != side[pair.right_id] for pair in pairs) == 22
    groups = leakage_groups(table, pairs)
    assert table["patient_id"].nunique() - groups.nunique() > 0
