"""A target population is read strictly, and a template that is not filled in is refused."""

import re
from pathlib import Path

import pytest

from governance.records.errors import SettingsError
from medisynth.data.audit.target_population import (
    TargetAttribute,
    TargetPopulation,
    bin_names,
    check_levels,
    load_target_population,
)
from medisynth.data.contract.contract import AttributeDeclaration
from pipelines.cli.data import target_population_template
from pipelines.config.model import preset_names

GOOD = """
name: women scanned in X, 2025
attributes:
  fetal sex:
    shares: {female: 0.49, male: 0.51}
    source: register X, 2025
"""


def read(folder: Path, text: str | bytes) -> TargetPopulation:
    path = folder / "target.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_target_population(path)


def test_a_filled_file_is_read(tmp_path):
    found = read(tmp_path, GOOD)

    assert found.name == "women scanned in X, 2025"
    assert found.attributes == {
        "fetal sex": TargetAttribute({"female": 0.49, "male": 0.51}, "register X, 2025")
    }


def test_shares_within_a_hundredth_of_one_are_divided_by_their_sum(tmp_path):
    found = read(tmp_path, GOOD.replace("0.49", "0.485"))

    assert sum(found.attributes["fetal sex"].shares.values()) == pytest.approx(1)


def test_the_packaged_template_names_all_usual_attributes_and_is_refused_unfilled(tmp_path):
    text = target_population_template()

    for name in ("maternal age", "ethnicity", "body mass index", "gestational age", "parity"):
        assert f"\n  {name}:" in text
    with pytest.raises(SettingsError, match="the template is not filled in; expected shares and"):
        read(tmp_path, text)
    assert "target_population" not in preset_names()


def test_the_template_filled_in_for_one_attribute_still_asks_for_the_others(tmp_path):
    text = target_population_template().replace('name: ""', "name: here")
    text = text.replace("female:", "female: 0.5").replace(" male:", " male: 0.5")
    with pytest.raises(SettingsError, match=r"maternal age\.shares: no share of 'below 20 years'"):
        read(tmp_path, text)


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("women scanned in X, 2025", '""', "name: is empty"),
        ("register X, 2025", "TODO", "attributes.fetal sex.source: is empty"),
        ("0.49", "0.30", "attributes.fetal sex.shares: add up to 0.810; expected 1"),
        ("0.49", ".nan", "attributes.fetal sex.shares.female: input should be"),
        ("0.49", "-0.1", "attributes.fetal sex.shares.female: input should be"),
        ("0.49", "'0.49'", "attributes.fetal sex.shares.female: input should be"),
        ("female:", "1:", "must be text; write it in quotes"),
        ("source:", "sources:", "attributes.fetal sex.source: field required"),
        ("name:", "nam:", "name: field required"),
        ("fetal sex:", "fetal sex: &a", "input should be"),
        ("male: 0.51", "male: 0.51, male: 0.51", "duplicate key"),
        ("{female: 0.49, male: 0.51}", "{}", "at least 1 item"),
    ],
)
def test_a_faulty_file_is_refused_in_one_sentence_with_file_and_key(tmp_path, old, new, words):
    text = GOOD.replace(old, new)
    if "&a" in new:
        text = GOOD.replace("{female: 0.49, male: 0.51}", "[1, 2]")
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)

    message = str(caught.value)
    assert words in message
    assert message.startswith(str(tmp_path / "target.yaml"))
    assert "\n" not in message


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 20_000,
        b"\xff\xfe\x00",
        b"a: !!python/object/apply:os.system [ls]",
        b"- 1",
        b"x" * (64 * 1024 + 1),
        b"name: 2024-99-99\nattributes: {}",
    ],
)
def test_what_is_no_target_population_is_refused_without_a_traceback(tmp_path, data):
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path))):
        read(tmp_path, data)


@pytest.mark.malformed("config")
def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"gone\.yaml: cannot be read"):
        load_target_population(tmp_path / "gone.yaml")


def test_bins_are_named_after_their_edges():
    assert bin_names((97, 177.5), "mm") == (
        "below 97 mm",
        "97 to below 177.5 mm",
        "177.5 mm and above",
    )
    assert bin_names((20,), "") == ("below 20", "20 and above")
    assert bin_names((), "mm") == ()


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"female": 0.5, "m": 0.5}, "unknown level 'm'; expected the levels of the data contract"),
        ({"female": 1.0}, "no level 'male'"),
    ],
)
def test_levels_other_than_the_declared_ones_are_refused(shares, words):
    target = TargetPopulation("x", {"fetal sex": TargetAttribute(shares, "s")}, "target.yaml")
    declared = [AttributeDeclaration("fetal sex", "sex", "category", levels=("female", "male"))]
    with pytest.raises(SettingsError, match=words):
        check_levels(target, declared)


@pytest.mark.malformed("config")
def test_an_alias_is_refused_with_its_line(tmp_path):
    path = tmp_path / "target.yaml"
    path.write_text("name: &n ours\nattributes: {}\nother: *n\n", encoding="utf-8")

    with pytest.raises(SettingsError, match=r"target\.yaml:1: anchors and aliases are not allowed"):
        load_target_population(path)
