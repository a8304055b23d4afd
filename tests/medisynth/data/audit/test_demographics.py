"""The demographics audit counts patients as one would by hand and gives nobody away."""

import numpy as np
import pandas as pd
import pytest

from governance.records.audit import DEVELOPMENT, DemographicsAudit
from governance.records.base import TEST, TRAINING, TUNING
from governance.records.errors import SettingsError
from medisynth.data.adapters import locate_data_set
from medisynth.data.audit.demographics import POOLED, declared_shifts, demographics_audit
from medisynth.data.audit.target_population import TargetAttribute, TargetPopulation
from medisynth.data.contract.contract import AttributeDeclaration, load_contract
from medisynth.intervals import wilson_interval
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")
SEX = AttributeDeclaration("fetal sex", "Sex", "category", levels=("female", "male"))
AGE = AttributeDeclaration("maternal age", "Age", "number", "years", edges=(20, 35))


def audit(
    rows: list[tuple[str, str, str]],
    partition: list[str | None] | None = None,
    *,
    smallest_cell: int = 1,
    declared: tuple[AttributeDeclaration, ...] = (SEX, AGE),
    target: TargetPopulation | None = None,
) -> DemographicsAudit:
    """Audit rows of (patient, sex, age)."""
    frame = pd.DataFrame(rows, columns=["patient_id", "Sex", "Age"]).astype("string")
    return demographics_audit(
        frame[["patient_id"]],
        frame[["Sex", "Age"]],
        declared,
        None if partition is None else pd.Series(partition, dtype="string"),
        smallest_cell=smallest_cell,
        target=target,
        n_resamples=200,
        seed=0,
    )


def counts(found: DemographicsAudit) -> dict[tuple[object, ...], int | None]:
    return {(*cell.levels, cell.partition): cell.n_patients for cell in found.cells}


def people(n: int, sex: str, age: str, first: int = 0) -> list[tuple[str, str, str]]:
    return [(str(first + i), sex, age) for i in range(n)]


def test_nothing_declared_leaves_nothing_counted_and_all_usual_attributes_named():
    found = audit(people(3, "female", "30"), declared=())

    assert (found.declared, found.cells, found.numbers, found.n_suppressed) == ((), (), (), 0)
    assert found.undeclared == (
        "maternal age",
        "ethnicity",
        "body mass index",
        "gestational age",
        "parity",
        "fetal sex",
        "country",
        "site",
    )


def test_patients_are_counted_by_level_by_bin_and_by_both():
    rows = [
        ("1", "female", "19.9"),
        ("2", "female", "20"),
        ("3", "male", "34"),
        ("4", "male", "35"),
    ]
    found = audit([*rows, rows[0], rows[0]])
    n = counts(found)

    assert (n["female", "all"], n["male", "all"]) == (2, 2)
    assert [
        n[x, "all"] for x in ("below 20 years", "20 to below 35 years", "35 years and above")
    ] == [1, 2, 1]
    assert n["female", "below 20 years", "all"] == 1
    assert n["male", "below 20 years", "all"] == 0
    first = found.cells[0]
    assert (first.share, first.share_ci95) == (0.5, wilson_interval(2, 4))
    assert "maternal age" not in found.undeclared


def test_a_value_given_once_holds_for_all_images_of_the_patient():
    n = counts(audit([("1", "female", ""), ("1", "", "30"), ("2", "male", "30")]))

    assert n["female", "20 to below 35 years", "all"] == 1


def test_a_patient_with_several_levels_counts_once_in_each():
    found = audit([("1", "female", "19"), ("1", "female", "36"), ("2", "female", "36")])
    n = counts(found)

    assert (n["below 20 years", "all"], n["35 years and above", "all"]) == (1, 2)
    assert n["female", "all"] == 2


def test_values_that_are_missing_unreadable_or_undeclared_are_told_apart():
    found = audit(
        [("1", "female", "30"), ("2", "", "thirty"), ("3", "F", "inf"), ("4", "male", "")]
    )
    n = counts(found)
    sex, age = found.declared

    assert n["outside the declared levels", "all"] == 1
    assert sex.completeness == 0.75
    assert age.completeness == 0.25
    assert next(c for c in found.cells if c.levels == ("male",)).share == pytest.approx(1 / 3)


def test_a_declared_column_that_the_data_lack_has_no_value_and_no_patient():
    other = AttributeDeclaration("parity", "Parity", "category", levels=("0", "1"))
    found = audit(people(3, "female", "30"), declared=(other,))

    assert found.declared[0].completeness == 0
    assert {cell.n_patients for cell in found.cells} == {0}
    assert {cell.share for cell in found.cells} == {None}


def test_a_small_cell_is_withheld_and_so_is_what_would_give_it_away():
    rows = people(30, "female", "30") + people(2, "male", "30", 30) + people(20, "male", "30", 32)
    partition = [TRAINING] * 32 + [TEST] * 20
    found = audit(rows, partition, smallest_cell=5, declared=(SEX,))
    n = counts(found)

    assert n["male", TRAINING] is None
    assert n["female", TRAINING] is None  # else 32 - 30
    assert (n["male", TEST] is None) or (n["male", "all"] is None)  # else 22 - 20
    assert found.n_suppressed == sum(cell.n_patients is None for cell in found.cells)
    for cell in found.cells:
        if cell.n_patients is None:
            assert (cell.share, cell.share_ci95) == (None, None)


def test_a_zero_is_shown_where_nobody_needs_its_protection():
    found = audit(people(30, "female", "30"), smallest_cell=5, declared=(SEX,))

    assert counts(found) == {("female", "all"): 30, ("male", "all"): 0}
    assert found.n_suppressed == 0


def test_dropped_patients_are_not_the_difference_between_all_and_the_partitions():
    rows = people(30, "female", "30") + people(30, "male", "30", 30)
    partition: list[str | None] = [TRAINING] * 28 + [None] * 2 + [TRAINING] * 30
    n = counts(audit(rows, partition, smallest_cell=5, declared=(SEX,)))

    assert n["female", "all"] is None or n["female", TRAINING] is None


def test_numbers_are_of_patients_and_their_ends_are_no_single_patient():
    rows = [(str(i), "female", str(20 + i)) for i in range(21)]
    found = audit(rows + [rows[0]] * 50, smallest_cell=5)
    (row,) = found.numbers

    assert (row.n_patients, row.n_images) == (21, 71)
    assert row.quantiles == (24, 24, 24, 25, 30, 35, 36, 36, 36)
    assert row.outliers == ()
    (open_row,) = audit(rows).numbers
    assert (open_row.quantiles[0], open_row.quantiles[-1]) == (20, 40)


def test_a_partition_of_fewer_patients_than_the_smallest_cell_has_no_distribution():
    rows = [(str(i), "female", str(20 + i)) for i in range(23)]
    found = audit(rows, [TRAINING] * 20 + [TEST] * 3, smallest_cell=5)

    assert [row.partition for row in found.numbers] == ["all", TRAINING]


def target(**shares: float) -> TargetPopulation:
    return TargetPopulation("here", {"fetal sex": TargetAttribute(shares, "register")})


def test_distance_to_the_target_is_half_the_sum_of_differences_with_an_interval():
    rows = people(60, "female", "30") + people(40, "male", "30", 60)
    found = audit(rows, target=target(female=0.5, male=0.5))
    (distance,) = found.distances

    assert found.target_name == "here"
    assert distance.total_variation == pytest.approx(0.1)
    assert 0 <= distance.ci95[0] < 0.1 < distance.ci95[1] < 0.25
    assert (distance.n_patients, distance.source) == (100, "register")
    assert distance.widest == "female: 60.0% of the data, 50.0% of the target"


def test_withheld_levels_are_taken_together_in_the_distance_so_that_it_gives_none_away():
    group = AttributeDeclaration("group", "Sex", "category", levels=("A", "B", "C", "D"))
    wanted = TargetAttribute({"A": 0.5, "B": 0.3, "C": 0.1, "D": 0.1}, "s")
    rows = people(60, "A", "30") + people(34, "B", "30", 60) + people(3, "C", "30", 94)
    rows += people(3, "D", "30", 97)
    found = audit(
        rows, declared=(group,), target=TargetPopulation("x", {"group": wanted}), smallest_cell=5
    )
    (distance,) = found.distances

    assert counts(found) == {
        ("A", "all"): 60, ("B", "all"): 34, ("C", "all"): None, ("D", "all"): None,
    }  # fmt: skip
    assert distance.total_variation == pytest.approx((0.1 + 0.04 + abs(0.06 - 0.2)) / 2)
    assert distance.widest == f"{POOLED}: 6.0% of the data, 20.0% of the target"


def test_an_attribute_of_which_nothing_can_be_shown_has_no_distance():
    rows = people(60, "female", "30") + people(3, "male", "30", 60)
    found = audit(rows, target=target(female=0.5, male=0.5), smallest_cell=5)

    assert found.distances == ()
    assert found.not_compared == (
        "fetal sex: fewer than two levels have enough patients to be shown",
    )


# --- combinations that are missing -------------------------------------------------------------


def crossed(n: int, without: tuple[str, str] | None = None) -> list[tuple[str, str, str]]:
    """n patients of each sex in each of two ages, less one combination."""
    rows: list[tuple[str, str, str]] = []
    for sex in ("female", "male"):
        for age in ("30", "40"):
            if (sex, age) != without:
                rows += people(n, sex, age, len(rows))
    return rows


def test_a_combination_that_chance_would_hardly_leave_out_is_named_with_what_was_expected():
    found = audit(crossed(20, without=("male", "40")), smallest_cell=5)
    assert found.missing_combinations is not None
    (gap,) = found.missing_combinations

    assert (gap.attributes, gap.partition) == (("fetal sex", "maternal age"), "all")
    assert gap.levels == ("male", "35 years and above")
    assert gap.expected == pytest.approx(6.7)  # 20 of 60 are male, 20 of 60 are 35 and above
    assert gap.p_value < 1e-4


def test_no_combination_is_missing_where_chance_could_be_why_or_none_is_empty():
    assert audit(crossed(20), smallest_cell=5).missing_combinations == ()
    assert audit(crossed(2, without=("male", "40"))).missing_combinations == ()


def test_levels_that_decide_each_other_are_no_missing_combination():
    rows = people(30, "female", "30") + people(30, "male", "40", 30)

    assert audit(rows, smallest_cell=5).missing_combinations == ()


def test_a_combination_that_only_training_lacks_is_named_for_training():
    rows = [*crossed(20, without=("male", "40")), *people(20, "male", "40", 100)]
    found = audit(rows, [TRAINING] * 60 + [TEST] * 20, smallest_cell=5)
    assert found.missing_combinations is not None

    assert [gap.partition for gap in found.missing_combinations] == [TRAINING]


# --- partitions --------------------------------------------------------------------------------


def test_few_tuning_patients_count_with_training_and_many_by_themselves():
    few = audit(crossed(30), [TRAINING] * 90 + [TUNING] * 10 + [TEST] * 20, smallest_cell=1)
    many = audit(crossed(30), [TRAINING] * 70 + [TUNING] * 30 + [TEST] * 20, smallest_cell=1)

    assert {cell.partition for cell in few.cells} == {"all", DEVELOPMENT, TEST}
    assert {cell.partition for cell in many.cells} == {"all", TRAINING, TUNING, TEST}


def shifted(rows: list[tuple[str, str, str]], partition: list[str], smallest_cell: int = 5):
    """Shifts of declared attributes by attribute."""
    frame = pd.DataFrame(rows, columns=["patient_id", "Sex", "Age"]).astype("string")
    found = declared_shifts(
        frame[["patient_id"]],
        frame[["Sex", "Age"]],
        (SEX, AGE),
        pd.Series(partition, dtype="string"),
        audit(rows, partition, smallest_cell=smallest_cell).cells,
        smallest_cell=smallest_cell,
        n_resamples=100,
        seed=0,
    )
    return {shift.attribute: shift for shift in found}


def test_a_band_missing_from_training_is_a_shift_that_names_it():
    rows = people(40, "female", "30") + people(40, "male", "30", 40) + people(20, "male", "40", 80)
    found = shifted(rows, [TRAINING] * 70 + [TEST] * 30)["maternal age"]

    assert found.is_training_to_test
    assert found.total_variation == pytest.approx(20 / 30)
    assert found.total_variation > (found.floor or 0)
    assert found.one_sided == (f"35 years and above only in {TEST}",)


def test_a_shift_tells_no_more_than_the_cells_do():
    """Of two levels that are withheld in one partition the sum alone is known, and no distance."""
    rows = people(27, "female", "30") + people(23, "male", "40", 27)
    found = shifted(rows, ([TRAINING] * 14 + [TEST] * 13) + ([TRAINING] * 20 + [TEST] * 3))

    assert found == {}


def test_attributes_of_the_target_that_the_data_lack_are_named_with_the_reason():
    wanted = {
        "parity": TargetAttribute({"0": 1.0}, "s"),
        "fetal sex": target(female=0.5, male=0.5).attributes["fetal sex"],
    }
    found = audit(people(9, "", "30"), target=TargetPopulation("x", wanted))

    assert found.distances == ()
    assert found.not_compared == (
        "parity: the data contract does not declare it",
        "fetal sex: no patient has a value",
    )


def test_a_target_with_other_levels_than_the_contract_is_refused():
    with pytest.raises(SettingsError, match="unknown level 'F'"):
        audit(people(9, "female", "30"), target=target(F=0.5, male=0.5))


def test_metadata_of_another_length_is_refused():
    table = pd.DataFrame({"patient_id": ["1", "2"]})
    with pytest.raises(ValueError, match="1 rows of metadata for 2 images"):
        demographics_audit(
            table, pd.DataFrame({"Sex": ["f"]}), (SEX,), smallest_cell=5, n_resamples=50, seed=0
        )


@needs_kit
def test_head_circumference_of_hc18_has_a_distribution_in_each_partition():
    table = locate_data_set(KIT / "hc18")[0].list_images(KIT / "hc18").table
    names = np.unique(table["patient_id"].astype(str))
    side = dict(zip(names, np.where(np.arange(len(names)) % 3, TRAINING, TEST), strict=True))
    (declared,) = load_contract("hc18").demographics
    found = demographics_audit(
        table,
        pd.DataFrame(),
        (declared,),
        table["patient_id"].astype(str).map(side),
        smallest_cell=5,
        n_resamples=100,
        seed=0,
    )

    assert [x.partition for x in found.numbers] == ["all", TRAINING, TEST]
    assert (found.numbers[0].n_images, found.numbers[0].n_patients) == (999, 806)
    assert found.numbers[0].quantiles[4] == pytest.approx(174.05)
    assert 40 < found.numbers[0].quantiles[0] < found.numbers[0].quantiles[-1] < 350
    assert found.declared[0].is_proxy
    assert "gestational age" not in found.undeclared


@needs_kit
def test_a_split_of_hc18_by_file_order_is_a_shift_of_the_trimester():
    table = locate_data_set(KIT / "hc18")[0].list_images(KIT / "hc18").table
    numbers = table["patient_id"].astype(int)
    partition = pd.Series(np.where(numbers <= numbers.quantile(0.75), TRAINING, TEST))
    declared = load_contract("hc18").demographics
    given = {"smallest_cell": 5, "n_resamples": 100, "seed": 0}
    cells = demographics_audit(table, pd.DataFrame(), declared, partition, **given).cells
    (found,) = declared_shifts(table, pd.DataFrame(), declared, partition, cells, **given)

    assert found.attribute == "gestational age"
    assert found.total_variation > 0.5 > 5 * (found.floor or 1)
    assert found.one_sided == (
        f"first trimester (derived) only in {TRAINING}",
        f"third trimester (derived) only in {TEST}",
    )
