"""The signed copy of the report (report-signed.pdf): the report with a signature appended.

The copy begins with the bytes of report.pdf and allows no change. The check demands that the
signature covers the file to its last byte; otherwise appended bytes would pass.

Source:
    ISO 32000-2, section 12.8 (certification signature, DocMDP level 1: no changes).
"""

import logging
from io import BytesIO
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Key

from governance.evidence.manifest import SIGNED_PDF
from governance.records.errors import EvidenceError, SigningKeyError, first_line
from governance.signing.keys import RunSigner

if TYPE_CHECKING:
    from asn1crypto import x509

_FIELD = "Signature"
_REASON = "The report as it was written; identity of the signer not vouched for"


def certify_pdf(report: bytes, signer: RunSigner) -> bytes:
    """Return the report with a certification signature that allows no change.

    Raises:
        SigningKeyError: There is no certificate, or the key does not sign.
    """
    # pyHanko is imported here: half a second that other commands need not wait for.
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import signers
    from pyhanko.sign.fields import MDPPerm

    metadata = signers.PdfSignatureMetadata(
        field_name=_FIELD,
        certify=True,
        docmdp_permissions=MDPPerm.NO_CHANGES,
        md_algorithm="sha512",  # required by RFC 8419 with Ed25519
        reason=_REASON,
        name=signer.record.identity or None,
    )
    writer = IncrementalPdfFileWriter(BytesIO(report))
    signed: BytesIO = signers.sign_pdf(writer, metadata, signer=_pdf_signer(signer))
    return signed.getvalue()


def _pdf_signer(signer: RunSigner) -> Any:
    from pyhanko.keys import load_certs_from_pemder_data
    from pyhanko.sign.signers import Signer
    from pyhanko_certvalidator.registry import SimpleCertificateStore

    if signer.certificate is None:
        raise SigningKeyError(f"key {signer.record.key_id}: no certificate, so no signed PDF")
    certificates = list(load_certs_from_pemder_data(signer.certificate))

    store = SimpleCertificateStore()  # type: ignore[no-untyped-call]
    store.register_multiple(certificates)

    class KeySigner(Signer):
        """Lets the run's key sign, wherever it is kept."""

        async def async_sign_raw(
            self, data: bytes, digest_algorithm: str, dry_run: bool = False
        ) -> bytes:
            return signer.sign(data)

    return KeySigner(
        signing_cert=certificates[0],
        cert_registry=store,
    )


def check_certified_pdf(signed: bytes, report: bytes, key: Key) -> list[str]:
    """List faults of the signed copy: signature, coverage, and difference from the report."""
    faults = []
    if not signed.startswith(report):
        faults.append(f"{SIGNED_PDF}: not a copy of report.pdf")
    for name in ("pyhanko", "pyhanko_certvalidator"):  # its findings are reported as faults
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        return faults + _check_signature(signed, key)
    except Exception as error:  # noqa: BLE001 - a damaged PDF fails in many ways
        return [
            *faults,
            f"{SIGNED_PDF}: its signature cannot be read ({type(error).__name__}: "
            f"{first_line(error)!a})",
        ]


def _check_signature(signed: bytes, key: Key) -> list[str]:
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko.sign.fields import MDPPerm
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko.sign.validation.status import SignatureCoverageLevel
    from pyhanko_certvalidator import ValidationContext

    signatures = PdfFileReader(BytesIO(signed)).embedded_signatures
    if len(signatures) != 1:
        raise EvidenceError(f"{len(signatures)} signatures, expected 1")
    (embedded,) = signatures
    certificate = embedded.signer_cert
    if certificate is None or not _is_of(certificate, key):
        return [f"{SIGNED_PDF}: signed by another key than {key.keyid}"]
    status = validate_pdf_signature(
        embedded, ValidationContext(trust_roots=[certificate], allow_fetching=False)
    )
    faults = []
    if not (status.intact and status.valid):
        faults.append(f"{SIGNED_PDF}: its bytes are not those that were signed")
    if status.coverage != SignatureCoverageLevel.ENTIRE_FILE:
        faults.append(f"{SIGNED_PDF}: the signature does not cover the entire file")
    if embedded.docmdp_level != MDPPerm.NO_CHANGES:
        faults.append(f"{SIGNED_PDF}: not locked against every change")
    return faults


def _is_of(certificate: "x509.Certificate", key: Key) -> bool:
    """Whether a certificate is of a key; only the key counts, names prove nothing."""
    from cryptography.x509 import load_der_x509_certificate
    from securesystemslib.signer import SSlibKey

    public = load_der_x509_certificate(certificate.dump()).public_key()
    return bool(SSlibKey.from_crypto(public).keyval == key.to_dict().get("keyval"))
