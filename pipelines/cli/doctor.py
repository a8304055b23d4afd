"""What the machine has, and the MLflow UI of a workspace on this machine only."""

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from governance.confinement.confine import LEVEL_NAMES, landlock_abi, landlock_absence
from governance.records.errors import (
    ConfigError,
    MachineError,
    TrackingError,
    WeightsError,
    first_line,
)
from medisynth.metrics.torchvision_guard import import_torchvision
from pipelines.config.sections import TrackingConfig
from pipelines.current_run.identity import DISTRIBUTION, code_absence, code_identity
from pipelines.fetch.weights import find_weights
from pipelines.tracking import open_store

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
    source = f"commit {commit[:12]}{'' if clean else ', changed'}" if commit else code_absence()
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
    try:
        path = find_weights()
    except WeightsError as error:
        return Line("bad", "FID weights", str(error))
    if path is None:
        return Line("note", "FID weights", "not here; `medisynth-gov weights fetch` gets them")
    return Line("ok", "FID weights", f"{path}, digest as pinned")


def _confinement() -> Line:
    abi = landlock_abi()
    level = 4 if abi else 2  # each run encrypts its sealed copy
    text = f"Landlock ABI {abi}" if abi else landlock_absence()
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
        return Line("bad", subject, first_line(error))


HOST = "127.0.0.1"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # no background workers for a viewer
    "PYTHONWARNINGS": "ignore",
    "PYTHONSAFEPATH": "1",  # import nothing from the folder that it is started in
}


def serve(workspace: Path, port: int) -> int:
    """Serve the workspace's MLflow store on 127.0.0.1 until interrupted; return 0.

    Raises:
        TrackingError: The workspace has no store yet, it cannot be opened, or MLflow's server fails.
        ConfigError: There is no port of this number.
        MachineError: The port is in use or may not be used.
    """
    if not (workspace / "mlflow" / "mlflow.db").is_file():
        raise TrackingError(
            f"{workspace}: no MLflow store here yet; run `medisynth-gov run` first, "
            "or name the workspace with -w"
        )
    _require_free(port)
    config = TrackingConfig()
    experiment_id = open_store(workspace, config).experiment_id
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        # From its own folder: a name with ? or % would mean something else in a URI.
        *("--backend-store-uri", "sqlite:///mlflow.db"),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]
    environment = os.environ | _QUIET
    # The list of runs in the views for model training; MLflow's own start page greets otherwise.
    page = f"http://{HOST}:{port}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    sys.stderr.write(f"MLflow UI, runs of this workspace: {page} (Ctrl-C ends it)\n")
    try:
        code = subprocess.run(  # noqa: S603
            command, cwd=workspace / "mlflow", env=environment, check=False
        ).returncode
    except KeyboardInterrupt:
        return 0
    if code > 0:
        raise TrackingError(f"MLflow's server ended with exit code {code}; see its lines above")
    return 0


def _require_free(port: int) -> None:
    """Take the port for a moment, as the server will; an error if that fails."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port: {port} is no port; expected 1 to 65535")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise MachineError(
                f"port {port} cannot be used ({error.strerror or error}); give another with --port"
            ) from error
