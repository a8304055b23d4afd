"""Items, principles and gate of the stored runs are judged as they were when the runs ended.

Where a check was changed on purpose, `answers/judged_otherwise.json` holds what it says instead.
"""

import pytest

from tests.held_still.ask import judged_otherwise, stored_records
from tests.held_still.corpus import NAMES, stored


@pytest.mark.parametrize("name", NAMES)
def test_items_principles_gate_and_verdict_are_the_stored_ones(corpus, name):
    assert judged_otherwise(corpus.run(name)) == stored("judged_otherwise")[name]


def test_the_stored_runs_show_every_status_that_a_run_can_reach(corpus):
    found = {r["status"] for name in NAMES for r in stored_records(corpus.run(name)).values()}

    assert found >= {"passed", "failed", "recorded", "not evaluated", "declared", "missing"}
