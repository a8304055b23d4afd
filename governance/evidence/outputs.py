"""The end of a run: card and reports, the verifier, statements, the manifest, its signature.

The order is the one that a reader relies on: evidence is closed, reports are written from it,
the manifest takes them up, and the signature over the manifest comes last.
"""

from collections.abc import Mapping
from pathlib import Path

from governance.evidence import independent_verifier
from governance.evidence.attestation import attestations
from governance.evidence.documents import Manifest, RunIdentity
from governance.evidence.manifest import SIGNED_PDF, VERIFIER, add_outputs, read_manifest
from governance.evidence.pdf_signature import certify_pdf
from governance.evidence.signing import RunSigner, sign_manifest
from governance.files import sha256_bytes, write_atomic


def verifier_script() -> bytes:
    """The independent verifier, as it is written into every run; it imports nothing of ours."""
    return Path(independent_verifier.__file__).read_bytes()


def write_outputs(
    run_dir: Path, outputs: Mapping[str, bytes], signer: RunSigner | None = None
) -> Manifest:
    """Write what follows the closed evidence, list it, and sign when there is a key.

    Args:
        run_dir: Folder of a run whose evidence is closed.
        outputs: Card and reports: file name -> bytes.
        signer: Key of the run; None leaves it unsigned.

    Raises:
        EvidenceError: The manifest is missing or an output is evidence already.
        SigningKeyError: The key does not sign; nothing was written yet.
        RecordWriteError: A file cannot be written.
    """
    written = {**outputs, VERIFIER: verifier_script()}
    if signer is not None:
        written |= _signed(run_dir, written, signer)
    for name, data in written.items():
        write_atomic(run_dir / name, data)
    manifest = add_outputs(run_dir, sorted(written))
    if signer is not None:
        sign_manifest(run_dir, signer)
    return manifest


def _signed(run_dir: Path, outputs: Mapping[str, bytes], signer: RunSigner) -> dict[str, bytes]:
    signed: dict[str, bytes] = {}
    if signer.certificate is not None and "report.pdf" in outputs:
        signed[SIGNED_PDF] = certify_pdf(outputs["report.pdf"], signer)
    digests = {name: sha256_bytes(data) for name, data in {**outputs, **signed}.items()}
    identity = RunIdentity.model_validate_json((run_dir / "run.json").read_bytes())
    return signed | attestations(read_manifest(run_dir), digests, identity.command, signer)
