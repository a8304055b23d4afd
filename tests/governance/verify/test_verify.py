import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from governance.evidence import verify_run as script
from governance.evidence.chain import make_empty
from governance.evidence.journal import Journal, read_journal
from governance.evidence.manifest import (
    add_outputs,
    close_evidence,
    closing_facts,
    evidence_root,
    measure,
    read_manifest,
)
from governance.evidence.store import EvidenceStore
from governance.records.errors import EvidenceError
from governance.records.files import canonical_json
from governance.records.manifest import Manifest
from governance.records.run import RunIdentity
from governance.sealing.ledger import Ledger
from governance.sealing.seal import Leaf, seal_test_set
from governance.verify.folder import verify_run

RUN_ID = "20250301T093000Z-ab12"
NOW = datetime(2025, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)


def make_leaf(number: int) -> Leaf:
    return Leaf(
        id=f"image {number}",
        path=f"{number}.png",
        file_sha256=f"{number}" * 64,
        pixel_sha256="a" * 64,
        patient=f"patient {number}",
        plane="Fetal brain",
        brain_plane=None,
        operator=None,
        machine=None,
        width=8,
        height=6,
    )


def make_run(folder: Path) -> Path:
    """A run folder with a seal, binary evidence and outputs, which verifies."""
    store = EvidenceStore.create(folder, RUN_ID, tool_version="0.1.0")
    identity = RunIdentity(
        run_id=RUN_ID,
        started_utc=NOW,
        tool_version="0.1.0",
        code_commit=None,
        code_clean=None,
        command=("medisynth-gov", "run"),
        preset="smoke",
        generator="dsr-gan",
        seed=1,
        config_sha256="0" * 64,
    )
    store.write_bytes("config.yaml", b"seed: 1\n")
    store.write_document(identity)
    seal_test_set(
        [make_leaf(number) for number in range(3)],
        store=store,
        ledger=Ledger(folder / "ledger", "d" * 64),
        data_root=folder,
    )
    store.write_bytes("checkpoints/last.safetensors", bytes(range(64)))
    close_evidence(
        store.run_dir,
        run_id=RUN_ID,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run="e" * 64,
        now=NOW,
    )
    for name in ("model_card.md", "report.pdf"):
        (store.run_dir / name).write_bytes(f"{name} 1\n".encode())
    add_outputs(store.run_dir, ["model_card.md", "report.pdf"])
    return store.run_dir


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("built"))


@pytest.fixture
def run_dir(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / built.name))


def rewrite_manifest(run_dir: Path, **changes: object) -> None:
    """Write a manifest that agrees with itself, as a careful forger would."""
    manifest = read_manifest(run_dir)
    values = {**manifest.model_dump(), **changes}
    forged = Manifest.model_validate(values)
    forged = forged.model_copy(update={"evidence_root": evidence_root(forged.evidence)})
    data = canonical_json(forged.model_dump(mode="json")) + b"\n"
    (run_dir / "manifest.json").write_bytes(data)


def relist(run_dir: Path, *paths: str) -> None:
    """Put the present digests of changed files on the manifest."""
    manifest = read_manifest(run_dir)
    evidence = tuple(
        measure(run_dir, file.path) if file.path in paths else file for file in manifest.evidence
    )
    rewrite_manifest(run_dir, evidence=evidence)


def faults_of(run_dir: Path) -> tuple[str, ...]:
    return verify_run(run_dir).faults


def test_a_run_as_written_verifies_and_its_numbers_are_those_of_the_manifest(run_dir):
    result = verify_run(run_dir)

    manifest = read_manifest(run_dir)
    listed = (*manifest.evidence, *manifest.outputs)
    assert result.faults == ()
    assert result.is_intact
    assert result.run_id == RUN_ID
    assert result.n_files == len(listed) == 8
    assert result.n_bytes == sum((run_dir / file.path).stat().st_size for file in listed)
    assert result.evidence_root == manifest.evidence_root
    assert (result.journal_events, result.journal_head) == (
        manifest.journal_events,
        manifest.journal_head,
    )


def test_a_run_verifies_anywhere_and_under_another_folder_name(run_dir, tmp_path, monkeypatch):
    shutil.copytree(run_dir, tmp_path / "elsewhere" / "copy")
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert verify_run(Path("copy")).is_intact


def test_any_changed_byte_of_any_file_is_found_and_the_file_named(run_dir):
    files = sorted(path for path in run_dir.rglob("*") if path.is_file())
    assert len(files) == 9
    n_changes = 0
    for path in files:
        name = path.relative_to(run_dir).as_posix()
        data = path.read_bytes()
        # 43 is prime to the lengths of fields and digests: offsets fall everywhere in them.
        for offset in sorted({*range(0, len(data), 43), len(data) - 1}):
            for mask in (0x01, 0x20, 0x80):
                changed = bytes([data[offset] ^ mask])
                path.write_bytes(data[:offset] + changed + data[offset + 1 :])
                assert any(name in fault for fault in faults_of(run_dir)), (name, offset, mask)
                n_changes += 1
        path.write_bytes(data)
    assert n_changes > 400
    assert faults_of(run_dir) == ()


def test_a_byte_that_is_added_or_taken_is_found_in_any_file(run_dir):
    for path in sorted(path for path in run_dir.rglob("*") if path.is_file()):
        name = path.relative_to(run_dir).as_posix()
        data = path.read_bytes()
        for changed in (data + b"\n", data + b"\0", data[:-1], data[1:], b""):
            path.write_bytes(changed)
            assert any(name in fault for fault in faults_of(run_dir)), (name, changed[:20])
        path.write_bytes(data)


def test_a_missing_file_is_named_whichever_it_is(run_dir):
    for path in sorted(path for path in run_dir.rglob("*") if path.is_file()):
        name = path.relative_to(run_dir).as_posix()
        path.rename(run_dir.parent / "away")
        assert any(fault.startswith(f"{name}: ") for fault in faults_of(run_dir)), name
        (run_dir.parent / "away").rename(path)


def test_a_file_that_is_on_no_manifest_is_named(run_dir):
    (run_dir / "data" / "extra.json").touch()
    (run_dir / "report.html").touch()
    (run_dir / ".DS_Store").touch()
    (run_dir / ".git").mkdir()
    (run_dir / ".git" / "x").write_text("x")
    (run_dir / "data" / ".x.json.0a1b2c3d.part").touch()
    (run_dir / "data" / "more.part").touch()
    (run_dir / "data" / ".lock").touch()
    (run_dir / ".lock").write_text("a text that is no number of a process")
    (run_dir / "metrics" / "empty").mkdir(parents=True)
    (run_dir / "link").symlink_to("config.yaml")
    os.mkfifo(run_dir / "fifo")

    assert set(faults_of(run_dir)) == {
        "data/extra.json: not listed in manifest.json",
        "report.html: not listed in manifest.json",
        "link: symbolic link",
        "fifo: neither a regular file nor a folder that can be listed",
        ".DS_Store: not listed, and no working path of a run; remove it",
        ".git: not listed, and no working path of a run; remove it",
        "data/.x.json.0a1b2c3d.part: left by a write that was cut short; remove it",
        "data/more.part: not listed, and no working path of a run; remove it",
        "data/.lock: not listed, and no working path of a run; remove it",
        ".lock: not listed, and no working path of a run; remove it",
        "metrics/empty: empty folder, which no run leaves; remove it",
    }


def test_only_the_lock_and_the_scratch_of_a_run_cut_short_may_lie_beside_the_manifest(run_dir):
    (run_dir / ".lock").write_text("4711\n")
    (run_dir / ".scratch" / "views").mkdir(parents=True)
    (run_dir / ".scratch" / "views" / "x.npy").touch()

    (run_dir / "checkpoints" / ".states").mkdir(parents=True)
    (run_dir / "checkpoints" / ".states" / "state.safetensors").touch()

    assert script.check(run_dir)[0] == []
    assert verify_run(run_dir).faults == ()
    assert verify_run(run_dir).working == (".lock", ".scratch", "checkpoints/.states")

    shutil.rmtree(run_dir / ".scratch")
    (run_dir / ".scratch").symlink_to(run_dir.parent)
    assert any(".scratch" in fault for fault in verify_run(run_dir).faults)
    assert any(".scratch" in fault for fault in script.check(run_dir)[0])


def test_a_file_or_folder_replaced_by_a_link_to_an_equal_one_is_named(run_dir, tmp_path):
    (run_dir / "config.yaml").rename(tmp_path / "config.yaml")
    (run_dir / "config.yaml").symlink_to(tmp_path / "config.yaml")
    (run_dir / "checkpoints").rename(tmp_path / "checkpoints")
    (run_dir / "checkpoints").symlink_to(tmp_path / "checkpoints")

    faults = faults_of(run_dir)

    assert "config.yaml: symbolic link" in faults
    assert "checkpoints: symbolic link" in faults
    assert any(fault.startswith("checkpoints/last.safetensors: lies behind") for fault in faults)


def test_an_unknown_signature_is_not_passed_over(run_dir):
    (run_dir / "manifest.sig").write_bytes(b"signed")

    assert faults_of(run_dir) == (
        "manifest.sig: a signature, but signing.json names no key that made it",
    )


def test_a_changed_file_with_a_new_manifest_contradicts_the_journal(run_dir):
    (run_dir / "config.yaml").write_bytes(b"seed: 2\n")
    relist(run_dir, "config.yaml")

    (fault,) = faults_of(run_dir)

    assert fault == "config.yaml: manifest.json and event 0 of journal.jsonl disagree about it"


def test_a_file_taken_from_folder_and_manifest_is_still_known_to_the_journal(run_dir):
    (run_dir / "config.yaml").unlink()
    evidence = [file for file in read_manifest(run_dir).evidence if file.path != "config.yaml"]
    rewrite_manifest(run_dir, evidence=tuple(evidence))

    assert any(
        fault.startswith("config.yaml: manifest.json and event 0") for fault in faults_of(run_dir)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"created_utc": datetime(2025, 3, 2, tzinfo=UTC)},
        {"tool_version": "0.1.1"},
        {"previous_run": None},
        {"previous_run": "f" * 64},
        {"run_id": "20250301T093000Z-ab13"},
    ],
)
def test_what_the_manifest_says_of_the_run_is_held_by_the_journal(run_dir, changes):
    rewrite_manifest(run_dir, **changes)

    expected = "manifest.json: run, version, time or previous run differ from the last event"
    assert any(fault.startswith(expected) for fault in faults_of(run_dir))


def test_another_run_id_in_one_of_the_files_is_named(run_dir):
    path = run_dir / "run.json"
    path.write_text(path.read_text().replace(RUN_ID, "another"))
    relist(run_dir, "run.json")
    assert any("run.json: run_id is 'another'" in fault for fault in faults_of(run_dir))

    rewrite_manifest(run_dir, run_id="another")
    assert any("journal.jsonl: journal of run" in fault for fault in faults_of(run_dir))


def test_a_cut_journal_is_found_by_count_and_head(run_dir):
    path = run_dir / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    relist(run_dir, "journal.jsonl")

    faults = faults_of(run_dir)

    assert any("journal.jsonl: 6 events with head" in fault for fault in faults)
    assert "journal.jsonl: does not end with the event 'evidence closed'" in faults


def test_a_changed_journal_line_is_named_by_number(run_dir):
    path = run_dir / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n_images":3', b'"n_images":2'))

    assert "journal.jsonl:5: the digest does not match the line" in faults_of(run_dir)


@pytest.mark.parametrize("name", ["data/seal_leaves.json", "data/seal.json"])
def test_a_seal_that_contradicts_its_leaves_is_found_even_when_relisted(run_dir, name):
    path = run_dir / name
    document = json.loads(path.read_bytes())
    if name == "data/seal.json":
        document["merkle_root"] = "0" * 64
    else:
        first, second, _ = document["leaves"]
        first["patient"], second["patient"] = second["patient"], first["patient"]
    path.write_text(json.dumps(document))
    relist(run_dir, name)

    assert "data/seal.json: its Merkle root is not that of data/seal_leaves.json" in faults_of(
        run_dir
    )


def test_seal_and_leaves_forged_together_contradict_the_journal(run_dir):
    leaves = {"leaves": [make_leaf(number).model_dump() for number in (0, 1)]}
    (run_dir / "data" / "seal_leaves.json").write_text(json.dumps(leaves))
    forged = EvidenceStore.create(run_dir.parent, "forged", tool_version="0.1.0")
    seal_test_set(
        [make_leaf(0), make_leaf(1)],
        store=forged,
        ledger=Ledger(run_dir.parent / "ledger", "d" * 64),
        data_root=run_dir,
    )
    shutil.copy(forged.run_dir / "data" / "seal.json", run_dir / "data" / "seal.json")
    relist(run_dir, "data/seal.json", "data/seal_leaves.json")

    assert any(
        fault.startswith("journal.jsonl: event 4, 'test set sealed', has another Merkle root")
        for fault in faults_of(run_dir)
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{", b'{"leaves": 1}', b'{"leaves": [NaN]}', b"\xff", b"[" * 100_000],
)
def test_malformed_documents_are_faults_never_exceptions(run_dir, data):
    for name in ("run.json", "data/seal.json", "data/seal_leaves.json", "manifest.json"):
        path = run_dir / name
        before = path.read_bytes()
        path.write_bytes(data)
        assert any(name in fault for fault in faults_of(run_dir)), name
        path.write_bytes(before)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", ".", "a\n", "x" * 5000, "x/" * 3000])
def test_a_manifest_cannot_make_the_verifier_read_elsewhere(run_dir, path):
    (run_dir.parent / "secret").write_bytes(b"")
    manifest = read_manifest(run_dir)
    listed = manifest.evidence[0].model_copy(update={"path": path})
    rewrite_manifest(run_dir, evidence=(listed, *manifest.evidence[1:]))

    faults = faults_of(run_dir)

    assert faults
    assert all(fault.isprintable() for fault in faults)


def test_doubled_or_reordered_entries_are_found(run_dir):
    evidence = read_manifest(run_dir).evidence
    rewrite_manifest(run_dir, evidence=evidence[::-1])
    assert "manifest.json: files are listed twice or out of order" in faults_of(run_dir)

    rewrite_manifest(run_dir, evidence=(evidence[0], *evidence[::-1][-1:], *evidence[1:]))
    assert "manifest.json: files are listed twice or out of order" in faults_of(run_dir)

    rewrite_manifest(run_dir, evidence=evidence, outputs=(evidence[0],))
    assert "manifest.json: a file is listed as evidence and as output" in faults_of(run_dir)


def test_a_run_that_never_closed_its_evidence_is_told_so(tmp_path):
    store = EvidenceStore.create(tmp_path, "r1", tool_version="0.1.0")
    store.write_bytes("config.yaml", b"")

    result = verify_run(store.run_dir)

    assert result.run_id == "r1"
    assert result.journal_events == 1
    assert result.faults[0].startswith("manifest.json: not written yet: the run is still at work")
    assert "run --resume r1" in result.faults[0]
    for said in (*result.faults, *script.check(store.run_dir)[0]):
        assert "restore" not in said


def test_whole_evidence_without_card_and_report_is_no_run_that_came_to_its_end(run_dir):
    for name in ("model_card.md", "report.pdf"):
        (run_dir / name).unlink()
    rewrite_manifest(run_dir, outputs=())

    (fault,) = faults_of(run_dir)

    assert "the run did not come to its end" in fault
    assert verify_run(run_dir, is_ended=False).is_intact  # so that it can go on


def test_a_folder_that_is_no_run_is_an_error_and_not_a_verdict(tmp_path):
    make_empty(tmp_path / "folder" / "notes.txt")

    with pytest.raises(EvidenceError, match="no such folder"):
        verify_run(tmp_path / "nowhere")
    with pytest.raises(EvidenceError, match="not a run folder"):
        verify_run(tmp_path / "folder")


def test_a_whole_consistent_forgery_verifies_with_another_root(run_dir, tmp_path):
    # The limit that every report states: only a root held elsewhere shows this.
    (run_dir / "config.yaml").write_bytes(b"seed: 2\n")
    events = read_journal(run_dir / "journal.jsonl").events
    (run_dir / "journal.jsonl").unlink()
    journal = Journal.create(run_dir / "journal.jsonl", run_id=RUN_ID, tool_version="0.1.0")
    root = read_manifest(run_dir).evidence_root
    forged = measure(run_dir, "config.yaml")
    for event in events[:-1]:
        body = event.body
        if body.get("path") == "config.yaml":
            body = {**body, "bytes": forged.n_bytes, "sha256": forged.sha256}
        journal.append(event.type, body)
    last = journal.append("evidence closed", closing_facts(read_manifest(run_dir)))
    relist(run_dir, "config.yaml", "journal.jsonl")
    rewrite_manifest(run_dir, journal_head=last.digest)

    result = verify_run(run_dir)

    assert result.is_intact
    assert result.evidence_root != root


def test_verification_needs_neither_torch_nor_mlflow_nor_numpy_nor_pandas(run_dir):
    script = (
        "import sys; from pathlib import Path\n"
        "from governance.verify.folder import verify_run\n"
        "print(verify_run(Path(sys.argv[1])).is_intact)\n"
        "print({'torch', 'mlflow', 'numpy', 'pandas', 'typer', 'medisynth'} & set(sys.modules))\n"
    )

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script, str(run_dir)], capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n")[:2] == ["True", "set()"]
