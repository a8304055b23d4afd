"""A whole run with a signing key: what it signs, and that training cannot read the key."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.keys import make_keys

TOY = "tests.plugins.slow_toy:SlowToy"
runner = CliRunner()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder)
    return folder


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    workspace = tmp_path_factory.mktemp("signed")
    arguments = [
        *("run", "--preset", "smoke", "--json", "-w", str(workspace), "--model", TOY),
        *("-o", "data.phantom={n_patients: 16, image_height_px: 64}", "-o", "data.cache=off"),
        *("-o", "model.settings={steps: 10, pause_ms: 0, size: 32}"),
        *(
            "-o",
            "training.repeat_steps=0",
            "-o",
            "training.preview_every=0",
            "-o",
            "evaluation.n_synthetic=16",
        ),
        *("-o", "evaluation.extractor=none", "-o", "evaluation.n_bootstrap=50"),
        *("-o", "tracking.enabled=false", "-o", f"signing.key={keys / 'signing_key.pem'}"),
    ]
    result = runner.invoke(app, arguments)
    return Path(json.loads(result.stdout)["run_dir"])


def test_a_signed_run_verifies_with_the_key_of_who_signed(signed, keys):
    arguments = ["verify", str(signed), "--key", str(keys / "signing_key.pub")]

    result = runner.invoke(app, [*arguments, "--require-signature", "--json"])

    facts = json.loads(result.stdout)
    assert facts["faults"] == []
    assert result.exit_code == 0
    assert "identity not vouched for" in facts["signature"]


def test_the_script_in_the_run_folder_agrees(signed):
    done = subprocess.run(
        [sys.executable, "-I", "verify_run.py"],
        cwd=signed,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_every_step_has_its_statement_and_the_pdf_its_certified_copy(signed):
    names = {path.stem for path in (signed / "attestations").iterdir()}

    assert names == {"data", "seal", "train", "evaluate", "report"}
    assert (
        (signed / "report-signed.pdf").read_bytes().startswith((signed / "report.pdf").read_bytes())
    )


def test_the_training_process_was_refused_the_private_key(signed):
    isolation = json.loads((signed / "isolation.json").read_bytes())
    if isolation["level"] < 3:
        pytest.skip("this kernel has no Landlock: files are not refused here")
    attempts = {attempt["target"]: attempt["refused"] for attempt in isolation["attempts"]}

    assert attempts["signing key"] is True


def test_no_file_of_the_run_holds_the_private_key(signed, keys):
    body = (keys / "signing_key.pem").read_bytes().splitlines()[1]
    files = [path for path in signed.rglob("*") if path.is_file()]

    assert files
    assert [path for path in files if body in path.read_bytes()] == []


def test_report_and_page_say_who_signed(signed, keys):
    key_id = json.loads((keys / "signing_key.pub").read_bytes())["keyid"]

    assert f"signed by key id {key_id}" in (signed / "report.html").read_text("utf-8")
