"""Verification of a run folder from its files alone: no database, no network, no torch.

A fault names the file. This cannot show that the owner of the machine did not write a whole,
consistent history anew; for that, somebody else must hold the root and the journal head.
"""

import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.evidence.journal import EVIDENCE_CLOSED, JournalCheck, JournalEvent, read_journal
from governance.evidence.manifest import (
    BESIDE,
    JOURNAL,
    LOCK,
    MANIFEST,
    MORE_OUTPUTS,
    OUTPUTS,
    closing_facts,
    evidence_root,
    is_safe_path,
    measure,
    merkle_root,
    printable,
    read_manifest,
    scan_folder,
    working_paths,
)
from governance.records.errors import EvidenceError, first_line
from governance.records.files import canonical_json
from governance.records.manifest import Manifest, ManifestFile
from governance.records.run import Outcome
from governance.signing.timestamp import check_time_stamp
from governance.verify.claims import NOT_DRAWN, check_claims
from governance.verify.signatures import (
    NOTHING_HELD,
    Anchors,
    check_anchors,
    check_signatures,
    timestamp_url,
)

_UNSIGNED_YET, _UNSTAMPED_YET = "signature not checked", "time-stamp not checked"
SEAL, SEAL_LEAVES, RUN = "data/seal.json", "data/seal_leaves.json", "run.json"


@dataclass(frozen=True)
class Verification:
    """Contents of a run folder, and every fault found.

    Attributes:
        run_id: Run that it holds; empty when neither manifest nor journal can say.
        n_files: Files on the manifest, evidence and outputs.
        n_bytes: Bytes of the files that were read and compared.
        evidence_root: Merkle root computed from the manifest's entries; empty without a manifest.
        journal_head: Digest of the journal's last event, as computed.
        journal_events: Events in the journal.
        signature: Signer, and the key it was checked with; "unsigned" when nobody signed.
        time_stamp: Time at which an authority saw the manifest, and how far that was checked.
        outputs: How card and reports were compared with the documents.
        faults: Every mismatch, each with the file's name first; empty when all is as written.
        working: Working paths that lie beside the evidence and are not checked.
    """

    run_id: str
    n_files: int
    n_bytes: int
    evidence_root: str
    journal_head: str
    journal_events: int
    signature: str
    time_stamp: str
    outputs: str
    faults: tuple[str, ...]
    working: tuple[str, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether no fault was found."""
        return not self.faults


def verify_run(
    run_dir: Path, anchors: Anchors = NOTHING_HELD, *, is_ended: bool = True
) -> Verification:
    """Recompute every digest, the chain and both Merkle roots of a run folder; check signatures.

    Args:
        run_dir: Folder of the run.
        anchors: Key, head, root and authority known from elsewhere.
        is_ended: Whether the run has ended, so that all files are listed and any signature exists.

    Raises:
        EvidenceError: The folder does not exist or is no run folder at all.
    """
    if not run_dir.is_dir():
        raise EvidenceError(f"{run_dir}: no such folder; give the folder of a run")
    if not any((run_dir / name).exists() for name in (MANIFEST, JOURNAL, RUN)):
        raise EvidenceError(
            f"{run_dir}: not a run folder; expected {MANIFEST}, {JOURNAL} and {RUN} in it"
        )
    journal = read_journal(run_dir / JOURNAL)
    faults = list(journal.faults)
    try:
        manifest = read_manifest(run_dir)
    except EvidenceError as error:
        what = str(error).removeprefix(f"{run_dir}/")
        faults.insert(0, what if (run_dir / MANIFEST).exists() else _no_manifest(run_dir, journal))
        run_id = journal.events[0].run if journal.events else ""
        faults += _check_run_id(run_dir, run_id) + _check_seal(run_dir, journal.events)
        faults += check_anchors(anchors, journal, "", has_manifest=False)
        n_events, unread = len(journal.events), (_UNSIGNED_YET, _UNSTAMPED_YET, NOT_DRAWN)
        return Verification(run_id, 0, 0, "", journal.head, n_events, *unread, tuple(faults))
    n_bytes, found = _check_files(run_dir, manifest)
    evidence = {file.path for file in manifest.evidence}
    is_whole = not any(fault.split(":")[0] in evidence for fault in found)
    faults += found
    faults += _check_extra_files(run_dir, manifest, is_ended=is_ended)
    faults += _check_end(manifest) if is_ended else []
    faults += _check_manifest(manifest, journal)
    faults += _check_artifacts(manifest, journal.events)
    faults += _check_run_id(run_dir, manifest.run_id)
    faults += _check_seal(run_dir, journal.events)
    root = evidence_root(manifest.evidence)
    signature, found = check_signatures(run_dir, manifest, anchors, is_ended=is_ended)
    faults += found
    time_stamp, found = check_time_stamp(run_dir, anchors.authority, timestamp_url(run_dir))
    faults += found
    outputs, found = check_claims(run_dir, manifest) if is_whole else (NOT_DRAWN, [])
    faults += found
    faults += check_anchors(anchors, journal, root, has_manifest=True)
    return Verification(
        run_id=manifest.run_id,
        n_files=len(manifest.evidence) + len(manifest.outputs),
        n_bytes=n_bytes,
        evidence_root=root,
        journal_head=journal.head,
        journal_events=len(journal.events),
        signature=signature,
        time_stamp=time_stamp,
        outputs=outputs,
        faults=tuple(faults),
        working=working_paths(run_dir),
    )


def _no_manifest(run_dir: Path, journal: JournalCheck) -> str:
    """Return why there is no manifest: the run did not come to its end, or it was removed."""
    last = journal.events[-1] if journal.events else None
    if last is not None and last.type == EVIDENCE_CLOSED:
        return f"{MANIFEST}: missing, although {JOURNAL} says that the evidence was closed"
    return (
        f"{MANIFEST}: not written yet: the run is still at work or was cut short; go on with it: "
        f"medisynth-gov run --resume {run_dir.resolve().name}"
    )


def _check_files(run_dir: Path, manifest: Manifest) -> tuple[int, list[str]]:
    """Compare every listed file with its entry; return the bytes compared and the faults."""
    n_bytes, faults = 0, []
    for listed in (*manifest.evidence, *manifest.outputs):
        if not is_safe_path(listed.path):
            faults.append(f"{MANIFEST}: lists {listed.path!a}, which is no path in the run folder")
            continue
        try:
            now = _measure_inside(run_dir, listed.path)
        except EvidenceError as error:
            gone = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
            what = str(error).removeprefix(f"{run_dir}/")
            faults.append(f"{listed.path}: missing, {MANIFEST} lists it" if gone else what)
            continue
        n_bytes += now.n_bytes
        if now != listed:
            faults.append(
                f"{listed.path}: changed; {MANIFEST} lists {listed.n_bytes} bytes with sha256:"
                f"{listed.sha256[:12]}, found {now.n_bytes} bytes with sha256:{now.sha256[:12]}"
            )
    return n_bytes, faults


def _measure_inside(run_dir: Path, path: str) -> ManifestFile:
    """Measure a file that must lie in the run folder itself, not behind a link."""
    folder = run_dir
    for part in path.split("/")[:-1]:
        folder = folder / part
        if stat.S_ISLNK(_mode(folder)):
            raise EvidenceError(f"{path}: lies behind the symbolic link {part!a}")
    return measure(run_dir, path)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0  # the fault is reported when the file itself is read


def _check_extra_files(run_dir: Path, manifest: Manifest, *, is_ended: bool) -> list[str]:
    """List files of the folder that are not on the manifest."""
    listed = {file.path for file in (*manifest.evidence, *manifest.outputs)} | {MANIFEST}
    if not is_ended:  # a kill between writing the reports and listing them leaves such files
        listed |= {*OUTPUTS, *MORE_OUTPUTS}
    try:
        files, others = scan_folder(run_dir)
    except OSError as error:
        return [f"{printable(str(error.filename))}: cannot be listed ({error.strerror})"]
    faults = [
        f"{path}: not listed in {MANIFEST}" for path in files if path not in listed | {*BESIDE}
    ]
    is_finished = _read_object(run_dir, Outcome.PATH, []).get("status") == "finished"
    if is_ended and is_finished:
        faults += [
            f"{path}: not listed, and a finished run needs none; remove it"
            for path in working_paths(run_dir)
            if path != LOCK
        ]
    return faults + list(others)


def _check_end(manifest: Manifest) -> list[str]:
    """Return a fault if card and reports were never listed: the run has not ended then."""
    if manifest.outputs:  # they are listed all at once
        return []
    return [
        f"{MANIFEST}: lists no card and no report: the run did not come to its end; go on with it: "
        "medisynth-gov run --resume"
    ]


def _check_manifest(manifest: Manifest, journal: JournalCheck) -> list[str]:
    """Compare the manifest with itself and with the journal."""
    faults = []
    if evidence_root(manifest.evidence) != manifest.evidence_root:
        faults.append(f"{MANIFEST}: the evidence root does not match the files that it lists")
    for part in (manifest.evidence, manifest.outputs):
        paths = [file.path for file in part]
        if paths != sorted(set(paths)):
            faults.append(f"{MANIFEST}: files are listed twice or out of order")
    if {file.path for file in manifest.evidence} & {file.path for file in manifest.outputs}:
        faults.append(f"{MANIFEST}: a file is listed as evidence and as output")
    if manifest.journal_events != len(journal.events) or manifest.journal_head != journal.head:
        faults.append(
            f"{JOURNAL}: {len(journal.events)} events with head {journal.head[:12]}, {MANIFEST} "
            f"expects {manifest.journal_events} with head {manifest.journal_head[:12]}"
        )
    if journal.events and journal.events[0].run != manifest.run_id:
        faults.append(
            f"{JOURNAL}: journal of run {journal.events[0].run!a}, {MANIFEST} is of run "
            f"{manifest.run_id!a}"
        )
    last = journal.events[-1] if journal.events else None
    if last is None or last.type != EVIDENCE_CLOSED:
        faults.append(f"{JOURNAL}: does not end with the event {EVIDENCE_CLOSED!r}")
    elif last.body != closing_facts(manifest):
        faults.append(
            f"{MANIFEST}: run, version, time or previous run differ from the last event "
            f"of {JOURNAL}"
        )
    return faults


def _check_artifacts(manifest: Manifest, events: Sequence[JournalEvent]) -> list[str]:
    """Compare the manifest with the files that the journal lists as written."""
    listed = {file.path: file for file in manifest.evidence}
    recorded: dict[str, tuple[int, ManifestFile | None]] = {}
    for event in events:
        if event.type == "artifact written":
            path, n_bytes, sha256 = (event.body.get(key) for key in ("path", "bytes", "sha256"))
            try:
                file = ManifestFile(path=path, n_bytes=n_bytes, sha256=sha256)
            except ValueError:
                file = None
            recorded[str(path)] = event.seq, file
    return [
        f"{printable(path)}: {MANIFEST} and event {seq} of {JOURNAL} disagree about it"
        for path, (seq, file) in recorded.items()
        if listed.get(path) != file or file is None
    ]


def _read_json(path: Path) -> Any:
    """Return the JSON value of a file; ValueError when it has none."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _read_object(run_dir: Path, path: str, faults: list[str]) -> dict[str, Any]:
    """Return the JSON object of a file; empty, with a fault, when it has none."""
    try:
        value = _read_json(run_dir / path)
    except ValueError as error:
        faults.append(f"{path}: {first_line(error)}")
        return {}
    if isinstance(value, dict):
        return value
    faults.append(f"{path}: not a JSON object")
    return {}


def _check_run_id(run_dir: Path, run_id: str) -> list[str]:
    faults: list[str] = []
    found = _read_object(run_dir, RUN, faults).get("run_id")
    if not faults and found != run_id:
        faults.append(f"{RUN}: run_id is {found!a}, the rest of the evidence is of run {run_id!a}")
    return faults


def _check_seal(run_dir: Path, events: Sequence[JournalEvent]) -> list[str]:
    """Recompute the seal's root from its leaves; compare it with seal and journal."""
    sealed = [event for event in events if event.type == "test set sealed"]
    if not sealed and not (run_dir / SEAL).exists() and not (run_dir / SEAL_LEAVES).exists():
        return []
    faults: list[str] = []
    seal = _read_object(run_dir, SEAL, faults)
    leaves = _read_object(run_dir, SEAL_LEAVES, faults).get("leaves")
    if faults:
        return faults
    try:
        if not isinstance(leaves, list):
            raise ValueError("no list of leaves")
        root = merkle_root([canonical_json(leaf) for leaf in leaves])
    except (ValueError, RecursionError) as error:
        return [f"{SEAL_LEAVES}: {first_line(error)}"]
    if seal.get("merkle_root") != root:
        faults.append(f"{SEAL}: its Merkle root is not that of {SEAL_LEAVES}")
    if seal.get("n_images") != len(leaves):
        faults.append(f"{SEAL}: n_images is not the number of leaves, {len(leaves)}")
    if len(sealed) != 1:
        faults.append(f"{JOURNAL}: {len(sealed)} events 'test set sealed', expected 1")
    elif sealed[0].body.get("merkle_root") != root:
        faults.append(
            f"{JOURNAL}: event {sealed[0].seq}, 'test set sealed', has another Merkle root than "
            f"{SEAL_LEAVES}"
        )
    return faults
