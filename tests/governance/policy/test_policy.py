import re
from collections import Counter
from pathlib import Path

import pytest

from governance.checks.evidence_map import BEGIN, END, markdown_table, with_map
from governance.checks.registry import CHECKS
from governance.policy.hazards import list_hazards, split_hazard
from governance.policy.load import (
    MAX_POLICY_BYTES,
    PRINCIPLE_IDS,
    condition_item,
    load_policy,
    with_criteria,
)
from governance.records.base import ItemClass
from governance.records.errors import PolicyError
from governance.records.policy import Policy
from tests.places import ROOT

REPOSITORY = ROOT
DESIGN = REPOSITORY.parent / "shared" / "design" / "gmlp.md"
POLICY_FILE = REPOSITORY / "governance" / "policy" / "gmlp.yaml"

# Computed items in order, human items after the bar; counted by hand from the evidence map.
CLASSES = {
    "P1": "RR | CCRR",
    "P2": "CCRRRRCCRRRCRI | RRRRR",
    "P3": "RCRRRRRRR | CRR",
    "P4": "CCRRCRCCRRCRR | IR",
    "P5": "CCRRCR | CRR",
    "P6": "CCCCRRRRRR | RR",
    "P7": "RRI | CRR",
    "P8": "CCCRRRRRC | CRR",
    "P9": "CCRCCRRR | RR",
    "P10": "CRRCRR | CRRR",
}
MADE_CORE = {"P6-03": "C"}  # required in the design; docs/decisions/0006 says why it is core
GATE = {
    "P4-01": 4,
    "P4-02": 4,
    "P4-05": 4,
    "P4-11": 4,
    "P5-01": 9,
    "P2-07": 5,
    "P2-12": 3,
    "P9-05": 9,
}


@pytest.fixture
def policy() -> Policy:
    return load_policy()


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text, "utf-8")
    return path


def changed(folder: Path, old: str, new: str) -> Path:
    text = POLICY_FILE.read_text("utf-8")
    assert old in text
    return write(folder, text.replace(old, new, 1))


def item_block(item_id: str) -> str:
    match = re.search(rf"      - id: {item_id}\n(?:        .*\n)+", POLICY_FILE.read_text("utf-8"))
    assert match is not None
    return match.group(0)


def test_the_packaged_policy_holds_every_item_of_the_map_in_its_class(policy: Policy) -> None:
    assert tuple(p.id for p in policy.principles) == PRINCIPLE_IDS
    for principle in policy.principles:
        expected = []
        computed, human = CLASSES[principle.id].split(" | ")
        expected += [(f"{principle.id}-{n:02d}", c) for n, c in enumerate(computed, start=1)]
        expected += [(f"{principle.id}-H{n}", c) for n, c in enumerate(human, start=1)]

        assert [(item.id, item.item_class.value) for item in principle.items] == expected


def test_the_packaged_policy_equals_the_tables_of_the_design(policy: Policy) -> None:
    if not DESIGN.is_file():
        pytest.skip("the design document is not beside the repository")
    text = DESIGN.read_text("utf-8")
    rows = re.findall(r"^\| (P\d+-\d{2}) ([CRI]) \| ([^|]+) \|", text, re.MULTILINE)
    people = re.findall(r"(P\d+-H\d+) ([CRI])\b", text)
    ours = {item.id: item for item in policy.items}

    classes = dict([(i, c) for i, c, _ in rows] + people) | MADE_CORE
    assert classes == {item.id: item.item_class.value for item in policy.items}
    for item_id, _, title in rows:
        plain = {"(PL)": "(by patient)", "PL bootstrap": "patient-level bootstrap"}
        for short, long in plain.items():
            title = title.replace(short, long)
        assert ours[item_id].title.replace(" ", "") == title.replace(" ", "")


def test_both_titles_of_each_principle_are_the_design_s(policy: Policy) -> None:
    if not DESIGN.is_file():
        pytest.skip("the design document is not beside the repository")
    rows = re.findall(
        r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|", DESIGN.read_text("utf-8"), re.MULTILINE
    )

    assert [title.strip() for _, title, _ in rows] == [p.title_2021 for p in policy.principles]
    for (_, _, short), principle in zip(rows, policy.principles, strict=True):
        first_words = re.split(r"…|same", short.strip())[0].split(" (")[0].strip().lower()
        known = re.sub(r"[^a-z ]", "", principle.title_n88.lower().replace("/intended purpose", ""))
        for word in re.sub(r"[^a-z ]", "", first_words).split():
            assert word in known


def test_the_gate_holds_the_eight_items_with_their_exit_codes(policy: Policy) -> None:
    assert {gate.item_id: gate.exit_code for gate in policy.gate} == GATE


def test_every_computed_item_has_a_criterion_and_no_human_item_has_one(policy: Policy) -> None:
    for item in policy.items:
        assert (item.criterion is not None) == (item.kind == "computed")
        assert (item.kind == "human") == ("-H" in item.id)
        assert item.source


def test_every_number_of_the_packaged_policy_is_called_a_project_default(policy: Policy) -> None:
    assert {i.criterion.set_by for i in policy.items if i.criterion} == {"project default"}


@pytest.mark.parametrize(
    ("item_id", "operator", "value"),
    [
        ("P3-01", ">=", 0.95),
        ("P3-03", ">=", 30),
        ("P3-05", "<=", 0.1),
        ("P3-06", "<=", 0.02),
        ("P3-07", "<=", 0.5),
        ("P4-01", "==", 0),
        ("P4-06", "<=", 1),
        ("P6-04", "<=", 0.05),
        ("P6-05", "<=", 0.6),
        ("P6-09", ">=", 3),
        ("P2-14", "none", None),
        ("P8-02", "<=", None),
    ],
)
def test_the_numbers_of_the_map_are_in_the_policy(
    policy: Policy, item_id: str, operator: str, value: float | None
) -> None:
    criterion = policy.item(item_id).criterion

    assert criterion is not None
    assert (criterion.operator, criterion.value) == (operator, value)


def test_only_one_item_is_asked_for_under_a_condition(policy: Policy) -> None:
    conditional = {item.id: condition_item(item) for item in policy.items if item.when}

    assert conditional == {"P4-H2": "P4-13"}


def test_a_copy_of_the_packaged_file_loads_as_the_same_policy(policy: Policy) -> None:
    assert load_policy(POLICY_FILE) == policy


def test_a_policy_survives_the_plan_it_is_frozen_in(policy: Policy) -> None:
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy


def test_a_policy_that_drops_a_core_item_is_refused_by_name(tmp_path: Path) -> None:
    path = changed(tmp_path, item_block("P6-04"), "")

    with pytest.raises(PolicyError, match=r"policy\.yaml: P6-04: core item is missing"):
        load_policy(path)


def test_a_policy_may_drop_a_required_item(tmp_path: Path) -> None:
    path = changed(tmp_path, item_block("P6-05"), "")

    assert Counter(i.item_class for i in load_policy(path).items)[ItemClass.REQUIRED] == 71


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: P6-05\n        class: R", "id: P6-06\n        class: R", "P6-06: two items have"),
        ("item_id: P9-05", "item_id: P9-15", r"gate\.P9-15: no item has this id"),
        ("item_id: P9-05", "item_id: P2-07", r"gate\.P2-07: named twice"),
        (
            "id: P4-01\n        class: C",
            "id: P4-01\n        class: I",
            r"P4-01\.class: must stay C",
        ),
        ('any pair, operator: "==", value: 0', 'any pair, operator: "==", value: 5', "are fixed"),
        ('any pair, operator: "==", value: 0', "any pair, operator: none", "are fixed"),
        ("Roles with named people (", "Roles (", ""),
        ("id: P3\n", "id: P2\n", "expected P1 to P10 in order"),
        ("id: P3-03", "id: P2-33", "P2-33: stands under P3"),
        ("value: 30,", "value: .nan,", r"P3-03\.criterion\.value: expected a finite number"),
        ("value: 30,", "value: true,", r"P3-03\.criterion\.value: expected a finite number"),
        ("value: 30,", "value: 30, colour: red,", r"P3\.P3-03\.criterion\.colour: Extra inputs"),
        ("value: 30,", "value: 30, value: 20,", "duplicate key"),
        ('operator: ">=", value: 30', 'operator: ">", value: 30', r"P3-03\.criterion\.operator"),
        ("class: R\n        title: Smallest", "class: X\n        title: Smallest", r"P3-03\.class"),
        ("title: Smallest", "kind: human\n        title: Smallest", r"P3-03\.kind: not a key"),
        ("when: P4-13 is not evaluated", "when: it rains", r"P4-H2\.when: expected"),
        ("value: 30,", "value: 30, set_by: configuration,", r"P3-03\.criterion\.set_by"),
        ("name: gmlp", "name: &n gmlp\nextra: *n", "anchors and aliases are not allowed"),
        ("name: gmlp", "name: [gmlp", r"policy\.yaml:\d+: "),
        ("name: gmlp", "nom: gmlp", "name: Field required"),
    ],
)
def test_a_fault_in_a_policy_file_is_named_with_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = changed(tmp_path, old, new)
    if not message:
        assert load_policy(path)  # a title may be worded otherwise
        return

    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("than: copycat, metrics: [fid, kid,", "than: copycat, metrics: [fid,", "of kid; add it"),
        ("must_be: at least, than: 0.99", "must_be: at least, than: 0.5", "of memorisation"),
        (
            "control: blur, must_be: worse, than: generator",
            "control: blur, must_be: no better, than: generator",
            "blur worse than generator is not asked of kid",
        ),
        ("nearer_than: [blur, pca]", "nearer_than: [blur]", "fidelity_minimum: expected kid"),
        ("fidelity_minimum:\n  metric: kid", "fidelity_minimum:\n  metric: fid", "expected kid"),
    ],
)
def test_a_policy_that_asks_less_of_controls_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        load_policy(changed(tmp_path, old, new))


def test_a_policy_of_before_sets_no_orders_and_no_minimum(policy: Policy) -> None:
    frozen = policy.model_dump(mode="json", exclude={"controls", "fidelity_minimum"})
    older = Policy.model_validate(frozen)

    assert (older.controls, older.fidelity_minimum) == ((), None)


def test_a_core_human_item_cannot_be_made_conditional(tmp_path: Path) -> None:
    old = 'Reader study (readers, protocol, result) or reason for not applicable", source: declaration'
    path = changed(tmp_path, old, f"{old}, when: P4-13 is not evaluated")

    with pytest.raises(PolicyError, match=r"P7-H1\.when: a core item is always asked for"):
        load_policy(path)


def test_an_empty_gate_is_refused(tmp_path: Path) -> None:
    text = POLICY_FILE.read_text("utf-8")
    path = write(tmp_path, re.sub(r"gate:\n(  - .*\n)+", "gate: []\n", text))

    with pytest.raises(PolicyError, match="gate: empty"):
        load_policy(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; expected a policy with keys and values"),
        (b"- a\n- b\n", "expected keys and values, found list"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"#" * (MAX_POLICY_BYTES + 1), "larger than 256 kB"),
        (b"name: gmlp\x00", "policy"),
        (b"principles: 7\n", "policy"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(data)

    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_policy_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.yaml: cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_a_limit_from_the_configuration_is_marked_and_the_policy_stays(policy: Policy) -> None:
    changed_policy = with_criteria(policy, {"P3-03": 50, "P8-02": 0.08})
    smallest, endpoint = (changed_policy.item(i).criterion for i in ("P3-03", "P8-02"))
    assert smallest is not None
    assert endpoint is not None

    assert (smallest.value, smallest.set_by) == (50, "configuration")
    assert (endpoint.value, endpoint.set_by) == (0.08, "configuration")
    assert changed_policy.item("P3-05") == policy.item("P3-05")
    assert policy == load_policy()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"P3-99": 1}, r"criteria\.P3-99: the policy has no such item"),
        ({"P1-H1": 1}, r"criteria\.P1-H1: .* has no criterion"),
        ({"P2-14": 1}, r"criteria\.P2-14: .* no limit that can be set"),
        ({"P4-01": 5}, r"criteria\.P4-01: .* no limit that can be set"),
        ({"P5-01": False}, r"criteria\.P5-01: .* no limit that can be set"),
        ({"P3-03": True}, r"criteria\.P3-03: expected a finite number, found True"),
        ({"P3-03": float("nan")}, "expected a finite number, found nan"),
        ({"P3-03": float("inf")}, "expected a finite number, found inf"),
    ],
)
def test_a_criterion_that_cannot_be_set_is_refused_by_name(
    policy: Policy, overrides: dict[str, float], message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        with_criteria(policy, overrides)


def test_the_documented_map_is_the_one_in_the_policy(policy: Policy) -> None:
    page = (REPOSITORY / "docs" / "gmlp.md").read_text("utf-8")

    assert with_map(page, policy) == page, (
        "docs/gmlp.md differs; run: python -m governance.checks.evidence_map docs/gmlp.md"
    )


def test_the_map_has_one_row_an_item_and_says_what_is_not_implemented(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CHECKS, "P6-05")
    table = markdown_table(policy)

    for item in policy.items:
        assert len(re.findall(rf"^\| {item.id} \| {item.item_class.value} \|", table, re.M)) == 1
    assert re.search(
        r"^\| P4-01 .*`p4_independence\.shared_patients` \| `s4_split` \|$", table, re.M
    )
    assert re.search(r"^\| P6-05 .*not implemented yet", table, re.M)


@pytest.mark.parametrize("page", ["", BEGIN, END, END + BEGIN, BEGIN + BEGIN + END])
def test_a_page_without_both_marks_is_refused(policy: Policy, page: str) -> None:
    with pytest.raises(PolicyError, match="expected one"):
        with_map(page, policy)


def test_every_hazard_of_the_project_has_harm_and_items_of_the_policy() -> None:
    known = {item.id for item in load_policy().items}
    hazards = list_hazards()

    assert len(hazards) > 15
    assert len({hazard.id for hazard in hazards}) == len(hazards)
    for hazard in hazards:
        assert hazard.harm
        assert hazard.is_default
        assert hazard.items
        assert known.issuperset(hazard.items), hazard


def test_what_a_configuration_adds_comes_last_and_says_so() -> None:
    *_, added = list_hazards(["twins are drawn as one: P6-08 ,P7-H2"])

    assert (added.id, added.hazard, added.items) == (
        "HZ-C1",
        "twins are drawn as one",
        ("P6-08", "P7-H2"),
    )
    assert not added.is_default


def test_a_hazard_may_hold_a_colon() -> None:
    assert split_hazard("wrong: a leg: P6-08") == ("wrong: a leg", ("P6-08",))


@pytest.mark.parametrize("text", ["", "no items", "no items: ", ": P6-04", "x: ,"])
def test_a_line_without_hazard_or_items_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="expected 'what could go wrong: P6-04, P7-H2'"):
        split_hazard(text)
