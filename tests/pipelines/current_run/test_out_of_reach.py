"""What training must not read may not lie in what it must read; known before any work."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.records.errors import ConfigError
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app
from pipelines.config.model import load_config
from pipelines.current_run.places import refuse_in_data, refuse_readable_folders


def config(tmp_path: Path, **flags: str):
    values = {
        "workspace": str(tmp_path / "ws"),
        **{k.replace("__", "."): v for k, v in flags.items()},
    }
    return load_config(preset="smoke", flags=values)


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("seal.key_dir", "/usr/local/keys"),
        ("seal.ledger_dir", "/etc/ledgers"),
        ("data.path", "/usr/share"),
        ("data.cache", f"{sys.prefix}/cache"),
        ("workspace", "/usr/src/workspace"),
    ],
)
def test_a_folder_that_training_reads_is_refused_with_its_key(tmp_path, key, folder):
    refused = config(tmp_path, **{key: folder})

    with pytest.raises(ConfigError, match=f"^{key}: {folder} is in /.* choose a folder outside$"):
        refuse_readable_folders(refused)


def test_a_signing_key_in_the_python_installation_is_refused(tmp_path):
    refused = config(tmp_path, **{"signing.key": sys.executable})

    with pytest.raises(ConfigError, match=r"^signing\.key: "):
        refuse_readable_folders(refused)


def test_folders_beside_are_taken(tmp_path):
    refuse_readable_folders(
        config(
            tmp_path,
            **{
                "data.path": str(tmp_path / "data"),
                "seal.key_dir": str(tmp_path / "keys"),
                "seal.ledger_dir": str(tmp_path / "ledger"),
                "signing.key": "hsm:some-key",
            },
        )
    )


def test_a_run_is_refused_with_exit_2_and_one_sentence_before_anything_is_written(tmp_path):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=8, seed=0, image_height_px=64))
    arguments = ["run", "--preset", "smoke", "--data", str(tmp_path / "data")]
    arguments += ["-w", str(tmp_path / "ws"), "-o", "seal.key_dir=/usr/keys"]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "error[C000] seal.key_dir: /usr/keys is in /usr" in result.stderr
    assert not (tmp_path / "ws").exists()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "d"
    write_phantoms(folder, PhantomSettings(n_patients=8, seed=0, image_height_px=64))
    return folder


@pytest.fixture
def data(phantoms, monkeypatch):
    """A data folder, made the current one, that must be left as it was."""
    monkeypatch.chdir(phantoms)
    before = {path: path.stat().st_mtime_ns for path in phantoms.rglob("*")}
    yield phantoms
    assert {path: path.stat().st_mtime_ns for path in phantoms.rglob("*")} == before


RUN = ("run", "--preset", "smoke", "--data", ".")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (RUN, "workspace"),
        ((*RUN, "-w", "Images"), "workspace"),
        (("run", "--preset", "smoke", "-w", "Images/ws"), "workspace"),
        ((*RUN, "-w", "{beside}/link"), "workspace"),
        ((*RUN, "-w", ".."), "data.path"),
        ((*RUN, "-w", "{beside}/ws", "-o", "seal.ledger_dir=ledger"), "seal.ledger_dir"),
        ((*RUN, "-w", "{beside}/ws", "-o", "seal.key_dir=keys"), "seal.key_dir"),
        ((*RUN, "-w", "{beside}/ws", "-o", "data.cache=cache"), "data.cache"),
        ((*RUN, "-w", "{beside}/ws", "-o", "tracking.uri=sqlite:///m.db"), "tracking.uri"),
        (("data", "check", ".", "--out", "out"), "--out"),
        (("data", "check", ".", "-o", "data.cache=cache"), "data.cache"),
        (("data", "phantom", "more"), "DIR"),
        (("keygen", "--out", "keys"), "--out"),
        (("init",), "DIR"),
    ],
)
def test_nothing_of_ours_is_written_into_the_data_and_no_data_lie_in_the_workspace(
    arguments, key, data, tmp_path
):
    (tmp_path / "link").symlink_to(data / "Images")

    result = CliRunner().invoke(app, [part.format(beside=tmp_path) for part in arguments])

    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error[C000] {key}: "), result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_cache_in_the_data_that_the_environment_names_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDISYNTH_GOV_CACHE", str(data / "cache"))

    result = CliRunner().invoke(app, [*RUN, "-w", str(tmp_path / "ws"), "-o", "data.cache=off"])

    assert result.exit_code == 2
    assert "MEDISYNTH_GOV_CACHE: " in result.stderr


def test_a_folder_beside_the_data_may_be_written(data, tmp_path):
    refuse_in_data("--out", tmp_path / "out", data)
    refuse_in_data("--out", data.parent / "d2", data)
