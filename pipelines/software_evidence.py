"""What a run writes down about its software: at its start what is known, at its end what it was."""

from collections.abc import Callable

from governance.audits.run_documents import Documents
from governance.evidence.documents import RunIdentity
from governance.evidence.store import EvidenceStore
from pipelines.bill_of_materials import write_bill_of_materials
from pipelines.identity import TEST_REPORTS, environment, installed_packages
from pipelines.suite_report import DOCUMENT as SUITE_REPORT
from pipelines.suite_report import find_suite_report
from pipelines.vulnerability_scan import ReadScan


def write_known(
    identity: RunIdentity,
    scan: ReadScan | None,
    store: EvidenceStore,
    warn: Callable[[str], None],
) -> None:
    """Put on record what others found out before: a scan that was given, tests of the commit."""
    if scan is not None:
        scan.put_on_record(store)
    if tests := find_suite_report(identity.code_commit, TEST_REPORTS, warn):
        store.write_document(SUITE_REPORT, tests)


def write_used(store: EvidenceStore) -> None:
    """Put on record what the run ran on, and the bill of materials of it."""
    documents, installed = Documents.load(store.run_dir), installed_packages()
    training = documents.training
    device = training.compute_device if training else "none: nothing was trained"
    store.write_document("environment.json", environment(device, installed))
    parts = (training, documents.evaluation)
    pretrained = [component for part in parts if part for component in part.pretrained]
    write_bill_of_materials(documents.need(RunIdentity), installed, pretrained, store)
