"""s8 report: model card and audit report, from the manifest alone."""

from pathlib import Path

from governance.evidence.documents import Manifest
from governance.evidence.outputs import write_outputs
from governance.evidence.signing import RunSigner
from governance.reports.audit_report import write_audit_report
from governance.reports.evidence import load_evidence
from governance.reports.html import write_html
from governance.reports.model_card import write_model_card


def run(run_dir: Path, signer: RunSigner | None = None) -> Manifest:
    """Write card, reports and verifier into the run folder, list them, and sign last of all.

    The same evidence gives the same bytes, whenever and wherever it is rendered.
    """
    return write_outputs(run_dir, render(run_dir), signer)


def render(run_dir: Path) -> dict[str, bytes]:
    """Card and reports as bytes, by file name.

    Raises:
        EvidenceTamperedError: A file is not the one in the manifest.
    """
    evidence = load_evidence(run_dir)
    card_md, card_json = write_model_card(evidence)
    return {
        "model_card.md": card_md,
        "model_card.json": card_json,
        "report.pdf": write_audit_report(evidence),
        "report.html": write_html(evidence),
    }
