import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.policy.load import load_policy
from governance.records.base import Gate, ItemClass, ItemStatus, PrincipleStatus
from governance.records.errors import EvidenceError
from governance.records.item import ItemRecord
from governance.records.policy import Criterion, Item, Policy
from governance.records.rollup import EXIT_CODES_WORST_FIRST, RollUp
from governance.records.run import Outcome, StepTiming
from governance.verdict.rollup import NO_RECORD, principle_status, roll_up, short_title

PASSED, FAILED, RECORDED = ItemStatus.PASSED, ItemStatus.FAILED, ItemStatus.RECORDED
NOT_EVALUATED, DECLARED = ItemStatus.NOT_EVALUATED, ItemStatus.DECLARED
MISSING, NOT_APPLICABLE = ItemStatus.MISSING, ItemStatus.NOT_APPLICABLE
SATISFIED, PARTIAL = PrincipleStatus.SATISFIED, PrincipleStatus.PARTIAL
NOT_SATISFIED = PrincipleStatus.NOT_SATISFIED
IN_PLACE = {PASSED, RECORDED, DECLARED}

NOW = datetime(2026, 11, 2, tzinfo=UTC)
POLICY = load_policy()
GATE = tuple(gate.item_id for gate in POLICY.gate)
FINISHED = Outcome(
    status="finished", stopped_at=None, error_code=None, message="", steps=(), duration_s=1
)


def item(letter: str, *, operator: Any = "==", n: int = 1) -> Item:
    """C, R or I: computed; c, r or i: human."""
    human = letter.islower()
    value = None if operator == "none" else 0
    return Item(
        id=f"P1-H{n}" if human else f"P1-{n:02d}",
        title="title",
        item_class=ItemClass(letter.upper()),
        kind="human" if human else "computed",
        criterion=None if human else Criterion(metric="m", operator=operator, value=value),
    )


def status_of(**statuses: ItemStatus) -> PrincipleStatus:
    """Keys such as C1, r2: class and kind as in `item`."""
    return principle_status((item(name[0], n=int(name[1])), s) for name, s in statuses.items())


def record(item_id: str, status: ItemStatus, reason: str = "because") -> ItemRecord:
    policy_item = POLICY.item(item_id)
    return ItemRecord(
        id=item_id,
        title=policy_item.title,
        principle=item_id.split("-")[0],
        item_class=policy_item.item_class,
        kind=policy_item.kind,
        status=status,
        reason=reason,
        time_utc=NOW,
    )


def best(policy: Policy = POLICY) -> dict[str, ItemStatus]:
    """Best status each item can have."""
    statuses = {}
    for policy_item in policy.items:
        criterion = policy_item.criterion
        if criterion is None:
            statuses[policy_item.id] = DECLARED
        else:
            statuses[policy_item.id] = RECORDED if criterion.operator == "none" else PASSED
    return statuses


def rolled(
    changes: dict[str, ItemStatus] | None = None, outcome: Outcome | None = FINISHED, **more: Any
) -> RollUp:
    statuses = best() | (changes or {})
    return roll_up(POLICY, [record(i, s) for i, s in statuses.items()], outcome, **more)


def status_in(summary: RollUp, principle: str) -> PrincipleStatus:
    return next(line.status for line in summary.principles if line.id == principle)


# -- principle status ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({"C1": PASSED, "R2": PASSED}, SATISFIED),
        ({"C1": PASSED, "R2": PASSED, "I3": FAILED, "i4": MISSING}, SATISFIED),
        ({"C1": PASSED, "c1": DECLARED}, PrincipleStatus.DECLARED),
        ({"c1": DECLARED, "r2": DECLARED}, PrincipleStatus.DECLARED),
        ({"C1": PASSED, "R2": FAILED}, PARTIAL),
        ({"C1": PASSED, "R2": NOT_EVALUATED}, PARTIAL),
        ({"C1": PASSED, "c1": MISSING}, PARTIAL),
        ({"C1": PASSED, "C2": NOT_EVALUATED}, PARTIAL),
        ({"C1": RECORDED, "R2": PASSED}, PARTIAL),
        ({"C1": NOT_EVALUATED, "c1": DECLARED}, PARTIAL),
        ({"C1": FAILED, "C2": PASSED, "R3": PASSED}, NOT_SATISFIED),
        ({"C1": NOT_EVALUATED, "R2": PASSED}, NOT_SATISFIED),
        ({"c1": MISSING, "R2": PASSED}, NOT_SATISFIED),
        ({"C1": NOT_EVALUATED, "I2": PASSED}, NOT_SATISFIED),
        ({"C1": PASSED, "C2": NOT_APPLICABLE}, SATISFIED),
        ({"C1": NOT_APPLICABLE, "R2": FAILED, "R3": PASSED}, PARTIAL),
        ({"C1": NOT_APPLICABLE, "R2": FAILED}, NOT_SATISFIED),
        ({"C1": NOT_APPLICABLE}, NOT_SATISFIED),
        ({"I1": PASSED}, NOT_SATISFIED),
        ({}, NOT_SATISFIED),
    ],
)
def test_a_principle_stands_as_the_rule_says(
    statuses: dict[str, ItemStatus], expected: PrincipleStatus
) -> None:
    assert status_of(**statuses) is expected


def expected_status(kinds: str, statuses: tuple[ItemStatus, ...]) -> PrincipleStatus:
    """The rule of docs/gmlp.md once more, written as its sentences stand."""
    asked = [(k, s) for k, s in zip(kinds, statuses, strict=True) if s is not NOT_APPLICABLE]
    core = [s for k, s in asked if k in "Cc"]
    computed = [s for k, s in asked if k in "CR"]
    human = [s for k, s in asked if k in "cr"]
    if asked and not human and set(computed) == {PASSED}:
        return SATISFIED
    if asked and set(computed) <= {PASSED} and set(human) <= {DECLARED}:
        return PrincipleStatus.DECLARED
    if FAILED in core or not IN_PLACE & set(core or [s for _, s in asked]):
        return NOT_SATISFIED
    return PARTIAL


@pytest.mark.parametrize("kinds", ["CR", "CC", "Cc", "cR", "CRr", "CcR", "ccr", "CCR"])
def test_every_combination_of_statuses_follows_the_rule(kinds: str) -> None:
    items = [item(kind, n=n) for n, kind in enumerate(kinds, start=1)]
    for statuses in itertools.product(ItemStatus, repeat=len(kinds)):
        standings = list(zip(items, statuses, strict=True))
        if any(i.kind == "human" and s is PASSED for i, s in standings):
            with pytest.raises(EvidenceError, match="cannot be passed"):
                principle_status(standings)
            continue

        assert principle_status(standings) is expected_status(kinds, statuses)


def test_a_recorded_item_is_met_only_when_no_more_than_a_record_is_asked() -> None:
    core = (item("C"), PASSED)

    assert principle_status([core, (item("R", operator="none", n=2), RECORDED)]) is SATISFIED
    assert principle_status([core, (item("R", operator="<=", n=2), RECORDED)]) is PARTIAL


def test_an_unset_limit_leaves_a_recorded_item_unmet() -> None:
    limit = Criterion(metric="m", operator="<=", value=None)
    unset = item("C").model_copy(update={"criterion": limit})

    assert principle_status([(unset, RECORDED)]) is PARTIAL


ORDER = [SATISFIED, PrincipleStatus.DECLARED, PARTIAL, NOT_SATISFIED]
STATUSES = st.lists(st.sampled_from(list(ItemStatus)), min_size=4, max_size=4)


@settings(max_examples=200, deadline=None, database=None)
@given(kinds=st.lists(st.sampled_from("CRIcr"), min_size=4, max_size=4), statuses=STATUSES)
def test_losing_an_item_to_not_evaluated_never_improves_a_principle(
    kinds: list[str], statuses: list[ItemStatus]
) -> None:
    items = [item(kind, n=n) for n, kind in enumerate(kinds, start=1)]
    allowed = [
        MISSING if i.kind == "human" and s is PASSED else s
        for i, s in zip(items, statuses, strict=True)
    ]
    # A failed item that is not evaluated, or one that was left out and is asked for, may differ.
    for index, status in enumerate(allowed):
        if status in (FAILED, NOT_APPLICABLE):
            continue
        fewer = [*allowed[:index], NOT_EVALUATED, *allowed[index + 1 :]]
        before = principle_status(zip(items, allowed, strict=True))
        after = principle_status(zip(items, fewer, strict=True))

        assert ORDER.index(after) >= ORDER.index(before)


# -- the whole policy ----------------------------------------------------------------------------


def test_with_every_item_at_its_best_only_p4_rests_on_the_run_alone() -> None:
    found = {line.id: line.status for line in rolled().principles}

    assert found == dict.fromkeys(found, PrincipleStatus.DECLARED) | {"P4": SATISFIED}
    assert all(line.gaps == () for line in rolled().principles)


def test_without_people_only_p4_can_be_satisfied() -> None:
    no_word = {i.id: MISSING for i in POLICY.items if i.kind == "human"}
    found = {line.id: line.status for line in rolled(no_word).principles}

    assert [p for p, status in found.items() if status is SATISFIED] == ["P4"]
    assert found["P1"] is NOT_SATISFIED  # its core items are all human
    assert found["P7"] is NOT_SATISFIED
    assert found["P2"] is PARTIAL


def test_external_testing_is_argued_by_people_only_where_it_was_not_done() -> None:
    with_test = rolled({"P4-H2": MISSING})
    without_test = rolled({"P4-H2": MISSING, "P4-13": NOT_EVALUATED})
    argued = rolled({"P4-13": NOT_EVALUATED})

    assert status_in(with_test, "P4") is SATISFIED
    assert not any("P4-H2" in gap for gap in with_test.principles[3].gaps)
    assert status_in(without_test, "P4") is PARTIAL
    assert any(gap.startswith("P4-H2 ") for gap in without_test.principles[3].gaps)
    assert status_in(argued, "P4") is PARTIAL  # P4-13 itself is still not evaluated


@pytest.mark.parametrize("principle", ["P7", "P10"])
def test_two_principles_can_be_declared_not_applicable(principle: str) -> None:
    summary = rolled({f"{principle}-H1": NOT_APPLICABLE})

    assert status_in(summary, principle) is PrincipleStatus.NOT_APPLICABLE
    assert any("not applicable — because" in gap for p in summary.principles for gap in p.gaps)


@pytest.mark.parametrize("item_id", [i.id for i in POLICY.items if i.id not in ("P7-H1", "P10-H1")])
def test_no_other_item_makes_a_principle_not_applicable(item_id: str) -> None:
    found = {line.status for line in rolled({item_id: NOT_APPLICABLE}).principles}

    assert PrincipleStatus.NOT_APPLICABLE not in found


def test_an_item_without_a_record_is_not_evaluated_and_its_absence_is_a_gap() -> None:
    summary = roll_up(POLICY, [], FINISHED)

    assert {line.status for line in summary.principles} == {NOT_SATISFIED}
    assert {line.status for line in summary.gate_items} == {NOT_EVALUATED}
    assert summary.exit_code == 9
    assert all(gap.endswith(f"not evaluated — {NO_RECORD}") for gap in summary.principles[0].gaps)


def test_counts_add_up_to_the_items_that_are_asked_for() -> None:
    changes = {
        "P4-01": FAILED,
        "P4-03": NOT_EVALUATED,
        "P4-04": NOT_APPLICABLE,
        "P4-06": RECORDED,
        "P4-H1": MISSING,
        "P4-13": NOT_EVALUATED,
    }
    line = rolled(changes).principles[3]

    assert (line.n_passed, line.n_computed) == (8, 12)  # 13 less one not applicable
    assert (line.n_declared, line.n_human) == (1, 2)
    assert (line.n_failed, line.n_recorded, line.n_missing) == (1, 1, 1)
    assert (line.n_not_evaluated, line.n_not_applicable) == (2, 1)


@settings(max_examples=50, deadline=None, database=None)
@given(data=st.data())
def test_every_item_is_counted_once_whatever_its_status(data: st.DataObject) -> None:
    statuses = {
        i.id: data.draw(
            st.sampled_from([s for s in ItemStatus if i.kind == "computed" or s != PASSED])
        )
        for i in POLICY.items
    }
    summary = rolled(statuses)
    for principle, line in zip(POLICY.principles, summary.principles, strict=True):
        asked = len(principle.items)
        if principle.id == "P4" and statuses["P4-13"] is not NOT_EVALUATED:
            asked -= 1
        counts = (
            line.n_passed,
            line.n_failed,
            line.n_recorded,
            line.n_declared,
            line.n_missing,
            line.n_not_evaluated,
            line.n_not_applicable,
        )
        assert sum(counts) == asked
        assert line.n_computed + line.n_human + line.n_not_applicable == asked


def test_gaps_are_in_words_with_core_items_first_and_not_applicable_last() -> None:
    changes = {
        "P6-01": NOT_APPLICABLE,
        "P6-03": NOT_EVALUATED,
        "P6-04": FAILED,
        "P6-06": RECORDED,
        "P6-H1": MISSING,
    }
    gaps = rolled(changes).principles[5].gaps

    assert [gap.split(" ")[0] for gap in gaps] == ["P6-03", "P6-04", "P6-06", "P6-H1", "P6-01"]
    assert gaps[1] == f"P6-04 {POLICY.item('P6-04').title}: failed — because"
    assert gaps[2].endswith("recorded — because")


def test_a_reader_result_that_rests_on_people_counts_with_the_declarations() -> None:
    line = rolled({"P7-03": DECLARED}).principles[6]

    assert (line.n_passed, line.n_computed) == (2, 2)
    assert (line.n_declared, line.n_human) == (4, 4)
    assert line.gaps == ()


# -- gate and exit code --------------------------------------------------------------------------


def test_the_gate_passes_only_when_every_gate_item_passed() -> None:
    summary = rolled()

    assert (summary.gate, summary.exit_code) == (Gate.PASSED, 0)
    assert [line.exit_code for line in summary.gate_items] == [0] * 8


@pytest.mark.parametrize("item_id", GATE)
@pytest.mark.parametrize("status", [s for s in ItemStatus if s is not PASSED])
def test_a_gate_item_that_did_not_pass_brings_its_code_or_nine(
    item_id: str, status: ItemStatus
) -> None:
    own = next(gate.exit_code for gate in POLICY.gate if gate.item_id == item_id)
    summary = rolled({item_id: status})

    assert summary.gate is Gate.FAILED
    assert summary.exit_code == (own if status is FAILED else 9)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_worst_failed_gate_item_gives_the_exit_code(size: int) -> None:
    codes = {gate.item_id: gate.exit_code for gate in POLICY.gate}
    for chosen in itertools.combinations(GATE, size):
        expected = min((codes[i] for i in chosen), key=EXIT_CODES_WORST_FIRST.index)

        assert rolled(dict.fromkeys(chosen, FAILED)).exit_code == expected


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"P2-07": FAILED, "P4-01": FAILED, "P2-12": FAILED, "P5-01": FAILED}, 5),
        ({"P4-11": FAILED, "P2-12": FAILED, "P5-01": FAILED}, 4),
        ({"P2-12": FAILED, "P5-01": NOT_EVALUATED}, 3),
        ({"P2-07": NOT_EVALUATED, "P2-12": FAILED}, 3),
        ({"P2-07": NOT_EVALUATED}, 9),
    ],
)
def test_integrity_goes_before_leakage_before_data_before_the_rest(
    changes: dict[str, ItemStatus], code: int
) -> None:
    assert rolled(changes).exit_code == code


def test_the_gate_never_changes_a_status() -> None:
    without_gate_effect = POLICY.model_copy(update={"gate": POLICY.gate[:1]})
    records = [record(i, NOT_EVALUATED) for i in best()]

    assert roll_up(POLICY, records, FINISHED).principles == (
        roll_up(without_gate_effect, records, FINISHED).principles
    )


@pytest.mark.parametrize("status", ["blocked", "failed", "interrupted"])
def test_a_run_that_did_not_finish_never_passes_the_gate(status: Any) -> None:
    stopped = Outcome(
        status=status,
        stopped_at="s6_evaluate",
        error_code="X",
        message="why",
        steps=(),
        duration_s=1,
    )
    summary = rolled(outcome=stopped)

    assert (summary.gate, summary.exit_code) == (Gate.FAILED, 9)


# -- verdict -------------------------------------------------------------------------------------


def test_the_verdict_of_a_good_run() -> None:
    assert rolled().verdict == (
        "Gate passed: all 8 gate items passed. All 10 principles have no gaps."
    )


def test_a_passed_gate_does_not_hide_the_gaps() -> None:
    changes = {"P6-05": NOT_EVALUATED, "P3-02": FAILED}

    assert rolled(changes).verdict == (
        "Gate passed: all 8 gate items passed. 8 of 10 principles have no gaps; 1 is not met: 3."
    )


def test_a_gate_item_that_is_unknown_is_named_and_its_reason_stays_in_its_line() -> None:
    records = [record(i, s) for i, s in best().items() if i != "P5-01"]
    records.append(record("P5-01", NOT_EVALUATED, "not pinned; use `data.digest: ab`."))
    summary = roll_up(POLICY, records, FINISHED)
    line = next(line for line in summary.gate_items if line.item_id == "P5-01")

    assert summary.verdict == (
        "Gate not passed: P5-01 Dataset identity: not evaluated. 9 of 10 principles have no gaps."
    )
    assert line.reason == "not pinned; use `data.digest: ab`."


def test_the_worst_gate_item_comes_first() -> None:
    changes = {"P5-01": NOT_EVALUATED, "P4-01": FAILED, "P2-07": FAILED}

    assert rolled(changes).verdict == (
        "Gate not passed: P2-07 Integrity manifest of inputs, checkpoints, samples, reports: "
        "failed; P4-01 Patients shared between training, tuning, test: failed; P5-01 Dataset "
        "identity: not evaluated. 7 of 10 principles have no gaps; 2 are not met: 2, 4."
    )


def test_many_open_gate_items_stand_in_the_verdict_by_id_alone() -> None:
    changes = {"P5-01": NOT_EVALUATED, "P4-01": FAILED, "P4-02": FAILED, "P4-11": NOT_EVALUATED}

    assert rolled(changes).verdict == (
        "Gate not passed: P4-01 failed, P4-02 failed, P4-11 not evaluated, P5-01 not evaluated. "
        "8 of 10 principles have no gaps; 1 is not met: 4."
    )


def test_a_short_title_leaves_out_what_follows_a_colon_or_stands_in_brackets() -> None:
    assert short_title("Dataset identity: DOI, version") == "Dataset identity"
    assert short_title("Identical image content across parts (pixel hash)") == (
        "Identical image content across parts"
    )
    assert short_title("Code identity") == "Code identity"


def test_what_is_absent_is_in_the_verdict() -> None:
    assert rolled(absent=["FID (no weights).", "KID"]).verdict.endswith(
        " Not evaluated: FID (no weights); KID."
    )


def timing(step: str, status: Any = "finished") -> StepTiming:
    return StepTiming(step=step, status=status, duration_s=1)


@pytest.mark.parametrize(
    ("status", "stopped_at", "steps", "expected"),
    [
        (
            "blocked",
            "s2_validate",
            (timing("s1_ingest"), timing("s2_validate", "blocked")),
            "Stopped at s2_validate: a rule failed; nothing was trained.",
        ),
        (
            "interrupted",
            "s5_train",
            (timing("s4_split"), timing("s5_train", "interrupted")),
            "Interrupted at s5_train: a rule failed; training did not finish.",
        ),
        (
            "failed",
            "s6_evaluate",
            (timing("s5_train"), timing("s6_evaluate", "failed")),
            "Stopped at s6_evaluate: a rule failed; the model was trained, but the run did not "
            "finish.",
        ),
        ("failed", None, (), "Stopped: a rule failed; nothing was trained."),
        (
            "blocked",
            "s4_split",
            (timing("s4_split", "blocked"), timing("s5_train", "skipped")),
            "Stopped at s4_split: a rule failed; nothing was trained.",
        ),
    ],
)
def test_a_stopped_run_says_where_why_and_what_was_trained(
    status: Any, stopped_at: str | None, steps: tuple[StepTiming, ...], expected: str
) -> None:
    outcome = Outcome(
        status=status,
        stopped_at=stopped_at,
        error_code="D020",
        message="a rule\nfailed.",
        steps=steps,
        duration_s=1,
    )

    assert rolled(dict.fromkeys(GATE, NOT_EVALUATED), outcome).verdict == expected


# -- records that contradict themselves ----------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record("P1-H1", PASSED)], "P1-H1: rests on a person's word and cannot be passed"),
        ([record("P4-01", PASSED), record("P4-01", PASSED)], "two records of one item"),
        ([record("P4-01", NOT_EVALUATED, " ")], "not evaluated without a reason"),
        ([record("P7-H1", NOT_APPLICABLE, "")], "not applicable without a reason"),
        (
            [record("P4-01", PASSED).model_copy(update={"item_class": ItemClass.INFORMATIVE})],
            "class or kind is not the policy's",
        ),
        ([record("P1-H1", DECLARED).model_copy(update={"kind": "computed"})], "class or kind"),
        ([record("P4-01", PASSED).model_copy(update={"id": "P4-77"})], "has no such item"),
    ],
)
def test_records_that_contradict_the_policy_are_refused(
    records: list[ItemRecord], message: str
) -> None:
    with pytest.raises(EvidenceError, match=message):
        roll_up(POLICY, records, FINISHED)
