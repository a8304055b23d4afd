"""Fifty and more kills of whole runs: minutes, so not part of the usual checks."""

import pytest

from tests.flow.killed_runs import TINY, kill_runs


@pytest.mark.slow
@pytest.mark.parametrize(("options", "n_kills"), [(TINY, 40), ((), 10)], ids=["tiny", "smoke"])
def test_after_every_kill_the_next_start_works_and_nothing_half_written_is_believed(
    tmp_path, options, n_kills
):
    count = kill_runs(tmp_path, n_kills, seed=20262, options=options, say=print)

    assert count.kills.total() == n_kills
