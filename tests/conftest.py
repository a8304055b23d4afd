"""What every test gets: a cache of its own, so that no test writes into the user's."""

import os
from pathlib import Path

import pytest

from pipelines.cache import CACHE_VARIABLE, cache_dir


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """A fresh cache folder that shares the user's FID weights, where they were fetched."""
    own = tmp_path_factory.mktemp("cache")
    for weights in cache_dir().glob("*.safetensors"):
        (own / weights.name).symlink_to(Path(weights).resolve())
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(own)
    yield own
    if before is None:
        del os.environ[CACHE_VARIABLE]
    else:
        os.environ[CACHE_VARIABLE] = before
