"""`seal status` and `seal show` on runs that were sealed and opened at the level of records."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.confinement.confine import KEY_TARGET, VAULT_TARGET
from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.errors import ConfigError
from governance.records.files import canonical_json
from governance.records.run import Outcome, StepTiming
from governance.sealing.ledger import Ledger
from governance.sealing.seal import Leaf, SealedTestSet, seal_test_set
from governance.sealing.vault import Vault
from pipelines.cli.app import app
from pipelines.config.model import load_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.steps.s4_split import _must_refuse
from pipelines.steps.s7_evidence import _end_vault

runner = CliRunner()
DATASET = "d" * 64


def make_leaf(number: int) -> Leaf:
    return Leaf(
        id=f"Patient0{number}_Plane1",
        path=f"{number}.png",
        file_sha256=hashlib.sha256(b"%d" % number).hexdigest(),
        pixel_sha256="0" * 64,
        patient=f"{number}",
        plane="Fetal brain",
        brain_plane=None,
        operator=None,
        machine="Voluson E6",
        width=8,
        height=6,
    )


def seal(workspace: Path, run_id: str, *, ledger_dir: Path | None = None) -> SealedTestSet:
    data = workspace / "data"
    data.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        (data / f"{number}.png").write_bytes(b"%d" % number)
    return seal_test_set(
        [make_leaf(number) for number in range(3)],
        store=EvidenceStore.create(workspace / "runs", run_id, tool_version="0.1.0"),
        ledger=Ledger(ledger_dir or workspace / "ledger", DATASET),
        data_root=data,
        vault=Vault(workspace / "vault" / f"{run_id}.vault", workspace / "keys" / f"{run_id}.key"),
    )


def open_set(sealed: SealedTestSet) -> None:
    digests = {"plan_sha256": "b" * 64, "model_sha256": "c" * 64}
    sealed.open(purpose="evaluation", **digests, read=lambda data, leaf: None)


@pytest.fixture
def workspace(tmp_path) -> Path:
    for run_id in ("r1", "r2"):
        open_set(seal(tmp_path, run_id))
    return tmp_path


def test_status_lists_sealings_and_openings_of_each_data_set(workspace):
    result = runner.invoke(app, ["seal", "status", "-w", str(workspace)])

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"data set {DATASET}", "  2 sealings, 2 openings"]
    assert [line.split()[0] for line in lines[2:6]] == ["sealed", "sealed", "opened", "opened"]
    assert lines[4].endswith("run r1  confirmatory; evaluation")
    assert lines[5].endswith("run r2  exploratory, opening 2; evaluation")
    assert "kept in vault/, for runs that have not ended or were cut short:" in lines
    kept = lines[lines.index("kept in keys/, for runs that have not ended or were cut short:") :]
    assert [line.split()[0] for line in kept[1:]] == ["r1.key", "r2.key"]


def test_status_names_what_a_first_run_left_that_was_killed_while_it_encrypted(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "r1.key").write_bytes(b"00")

    result = runner.invoke(app, ["seal", "status", "-w", str(tmp_path)])

    assert result.exit_code == 0, result.output
    assert "no test set was sealed here" in result.stdout
    assert "r1.key  2 bytes" in result.stdout


def test_status_as_json_has_purpose_run_time_and_label_of_each_opening(workspace):
    result = runner.invoke(app, ["seal", "status", "-w", str(workspace), "--json"])

    facts = json.loads(result.stdout)
    (data_set,) = facts["data_sets"]
    assert (data_set["n_seals"], data_set["n_openings"]) == (2, 2)
    first, second = data_set["openings"]
    assert (first["run"], first["label"], first["number"]) == ("r1", "confirmatory", 1)
    assert (second["run"], second["label"]) == ("r2", "exploratory, opening 2")
    assert first["purpose"] == "evaluation"
    assert first["time_utc"] <= second["time_utc"]
    assert set(facts["vaults_kept"]) == {"r1.vault", "r2.vault"}
    assert set(facts["keys_kept"]) == {"r1.key", "r2.key"}


def test_two_workspaces_that_share_a_ledger_count_together(tmp_path):
    shared = tmp_path / "shared"
    for name in ("one", "two"):
        open_set(seal(tmp_path / name, "r1", ledger_dir=shared))

    result = runner.invoke(app, ["seal", "status", "--ledger", str(shared), "--json"])

    (data_set,) = json.loads(result.stdout)["data_sets"]
    labels = [opening["label"] for opening in data_set["openings"]]
    assert labels == ["confirmatory", "exploratory, opening 2"]
    assert not (tmp_path / "one" / "ledger").exists()


def test_an_empty_folder_of_ledgers_is_said_to_be_empty(tmp_path):
    (tmp_path / "ledger").mkdir()

    result = runner.invoke(app, ["seal", "status", "-w", str(tmp_path)])

    assert result.exit_code == 0
    assert "no test set was sealed here" in result.stdout


@pytest.mark.parametrize("arguments", [["-w", "missing"], ["--ledger", "missing"]])
def test_a_folder_that_is_missing_is_one_line_and_exit_2(arguments):
    result = runner.invoke(app, ["seal", "status", *arguments])

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error[C000] missing")


def test_a_broken_ledger_is_exit_5_and_named(workspace):
    path = workspace / "ledger" / f"{DATASET}.jsonl"
    path.write_bytes(path.read_bytes().replace(b"evaluation", b"rehearsal_", 1))

    result = runner.invoke(app, ["seal", "status", "-w", str(workspace)])

    assert result.exit_code == 5
    assert f"{DATASET}.jsonl:2: the digest does not match" in result.stderr


@pytest.mark.parametrize("number", range(3))
def test_show_gives_a_proof_that_anyone_can_recompute(workspace, number):
    name = f"Patient0{number}_Plane1"

    result = runner.invoke(app, ["seal", "show", "r1", name, "-w", str(workspace), "--json"])

    facts = json.loads(result.stdout)
    found = hashlib.sha256(b"\x00" + canonical_json(facts["leaf"])).hexdigest()
    assert found == facts["leaf_sha256"]
    for sibling in facts["audit_path"]:
        pair = [sibling["sha256"], found]
        left, right = pair if sibling["side"] == "left" else reversed(pair)
        joined = bytes.fromhex(left) + bytes.fromhex(right)
        found = hashlib.sha256(b"\x01" + joined).hexdigest()
    seal_record = json.loads((workspace / "runs" / "r1" / "data" / "seal.json").read_bytes())
    assert found == facts["merkle_root"] == seal_record["merkle_root"]
    assert (facts["leaf"]["id"], facts["verified"]) == (name, True)


def test_show_prints_leaf_path_and_root(workspace):
    arguments = [str(workspace / "runs" / "r1"), "Patient01_Plane1"]  # by folder

    result = runner.invoke(app, ["seal", "show", *arguments])

    assert result.exit_code == 0, result.output
    assert "run r1: one of 3 sealed images" in result.stdout
    assert "  machine       Voluson E6" in result.stdout
    assert "  brain_plane   not recorded" in result.stdout
    assert "\n  left   " in result.stdout
    assert "\n  right  " in result.stdout
    assert result.stdout.rstrip().endswith("give the root of seal and journal")


@pytest.mark.parametrize(
    ("run", "image", "said"),
    [
        ("r1", "Patient01_Plane2", "near are 'Patient01_Plane1'"),
        ("r1", "zzz", "its 3 ids are in data/seal_leaves.json"),
        ("r11", "Patient01_Plane1", "did you mean 'r1'?"),
        ("", "Patient01_Plane1", "give the run's folder"),
    ],
)
def test_an_unknown_image_or_run_is_exit_2_with_what_is_near(workspace, run, image, said):
    result = runner.invoke(app, ["seal", "show", run, image, "-w", str(workspace)])

    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert said in line


def test_show_refuses_leaves_that_were_changed(workspace):
    path = workspace / "runs" / "r1" / "data" / "seal_leaves.json"
    path.write_bytes(path.read_bytes().replace(b"Voluson E6", b"Voluson S8", 1))

    result = runner.invoke(app, ["seal", "show", "r1", "Patient02_Plane1", "-w", str(workspace)])

    assert result.exit_code == 5
    assert "leaves with root" in result.stderr


def test_seal_commands_import_neither_torch_nor_mlflow(workspace):
    calls = [
        ["seal", "status", "-w", str(workspace)],
        ["seal", "show", "r1", "Patient01_Plane1", "-w", str(workspace)],
    ]
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli.app import app;"
        f"codes = [CliRunner().invoke(app, call).exit_code for call in {calls!r}];"
        "heavy = {'torch', 'mlflow', 'pandas', 'numpy'} & set(sys.modules);"
        "sys.exit(f'{codes} {heavy}' if heavy or any(codes) else 0)"
    )

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def context_of(workspace: Path, sealed_run: str) -> RunContext:
    config = load_config(preset="smoke", flags={"data.cache": "off"})
    seal(workspace, sealed_run)
    store = EvidenceStore.reopen(workspace / "runs" / sealed_run, tool_version="0.1.0")
    store.resume({"reason": "killed"})
    return RunContext(config, load_policy(), store, Console(), workspace)


def test_the_training_process_must_fail_to_read_vault_and_key(tmp_path):
    context = context_of(tmp_path, "r1")

    refused = _must_refuse(tmp_path / "data", "table.csv", tmp_path / "data" / "0.png", context)

    assert refused["vault of the sealed images"] == str(tmp_path / "vault" / "r1.vault")
    assert refused["key of the vault"] == str(tmp_path / "keys" / "r1.key")
    assert all(Path(refused[name]).is_file() for name in (VAULT_TARGET, KEY_TARGET))
    assert refused["folder of vaults"] == str(tmp_path / "vault")
    assert refused["folder of keys"] == str(tmp_path / "keys")


def test_the_configuration_moves_ledger_and_key(tmp_path):
    flags = {"seal.ledger_dir": str(tmp_path / "shared"), "seal.key_dir": str(tmp_path / "safe")}
    context = replace(context_of(tmp_path, "r1"), config=load_config(preset="smoke", flags=flags))

    assert context.ledger_dir == tmp_path / "shared"
    assert context.vault.key_path == tmp_path / "safe" / "r1.key"
    assert context.vault.path == tmp_path / "vault" / "r1.vault"


@pytest.mark.parametrize("key", ["ledger_dir", "key_dir"])
@pytest.mark.parametrize("place", ["data", "ws/runs"])
def test_ledger_and_key_never_go_into_the_data_or_the_run_folders(tmp_path, key, place):
    flags = {
        "data.path": str(tmp_path / "data"),
        "workspace": str(tmp_path / "ws"),
        f"seal.{key}": str(tmp_path / place / "inside"),
    }

    with pytest.raises(ConfigError, match=f"seal.{key}: .* choose another"):
        load_config(preset="smoke", flags=flags)


def outcome(status: str, *steps: str) -> Outcome:
    timings = tuple(StepTiming(step=step, status="finished", duration_s=1.0) for step in steps)
    return Outcome.model_validate(
        {
            **{"status": status, "stopped_at": None, "error_code": None, "message": ""},
            **{"steps": timings, "duration_s": 1.0},
        }
    )


@pytest.mark.parametrize(
    ("ended", "is_kept"),
    [
        (outcome("finished", "s4_split", "s6_evaluate"), False),
        (outcome("blocked", "s4_split"), False),
        (outcome("failed"), False),  # before the split was done: there is nothing to go on from
        (outcome("failed", "s4_split"), True),
        (outcome("interrupted", "s4_split", "s5_train"), True),
    ],
)
def test_the_vault_is_kept_as_long_as_its_run_may_go_on(tmp_path, ended, is_kept):
    context = context_of(tmp_path, "r1")

    _end_vault(ended, context)

    files = [context.vault.path, context.vault.key_path]
    assert [path.exists() for path in files] == [is_kept, is_kept]
    types = [event.type for event in context.store.journal.events()]
    assert ("vault removed" in types) != is_kept
