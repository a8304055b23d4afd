"""What the system refuses to a command is one sentence with its exit code, never a fault of ours."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.records.errors import MachineError, SigningKeyError, refusals_named
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app
from pipelines.config.sections import TrackingConfig
from pipelines.current_run.keys import make_keys
from pipelines.fetch.cache import CACHE_VARIABLE, cache_dir
from pipelines.fetch.weights import FILE_NAME
from pipelines.tracking import open_store

runner = CliRunner()
COMMANDS = (
    "data check {}",
    "data phantom --patients 8 {}",
    "data fetch hc18 {}",
    "run --preset smoke -w {}",
    "run --preset smoke --data {} -w {ws}",
    "run --resume {}",
    "verify {}",
    "report {}",
    "sample {} -n 1",
    "compare {} {}",
    "promote {} --to candidate",
    "card {}",
    "sync {}",
    "sync -w {}",
    "timestamp {}",
    "seal status -w {}",
    "seal show {} image",
    "ui -w {}",
    "mark {}",
    "keygen --out {}",
    "init {}",
    "sign-declaration {} --id P1-H1 --key {}",
    "weights fetch --from {}",
    "reproduction-audit --table {} --logs {}",
)


@pytest.fixture
def system(tmp_path):
    """Paths of each kind that the system refuses."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    return {
        "long": tmp_path / ("x" * 300),
        "below a file": tmp_path / "file" / "below",
        "circle": tmp_path / "circle" / "x",
    }


@pytest.mark.parametrize("kind", ["long", "below a file", "circle"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_calls_an_unusable_path_a_fault_of_its_own(
    system, tmp_path, monkeypatch, command, kind
):
    monkeypatch.chdir(tmp_path)
    text = command.replace("{ws}", str(tmp_path / "ws"))

    result = runner.invoke(app, [word.replace("{}", str(system[kind])) for word in text.split()])

    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code in (2, 3, 5, 6, 7), result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error[")]
    assert len(lines) == (0 if text.startswith("mark") else 1)
    assert all(len(line) < 1000 for line in lines)
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied; "),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: Read-only file system; "),
        (OSError(errno.ENOSPC, "No space left on device"), "the output: No space .*make room"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in []"), "TMPDIR"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "current folder"),
    ],
)
def test_a_refusal_of_the_system_is_an_error_of_the_machine(error, said):
    with pytest.raises(MachineError, match=said) as caught, refusals_named():
        raise error
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "/x"), RuntimeError("a bug")]
)
def test_what_may_be_a_fault_of_ours_stays_one(error):
    with pytest.raises(type(error)) as caught, refusals_named():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "command", ["keygen --out {}", "sample {} -n 1 --out {}", "sign-declaration {} --id x --key {}"]
)
def test_the_home_of_an_unknown_user_is_no_folder(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)

    result = runner.invoke(app, command.replace("{}", "~nobody-has-this-name/x").split())

    assert result.exit_code == 2
    assert result.output.startswith("error[C")
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_has_no_cache_and_no_folder_for_keys(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)

    assert cache_dir() is None
    with pytest.raises(SigningKeyError, match="no home folder"):
        make_keys(None)
    assert list(tmp_path.iterdir()) == []


def started(arguments: list[str], **kwargs) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pipelines.cli.app", *arguments]
    return subprocess.run(command, check=False, stderr=subprocess.PIPE, **kwargs)  # noqa: S603


def test_output_that_cannot_be_written_is_exit_code_7():
    with Path("/dev/full").open("wb") as full:
        done = started(["--version"], stdout=full)

    assert done.returncode == 7
    assert done.stderr.decode().startswith("error[X000] a file or the output: No space left")
    assert len(done.stderr.splitlines()) == 1


def test_a_character_that_the_output_lacks_is_replaced(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}

    done = started(["verify", str(tmp_path / "€")], env=environment, stdout=subprocess.PIPE)

    assert done.returncode == 5
    assert rb"\u20ac" in done.stderr


def test_without_docstrings_no_command_starts():
    done = started(["--version"], env=os.environ | {"PYTHONOPTIMIZE": "2"})

    assert done.returncode == 2
    assert b"PYTHONOPTIMIZE" in done.stderr


def test_a_current_folder_that_was_removed_is_said_so(tmp_path):
    command = (
        f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m pipelines.cli.app doctor"
    )

    done = subprocess.run(  # noqa: S602 - a fixed command
        command, shell=True, cwd=tmp_path, capture_output=True, check=False
    )

    assert done.returncode == 7
    assert b"the current folder was removed" in done.stderr


@pytest.mark.parametrize("port", ["used", "99999", "0"])
def test_the_ui_refuses_a_port_that_it_cannot_have_and_prints_no_address(
    tmp_path, socket_enabled, port
):
    open_store(tmp_path, TrackingConfig())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = str(other.getsockname()[1]) if port == "used" else port

        result = runner.invoke(app, ["ui", "-w", str(tmp_path), "--port", number])

    assert result.exit_code == (7 if port == "used" else 2)
    assert "http://" not in result.output
    assert number in result.output


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, PhantomSettings(n_patients=8, image_height_px=64))
    return folder


@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("compute_device=cuda", 7, "compute_device: 'cuda' is not available"),
        ("model.settings.diffusion.batch_size=4000", 2, "the data have at most"),
        ("training.processes=7", 2, "training.processes=7"),
        ("data.contract=/does/not/exist.yaml", 2, "/does/not/exist.yaml"),
    ],
)
def test_what_configuration_machine_and_listing_show_is_refused_before_the_first_step(
    phantoms, tmp_path, monkeypatch, override, code, said
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    workspace = tmp_path / "ws"
    given = ["--preset", "smoke", "--data", str(phantoms), "-w", str(workspace), "-o", override]

    result = runner.invoke(app, ["run", *given])

    assert result.exit_code == code
    assert said in result.output
    assert len(result.output.splitlines()) == 1
    assert not workspace.exists()


def test_damaged_weights_stop_a_run_before_it_begins(phantoms, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (tmp_path / FILE_NAME).write_bytes(b"damaged")
    given = ["--preset", "smoke", "--data", str(phantoms), "-w", str(tmp_path / "ws")]

    result = runner.invoke(app, ["run", *given])

    assert result.exit_code == 5
    assert "damaged or unreadable" in result.output
    assert not (tmp_path / "ws").exists()
