"""The key of a run: keygen, the configuration, and the training process that must not read it."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.errors import SigningKeyError
from pipelines.cli.app import app
from pipelines.config.model import load_config
from pipelines.config.sections import SigningConfig
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.current_run.keys import make_keys, open_signer
from pipelines.steps.s4_split import _must_refuse
from tests.governance.signing.signed_run import make_signed_run

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys")
    make_keys(place)
    return place


def test_without_a_key_a_run_is_unsigned():
    assert open_signer(SigningConfig()) is None


def test_the_configured_key_is_opened_with_its_identity(folder):
    signer = open_signer(SigningConfig(key=str(folder / "signing_key.pem"), identity="A. Person"))

    assert signer.record.identity == "A. Person"
    assert signer.record.has_certificate
    assert signer.key_path == (folder / "signing_key.pem").resolve()


def test_a_key_in_the_home_folder_can_be_named_with_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))

    assert open_signer(SigningConfig(key="~/signing_key.pem")).key_path.name == "signing_key.pem"


def test_a_certificate_or_public_key_of_the_configuration_is_checked(folder, tmp_path):
    make_keys(tmp_path)
    key = str(folder / "signing_key.pem")

    with pytest.raises(SigningKeyError, match="certificate is of another key"):
        open_signer(SigningConfig(key=key, certificate=str(tmp_path / "signing_key.crt")))
    with pytest.raises(SigningKeyError, match="not the public key of"):
        open_signer(SigningConfig(key=key, public_key=str(tmp_path / "signing_key.pub")))


def test_keygen_prints_the_id_and_what_to_configure_and_never_the_key(tmp_path):
    done = runner.invoke(app, ["keygen", "--out", str(tmp_path / "new" / "keys")])

    private = tmp_path / "new" / "keys" / "signing_key.pem"
    assert done.exit_code == 0
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert f"key: {private}" in done.output
    assert "not vouched for" in done.output
    assert private.read_text().splitlines()[1] not in done.output

    again = runner.invoke(app, ["keygen", "--out", str(tmp_path / "new" / "keys")])
    assert again.exit_code == 7
    assert again.output.startswith(f"error[G041] {private}: exists already and is not overwritten")


def test_a_key_that_cannot_be_read_stops_a_run_before_any_work(tmp_path):
    workspace = tmp_path / "workspace"
    missing = tmp_path / "none.pem"

    done = runner.invoke(
        app, ["run", "--preset", "smoke", "-w", str(workspace), "-o", f"signing.key={missing}"]
    )

    assert done.exit_code == 7
    assert f"error[G041] signing.key: {missing} cannot be read" in done.output
    assert "Traceback" not in done.output
    assert not workspace.exists()


def test_verify_says_who_signed_and_compares_with_a_key_a_head_and_a_root(folder, tmp_path):
    signer = open_signer(SigningConfig(key=str(folder / "signing_key.pem")))
    run_dir = str(make_signed_run(tmp_path, signer))
    make_keys(tmp_path / "other")
    own, other = str(folder / "signing_key.pub"), str(tmp_path / "other" / "signing_key.pub")

    plain = runner.invoke(app, ["verify", run_dir, "--require-signature"])
    assert plain.exit_code == 0
    assert f"signature     signed by key id {signer.record.key_id}" in plain.output
    assert runner.invoke(app, ["verify", run_dir, "--key", own]).exit_code == 0
    assert runner.invoke(app, ["verify", run_dir, "--key", other]).exit_code == 5
    assert runner.invoke(app, ["verify", run_dir, "--head", "0" * 64]).exit_code == 5
    assert runner.invoke(app, ["verify", run_dir, "--root", "0" * 64]).exit_code == 5
    assert runner.invoke(app, ["verify", run_dir, "--root", "0"]).exit_code == 2
    assert runner.invoke(app, ["verify", run_dir, "--key", run_dir]).exit_code == 2


def test_the_training_process_must_fail_to_read_the_private_key(folder, tmp_path):
    signer = open_signer(SigningConfig(key=str(folder / "signing_key.pem")))
    config = load_config(preset="smoke", flags={"data.cache": "off"})
    store = EvidenceStore.create(tmp_path / "runs", "r1", tool_version="0")
    unsigned = RunContext(config, load_policy(), store, Console(), tmp_path)

    refused = _must_refuse(
        tmp_path, "table.csv", tmp_path / "a.png", replace(unsigned, signer=signer)
    )

    assert refused["signing key"] == str(folder / "signing_key.pem")
    assert "signing key" not in _must_refuse(tmp_path, "table.csv", tmp_path / "a.png", unsigned)
