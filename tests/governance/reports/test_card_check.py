"""The check of the drafted card and report: each fault that it looks for is found and named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from governance.evidence.folder import RunFolder
from governance.records.base import document_kinds
from governance.records.duplicates import DuplicateAudit
from governance.records.item import CardCheck
from governance.records.partition import SplitRecord
from governance.reports.blocks import Section, Text
from governance.reports.card import check as card_check
from governance.reports.card.check import check_card, check_outputs, page_text
from governance.reports.card.write import write_model_card
from governance.reports.draw.html import html_page
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.reports.sections.order import SECTIONS, build_report
from tests.stored_run.stored import HOSTILE, LONG, Variant, showing, write_run

EXAMPLES = {
    "complete": Variant(),
    "blocked": Variant(blocked=True),
    "hostile": Variant(odd=HOSTILE + LONG, fid=False, openings=3, gate_passed=False),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReportEvidence]:
    return {
        name: load_evidence(write_run(tmp_path_factory.mktemp(name), example))
        for name, example in EXAMPLES.items()
    }


@pytest.fixture
def complete(runs: dict[str, ReportEvidence]) -> ReportEvidence:
    return runs["complete"]


def checked(
    evidence: ReportEvidence,
    *,
    markdown: Callable[[str], str] = str,
    card: Callable[[dict[str, Any]], object] = id,
    page: Callable[[str], str] = str,
) -> CardCheck:
    """The check of rendered outputs, each spoilt as asked; `card` changes its argument."""
    text, twin = (part.decode() for part in write_model_card(evidence))
    report = build_report(evidence)
    parsed = json.loads(twin)
    card(parsed)
    drawn = page(html_page(report).decode())
    return check_outputs(evidence, report, markdown=markdown(text), card=parsed, page=drawn)


def test_pictures_of_pairs_of_images_stand_in_report_and_page_alike(
    complete: ReportEvidence,
) -> None:
    duplicates = complete.documents.need(DuplicateAudit)
    pair = duplicates.pairs[0].model_copy(update={"figure": "figures/pair.png"})
    with_pair = duplicates.model_copy(update={"pairs": (pair,)})
    picture = next(iter(complete.pictures.values()))
    pictures = {**complete.pictures, "figures/pair.png": picture}
    shown = showing(replace(complete, pictures=pictures), with_pair)

    assert "figures/pair.png" in html_page(build_report(shown)).decode()
    assert checked(shown).disagreements == ()


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_found_in_what_this_version_writes(
    runs: dict[str, ReportEvidence], name: str
) -> None:
    found = check_card(runs[name])

    assert (found.empty_fields, found.untraced, found.unlisted) == ((), (), ())
    assert (found.disagreements, found.words) == ((), ())
    assert found.n_filled + found.n_reasoned == 56
    assert found.n_limits > 90
    assert found.n_compared > 1_000


def test_a_field_whose_content_holds_no_word_is_empty(complete: ReportEvidence) -> None:
    def blank(card: dict[str, Any]) -> None:
        field = card["sections"][0]["fields"][1]
        assert field["id"] == "version"
        field["content"] = [{"type": "list", "items": [" ", ""]}, {"type": "facts", "rows": []}]

    assert checked(complete, card=blank).empty_fields == ("model_information.version",)


def test_numbers_are_traced_to_the_files_that_were_read_for_them(complete: ReportEvidence) -> None:
    parts = {(part.output, part.part): part for part in check_card(complete).parts}

    assert parts["card", "metrics"].sources == ("data/dataset.json", "metrics/evaluation.json")
    assert parts["card", "test_size"].sources == ("data/split.json",)
    assert parts["report", "memorisation"].sources == parts["card", "metrics"].sources
    assert parts["card", "metrics"].n_numbers > 10
    assert parts["card", "metrics"].computed == ()


def test_a_number_that_no_file_stands_behind_is_found(
    complete: ReportEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up_section(evidence: ReportEvidence) -> Section:
        return Section("x", "16", "Made up", blocks=(Text("Sensitivity is 97.31 %."),))

    monkeypatch.setattr(card_check, "SECTIONS", (*SECTIONS, made_up_section))
    (fault,) = check_card(complete).untraced

    assert fault == "report, made_up: 1 number from no file, which has no digest"


def test_a_number_that_does_not_stand_in_its_files_is_shown_as_computed(
    complete: ReportEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd_section(evidence: ReportEvidence) -> Section:
        assert evidence.get(SplitRecord) is not None
        return Section("x", "16", "Odd", blocks=(Text("97.31 and 24 images, P4-01, 12,345"),))

    monkeypatch.setattr(card_check, "SECTIONS", (odd_section,))
    part = next(p for p in check_card(complete).parts if p.part == "odd")

    assert part.sources == ("data/split.json",)
    assert part.n_numbers == 3
    assert part.computed == ("97.31", "12,345")


def test_a_part_written_from_a_file_without_digest_is_found(complete: ReportEvidence) -> None:
    digests = {path: d for path, d in complete.digests.items() if path != SplitRecord.PATH}
    documents = [complete.get(kind) for kind in document_kinds().values()]
    folder = RunFolder.of(*filter(None, documents), digests=digests)

    found = check_card(replace(complete, documents=folder)).untraced

    assert any("card, test_size" in words and "data/split.json" in words for words in found)


def test_an_observed_value_needs_an_artifact_with_the_digest_on_record(
    complete: ReportEvidence,
) -> None:
    record = complete.records["P4-01"]
    assert record.artifact is not None
    for artifact, words in (
        (None, "P4-01: observed 0, no artifact has no such digest"),
        (
            record.artifact.model_copy(update={"sha256": "0" * 64}),
            "P4-01: observed 0, data/split.json has no such digest",
        ),
    ):
        spoilt = record.model_copy(update={"artifact": artifact})
        evidence = replace(complete, records={**complete.records, "P4-01": spoilt})

        assert check_card(evidence).untraced == (words,)


def test_a_limit_that_the_card_leaves_out_is_named(complete: ReportEvidence) -> None:
    def shorten(card: dict[str, Any]) -> None:
        for section in card["sections"]:
            for field in section["fields"]:
                if field["id"] == "absent_attributes":
                    field["content"] = []
                if field["id"] == "limits":
                    text = json.dumps(field["content"]).replace("P3-03", "")
                    field["content"] = json.loads(text)

    assert checked(complete, card=shorten).unlisted == (
        "P3-03 in the card",
        "gestational age in the card",
        "ethnicity in the card",
        "site in the card",
    )


def test_a_limit_that_the_report_leaves_out_is_named(
    complete: ReportEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Section("limits", "9", "Limits", blocks=(Text("P3-03 failed."),))
    monkeypatch.setattr(card_check, "limits_section", lambda evidence: empty)

    found = check_card(complete).unlisted

    assert "P3-01 in the report" in found
    assert "P3-03 in the report" not in found
    assert "site in the report" in found


def test_a_card_that_lacks_what_its_twin_says_is_found(complete: ReportEvidence) -> None:
    found = checked(complete, markdown=lambda text: text.replace("0.0457", "0.0456"))

    assert any("card, metrics: not as in the JSON file: 0.0457" in f for f in found.disagreements)


def test_a_page_that_lacks_what_the_report_says_is_found(complete: ReportEvidence) -> None:
    found = checked(complete, page=lambda text: text.replace("Landlock ABI 7", "Landlock ABI 8"))

    assert any("report without: " in fault for fault in found.disagreements)


def test_a_page_with_another_verdict_or_status_is_found(complete: ReportEvidence) -> None:
    for said in ("Gate passed", "not satisfied"):
        found = checked(complete, page=lambda text, said=said: text.replace(said, "satisfied"))

        assert any("report without: " in fault for fault in found.disagreements), said


def test_words_that_claim_too_much_are_found_where_they_stand(tmp_path: Path) -> None:
    odd = "certified GDPR-compliant scans; ground-truth labels; validation set; data validation"
    found = check_card(load_evidence(write_run(tmp_path, Variant(odd=odd)))).words

    assert {word.word for word in found} == {
        "certified",
        "compliant",
        "ground truth",
        "validation",
    }
    assert {word.output for word in found} == {"card", "report"}
    context = next(w.context for w in found if w.word == "validation")
    assert "validation set" in context


def test_data_validation_and_the_title_of_the_item_are_no_such_words(
    complete: ReportEvidence,
) -> None:
    text = page_text(html_page(build_report(complete)).decode())

    assert 'no "compliant"' in text
    assert "Data validation" in text
    assert check_card(complete).words == ()


def test_the_text_of_a_page_leaves_out_tags_and_styles() -> None:
    page = "<style>p { color: red }</style><p>a  <b>b</b>&amp;c</p>\n<img alt='x'>d"

    assert page_text(page) == "a b &c d"
