"""The time-stamp of the manifest (manifest.tsr): an authority states when it existed.

The token is over the bytes of manifest.json, which hold the evidence root and the journal head. It
is the authority's whole answer, so `openssl ts -verify -data manifest.json -in manifest.tsr` reads
it. manifest.tsr.sha256 is its digest: it reveals a damaged token without knowing any authority.

Source:
    RFC 3161, Internet X.509 Public Key Infrastructure Time-Stamp Protocol.
"""

import re
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from governance.evidence.manifest import MANIFEST, TOKEN, TOKEN_DIGEST
from governance.records.errors import AnchorError, EvidenceError, TimeStampError, first_line
from governance.records.files import open_regular, sha256_bytes, write_atomic

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest, TimeStampResponse

LARGEST_TOKEN_BYTES = 1 << 16
_LARGEST_CERTIFICATES_BYTES = 1 << 20
_GRANTED = 0
_UNSTAMPED = "no time-stamp"


@dataclass(frozen=True)
class Authority:
    """Trusted certificates of a time-stamp authority, and where they came from.

    Attributes:
        name: Where they came from, for messages.
        roots: Certificates that are trusted.
    """

    name: str
    roots: tuple[x509.Certificate, ...]


def read_authority(path: Path) -> Authority:
    """Read the certificates of a time-stamp authority (PEM, one or more).

    Raises:
        AnchorError: The file cannot be read or holds no certificate.
    """
    try:
        with open_regular(path.expanduser()) as stream:
            data = stream.read(_LARGEST_CERTIFICATES_BYTES)
        return Authority(str(path), tuple(x509.load_pem_x509_certificates(data)))
    except OSError as error:
        raise AnchorError(
            f"{path}: the authority's certificate cannot be read ({error.strerror or error})"
        ) from error
    except ValueError as error:
        raise AnchorError(
            f"{path}: no X.509 certificate in PEM form; expected that of the time-stamp authority"
        ) from error


def make_request(manifest: bytes) -> "TimeStampRequest":
    """Return a request for a time-stamp of these bytes, with a fresh nonce."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return TimestampRequestBuilder(manifest, HashAlgorithm.SHA256).build()


def accept_answer(
    answer: bytes, request: "TimeStampRequest", manifest: bytes, authority: Authority | None
) -> None:
    """Refuse an answer that is no time-stamp of the manifest for this request.

    Raises:
        TimeStampError: The answer has no token, another digest or nonce, or not of the authority.
    """
    try:
        token = _decode(answer)
    except TimeStampError as error:
        raise TimeStampError(f"the answer is no time-stamp ({error})") from error
    if token.tst_info.nonce != request.nonce:
        raise TimeStampError("the answer is to another question (nonce)")
    if fault := _fault(token, manifest, authority):
        raise TimeStampError(f"the answer {fault}")


def write_token(run_dir: Path, answer: bytes) -> None:
    """Write an accepted answer and its digest; RecordWriteError if they cannot be written."""
    write_atomic(run_dir / TOKEN, answer)
    write_atomic(run_dir / TOKEN_DIGEST, digest_line(answer))


def digest_line(answer: bytes) -> bytes:
    """Return the content of manifest.tsr.sha256, in the form that `sha256sum -c` reads."""
    return f"{sha256_bytes(answer)}  {TOKEN}\n".encode()


def check_time_stamp(
    run_dir: Path, authority: Authority | None, asked: str | None
) -> tuple[str, list[str]]:
    """Check the time-stamp of a run's manifest, where there is one.

    Args:
        run_dir: Folder of the run.
        authority: Certificates to check it with; None leaves the authority unchecked.
        asked: Authority that the run was to ask; None for none.

    Returns:
        A sentence on the time-stamp, and all faults.
    """
    there = [name for name in (TOKEN, TOKEN_DIGEST) if (run_dir / name).is_file()]
    if not there:
        faults = []
        if authority is not None:
            faults = [f"{TOKEN}: missing, expected a time-stamp by the authority {authority.name}"]
        return _none(asked), faults
    if len(there) == 1:
        missing = TOKEN_DIGEST if there == [TOKEN] else TOKEN
        return "time-stamp not checked", [f"{missing}: missing, {there[0]} is there"]
    try:
        answer, digest, manifest = (
            _read(run_dir / name) for name in (TOKEN, TOKEN_DIGEST, MANIFEST)
        )
        if digest != digest_line(answer):
            return "time-stamp not checked", [f"{TOKEN}: not the file of {TOKEN_DIGEST}"]
        token = _decode(answer)
    except (TimeStampError, EvidenceError) as error:
        return "time-stamp not checked", [f"{TOKEN}: cannot be read as a time-stamp ({error})"]
    if fault := _fault(token, manifest, authority):
        return "time-stamp not accepted", [f"{TOKEN}: {fault}"]
    return _words(token, authority), []


def _none(asked: str | None) -> str:
    if asked is None:
        return f"{_UNSTAMPED}: the configuration asks for none"
    return f"{_UNSTAMPED}: {asked} was to be asked and gave none; medisynth-gov timestamp RUN asks again"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path.name}: {error.strerror or error}") from error


def _decode(answer: bytes) -> "TimeStampResponse":
    """Return the answer's token; TimeStampError with a short reason when it holds none."""
    from rfc3161_client import decode_timestamp_response

    if len(answer) > LARGEST_TOKEN_BYTES:
        raise TimeStampError(f"more than {LARGEST_TOKEN_BYTES} bytes")
    try:
        token = decode_timestamp_response(answer)
        if token.status != _GRANTED:
            said = first_line("; ".join(token.status_string))
            raise TimeStampError(f"the authority refused, status {token.status} {said!a}")
        info = token.tst_info  # read here: a malformed field fails only when read
        _ = info.message_imprint.message, info.gen_time, info.nonce
    except ValueError as error:
        raise TimeStampError("not in the form of RFC 3161") from error
    if token.as_bytes() != answer:
        raise TimeStampError("more than one answer, or not as an authority writes it")
    return token


def _fault(token: "TimeStampResponse", manifest: bytes, authority: Authority | None) -> str:
    """Return why a token does not fit manifest and authority, as a sentence part; else ""."""
    from rfc3161_client import VerifierBuilder

    imprint = token.tst_info.message_imprint
    if imprint.message.hex() != sha256_bytes(manifest):
        return f"is of other bytes than {MANIFEST}"
    if authority is None:
        return ""
    try:
        verifier = VerifierBuilder(roots=list(authority.roots)).build()
        verifier.verify_message(token, manifest)
    except Exception as error:  # noqa: BLE001 - a damaged certificate fails in many ways
        return f"is not by the authority {authority.name} ({_short(error)})"
    return ""


def _short(error: Exception) -> str:
    """Return the reason alone, without OpenSSL's place in its own source."""
    reasons = re.findall(r'data: "([^"]*)"', str(error))
    return first_line(reasons[-1] if reasons else error)


def _words(token: "TimeStampResponse", authority: Authority | None) -> str:
    when = token.tst_info.gen_time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if authority is None:
        return f"says {when}; authority not checked: --tsa-certificate FILE checks it"
    return f"{when}, checked with the certificate in {authority.name}"
