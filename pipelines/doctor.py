"""What this machine can do, in words: versions, torchvision, weights, confinement, disk."""

import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from governance.isolation.confine import LEVEL_NAMES, landlock_abi
from medisynth.metrics.torchvision_guard import import_torchvision
from pipelines.identity import DISTRIBUTION, code_identity
from pipelines.weights import find_weights

_PACKAGES = ("torch", "torchvision", "mlflow", "great-expectations", "pandera", "pytorch-fid")
_LOW_DISK_BYTES = 2 * 1024**3


class Line(NamedTuple):
    """One finding. `mark` is "ok", "note" (works, with less) or "bad" (will not work)."""

    mark: str
    subject: str
    finding: str


def examine(workspace: Path) -> list[Line]:
    """Look at everything that decides how a run will go; changes nothing."""
    return [
        _versions(),
        *(_package(name) for name in _PACKAGES),
        _torchvision(),
        _compute_device(),
        _weights(),
        _confinement(),
        _disk(workspace),
    ]


def _versions() -> Line:
    commit, clean = code_identity()
    source = f"commit {commit[:12]}{'' if clean else ', changed'}" if commit else "no git checkout"
    text = f"{version(DISTRIBUTION)} ({source}), Python {platform.python_version()}"
    return Line("ok" if commit and clean else "note", DISTRIBUTION, text)


def _package(name: str) -> Line:
    try:
        return Line("ok", name, version(name))
    except PackageNotFoundError:
        return Line("bad", name, "not installed; run `make setup`")


def _torchvision() -> Line:
    return _try("torchvision import", import_torchvision)


def _compute_device() -> Line:
    def find() -> str:
        import torch

        if torch.cuda.is_available():
            return f"CUDA: {torch.cuda.get_device_name()}"
        if torch.backends.mps.is_available():
            return "MPS"
        return f"CPU, {torch.get_num_threads()} threads"

    return _try("compute device", find)


def _weights() -> Line:
    path = find_weights()
    if path is None:
        return Line("note", "FID weights", "not here; `medisynth-gov weights fetch` gets them")
    return Line("ok", "FID weights", f"{path}, digest as pinned")


def _confinement() -> Line:
    abi = landlock_abi()
    level = 4 if abi else 2  # each run encrypts its sealed copy
    text = f"Landlock ABI {abi}" if abi else "no Landlock in this kernel"
    return Line(
        "ok" if abi else "note", "confinement", f"{text}; level {level}: {LEVEL_NAMES[level]}"
    )


def _disk(workspace: Path) -> Line:
    folder = next((p for p in (workspace, *workspace.parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(folder).free
    mark = "ok" if free >= _LOW_DISK_BYTES else "note"
    return Line(mark, "disk", f"{free / 1024**3:.1f} GiB free at {folder}")


def _try(subject: str, find: Callable[[], str]) -> Line:
    try:
        return Line("ok", subject, find())
    except (ImportError, RuntimeError) as error:
        return Line("bad", subject, str(error).splitlines()[0])
