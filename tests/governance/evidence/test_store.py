import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from governance.evidence.journal import read_journal
from governance.evidence.manifest import close_evidence
from governance.evidence.store import EvidenceStore
from governance.records.base import ItemClass, ItemStatus
from governance.records.dataset import Findings
from governance.records.errors import EvidenceError, Finding, RecordWriteError
from governance.records.item import ItemRecord
from governance.records.training import Candidate, Curve, Selection


def new_store(folder: Path) -> EvidenceStore:
    return EvidenceStore.create(folder / "runs", "20250301T093000Z-ab12", tool_version="0.1.0")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


FINDINGS = Findings(
    findings=(Finding(code="D016", where="é.csv", row=5, column=None, message="5 fields"),)
)


def test_a_document_is_written_as_readable_json_that_reads_back_equal(tmp_path):
    store = new_store(tmp_path)

    artifact = store.write_document(FINDINGS)

    text = (store.run_dir / "data" / "findings.json").read_text(encoding="utf-8")
    assert text == (
        '{\n "findings": [\n  {\n   "code": "D016",\n   "column": null,\n   "message": "5 fields",\n'
        '   "row": 5,\n   "where": "é.csv"\n  }\n ]\n}\n'
    )
    assert Findings.model_validate_json(text) == FINDINGS
    assert artifact.path == "data/findings.json"
    assert artifact.sha256 == sha256(text.encode())


def test_every_write_is_journaled_with_path_size_and_digest(tmp_path):
    store = new_store(tmp_path)
    store.write_bytes("config.yaml", b"seed: 1\n")
    (store.run_dir / "checkpoints").mkdir()
    (store.run_dir / "checkpoints" / "last.safetensors").write_bytes(b"weights")

    artifact = store.register("checkpoints/last.safetensors")

    events = read_journal(store.journal.path).events
    assert [(event.type, event.body) for event in events] == [
        (
            "artifact written",
            {"path": "config.yaml", "bytes": 8, "sha256": sha256(b"seed: 1\n")},
        ),
        (
            "artifact written",
            {
                "path": "checkpoints/last.safetensors",
                "bytes": 7,
                "sha256": sha256(b"weights"),
            },
        ),
    ]
    assert store.artifacts() == {
        "config.yaml": sha256(b"seed: 1\n"),
        "checkpoints/last.safetensors": artifact.sha256,
    }


def test_a_file_written_again_is_journaled_again_and_the_last_digest_counts(tmp_path):
    store = new_store(tmp_path)
    store.write_bytes("metrics/a.json", b"1")
    store.write_bytes("metrics/a.json", b"2")

    assert store.artifacts() == {"metrics/a.json": sha256(b"2")}
    assert store.journal.n_events == 2
    assert store.recheck().mismatches == ()


def test_records_go_to_one_file_an_item(tmp_path):
    store = new_store(tmp_path)
    record = ItemRecord(
        id="P4-01",
        title="Patients shared",
        principle="P4",
        item_class=ItemClass.CORE,
        kind="computed",
        status=ItemStatus.NOT_EVALUATED,
        reason="no split",
        time_utc=datetime(2025, 3, 1, tzinfo=UTC),
    )

    store.write_records([record])

    data = (store.run_dir / "records" / "P4-01.json").read_bytes()
    assert ItemRecord.model_validate_json(data) == record
    assert json.loads(data)["status"] == "not evaluated"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_and_its_place_named(tmp_path, value):
    store = new_store(tmp_path)
    selection = Selection(
        partition="tuning",
        view_sha256="0" * 64,
        criterion="loss",
        candidates=(Candidate(step=1, score=0.5), Candidate(step=2, score=value)),
        chosen_step=1,
    )
    curve = Curve(stage="diffusion", name="loss", steps=(1,), values=(value,))

    with pytest.raises(EvidenceError, match=r"x\.json: candidates\[1\]\.score is not a finite"):
        store.write_document(selection, "x.json")
    with pytest.raises(EvidenceError, match=r"x\.json: values\[0\] is not a finite"):
        store.write_document(curve, "x.json")

    assert not (store.run_dir / "x.json").exists()


def test_a_name_from_a_broken_encoding_can_be_recorded(tmp_path):
    store = new_store(tmp_path)
    finding = replace(FINDINGS.findings[0], where="\udcff.csv")

    store.write_document(Findings(findings=(finding,)))

    data = (store.run_dir / "data" / "findings.json").read_bytes()
    assert json.loads(data)["findings"][0]["where"] == r"\udcff.csv"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/x",
        "a/../../x",
        "",
        ".hidden",
        "a/.b/c",
        "x.part",
        "journal.jsonl",
        "manifest.json",
        "report.pdf",
    ],
)
def test_a_path_outside_the_evidence_is_refused(tmp_path, path):
    store = new_store(tmp_path)

    for write in (lambda: store.write_bytes(path, b"x"), lambda: store.register(path)):
        with pytest.raises(EvidenceError, match="not a path for evidence"):
            write()


def test_a_symbolic_link_is_refused_wherever_it_stands_in_the_path(tmp_path):
    store = new_store(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_bytes(b"x")
    (store.run_dir / "folder").symlink_to(tmp_path / "outside")
    (store.run_dir / "file").symlink_to(tmp_path / "outside" / "x")

    for path in ("folder/x", "file"):
        with pytest.raises(EvidenceError, match="symbolic link"):
            store.register(path)
        with pytest.raises(EvidenceError, match="symbolic link"):
            store.write_bytes(path, b"y")
    assert (tmp_path / "outside" / "x").read_bytes() == b"x"


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_only_a_regular_file_can_be_put_on_record(tmp_path, kind):
    store = new_store(tmp_path)
    if kind == "folder":
        (store.run_dir / "thing").mkdir()

    with pytest.raises(EvidenceError, match="thing"):
        store.register("thing")


def test_recheck_finds_what_changed_what_vanished_and_what_nobody_registered(tmp_path):
    store = new_store(tmp_path)
    for name in ("kept", "changed", "vanished"):
        store.write_bytes(f"data/{name}", b"abc")
    (store.run_dir / "data" / "changed").write_bytes(b"abd")
    (store.run_dir / "data" / "vanished").unlink()
    (store.run_dir / "data" / "stray").write_bytes(b"?")
    (store.run_dir / "link").symlink_to("/etc")

    record = store.recheck()

    assert record.n_files == 3
    assert record.mismatches == ("data/changed", "data/vanished")
    assert record.unregistered == ("data/stray", "link: symbolic link")
    assert record.journal_events == 3
    assert record.journal_head == store.journal.head
    assert record.journal_faults == ()


def test_recheck_finds_a_changed_and_a_cut_journal(tmp_path):
    store = new_store(tmp_path)
    store.write_bytes("a", b"1")
    store.write_bytes("b", b"1")
    whole = store.journal.path.read_bytes()

    store.journal.path.write_bytes(whole.replace(b'"path":"a"', b'"path":"c"'))
    assert "journal.jsonl:1: the digest does not match" in store.recheck().journal_faults[0]

    store.journal.path.write_bytes(whole.splitlines(keepends=True)[0])
    assert "journal.jsonl: 1 events" in store.recheck().journal_faults[0]


def test_after_closing_nothing_is_written(tmp_path):
    store = new_store(tmp_path)
    store.write_bytes("a", b"1")
    close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run=None,
        now=datetime.now(UTC),
    )

    for path in ("a", "b"):
        with pytest.raises(EvidenceError, match="the evidence is closed"):
            store.write_bytes(path, b"2")

    assert (store.run_dir / "a").read_bytes() == b"1"
    assert not (store.run_dir / "b").exists()


def test_a_run_folder_that_exists_or_cannot_be_made_is_refused_with_its_name(tmp_path):
    store = new_store(tmp_path)
    (tmp_path / "file").touch()

    with pytest.raises(RecordWriteError, match=store.run_id):
        new_store(tmp_path)
    with pytest.raises(RecordWriteError, match="file/r1: the run folder cannot be made"):
        EvidenceStore.create(tmp_path / "file", "r1", tool_version="0.1.0")
    for run_id in ("", "..", "a/b", ".hidden"):
        with pytest.raises(RecordWriteError, match="not a run id"):
            EvidenceStore.create(tmp_path, run_id, tool_version="0.1.0")


def closed_store(folder: Path) -> EvidenceStore:
    store = new_store(folder)
    store.write_bytes("run.json", b"{}")
    close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run=None,
        now=datetime.now(UTC),
    )
    return store


def test_a_reopened_store_knows_what_is_on_record_and_goes_on(tmp_path):
    store = new_store(tmp_path)
    store.write_bytes("a", b"1")
    store.write_bytes("a", b"2")

    again = EvidenceStore.reopen(store.run_dir, tool_version="0.1.0")
    again.resume({"reason": "killed"})
    again.write_bytes("b", b"3")

    assert again.artifacts() == {"a": sha256(b"2"), "b": sha256(b"3")}
    assert again.recheck().mismatches == again.recheck().unregistered == ()
    events = read_journal(store.journal.path)
    assert events.faults == ()
    assert [event.type for event in events.events].count("run resumed") == 1


def test_an_earlier_end_is_kept_in_the_history_and_is_evidence(tmp_path):
    store = closed_store(tmp_path)
    (store.run_dir / "report.pdf").write_bytes(b"%PDF")
    manifest = (store.run_dir / "manifest.json").read_bytes()
    head = store.journal.head

    for end in (1, 2):
        again = EvidenceStore.reopen(store.run_dir, tool_version="0.1.0")
        again.resume({"reason": "interrupted"})
        (again.run_dir / "manifest.json").write_bytes(f"end {end + 1}".encode())

    history = again.run_dir / "history"
    assert (history / "1" / "manifest.json").read_bytes() == manifest
    assert (history / "1" / "report.pdf").read_bytes() == b"%PDF"
    assert (history / "2" / "manifest.json").read_bytes() == b"end 2"
    assert again.artifacts()["history/1/report.pdf"] == sha256(b"%PDF")
    assert not (again.run_dir / "report.pdf").exists()
    resumed = [e for e in read_journal(again.journal.path).events if e.type == "run resumed"]
    assert resumed[0].body == {"previous_head": head, "reason": "interrupted"}


@pytest.mark.parametrize("change", ["flipped", "removed"])
def test_a_file_that_is_not_the_one_on_record_is_refused_and_named(tmp_path, change):
    store = new_store(tmp_path)
    store.write_bytes("data/a", b"abc")
    path = store.run_dir / "data" / "a"
    path.write_bytes(b"abd") if change == "flipped" else path.unlink()

    with pytest.raises(EvidenceError, match="data/a"):
        EvidenceStore.reopen(store.run_dir, tool_version="0.1.0")


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_kill_between_record_and_move_loses_nothing(tmp_path, before):
    """The new bytes wait beside the file under their digest; the record says they belong there."""
    store = new_store(tmp_path)
    if before is not None:
        store.write_bytes("data/a", before)
    store.write_bytes("data/a", b"new")
    path = store.run_dir / "data" / "a"
    path.rename(path.with_name(f".a.{sha256(b'new')[:16]}.part"))
    if before is not None:
        path.write_bytes(before)

    again = EvidenceStore.reopen(store.run_dir, tool_version="0.1.0")

    assert path.read_bytes() == b"new"
    assert again.recheck().mismatches == ()


def test_a_kill_before_the_record_leaves_the_file_as_it_was(tmp_path):
    store = new_store(tmp_path)
    store.write_bytes("data/a", b"old")
    path = store.run_dir / "data" / "a"
    path.with_name(f".a.{sha256(b'new')[:16]}.part").write_bytes(b"new")

    EvidenceStore.reopen(store.run_dir, tool_version="0.1.0")

    assert path.read_bytes() == b"old"


def test_a_torn_journal_is_kept_as_evidence(tmp_path):
    store = new_store(tmp_path)
    store.write_bytes("a", b"1")
    with store.journal.path.open("ab") as stream:
        stream.write(b'{"actor":"x')

    again = EvidenceStore.reopen(store.run_dir, tool_version="0.1.0")
    again.resume({"reason": "killed"})

    assert again.artifacts()["journal.jsonl.torn"] == sha256(b'{"actor":"x\n')
    assert read_journal(store.journal.path).faults == ()


def test_files_written_together_are_on_disk_before_they_are_on_record(tmp_path, monkeypatch):
    store, synced = new_store(tmp_path), []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        if synced[-1].name == "journal.jsonl":
            waiting = list((store.run_dir / "many").iterdir())
            assert len(waiting) == 40
            assert all(path.name.endswith(".part") for path in waiting)

    monkeypatch.setattr(os, "fsync", watched)
    written = store.write_files({f"many/{n:02d}": bytes([n]) * n for n in range(40)})

    folder, journal = store.run_dir / "many", store.run_dir / "journal.jsonl"
    assert [artifact.sha256 for artifact in written] == [sha256(bytes([n]) * n) for n in range(40)]
    assert synced[-3:] == [folder, journal, folder]
    assert len(synced) == 40 + 3
    assert len(set(synced[:40])) == 40
    assert store.recheck().mismatches == ()
    assert len(read_journal(store.journal.path).events) == 40


def test_a_kill_while_files_written_together_are_moved_loses_none(tmp_path):
    store = new_store(tmp_path)
    store.write_files({f"many/{n}": bytes([n]) for n in range(5)})
    for n in (1, 3, 4):
        path = store.run_dir / "many" / f"{n}"
        path.rename(path.with_name(f".{n}.{sha256(bytes([n]))[:16]}.part"))

    again = EvidenceStore.reopen(store.run_dir, tool_version="0.1.0")

    assert again.recheck().mismatches == ()
    assert [(store.run_dir / "many" / f"{n}").read_bytes() for n in range(5)] == [
        bytes([n]) for n in range(5)
    ]


def test_of_files_written_together_none_is_on_record_if_one_cannot_be_written(tmp_path):
    store = new_store(tmp_path)
    (store.run_dir / "taken").write_bytes(b"")

    with pytest.raises(RecordWriteError, match="taken"):
        store.write_files({"many/a": b"a", "taken/b": b"b"})

    assert store.artifacts() == {}
    assert list((store.run_dir / "many").iterdir()) == []
