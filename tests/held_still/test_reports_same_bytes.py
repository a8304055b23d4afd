"""Card and reports of run folders of format 1 are drawn again to the bytes of their day."""

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from tests.held_still.corpus import NAMES, OUTPUTS


@pytest.mark.parametrize("name", NAMES)
def test_card_and_reports_are_drawn_again_to_the_stored_bytes(corpus, tmp_path, name):
    run = corpus.copy(name, tmp_path)

    found = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "again")])

    assert found.exit_code in (0, 5), found.output
    again = {output: (tmp_path / "again" / output).read_bytes() for output in OUTPUTS}
    differing = [o for o in OUTPUTS if again[o] != (corpus.run(name) / o).read_bytes()]
    assert differing == []
    assert found.exit_code == 0
