"""The MLflow UI of a workspace, on this machine only."""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.config_sections import TrackingConfig
from pipelines.errors import TrackingError
from pipelines.tracking import open_store, store_uri

HOST = "127.0.0.1"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # no background workers for a viewer
    "PYTHONWARNINGS": "ignore",
}


def serve(workspace: Path, port: int) -> int:
    """Serve the workspace's MLflow store on 127.0.0.1 until interrupted; return its exit code.

    Raises:
        TrackingError: The workspace has no store yet, or it cannot be opened.
    """
    if not (workspace / "mlflow" / "mlflow.db").is_file():
        raise TrackingError(
            f"{workspace}: no MLflow store here yet; run `medisynth-gov run` first, "
            "or name the workspace with -w"
        )
    config = TrackingConfig()
    experiment_id = open_store(workspace, config).experiment_id
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", store_uri(workspace, config)),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]
    environment = os.environ | _QUIET
    # The list of runs in the views for model training; MLflow's own start page greets otherwise.
    page = f"http://{HOST}:{port}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    sys.stderr.write(f"MLflow UI, runs of this workspace: {page} (Ctrl-C ends it)\n")
    try:
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return 0
