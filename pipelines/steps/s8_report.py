"""s8 report: writes card, reports, verifier and statements; signs and time-stamps the manifest."""

from collections.abc import Mapping
from pathlib import Path

from governance.evidence import verify_run as independent_verifier
from governance.evidence.folder import RunFolder
from governance.evidence.manifest import SIGNED_PDF, VERIFIER, add_outputs
from governance.records.files import sha256_bytes, write_together
from governance.records.manifest import Manifest
from governance.reports.audit_report import PDF, drawn_outputs
from governance.signing.keys import RunSigner, sign_manifest
from governance.signing.pdf import certify_pdf
from governance.signing.statements import attestations
from pipelines.current_run.context import RunContext
from pipelines.current_run.keys import stamp_at_end


def verifier_script() -> bytes:
    """Return the independent verifier, which is written into every run and needs no package."""
    return Path(independent_verifier.__file__).read_bytes()


def write_outputs(
    run_dir: Path, outputs: Mapping[str, bytes], signer: RunSigner | None = None
) -> Manifest:
    """Write the outputs, list them in the manifest, and sign if there is a key.

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
    write_together({run_dir / name: data for name, data in written.items()})
    manifest = add_outputs(run_dir, sorted(written))
    if signer is not None:
        sign_manifest(run_dir, signer)
    return manifest


def _signed(run_dir: Path, outputs: Mapping[str, bytes], signer: RunSigner) -> dict[str, bytes]:
    signed: dict[str, bytes] = {}
    if signer.certificate is not None and PDF in outputs:
        signed[SIGNED_PDF] = certify_pdf(outputs[PDF], signer)
    digests = {name: sha256_bytes(data) for name, data in {**outputs, **signed}.items()}
    folder = RunFolder.closed(run_dir)
    return signed | attestations(folder.manifest, digests, folder.identity.command, signer)


def run(context: RunContext) -> Manifest:
    """Write card, reports and verifier, sign, and get a time-stamp if one is configured."""
    run_dir, config = context.store.run_dir, context.config
    context.console.say("writing card and reports")
    manifest = write_report(run_dir, context.signer)
    stamp_at_end(run_dir, config.signing, context.console.warn)
    return manifest


def write_report(run_dir: Path, signer: RunSigner | None = None) -> Manifest:
    """Write card, reports and verifier into the run folder, list them, then sign.

    The same evidence always gives the same bytes.
    """
    return write_outputs(run_dir, drawn_outputs(run_dir), signer)
