"""s8 report: model card and audit report, from the manifest alone."""

from pathlib import Path

from governance.evidence.documents import Manifest
from governance.evidence.manifest import add_outputs
from governance.files import write_atomic
from governance.reports.audit_report import write_audit_report
from governance.reports.evidence import load_evidence
from governance.reports.html import write_html
from governance.reports.model_card import write_model_card


def run(run_dir: Path) -> Manifest:
    """Write card and reports into the run folder and enter them into the manifest.

    The same evidence gives the same bytes, whenever and wherever it is rendered.
    """
    outputs = render(run_dir)
    for name, data in outputs.items():
        write_atomic(run_dir / name, data)
    return add_outputs(run_dir, sorted(outputs))


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
