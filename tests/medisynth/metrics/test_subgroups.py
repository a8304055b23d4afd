"""Fidelity by subgroup: who is measured, against what, and which gap is found."""

import numpy as np
import pytest

from medisynth.metrics.features import RecordedExtractor
from medisynth.metrics.subgroups import (
    ALL_SAMPLES,
    DRAWN_FOR_LEVEL,
    GroupedImages,
    evaluate_subgroups,
    holm,
)

D = 8
EXTRACTOR = RecordedExtractor("pixels", "ab" * 32, D, "none")
SHIFT = {"A": 0.0, "B": 2.0}  # images of machine B lie elsewhere


def images(n_each: int, seed: int, machines: str = "AB") -> GroupedImages:
    """Images of patients of their own, machine by machine; the site says nothing."""
    rng = np.random.default_rng(seed)
    names = [machine for machine in machines for _ in range(n_each)]
    features = rng.normal(size=(len(names), D)) + np.array([[SHIFT[name]] for name in names])
    sites = [("North", "South")[k % 2] for k in range(len(names))]
    return GroupedImages(
        features, [f"p{k}" for k in range(len(names))], {"machine": names, "site": sites}
    )


def evaluated(synthetic, *, test=None, by_level=None, cells=None, least=30):
    return evaluate_subgroups(
        images(40, 1) if test is None else test,
        images(60, 2),
        synthetic,
        by_level or {},
        EXTRACTOR,
        least_patients=least,
        smallest_cells=cells or {},
        n_bootstrap=100,
        seed=0,
    )


def kids(found):
    return {m.subgroup: m for m in found.metrics if m.id.startswith("kid")}


def test_a_generator_of_all_machines_has_no_gap_and_reaches_the_floor_in_each():
    found = evaluated(images(40, 3).features)

    assert list(kids(found)) == ["machine=A", "machine=B", "site=North", "site=South"]
    for kid in kids(found).values():
        assert kid.ci95[0] < kid.floor < kid.ci95[1]
        assert (kid.n_patients, kid.synthetic_from) == (40, ALL_SAMPLES)
    assert all(gap.p_value > 0.05 for gap in found.gaps)


def test_a_generator_of_one_machine_alone_has_a_gap_that_is_found_and_named():
    found = evaluated(images(80, 3, machines="A").features)

    machine, site = found.gaps
    assert (machine.attribute, machine.worst, machine.best) == ("machine", "B", "A")
    assert machine.p_value < 0.001
    assert machine.ci95[0] > 0
    assert (site.attribute, site.p_value > 0.05) == ("site", True)
    assert machine.n_comparisons == 2


def test_images_drawn_for_a_level_are_compared_with_that_level_alone():
    ours = images(40, 3)
    by_level = {("machine", name): images(40, 4, name).features for name in "AB"}
    wrong = by_level | {("machine", "B"): images(40, 5, "A").features}

    good, bad = (evaluated(ours.features, by_level=drawn) for drawn in (by_level, wrong))

    assert kids(good)["machine=B"].synthetic_from == DRAWN_FOR_LEVEL
    assert kids(good)["site=North"].synthetic_from == ALL_SAMPLES
    assert good.gaps[0].p_value > 0.05
    assert (bad.gaps[0].worst, bad.gaps[0].p_value < 0.001) == ("B", True)


def test_a_level_with_few_patients_is_too_few_and_takes_part_in_no_gap():
    found = evaluated(images(40, 3).features, test=images(29, 1))

    assert {m.status for m in found.metrics if m.subgroup.startswith("machine")} == {
        "not evaluated"
    }
    kid = kids(found)["machine=A"]
    assert (kid.value, kid.n_patients) == (None, 29)
    assert kid.reason == "too few: 29 patients, needs 30"
    assert found.gaps == ()


def test_an_attribute_with_one_level_divides_nothing():
    both_sites = evaluated(images(40, 3).features, test=images(80, 1, "A"))
    one = GroupedImages(images(40, 1, "A").features, [str(k) for k in range(40)], {"m": ["A"] * 40})

    assert [gap.attribute for gap in both_sites.gaps] == ["site"]
    assert evaluated(images(40, 3).features, test=one).metrics == ()


def test_images_without_a_value_are_in_no_level():
    test = images(40, 1)
    levels = {"machine": ["" if k < 5 else x for k, x in enumerate(test.levels["machine"])]}
    test = GroupedImages(test.features, test.patients, levels)

    found = kids(evaluated(images(40, 3).features, test=test))

    assert {name: kid.n_patients for name, kid in found.items()} == {
        "machine=A": 35,
        "machine=B": 40,
    }


def test_counts_that_would_identify_people_are_withheld_and_not_given_away_by_others():
    test = images(40, 1)
    ages = ["young" if k < 3 else "other" for k in range(len(test.patients))]
    test = GroupedImages(test.features, test.patients, {"age": ages})
    training = GroupedImages(images(60, 2).features, [str(k) for k in range(120)], {"age": []})

    found = evaluate_subgroups(
        test,
        training,
        images(40, 3).features,
        {},
        EXTRACTOR,
        least_patients=30,
        smallest_cells={"age": 5},
        n_bootstrap=50,
        seed=0,
    )

    young, other = kids(found)["age=young"], kids(found)["age=other"]
    assert (young.n_patients, young.reason) == (0, "too few: fewer than 5 patients, needs 30")
    assert other.n_patients == 75
    assert "rounded down to a multiple of 5" in other.reason


def test_the_same_seed_gives_the_same_numbers():
    assert evaluated(images(40, 3).features) == evaluated(images(40, 3).features)


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([], []),
        ([0.01], [0.01]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
    ],
)
def test_p_values_are_adjusted_step_by_step(given, adjusted):
    assert holm(given) == pytest.approx(adjusted)
