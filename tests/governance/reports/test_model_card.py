import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from governance.people.rules import NO_FILE
from governance.reports import formats
from governance.reports.audit_report import write_audit_report
from governance.reports.card.fields import FIELD_IDS
from governance.reports.card.write import completeness, write_model_card
from governance.reports.draw.markdown import markdown_paragraph, markdown_text
from governance.reports.evidence import load_evidence
from governance.reports.items import item_views
from tests.governance.reports.report_tools import pdf_text
from tests.stored_run.stored import HOSTILE, LONG, Variant, write_run

MINUS = "\u2212"
_EXAMPLES = {
    "complete": Variant(),
    "blocked": Variant(blocked=True),
    "hostile": Variant(odd=HOSTILE + LONG, fid=False, openings=3, gate_passed=False),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: write_run(tmp_path_factory.mktemp(name), example)
        for name, example in _EXAMPLES.items()
    }


def _card(run_dir: Path) -> tuple[str, dict[str, Any]]:
    text, data = write_model_card(load_evidence(run_dir))
    return text.decode(), json.loads(data)


def _validator() -> jsonschema.Draft202012Validator:
    path = resources.files("governance.reports.card") / "model_card.schema.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text("utf-8")))


def _field(card: dict[str, Any], key: str) -> dict[str, Any]:
    fields = [field for section in card["sections"] for field in section["fields"]]
    found: dict[str, Any] = next(field for field in fields if field["id"] == key)
    return found


@pytest.mark.parametrize("name", _EXAMPLES)
def test_the_json_card_follows_its_schema(runs, name):
    _validator().validate(_card(runs[name])[1])


def test_the_schema_refuses_an_unfilled_field_without_a_reason(runs):
    card = _card(runs["complete"])[1]
    _field(card, "intended_use")["reason"] = ""

    assert not _validator().is_valid(card)


@pytest.mark.parametrize("name", _EXAMPLES)
def test_every_field_is_filled_or_says_why_not(runs, name):
    text, card = _card(runs[name])
    result = completeness(json.dumps(card))

    assert result.empty == ()
    assert result.n_filled + result.n_reasoned == len(FIELD_IDS)
    assert text.count("\n### ") == len(FIELD_IDS)


def test_completeness_counts_and_names_fields():
    def field(key: str, state: str, reason: str, content: list[str]) -> dict[str, Any]:
        return {"id": key, "state": state, "reason": reason, "content": content}

    fields = [
        field("a", "filled", "", ["x"]),
        field("b", "not available", "no data", []),
        field("c", "not available", " ", []),
        field("d", "filled", "", []),
    ]

    assert completeness({"sections": [{"id": "s", "fields": fields}]}) == (1, 1, ("s.c", "s.d"))


def test_declared_fields_are_not_declared_and_nothing_is_made_up(runs):
    card = _card(runs["complete"])[1]
    declared = [f for s in card["sections"] for f in s["fields"] if f["origin"] == "declared"]

    assert len(declared) == 16
    assert {field["state"] for field in declared} == {"not declared"}
    assert {field["reason"] for field in declared} == {NO_FILE}


def test_a_stopped_run_says_in_each_field_that_it_stopped(runs):
    card = _card(runs["blocked"])[1]

    assert card["metrics"] == []
    assert _field(card, "metrics")["state"] == "not available"
    assert _field(card, "metrics")["reason"] == "the run blocked at s2_validate"
    assert card["hashes"]["checkpoint"] is None


def test_what_was_not_measured_has_no_number(runs):
    card = _card(runs["hostile"])[1]
    fid = next(m for m in card["metrics"] if m["id"].startswith("fid"))

    assert fid["value"] is None
    assert fid["printed"]["value"] == ""
    assert fid["reason"] == "the Inception weights are not in the cache"
    assert "fid" not in card["front_matter"]["metrics"]


def test_front_matter_is_yaml_that_old_readers_take_alike(runs):
    for run_dir in runs.values():
        text, card = _card(run_dir)
        matter = text.split("---\n")[1]
        yaml = YAML(typ="safe", pure=True)
        yaml.version = "1.1"

        assert text.startswith("---\n")
        assert yaml.load(matter) == card["front_matter"]


def test_numbers_of_card_json_and_pdf_agree(runs, tmp_path):
    evidence = load_evidence(runs["complete"])
    text, card = _card(runs["complete"])
    pdf = pdf_text(write_audit_report(evidence), tmp_path)
    printed = [part for metric in card["metrics"] for part in metric["printed"].values() if part]

    assert "0.0457" in printed
    assert "171 to 197" in printed
    for part in printed:
        assert part in text
        assert part in pdf
    table = _field(card, "metrics")["content"][0]
    assert table["rows"][0][1] == "0.0457; 0.0312 to 0.0611"
    results = card["front_matter"]["model-index"][0]["results"]
    assert [m["value"] for m in results[0]["metrics"]] == [0.0457, 183.0]
    assert _field(card, "memorisation")["content"][0]["rows"][0]["value"] in pdf


def test_every_gap_is_named_in_the_card(runs):
    evidence = load_evidence(runs["complete"])
    card = _card(runs["complete"])[1]
    limits = json.dumps(_field(card, "limits"))
    gaps = [item.id for item in item_views(evidence) if item.is_gap]

    assert len(gaps) > 50
    assert [gap for gap in gaps if f"{gap} " not in limits] == []
    names = json.dumps(_field(card, "absent_attributes"))
    assert all(name in names for name in ("gestational age", "ethnicity", "site"))


def test_what_the_data_cannot_tell_apart_is_among_biases_and_limits(runs):
    text, card = _card(runs["complete"])

    for field in ("biases", "limits"):
        said = json.dumps(_field(card, field), ensure_ascii=False)
        assert (
            "operator and machine go together (Cramér's V 0.61, p 0.001, limit 0.5): an effect of "
            "one cannot be told from an effect of the other." in said
        )
        assert "machine and plane go together" not in said
        assert "machine differs between training and held-out test set by 22.4 %" in said
        assert "operator, on one side only: Op. 3 only in training." in said
    assert text.count("operator and machine go together") == 2


def test_quality_tells_of_copies_labels_and_content_in_markdown_and_json_alike(runs):
    text, card = _card(runs["complete"])
    sentences = _field(card, "training_quality")["content"][0]["items"]

    assert [sentence.split(" ")[0] for sentence in sentences] == [
        "Data",
        "Duplicates",
        "Images",
        "Near-duplicate",
        "Taken",
        "Suspected",
        "Image",
    ]
    assert "2 pairs of equal images, 1 near-duplicate pair; 2 across patients." in sentences[1]
    assert "2 of 75 training images of 35 patients, 2.7 % (0.7 to 9.2)" in sentences[5]
    assert "text that looks identifying in 3 of 60 images read" in sentences[6]
    assert all(f"- {markdown_paragraph(sentence)}" in text for sentence in sentences)


def test_gaps_name_absent_declared_and_undeclared_attributes(runs):
    gaps = json.dumps(_field(_card(runs["complete"])[1], "data_gaps"))

    assert "Not recorded in the data set: gestational age, ethnicity, site." in gaps
    assert "Patients with a value for gestational age (by proxy): 100.0 %." in gaps
    assert "Not declared by the data contract: ethnicity, fetal sex, site, country." in gaps


def test_names_cannot_become_markup(runs):
    text = _card(runs["hostile"])[0]
    body = text.split("---\n", 2)[2]

    assert "<img" not in body
    assert "<b>" not in body
    assert "&lt;b&gt;bold&lt;/b&gt;" in body
    assert "\u202e" not in text


def test_markdown_letters_are_escaped():
    assert markdown_text("a|b `c` *d* [e](f) <g>") == ("a\\|b \\`c\\` \\*d\\* \\[e\\](f) &lt;g&gt;")
    assert markdown_paragraph("- x") == "\\- x"
    assert markdown_paragraph("# x") == "\\# x"
    assert markdown_paragraph(f"{MINUS}1 to 2") == f"{MINUS}1 to 2"


def test_the_card_uses_no_word_that_claims_too_much(runs):
    for run_dir in runs.values():
        text, card = _card(run_dir)
        # The title of P9-08 lists the words that it looks for.
        said = re.sub(r"P9-08 Word check[^;.]*", "", text + json.dumps(card))

        assert (
            re.findall(r"(?i)complian|certified|approved|ground truth|validation set", said) == []
        )


def test_numbers_are_written_with_three_significant_digits():
    assert formats.number(183.4567) == "183"
    assert formats.number(0.04567) == "0.0457"
    assert formats.number(12_400) == "12,400"
    assert formats.number(-0.5) == f"{MINUS}0.500"
    assert formats.number(0.0) == "0"
    assert formats.number(None) == "not available"
    assert formats.number(True) == "yes"
    assert formats.number(2.5e-08) == "2.50e-08"


def test_a_value_and_its_interval_have_equal_decimals():
    assert formats.estimate(183.4567, (171.25, 196.75)) == ("183", "171 to 197")
    assert formats.estimate(-0.0012, (-0.0105, 0.0093)) == (
        f"{MINUS}0.0012",
        f"{MINUS}0.0105 to 0.0093",
    )
    assert formats.estimate(1.0, None) == ("1.00", "")


def test_units_agree_with_their_number():
    assert formats.with_unit(1, "patients") == "1 patient"
    assert formats.with_unit(3, "patients") == "3 patients"
    assert formats.with_unit(0.02, "fraction of images") == "0.0200 (fraction of images)"
    assert formats.with_unit(1, "s") == "1 s"
