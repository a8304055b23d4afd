"""What keeps whole runs in these tests affordable: the guards are tried in some of them alone."""

import pytest

TRY_THE_GUARDS = ("test_smoke_run", "test_plugin_run")


@pytest.fixture(scope="module", autouse=True)
def guards(request):
    """Whole runs do not try the guards, five seconds each, but where a test reads what they say."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__.rpartition(".")[2] not in TRY_THE_GUARDS:
            patch.setattr("pipelines.run.try_guards", lambda context: None)
        yield
