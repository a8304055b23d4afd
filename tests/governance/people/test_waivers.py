import itertools
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.people.rules import RunFacts, waiver_refusal, waiver_state
from governance.policy.load import load_policy
from governance.records.base import Gate, ItemStatus
from governance.records.errors import EvidenceError
from governance.records.item import ItemRecord
from governance.records.people import AppliesTo, Declarations, Waiver, WaiverLine
from governance.records.run import Outcome
from governance.reports.audit_report import write_audit_report, write_html
from governance.reports.card.write import write_model_card
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.reports.items import item_views
from governance.verdict.rollup import roll_up, waiver_lines
from tests.governance.reports.report_tools import pdf_text
from tests.stored_run.stored import HOSTILE, Variant, showing, write_run

POLICY = load_policy()
A, B = "a" * 64, "b" * 64
TODAY = date(2026, 11, 23)
FACTS = RunFacts(run="run-1", config=A, version="0.1.0", data=B, model="dsr-gan")
PASSED, FAILED = ItemStatus.PASSED, ItemStatus.FAILED
NOT_EVALUATED = ItemStatus.NOT_EVALUATED
WAIVABLE_IN_GATE = ("P5-01", "P9-05")
FINISHED = Outcome(
    status="finished", stopped_at=None, error_code=None, message="", steps=(), duration_s=1
)


def waiver(item_id: str = "P5-01", **changes: Any) -> Waiver:
    fields = {
        "id": item_id,
        "author": "Ada Beispiel",
        "reason": "The data set is not published yet.",
        "expires": date(2026, 12, 31),
        "applies_to": AppliesTo(config=A),
    }
    return Waiver.model_validate(fields | changes)


def people(*waivers: Waiver) -> Declarations:
    read = datetime(2026, 11, 23, tzinfo=UTC)
    return Declarations(file="declarations.yaml", sha256=B, read_utc=read, waivers=waivers)


def records(changes: dict[str, ItemStatus]) -> list[ItemRecord]:
    """Every item at its best, but for the changes."""
    made = []
    for item in POLICY.items:
        best = PASSED if item.kind == "computed" else ItemStatus.DECLARED
        if item.criterion is not None and item.criterion.operator == "none":
            best = ItemStatus.RECORDED
        made.append(
            ItemRecord(
                id=item.id,
                title=item.title,
                principle=item.id.split("-")[0],
                item_class=item.item_class,
                kind=item.kind,
                status=changes.get(item.id, best),
                reason="because",
                time_utc=datetime(2026, 11, 23, tzinfo=UTC),
            )
        )
    return made


def rolled(changes: dict[str, ItemStatus], *waivers: Waiver, outcome: Outcome = FINISHED) -> Any:
    found = records(changes)
    lines = waiver_lines(POLICY, found, people(*waivers), FACTS, TODAY)
    return roll_up(POLICY, found, outcome, waivers=lines)


# -- what may be waived --------------------------------------------------------------------------


def test_independence_integrity_validation_and_people_s_word_are_never_waived() -> None:
    refused = {item.id for item in POLICY.items if waiver_refusal(POLICY, item.id)}
    expected = {
        item.id for item in POLICY.items if item.kind == "human" or item.id.startswith("P4-")
    }

    assert refused == expected | {"P2-07", "P2-08", "P2-12"}
    assert waiver_refusal(POLICY, "P4-01") == (
        "independence and isolation of the held-out test set are never waived"
    )
    assert waiver_refusal(POLICY, "P2-07") == "integrity is never waived"
    assert waiver_refusal(POLICY, "P2-12") == "data that break their contract are never waived"
    assert waiver_refusal(POLICY, "P1-H1").endswith("declare it instead")
    assert waiver_refusal(POLICY, "P1-99") == "the policy has no such item"


def test_of_the_gate_only_items_with_exit_code_nine_can_be_waived() -> None:
    open_ids = {g.item_id for g in POLICY.gate if not waiver_refusal(POLICY, g.item_id)}

    assert open_ids == set(WAIVABLE_IN_GATE)
    assert {g.exit_code for g in POLICY.gate if g.item_id in open_ids} == {9}


def test_an_item_that_a_policy_puts_into_the_gate_with_a_stopping_code_is_not_waived() -> None:
    gate = (POLICY.gate[4].model_copy(update={"exit_code": 4}),)
    stricter = POLICY.model_copy(update={"gate": gate})

    assert waiver_refusal(stricter, "P5-01") == "leakage is never waived"


def test_a_roll_up_refuses_a_waiver_that_none_may_give() -> None:
    line = waiver_lines(POLICY, records({"P5-01": FAILED}), people(waiver()), FACTS, TODAY)[0]
    forged = line.model_copy(update={"item_id": "P4-01"})

    with pytest.raises(EvidenceError, match="waiver of P4-01: independence"):
        roll_up(POLICY, records({"P4-01": FAILED}), FINISHED, waivers=[forged])


# -- how a waiver stands -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expired", "bound", "met"), list(itertools.product((False, True), repeat=3))
)
def test_a_waiver_is_in_force_only_in_date_bound_to_the_run_and_needed(
    expired: bool, bound: bool, met: bool
) -> None:
    one = waiver(
        expires=TODAY - timedelta(days=1) if expired else TODAY,
        applies_to=AppliesTo(config=A if bound else B),
    )
    found = waiver_state(one, FACTS, TODAY, is_met=met)

    if expired:
        assert found == "expired"
    elif not bound:
        assert found == "other run"
    else:
        assert found == ("unused" if met else "in force")


@pytest.mark.parametrize("item_id", WAIVABLE_IN_GATE)
@pytest.mark.parametrize("status", list(ItemStatus))
@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("expired", [True, False])
def test_a_waiver_changes_the_gate_alone_and_no_status(
    item_id: str, status: ItemStatus, bound: bool, expired: bool
) -> None:
    one = waiver(
        item_id,
        expires=date(2026, 1, 1) if expired else TODAY,
        applies_to=AppliesTo(config=A if bound else B),
    )
    before, after = rolled({item_id: status}), rolled({item_id: status}, one)
    line = next(line for line in after.gate_items if line.item_id == item_id)
    waived = bound and not expired and status is not PASSED

    assert after.principles == before.principles
    assert line.status is status
    assert bool(line.waiver) is waived
    assert after.exit_code == (0 if waived else before.exit_code)
    assert after.gate is (Gate.WAIVED if waived else before.gate)
    assert len(after.waivers) == 1


@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_waivers_of_anything_never_change_a_principle_or_mend_another_gate_item(
    data: st.DataObject,
) -> None:
    computed = [i for i in POLICY.items if i.kind == "computed"]
    statuses = {i.id: data.draw(st.sampled_from(list(ItemStatus))) for i in computed}
    may = [i.id for i in computed if not waiver_refusal(POLICY, i.id)]
    chosen = data.draw(st.lists(st.sampled_from(may), unique=True, max_size=6))
    before, after = rolled(statuses), rolled(statuses, *(waiver(i) for i in chosen))

    assert after.principles == before.principles
    for old, new in zip(before.gate_items, after.gate_items, strict=True):
        assert new.status is old.status
        if new.item_id not in chosen:
            assert new == old
    assert after.gate is not Gate.PASSED or all(line.status is PASSED for line in after.gate_items)


def test_a_gate_with_a_waived_item_passes_with_waivers_and_says_which() -> None:
    summary = rolled({"P5-01": NOT_EVALUATED}, waiver())

    assert (summary.gate.value, summary.exit_code) == ("passed with waivers", 0)
    assert summary.verdict == (
        "Gate passed with waivers: 7 of 8 gate items passed; waived: P5-01 Dataset identity: not "
        "evaluated. 9 of 10 principles have no gaps."
    )
    assert summary.gate_items[4].waiver == (
        "waived by Ada Beispiel through 2026-12-31: The data set is not published yet"
    )


def test_other_open_gate_items_keep_their_exit_code() -> None:
    summary = rolled({"P5-01": FAILED, "P4-01": FAILED}, waiver())

    assert (summary.gate, summary.exit_code) == (Gate.FAILED, 4)
    assert summary.verdict.startswith(
        "Gate not passed: P4-01 Patients shared between training, tuning, test: failed; waived: "
        "P5-01 Dataset identity: failed."
    )


def test_a_run_that_did_not_finish_does_not_pass_by_a_waiver() -> None:
    stopped = FINISHED.model_copy(update={"status": "failed", "stopped_at": "s6_evaluate"})
    summary = rolled({"P5-01": FAILED}, waiver(), outcome=stopped)

    assert (summary.gate, summary.exit_code) == (Gate.FAILED, 9)


EFFECTS = [
    ("P5-01", {}, FAILED, "in force", "the gate does not ask for it; the item stays failed"),
    ("P3-01", {}, FAILED, "in force", "nothing: it is no gate item; the item stays failed"),
    ("P5-01", {}, PASSED, "unused", "nothing: the item is passed and needs no waiver"),
    (
        "P3-01",
        {},
        ItemStatus.NOT_APPLICABLE,
        "unused",
        "nothing: the item is not applicable and needs no waiver",
    ),
    (
        "P5-01",
        {"expires": date(2026, 1, 2)},
        FAILED,
        "expired",
        "nothing: it expired on 2026-01-02",
    ),
    (
        "P5-01",
        {"applies_to": AppliesTo(model="tb-gan")},
        FAILED,
        "other run",
        "nothing: it applies to generator tb-gan, this run's is dsr-gan",
    ),
]


@pytest.mark.parametrize(("item_id", "changes", "status", "state", "effect"), EFFECTS)
def test_each_waiver_is_listed_with_state_and_effect(
    item_id: str, changes: dict[str, Any], status: ItemStatus, state: str, effect: str
) -> None:
    line = rolled({item_id: status}, waiver(item_id, **changes)).waivers[0]

    assert (line.item_id, line.state, line.effect) == (item_id, state, effect)
    assert (line.author, line.reason) == ("Ada Beispiel", "The data set is not published yet.")


# -- reports -------------------------------------------------------------------------------------


def with_waivers(run_dir: Path, *waivers: Waiver) -> ReportEvidence:
    """Evidence of the stored run as if the waivers had been given."""
    evidence = load_evidence(run_dir)
    found = list(evidence.records.values())
    lines = waiver_lines(POLICY, found, people(*waivers), FACTS, TODAY)
    summary = roll_up(POLICY, found, evidence.get(Outcome), waivers=lines)
    return showing(replace(evidence, summary=summary), people(*waivers))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"), Variant(gate_passed=False))


def test_page_one_card_and_json_show_every_waiver(run_dir: Path, tmp_path: Path) -> None:
    late = waiver("P9-05", expires=date(2026, 1, 2), reason="Old reason.")
    evidence = with_waivers(run_dir, waiver(), late)
    page = pdf_text(write_audit_report(evidence), tmp_path, last_page=1)
    text, card_json = write_model_card(evidence)
    card = json.loads(card_json)
    schema = resources.files("governance.reports.card") / "model_card.schema.json"
    jsonschema.Draft202012Validator(json.loads(schema.read_text("utf-8"))).validate(card)

    assert "◐ Gate passed with" in page
    assert "✓ Gate passed" not in page
    for shown in (page, write_html(evidence).decode(), text.decode()):
        assert "The data set is not published yet" in shown
        assert "Old reason" in shown
        assert "it expired on 2026-01-02" in shown
    assert card["verdict"]["gate"] == "passed with waivers"
    assert [(w["item_id"], w["state"]) for w in card["waivers"]] == [
        ("P5-01", "in force"),
        ("P9-05", "expired"),
    ]


def test_the_waived_item_keeps_its_status_in_every_table(run_dir: Path) -> None:
    views = {item.id: item for item in item_views(with_waivers(run_dir, waiver()))}

    assert views["P5-01"].status is NOT_EVALUATED
    assert views["P5-01"].waiver == (
        "Waiver by Ada Beispiel, in force; effect: the gate does not ask for it; the item stays "
        "not evaluated."
    )


def test_hostile_words_in_a_waiver_are_shown_as_text(run_dir: Path) -> None:
    evidence = with_waivers(run_dir, waiver(author=HOSTILE, reason=HOSTILE))

    assert '<img src="/etc' not in write_html(evidence).decode()
    assert '<img src="/etc' not in write_model_card(evidence)[0].decode()
    assert write_audit_report(evidence).startswith(b"%PDF")


def test_a_waiver_line_has_no_state_of_its_own_making() -> None:
    line = rolled({"P5-01": FAILED}, waiver()).waivers[0]

    with pytest.raises(ValueError, match="state"):
        WaiverLine.model_validate({**line.model_dump(), "state": "passed"})
