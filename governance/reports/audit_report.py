"""The audit report of a run as a PDF file and as a page."""

from governance.reports.draw.html import html_page
from governance.reports.draw.pdf import pdf_file
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.order import build_report


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
