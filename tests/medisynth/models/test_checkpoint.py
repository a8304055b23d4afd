import hashlib

import pytest
import torch

from governance.records.errors import WeightsError
from medisynth import checkpoint

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1, 2], dtype=torch.int32),
    "scalar": torch.tensor(0.5),
}
METADATA = {"generator": "dsr-gan", "step": "12", "seed": "7"}


def test_what_is_encoded_comes_back_with_its_metadata():
    tensors, metadata = checkpoint.decode(checkpoint.encode(TENSORS, METADATA))

    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype is value.dtype
        assert torch.equal(tensors[name], value)


def test_equal_tensors_and_metadata_in_another_order_give_equal_bytes():
    reordered = dict(reversed(TENSORS.items()))
    other_metadata = dict(reversed(METADATA.items()))

    assert checkpoint.encode(reordered, other_metadata) == checkpoint.encode(TENSORS, METADATA)


def test_memory_order_of_a_tensor_does_not_change_the_bytes():
    plain = torch.arange(48, dtype=torch.float32).reshape(1, 3, 4, 4)
    last = plain.to(memory_format=torch.channels_last)

    assert checkpoint.encode({"x": last}, {}) == checkpoint.encode({"x": plain}, {})


def test_tied_weights_and_slices_of_one_tensor_come_back_each_by_itself():
    whole = torch.arange(6.0)
    tied = {"a": whole, "b": whole, "c": whole[2:4], "d": whole.reshape(2, 3)}

    tensors, _ = checkpoint.decode(checkpoint.encode(tied, {}))

    assert all(torch.equal(tensors[name], value) for name, value in tied.items())


def test_reading_with_the_right_digest_gives_the_metadata_too(tmp_path):
    data = checkpoint.encode(TENSORS, METADATA)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)

    tensors, metadata = checkpoint.read(path, hashlib.sha256(data).hexdigest())

    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()


def test_a_file_with_the_pinned_digest_is_loaded(tmp_path):
    data = checkpoint.encode(TENSORS, METADATA)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)

    tensors = checkpoint.load(path, hashlib.sha256(data).hexdigest())

    assert torch.equal(tensors["b"], TENSORS["b"])


@pytest.mark.malformed("checkpoint")
def test_one_flipped_byte_is_refused_naming_path_expected_and_found(tmp_path):
    data = bytearray(checkpoint.encode(TENSORS, METADATA))
    expected = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)

    with pytest.raises(WeightsError) as caught:
        checkpoint.load(path, expected)

    found = hashlib.sha256(data).hexdigest()
    assert all(part in str(caught.value) for part in (str(path), expected, found))


@pytest.mark.malformed("checkpoint")
def test_the_digest_is_checked_before_anything_is_parsed(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not safetensors at all")

    with pytest.raises(WeightsError, match="expected sha256:0000"):
        checkpoint.load(path, "0" * 64)


@pytest.mark.malformed("checkpoint")
@pytest.mark.parametrize("data", [b"", b"\x00" * 7, b"\x80\x04pickle", b"\xff" * 64])
def test_bytes_with_the_right_digest_that_are_not_safetensors_are_refused(tmp_path, data):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)

    with pytest.raises(WeightsError, match=r"weights\.safetensors.*cannot be read"):
        checkpoint.load(path, hashlib.sha256(data).hexdigest())


@pytest.mark.malformed("checkpoint")
def test_safetensors_of_another_tool_is_refused():
    from safetensors.torch import save

    with pytest.raises(WeightsError, match="of this tool"):
        checkpoint.decode(save({"x": torch.zeros(1)}))


@pytest.mark.malformed("checkpoint")
def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.safetensors: expected a weights file"):
        checkpoint.load(tmp_path / "none.safetensors", "0" * 64)
