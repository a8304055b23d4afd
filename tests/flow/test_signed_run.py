"""A whole run with key, time-stamp, ledger and mirror: what it signs, and what verify compares."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_socket import disable_socket, enable_socket
from typer.testing import CliRunner

from governance.evidence import verify_run as script
from governance.evidence.chain import Chain
from governance.evidence.folder import RunFolder
from governance.evidence.manifest import read_manifest
from governance.records.training import TrainingRecord
from governance.verify.folder import verify_run
from governance.verify.ledger import check_openings
from pipelines.cli.app import app
from pipelines.config.sections import TrackingConfig
from pipelines.current_run.keys import make_keys
from pipelines.finished_runs.verify import verify_all
from pipelines.tracking.store import open_known_store
from tests.governance.signing.time_stamp_authority import local_authority, served

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
    enable_socket()  # of this machine only: the authority is asked at the end of the run
    with pytest.MonkeyPatch.context() as patch, served(local_authority()) as authority:
        patch.setenv("NO_PROXY", "*")
        arguments = _arguments(workspace, keys, authority.address)
        result = runner.invoke(app, arguments)
    disable_socket(allow_unix_socket=True)
    return Path(json.loads(result.stdout)["run_dir"])


def _arguments(workspace: Path, keys: Path, authority: str) -> list[str]:
    return [
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
        *("-o", f"signing.timestamp_url={authority}"),
        *("-o", f"signing.key={keys / 'signing_key.pem'}", "-o", "signing.identity=A. Person"),
    ]


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


def flip(path: Path, offset: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :])


def named(faults, name: str) -> bool:
    return any(fault.startswith((f"{name}:", f"{name} ")) for fault in faults)


def test_one_flipped_byte_in_each_listed_file_is_found_and_named_by_both(signed, tmp_path):
    run_dir = Path(shutil.copytree(signed, tmp_path / signed.name))
    manifest = read_manifest(run_dir)
    # All at once: each file is judged by its own digest, whatever became of the others.
    paths = [file.path for file in (*manifest.evidence, *manifest.outputs) if file.n_bytes]
    for place, path in enumerate(paths):
        flip(run_dir / path, place * 7919 % (run_dir / path).stat().st_size)

    found, by_script = verify_run(run_dir).faults, script.check(run_dir)[0]

    assert {"report-signed.pdf", "attestations/train.json", "journal.jsonl"} <= {*paths}
    assert [path for path in paths if not named(found, path)] == []
    assert [path for path in paths if not named(by_script, path)] == []


@pytest.mark.parametrize(
    "name", ["manifest.json", "manifest.sig", "manifest.tsr", "manifest.tsr.sha256"]
)
def test_one_flipped_byte_in_what_no_manifest_lists_is_found_by_both(signed, tmp_path, name):
    run_dir = Path(shutil.copytree(signed, tmp_path / signed.name))
    data = (run_dir / name).read_bytes()
    for offset in (0, len(data) // 3, len(data) - 1):
        flip(run_dir / name, offset)
        found, by_script = verify_run(run_dir).faults, script.check(run_dir)[0]
        assert any(fault.startswith("manifest.") for fault in found), offset
        assert by_script, offset
        (run_dir / name).write_bytes(data)
    assert (verify_run(run_dir).faults, script.check(run_dir)[0]) == ((), [])


@pytest.mark.slow
def test_one_flipped_byte_in_each_file_alone_is_found_and_named_by_both(signed, tmp_path):
    run_dir = Path(shutil.copytree(signed, tmp_path / signed.name))
    # Names that start with a dot are working files, such as the lock: no part of the evidence.
    files = [path for path in run_dir.rglob("[!.]*") if path.is_file() and path.stat().st_size]
    assert len(files) > len(read_manifest(run_dir).evidence)
    for path in files:
        name, data = path.relative_to(run_dir).as_posix(), path.read_bytes()
        for offset in {0, len(data) // 2, len(data) - 1}:
            flip(path, offset)
            assert any(name in fault for fault in verify_run(run_dir).faults), (name, offset)
            assert script.check(run_dir)[0], (name, offset)
            path.write_bytes(data)
    assert verify_run(run_dir).faults == ()


def ledger_of(run_dir: Path) -> Path:
    (path,) = (run_dir.parent.parent / "ledger").glob("*.jsonl")
    return path


def with_ledger(signed: Path, workspace: Path) -> Path:
    """The ledger in a folder of its own, to be changed; returns that folder."""
    return Path(shutil.copytree(ledger_of(signed).parent, workspace / "ledger"))


def test_sealing_and_opening_agree_with_the_ledger_of_the_workspace(signed):
    found = verify_all(signed)

    assert found.faults == ()
    assert found.ledger == (
        f"{ledger_of(signed)}: 1 sealing, 1 opening of this run compared; 1 opening over all runs "
        "so far"
    )


def test_a_run_folder_away_from_its_ledger_is_no_fault_and_the_ledger_can_be_named(
    signed, tmp_path
):
    moved = Path(shutil.copytree(signed, tmp_path / "runs" / signed.name))
    ledgers = with_ledger(signed, tmp_path / "shared")
    workspace = signed.parent.parent
    away = workspace.with_name("away")
    workspace.rename(away)
    try:
        alone, named_folder = verify_all(moved), verify_all(moved, ledger_dir=ledgers)
    finally:
        away.rename(workspace)

    assert (alone.faults, named_folder.faults) == ((), ())
    assert alone.ledger.startswith(f"ledger not found at {tmp_path}/ledger/")
    assert f" or {workspace}/ledger/" in alone.ledger
    assert alone.ledger.endswith("not compared; --ledger DIR names its folder")
    assert "1 opening of this run compared" in named_folder.ledger


def test_a_flipped_byte_in_every_line_of_the_ledger_is_found(signed, tmp_path):
    ledgers = with_ledger(signed, tmp_path)
    (path,) = ledgers.glob("*.jsonl")
    data = path.read_bytes()
    for offset in range(0, len(data), 31):
        flip(path, offset)
        assert check_openings(signed, (ledgers,)).faults, offset
        path.write_bytes(data)


def test_a_ledger_without_the_opening_or_with_one_more_is_named(signed, tmp_path):
    ledgers = with_ledger(signed, tmp_path)
    (path,) = ledgers.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))

    (cut,) = verify_all(signed, ledger_dir=ledgers).faults
    assert f"{path}: has no entry for event" in cut
    assert f"'test set opened' number 1 of run {signed.name}" in cut

    path.write_bytes(b"".join(lines))
    chain = Chain(path, one_run=False)
    chain.append("test set opened", {"number": 2, "purpose": "peek"}, run="another", version="0")
    assert verify_all(signed, ledger_dir=ledgers).faults == ()
    chain.append("test set opened", {"number": 3}, run=signed.name, version="0")
    (hidden,) = verify_all(signed, ledger_dir=ledgers).faults
    assert hidden == (
        f"{path}:4: 'test set opened' number 3 by this run, journal.jsonl does not know it"
    )


def test_a_ledger_written_anew_with_other_facts_is_named(signed, tmp_path):
    events = Chain(ledger_of(signed), one_run=False).read()
    path = tmp_path / "ledger" / ledger_of(signed).name
    path.parent.mkdir()
    path.touch()
    for event in events:
        facts = {**event.body, "number": event.body["number"] + 1}
        Chain(path, one_run=False).append(event.type, facts, run=event.run, version=event.version)

    faults = verify_all(signed, ledger_dir=path.parent).faults

    assert any("'test set sealed' has number 2, expected 1" in fault for fault in faults)
    assert any("has no entry for event" in fault for fault in faults)


def test_verify_asks_for_a_ledger_folder_that_exists(signed, tmp_path):
    result = runner.invoke(app, ["verify", str(signed), "--ledger", str(tmp_path / "none")])

    assert result.exit_code == 2
    assert "--ledger" in result.output


def mirror_of(run_dir: Path):
    store = open_known_store(run_dir.parent.parent, TrackingConfig())
    (found,) = store.client.search_runs(
        [store.experiment_id], filter_string=f"tags.`medisynth.run_id` = '{run_dir.name}'"
    )
    return store.client, found.info.run_id


def test_the_mirror_of_a_run_agrees_and_is_said_to(signed):
    result = runner.invoke(app, ["verify", str(signed), "--mirror", "--json"])

    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["faults"]) == (0, [])
    assert facts["mirror"].endswith("tags, data sets, parameters, metrics and model compared")


@pytest.mark.parametrize(
    "tag",
    ["medisynth.verdict", "gmlp.P4", "medisynth.evidence_root", "medisynth.journal_head"],
)
def test_an_edited_tag_of_the_mirror_is_named(signed, tag):
    client, mlflow_id = mirror_of(signed)
    before = client.get_run(mlflow_id).data.tags[tag]
    client.set_tag(mlflow_id, tag, "satisfied by hand")
    try:
        result = runner.invoke(app, ["verify", str(signed), "--mirror"])
    finally:
        client.set_tag(mlflow_id, tag, before)

    assert result.exit_code == 5
    _, line = result.stderr.splitlines()
    assert line.startswith(
        f"error[G031] MLflow: tag '{tag}' is 'satisfied by hand', the run folder has "
    )


def test_an_edited_metric_and_an_exchanged_checkpoint_of_the_mirror_are_named(signed):
    client, mlflow_id = mirror_of(signed)
    keys = client.get_run(mlflow_id).data.metrics
    curve = next(key for key in keys if not key.startswith("evaluation/"))
    run = client.get_run(mlflow_id)
    (model,) = client.search_logged_models([run.info.experiment_id])
    name = RunFolder.finished(signed).need(TrainingRecord).checkpoint_path.rpartition("/")[2]
    file = Path(model.artifact_location.removeprefix("file://")) / name
    client.log_metric(mlflow_id, curve, 0.0, step=0)
    flip(file, 100)
    try:
        faults = verify_all(signed, with_mirror=True).faults
    finally:
        flip(file, 100)

    assert any(f"MLflow: metric '{curve}' is " in fault for fault in faults)
    assert any(f"model checkpoint {name} (file) is" in fault for fault in faults)


def test_a_store_that_is_away_is_exit_6_and_nothing_is_made(signed, tmp_path):
    moved = Path(shutil.copytree(signed, tmp_path / "runs" / signed.name))

    result = runner.invoke(app, ["verify", str(moved), "--mirror"])

    assert result.exit_code == 6
    (line,) = result.stderr.splitlines()
    assert "there is no such store; nothing was compared" in line
    assert not (tmp_path / "mlflow").exists()


def test_plain_verification_of_a_run_imports_neither_torch_nor_mlflow(signed):
    code = (
        "import sys; from pipelines.cli.app import app\n"
        f"try: app(['verify', {str(signed)!r}])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert not {'torch', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "time-stamp    says 20" in done.stdout
