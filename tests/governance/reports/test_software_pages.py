from dataclasses import replace
from pathlib import Path

import pytest

from governance.evidence.folder import RunFolder
from governance.reports.audit_report import write_html
from governance.reports.evidence import load_evidence
from governance.reports.sections.software import repeat_block, software_blocks, trace_sentence
from tests.stored_run.stored import Variant, write_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run_dir: Path = write_run(tmp_path_factory.mktemp("software"), Variant())
    return write_html(load_evidence(run_dir)).decode()


@pytest.mark.parametrize(
    "words",
    [
        "the framework, 41 packages, 1 set of weights made by others",
        "40 packages scanned, 2 vulnerabilities known",
        "accepted: the server is not started",
        "14 skipped, 31 left out",
        "csv 59 of 59, png 41 of 41",
        "10 steps of diffusion",
        "3.1e-08 (tolerance 0.001)",
    ],
)
def test_the_report_says_what_is_known_of_the_software(page, words):
    assert words in page


def test_what_a_run_does_not_have_is_said_in_words(tmp_path):
    run_dir = write_run(tmp_path, Variant())
    evidence = load_evidence(run_dir)
    nothing = replace(evidence, documents=RunFolder.of(evidence.run))
    texts = " ".join(str(block) for block in software_blocks(nothing))

    assert "No bill of materials was written" in texts
    assert "no result of a scan made elsewhere was given" in texts
    assert "No test result of the framework's commit was found" in texts
    assert "the training step did not run to its end" in str(repeat_block(None))
    assert trace_sentence(None) == "Links from principles to evidence were not followed."
