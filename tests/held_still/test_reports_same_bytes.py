"""Card and reports of run folders of format 1 are drawn again, with the bytes on record."""

import pytest

from tests.held_still import ask
from tests.held_still.corpus import NAMES, stored


@pytest.mark.parametrize("name", NAMES)
def test_card_and_reports_are_drawn_again_with_the_stored_bytes(corpus, tmp_path, name):
    found = ask.reports(corpus.copy(name, tmp_path), tmp_path / "again")

    assert found == stored("reports")[name]
