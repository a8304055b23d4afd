"""The flow of images adds up by subgroup."""

import pandas as pd

from governance.records.dataset import FlowLevel
from medisynth.data.audit.coverage import flow_step

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
    assert FlowLevel(attribute="machine", level="E6", n_images=2, n_patients=2) in step.levels
    assert (
        FlowLevel(attribute="machine", level="not recorded", n_images=1, n_patients=1)
        in step.levels
    )
