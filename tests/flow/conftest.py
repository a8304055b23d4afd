"""What keeps whole runs in these tests affordable: guards tried in some of them, lines not counted."""

from pathlib import Path

import pytest

TRY_THE_GUARDS = ("test_smoke_run", "test_plugin_run")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Do not count covered lines in whole runs: it doubles their time, and units cover them."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("no_cover")


@pytest.fixture(scope="module", autouse=True)
def guards(request):
    """Whole runs do not try the guards, five seconds each, but where a test reads what they say."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__.rpartition(".")[2] not in TRY_THE_GUARDS:
            patch.setattr("pipelines.run.try_guards", lambda context: None)
        yield
