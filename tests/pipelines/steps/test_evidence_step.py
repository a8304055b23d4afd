"""The evidence step closes every run, also one whose files were changed under its hands."""

import io
import json
from pathlib import Path

import pytest

from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.run import Outcome
from governance.records.training import TrainingRecord
from pipelines.config.model import load_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.steps import s7_evidence, s8_report
from tests.stored_run.stored import VERSION, Variant, write_run

OUTCOME = Outcome(
    status="finished", stopped_at=None, error_code=None, message="", steps=(), duration_s=1
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("source"), Variant(config=b"seed: 7\n"))


def open_run(workspace: Path, source: Path) -> RunContext:
    """A run with the documents of the stored run that is not closed yet."""
    store = EvidenceStore.create(workspace / "runs", source.name, tool_version=VERSION)
    skipped = ("records/", "journal", "manifest", "summary", "integrity", "outcome", "data/seal")
    for path in sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()):
        if not path.startswith(skipped):
            store.write_bytes(path, (source / path).read_bytes())
    config = load_config(preset="smoke", flags={"workspace": str(workspace)})
    return RunContext(config, load_policy(), store, Console(stream=io.StringIO()), workspace)


def close(context: RunContext) -> dict[str, str]:
    """Close the run and render it; return the statuses of its items."""
    s7_evidence.run(OUTCOME, context)
    s8_report.write_report(context.store.run_dir)
    folder = context.store.run_dir / "records"
    records = [json.loads(path.read_bytes()) for path in folder.iterdir()]
    return {record["id"]: record["status"] for record in records}


def warnings(context: RunContext) -> str:
    stream = context.console.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_items_on_card_and_report_are_judged_from_their_draft(tmp_path, source):
    context = open_run(tmp_path, source)

    statuses = close(context)

    assert {statuses[i] for i in ("P9-01", "P9-02", "P9-04", "P9-06", "P9-08")} == {"passed"}
    assert (context.store.run_dir / "card_check.json").is_file()
    assert (context.store.run_dir / "lineage.json").is_file()
    assert warnings(context) == ""


def test_a_changed_document_still_gets_a_report_that_says_so(tmp_path, source):
    context = open_run(tmp_path, source)
    path = context.store.run_dir / "metrics" / "training.json"
    record = TrainingRecord.model_validate_json(path.read_bytes())
    path.write_text(record.model_copy(update={"recipe": "other"}).model_dump_json(), "utf-8")

    statuses = close(context)

    assert statuses["P2-07"] == "failed"
    assert statuses["P9-02"] == "failed"  # what was observed in it has another digest on record
    assert statuses["P10-04"] == "not evaluated"
    assert "no lineage was written: " in warnings(context)


def test_a_picture_that_is_gone_leaves_card_and_report_undrafted(tmp_path, source):
    context = open_run(tmp_path, source)
    (context.store.run_dir / "figures" / "real.png").unlink()

    s7_evidence.run(OUTCOME, context)

    record = json.loads((context.store.run_dir / "records" / "P9-01.json").read_bytes())
    assert (record["status"], record["reason"]) == (
        "not evaluated",
        "card and report were not drafted",
    )
    assert "card and report were not drafted: " in warnings(context)
    assert (context.store.run_dir / "manifest.json").is_file()
