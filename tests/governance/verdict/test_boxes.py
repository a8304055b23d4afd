"""The three boxes of page one: what they say of good, bad and unknown runs, and in which order."""

from pathlib import Path

import pytest

from governance.evidence.folder import RunFolder
from governance.records.base import ItemStatus
from governance.records.comparison import Control
from governance.records.evaluation import EvaluationRecord
from governance.records.rollup import RollUp
from governance.verdict.boxes import verdict_boxes
from governance.verdict.headline import kid_of, kid_words, worst_findings
from tests.stored_run.stored import Variant, change, stored, write_run

QUALITY, PEOPLE = "Quality of the images", "People's statements"
INDEPENDENCE = "Integrity and independence"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Roll-up and records of a run that passed its gate."""
    folder = write_run(tmp_path_factory.mktemp("runs"), Variant(releasable=True))
    finished = RunFolder.closed(folder)
    return finished.need(RollUp), finished.records()


def boxes(run, **statuses: ItemStatus):
    """The boxes by title when items, named with "_" for "-", have these statuses."""
    summary, records = run
    changed = {
        item_id: records[item_id].model_copy(
            update={"status": status, "reason": f"{item_id} found"}
        )
        for item_id, status in ((name.replace("_", "-"), s) for name, s in statuses.items())
    }
    return {box.title: box for box in verdict_boxes(summary, {**records, **changed})}


def test_images_better_than_controls_that_copy_nobody_are_acceptable(run):
    box = boxes(run, P6_03=ItemStatus.PASSED, P6_04=ItemStatus.PASSED)[QUALITY]

    assert (box.standing, box.words) == ("met", "acceptable")


@pytest.mark.parametrize("item_id", ["P6_03", "P6_04", "P6_07", "P8_05"])
def test_a_failed_item_of_quality_makes_the_images_not_acceptable_and_stands_first(run, item_id):
    passed = {"P6_03": ItemStatus.PASSED, "P6_04": ItemStatus.PASSED}

    found = boxes(run, **{**passed, item_id: ItemStatus.FAILED})

    box = found[QUALITY]
    assert next(iter(found)) == QUALITY
    assert (box.standing, box.words) == ("not met", "not acceptable")
    assert f"{item_id.replace('_', '-')} found" in box.sentence


def test_images_that_were_not_measured_are_not_judged(run):
    box = boxes(run, P6_03=ItemStatus.NOT_EVALUATED, P6_04=ItemStatus.PASSED)[QUALITY]

    assert (box.standing, box.words) == ("unknown", "not judged")
    assert box.sentence == "P6-03: P6-03 found."


def test_silence_of_people_is_never_met_and_says_what_the_tool_itself_says(run):
    found = boxes(run, P1_H1=ItemStatus.MISSING)

    assert found[PEOPLE].standing == "unknown"
    assert "not declared; the tool itself says: research" in found[PEOPLE].sentence


def test_an_open_gate_is_not_met_and_named(tmp_path: Path):
    finished = RunFolder.closed(write_run(tmp_path, Variant(gate_passed=False)))

    first = verdict_boxes(finished.need(RollUp), finished.records())[0]

    assert (first.title, first.standing) == (INDEPENDENCE, "not met")
    assert first.words == "Gate not passed: 7 of 8 gate items"
    assert "P5-01" in first.sentence


def test_worst_findings_name_gate_items_first_then_failures_by_class_and_never_more_than_three(run):
    summary, records = run
    gate = summary.gate_items[0].item_id
    others = [r.id for r in records.values() if r.kind == "computed"]
    in_gate = {line.item_id for line in summary.gate_items}
    free = [item_id for item_id in others if item_id not in in_gate]

    def with_statuses(**statuses: ItemStatus):
        changed = {
            item_id: records[item_id].model_copy(update={"status": status, "reason": "why"})
            for item_id, status in statuses.items()
        }
        calm = {i: r.model_copy(update={"status": ItemStatus.PASSED}) for i, r in records.items()}
        return worst_findings(summary, {**calm, **changed})

    assert with_statuses() == ()
    found = with_statuses(
        **dict.fromkeys(free, ItemStatus.FAILED), **{gate: ItemStatus.NOT_EVALUATED}
    )
    assert len(found) == 3
    assert found[0].startswith(f"{gate} ")
    assert found[0].endswith("not evaluated; why")
    assert "(core): failed" in found[1]
    assert with_statuses(**{free[0]: ItemStatus.NOT_EVALUATED}) == ()  # named on page one instead


def test_kid_stands_beside_its_floor_and_the_best_control_that_is_a_rival():
    evaluation = stored()[EvaluationRecord]
    metric = kid_of(evaluation)
    rival = {"metric_id": metric.id, "meaning": ""}
    controls = (
        Control(name="pca", value=0.2, **rival),
        Control(name="noise", value=0.9, **rival),
        Control(name="copycat", value=0.0, **rival),
    )
    words = kid_words(change(evaluation, controls=controls))

    assert words.startswith(f"{metric.value:.3f}")
    assert "best control, pca, 0.200" in words
    assert kid_words(change(evaluation, metrics=())) == ""
    assert kid_words(None) == ""
