"""What every test gets: a cache of its own, so that no test writes into the user's.

What a run of all tests leaves: its result, where --suite-report names a folder.
"""

import os
from pathlib import Path

import pytest

from pipelines.fetch.cache import CACHE_VARIABLE, cache_dir
from tests.suite_report import SuiteReporter, add_option, name_kinds

HERE = Path(__file__).parent
# Tests of whole commands and whole run folders. Counting covered lines would double their time, and
# what they run is counted where units test it.
NOT_COUNTED = (
    *(
        "flow",
        "held_still",
        "pipelines/data_check",
        "pipelines/finished_runs",
        "pipelines/selftest",
    ),
    *(
        "governance/evidence/test_independent_verifier.py",
        "governance/reports",
        "governance/verify",
    ),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    folder = config.getoption("suite_report")
    if folder and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SuiteReporter(config.rootpath / folder, config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    name_kinds(items)
    folders = [HERE / name for name in NOT_COUNTED]
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in folders):
            item.add_marker("no_cover")


def pytest_deselected(items: list[pytest.Item]) -> None:
    """One of several test processes tells the first, which collects nothing itself."""
    output = getattr(items[0].config, "workeroutput", None) if items else None
    if output is not None:
        output["n_deselected"] = output.get("n_deselected", 0) + len(items)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """A fresh cache folder that shares the user's FID weights, where they were fetched."""
    own = tmp_path_factory.mktemp("cache")
    users = cache_dir()
    for weights in users.glob("*.safetensors") if users is not None else ():
        (own / weights.name).symlink_to(Path(weights).resolve())
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(own)
    yield own
    if before is None:
        del os.environ[CACHE_VARIABLE]
    else:
        os.environ[CACHE_VARIABLE] = before


@pytest.fixture(scope="session", autouse=True)
def drawn_once():
    """Verification draws the reports of one state of the evidence once, not for every copy of a run.

    Equal evidence gives equal reports, which tests of their own show; drawing takes seconds.
    """
    from governance.evidence.manifest import read_manifest
    from governance.verify import claims

    draw, drawn = claims.drawn_outputs, {}

    def remembered(run_dir: Path):
        manifest = read_manifest(run_dir)
        key = (manifest.evidence_root, manifest.journal_head, manifest.run_id)
        if key not in drawn:
            drawn[key] = draw(run_dir)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "drawn_outputs", remembered)
        yield
