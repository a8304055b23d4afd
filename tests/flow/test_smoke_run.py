"""The whole flow on phantoms: one real smoke run, and what must hold of what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.confinement.confine import landlock_abi
from governance.records.base import document_kinds
from governance.records.item import CardCheck
from governance.reports.card.check import check_card
from governance.reports.evidence import load_evidence
from medisynth.data.reading.synthetic_mark import read_mark
from pipelines.cli.app import app
from pipelines.fetch.weights import find_weights

runner = CliRunner()
GATE = {"P4-01", "P4-02", "P4-05", "P4-11", "P5-01", "P2-07", "P2-12", "P9-05"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def smoke(workspace):
    """Exit code, facts and folder of one default smoke run, under a umask of 077."""
    before = os.umask(0o077)
    try:
        result = runner.invoke(app, ["run", "--preset", "smoke", "-w", str(workspace), "--json"])
    finally:
        os.umask(before)
    facts = json.loads(result.stdout)
    return result.exit_code, facts, Path(facts["run_dir"])


def read(run_dir: Path, name: str):
    return json.loads((run_dir / name).read_bytes())


def test_a_default_phantom_run_passes_every_gate_item(smoke):
    exit_code, facts, run_dir = smoke

    lines = read(run_dir, "summary.json")["gate_items"]
    assert {line["item_id"]: line["status"] for line in lines} == dict.fromkeys(GATE, "passed")
    assert facts["gate"] == "passed"
    assert exit_code == 0


def test_the_run_folder_holds_every_document_and_output(smoke):
    _, _, run_dir = smoke

    expected = {
        *document_kinds(),
        "config.yaml",
        "journal.jsonl",
        "manifest.json",
        "data/images.parquet",
    }
    expected |= {"model_card.md", "model_card.json", "report.pdf", "report.html"}
    # written only when there is a finding, a file that people give, a result of the tests, or a run
    # before; the smoke preset trains no classifier
    expected -= {"metrics/utility.json", "data/findings.json", "declarations.json"}
    expected -= {"software/vulnerabilities.json", "software/tests.json", "change.json"}
    assert {name for name in expected if not (run_dir / name).is_file()} == set()
    assert not (run_dir / ".scratch").exists()


def test_under_a_umask_of_077_nobody_else_can_read_anything_of_the_workspace(smoke, workspace):
    open_to_others = [str(p) for p in workspace.rglob("*") if p.lstat().st_mode & 0o077]

    assert open_to_others == []


def test_every_item_of_the_policy_has_a_record_and_none_is_green_by_omission(smoke):
    _, _, run_dir = smoke

    items = [
        item for p in read(run_dir, "plan.json")["policy"]["principles"] for item in p["items"]
    ]
    records = {item["id"]: read(run_dir, f"records/{item['id']}.json") for item in items}
    for item in items:
        record = records[item["id"]]
        if record["status"] == "not evaluated":
            assert record["reason"]
        if item["kind"] == "human":
            assert record["status"] != "passed"
        if record["status"] == "passed":
            assert record["observed"] is not None


def test_evidence_on_the_software_is_computed_by_the_run_itself(smoke):
    _, _, run_dir = smoke
    statuses = {
        item_id: read(run_dir, f"records/{item_id}.json")["status"]
        for item_id in ("P2-03", "P2-06", "P2-11", "P1-01", "P2-04")
    }

    assert statuses == {
        **dict.fromkeys(("P2-03", "P2-06", "P2-11"), "passed"),
        **dict.fromkeys(("P1-01", "P2-04"), "not evaluated"),  # nobody declared or scanned
    }
    repeat = read(run_dir, "metrics/repeat.json")
    assert (repeat["stage"], repeat["step"]) == ("diffusion", 10)
    assert repeat["sha256"] == repeat["repeated_sha256"]
    assert read(run_dir, "trace.json")["broken"] == []


def test_what_was_found_in_the_draft_holds_for_card_and_report_as_published(smoke):
    _, _, run_dir = smoke

    record = CardCheck.model_validate_json((run_dir / "card_check.json").read_bytes())
    published = check_card(load_evidence(run_dir))
    for found in (record, published):
        assert (found.empty_fields, found.untraced, found.unlisted) == ((), (), ())
        assert (found.disagreements, found.words) == ((), ())
    listed = {part.part for part in record.parts}
    assert {part.part for part in published.parts} - listed == {"trace"}
    for item_id in ("P9-01", "P9-02", "P9-04", "P9-06", "P9-08"):
        assert read(run_dir, f"records/{item_id}.json")["status"] == "passed"


def test_the_plan_is_frozen_before_the_first_training_step(smoke):
    _, _, run_dir = smoke

    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_bytes().splitlines()]
    order = [event["type"] for event in events]
    assert order.index("plan frozen") < order.index("test set sealed")
    assert order.index("test set sealed") < order.index("training started")
    assert order.index("training started") < order.index("checkpoint committed")
    assert order[-1] == "evidence closed"


def test_training_was_refused_the_test_set_and_said_so(smoke):
    _, _, run_dir = smoke

    isolation = read(run_dir, "isolation.json")
    tried = {attempt["target"] for attempt in isolation["attempts"]}
    assert tried >= {"sealed image", "vault of the sealed images", "key of the vault"}
    assert all(attempt["refused"] for attempt in isolation["attempts"])
    assert isolation["n_sealed_reads"] == 0
    assert isolation["level"] == (4 if landlock_abi() else 2)


def test_the_vault_is_gone_once_the_run_has_ended(smoke):
    _, _, run_dir = smoke

    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_bytes().splitlines()]
    (removed,) = [event["body"] for event in events if event["type"] == "vault removed"]
    assert removed == {"n_files": 2, "opened": True}
    for name in ("vault", "keys"):
        assert not list((run_dir.parent.parent / name).glob(f"*{run_dir.name}*"))


def test_every_synthetic_image_carries_its_mark(smoke):
    _, facts, run_dir = smoke

    samples = read(run_dir, "samples/manifest.json")
    assert samples["n_marks_read_back"] == samples["n_images"] == 80
    for path, _, _ in samples["files"]:
        mark = read_mark((run_dir / path).read_bytes())
        assert mark is not None
        assert mark.run_id == facts["run_id"]


def test_fid_and_kid_have_interval_and_floor_or_a_reason(smoke):
    _, _, run_dir = smoke

    metrics = read(run_dir, "metrics/evaluation.json")["metrics"]
    assert {m["id"].split("-")[0] for m in metrics} >= {"fid", "kid"}
    for metric in metrics:
        if find_weights() is None:
            assert metric["value"] is None
            assert "weights" in metric["reason"]
        elif metric["value"] is not None and metric["id"].startswith(("fid", "kid")):
            low, high = metric["ci95"]
            assert low <= high
            assert metric["floor"] is not None


def test_the_run_verifies_without_torch_and_mlflow(smoke):
    _, _, run_dir = smoke
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli.app import app;"
        f"result = CliRunner().invoke(app, ['verify', {str(run_dir)!r}]);"
        "heavy = {'torch', 'mlflow'} & set(sys.modules);"
        "sys.exit(f'{result.output} {heavy}' if result.exit_code or heavy else 0)"
    )

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["data/split.json", "report.pdf", "samples/00003.png", "journal.jsonl", "config.yaml"]
)
def test_one_changed_byte_is_found_and_named(smoke, name):
    _, _, run_dir = smoke
    path = run_dir / name
    before = path.read_bytes()
    middle = len(before) // 2
    try:
        path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])

        result = runner.invoke(app, ["verify", str(run_dir)])
    finally:
        path.write_bytes(before)

    assert result.exit_code == 5
    assert name in result.stderr


def test_card_and_reports_render_again_to_the_same_bytes(smoke):
    _, _, run_dir = smoke

    result = runner.invoke(app, ["report", str(run_dir)])

    assert result.exit_code == 0, result.output
    assert result.output.count("same bytes") == 4


def test_the_mirror_has_a_child_run_for_each_step_and_the_verdict(smoke, workspace):
    from mlflow import MlflowClient

    _, facts, run_dir = smoke
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("medisynth-gov")
    runs = client.search_runs([experiment.experiment_id])
    parent = next(r for r in runs if r.data.tags.get("medisynth.run_id") == facts["run_id"])
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]

    assert parent.info.status == "FINISHED"
    assert parent.data.tags["medisynth.evidence_root"] == facts["evidence_root"]
    assert parent.data.tags["gmlp.P4"] == facts["principles"]["P4"]
    assert {r.info.run_name for r in children} == {
        *("s1_ingest", "s2_validate", "s3_audit", "s4_split"),
        *("s5_train", "s6_evaluate", "s7_evidence", "s8_report"),
    }
    assert {r.info.status for r in children} == {"FINISHED"}
    partitions = {
        p["partition"]: p["sha256"] for p in read(run_dir, "data/split.json")["partitions"]
    }
    logged = {tag.value for i in parent.inputs.dataset_inputs for tag in i.tags}
    assert set(partitions.values()) <= logged
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.tags["medisynth.checkpoint_sha256"] in {
        read(run_dir, "metrics/training.json")["checkpoint_sha256"]
    }


def test_the_same_configuration_and_seed_give_the_same_samples_and_opening_two_is_exploratory(
    smoke, workspace
):
    _, _, first_dir = smoke

    again = runner.invoke(
        app,
        ["run", "--preset", "smoke", "-w", str(workspace), "--json"]
        + ["-o", "evaluation.extractor=none", "-o", "tracking.enabled=false"],
    )

    second_dir = Path(json.loads(again.stdout)["run_dir"])
    first, second = (read(d, "samples/manifest.json") for d in (first_dir, second_dir))
    assert [pixels for _, _, pixels in first["files"]] == [p for _, _, p in second["files"]]
    assert first["checkpoint_sha256"] == second["checkpoint_sha256"]
    opening = read(second_dir, "metrics/evaluation.json")["opening"]
    assert opening["label"] == "exploratory, opening 2"
    assert read(second_dir, "manifest.json")["previous_run"] is not None
    lineage, change = (read(second_dir, f"{name}.json") for name in ("lineage", "change"))
    assert lineage["parent"]["run_id"] == first_dir.name
    assert lineage["parent"]["checkpoint"] == "intact"
    assert lineage["delta"] == {"n_same": 190, "n_changed": 0, "n_added": 0, "n_removed": 0}
    changed = {value["name"] for value in change["config"]}
    assert changed == {"evaluation.extractor", "tracking.enabled"}
    assert {line["distance"] for line in change["drift"]} == {0.0}
    statuses = {i: read(second_dir, f"records/{i}.json")["status"] for i in ("P9-07", "P10-04")}
    assert statuses == {"P9-07": "passed", "P10-04": "failed"}  # nobody gave a reason
