"""Checks a run folder; needs Python 3.11, and `cryptography` when the run is signed.

python verify_run.py [FOLDER] [--head HEX] [--root HEX] [--key FILE] [--public HEX]
A folder rebuilt as a whole shows only against a journal head, an evidence root or a public key
that is known from elsewhere: give it; the key as the file of keygen or its value "public".
Exit 0: all as written. Exit 5: what differs is printed.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

MAX_LOCK_BYTES = 32
TO_GO_ON = ((".scratch",), ("checkpoints", ".states"))
BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OSError)
NOT_COMPARED = "not compared here: the ledger, MLflow, card and reports with the documents"


def sha(data: bytes) -> str:  # noqa: D103
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:  # noqa: D103 - RFC 8785, for text and whole numbers
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def merkle_root(leaves: list[bytes]) -> str:  # noqa: D103 - RFC 6962, section 2.1
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs] + odd
    return level[0].hex() if level else sha(b"")


def check_journal(data: bytes, faults: list[str]) -> list[dict[str, Any]]:
    """Each line holds its own digest and that of the line before; returns the events."""
    events, previous = [], "0" * 64
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n")):
        try:
            event = json.loads(line)
            # The digest is that of the line without the digest, whose place is before "previous".
            before, mark, after = line.rpartition(b'"digest":"%s",' % event["digest"].encode())
            if (event["previous"], event["seq"]) != (previous, number):
                faults.append(f"journal.jsonl:{number + 1}: does not follow the line before")
            previous = event["digest"]
            if mark and sha(before + after) == event["digest"]:
                events.append(event)
            else:
                faults.append(f"journal.jsonl:{number + 1}: the digest does not match the line")
        except BROKEN:
            faults.append(f"journal.jsonl:{number + 1}: not readable")
    if not data.endswith(b"\n"):
        faults.append("journal.jsonl: the last line has no end")
    return events


def is_working(folder: Path, path: Path, parts: tuple[str, ...]) -> bool:
    """The lock of a process, and what a run that was cut short needs to go on, are no evidence."""
    if parts == (".lock",):
        return path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_LOCK_BYTES
    outcome = folder / "outcome.json"
    if outcome.exists() and json.loads(outcome.read_bytes())["status"] == "finished":
        return False
    kept = next((kept for kept in TO_GO_ON if parts[: len(kept)] == kept), None)
    return (
        kept is not None
        and folder.joinpath(*kept).is_dir()
        and not any(folder.joinpath(*kept[:n]).is_symlink() for n in range(1, len(kept) + 1))
    )


def find_files(folder: Path, faults: list[str]) -> dict[str, Path]:
    """Files of the folder by path; all but them, their folders and working paths is a fault."""
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        name, is_link = "/".join(parts), path.is_symlink()
        if any(part.startswith(".") or part.endswith(".part") for part in parts):
            if not is_working(folder, path, parts):
                faults.append(f"{name!a}: not listed, and no working path of a run")
        elif is_link or not (path.is_file() or path.is_dir()):
            faults.append(f"{name!a}: not a regular file")
        elif path.is_file():
            found[name] = path
        elif not any(path.iterdir()):
            faults.append(f"{name!a}: empty folder, which no run leaves")
    return found


def check_files(folder: Path, manifest: dict[str, Any], faults: list[str]) -> None:
    """Every file is as listed, and every file is listed but those of `is_working`."""
    found = find_files(folder, faults)
    for entry in [*manifest["evidence"], *manifest["outputs"]]:
        file = found.pop(entry["path"], None)
        if file is None:
            faults.append(f"{entry['path']}: missing, or listed twice")
            continue
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if (file.stat().st_size, digest) != (entry["n_bytes"], entry["sha256"]):
            faults.append(f"{entry['path']}: changed")
    beside = {"manifest.json", "manifest.sig", "manifest.tsr", "manifest.tsr.sha256"}
    faults += [f"{path!a}: not listed" for path in {*found} - beside]
    if not manifest["outputs"]:
        faults.append("manifest.json: lists no card and no report: the run did not come to its end")


def check_manifest(raw: bytes, events: list[dict[str, Any]], faults: list[str]) -> dict[str, Any]:
    """The manifest agrees with itself and with the journal; returns it."""
    manifest: dict[str, Any] = json.loads(raw)
    root, last = merkle_root([canonical(entry) for entry in manifest["evidence"]]), events[-1]
    if canonical(manifest) + b"\n" != raw or manifest["format"] != "medisynth-gov/manifest/1":
        faults.append("manifest.json: not as it was written")
    if root != manifest["evidence_root"]:
        faults.append("manifest.json: the evidence root does not match the files that it lists")
    if (len(events), last["digest"]) != (manifest["journal_events"], manifest["journal_head"]):
        faults.append("journal.jsonl: other count or head than in manifest.json")
    names = ("run_id", "tool_version", "created_utc", "previous_run")
    if (last["type"], last["body"]) != ("evidence closed", {n: manifest[n] for n in names}):
        faults.append("manifest.json: differs from the last event of journal.jsonl")
    listed = {e["path"]: (e["n_bytes"], e["sha256"]) for e in manifest["evidence"]}
    written = {e["body"]["path"]: e["body"] for e in events if e["type"] == "artifact written"}
    for path, body in written.items():
        if listed.get(path) != (body["bytes"], body["sha256"]):
            faults.append(f"{path}: manifest.json and journal.jsonl disagree about it")
    return manifest


def check_signature(folder: Path, public: str, faults: list[str]) -> str:
    """manifest.sig is the signature over manifest.json by the key in signing.json."""
    path = folder / "signing.json"
    signing = json.loads(path.read_bytes()) if path.exists() else {}
    if not signing.get("key_id"):
        if public or (folder / "manifest.sig").exists():
            faults.append("manifest.sig: expected a signature by a known key, the run is unsigned")
        return "unsigned"
    key_id, held = signing["key_id"], signing["key"]["keyval"]["public"]
    if public and public != held:
        faults.append(f"manifest.sig: by key {held}, expected {public}")
    if signing["key"]["keytype"] != "ed25519":
        faults.append("manifest.sig: not an Ed25519 key, which this script cannot check")
        return "signature not checked"
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = (folder / "manifest.sig").read_bytes()
        value = bytes.fromhex(json.loads(raw)["sig"])
        form = {"format": "medisynth-gov/manifest-signature/1", "keyid": key_id, "sig": value.hex()}
        if canonical(form) + b"\n" != raw or sha(canonical(signing["key"])) != key_id:
            raise ValueError
        verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(held))
        verifier.verify(value, (folder / "manifest.json").read_bytes())
    except (*BROKEN, InvalidSignature):
        faults.append(f"manifest.sig: missing, or not the signature of key {key_id} over the run")
    return f"signed by key id {key_id}, identity not vouched for"


def public_of(data: bytes) -> str:
    """The public key in the .pub file of keygen, in a signing.json or in a PEM file, in hex."""
    if not data.lstrip().startswith(b"-----BEGIN"):
        value = json.loads(data)
        return str(value.get("key", value)["keyval"]["public"])
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key: Any = load_pem_public_key(data)
    return str(key.public_bytes_raw().hex())


def check_time_stamp(folder: Path, faults: list[str]) -> str:
    """manifest.tsr is as it was written; `openssl ts -verify` checks what it says, and by whom."""
    token, digest = folder / "manifest.tsr", folder / "manifest.tsr.sha256"
    if not token.exists() and not digest.exists():
        return "no time-stamp"
    if digest.read_bytes() != f"{sha(token.read_bytes())}  manifest.tsr\n".encode():
        faults.append("manifest.tsr: changed, or not the file of manifest.tsr.sha256")
    return "time-stamp there, not checked by this script"


def check(folder: Path, head: str = "", root: str = "", public: str = "") -> tuple[list[str], str]:
    """Returns everything that differs, and what was found in words."""
    faults: list[str] = []
    try:
        events = check_journal((folder / "journal.jsonl").read_bytes(), faults)
        if not (folder / "manifest.json").exists() and events[-1]["type"] != "evidence closed":
            return [*faults, "manifest.json: not written yet: still at work, or cut short"], ""
        manifest = check_manifest((folder / "manifest.json").read_bytes(), events, faults)
        check_files(folder, manifest, faults)
        words = f"{check_signature(folder, public, faults)}, {check_time_stamp(folder, faults)}"
    except BROKEN as error:
        return [*faults, f"not readable: {type(error).__name__}: {str(error)[:200]}"], ""
    if head and head != events[-1]["digest"]:
        faults.append(f"journal.jsonl: head {events[-1]['digest']}, expected {head}")
    if root and root != manifest["evidence_root"]:
        faults.append(f"manifest.json: evidence root {manifest['evidence_root']}, expected {root}")
    n_files = len(manifest["evidence"]) + len(manifest.get("outputs", ()))
    first = f"{n_files} files and {len(events)} journal events"
    roots = f"evidence root {manifest['evidence_root']}\njournal head  {manifest['journal_head']}"
    return faults, f"{first} on record\n{words}\n{roots}\n{NOT_COMPARED}\n"


def main() -> int:
    """Check the folder named, or the one of this script."""
    parser = argparse.ArgumentParser(description="Checks a run folder; exit 5 names differences.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    for option in ("--head", "--root", "--public"):
        parser.add_argument(option, default="")
    parser.add_argument("--key", type=Path, help="public key that must have signed the run")
    given = vars(parser.parse_args())
    try:
        key = given.pop("key")
        given["public"] = public_of(key.read_bytes()) if key else given["public"]
    except BROKEN:
        parser.error(f"--key {key}: no Ed25519 public key; expected the .pub file of keygen")
    faults, words = check(**given)
    verdict = f"NOT VERIFIED: {len(faults)} fault(s)" if faults else "OK: all is as recorded"
    sys.stdout.write("\n".join((verdict, *faults, words)))
    return 5 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
