"""Card, page and PDF are compared with the evidence: each kind of lie is named, none is invented."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governance.evidence.manifest import add_outputs
from governance.records.people import SigningRecord
from governance.reports.audit_report import write_audit_report, write_html
from governance.reports.card.write import write_model_card
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.verify.claims import _is_rounded
from governance.verify.folder import verify_run
from pipelines.steps.s8_report import write_outputs
from tests.governance.signing.signed_run import small_pdf
from tests.stored_run.stored import HOSTILE, Variant, showing, write_run

_EXAMPLES = {
    "complete": Variant(openings=2),
    "blocked": Variant(blocked=True),
    "hostile": Variant(odd=HOSTILE, fid=False, gate_passed=False),
}


def build(folder: Path, example: Variant) -> Path:
    run_dir = write_run(folder, example)
    evidence = load_evidence(run_dir)
    text, data = write_model_card(evidence)
    outputs = {"model_card.md": text, "model_card.json": data, "report.html": write_html(evidence)}
    write_outputs(run_dir, outputs | {"report.pdf": write_audit_report(evidence)})
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


@pytest.mark.parametrize("name", _EXAMPLES)
def test_what_was_rendered_from_the_evidence_agrees_with_it(built, name):
    assert verify_run(built[name]).faults == ()


def _set(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(card: dict[str, Any]) -> None:
        inner: Any = card
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _set("verdict", "gate", value="failed"),
            "its gate is 'failed', summary.json has 'passed'",
        ),
        (_set("verdict", "exit_code", value=9), "its exit_code is 9, summary.json has 0"),
        (_set("verdict", "headline", value="Gate not passed"), "says 'Gate not passed', the gate"),
        (
            _set("principles", 0, "status", value="satisfied"),
            "principle P1: its status is 'satisfied', summary.json has 'not satisfied'",
        ),
        (
            _set("principles", 3, "n_passed", value=13),
            "principle P4: its n_passed is 13, summary.json has 6",
        ),
        (_set("principles", 0, "id", value="P11"), "principles or waivers are not those of"),
        (_set("waivers", value=[{"item_id": "P5-01", "state": "in force"}]), "principles or waiv"),
        (_set("metrics", 0, "value", value=0.01), "its value is 0.01, metrics/evaluation.json has"),
        (_set("metrics", 0, "ci95", value=None), "its ci95 is None, metrics/evaluation.json has"),
        (
            _set("metrics", 0, "printed", "value", value="0.0157"),
            "prints '0.0157', metrics/evaluation.json has 0.04567",
        ),
        (_set("metrics", value=[]), "0 metrics, metrics/evaluation.json has"),
        (
            _set("conditions", value=["First opening of this test set (confirmatory)."]),
            "do not say 'exploratory, opening 2', as metrics/evaluation.json does",
        ),
        (_set("hashes", "checkpoint", value="0" * 64), "its checkpoint is '000"),
        (_set("hashes", "data_content", value=None), "its data_content is None, data/dataset.json"),
        (_set("hashes", "commit", value="1" * 40), "its commit is '111"),
        (_set("signing", "key_id", value="a" * 64), "its key_id is 'aaa"),
        (_set("verdict", value=None), "not in the form of a card"),
        (_set("principles", value=7), "not in the form of a card"),
    ],
)
def test_a_card_that_says_otherwise_than_the_documents_is_named(run_dir, change, said):
    card = json.loads((run_dir / "model_card.json").read_bytes())
    change(card)

    faults = relist(run_dir, "model_card.json", json.dumps(card).encode())

    assert any(fault.startswith("model_card.json: ") and said in fault for fault in faults), faults


def test_a_card_of_a_stopped_run_that_claims_a_gate_is_named(built, tmp_path):
    run_dir = Path(shutil.copytree(built["blocked"], tmp_path / "run"))
    card = json.loads((run_dir / "model_card.json").read_bytes())
    card["verdict"]["headline"] = "Gate passed"

    faults = relist(run_dir, "model_card.json", json.dumps(card).encode())

    assert "model_card.json: says 'Gate passed', outcome.json that the run did not finish" in faults


@pytest.mark.parametrize("name", ["model_card.md", "report.html"])
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Gate passed", "Gate not passed", "does not give the verdict"),
        ("opening 2", "opening 1", "does not give the opening of the test set"),
        ("not satisfied", "satisfied", "does not give the status of principle P1 "),
        ("partial", "satisfied", "does not give the status of principle P4 "),
        ("0.0457", "0.0157", "does not give the metric kid-inception_pool3-n24 "),
    ],
)
def test_a_rendering_that_says_otherwise_than_the_card_is_named(run_dir, name, old, new, said):
    data = (run_dir / name).read_bytes()
    assert old.encode() in data

    faults = relist(run_dir, name, data.replace(old.encode(), new.encode()))

    assert any(fault.startswith(f"{name}: {said}") for fault in faults), faults


@pytest.mark.parametrize("name", ["model_card.md", "report.html"])
def test_a_rendering_of_another_run_is_named(run_dir, name):
    data = (run_dir / name).read_bytes()
    run_id = verify_run(run_dir).run_id.encode()

    faults = relist(run_dir, name, data.replace(run_id, b"20260101T000000Z-00000000"))

    assert f"{name}: does not name the run of manifest.json, {run_id.decode()}" in faults


def test_a_pdf_of_another_run_or_opening_is_named_and_one_that_is_none_too(built, run_dir):
    other = (built["hostile"] / "report.pdf").read_bytes()

    faults = relist(run_dir, "report.pdf", other)
    assert any(f.startswith("report.pdf: does not name the evidence root of") for f in faults)
    assert "report.pdf: does not give the verdict as model_card.json does" in faults
    assert "report.pdf: does not give the opening of the test set as model_card.json does" in faults
    assert any("report.pdf: does not name" in f for f in relist(run_dir, "report.pdf", small_pdf()))
    assert relist(run_dir, "report.pdf", b"%PDF-1.4 no more") == (
        "report.pdf: its text cannot be read",
    )


@pytest.mark.parametrize(
    ("printed", "value", "fits"),
    [
        ("0.0457", 0.04567, True),
        ("0.0456", 0.04567, False),
        ("\u22120.0012", -0.0012, True),
        ("0.0012", -0.0012, False),
        ("12,345", 12345.4, True),
        ("", None, True),
        ("0", None, False),
        ("", 0.5, False),
        ("low", 0.5, False),
    ],
)
def test_a_printed_number_is_its_value_rounded(printed, value, fits):
    assert _is_rounded(printed, value) is fits


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
