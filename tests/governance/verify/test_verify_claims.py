"""Card, page and PDF are drawn again and compared: each kind of lie is named, none is invented."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.evidence.manifest import add_outputs
from governance.records.people import SigningRecord
from governance.reports.audit_report import drawn_outputs
from governance.reports.card.write import write_model_card
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.verify import claims
from governance.verify.folder import verify_run
from pipelines.steps.s8_report import write_outputs
from tests.stored_run.stored import HOSTILE, Variant, showing, write_run

_EXAMPLES = {
    "complete": Variant(openings=2),
    "blocked": Variant(blocked=True),
    "hostile": Variant(odd=HOSTILE, fid=False, gate_passed=False),
}


def build(folder: Path, example: Variant) -> Path:
    run_dir = write_run(folder, example)
    write_outputs(run_dir, drawn_outputs(run_dir))
    return run_dir


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: build(tmp_path_factory.mktemp(name), example) for name, example in _EXAMPLES.items()
    }


@pytest.fixture
def run_dir(built: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(built["complete"], tmp_path / "run"))


def relist(run_dir: Path, name: str, data: bytes) -> tuple[str, ...]:
    """What verification says after the owner changed an output and listed it anew."""
    (run_dir / name).write_bytes(data)
    add_outputs(run_dir, [name])
    return verify_run(run_dir).faults


@pytest.fixture
def of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another version than this one had drawn card and reports."""
    monkeypatch.setattr(claims, "renderer", lambda: "5" * 64)


@pytest.mark.parametrize("name", _EXAMPLES)
def test_what_was_drawn_from_the_evidence_is_drawn_again_with_the_same_bytes(built, name):
    found = verify_run(built[name])

    assert found.faults == ()
    assert found.outputs == "drawn again from the documents: the same bytes"


@pytest.mark.parametrize("name", _EXAMPLES)
def test_what_another_version_drew_is_compared_in_its_claims_and_verify_says_so(
    built, of_another_version, name
):
    found = verify_run(built[name])

    assert found.faults == ()
    assert found.outputs.startswith("drawn by another version (")
    assert "cannot be compared" in found.outputs
    assert "gate, statuses, waivers and metrics of model_card.json were compared" in found.outputs


def _set(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(card: dict[str, Any]) -> None:
        inner: Any = card
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


_LIES = [
    (_set("verdict", "gate", value="failed"), "/verdict/gate is 'failed', the documents give"),
    (_set("verdict", "exit_code", value=9), "/verdict/exit_code is 9, the documents give 0"),
    (
        _set("principles", 0, "status", value="satisfied"),
        "/principles/0/status is 'satisfied', the documents give 'not satisfied'",
    ),
    (_set("principles", 3, "n_passed", value=13), "/principles/3/n_passed is 13, the documents"),
    (
        _set("principles", 0, "id", value="P11"),
        "/principles/0/id is 'P11', the documents give 'P1'",
    ),
    (_set("principles", value=7), "/principles is 7, the documents give a list of 10"),
    (_set("waivers", value=[{"item_id": "P5-01"}]), "/waivers is a list of 1, the documents give"),
    (_set("metrics", 0, "value", value=0.01), "/metrics/0/value is 0.01, the documents give 0.04"),
    (_set("metrics", 0, "ci95", value=None), "/metrics/0/ci95 is None, the documents give a list"),
    (_set("metrics", value=[]), "/metrics is a list of 0, the documents give a list of"),
    (_set("hashes", "checkpoint", value="0" * 64), "/hashes/checkpoint is '000"),
    (_set("hashes", "data_content", value=None), "/hashes/data_content is None, the documents"),
    (_set("hashes", "commit", value="1" * 40), "/hashes/commit is '111"),
    (_set("signing", "key_id", value="a" * 64), "/signing/key_id is 'aaa"),
    (_set("verdict", value=None), "/verdict is None, the documents give an object of"),
    (_set("run_id", value="another"), "/run_id is 'another', the documents give '"),
]
_LIES_IN_WORDS = [
    (
        _set("verdict", "headline", value="Gate not passed"),
        "/verdict/headline is 'Gate not passed'",
    ),
    (
        _set("metrics", 0, "printed", "value", value="0.0157"),
        "/metrics/0/printed/value is '0.0157'",
    ),
    (_set("conditions", value=["First opening of this test set."]), "/conditions is a list of 1"),
]


def lie(run_dir: Path, change: Callable[[dict[str, Any]], None]) -> tuple[str, ...]:
    card = json.loads((run_dir / "model_card.json").read_bytes())
    change(card)
    return relist(run_dir, "model_card.json", json.dumps(card).encode())


@pytest.mark.parametrize(("change", "said"), _LIES)
def test_a_card_that_says_otherwise_than_the_documents_is_named_whoever_drew_it(
    run_dir, of_another_version, change, said
):
    faults = lie(run_dir, change)

    assert any(fault.startswith(f"model_card.json: {said}") for fault in faults), faults


@pytest.mark.parametrize(("change", "said"), _LIES_IN_WORDS)
def test_a_card_that_prints_otherwise_than_it_is_drawn_is_named(run_dir, change, said):
    faults = lie(run_dir, change)

    assert any(fault.startswith(f"model_card.json: {said}") for fault in faults), faults


def test_many_lies_of_a_card_are_named_in_part_and_counted(run_dir, of_another_version):
    faults = lie(run_dir, lambda card: card.update(principles=[{} for _ in card["principles"]]))

    assert len(faults) == 6
    assert faults[-1].startswith("model_card.json: ")
    assert faults[-1].endswith(" more differences")


def test_a_card_that_is_no_json_is_named(run_dir):
    assert relist(run_dir, "model_card.json", b"{") == ("model_card.json: not a JSON file",)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model_card.md", b"Gate passed", b"Gate not passed"),
        ("model_card.md", b"opening 2", b"opening 1"),
        ("report.html", b"not satisfied", b"satisfied"),
        ("report.html", b"0.0457", b"0.0157"),
    ],
)
def test_a_rendering_that_says_otherwise_than_it_is_drawn_is_named(run_dir, name, old, new):
    data = (run_dir / name).read_bytes()
    assert old in data

    faults = relist(run_dir, name, data.replace(old, new))

    assert faults == (f"{name}: is not what the documents of the run give, drawn again",)


def test_a_pdf_of_another_run_is_named_and_one_with_a_byte_more_too(built, run_dir):
    said = ("report.pdf: is not what the documents of the run give, drawn again",)
    longer = (run_dir / "report.pdf").read_bytes() + b" "

    assert relist(run_dir, "report.pdf", longer) == said
    assert relist(run_dir, "report.pdf", (built["hostile"] / "report.pdf").read_bytes()) == said


def test_documents_that_were_changed_are_not_drawn_again(run_dir):
    (run_dir / "summary.json").write_bytes(b"{}")

    found = verify_run(run_dir)

    assert found.outputs == "not compared: the evidence itself does not verify"
    assert [fault.split(":")[0] for fault in found.faults] == ["summary.json"]


def with_signing(evidence: ReportEvidence, record: SigningRecord) -> dict[str, Any]:

    text, data = write_model_card(showing(evidence, record))
    card = json.loads(data)
    return {
        "text": text.decode(),
        "json": card["signing"],
        "field": next(
            field
            for section in card["sections"]
            for field in section["fields"]
            if field["id"] == "signature"
        ),
    }


def test_the_card_names_who_signs_and_that_nobody_vouches_for_it(run_dir):
    key_id = "ab" * 32
    record = SigningRecord(key_id=key_id, key={}, source="file", identity="A. Person, a hospital")

    card = with_signing(load_evidence(run_dir), record)

    assert card["json"] == {
        "sentence": record.sentence,
        "key_id": key_id,
        "identity": "A. Person, a hospital",
        "timestamp_url": None,
    }
    rows = {row["name"]: row["value"] for row in card["field"]["content"][0]["rows"]}
    assert rows == {
        "Signed by": "A. Person, a hospital",
        "Key id": key_id,
        "What that shows": "locally generated key, identity not vouched for",
    }
    assert key_id in card["text"]
    assert "medisynth-gov verify shows whether they are there" in card["text"]


def test_the_card_of_an_unsigned_run_says_so(run_dir):
    plain = with_signing(load_evidence(run_dir), SigningRecord())
    stamped = with_signing(load_evidence(run_dir), SigningRecord(timestamp_url="https://tsa.test"))

    assert (plain["json"]["sentence"], plain["field"]["state"]) == ("unsigned", "not available")
    assert plain["field"]["reason"] == "the run is unsigned: nothing shows who wrote it"
    assert [row["value"] for row in stamped["field"]["content"][0]["rows"]] == [
        "nobody: the run is unsigned",
        "https://tsa.test",
    ]
