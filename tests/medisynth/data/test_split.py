"""No group of images ever crosses a split, and what is done about one that does is on record."""

import re

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from governance.records.duplicates import DuplicatePair
from governance.records.errors import DataError, LeakageError, SettingsError
from medisynth.data.duplicates.exact import duplicate_pair, exact_pairs, leakage_groups
from medisynth.data.split import (
    PARTITIONS,
    TEST,
    TRAINING,
    TUNING,
    SplitResult,
    partition_overlaps,
    split_images,
)

PAIRS = (
    "training | tuning",
    "training | held-out test set",
    "tuning | held-out test set",
)


def images(
    patients: list[str], contents: list[str] | None = None, official: list[str | None] | None = None
) -> pd.DataFrame:
    n = len(patients)
    table = pd.DataFrame(
        {
            "image_id": [f"i{k:04d}" for k in range(n)],
            "patient_id": patients,
            "pixel_sha256": contents or [f"p{k}" for k in range(n)],
            "plane": ["Fetal brain"] * n,
            "brain_plane": [("Trans-thalamic", "Other")[k % 2] for k in range(n)],
            "machine": [(None, "E6", "S10")[k % 3] for k in range(n)],
            "official_partition": official or [None] * n,
        }
    ).astype("string")
    table["file_sha256"] = table["pixel_sha256"]
    return table


def split(table: pd.DataFrame, source: str = "computed", **options: object) -> SplitResult:
    chosen = {
        "test_fraction": 0.2,
        "tuning_fraction": 0.2,
        "seed": 0,
        "on_duplicate": "stop",
        **options,
    }
    groups = leakage_groups(table, exact_pairs(table))
    return split_images(table, groups, source=source, **chosen)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Mostly sound data with some pictures under two patients and some patients on both sides."""
    n = draw(st.integers(20, 60))
    numbers = draw(st.lists(st.integers(0, 25), min_size=n, max_size=n))
    contents = [f"p{k}" for k in range(n)]
    for copy, source in draw(st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), max_size=6)):
        contents[copy] = contents[source]
    official: list[str | None] = [(TRAINING, TEST)[k % 3 == 0] for k in numbers]
    for k in draw(st.lists(st.integers(0, n - 1), max_size=3)):
        official[k] = TEST
    return images([str(k) for k in numbers], contents, official)


@settings(max_examples=60, deadline=None)
@given(table=tables(), source=st.sampled_from(["official", "computed"]), seed=st.integers(0, 99))
def test_no_group_crosses_and_every_image_has_one_place(table, source, seed):
    groups = leakage_groups(table, exact_pairs(table))
    try:
        result = split(table, source, seed=seed, on_duplicate="drop_training")
    except DataError:  # too few groups for three partitions; rare, and assume() says so if not
        assume(False)

    assert (groups[result.partition.index].groupby(result.partition).nunique() > 0).all()
    places = pd.DataFrame({"group": groups, "partition": result.partition}).dropna()
    assert (places.groupby("group")["partition"].nunique() == 1).all()
    assert partition_overlaps(table, result.partition) == (
        dict.fromkeys(PAIRS, 0),
        dict.fromkeys(PAIRS, 0),
    )
    kept = set(table["image_id"][result.partition.index])
    dropped = {image for image, _ in result.dropped}
    assert kept | dropped == set(table["image_id"])
    assert not kept & dropped
    assert set(result.partition) == set(PARTITIONS)
    if source == "official":
        official = table["official_partition"]
        assert (official[result.partition.index][result.partition == TEST] == TEST).all()
        assert not set(table["image_id"][official == TEST]) & dropped
        assert bool(dropped) == bool(result.deviations)


@settings(max_examples=30, deadline=None)
@given(table=tables(), seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows(table, seed, order):
    rows = list(table.index)
    order.shuffle(rows)
    assume(leakage_groups(table, exact_pairs(table)).nunique() >= 5)
    first = split(table, seed=seed)

    other = split(table.loc[rows].reset_index(drop=True), seed=seed)

    by_id = dict(zip(table["image_id"], first.partition, strict=True))
    shuffled = table["image_id"].loc[rows]
    assert dict(zip(shuffled, other.partition, strict=True)) == by_id


def test_another_seed_gives_another_split():
    table = images([str(k) for k in range(100)])

    assert not split(table, seed=0).partition.equals(split(table, seed=1).partition)


def test_fractions_count_groups_not_images():
    # one patient with 500 images does not make up a partition
    table = images(["big"] * 500 + [str(k) for k in range(99)])

    partition = split(table, test_fraction=0.2, tuning_fraction=0.1).partition

    n_patients = table["patient_id"].groupby(partition).nunique()
    assert n_patients.to_dict() == {TEST: 20, TUNING: 8, TRAINING: 72}


def test_each_machine_is_held_out_in_proportion():
    table = images([str(k) for k in range(300)])
    table["machine"] = ["rare" if k < 30 else "common" for k in range(300)]
    table["brain_plane"] = "Other"
    for seed in range(5):
        partition = split(table, seed=seed).partition
        assert int((partition[:30] == TEST).sum()) in {5, 6, 7}


def test_file_order_plays_no_part():
    table = images([str(k) for k in range(500)])
    table["machine"] = table["brain_plane"] = "one"

    places = split(table).partition.reset_index(drop=True)

    mean = places.index[places == TEST].to_numpy().mean()
    assert 200 < mean < 300


def test_the_official_test_set_is_kept_and_tuning_comes_out_of_training_by_patient():
    patients = [str(k // 2) for k in range(40)]
    official = [TRAINING] * 20 + [TEST] * 20
    table = images(patients, official=official)

    result = split(table, "official", tuning_fraction=0.3)

    assert (result.partition[20:] == TEST).all()
    assert int((result.partition == TUNING).sum()) == 6  # 3 of 10 patients, 2 images each
    assert result.dropped == ()
    assert result.deviations == ()


def test_a_duplicate_across_the_official_split_stops_and_names_the_pair():
    official = [TRAINING] * 3 + [TEST]
    table = images(["1", "2", "3", "4"], ["P", "Q", "R", "P"], official)

    with pytest.raises(LeakageError) as caught:
        split(table, "official")

    assert caught.value.exit_code == 4
    assert "i0000 (patient 1) and i0003 (patient 4) are the same file" in str(caught.value)
    assert "0 patients and 1 pairs" in str(caught.value)


def test_a_patient_on_both_sides_of_the_official_split_stops():
    table = images(["7", "8", "9", "7"], official=[TRAINING] * 3 + [TEST])

    with pytest.raises(LeakageError, match="patient 7 is on both sides"):
        split(table, "official")


def test_a_long_list_of_leaks_is_cut_and_counted():
    n = 25
    patients = [str(k) for k in range(2 * n)]
    table = images(patients, [str(k % n) for k in range(2 * n)], [TRAINING] * n + [TEST] * n)

    with pytest.raises(LeakageError, match="and 5 more") as caught:
        split(table, "official")
    assert len(re.findall("are the same file", str(caught.value))) == 20


def test_dropping_takes_all_training_images_of_the_tied_patient_and_says_why():
    # patient 1 shares one picture with test patient 4: its other picture may not train either
    patients = ["1", "1", "2", "3", "4"]
    table = images(patients, ["P", "O", "Q", "R", "P"], [TRAINING] * 4 + [TEST])

    result = split(table, "official", on_duplicate="drop_training")

    assert [image for image, _ in result.dropped] == ["i0000", "i0001"]
    assert result.dropped[0][1].startswith("exact copy")
    assert result.dropped[1][1].startswith("same patient")
    assert result.partition.index.tolist() == [2, 3, 4]
    assert "2 official training images in 1 groups" in result.deviations[0]


def near(left: str, right: str, patients: tuple[str, str], similarity: float) -> DuplicatePair:
    one, other = (left, patients[0]), (right, patients[1])
    return duplicate_pair("near-duplicate", one, other, similarity=similarity)


def test_a_near_duplicate_across_the_official_split_stops_and_says_how_to_declare_it_distinct():
    table = images(["1", "2", "3", "4"], official=[TRAINING] * 3 + [TEST])
    pairs = [near("i0000", "i0003", ("1", "4"), 0.966), near("i0001", "i0002", ("2", "3"), 0.99)]

    with pytest.raises(LeakageError) as caught:
        split_images(
            table,
            leakage_groups(table, pairs),
            pairs=pairs,
            source="official",
            test_fraction=0.2,
            tuning_fraction=0.2,
            seed=0,
            on_duplicate="stop",
        )

    message = str(caught.value)
    assert "0 patients and 1 pairs" in message
    assert (
        "i0000 (patient 1) and i0003 (patient 4) are near-duplicates (similarity 0.97)" in message
    )
    assert 'audit.distinct_pairs as "left = right: reason"' in message
    assert "i0001" not in message


def test_reasons_tell_exact_copies_near_duplicates_and_tied_patients_apart():
    table = images(
        ["1", "1", "2", "3", "5", "6", "4", "4"],
        ["P", "O", "Q", "R", "S", "T", "P", "U"],
        [TRAINING] * 6 + [TEST] * 2,
    )
    pairs = [
        *exact_pairs(table),
        near("i0002", "i0006", ("2", "4"), 0.951),
        near("i0002", "i0007", ("2", "4"), 0.974),
        near("i0003", "i0002", ("3", "2"), 0.96),  # tied through another training image
    ]

    result = split_images(
        table,
        leakage_groups(table, pairs),
        pairs=pairs,
        source="official",
        test_fraction=0.2,
        tuning_fraction=0.5,
        seed=0,
        on_duplicate="drop_training",
    )

    tied = "same patient, or a patient tied by a copy, as images in the held-out test set"
    assert dict(result.dropped) == {
        "i0000": "exact copy of an image in the held-out test set",
        "i0001": tied,
        "i0002": "near-duplicate of an image in the held-out test set (similarity 0.97)",
        "i0003": tied,
    }
    assert "1 of them exact copies and 1 near-duplicates of test images" in result.deviations[0]


def test_not_using_an_official_split_is_a_stated_deviation():
    table = images([str(k) for k in range(10)], official=[TRAINING] * 10)

    assert "official split of the data set was not used" in split(table).deviations[0]
    assert split(images([str(k) for k in range(10)])).deviations == ()


@pytest.mark.parametrize(
    ("table", "source", "message"),
    [
        (
            images([str(k) for k in range(120)], official=[TRAINING] * 120),
            "official",
            "all 120 selected images are official training, so there is no held-out test set; "
            "set split.source=computed",
        ),
        (
            images(["1", "2"], official=[TEST] * 2),
            "official",
            "all 2 selected images are official held-out test set",
        ),
        (images(["1", "2"], official=[TRAINING, TEST]), "official", "no image is left for tun"),
        (images(["1", "2", "3"]), "official", "brings no official split"),
        (
            images(["1", "2", "3"], official=[TRAINING, None, TEST]),
            "official",
            "1 of 3 selected images have no official partition",
        ),
        (images(["1", "1", "2"]), "computed", "form 2 group"),
        (images(["1"] * 50), "computed", "form 1 group"),
    ],
)
def test_a_partition_that_would_be_empty_is_an_error_in_clear_words(table, source, message):
    with pytest.raises(DataError, match=re.escape(message)):
        split(table, source)


@pytest.mark.parametrize(
    "options",
    [{"test_fraction": 0.0}, {"test_fraction": 1.0}, {"tuning_fraction": 1.5}, {"seed": -1}],
)
def test_a_setting_out_of_range_is_refused(options):
    with pytest.raises(SettingsError, match=re.escape(f"split.{next(iter(options))}")):
        split(images([str(k) for k in range(10)]), **options)


def test_overlaps_count_what_partitions_share():
    table = images(["1", "1", "2", "3"], ["P", "Q", "Q", "P"])
    partition = pd.Series([TRAINING, TUNING, TEST, TEST])

    patients, contents = partition_overlaps(table, partition)

    assert patients == {PAIRS[0]: 1, PAIRS[1]: 0, PAIRS[2]: 0}
    assert contents == {PAIRS[0]: 0, PAIRS[1]: 1, PAIRS[2]: 1}
