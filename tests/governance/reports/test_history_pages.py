"""Sections on lineage, hazards and the trace of numbers say what is on record."""

from pathlib import Path

import pytest

from governance.records.evaluation import Baseline
from governance.records.item import CardCheck, FoundWord
from governance.records.lineage import ChangeRecord, Lineage
from governance.records.run import Hazard, Hazards
from governance.reports.blocks import section_texts
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.reports.sections.hazards import hazards_section
from governance.reports.sections.lineage import lineage_section
from governance.reports.sections.trace import trace_section
from tests.stored_run.stored import change, good, showing, write_run

RUN = good()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> ReportEvidence:
    """Evidence of a run of an earlier version, without any of these documents."""
    return load_evidence(write_run(tmp_path_factory.mktemp("bare")))


@pytest.fixture(scope="module")
def full(bare: ReportEvidence) -> ReportEvidence:
    kinds = (Lineage, ChangeRecord, Baseline, Hazards, CardCheck)
    return showing(bare, *(RUN.need(kind) for kind in kinds))


def test_a_run_without_these_documents_says_so(bare: ReportEvidence) -> None:
    assert "No model was trained, so there is no lineage." in section_texts(lineage_section(bare))
    assert "No list of hazards is on record." in section_texts(hazards_section(bare))
    assert "Card and report were not checked before the run closed." in section_texts(
        trace_section(bare)
    )


def test_parent_reason_changes_and_metrics_stand_side_by_side(full: ReportEvidence) -> None:
    texts = list(section_texts(lineage_section(full)))

    for text in (
        "20261001T090000Z-abc",
        "more images",
        "290 as before, 0 changed, 10 added, 0 removed",
        "still there, digest as recorded",
        "0, 1, 2",
        "Code and criteria: no difference.",
        "Change plan config: seed, data: *: all inside.",
        "intervals overlap",
    ):
        assert text in texts
    at = texts.index("seed")
    assert texts[at : at + 3] == ["seed", "1", "0"]
    assert texts[texts.index("Share of black background") + 1] == "0.250"
    assert "Brightness (mean)" in texts


def test_what_cannot_be_compared_is_said_before_the_metrics(full: ReportEvidence) -> None:
    record = RUN.need(ChangeRecord)
    metric = change(record.metrics[0], before=None, unfair=("measured in one run only",))
    changed = change(
        record,
        unfair=("the data sets differ",),
        outside_plan=("code: recipe",),
        metrics=(metric,),
    )
    texts = list(section_texts(lineage_section(showing(full, changed))))

    assert "Results of the two runs cannot be compared as wholes:" in texts
    assert "The data sets differ." in texts
    assert "Change plan config: seed, data: *: outside: code: recipe." in texts
    assert "not evaluated" in texts
    assert "measured in one run only" in texts


def test_a_first_run_and_a_damaged_parent_are_told_apart(bare: ReportEvidence) -> None:
    first = RUN.need(Lineage).model_copy(
        update={"parent": None, "delta": None, "reason": "first run"}
    )
    damaged = first.model_copy(update={"fault": "plan.json: recorded as sha256:1", "reason": ""})

    texts = list(section_texts(lineage_section(showing(bare, first))))
    assert "none; this is a first run in this workspace" in texts
    assert "There is no parent run to compare this one with." in texts
    texts = list(section_texts(lineage_section(showing(bare, damaged))))
    assert "cannot be read: plan.json: recorded as sha256:1" in texts
    assert "nobody gave one" in texts


def test_each_hazard_stands_with_the_standing_of_its_items(full: ReportEvidence) -> None:
    hazards = (Hazard(id="HZ-9", hazard="odd", items=("P4-01", "P9-99", "P3-01")),)
    texts = list(section_texts(hazards_section(showing(full, Hazards(hazards=hazards)))))

    assert "✓ P4-01 passed" in texts
    assert "✗ P3-01 failed" in texts
    assert "P9-99: no such item" in texts
    assert "1 of 1 hazards have an item that is failed, missing or not evaluated." in texts
    assert "added by the configuration" in section_texts(hazards_section(full))


def test_the_trace_lists_parts_and_everything_that_was_found(full: ReportEvidence) -> None:
    found = RUN.need(CardCheck).model_copy(
        update={
            "empty_fields": ("a.b",),
            "untraced": ("P8-02: observed 1",),
            "unlisted": ("P4-01 in the card",),
            "disagreements": ("P4: status",),
            "words": (FoundWord(output="card", word="certified", context="a certified b"),),
        }
    )
    texts = list(section_texts(trace_section(showing(full, found))))

    at = texts.index("card: metrics")
    assert texts[at : at + 4] == ["card: metrics", "40", "95", "metrics/evaluation.json"]
    assert "56: 35 filled, 20 with a reason instead, 1 empty" in texts
    for text in (
        "empty field: a.b",
        "without a file: P8-02: observed 1",
        "limit left out: P4-01 in the card",
        "differs: P4: status",
        "word: 'certified' in the card (a certified b)",
    ):
        assert text in texts


def test_nothing_found_needs_no_list(full: ReportEvidence, tmp_path: Path) -> None:
    assert "Found" not in section_texts(trace_section(full))
