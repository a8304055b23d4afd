"""Signing keys and the signature of the manifest (manifest.sig).

A signature shows that whoever holds the key signed exactly this manifest. It cannot show who that
is: nobody vouches for the identity of a key that was made here.
"""

import contextlib
import json
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import (
    KEY_FOR_TYPE_AND_SCHEME,
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    Key,
    Signature,
    Signer,
    SSlibKey,
)

from governance.evidence.manifest import MANIFEST, SIGNATURE, SIGNING
from governance.records.errors import EvidenceError, RecordWriteError, SigningKeyError, first_line
from governance.records.files import canonical_json, open_regular, write_atomic
from governance.records.people import SigningRecord

PRIVATE_KEY, PUBLIC_KEY, CERTIFICATE = "signing_key.pem", "signing_key.pub", "signing_key.crt"
SIGNATURE_FORMAT = "medisynth-gov/manifest-signature/1"
_FILE_SCHEME = "file2"
_LARGEST_KEY_BYTES = 1 << 16
# Encodings of the curve's points of order 1 to 8, without the sign bit. For these, signatures made
# without a key pass. Source: libsodium, ge25519_has_small_order.
_SMALL_ORDER = frozenset(
    {
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    }
)
_NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280: no date of expiry


@dataclass(frozen=True)
class RunSigner:
    """A private key that can sign, with its public record.

    Attributes:
        record: Its public part, as in the run's signing.json.
        key_path: File of the private key; None when it is not in a file.
        certificate: X.509 certificate of the key in PEM form; None when there is none.
    """

    record: SigningRecord
    key_path: Path | None
    certificate: bytes | None
    signer: Signer

    def sign(self, data: bytes) -> bytes:
        """Sign bytes.

        Raises:
            SigningKeyError: The key cannot sign, e.g. its token was pulled out.
        """
        try:
            return bytes.fromhex(self.signer.sign(data).signature)
        except Exception as error:  # every kind of keeper raises errors of its own
            raise SigningKeyError(
                f"key {self.record.key_id}: does not sign ({first_line(error)}); "
                "check the device or service that keeps it"
            ) from error


@dataclass(frozen=True)
class KeyPair:
    """Paths of the files of a new key, and its id."""

    private_key: Path
    public_key: Path
    certificate: Path
    key_id: str


def make_key_pair(folder: Path) -> KeyPair:
    """Make an Ed25519 key, the public key and a self-signed certificate for PDF signatures.

    Raises:
        SigningKeyError: One of the files exists already; nothing is overwritten.
        RecordWriteError: The folder cannot be written.
    """
    paths = [folder / name for name in (PRIVATE_KEY, PUBLIC_KEY, CERTIFICATE)]
    for path in paths:
        if path.exists() or path.is_symlink():
            raise SigningKeyError(
                f"{path}: exists already and is not overwritten; choose another folder with --out"
            )
    signer = CryptoSigner.generate_ed25519()
    key = signer.public_key
    _write_private(paths[0], signer.private_bytes)
    public = {"keyid": key.keyid, **key.to_dict()}
    write_atomic(paths[1], json.dumps(public, indent=1, sort_keys=True).encode() + b"\n")
    write_atomic(paths[2], _certificate(signer.private_bytes, key.keyid))
    return KeyPair(paths[0], paths[1], paths[2], key.keyid)


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if not isinstance(error, FileExistsError):
            with contextlib.suppress(OSError):
                path.unlink()
        raise RecordWriteError(
            f"{path}: the key cannot be written ({error.strerror or error}); "
            "choose another folder with --out"
        ) from error


def _certificate(private_pem: bytes, key_id: str) -> bytes:
    private = load_pem_private_key(private_pem, None)
    if not isinstance(private, Ed25519PrivateKey):
        raise SigningKeyError(f"key {key_id}: not an Ed25519 key; make one with keygen")
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"medisynth-gov key {key_id[:16]}, not vouched")]
    )
    usage = dict.fromkeys(
        (
            *("key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign"),
            *("crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0))
        .not_valid_after(_NEVER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, content_commitment=True, **usage), critical=True
        )
        .sign(private, None)
    )
    return certificate.public_bytes(Encoding.PEM)


def load_signer(
    key: str,
    *,
    identity: str | None = None,
    public_key: Path | None = None,
    certificate: Path | None = None,
    name: str = "signing.key",
) -> RunSigner:
    """Open a key and sign once with it, so that an unusable key fails at the start.

    Args:
        key: File of an Ed25519 private key (PEM), or a securesystemslib URI such as "hsm:…".
        identity: Name of the signer, free text.
        public_key: File of the public key; needed for a URI.
        certificate: X.509 certificate (PEM); None takes the .crt beside a key file, if any.
        name: Key of the configuration, or option, that names the key; for messages.

    Raises:
        SigningKeyError: The key cannot be read or used, others may read it, or the certificate or
            public key belongs to another key.
    """
    scheme = key.partition(":")[0] if re.match(r"[a-z0-9]+:", key) else ""
    path: Path | None = None
    if scheme in ("", _FILE_SCHEME):
        path = Path(key.removeprefix(f"{_FILE_SCHEME}:")).expanduser().resolve()
        signer: Signer = _file_signer(path, name)
        beside = path.with_suffix(".crt")
        certificate = certificate or (beside if beside.is_file() else None)
        if public_key is not None and read_public_key(public_key).keyid != signer.public_key.keyid:
            raise SigningKeyError(f"{public_key}: not the public key of {path}; give that, or none")
    else:
        signer = _uri_signer(key, scheme, public_key, name)
    shown = signer.public_key
    record = SigningRecord(
        key_id=shown.keyid,
        key=shown.to_dict(),
        source="file" if path else scheme,
        identity=identity,
        has_certificate=certificate is not None,
    )
    loaded = RunSigner(record, path, _read_certificate(certificate, shown), signer)
    if not is_signed_by(shown, b"", loaded.sign(b"")):
        raise SigningKeyError(f"{key[:120]}: its signatures do not fit the public key given")
    return loaded


def _file_signer(path: Path, name: str) -> CryptoSigner:
    try:
        with open_regular(path) as stream:
            facts = os.fstat(stream.fileno())
            data = stream.read(_LARGEST_KEY_BYTES)
    except OSError as error:
        raise SigningKeyError(
            f"{name}: {path} cannot be read ({error.strerror or error}); make a key with "
            "medisynth-gov keygen"
        ) from error
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise SigningKeyError(
            f"{name}: {path} can be read or written by others (mode "
            f"{stat.S_IMODE(facts.st_mode):o}), expected 600; chmod 600 it, or make a new key"
        )
    try:
        private = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = "is encrypted" if isinstance(error, TypeError) else "is no private key (PEM, PKCS 8)"
        raise SigningKeyError(
            f"{name}: {path} {why}; make a key with medisynth-gov keygen"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SigningKeyError(
            f"{name}: {path} is not an Ed25519 key; make one with medisynth-gov keygen"
        )
    return CryptoSigner(private)


def _uri_signer(uri: str, scheme: str, public_key: Path | None, name: str) -> Signer:
    if scheme not in SIGNER_FOR_URI_SCHEME:
        known = ", ".join(sorted(SIGNER_FOR_URI_SCHEME))
        raise SigningKeyError(
            f"{name}: unknown scheme {scheme!r}; expected a file or one of {known}"
        )
    if public_key is None:
        raise SigningKeyError(f"{name}: a URI needs its public key; give signing.public_key")
    try:
        return Signer.from_priv_key_uri(uri, read_public_key(public_key))
    except SigningKeyError:
        raise
    except Exception as error:  # every kind of keeper raises errors of its own
        raise SigningKeyError(
            f"{name}: the key kept by {scheme!r} cannot be used ({first_line(error)})"
        ) from error


def _read_certificate(path: Path | None, key: Key) -> bytes | None:
    """Return the bytes of the certificate, which must belong to the same key."""
    if path is None:
        return None
    try:
        with open_regular(path.expanduser()) as stream:
            data = stream.read(_LARGEST_KEY_BYTES)
        certified = SSlibKey.from_crypto(x509.load_pem_x509_certificate(data).public_key())
    except OSError as error:
        raise SigningKeyError(
            f"{path}: the certificate cannot be read ({error.strerror or error})"
        ) from error
    except ValueError as error:
        raise SigningKeyError(f"{path}: no X.509 certificate in PEM form") from error
    if certified.keyval != key.to_dict().get("keyval"):
        raise SigningKeyError(f"{path}: the certificate is of another key than signing.key")
    return data


def read_public_key(path: Path) -> Key:
    """Read a public key: the .pub file that keygen writes, a run's signing.json, or PEM.

    Raises:
        SigningKeyError: The file is none of these.
    """
    try:
        with open_regular(path.expanduser()) as stream:
            data = stream.read(_LARGEST_KEY_BYTES)
    except OSError as error:
        raise SigningKeyError(
            f"{path}: the public key cannot be read ({error.strerror or error})"
        ) from error
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return SSlibKey.from_crypto(load_pem_public_key(data))
        value = json.loads(data)
        if "key_id" in value:  # signing.json
            return parse_key(value["key_id"], value["key"])
        return parse_key(value.pop("keyid"), value)
    except (ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(
            f"{path}: no public key; expected the .pub file of keygen or a PEM public key"
        ) from error


def parse_key(key_id: str, key: dict[str, Any]) -> Key:
    """Return the public key that securesystemslib's fields describe; ValueError for others.

    The id of an Ed25519 key must be the digest of the key.
    """
    fields = {name: key[name] for name in ("keytype", "scheme", "keyval")}
    if set(key) != set(fields):
        raise ValueError("unknown fields in the key")
    if (fields["keytype"], fields["scheme"]) not in KEY_FOR_TYPE_AND_SCHEME:
        raise ValueError(f"unknown kind of key {str(fields['keytype'])[:40]!a}")
    parsed: Key = Key.from_dict(key_id, {**fields, "keyval": dict(fields["keyval"])})
    if parsed.keytype == "ed25519":
        public = bytes.fromhex(parsed.keyval["public"])
        if SSlibKey.from_crypto(ed25519_public_key(public)).keyid != key_id:
            raise ValueError("the id is not that of the key")
    return parsed


def ed25519_public_key(public: bytes) -> Ed25519PublicKey:
    """Return the public key of 32 bytes; ValueError for a malformed key or small-order point."""
    sign_cleared = public[:-1] + bytes([public[-1] & 0x7F]) if public else public
    if sign_cleared.hex() in _SMALL_ORDER:
        raise ValueError("a point of small order: under it signatures can be made without a key")
    return Ed25519PublicKey.from_public_bytes(public)


def is_signed_by(key: Key, data: bytes, signature: bytes) -> bool:
    """Whether a signature over these bytes was made with this key."""
    try:
        key.verify_signature(Signature(key.keyid, signature.hex()), data)
    except (UnverifiedSignatureError, VerificationError, ValueError):
        return False
    return True


def sign_manifest(run_dir: Path, signer: RunSigner) -> None:
    """Sign the current bytes of manifest.json; the last thing written into a run.

    Raises:
        EvidenceError: There is no manifest.
        SigningKeyError: The key does not sign.
        RecordWriteError: The file cannot be written.
    """
    try:
        data = (run_dir / MANIFEST).read_bytes()
    except OSError as error:
        raise EvidenceError(f"{run_dir / MANIFEST}: cannot be read, so not signed") from error
    write_atomic(run_dir / SIGNATURE, signature_file(str(signer.record.key_id), signer.sign(data)))


def signature_file(key_id: str, signature: bytes) -> bytes:
    """Return manifest.sig as bytes, in the only form that is valid."""
    fields = {"format": SIGNATURE_FORMAT, "keyid": key_id, "sig": signature.hex()}
    return canonical_json(fields) + b"\n"


def check_manifest_signature(run_dir: Path, record: SigningRecord, key: Key) -> list[str]:
    """List the faults of manifest.sig; empty when it is the key's signature of manifest.json."""
    try:
        data = (run_dir / SIGNATURE).read_bytes()
        manifest = (run_dir / MANIFEST).read_bytes()
    except FileNotFoundError:
        return [f"{SIGNATURE}: missing; {SIGNING} says that key {record.key_id} signs the run"]
    except OSError as error:
        return [f"{SIGNATURE}: cannot be read ({error.strerror or error})"]
    try:
        value = json.loads(data)
        key_id, signature = str(value["keyid"]), bytes.fromhex(value["sig"])
        if signature_file(key_id, signature) != data:
            raise ValueError("not as it is written")
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"{SIGNATURE}: not a signature file, or changed"]
    if key_id != record.key_id:
        return [f"{SIGNATURE}: by key {key_id!a}, {SIGNING} names key {record.key_id}"]
    if not is_signed_by(key, manifest, signature):
        return [f"{SIGNATURE}: not the signature of key {record.key_id} over {MANIFEST}"]
    return []
