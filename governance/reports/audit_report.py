"""Card and audit report of a run as files, and the digest of the code that draws them."""

import platform
import zlib
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import governance
from governance.reports.card.write import write_model_card
from governance.reports.draw.html import html_page
from governance.reports.draw.pdf import pdf_file
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.reports.sections.order import build_report

CARD_TEXT, CARD, PDF, PAGE = "model_card.md", "model_card.json", "report.pdf", "report.html"
# Libraries whose versions can change the bytes; matplotlib brings the fonts.
_LIBRARIES = ("jinja2", "markupsafe", "matplotlib", "pillow", "pydantic", "reportlab")
_SOURCES = frozenset({".py", ".j2", ".css"})


def drawn_outputs(run_dir: Path) -> dict[str, bytes]:
    """Return card and reports of a run whose evidence is closed, by file name.

    The same evidence always gives the same bytes, as long as `renderer` gives the same digest.

    Raises:
        EvidenceTamperedError: A file is not the one in the manifest.
        EvidenceError: A listed file is missing, unreadable or does not fit its kind.
    """
    evidence = load_evidence(run_dir)
    text, data = write_model_card(evidence)
    return {
        CARD_TEXT: text,
        CARD: data,
        PDF: write_audit_report(evidence),
        PAGE: write_html(evidence),
    }


def drawn_card(run_dir: Path) -> bytes:
    """Return the JSON file of a run's card alone; raises as `drawn_outputs` does."""
    return write_model_card(load_evidence(run_dir))[1]


@cache
def renderer() -> str:
    """Return the SHA-256 of all that decides the bytes of card and reports beside the evidence.

    That is the source of this package, and the versions of Python, zlib and the libraries used.
    """
    root = Path(governance.__file__).parent
    digest = sha256(f"python {platform.python_version()} zlib {zlib.ZLIB_RUNTIME_VERSION}".encode())
    for name in _LIBRARIES:
        digest.update(f"\n{name} {version(name)}".encode())
    for path in sorted(root.rglob("*")):
        if path.suffix in _SOURCES:
            inside = path.relative_to(root).as_posix()
            digest.update(f"\n{inside} {sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def write_audit_report(evidence: ReportEvidence) -> bytes:
    """Draw the audit report as a PDF file, A4; equal evidence gives equal bytes.

    Args:
        evidence: Evidence whose digests were checked.
    """
    return pdf_file(build_report(evidence))


def write_html(evidence: ReportEvidence) -> bytes:
    """Draw the audit report as a page in UTF-8; equal evidence gives equal bytes.

    Args:
        evidence: Evidence whose digests were checked.
    """
    return html_page(build_report(evidence))
