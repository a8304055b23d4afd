"""The flow of images adds up by subgroup, and a flow that does not is told."""

from dataclasses import replace

import pandas as pd
import pytest

from medisynth.data.audit.coverage import FlowLevel, FlowStep, flow_faults, flow_step

TABLE = pd.DataFrame(
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
    step = flow_step("listed", TABLE, "as published")

    assert (step.n_images, step.n_patients, step.note) == (4, 3, "as published")
    assert {level.attribute for level in step.levels} == {"plane", "brain_plane", "machine"}
    for attribute in ("plane", "brain_plane", "machine"):
        assert sum(x.n_images for x in step.levels if x.attribute == attribute) == 4
    assert FlowLevel("machine", "E6", 2, 2) in step.levels
    assert FlowLevel("machine", "not recorded", 1, 1) in step.levels


def test_a_flow_that_only_loses_images_has_no_fault():
    brain = TABLE[TABLE["plane"] == "Fetal brain"]
    steps = [flow_step("listed", TABLE), flow_step("selected", brain), flow_step("none", brain[:0])]

    assert flow_faults(steps) == ()


def test_a_step_with_more_images_than_before_is_a_fault():
    steps = [flow_step("listed", TABLE[:3]), flow_step("selected", TABLE)]

    assert "selected has 4 images, listed only 3" in flow_faults(steps)
    assert any("machine not recorded has 1 images" in words for words in flow_faults(steps))


def test_a_swap_between_levels_is_a_fault_though_the_totals_fit():
    steps = [
        flow_step("listed", TABLE, attributes=["machine"]),
        flow_step("present", TABLE.assign(machine="E6"), attributes=["machine"]),
    ]

    assert flow_faults(steps) == (
        "present: machine E6 has 4 images of 3 patients, listed only 2 of 2",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_images": 5}, "the levels of plane hold 4 images, the step 5"),
        ({"n_patients": 9}, "9 patients in 4 images"),
        ({"levels": (FlowLevel("plane", "Other", 4, 5),)}, "plane Other has 5 patients"),
    ],
)
def test_a_step_that_contradicts_itself_is_a_fault(change, words):
    step = replace(flow_step("listed", TABLE), **change)

    assert any(words in fault for fault in flow_faults([step]))


def test_an_attribute_that_appears_from_nowhere_is_a_fault():
    steps = [FlowStep("listed", 4, 3), flow_step("selected", TABLE, attributes=["plane"])]

    assert flow_faults(steps) == ("selected counts plane, listed does not",)
