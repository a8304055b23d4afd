"""Checks on the software of a run: bill of materials, known vulnerabilities."""

from packaging.version import InvalidVersion, Version

from governance.audits.checks import Documents, check, counted, judge, listed, not_evaluated
from governance.evidence.documents import (
    BillOfMaterials,
    Environment,
    Vulnerability,
    VulnerabilityScan,
)
from governance.evidence.record import CheckResult, Observed
from governance.policies.model import Criterion

_FRAMEWORK = "medisynth-gov"
_COUNTING = ("", "high", "critical")  # of unknown severity: it may be the worst


@check("P2-03", step="start")
def bill_of_materials(documents: Documents, criterion: Criterion) -> CheckResult:
    """The bill of materials can be read again and lists what is installed."""
    materials = documents.need(BillOfMaterials)
    packages = counted(materials.n_packages, "package")
    weights = counted(materials.n_pretrained, "set of weights", "sets of weights")
    return judge(
        criterion,
        Observed(value=not materials.faults),
        reason=listed(materials.faults)
        or f"CycloneDX {materials.spec_version}, {packages}, {weights} made by others",
        method=f"{materials.path} parsed by the CycloneDX schema and compared with what is "
        "installed, the framework's commit and the weights used",
        source=BillOfMaterials,
        limitations="Packages of Python alone: the operating system and what libraries bring along "
        f"are not listed. Licences are those that packages declare; {materials.n_without_licence} "
        "declare none.",
    )


@check("P2-04", step="start")
def known_vulnerabilities(documents: Documents, criterion: Criterion) -> CheckResult:
    """Known vulnerabilities of the installed packages, by a scan that was supplied."""
    scan, environment = documents.need(VulnerabilityScan), documents.need(Environment)
    differences = _other_packages(scan, environment)
    method = f"{scan.file}, sha256 {scan.sha256[:12]}, made elsewhere; its packages compared with "
    method += "those installed. One without a severity counts as high."
    if differences:
        words = f"the scan is of other packages than are installed: {listed(differences)}"
        return not_evaluated(words, method=method, source=VulnerabilityScan)
    counting = [v for v in scan.vulnerabilities if v.severity in _COUNTING and not v.accepted]
    skipped = [name for name, _ in scan.skipped if name != _FRAMEWORK]
    if skipped and not counting:
        words = f"none found, but the scan passed over {listed(skipped)}"
        return not_evaluated(words, method=method, source=VulnerabilityScan)
    return judge(
        criterion,
        Observed(value=len(counting)),
        reason=listed([_vulnerability(v) for v in counting]) or _none_counts(scan),
        method=method,
        source=VulnerabilityScan,
        limitations="The file does not say when it was made, nor with which database; what became "
        "known since is not in it.",
    )


def _other_packages(scan: VulnerabilityScan, environment: Environment) -> list[str]:
    """Packages that are installed or scanned in one version only, without the framework."""
    scanned = {package.name: package.version for package in scan.packages}
    installed = {package.name: package.version for package in environment.packages}
    passed_over = {name for name, _ in scan.skipped if name in installed}
    faults = []
    for name in sorted({*scanned, *installed} - {_FRAMEWORK} - passed_over):
        there, here = scanned.get(name), installed.get(name)
        if _comparable(there) != _comparable(here):
            faults.append(f"{name} {there or 'not'} scanned, {here or 'not'} installed")
    return faults


def _comparable(version: str | None) -> Version | str | None:
    """A version without what a builder added, so that 2.0 equals 2 and 2.0+cpu."""
    try:
        return Version(Version(version).public) if version else None
    except InvalidVersion:
        return version


def _vulnerability(found: Vulnerability) -> str:
    severity = found.severity or "no severity given"
    fix = f", fixed in {' or '.join(found.fixed_in)}" if found.fixed_in else ""
    return f"{found.package} {found.version} {found.id} ({severity}{fix})"


def _none_counts(scan: VulnerabilityScan) -> str:
    n_accepted = sum(1 for found in scan.vulnerabilities if found.accepted)
    lesser = len(scan.vulnerabilities) - n_accepted
    words = f"{counted(len(scan.packages), 'package')} scanned, no high or critical one"
    if n_accepted:
        reasons = [f"{v.id} ({v.accepted})" for v in scan.vulnerabilities if v.accepted]
        words += f"; {n_accepted} accepted by a person: {listed(reasons)}"
    return f"{words}; {lesser} of low or medium severity" if lesser else words
