"""A run and its ledger: what agrees, what a kill explains, and what was hidden or invented."""

import json
from pathlib import Path

import pytest

from governance.evidence.journal import RUN_RESUMED
from governance.evidence.store import EvidenceStore
from governance.sealing.ledger import Ledger
from governance.sealing.seal import seal_test_set
from governance.verify.ledger import check_openings
from tests.governance.signing.signed_run import RUN_ID, make_leaf

PLAN, MODEL = "b" * 64, "c" * 64


def sealed(folder: Path) -> tuple[EvidenceStore, Ledger]:
    store = EvidenceStore.create(folder / "runs", RUN_ID, tool_version="0.1.0")
    ledger = Ledger(folder / "ledger", "d" * 64)
    leaves = [make_leaf(number) for number in range(3)]
    seal_test_set(leaves, store=store, ledger=ledger, data_root=folder)
    return store, ledger


def opened(store: EvidenceStore, ledger: Ledger, **changes: object) -> None:
    """Open as the seal does, with facts changed for the journal."""
    root = json.loads((store.run_dir / "data" / "seal.json").read_bytes())["merkle_root"]
    number = ledger.record_opening(store.run_id, root, "evaluation", PLAN, MODEL)
    told = {
        **{"number": number, "label": "confirmatory", "purpose": "evaluation"},
        **{"plan_sha256": PLAN, "model_sha256": MODEL, "n_images": 3, "merkle_root": root},
        **{"opened_utc": "2026-03-04T10:11:12Z", "ledger_head": ledger.head, **changes},
    }
    store.journal.append("test set opened", told)
    kept = ("number", "label", "purpose", "plan_sha256", "model_sha256", "opened_utc", "n_images")
    opening = {key: told[key] for key in kept}
    store.write_bytes("metrics/evaluation.json", json.dumps({"opening": opening}).encode())


def faults(store: EvidenceStore) -> tuple[str, ...]:
    return check_openings(store.run_dir, (store.run_dir.parent.parent / "ledger",)).faults


def test_a_sealed_and_opened_run_agrees_with_its_ledger(tmp_path):
    store, ledger = sealed(tmp_path)
    assert faults(store) == ()
    opened(store, ledger)

    found = check_openings(store.run_dir, (tmp_path / "none", tmp_path / "ledger"))

    assert found.faults == ()
    assert found.words.endswith("1 sealing, 1 opening of this run compared; 1 opening over all "
                                "runs so far")  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plan_sha256": "e" * 64}, f"plan_sha256 is {PLAN}, event"),
        ({"model_sha256": "e" * 64}, f"model_sha256 is {MODEL}, event"),
        ({"merkle_root": "e" * 64}, "merkle_root is "),
        ({"number": 2, "label": "exploratory, opening 2"}, "number is 1, event"),
        ({"purpose": "another"}, "purpose is evaluation, event"),
        ({"ledger_head": "e" * 64}, "has no entry for event"),
        ({"label": "exploratory, opening 2"}, "opening 1 is labelled exploratory, opening 2"),
    ],
)
def test_an_opening_told_otherwise_than_the_ledger_has_it_is_named(tmp_path, changes, said):
    store, ledger = sealed(tmp_path)
    opened(store, ledger, **changes)

    assert any(said in fault for fault in faults(store)), faults(store)


def test_an_opening_of_another_plan_or_model_than_the_run_s_is_named(tmp_path):
    store, ledger = sealed(tmp_path)
    store.write_bytes("plan.json", b"{}")
    store.write_bytes("metrics/training.json", b'{"checkpoint_sha256": "77"}')
    opened(store, ledger)

    plan, model = faults(store)

    assert plan.startswith("metrics/evaluation.json: plan_sha256 of the opening is not that of")
    assert model == (
        "metrics/evaluation.json: model_sha256 of the opening is not that of this run, 77"
    )


def test_results_that_hide_or_invent_an_opening_are_named(tmp_path):
    store, ledger = sealed(tmp_path)
    store.write_bytes("metrics/evaluation.json", b'{"opening": {"number": 1, "label": "x"}}')
    assert any("an opening, journal.jsonl has no event" in fault for fault in faults(store))
    opened(store, ledger)
    store.write_bytes("metrics/evaluation.json", b'{"opening": null}')

    (hidden,) = faults(store)

    assert hidden.startswith("metrics/evaluation.json: no opening, journal.jsonl has event")


def test_an_entry_that_a_kill_left_is_no_fault_once_the_run_was_resumed(tmp_path):
    store, ledger = sealed(tmp_path)
    ledger.record_opening(store.run_id, "r", "evaluation", PLAN, MODEL)  # killed here
    (killed,) = faults(store)
    assert "'test set opened' number 1 by this run, journal.jsonl does not know it" in killed

    store.journal.append(RUN_RESUMED, {"previous_head": store.journal.head})
    opened(store, ledger, label="exploratory, opening 2")

    assert faults(store) == ()
    ledger.record_opening(store.run_id, "r", "another look", PLAN, MODEL)
    assert len(faults(store)) == 1


def test_a_seal_that_counts_otherwise_than_journal_or_ledger_is_named(tmp_path):
    store, _ = sealed(tmp_path)
    path = store.run_dir / "data" / "seal.json"
    seal = json.loads(path.read_bytes())

    path.write_text(json.dumps({**seal, "n_earlier_seals": 4}))
    assert faults(store) == (
        "data/seal.json: n_earlier_seals is 4, journal.jsonl calls it sealing 1",
    )
    path.write_text(json.dumps({**seal, "n_earlier_openings": 1}))
    assert "more earlier openings than the 0 of" in faults(store)[0]
    path.write_text(json.dumps({**seal, "ledger": "other.jsonl"}))
    assert faults(store) == ("data/seal.json: names another ledger than journal.jsonl",)


def test_a_journal_cannot_make_the_verifier_read_elsewhere(tmp_path):
    store = EvidenceStore.create(tmp_path / "runs", RUN_ID, tool_version="0.1.0")
    store.journal.append("test set sealed", {"ledger": "../../etc/x.jsonl", "seal_number": 1})

    assert faults(store) == ("journal.jsonl: names no ledger: '../../etc/x.jsonl'",)


def test_a_run_that_sealed_nothing_has_nothing_to_compare(tmp_path):
    store = EvidenceStore.create(tmp_path / "runs", RUN_ID, tool_version="0.1.0")

    found = check_openings(store.run_dir, (tmp_path,))

    assert (found.words, found.faults) == ("the run sealed no test set: nothing to compare", ())


def test_the_ledger_that_knows_the_run_is_taken_before_one_that_does_not(tmp_path):
    store, ledger = sealed(tmp_path)
    opened(store, ledger)
    elsewhere = Ledger(tmp_path / "elsewhere", "d" * 64)
    elsewhere.record_seal("another run", "e" * 64)
    folders = (tmp_path / "elsewhere", tmp_path / "ledger")

    found, unknown = (
        check_openings(store.run_dir, folders),
        check_openings(store.run_dir, folders[:1]),
    )

    assert found.faults == ()
    assert found.words.startswith(str(ledger.path))
    assert all("has no entry for event" in fault for fault in unknown.faults)
    assert len(unknown.faults) == 2
