"""The MLflow UI of a workspace: the address told is that of its runs."""

import subprocess

import pytest

from governance.records.errors import TrackingError
from pipelines.cli import doctor as ui
from pipelines.config.sections import TrackingConfig
from pipelines.tracking import open_store


def test_the_address_told_is_that_of_this_workspaces_runs(
    tmp_path, monkeypatch, capsys, socket_enabled
):
    started = []

    def run(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    experiment_id = open_store(tmp_path, TrackingConfig()).experiment_id
    monkeypatch.setattr(ui.subprocess, "run", run)

    assert ui.serve(tmp_path, 5050) == 0

    told = capsys.readouterr().err
    assert f"http://127.0.0.1:5050/#/experiments/{experiment_id}/runs?" in told
    (command,) = started
    assert command[command.index("--host") + 1] == "127.0.0.1"


def test_a_workspace_without_a_store_is_refused_before_anything_is_started(tmp_path):
    with pytest.raises(TrackingError, match="no MLflow store here yet"):
        ui.serve(tmp_path, 5050)
