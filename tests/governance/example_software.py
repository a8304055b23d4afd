"""What the example run says of its software: made up, like all of it."""

from datetime import UTC, datetime

from governance.evidence.store import EvidenceStore
from governance.records.files import sha256_bytes
from governance.records.run import Package
from governance.records.software import (
    BillOfMaterials,
    MalformedInput,
    SuiteReport,
    Vulnerability,
    VulnerabilityScan,
)
from governance.records.training import RepeatRecord

WHEN = datetime(2026, 3, 4, 9, 0, 0, tzinfo=UTC)
DIGEST = sha256_bytes(b"some file")


def write_software(store: EvidenceStore, odd: str) -> None:
    """Bill of materials, scan and test result; odd text goes where a file's text would."""
    sha256 = store.write_bytes("sbom.cdx.json", b"{}").sha256
    materials = BillOfMaterials(
        path="sbom.cdx.json",
        sha256=sha256,
        spec_version="1.6",
        serial_number="urn:uuid:0",
        n_packages=41,
        n_without_licence=3,
        n_pretrained=1,
    )
    store.write_document(materials)
    store.write_document(_scan(odd))
    store.write_document(_tests())


def _scan(odd: str) -> VulnerabilityScan:
    found = Vulnerability(
        package="package-01",
        version="1.1.0",
        id=f"PYSEC-2026-1 {odd}".strip(),
        aliases=("CVE-2026-0001",),
        fixed_in=("1.1.1",),
    )
    accepted = {"id": "PYSEC-2026-2", "severity": "high", "accepted": "the server is not started"}
    return VulnerabilityScan(
        file=f"scan {odd}.json",
        sha256=DIGEST,
        read_utc=WHEN,
        packages=tuple(Package(name=f"package-{n:02d}", version=f"1.{n}.0") for n in range(40)),
        skipped=(("torch", "not found on PyPI"),),
        vulnerabilities=(found, found.model_copy(update=accepted)),
    )


def _tests() -> SuiteReport:
    return SuiteReport(
        commit="0123456789abcdef0123456789abcdef01234567",
        clean=True,
        finished_utc=WHEN,
        duration_s=355.2,
        python="3.11.9",
        selection="not slow and not gpu",
        exit_status=0,
        n_passed=3120,
        n_failed=0,
        n_errors=0,
        n_skipped=14,
        n_deselected=31,
        malformed=(
            MalformedInput(kind="csv", n_passed=59, n_failed=0, n_skipped=0),
            MalformedInput(kind="png", n_passed=41, n_failed=0, n_skipped=1),
        ),
    )


def example_repeat() -> RepeatRecord:
    """Ten steps made twice, not equal bit by bit."""
    return RepeatRecord(
        stage="diffusion",
        step=10,
        sha256=DIGEST,
        repeated_sha256=sha256_bytes(b"another"),
        largest_difference=2.4e-7,
        largest_at="network.w",
        relative_difference=3.1e-8,
        tolerance=0.001,
        compute_device="cuda",
        duration_s=4.2,
    )
