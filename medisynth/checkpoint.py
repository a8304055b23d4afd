"""The only module that reads weights: digest first, then parse; safetensors, never pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise

from governance.records.errors import WeightsError


def encode(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Write tensors and metadata as one safetensors file; equal input gives equal bytes.

    Args:
        tensors: Name to tensor of any shape and device; copied to the CPU.
        metadata: Text to store with them, e.g. {"generator": "dsr-gan"}.

    Returns:
        The bytes of the file. The caller writes them atomically.
    """
    plain: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu", memory_format=torch.contiguous_format)
        storage = value.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory, as tied weights do.
        plain[name] = value.clone() if storage in seen else value
        seen.add(storage)
    # safetensors keeps metadata in a hash map, so that two keys may come out in either order: one
    # key whose value is canonical JSON always has the same bytes.
    return serialise(plain, metadata={"metadata": json.dumps(dict(metadata), sort_keys=True)})


def decode(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors and metadata of a file written by `encode`.

    Raises:
        WeightsError: The bytes are not a safetensors file, or not one written by `encode`.
    """
    try:
        tensors = parse(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header["__metadata__"]["metadata"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"weights: expected a safetensors file of this tool, found {len(data)} bytes that "
            f"cannot be read as one ({type(error).__name__}); use an undamaged copy"
        ) from error
    return tensors, {str(key): str(value) for key, value in metadata.items()}


def load(path: Path, expected_sha256: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a weights file with a known digest, like `read` but without metadata."""
    return read(path, expected_sha256)[0]


def read(path: Path, expected_sha256: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a weights file with a known digest, which is checked before anything is parsed.

    Args:
        path: The file; read once.
        expected_sha256: 64 lowercase hexadecimal digits.

    Returns:
        Tensors and metadata that were given to `encode`.

    Raises:
        WeightsError: The file cannot be read, has another digest, or is not safetensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path}: expected a weights file, found none that can be read ({error.strerror}); "
            "give the path of an existing checkpoint"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected_sha256:
        raise WeightsError(
            f"{path}: expected sha256:{expected_sha256}, found sha256:{found}; "
            "use the recorded checkpoint or restore it from a copy"
        )
    try:
        return decode(data)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
