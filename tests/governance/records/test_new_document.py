"""A new document is one class and its writer; nothing else of the product has to know it."""

from dataclasses import replace
from pathlib import Path

import pytest

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS, judge, judge_items
from governance.checks.trace import trace
from governance.evidence.folder import RunFolder
from governance.evidence.manifest import close_evidence
from governance.evidence.store import EvidenceStore
from governance.records.base import Document, ItemStatus, document_kinds
from governance.records.item import CheckResult, Observed
from governance.records.policy import Criterion
from governance.records.run import RunIdentity
from governance.verify.folder import verify_run
from tests.governance.checks.faults import POLICY
from tests.stored_run.stored import START, good

ITEM = "P4-01"


class Noise(Document):
    """How noisy the images are."""

    PATH = "data/noise.json"
    ABSENCE = "nobody measured noise"

    n_noisy: int


def noise(run: JudgedRun, criterion: Criterion) -> CheckResult:
    n_noisy = run.need(Noise).n_noisy
    return judge(criterion, Observed(value=n_noisy), reason="r", method="m", source=Noise)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvidenceStore:
    monkeypatch.setitem(CHECKS, ITEM, replace(CHECKS[ITEM], function=noise))
    identity = good().need(RunIdentity)
    store = EvidenceStore.create(tmp_path, identity.run_id, tool_version="0.1.0")
    store.write_document(identity)
    store.write_document(Noise(n_noisy=0))
    return store


def test_a_new_document_stands_in_manifest_trace_and_verification_by_itself(store):
    folder, files = RunFolder.open(store), store.artifacts()
    (record,) = judge_items(POLICY, folder, now=START, artifacts=files, only=[ITEM])
    store.write_records([record])
    table = trace(POLICY, [record], folder, store.artifacts())
    manifest = close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run=None,
        now=START,
    )

    assert RunFolder.closed(store.run_dir).need(Noise) == Noise(n_noisy=0)
    assert {file.path: file.sha256 for file in manifest.evidence}[Noise.PATH] == files[Noise.PATH]
    (line,) = (line for line in table.lines if line.item_id == ITEM)
    assert (record.status, line.artifact) == (ItemStatus.PASSED, Noise.PATH)
    assert line.artifact_sha256 == files[Noise.PATH]
    assert verify_run(store.run_dir, is_ended=False).is_intact
    (store.run_dir / Noise.PATH).write_text('{"n_noisy": 1}')
    (fault,) = verify_run(store.run_dir, is_ended=False).faults
    assert fault.startswith(f"{Noise.PATH}: ")


def test_every_document_of_the_product_names_its_file_and_why_a_run_may_lack_it():
    kinds = [kind for kind in Document.__subclasses__() if kind.__module__.startswith("governance")]
    named = [kind for kind in kinds if kind.PATH]

    assert len({kind.PATH for kind in named}) == len(named)
    assert set(document_kinds().values()) <= set(named)
    assert [kind for kind in document_kinds().values() if not kind.ABSENCE] == []
    assert list(document_kinds()) == sorted(document_kinds())
