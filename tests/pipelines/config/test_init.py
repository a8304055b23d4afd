import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from governance.people.rules import UNTOUCHED, RunFacts, human_result
from governance.policy.load import load_policy
from governance.records.base import ItemStatus
from governance.reports.card.fields import DECLARABLE_FIELDS
from pipelines.cli.app import app
from pipelines.config.model import load_config
from pipelines.current_run.identity import tool_version
from pipelines.people.entries import json_schema
from pipelines.people.read import read_declarations
from tests.places import ROOT

POLICY = load_policy()
HUMAN = [item for item in POLICY.items if item.kind == "human"]
NAMES = {"medisynth.yaml", "declarations.yaml", "declarations.schema.json"}
DOCS = ROOT / "docs"


@pytest.fixture
def folder(tmp_path):
    result = CliRunner().invoke(app, ["init", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 3
    return tmp_path / "new"


def test_init_writes_a_configuration_that_a_run_takes_as_it_is(folder):
    assert {path.name for path in folder.iterdir()} == NAMES
    config = load_config(folder / "medisynth.yaml")

    declarations = str(Path.cwd() / "declarations.yaml")
    assert (config.preset, config.declarations) == ("laptop", declarations)


def test_the_template_asks_for_every_human_item_and_declares_none(folder):
    found = read_declarations(str(folder / "declarations.yaml"), POLICY).document

    assert [entry.id for entry in found.declarations] == [item.id for item in HUMAN]
    assert found.waivers == ()
    for item in HUMAN:
        result = human_result(item, found, RunFacts(), found.read_utc.date())
        assert (result.status, result.reason) == (ItemStatus.MISSING, UNTOUCHED)


def test_the_minimal_template_asks_for_five_core_items_of_a_generator_and_version(tmp_path):
    result = CliRunner().invoke(app, ["init", str(tmp_path), "--minimal"])

    assert result.exit_code == 0, result.output
    found = read_declarations(str(tmp_path / "declarations.yaml"), POLICY).document
    core = {item.id for item in HUMAN if item.item_class == "C"}
    assert len(found.declarations) == 5
    assert {entry.id for entry in found.declarations} <= core
    for entry in found.declarations:
        assert (entry.applies_to.model, entry.applies_to.version) == ("dsr-gan", tool_version())
        assert entry.applies_to.config == ""


def test_every_title_and_card_field_stands_in_the_template(folder):
    text = (folder / "declarations.yaml").read_text("utf-8")
    flat = " ".join(text.replace("\n  # ", " ").split())

    for item in HUMAN:
        assert item.title in flat
    for key, title in DECLARABLE_FIELDS.items():
        assert f"{key}: TODO # {title}" in flat


@pytest.mark.parametrize("name", sorted(NAMES))
def test_init_overwrites_nothing(tmp_path, name):
    (tmp_path / name).write_text("mine")

    result = CliRunner().invoke(app, ["init", str(tmp_path)])

    assert result.exit_code == 2
    assert f"{name}: exists already and is not overwritten" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_init_into_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    result = CliRunner().invoke(app, ["init", str(tmp_path / "file")])

    assert result.exit_code == 2
    assert "not a folder" in result.stderr


def example_of_the_page() -> dict:
    """The first YAML block of docs/declarations.md, days as text, as editors see it."""
    text = (DOCS / "declarations.md").read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    loaded = YAML(typ="safe", pure=True).load(text)
    return json.loads(json.dumps(loaded, default=str))


def test_the_editors_schema_takes_a_filled_file_and_refuses_unknown_items(folder):
    schema = json.loads((folder / "declarations.schema.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    good = example_of_the_page()
    unknown = {"declarations": [{**good["declarations"][0], "id": "P4-01"}]}

    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(validator.iter_errors(good)) == []
    assert not validator.is_valid(unknown)
    assert not validator.is_valid({"declaration": []})
    assert schema == json.loads(json.dumps(json_schema(POLICY, tuple(DECLARABLE_FIELDS))))


def test_the_example_of_the_page_can_be_used(tmp_path):
    text = (DOCS / "declarations.md").read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "declarations.yaml"
    path.write_text(text)

    document = read_declarations(str(path), POLICY).document

    assert [entry.id for entry in document.declarations] == ["P1-H1"]
    assert [waiver.id for waiver in document.waivers] == ["P5-01"]
