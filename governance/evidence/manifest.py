"""The manifest of a run (manifest.json): path, size and digest of every file, and their root.

The evidence part is closed before the reports are written, so that they can print its root; card
and report are added afterwards as outputs. Beside them a run folder may hold the working paths of
`LOCK`, `SCRATCH` and `STATES` and nothing else.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from governance.evidence.journal import EVIDENCE_CLOSED, Journal
from governance.records.errors import EvidenceError, RecordWriteError, first_line
from governance.records.files import canonical_json, sha256_bytes, sha256_file, write_atomic
from governance.records.manifest import Manifest, ManifestFile

MANIFEST, SIGNATURE, JOURNAL = "manifest.json", "manifest.sig", "journal.jsonl"
TOKEN, TOKEN_DIGEST = "manifest.tsr", "manifest.tsr.sha256"
# Files about the manifest's own bytes (signature, time-stamp): it cannot list them itself.
BESIDE = (SIGNATURE, TOKEN, TOKEN_DIGEST)
SIGNING = "signing.json"
OUTPUTS = ("model_card.md", "model_card.json", "report.pdf", "report.html")
VERIFIER, SIGNED_PDF = "verify_run.py", "report-signed.pdf"
ATTESTED = ("data", "seal", "train", "evaluate", "report")
# The only paths of a run folder that are neither evidence nor checked.
LOCK = ".lock"  # held by the process that works on the run; it holds that process's number
# What a run that was cut short needs to go on: views and training states. A finished run has none.
SCRATCH, STATES = ".scratch", "checkpoints/.states"
_MAX_LOCK_BYTES = 32
_CUT_SHORT_WRITE = re.compile(r"\..+\.[a-z0-9_]{8,16}\.part")  # as atomic writes name them
# Optional outputs that may be written after the evidence was closed.
MORE_OUTPUTS = (VERIFIER, SIGNED_PDF, *(f"attestations/{step}.json" for step in ATTESTED))


def merkle_root(leaves: Sequence[bytes]) -> str:
    """Return the Merkle tree hash of a list, 64 lowercase hex digits.

    A leaf is hashed behind the byte 0x00 and a node behind 0x01, so that no node can pass for a
    leaf. No leaves give the SHA-256 of nothing.

    Source:
        RFC 6962, section 2.1.
    """
    if not leaves:
        return sha256_bytes(b"")
    level = [bytes.fromhex(sha256_bytes(b"\x00" + leaf)) for leaf in leaves]
    while len(level) > 1:
        # Pairing from the left and carrying an odd one up unchanged gives the tree that the RFC
        # defines by splitting at the largest power of two.
        pairs = zip(level[::2], level[1::2], strict=False)
        carried = level[-1:] if len(level) % 2 else []
        level = [bytes.fromhex(sha256_bytes(b"\x01" + a + b)) for a, b in pairs] + carried
    return level[0].hex()


def evidence_root(files: Sequence[ManifestFile]) -> str:
    """Return the Merkle root over the canonical JSON of each file's entry, in the order given."""
    return merkle_root([canonical_json(file.model_dump()) for file in files])


def is_safe_path(path: str) -> bool:
    """Whether a path is relative, in its one normal form, and names no working file."""
    return (
        path != "."
        and not path.startswith("/")
        and path == PurePosixPath(path).as_posix()
        and all(part != ".." and not _is_working(part) for part in path.split("/"))
        and path.isprintable()
        and "\\" not in path
    )


def printable(path: str) -> str:
    """Return a path for display: control characters and broken encodings are escaped."""
    return path if path.isprintable() else ascii(path)


def closing_facts(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest fields that the journal's last event repeats, so that both must agree."""
    return manifest.model_dump(
        mode="json", include={"run_id", "tool_version", "created_utc", "previous_run"}
    )


def scan_folder(run_dir: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the files of a run folder without opening one.

    Returns:
        Paths of the regular files, sorted, without working paths; and all else that is there,
        e.g. "data/x: symbolic link", sorted.
    """
    files, others, foreign = _sorted_out(run_dir)
    return tuple(sorted(files)), tuple(sorted([*others, *foreign]))


def _sorted_out(run_dir: Path) -> tuple[list[str], list[str], list[str]]:
    """Return files, all that keeps evidence from being closed, and what is merely foreign."""
    files: list[str] = []
    others: list[str] = []
    foreign: list[str] = []
    for path, mode in _walk(run_dir, ""):
        name = path.rpartition("/")[2]
        if stat.S_ISREG(mode) and is_safe_path(path):
            files.append(path)
        elif stat.S_ISREG(mode) and _CUT_SHORT_WRITE.fullmatch(name):
            foreign.append(f"{printable(path)}: left by a write that was cut short; remove it")
        elif _is_working(name):
            foreign.append(
                f"{printable(path)}: not listed, and no working path of a run; remove it"
            )
        elif stat.S_ISDIR(mode) and _is_empty(run_dir / path):
            foreign.append(f"{printable(path)}: empty folder, which no run leaves; remove it")
        elif stat.S_ISREG(mode):
            others.append(f"{printable(path)}: name with characters that a manifest cannot hold")
        elif stat.S_ISLNK(mode):
            others.append(f"{printable(path)}: symbolic link")
        else:
            others.append(
                f"{printable(path)}: neither a regular file nor a folder that can be listed"
            )
    return files, others, foreign


def working_paths(run_dir: Path) -> tuple[str, ...]:
    """Return which of the working paths are there; what lies in them is not checked."""
    return tuple(name for name in (LOCK, SCRATCH, STATES) if (run_dir / name).exists())


def tidy(run_dir: Path) -> None:
    """Remove empty folders, and what atomic writes left when a kill cut them short.

    Raises:
        RecordWriteError: The folder cannot be written.
    """
    for path, mode in list(_walk(run_dir, "")):
        file = run_dir / path
        try:
            if stat.S_ISREG(mode) and _CUT_SHORT_WRITE.fullmatch(file.name):
                file.unlink(missing_ok=True)
            elif stat.S_ISDIR(mode) and not _is_working(file.name) and _is_empty(file):
                file.rmdir()
        except OSError as error:
            raise RecordWriteError(
                f"{file}: cannot be removed ({error.strerror or error}); check permission"
            ) from error


def measure(run_dir: Path, path: str) -> ManifestFile:
    """Return size and digest of a file; EvidenceError if it is not regular or unreadable."""
    file = run_dir / path
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise EvidenceError(f"{file}: not a regular file; replace it by the file itself")
        return ManifestFile(path=path, n_bytes=found.st_size, sha256=sha256_file(file))
    except OSError as error:
        raise EvidenceError(
            f"{file}: cannot be read ({error.strerror or error}); restore the file"
        ) from error


def close_evidence(
    run_dir: Path,
    *,
    run_id: str,
    tool_version: str,
    journal: Journal,
    previous_run: str | None,
    now: datetime,
) -> Manifest:
    """Append the last event to the journal, digest every file and write manifest.json.

    Args:
        run_dir: Folder of the run.
        run_id: Run that it holds.
        tool_version: Version of medisynth-gov.
        journal: Journal of the run; it takes no event afterwards.
        previous_run: Root of the run before in the same workspace; None for the first.
        now: Time of closing, with a time zone.

    Raises:
        EvidenceError: The folder holds a symbolic link or something else that is no file, or the
            evidence was closed before.
        RecordWriteError: The journal or the manifest cannot be written.
    """
    tidy(run_dir)
    # Hidden files of other programs and empty folders stop no run; verification names them.
    _, others, _ = _sorted_out(run_dir)
    if others:
        raise EvidenceError(f"{run_dir}{os.sep}{others[0]}; a run folder holds regular files only")
    manifest = Manifest(
        run_id=run_id,
        tool_version=tool_version,
        created_utc=now.astimezone(UTC),
        evidence=(),
        evidence_root=evidence_root(()),
        journal_events=0,
        journal_head=journal.head,
        previous_run=previous_run,
    )
    event = journal.append(EVIDENCE_CLOSED, closing_facts(manifest))
    files, _ = scan_folder(run_dir)
    unlisted = (MANIFEST, *BESIDE, *OUTPUTS, *MORE_OUTPUTS)
    evidence = tuple(measure(run_dir, path) for path in files if path not in unlisted)
    manifest = manifest.model_copy(
        update={
            "evidence": evidence,
            "evidence_root": evidence_root(evidence),
            "journal_events": event.seq + 1,
            "journal_head": event.digest,
        }
    )
    _write(run_dir, manifest)
    return manifest


def add_outputs(run_dir: Path, paths: Sequence[str]) -> Manifest:
    """Put card and report on the manifest, in place of the entries of the same paths.

    Raises:
        EvidenceError: A path is evidence already or names no regular file, or the manifest is
            missing or malformed.
        RecordWriteError: The manifest cannot be written.
    """
    manifest = read_manifest(run_dir)
    taken = {file.path for file in manifest.evidence} | {MANIFEST, *BESIDE}
    for path in paths:
        if path in taken or not is_safe_path(path):
            raise EvidenceError(
                f"{run_dir / path}: cannot be an output, it is evidence or no plain relative path; "
                f"outputs are {', '.join(OUTPUTS)}"
            )
    outputs = {file.path: file for file in manifest.outputs}
    outputs |= {path: measure(run_dir, path) for path in paths}
    ordered = tuple(outputs[path] for path in sorted(outputs))
    manifest = manifest.model_copy(update={"outputs": ordered})
    _write(run_dir, manifest)
    return manifest


def read_manifest(run_dir: Path) -> Manifest:
    """Read manifest.json; its digests are not compared with the files here.

    Raises:
        EvidenceError: The file is missing, malformed or not in canonical form.
    """
    path = run_dir / MANIFEST
    try:
        data = path.read_bytes()
        manifest = Manifest.model_validate_json(data)
    except OSError as error:
        raise EvidenceError(
            f"{path}: cannot be read ({error.strerror or error}); the evidence of this run was "
            "never closed, or the file is gone: restore it"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise EvidenceError(
            f"{path}: not a manifest: {where}: {first_line(first['msg'])}; restore the file"
        ) from error
    if data != _to_bytes(manifest):
        raise EvidenceError(f"{path}: not in canonical form, so it was changed; restore the file")
    return manifest


def _to_bytes(manifest: Manifest) -> bytes:
    return canonical_json(manifest.model_dump(mode="json")) + b"\n"


def _write(run_dir: Path, manifest: Manifest) -> None:
    write_atomic(run_dir / MANIFEST, _to_bytes(manifest))


def _is_working(name: str) -> bool:
    return name.startswith(".") or name.endswith(".part")


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield path and mode of everything in a run folder but its own folders and working paths.

    Links are not followed. A folder is yielded when it is empty, hidden or cannot be listed.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            found = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                is_lock = path == LOCK and stat.S_ISREG(found.st_mode)
                if not (is_lock and found.st_size <= _MAX_LOCK_BYTES):
                    yield path, found.st_mode
            elif path in (SCRATCH, STATES):
                continue
            elif _is_working(entry.name) or _is_empty(folder / entry.name):
                yield path, found.st_mode
            else:
                try:
                    yield from _walk(folder / entry.name, f"{path}/")
                except PermissionError:
                    yield path, found.st_mode
