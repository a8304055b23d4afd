import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from governance.people.rules import (
    MAY_BE_NOT_APPLICABLE,
    NO_ENTRY,
    NO_FILE,
    UNTOUCHED,
    RunFacts,
    human_result,
    is_placeholder,
    signing_words,
    why_missing,
)
from governance.policy.load import load_policy
from governance.records.base import ItemStatus
from governance.records.people import AppliesTo, Declaration, Declarations
from governance.reports.audit_report import write_audit_report, write_html
from governance.reports.card.fields import DECLARABLE_FIELDS, card_sections
from governance.reports.card.write import write_model_card
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.reports.sections.order import build_report
from tests.governance.reports.report_tools import pdf_text
from tests.stored_run.stored import HOSTILE, Variant, showing, write_run

POLICY = load_policy()
HUMAN = [item for item in POLICY.items if item.kind == "human"]
A, B = "a" * 64, "b" * 64
TODAY = date(2026, 11, 23)
FACTS = RunFacts(run="run-1", config=A, version="0.1.0", data=B, model="dsr-gan")
DECLARED, MISSING = ItemStatus.DECLARED, ItemStatus.MISSING


def entry(**changes: Any) -> Declaration:
    fields = {
        "id": "P1-H1",
        "statement": "For research on image synthesis; not a device.",
        "owner_name": "Ada Beispiel",
        "owner_role": "fetal medicine",
        "date": date(2026, 10, 1),
        "reference": "minutes 12",
        "applies_to": AppliesTo(config=A),
        "meaning": "approver",
        "expires": date(2027, 10, 1),
    }
    return Declaration.model_validate(fields | changes)


def register(*entries: Declaration) -> Declarations:
    return Declarations(
        file="declarations.yaml",
        sha256=B,
        read_utc=datetime(2026, 11, 23, tzinfo=UTC),
        declarations=entries,
    )


def test_a_complete_entry_in_date_and_bound_to_the_run_counts() -> None:
    assert why_missing(entry(), FACTS, TODAY) == ""


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"statement": ""}, "statement is empty"),
    ({"statement": "TODO: write"}, "statement is a placeholder"),
    ({"owner_name": " "}, "owner_name is empty"),
    ({"owner_name": "<name>"}, "owner_name is a placeholder"),
    ({"owner_role": "your role"}, "owner_role is a placeholder"),
    ({"reference": "none"}, "reference is a placeholder"),
    ({"meaning": ""}, "meaning is empty"),
    ({"date": None}, "date is empty"),
    ({"date": TODAY + timedelta(days=1)}, "its date, 2026-11-24, is in the future"),
    ({"expires": None}, "expires is empty"),
    ({"expires": TODAY - timedelta(days=1)}, "it expired on 2026-11-22"),
    ({"applies_to": AppliesTo()}, f"placeholder; this run's configuration is {A}"),
    ({"applies_to": AppliesTo(config="TODO")}, "applies_to is empty or a placeholder"),
    ({"applies_to": AppliesTo(config=B)}, f"configuration {B}, this run's is {A}"),
    ({"applies_to": AppliesTo(config=A, model="tb-gan")}, "generator tb-gan, this run's is dsr-"),
    ({"applies_to": AppliesTo(data=A)}, f"data {A}, this run's is {B}"),
    ({"applies_to": AppliesTo(version="0.2")}, "version of medisynth-gov 0.2, this run's is 0.1.0"),
    ({"applies_to": AppliesTo(run="run-2")}, "run run-2, this run's is run-1"),
    ({"reference_sha256": A}, "'minutes 12' was not found as a file"),
    ({"reference_sha256": A, "reference_found": B}, "'minutes 12' has sha256 bbbbbbbbbbbb"),
]


@pytest.mark.parametrize(("changes", "words"), FAULTS)
def test_each_fault_makes_an_entry_missing_and_the_reason_names_it(
    changes: dict[str, Any], words: str
) -> None:
    assert words in why_missing(entry(**changes), FACTS, TODAY)


def test_every_fault_is_named_not_only_the_first() -> None:
    both = why_missing(entry(owner_name="TBD", expires=None), FACTS, TODAY)

    assert both == "owner_name is a placeholder; expires is empty"


def test_an_entry_holds_from_its_date_through_the_day_on_which_it_expires() -> None:
    one_day = entry(date=TODAY, expires=TODAY)
    days = [TODAY + timedelta(days=shift) for shift in (-1, 0, 1)]

    assert [why_missing(one_day, FACTS, day) == "" for day in days] == [False, True, False]


@pytest.mark.parametrize("key", ["run", "config", "version", "data", "model"])
def test_what_is_not_known_of_the_run_does_not_match(key: str) -> None:
    named = entry(applies_to=AppliesTo(**{key: getattr(FACTS, key)}))

    assert why_missing(named, FACTS, TODAY) == ""
    assert "is not known" in why_missing(named, replace(FACTS, **{key: None}), TODAY)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "TODO", "todo: ask", "n/a", "none", "?", "...", "<role>", "[name]", "John Doe"],
)
def test_these_texts_only_keep_a_place(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["none; research use", "Ada", "Protocol 7", "methodology", "Dr X"])
def test_these_texts_say_something(text: str) -> None:
    assert not is_placeholder(text)


def test_a_human_item_is_declared_missing_or_not_applicable_and_never_passed() -> None:
    seen = set()
    for item, (changes, _), flag, day in itertools.product(
        HUMAN, [({}, ""), *FAULTS], (False, True), (TODAY, date.max)
    ):
        one = entry(id=item.id, not_applicable=flag, **changes)
        found = human_result(item, register(one), FACTS, day)
        good = why_missing(one, FACTS, day) == ""
        left_out = flag and item.id in MAY_BE_NOT_APPLICABLE
        expected = (ItemStatus.NOT_APPLICABLE if left_out else DECLARED) if good else MISSING

        assert found.status is expected
        assert found.reason.strip()
        seen.add(found.status)
    assert seen == {DECLARED, MISSING, ItemStatus.NOT_APPLICABLE}


def test_without_a_file_or_an_entry_a_human_item_is_missing_and_says_which() -> None:
    other = register(entry(id="P1-H2"))

    for item in HUMAN:
        assert human_result(item, None, FACTS, TODAY).reason == NO_FILE
    assert human_result(HUMAN[0], other, FACTS, TODAY).reason == NO_ENTRY
    assert human_result(HUMAN[0], None, FACTS, TODAY).status is MISSING
    assert human_result(HUMAN[0], other, FACTS, TODAY).status is MISSING


def test_an_untouched_entry_of_the_template_says_no_more_than_that() -> None:
    untouched = entry(statement="TODO", owner_name="TODO", date=None, expires=None)

    assert why_missing(untouched, FACTS, TODAY) == UNTOUCHED


def test_a_declared_item_shows_statement_owner_basis_binding_and_last_day() -> None:
    found = human_result(HUMAN[0], register(entry()), FACTS, TODAY)

    assert found.reason == (
        "For research on image synthesis; not a device. "
        "(Ada Beispiel, fetal medicine, approver, 2026-10-01)"
    )
    assert found.method == (
        f"Named, not signed; reference minutes 12, not read. Applies to configuration {A}; "
        "holds through 2027-10-01."
    )


def test_how_a_person_stands_for_an_entry_is_said() -> None:
    assert signing_words(entry()) == "Named, not signed; reference minutes 12, not read"
    assert signing_words(entry(reference_found=B)) == (
        f"Named, not signed; file minutes 12 sha256 {B}"
    )
    assert signing_words(entry(signature="MEUC")).startswith(
        "Named, signature given, not in the form that sign-declaration writes: counts as not given; "
    )


# -- reports -------------------------------------------------------------------------------------


def with_declarations(run_dir: Path, *entries: Declaration) -> ReportEvidence:
    """Evidence of the stored run as if the entries had been declared."""
    evidence = load_evidence(run_dir)
    found = register(*entries)
    records = dict(evidence.records)
    for item in HUMAN:
        result = human_result(item, found, FACTS, TODAY)
        changes = {"status": result.status, "reason": result.reason, "method": result.method}
        records[item.id] = records[item.id].model_copy(update=changes)
    return showing(replace(evidence, records=records), found)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"), Variant())


def test_report_and_page_print_declared_not_verified_beside_every_declaration(
    run_dir: Path, tmp_path: Path
) -> None:
    late = entry(id="P1-H2", expires=TODAY - timedelta(days=1))
    evidence = with_declarations(run_dir, entry(), late)
    page = pdf_text(write_audit_report(evidence), tmp_path)
    html = write_html(evidence).decode()

    for text in (page, html):
        assert "declared, not verified" in text
        assert "Ada Beispiel, fetal medicine, approver, 2026-10-01" in text
        assert "Named, not signed" in text
        assert "it expired on 2026-11-22" in text
    assert "Declarations and waivers" in page
    assert "1 entry" not in page
    assert "2 entries, 0 waivers" in page


def test_without_a_file_the_report_says_so(run_dir: Path) -> None:
    sections = {section.key: section for section in build_report(load_evidence(run_dir)).sections}

    section = sections["main-declarations"]
    assert "No declarations file was given" in str(section.blocks[0])


def fields_of(evidence: ReportEvidence) -> dict[str, Any]:
    return {field.id: field for section in card_sections(evidence) for field in section.fields}


def test_declared_texts_fill_card_fields_and_name_who_declared_them(run_dir: Path) -> None:
    card = {"intended_users": "Researchers.", "file_number": "none", "fitness": "See minutes 12."}
    fields = fields_of(with_declarations(run_dir, entry(card=card)))

    assert fields["intended_users"].state == "filled"
    assert fields["intended_users"].reason == (
        "declared, not verified: Ada Beispiel, fetal medicine, approver, 2026-10-01 (P1-H1)"
    )
    assert fields["file_number"].state == "filled"
    assert "Declared: See minutes 12." in str(fields["fitness"].content)
    assert fields["intended_use"].state == "not declared"
    assert "gives no text" in fields["intended_use"].reason


def test_texts_of_entries_that_do_not_count_stay_out_of_the_card(run_dir: Path) -> None:
    card = dict.fromkeys(DECLARABLE_FIELDS, "Made up.")
    fields = fields_of(with_declarations(run_dir, entry(card=card, expires=date(2026, 1, 1))))
    unfilled = fields_of(with_declarations(run_dir, entry(card=dict.fromkeys(card, "TODO"))))

    assert "Made up." not in str(fields)
    assert fields["intended_use"].state == "not declared"
    assert unfilled["intended_use"].state == "not declared"


def test_hostile_texts_of_people_are_shown_as_text(run_dir: Path) -> None:
    hostile = entry(statement=HOSTILE, owner_name=HOSTILE, card={"intended_use": HOSTILE})
    evidence = with_declarations(run_dir, hostile)
    text, _ = write_model_card(evidence)

    for written in (text.decode(), write_html(evidence).decode()):
        assert "<b>bold</b>" not in written
        assert '<img src="/etc' not in written
        assert "\u202e" not in written
    assert write_audit_report(evidence).startswith(b"%PDF")
