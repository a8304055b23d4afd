import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from governance.evidence.journal import NO_EVENT, Journal, read_journal
from governance.evidence.manifest import (
    add_outputs,
    close_evidence,
    evidence_root,
    is_safe_path,
    merkle_root,
    read_manifest,
)
from governance.records.errors import EvidenceError
from governance.records.manifest import Manifest

NOW = datetime(2025, 3, 1, 9, 30, tzinfo=UTC)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def new_run(run_dir: Path, **files: bytes) -> Journal:
    run_dir.mkdir()
    for name, data in {"config.yaml": b"seed: 1\n", **files}.items():
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_bytes(data)
    return Journal.create(run_dir / "journal.jsonl", run_id="r1", tool_version="0.1.0")


def close(run_dir: Path, journal: Journal, previous_run: str | None = None) -> Manifest:
    return close_evidence(
        run_dir,
        run_id="r1",
        tool_version="0.1.0",
        journal=journal,
        previous_run=previous_run,
        now=NOW,
    )


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return sha(b"\x00" + leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha(b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:]))


@pytest.mark.parametrize("n_leaves", range(18))
def test_the_root_is_the_one_that_rfc_6962_defines(n_leaves):
    leaves = [bytes([number]) * number for number in range(n_leaves)]

    assert merkle_root(leaves) == recursive_root(leaves).hex()


def test_the_root_of_the_published_test_vectors():
    # Certificate transparency reference tests: eight leaves and their root.
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    leaves.append("606162636465666768696a6b6c6d6e6f")
    published = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"

    assert merkle_root([bytes.fromhex(leaf) for leaf in leaves]) == published


def test_a_node_cannot_pass_for_a_leaf():
    left, right = sha(b"\x00a"), sha(b"\x00b")

    assert merkle_root([left + right]) != merkle_root([b"a", b"b"])


def test_the_manifest_lists_every_file_with_size_and_digest(tmp_path):
    run_dir = tmp_path / "r1"
    journal = new_run(run_dir, **{"data/split.json": b"{}\n", "metrics/é x.json": b""})

    manifest = close(run_dir, journal, previous_run="a" * 64)

    expected = {
        "config.yaml": b"seed: 1\n",
        "data/split.json": b"{}\n",
        "journal.jsonl": (run_dir / "journal.jsonl").read_bytes(),
        "metrics/é x.json": b"",
    }
    assert [file.path for file in manifest.evidence] == sorted(expected)
    for file in manifest.evidence:
        data = expected[file.path]
        assert (file.n_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest.evidence_root == evidence_root(manifest.evidence)
    assert manifest.created_utc == NOW
    assert manifest.previous_run == "a" * 64
    assert read_manifest(run_dir) == manifest


def test_the_root_is_that_of_the_canonical_entries_of_the_files(tmp_path):
    journal = new_run(tmp_path / "r1")

    manifest = close(tmp_path / "r1", journal)

    leaves = [
        f'{{"n_bytes":{file.n_bytes},"path":"{file.path}","sha256":"{file.sha256}"}}'.encode()
        for file in manifest.evidence
    ]
    assert manifest.evidence_root == recursive_root(leaves).hex()


def test_closing_is_the_last_event_of_the_journal_that_is_then_listed(tmp_path):
    run_dir = tmp_path / "r1"
    journal = new_run(run_dir)
    journal.append("run started", {})

    manifest = close(run_dir, journal)

    events = read_journal(journal.path).events
    assert [event.type for event in events] == ["run started", "evidence closed"]
    assert (manifest.journal_events, manifest.journal_head) == (2, events[-1].digest)
    assert manifest.journal_head != NO_EVENT
    with pytest.raises(EvidenceError, match="the evidence is closed"):
        close(run_dir, journal)


def test_outputs_and_working_files_are_no_evidence(tmp_path):
    run_dir = tmp_path / "r1"
    left_out = ["report.pdf", "report.html", "model_card.md", "model_card.json", "manifest.sig"]
    left_out += [".hidden", "data/.cache/x", "data/x.part", "tmp.part/y"]
    journal = new_run(run_dir, **dict.fromkeys(left_out, b"x"))

    manifest = close(run_dir, journal)

    assert [file.path for file in manifest.evidence] == ["config.yaml", "journal.jsonl"]


def test_outputs_are_added_without_touching_the_evidence(tmp_path):
    run_dir = tmp_path / "r1"
    journal = new_run(run_dir)
    before = close(run_dir, journal)
    (run_dir / "report.pdf").write_bytes(b"%PDF")
    (run_dir / "model_card.md").write_bytes(b"# Card")
    add_outputs(run_dir, ["report.pdf"])
    (run_dir / "report.pdf").write_bytes(b"%PDF again")

    after = add_outputs(run_dir, ["report.pdf", "model_card.md"])

    assert read_manifest(run_dir) == after
    assert after.model_copy(update={"outputs": ()}) == before
    assert [file.path for file in after.outputs] == ["model_card.md", "report.pdf"]
    assert after.outputs[1].sha256 == hashlib.sha256(b"%PDF again").hexdigest()


@pytest.mark.parametrize(
    "path", ["config.yaml", "../x", "/etc/passwd", "manifest.json", "report.pdf"]
)
def test_an_output_that_is_evidence_elsewhere_or_missing_is_refused(tmp_path, path):
    close(tmp_path / "r1", new_run(tmp_path / "r1"))

    with pytest.raises(EvidenceError, match=Path(path).name):
        add_outputs(tmp_path / "r1", [path])


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "fifo", "name"])
def test_a_folder_with_anything_but_plain_files_is_not_closed(tmp_path, kind):
    run_dir = tmp_path / "r1"
    journal = new_run(run_dir)
    (run_dir / "data").mkdir()
    strange = run_dir / "data" / "strange"
    if kind == "fifo":
        os.mkfifo(strange)
    elif kind == "name":
        (run_dir / "data" / "strange\n").touch()
    else:
        strange.symlink_to(run_dir / "config.yaml" if kind == "link to a file" else "/etc")

    with pytest.raises(EvidenceError, match="data/strange"):
        close(run_dir, journal)

    assert not (run_dir / "manifest.json").exists()
    assert journal.n_events == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "No such file"),
        (b"", "not a manifest"),
        (b"[]\n", "not a manifest"),
        (b"\xff", "not a manifest"),
        (b"{}\n", "not a manifest: run_id"),
    ],
)
def test_a_manifest_that_is_missing_or_malformed_is_named(tmp_path, data, message):
    if data is not None:
        (tmp_path / "manifest.json").write_bytes(data)

    with pytest.raises(EvidenceError, match=rf"manifest\.json: .*{message}"):
        read_manifest(tmp_path)


def test_a_manifest_in_another_form_is_refused_even_when_it_says_the_same(tmp_path):
    close(tmp_path / "r1", new_run(tmp_path / "r1"))
    path = tmp_path / "r1" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b":", b": ", 1))

    with pytest.raises(EvidenceError, match="not in canonical form"):
        read_manifest(tmp_path / "r1")


@pytest.mark.parametrize("path", ["a", "a/b.json", "é x", "a..b"])
def test_plain_relative_paths_are_safe(path):
    assert is_safe_path(path)


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/a", "a/../b", "./a", "a//b", "a/", "a\\b", "a\nb", ".a", "a/.b", "a.part"],
)
def test_paths_that_leave_the_folder_or_have_two_spellings_are_not_safe(path):
    assert not is_safe_path(path)
