"""`recipe` and `deviations` in old settings: refused in a configuration, read in a finished run."""

import tomllib

import pytest
from pydantic import ValidationError

from medisynth.models.dsr_gan import DsrGanSettings
from medisynth.models.recipe import model_on_record
from medisynth.models.registry import load_generator
from medisynth.models.tb_gan import TbGanSettings
from tests.places import ROOT

BOTH = pytest.mark.parametrize(
    ("generator", "settings"), [("dsr-gan", DsrGanSettings), ("tb-gan", TbGanSettings)]
)
ON, OFF = {"some_fault": True, "other": False}, {"some_fault": False, "other": False}


@BOTH
@pytest.mark.parametrize(
    "asked", [{"recipe": "published"}, {"recipe": "corrected", "deviations": ON}]
)
def test_the_published_recipe_is_answered_with_the_name_of_its_generator(
    generator, settings, asked
):
    with pytest.raises(ValidationError, match=f"set model.name: {generator}-published and leave"):
        settings.model_validate(asked)


@BOTH
@pytest.mark.parametrize("asked", [{"recipe": "corrected"}, {"deviations": OFF}])
def test_a_key_that_says_nothing_more_is_to_be_left_out(generator, settings, asked):
    (key,) = asked

    with pytest.raises(ValidationError, match=f"{key}: {generator} has one recipe alone; leave"):
        settings.model_validate(asked)


@BOTH
def test_a_finished_run_without_deviations_is_read_by_the_generator_of_its_name(
    generator, settings
):
    values = settings().model_dump(mode="json")
    recorded = values | {"recipe": "corrected", "deviations": OFF}

    assert model_on_record(generator, recorded) == (generator, values)


@BOTH
def test_a_finished_run_of_the_published_recipe_is_read_by_the_published_generator(
    generator, settings
):
    name, read = model_on_record(generator, {"recipe": "published", "deviations": ON, "size": 32})

    assert (name, read) == (f"{generator}-published", {"deviations": ON, "size": 32})


def test_settings_of_another_generator_are_left_alone():
    settings = {"recipe": "published", "deviations": ON}

    assert model_on_record("third-party", settings) == ("third-party", settings)


def test_what_the_project_registers_is_a_generator_of_that_name():
    project = ROOT / "pyproject.toml"
    points = tomllib.loads(project.read_text("utf-8"))["project"]["entry-points"]
    registered = points["medisynth.models"]

    assert set(registered) == {
        *("dsr-gan", "dsr-gan-published", "tb-gan", "tb-gan-published"),
        "made-elsewhere",
    }
    for name, place in registered.items():
        assert load_generator(place).name == name
