"""Documents about the software of a run: what it is made of, and what is known of it."""

from pydantic import AwareDatetime

from governance.evidence.documents.base import Document, Sha256
from governance.evidence.documents.run import Package


class BillOfMaterials(Document):
    """The software bill of materials as it was read back (software/bill_of_materials.json).

    Attributes:
        path: The file, CycloneDX JSON.
        sha256: Its digest.
        spec_version: Version of the CycloneDX specification that it names.
        serial_number: Its serial number, derived from the run id.
        n_packages: Installed packages that it lists, without the framework itself.
        n_without_licence: Those of them whose licence is not known.
        n_pretrained: Weights made by others that it lists.
        faults: What is wrong with it, in words; empty when nothing is.
    """

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
    """What somebody's scan for known vulnerabilities said (software/vulnerabilities.json).

    Attributes:
        file: File it was read from, as the configuration names it.
        sha256: Its digest; its bytes are in software/vulnerability_scan.json of the run folder.
        read_utc: When it was read.
        packages: Packages that were scanned, sorted by name.
        skipped: Packages that the scan passed over, and why.
        vulnerabilities: What was found in them.
    """

    file: str
    sha256: Sha256
    read_utc: AwareDatetime
    packages: tuple[Package, ...]
    skipped: tuple[tuple[str, str], ...]
    vulnerabilities: tuple[Vulnerability, ...]
