"""The demographics audit counts patients as one would by hand and gives nobody away."""

import numpy as np
import pandas as pd
import pytest

from governance.records.audit import DemographicsAudit
from governance.records.base import TEST, TRAINING
from governance.records.errors import SettingsError
from medisynth.data.adapters import locate_data_set
from medisynth.data.audit.demographics import demographics_audit
from medisynth.data.audit.target_population import TargetAttribute, TargetPopulation
from medisynth.data.contract.contract import AttributeDeclaration
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


def test_a_withheld_level_is_not_given_away_by_the_words_of_the_distance():
    rows = people(60, "female", "30") + people(3, "male", "30", 60)
    found = audit(rows, target=target(female=0.5, male=0.5), smallest_cell=5)

    assert found.distances[0].widest == "male: a withheld share of the data, 50.0% of the target"


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
    declared = AttributeDeclaration(
        "gestational age",
        "head_circumference_mm",
        "number",
        "mm",
        (),
        (97, 177, 266),
        True,
        "proxy",
    )
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
