"""What training must not read may not lie in what it must read; known before any work."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.records.errors import ConfigError
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.begin import refuse_readable_folders
from pipelines.cli.app import app
from pipelines.config.model import load_config


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
