"""Checks on the software of a run: bill of materials, known vulnerabilities, tests, repeat."""

from packaging.version import InvalidVersion, Version

from governance.checks.registry import Documents, check, counted, judge, listed, not_evaluated
from governance.checks.run_documents import NotRunError
from governance.records.policy import Criterion
from governance.records.run import Environment, RunIdentity
from governance.records.software import (
    BillOfMaterials,
    SuiteReport,
    Vulnerability,
    VulnerabilityScan,
)
from governance.records.training import RepeatRecord
from governance.records.verdict import CheckResult, Observed

_FRAMEWORK = "medisynth-gov"
_MALFORMED = ("csv", "png", "config", "checkpoint")  # kinds that P2-10 names
_OWN_WORD = "The result is a file of this machine, written by the tests themselves and not signed."
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


@check("P2-05", step="start")
def tests_of_the_commit(documents: Documents, criterion: Criterion) -> CheckResult:
    """The test suite of the same framework commit was run and is green."""
    suite = _tests(documents)
    n_faults = suite.n_failed + suite.n_errors
    tally = (
        f"{suite.n_passed:,} passed, {suite.n_failed:,} failed, "
        f"{counted(suite.n_errors, 'error')}, {suite.n_skipped:,} skipped, "
        f"{suite.n_deselected:,} left out"
    )
    if suite.exit_status and not n_faults:
        tally += f"; the tests ended with exit status {suite.exit_status}"
    return judge(
        criterion,
        Observed(value=not suite.exit_status and not n_faults),
        reason=f"commit {suite.commit[:12]}: {tally}",
        method=f"result of the test suite ({suite.selection or 'all tests'}), "
        f"{suite.finished_utc:%Y-%m-%d %H:%M} UTC, Python {suite.python}",
        source=SuiteReport,
        limitations=_OWN_WORD,
    )


@check("P2-10", step="start")
def malformed_input(documents: Documents, criterion: Criterion) -> CheckResult:
    """Malformed tables, images, configurations and checkpoints are each refused cleanly."""
    suite = _tests(documents)
    failed = [f"{m.kind} ({m.n_failed})" for m in suite.malformed if m.n_failed]
    tried = {m.kind for m in suite.malformed if m.n_passed or m.n_failed}
    untried = [kind for kind in _MALFORMED if kind not in tried]
    method = "tests of the same commit that feed malformed input, counted by kind"
    if untried and not failed:
        words = f"no test of malformed input was run for: {listed(untried)}"
        return not_evaluated(words, method=method, source=SuiteReport)
    return judge(
        criterion,
        Observed(value=sum(m.n_failed for m in suite.malformed)),
        reason=f"not refused as they should be: {listed(failed)}"
        if failed
        else "all refused: " + ", ".join(f"{m.n_passed} {m.kind}" for m in suite.malformed),
        method=method,
        source=SuiteReport,
        limitations=f"Malformed in the ways that the tests know. {_OWN_WORD}",
    )


def _tests(documents: Documents) -> SuiteReport:
    """Test result that says something of this run's code; NotRunError where none does."""
    run = documents.need(RunIdentity)
    if run.code_commit is None or run.code_clean is None:
        raise NotRunError("the commit is unknown: not run from a git checkout")
    if not run.code_clean:
        raise NotRunError(
            "the tree of this run has uncommitted changes, so tests of its commit say nothing of it"
        )
    suite = documents.need(SuiteReport)
    if suite.commit != run.code_commit:
        raise NotRunError(f"the test result is of another commit, {suite.commit[:12]}")
    if not suite.clean:
        raise NotRunError("the tests ran on a tree with uncommitted changes; run make test again")
    if not suite.n_passed + suite.n_failed + suite.n_errors:
        raise NotRunError("no test was run")
    return suite


@check("P2-06", step="s5_train")
def repeated_segment(documents: Documents, criterion: Criterion) -> CheckResult:
    """The first steps of training, made again with the same seed, lead to the same state."""
    repeat = documents.need(RepeatRecord)
    if repeat.problem or repeat.sha256 is None or repeat.repeated_sha256 is None:
        reason = repeat.problem or "the two states are not on record"
        return not_evaluated(reason, source=RepeatRecord)
    steps = f"{counted(repeat.step, 'step')} of {repeat.stage} on {repeat.compute_device}"
    apart = repeat.relative_difference
    within = apart is not None and apart <= repeat.tolerance
    return judge(
        criterion,
        Observed(value=repeat.is_equal or within),
        reason=f"{steps}: {'equal bit by bit' if repeat.is_equal else _apart(repeat)}",
        method="a second confined process trained from the start with the same seed; weights, "
        "averages and optimisers of both compared by digest, and where that differs by the norm "
        "of their difference relative to the state, networks and optimisers each by itself "
        f"(tolerance {repeat.tolerance:g})",
        source=RepeatRecord,
        limitations="The first steps only, on the same machine.",
    )


def _apart(repeat: RepeatRecord) -> str:
    if repeat.relative_difference is None or repeat.largest_difference is None:
        return "the states differ and cannot be compared number by number"
    return (
        f"not equal bit by bit: relative difference {repeat.relative_difference:.2g}, largest "
        f"{repeat.largest_difference:.2g} in {repeat.largest_at}"
    )
