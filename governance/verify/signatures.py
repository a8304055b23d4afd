"""Verify a run's signatures, and compare the run with anchors held outside."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from securesystemslib.signer import Key

from governance.evidence.journal import JournalCheck
from governance.evidence.manifest import JOURNAL, MANIFEST, SIGNATURE, SIGNED_PDF, SIGNING
from governance.records.errors import AnchorError, SigningKeyError, first_line
from governance.records.manifest import Manifest
from governance.records.people import SigningRecord
from governance.signing.keys import check_manifest_signature, parse_key, read_public_key
from governance.signing.pdf import check_certified_pdf
from governance.signing.statements import check_attestation
from governance.signing.timestamp import Authority, read_authority

UNSIGNED = "unsigned"


@dataclass(frozen=True)
class Anchors:
    """Key, digests and authority that an auditor holds from elsewhere; None: not known.

    Attributes:
        key: Public key that must have signed the run.
        key_name: Where that key came from, for messages.
        head: Journal head, 64 hexadecimal digits.
        root: Evidence root, 64 hexadecimal digits.
        require_signature: Whether an unsigned run is a fault.
        authority: Time-stamp authority that must have stamped the manifest.
    """

    key: Key | None = None
    key_name: str = ""
    head: str | None = None
    root: str | None = None
    require_signature: bool = False
    authority: Authority | None = None


NOTHING_HELD = Anchors()


def check_anchors(
    anchors: Anchors, journal: JournalCheck, root: str, *, has_manifest: bool
) -> list[str]:
    """Compare journal head and evidence root with those held elsewhere."""
    faults = []
    if anchors.head is not None and journal.head != anchors.head:
        place = next((e.seq for e in journal.events if e.digest == anchors.head), None)
        known = "which is no event of it" if place is None else f"which is its event {place}"
        faults.append(f"{JOURNAL}: its head is {journal.head}, expected {anchors.head}, {known}")
    if anchors.root is not None and has_manifest and root != anchors.root:
        faults.append(f"{MANIFEST}: the evidence root is {root}, expected {anchors.root}")
    return faults


def check_signatures(
    run_dir: Path, manifest: Manifest, anchors: Anchors, *, is_ended: bool
) -> tuple[str, list[str]]:
    """Check every signature of a run.

    Args:
        run_dir: Folder of the run.
        manifest: Its manifest.
        anchors: Anchors held outside.
        is_ended: Whether the signature must exist already.

    Returns:
        A sentence on the signature, and all faults.
    """
    try:
        record, key = _signing_key(run_dir)
    except ValueError as error:
        return "signature not checked", [f"{SIGNING}: {first_line(error)}"]
    if key is None:
        return UNSIGNED, _check_unsigned(run_dir, anchors)
    faults = []
    if is_ended or (run_dir / SIGNATURE).exists():
        faults += check_manifest_signature(run_dir, record, key)
    elif anchors.require_signature:
        faults.append(f"{SIGNATURE}: missing, and a signature is required")
    if anchors.key is not None and not _is_same(anchors.key, key):
        faults.append(
            f"{SIGNATURE}: by key {key.keyid}, expected key {anchors.key.keyid} of "
            f"{anchors.key_name}"
        )
    faults += _check_signed_files(run_dir, manifest, key)
    held = "checked with the key in the run only: --key FILE checks it with one held elsewhere"
    if anchors.key is not None:
        held = f"checked with the key in {anchors.key_name}"
    return f"{record.sentence}; {held}", faults


def _is_same(left: Key, right: Key) -> bool:
    return bool(left.to_dict().get("keyval") == right.to_dict().get("keyval"))


def _signing_key(run_dir: Path) -> tuple[SigningRecord, Key | None]:
    """Return signing.json and its key; ValueError when they cannot be understood."""
    try:
        data = (run_dir / SIGNING).read_bytes()
    except FileNotFoundError:
        return SigningRecord(), None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    record = SigningRecord.model_validate_json(data)
    if record.key_id is None or record.key is None:
        return SigningRecord(), None
    try:
        return record, parse_key(record.key_id, record.key)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("the key is malformed") from error


def timestamp_url(run_dir: Path) -> str | None:
    """Return the time-stamp authority that the run was to ask; None if none or unreadable."""
    try:
        return SigningRecord.model_validate_json((run_dir / SIGNING).read_bytes()).timestamp_url
    except (OSError, ValueError):
        return None  # a damaged file is reported where signatures are checked


def _check_unsigned(run_dir: Path, anchors: Anchors) -> list[str]:
    if (run_dir / SIGNATURE).exists():
        return [f"{SIGNATURE}: a signature, but {SIGNING} names no key that made it"]
    if anchors.key is not None:
        return [
            f"{SIGNATURE}: the run is unsigned, expected a signature by key {anchors.key.keyid} "
            f"of {anchors.key_name}"
        ]
    if anchors.require_signature:
        return [f"{SIGNATURE}: the run is unsigned, and a signature is required"]
    return []


def _check_signed_files(run_dir: Path, manifest: Manifest, key: Key) -> list[str]:
    """List faults of statements and signed PDF; whether they exist is checked elsewhere."""
    faults = []
    listed = {file.path for file in manifest.outputs}
    for path in sorted(listed):
        if path.startswith("attestations/"):
            check = partial(check_attestation, path, key=key, manifest=manifest)
            faults += _with_bytes(run_dir, path, check)
    if SIGNED_PDF in listed:
        report = run_dir / "report.pdf"
        original = report.read_bytes() if report.is_file() else b"no report.pdf"
        faults += _with_bytes(
            run_dir, SIGNED_PDF, lambda data: check_certified_pdf(data, original, key)
        )
    return faults


def _with_bytes(run_dir: Path, path: str, check: Callable[[bytes], list[str]]) -> list[str]:
    try:
        return check((run_dir / path).read_bytes())
    except OSError:
        return []  # missing or unreadable: reported when compared with the manifest


def read_anchors(
    *,
    key: Path | None = None,
    head: str | None = None,
    root: str | None = None,
    require_signature: bool = False,
    tsa_certificate: Path | None = None,
) -> Anchors:
    """Return anchors from the options that a person gives.

    Raises:
        AnchorError: A file is no public key or no certificate, or a digest is not 64 hexadecimal
            digits.
    """
    for name, value in (("--head", head), ("--root", root)):
        if value is not None and (len(value) != 64 or set(value.lower()) - set("0123456789abcdef")):
            raise AnchorError(
                f"{name}: expected 64 hexadecimal digits, found {value[:80]!a}; copy all of it"
            )
    try:
        held = None if key is None else read_public_key(key)
    except SigningKeyError as error:
        raise AnchorError(f"--key: {error}") from error
    return Anchors(
        key=held,
        key_name=str(key) if key is not None else "",
        head=None if head is None else head.lower(),
        root=None if root is None else root.lower(),
        require_signature=require_signature,
        authority=None if tsa_certificate is None else read_authority(tsa_certificate),
    )
