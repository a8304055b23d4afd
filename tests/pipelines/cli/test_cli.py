import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from governance.evidence.store import EvidenceStore
from governance.records.errors import TrackingError
from pipelines.cli import app as cli
from pipelines.cli import doctor as ui
from pipelines.cli.app import app
from pipelines.config.sections import TrackingConfig
from pipelines.tracking import open_store

runner = CliRunner()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["verify", "--help"]])
def test_help_imports_neither_torch_nor_mlflow(arguments):
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli.app import app;"
        f"result = CliRunner().invoke(app, {arguments!r});"
        "heavy = {'torch', 'mlflow', 'pandas', 'great_expectations', 'numpy'} & set(sys.modules);"
        "sys.exit(f'{result.exit_code} {heavy}' if heavy or result.exit_code else 0)"
    )

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_version_prints_name_and_number():
    result = runner.invoke(app, ["--version"])

    assert result.exit_code == 0
    assert result.output.startswith("medisynth-gov ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--preset", "smok"], 2, "did you mean 'smoke'"),
        (["run", "-o", "split.test_fraction=7"], 2, "split.test_fraction"),
        (["run", "/does/not/exist.yaml"], 2, "cannot be read"),
        (["data", "check", "/does/not/exist"], 3, "no such folder"),
        (["verify", "/does/not/exist"], 5, "/does/not/exist"),
        (["report", "/does/not/exist"], 5, "/does/not/exist"),
        (["ui", "-w", "/does/not/exist"], 6, "no MLflow store"),
        (["run", "--preset", "smoke", "-w", "/dev/null/x"], 7, "workspace"),
        (["run", "--preset", "smoke", "-o", "tracking.uri=nonsense://x"], 6, "tracking.uri"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_and_its_code(arguments, code, said, tmp_path):
    if arguments[0] == "run" and "-w" not in arguments:
        arguments = [*arguments, "-w", str(tmp_path)]

    result = runner.invoke(app, arguments)

    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[0].startswith("error[")
    assert said in lines[0]
    assert "Traceback" not in result.output


def test_verify_takes_the_id_of_a_run_and_says_of_a_killed_one_how_to_go_on(tmp_path):
    EvidenceStore.create(tmp_path / "runs", "r1", tool_version="0").write_bytes("config.yaml", b"")

    by_id = runner.invoke(app, ["verify", "r1", "-w", str(tmp_path)])
    mistyped = runner.invoke(app, ["verify", "r2", "-w", str(tmp_path)])

    assert by_id.exit_code == 5
    assert "manifest.json: not written yet" in by_id.stderr
    assert "run --resume r1" in by_id.stderr
    assert "restore" not in by_id.stderr
    assert mistyped.exit_code == 2
    assert "the latest there are r1" in mistyped.stderr


def test_json_errors_are_json():
    result = runner.invoke(app, ["run", "--preset", "smok", "--json"])

    assert json.loads(result.stderr)["error"] == "C000"


def test_a_mistyped_data_folder_is_no_run(tmp_path):
    arguments = ["run", "--preset", "smoke", "--data", "/does/not/exist", "-w", str(tmp_path)]

    result = runner.invoke(app, arguments)

    assert result.exit_code == 3
    assert "no such folder" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_refused_with_its_name(tmp_path):
    result = runner.invoke(app, ["data", "check", str(tmp_path)])

    assert result.exit_code == 3
    assert str(tmp_path) in result.stderr
    assert "empty" in result.stderr


def test_a_bug_is_one_line_and_its_traceback_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "app", lambda: 1 / 0)

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    (crash,) = tmp_path.iterdir()
    assert str(crash) in line
    assert "ZeroDivisionError" in crash.read_text()


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


def test_doctor_says_what_the_machine_can_do(tmp_path):
    result = runner.invoke(app, ["doctor", "-w", str(tmp_path), "--json"])

    assert result.exit_code == 0
    lines = {line["subject"]: line for line in json.loads(result.stdout)}
    assert lines["torch"]["mark"] == "ok"
    assert lines["torchvision import"]["mark"] == "ok"
    assert "level" in lines["confinement"]["finding"]
    assert {"FID weights", "disk", "compute device"} <= set(lines)


def test_doctor_for_people_is_aligned_text(tmp_path):
    result = runner.invoke(app, ["doctor", "-w", str(tmp_path)])

    assert result.exit_code == 0
    assert "GiB free" in result.output
