"""Documents on the software of a run: bill of materials, vulnerabilities, test results."""

from pydantic import AwareDatetime

from governance.records.base import Document, Sha256
from governance.records.run import Package


class BillOfMaterials(Document):
    """The bill of materials as read back from its file (software/bill_of_materials.json).

    Attributes:
        path: The file, CycloneDX JSON.
        sha256: Its digest.
        spec_version: Version of the CycloneDX specification that it names.
        serial_number: Its serial number, derived from the run id.
        n_packages: Installed packages that it lists, without the framework itself.
        n_without_licence: Those of them whose licence is not known.
        n_pretrained: Weights made by others that it lists.
        faults: Faults of the file, one sentence each; empty when there is none.
    """

    PATH = "software/bill_of_materials.json"
    ABSENCE = "no bill of materials was written"

    path: str
    sha256: Sha256
    spec_version: str
    serial_number: str
    n_packages: int
    n_without_licence: int
    n_pretrained: int
    faults: tuple[str, ...] = ()


class Vulnerability(Document):
    """One known vulnerability of one package.

    Attributes:
        package: Package.
        version: Version that was scanned.
        id: Its name in the database, e.g. "PYSEC-2019-179".
        aliases: Other names of it.
        severity: "low", "medium", "high" or "critical"; "" where the scan gives none.
        fixed_in: Versions that do not have it.
        accepted: Why a person accepts it; "" when nobody does.
    """

    package: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()
    severity: str = ""
    fixed_in: tuple[str, ...] = ()
    accepted: str = ""


class VulnerabilityScan(Document):
    """The supplied scan for known vulnerabilities (software/vulnerabilities.json).

    Attributes:
        file: File it was read from, as the configuration names it.
        sha256: Its digest; its bytes are in software/vulnerability_scan.json of the run folder.
        read_utc: When it was read.
        packages: Packages that were scanned, sorted by name.
        skipped: Packages that the scan passed over, and why.
        vulnerabilities: Vulnerabilities found in them.
    """

    PATH = "software/vulnerabilities.json"
    ABSENCE = (
        "no result of a scan for known vulnerabilities was given, and there is no database of "
        "them to scan with; name a file by evidence.vulnerability_scan"
    )

    file: str
    sha256: Sha256
    read_utc: AwareDatetime
    packages: tuple[Package, ...]
    skipped: tuple[tuple[str, str], ...]
    vulnerabilities: tuple[Vulnerability, ...]


class MalformedInput(Document):
    """Results of the tests that feed malformed input of one kind, e.g. "csv"."""

    kind: str
    n_passed: int
    n_failed: int
    n_skipped: int


class SuiteReport(Document):
    """Result of one run of the framework's test suite (software/tests.json).

    Attributes:
        commit: Commit that was tested.
        clean: Whether the tree had no uncommitted change, before the tests and after them.
        finished_utc: When the tests ended.
        duration_s: How long they took.
        python: Version of Python.
        selection: Expression of markers that chose the tests; "" for all.
        exit_status: Exit status of pytest; 0 is green.
        n_passed: Tests that passed.
        n_failed: Tests that failed.
        n_errors: Faults outside a test: in set-up, clearing up or collecting.
        n_skipped: Tests that skipped themselves or failed as expected.
        n_deselected: Tests that the selection left out.
        malformed: Those among them that feed malformed input, by kind.
        junit_sha256: Digest of the list of all tests (JUnit XML); None when none was written.
    """

    PATH = "software/tests.json"
    ABSENCE = "no test result of this commit is on this machine; run make test on this commit first"

    commit: str
    clean: bool
    finished_utc: AwareDatetime
    duration_s: float
    python: str
    selection: str
    exit_status: int
    n_passed: int
    n_failed: int
    n_errors: int
    n_skipped: int
    n_deselected: int
    malformed: tuple[MalformedInput, ...]
    junit_sha256: Sha256 | None = None
