"""The stored runs, unpacked once."""

import pytest

from tests.held_still.corpus import Corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Every stored run in one workspace; tests read it and change only copies."""
    return Corpus(tmp_path_factory.mktemp("held_still"))
