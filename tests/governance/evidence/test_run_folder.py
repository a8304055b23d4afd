"""Every file of a run folder is compared with its digest on record when it is read."""

from pathlib import Path

import pytest

from governance.evidence.folder import RunFolder
from governance.evidence.manifest import close_evidence
from governance.evidence.store import EvidenceStore
from governance.records.base import document_kinds
from governance.records.dataset import BoundaryChecks
from governance.records.errors import ConfigError, EvidenceError, EvidenceTamperedError, NotRunError
from governance.records.partition import SealRecord, SplitRecord
from governance.records.run import Plan, RunIdentity
from tests.governance.checks.faults import PARTS
from tests.stored_run.stored import START, good

RUN = good()
RUN_ID = RUN.need(RunIdentity).run_id


@pytest.fixture
def store(tmp_path: Path) -> EvidenceStore:
    """The folder of an open run that wrote every document of a good run."""
    store = EvidenceStore.create(tmp_path / "runs", RUN_ID, tool_version="0.1.0")
    for kind in PARTS.values():
        store.write_document(RUN.need(kind))
    return store


def close(store: EvidenceStore) -> Path:
    close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run=None,
        now=START,
    )
    return store.run_dir


def test_documents_are_read_as_they_were_written_while_a_run_is_open_and_once_it_is_closed(store):
    is_open = RunFolder.open(store)
    closed = RunFolder.closed(close(store))

    for kind in PARTS.values():
        assert is_open.get(kind) == closed.get(kind) == RUN.get(kind)
    assert closed.digests[Plan.PATH] == is_open.digests[Plan.PATH]
    assert closed.manifest.run_id == closed.identity.run_id == RUN_ID


def test_an_open_run_has_no_manifest(store):
    with pytest.raises(EvidenceError, match="its evidence is not closed"):
        RunFolder.open(store).manifest  # noqa: B018


def test_a_document_is_read_once(store):
    folder = RunFolder.open(store)

    assert folder.get(SplitRecord) is folder.get(SplitRecord)


def test_a_run_without_a_document_says_why_it_may_have_none(tmp_path):
    store = EvidenceStore.create(tmp_path, RUN_ID, tool_version="0.1.0")
    folder = RunFolder.open(store)

    assert [kind for kind in document_kinds().values() if folder.get(kind) is not None] == []
    with pytest.raises(NotRunError, match=r"journal\.jsonl lists no data/split\.json: ") as caught:
        folder.need(SplitRecord)
    assert caught.value.absence == "the split step did not run to its end"


def test_a_file_that_is_not_on_record_is_not_read(store):
    (store.run_dir / "notes.txt").write_text("x")

    assert RunFolder.open(store).read("notes.txt") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"unit": "patient"}', '{"unit": 1, "x": 2}'])
def test_a_document_that_does_not_parse_is_named(store, text):
    store.write_bytes(SplitRecord.PATH, text.encode())

    with pytest.raises(EvidenceError, match=r"data/split\.json: not a readable SplitRecord: "):
        RunFolder.open(store).get(SplitRecord)


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_changed_document_is_named_with_both_digests(store, is_closed):
    if is_closed:
        close(store)
    path = store.run_dir / SplitRecord.PATH
    path.write_bytes(path.read_bytes() + b" ")
    folder = RunFolder.closed(store.run_dir) if is_closed else RunFolder.open(store)

    with pytest.raises(EvidenceTamperedError, match=r"data/split\.json: recorded as sha256:"):
        folder.get(SplitRecord)


def test_a_missing_document_is_named(store):
    (store.run_dir / SplitRecord.PATH).unlink()

    with pytest.raises(EvidenceError, match=r"data/split\.json: cannot be read"):
        RunFolder.open(store).get(SplitRecord)


def test_a_folder_in_place_of_a_document_is_named(store):
    (store.run_dir / SplitRecord.PATH).unlink()
    (store.run_dir / SplitRecord.PATH).mkdir()

    with pytest.raises(EvidenceError, match=r"data/split\.json: not a regular file"):
        RunFolder.open(store).get(SplitRecord)


@pytest.mark.parametrize("path", ["../secret.json", "/etc/hostname", "data/../../secret.json"])
def test_a_path_outside_the_folder_is_refused(store, path):
    (store.run_dir.parent / "secret.json").write_text("{}")

    with pytest.raises(EvidenceError, match="lies outside the run folder"):
        RunFolder(store.run_dir, {path: "0" * 64}).read(path)


def test_a_link_that_leads_outside_the_folder_is_refused(store):
    data, elsewhere = store.run_dir / "data", store.run_dir.parent / "elsewhere"
    data.rename(elsewhere)
    data.symlink_to(elsewhere)

    with pytest.raises(EvidenceError, match="lies outside the run folder"):
        RunFolder.open(store).get(SplitRecord)


def test_a_file_found_changed_counts_as_it_is_where_that_is_asked_for(store):
    changed = RUN.need(SplitRecord).model_copy(update={"seed": 99})
    (store.run_dir / SplitRecord.PATH).write_text(changed.model_dump_json())
    (store.run_dir / SealRecord.PATH).unlink()

    folder = RunFolder.open(store, as_found=[SplitRecord.PATH, SealRecord.PATH, "never.json"])

    assert folder.need(SplitRecord).seed == 99
    assert folder.get(SealRecord) is None
    assert folder.digests[SplitRecord.PATH] != store.artifacts()[SplitRecord.PATH]
    assert folder.get(BoundaryChecks) == RUN.get(BoundaryChecks)


def test_documents_that_are_given_take_the_place_of_those_in_the_folder(store):
    changed = RUN.need(SplitRecord).model_copy(update={"seed": 99})
    folder = RunFolder.open(store)

    assert folder.knowing(changed).need(SplitRecord).seed == 99
    assert folder.need(SplitRecord).seed != 99
    assert RunFolder.of(changed).need(SplitRecord).seed == 99


def test_a_manifest_of_another_run_is_refused(store):
    store.write_document(RUN.need(RunIdentity).model_copy(update={"run_id": "another"}))

    with pytest.raises(EvidenceError, match=r"run\.json: is of run 'another', the manifest of"):
        RunFolder.closed(close(store))


def test_a_run_that_did_not_end_is_not_finished(store, tmp_path):
    with pytest.raises(ConfigError, match="did not come to its end"):
        RunFolder.finished(store.run_dir)
    with pytest.raises(ConfigError, match="not a run folder"):
        RunFolder.finished(tmp_path)
