"""Items, principles and gate of the stored runs are judged as they were when the runs ended."""

import json
from datetime import datetime

import pytest

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import judge_items
from governance.evidence.folder import RunFolder
from governance.records.people import Declarations
from governance.records.policy import Policy
from governance.records.run import Outcome, Plan
from governance.verdict.rollup import roll_up, waiver_lines
from tests.held_still.corpus import NAMES


def judged_again(run):
    """Records by item id and the roll-up, from the documents of a stored run, at its own time."""
    folder = RunFolder.closed(run)
    policy = Policy.model_validate(folder.need(Plan).policy)
    now = datetime.fromisoformat(stored_records(run)[policy.items[0].id]["time_utc"])
    records = judge_items(policy, folder, now=now, artifacts=folder.digests)
    declarations, facts = folder.get(Declarations), JudgedRun(folder, now).facts
    waivers = waiver_lines(policy, records, declarations, facts, now.date())
    summary = roll_up(policy, records, folder.need(Outcome), waivers=waivers)
    return {r.id: r.model_dump(mode="json") for r in records}, summary.model_dump(mode="json")


def stored_records(run):
    paths = (run / "records").glob("*.json")
    return {path.stem: json.loads(path.read_bytes()) for path in paths}


@pytest.mark.parametrize("name", NAMES)
def test_every_item_gets_its_stored_status_reason_and_observation(corpus, name):
    again, _ = judged_again(corpus.run(name))
    before = stored_records(corpus.run(name))

    assert again.keys() == before.keys()
    differing = {
        item: {key: (before[item][key], again[item][key]) for key in before[item]}
        for item in before
        if again[item] != before[item]
    }
    assert differing == {}


@pytest.mark.parametrize("name", NAMES)
def test_principles_gate_verdict_and_exit_code_are_the_stored_ones(corpus, name):
    _, summary = judged_again(corpus.run(name))

    assert summary == json.loads((corpus.run(name) / "summary.json").read_bytes())


def test_the_stored_runs_show_every_status_that_a_run_can_reach(corpus):
    found = {r["status"] for name in NAMES for r in stored_records(corpus.run(name)).values()}

    assert found >= {"passed", "failed", "recorded", "not evaluated", "declared", "missing"}
