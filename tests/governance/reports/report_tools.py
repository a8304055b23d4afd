"""Reading PDF files and rendering in other processes, for the tests of reports."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_RENDER = """
import hashlib, sys
from pathlib import Path
from governance.reports.audit_report import write_audit_report
from governance.reports.evidence import load_evidence
from governance.reports.audit_report import write_html
from governance.reports.card.write import write_model_card
evidence = load_evidence(Path(sys.argv[1]))
parts = (*write_model_card(evidence), write_audit_report(evidence), write_html(evidence))
print(*(hashlib.sha256(part).hexdigest() for part in parts))
"""


def digests_in_another_process(run_dir: Path, **environment: str) -> list[str]:
    """SHA-256 of card (md, json), PDF and HTML as another process writes them."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _RENDER, str(run_dir)],
        env=os.environ | environment,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.split()


def pdf_text(data: bytes, folder: Path, last_page: int = 0) -> str:
    """Text of a PDF, blanks of any kind as one blank; skips where pdftotext is missing."""
    options = ["-layout", *(["-l", str(last_page)] if last_page else [])]
    return re.sub(r"\s+", " ", _pdftotext(data, folder, options))


def pdf_words(data: bytes, folder: Path) -> list[tuple[float, float, float, float, str]]:
    """Left, top, right, bottom in points and text of every word."""
    word = re.compile(r'<word xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax="(.*?)">(.*?)</word>')
    found = word.findall(_pdftotext(data, folder, ["-bbox"]))
    return [(float(a), float(b), float(c), float(d), text) for a, b, c, d, text in found]


def _pdftotext(data: bytes, folder: Path, options: list[str]) -> str:
    tool = shutil.which("pdftotext")
    if tool is None:
        pytest.skip("pdftotext (poppler) is not installed")
    path = folder / "report.pdf"
    path.write_bytes(data)
    command = [tool, *options, str(path), "-"]
    done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603
    return done.stdout.decode()
