"""The script that stands in every run folder, beside the tool's own verification."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from governance.evidence import verify_run as script
from governance.evidence.chain import check_chain
from governance.evidence.journal import Journal, read_journal
from governance.evidence.manifest import add_outputs, close_evidence, measure, read_manifest
from governance.records.files import canonical_json
from governance.signing.keys import RunSigner, load_signer, make_key_pair, sign_manifest
from governance.verify.folder import verify_run
from governance.verify.signatures import read_anchors
from pipelines.steps.s8_report import verifier_script
from tests.governance.signing.signed_run import NOW, RUN_ID, make_signed_run

N_EVENTS = 200


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> RunSigner:
    return load_signer(str(make_key_pair(tmp_path_factory.mktemp("keys")).private_key))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, signer: RunSigner) -> Path:
    return make_signed_run(tmp_path_factory.mktemp("built"), signer, n_events=N_EVENTS)


@pytest.fixture
def run_dir(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "run"))


def run_script(run_dir: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603
        [sys.executable, "-I", "verify_run.py", *options],
        cwd=run_dir,
        capture_output=True,
        text=True,
    )


def flip(data: bytes, offset: int, mask: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]


def public_hex(signer: RunSigner) -> str:
    return str((signer.record.key or {})["keyval"]["public"])


def test_an_intact_run_passes_both_and_both_say_the_same(run_dir: Path, signer: RunSigner) -> None:
    done = run_script(run_dir)
    result = verify_run(run_dir)

    assert (done.returncode, done.stderr) == (0, "")
    assert result.faults == ()
    assert f"{N_EVENTS} journal events" in done.stdout
    assert result.journal_events == N_EVENTS
    assert f"evidence root {result.evidence_root}\njournal head  {result.journal_head}" in (
        done.stdout
    )
    assert f"signed by key id {signer.record.key_id}, identity not vouched for" in done.stdout


def test_evidence_without_card_and_report_is_said_to_be_unfinished_by_both(tmp_path: Path) -> None:
    run_dir = make_signed_run(tmp_path, None)
    manifest = json.loads((run_dir / "manifest.json").read_bytes())
    for file in manifest["outputs"]:
        if file["path"] != "verify_run.py":
            (run_dir / file["path"]).unlink()
    data = canonical_json({**manifest, "outputs": []}) + b"\n"
    (run_dir / "manifest.json").write_bytes(data)

    done = run_script(run_dir)

    for said in (done.stdout + done.stderr, " ".join(verify_run(run_dir).faults)):
        assert "the run did not come to its end" in said
    assert done.returncode == 5


def test_the_script_imports_nothing_of_ours_and_is_listed(run_dir: Path) -> None:
    imported = {
        line.split()[1].split(".")[0]
        for line in verifier_script().decode().splitlines()
        if line.lstrip().startswith(("import ", "from "))
    }

    assert imported <= {*sys.stdlib_module_names, "cryptography"}
    assert (run_dir / "verify_run.py").read_bytes() == verifier_script()
    assert "verify_run.py" in {file.path for file in read_manifest(run_dir).outputs}


def test_an_unsigned_run_needs_no_package_at_all(tmp_path: Path) -> None:
    run_dir = make_signed_run(tmp_path, None)

    done = subprocess.run(
        [sys.executable, "-I", "-S", "verify_run.py"], cwd=run_dir, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "unsigned" in done.stdout


def neighbours(lines: list[bytes], number: int, line: bytes) -> bytes:
    """A line with the one after it; the last one with the one before it."""
    if number == len(lines) - 1:
        return lines[number - 1] + line
    return line + lines[number + 1]


def told_of(journal: bytes) -> tuple[list[str], tuple[str, ...]]:
    """What the script and the tool say of a journal."""
    by_script: list[str] = []
    script.check_journal(journal, by_script)
    return by_script, check_chain(journal, "journal.jsonl", one_run=False).faults


def test_one_flipped_bit_at_every_offset_of_a_journal_of_200_lines_is_found_by_both(
    run_dir: Path,
) -> None:
    data = (run_dir / "journal.jsonl").read_bytes()
    lines = data.splitlines(keepends=True)
    assert len(lines) == N_EVENTS
    # A line is judged by itself and its neighbours, so each change is tried among these; what is
    # said of them unchanged is that they do not begin a chain. Whole journals: the next test.
    n_found = 0
    for number, line in enumerate(lines):
        before = told_of(neighbours(lines, number, line))
        for offset in range(len(line)):
            changed = flip(line, offset, 1 << (offset % 8))
            by_script, by_tool = told_of(neighbours(lines, number, changed))
            assert by_script != before[0], (number, offset)
            assert by_tool != before[1], (number, offset)
            n_found += 1
    assert n_found == len(data)


def test_a_sample_of_offsets_in_the_whole_journal_is_found_and_the_line_named(
    run_dir: Path,
) -> None:
    path = run_dir / "journal.jsonl"
    data = path.read_bytes()
    for offset in range(0, len(data), len(data) // 40):
        changed = flip(data, offset, 0x04)
        path.write_bytes(changed)
        number = data[:offset].count(b"\n") + 1
        for faults in (script.check(run_dir)[0], verify_run(run_dir).faults):
            assert any(fault.startswith(f"journal.jsonl:{number}: ") for fault in faults), offset
            assert any("journal.jsonl: changed" in fault for fault in faults), offset
    path.write_bytes(data)


def test_one_flipped_bit_in_every_file_is_found_and_the_file_named_by_both(run_dir: Path) -> None:
    files = sorted(path for path in run_dir.rglob("*") if path.is_file())
    assert len(files) == 22
    for path in files:
        name = path.relative_to(run_dir).as_posix()
        data = path.read_bytes()
        for offset in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            path.write_bytes(flip(data, offset, 0x20))
            found = verify_run(run_dir).faults
            by_script = script.check(run_dir)[0]
            assert any(name in fault for fault in found), (name, offset)
            assert any(name in fault or "not readable" in fault for fault in by_script), name
        path.write_bytes(data)
    assert script.check(run_dir)[0] == []


def test_every_byte_of_manifest_and_signature_counts(run_dir: Path) -> None:
    for name in ("manifest.json", "manifest.sig", "signing.json"):
        data = (run_dir / name).read_bytes()
        for offset in range(0, len(data), 3):
            (run_dir / name).write_bytes(flip(data, offset, 0x20))
            assert script.check(run_dir)[0], (name, offset)
        (run_dir / name).write_bytes(data)
    assert script.check(run_dir)[0] == []


@pytest.mark.parametrize(
    "name", ["config.yaml", "journal.jsonl", "manifest.json", "manifest.sig", "report-signed.pdf"]
)
def test_the_script_itself_ends_with_5_and_names_a_changed_file(run_dir: Path, name: str) -> None:
    data = (run_dir / name).read_bytes()
    (run_dir / name).write_bytes(flip(data, len(data) // 2, 0x01))

    done = run_script(run_dir)

    assert done.returncode == 5
    assert name in done.stdout
    assert "Traceback" not in done.stderr


def test_what_is_added_taken_or_linked_is_named_by_both(run_dir: Path) -> None:
    (run_dir / "config.yaml").rename(run_dir.parent / "config.yaml")
    (run_dir / "metrics" / "link.json").symlink_to(run_dir.parent / "config.yaml")
    (run_dir / "data" / "extra.json").touch()
    (run_dir / ".git" / "hooks").mkdir(parents=True)
    (run_dir / ".git" / "x").touch()
    (run_dir / "data" / "x.part").touch()
    (run_dir / "data" / "empty").mkdir()
    (run_dir / ".lock").write_text("4711\n")

    by_script = script.check(run_dir)[0]
    found = verify_run(run_dir).faults

    for name in (
        *("config.yaml", "metrics/link.json", "data/extra.json"),
        *(".git", "data/x.part", "data/empty"),
    ):
        assert any(name in fault for fault in by_script), name
        assert any(name in fault for fault in found), name
    assert not any(".lock" in fault for fault in (*by_script, *found))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}\n"])
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", "journal.jsonl", "signing.json"])
def test_malformed_files_are_differences_never_a_traceback(
    run_dir: Path, name: str, data: bytes
) -> None:
    (run_dir / name).write_bytes(data)

    assert script.check(run_dir)[0]
    assert verify_run(run_dir).faults


def cut_tail(run_dir: Path) -> None:
    """The owner takes the last events back and closes the evidence anew."""
    path = run_dir / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    close(run_dir, Journal.open(path, run_id=RUN_ID, tool_version="0.1.0"))


def rewrite_all(run_dir: Path) -> None:
    """The owner changes a file and writes the whole history anew to fit."""
    (run_dir / "config.yaml").write_bytes(b"seed: 2\n")
    events = read_journal(run_dir / "journal.jsonl").events
    (run_dir / "journal.jsonl").unlink()
    journal = Journal.create(run_dir / "journal.jsonl", run_id=RUN_ID, tool_version="0.1.0")
    now = measure(run_dir, "config.yaml")
    for event in events[:-1]:
        body = event.body
        if body.get("path") == "config.yaml":
            body = {**body, "bytes": now.n_bytes, "sha256": now.sha256}
        journal.append(event.type, body)
    close(run_dir, journal)


def close(run_dir: Path, journal: Journal) -> None:
    outputs = [file.path for file in read_manifest(run_dir).outputs]
    (run_dir / "manifest.json").unlink()
    close_evidence(
        run_dir,
        run_id=RUN_ID,
        tool_version="0.1.0",
        journal=journal,
        previous_run="e" * 64,
        now=NOW,
    )
    add_outputs(run_dir, outputs)


@pytest.mark.parametrize("forge", [cut_tail, rewrite_all])
def test_a_consistent_forgery_passes_both_until_head_root_or_key_is_held_elsewhere(
    tmp_path: Path, forge, signer: RunSigner
) -> None:
    run_dir = make_signed_run(tmp_path, None)
    before = verify_run(run_dir)
    pub = tmp_path / "held.pub"
    pub.write_text(json.dumps({"keyid": signer.record.key_id, **(signer.record.key or {})}))

    forge(run_dir)

    assert script.check(run_dir)[0] == []  # the limit that every report states
    assert verify_run(run_dir).faults == ()
    head, root = before.journal_head, before.evidence_root
    assert script.check(run_dir, head=head)[0]
    assert script.check(run_dir, root=root)[0]
    assert script.check(run_dir, public=public_hex(signer))[0]
    assert run_script(run_dir, "--head", head).returncode == 5
    assert "journal.jsonl: its head is" in verify_run(run_dir, read_anchors(head=head)).faults[0]
    assert "evidence root" in verify_run(run_dir, read_anchors(root=root)).faults[0]
    assert verify_run(run_dir, read_anchors(key=pub)).faults


def test_the_holder_of_the_key_can_rewrite_all_and_only_the_head_shows_it(
    run_dir: Path, signer: RunSigner
) -> None:
    before = verify_run(run_dir)
    shutil.rmtree(run_dir / "attestations")
    (run_dir / "report-signed.pdf").unlink()
    manifest = read_manifest(run_dir)
    kept = [f for f in manifest.outputs if (run_dir / f.path).exists()]
    from governance.evidence.manifest import _write

    _write(run_dir, manifest.model_copy(update={"outputs": tuple(kept)}))
    rewrite_all(run_dir)
    sign_manifest(run_dir, signer)

    assert verify_run(run_dir).faults == ()
    assert script.check(run_dir, public=public_hex(signer))[0] == []
    assert verify_run(run_dir, read_anchors(head=before.journal_head)).faults
    assert script.check(run_dir, head=before.journal_head)[0]


def test_the_right_head_root_and_key_are_no_fault(run_dir: Path, signer: RunSigner) -> None:
    result = verify_run(run_dir)

    held = ("--head", result.journal_head, "--root", result.evidence_root)
    key = run_dir.parent / "held.pub"
    key.write_text(json.dumps({"keyid": signer.record.key_id, **(signer.record.key or {})}))

    assert run_script(run_dir, *held, "--public", public_hex(signer)).returncode == 0
    assert run_script(run_dir, *held, "--key", str(key)).returncode == 0
    assert run_script(run_dir, "--key", str(run_dir / "signing.json")).returncode == 0
    anchors = read_anchors(head=result.journal_head.upper(), root=result.evidence_root)
    assert verify_run(run_dir, anchors).faults == ()
