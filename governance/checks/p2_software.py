"""Checks of principle 2: good software practice and security."""

from packaging.version import InvalidVersion, Version

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    OUR_TRAINING,
    check,
    counted,
    joined,
    judge,
    listed,
    not_evaluated,
)
from governance.records.base import ItemStatus
from governance.records.content import ContentScan
from governance.records.dataset import BoundaryChecks, ValidationRecord
from governance.records.errors import NotRunError
from governance.records.evaluation import EvaluationRecord
from governance.records.item import CheckResult, Observed
from governance.records.policy import Criterion
from governance.records.run import Environment, IntegrityRecord, Outcome, RunIdentity
from governance.records.software import (
    BillOfMaterials,
    SuiteReport,
    Vulnerability,
    VulnerabilityScan,
)
from governance.records.training import RepeatRecord, TrainingRecord

_FRAMEWORK = "medisynth-gov"
_MALFORMED = ("csv", "png", "config", "checkpoint")  # kinds that P2-10 names
_OWN_WORD = "The result is a file of this machine, written by the tests themselves and not signed."
_COUNTING = ("", "high", "critical")  # "" is unknown severity, which may be the worst
ENGINES = ("great_expectations", "pandera")
IDENTIFYING = ("name", "date", "number")


@check("P2-01", step="start")
def code_identity(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the framework's commit is known and its tree had no uncommitted change."""
    run = documents.need(RunIdentity)
    if run.code_commit is None or run.code_clean is None:
        return not_evaluated(
            f"the commit or the state of the tree is unknown: {run.why_no_commit}",
            source=RunIdentity,
        )
    state = "clean" if run.code_clean else "has uncommitted changes"
    return judge(
        criterion,
        Observed(value=run.code_clean),
        reason=f"commit {run.code_commit[:12]}, tree {state}",
        method="commit and state of the git tree, read at the start of the run",
        source=RunIdentity,
    )


@check("P2-02", step="start")
def locked_environment(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count installed distributions whose version differs from the lock file."""
    environment = documents.need(Environment)
    if environment.lock_file is None:
        return not_evaluated("no lock file was found to compare with", source=Environment)
    differences = environment.lock_differences
    n_packages = counted(len(environment.packages), "installed package")
    return judge(
        criterion,
        Observed(value=len(differences)),
        reason=listed(differences) or f"all versions match {environment.lock_file}",
        method=f"{n_packages} compared with {environment.lock_file}",
        source=Environment,
        limitations="Python, operating system, driver and GPU are recorded, not locked.",
    )


@check("P2-03", step="start")
def bill_of_materials(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the bill of materials parses and lists every installed distribution."""
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
def known_vulnerabilities(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count known vulnerabilities of the installed packages, from the scan that was supplied."""
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
    """List packages whose installed and scanned versions differ, except the framework itself."""
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
    """Return the public part of a version, so that 2.0 equals 2 and 2.0+cpu."""
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
def tests_of_the_commit(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the test suite passed on the framework commit of this run."""
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


def _tests(documents: JudgedRun) -> SuiteReport:
    """Return the test result of this run's commit; raise NotRunError where there is none."""
    run = documents.need(RunIdentity)
    if run.code_commit is None or run.code_clean is None:
        raise NotRunError(f"the commit is unknown: {run.why_no_commit}")
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


@check("P2-06", step="s5_train", needs=OUR_TRAINING)
def repeated_segment(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that repeating the first training steps with the same seed gives the same state."""
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


@check("P2-07", step="s7_evidence")
def files_intact(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count files whose digest differs from the one recorded when they were written."""
    integrity = documents.need(IntegrityRecord)
    if integrity.n_files == 0:
        return not_evaluated("no file has a digest on record", source=IntegrityRecord)
    method = f"{counted(integrity.n_files, 'file')} read again at the end and compared"
    if integrity.unregistered and not integrity.mismatches:
        return not_evaluated(
            f"{counted(len(integrity.unregistered), 'file')} of the run folder have no digest on "
            f"record to compare with: {listed(integrity.unregistered)}",
            method=method,
            source=IntegrityRecord,
        )
    return judge(
        criterion,
        Observed(value=len(integrity.mismatches)),
        reason=(
            f"changed or gone since they were written: {listed(integrity.mismatches)}"
            if integrity.mismatches
            else "every file is as it was written"
        ),
        method=method,
        source=IntegrityRecord,
        limitations="Card, reports and manifest are written after this check; "
        "`medisynth-gov verify` covers them.",
    )


@check("P2-08", step="s7_evidence")
def event_log_intact(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count the breaks in the event log's chain of digests."""
    integrity = documents.need(IntegrityRecord)
    if integrity.journal_events == 0:
        return not_evaluated("the event log is empty", source=IntegrityRecord)
    return judge(
        criterion,
        Observed(value=len(integrity.journal_faults)),
        reason=listed(integrity.journal_faults)
        or f"{counted(integrity.journal_events, 'event')}, each carries the digest of the one before",
        method="every event's digest recomputed, and its link to the event before",
        source=IntegrityRecord,
        limitations="Somebody who owns the machine can rewrite a whole chain unless its head is "
        "held elsewhere.",
    )


@check("P2-09", step="s6_evaluate")
def pinned_weights(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that pretrained weights, in training and metrics, have hash, source and licence."""
    training, evaluation = documents.need(TrainingRecord), documents.need(EvaluationRecord)
    components = (*training.pretrained, *evaluation.pretrained)
    described = {component.sha256 for component in components}
    extractors = {
        metric.extractor: metric.extractor_sha256
        for metric in evaluation.metrics
        if metric.status is ItemStatus.RECORDED and metric.extractor
    }
    unpinned = [c.name for c in components if not (c.source.strip() and c.licence.strip())]
    unpinned += [name for name, sha256 in extractors.items() if not sha256]
    undescribed = [
        name for name, sha256 in extractors.items() if sha256 and sha256 not in described
    ]
    method = "hash, source and licence of every component on record"
    if undescribed and not unpinned:
        return not_evaluated(
            f"pinned by hash, but source and licence are not on record: {listed(undescribed)}",
            method=method,
            source=EvaluationRecord,
        )
    n = len(described | set(extractors.values()))
    return judge(
        criterion,
        Observed(value=len(unpinned)),
        reason=(
            f"hash, source or licence is missing: {listed(unpinned)}"
            if unpinned
            else f"{counted(n, 'component')} made by others, each pinned"
        ),
        method=method,
        source=EvaluationRecord,
        limitations="That weights are loaded without running code is kept by the source code, "
        "not observed in the run.",
    )


@check("P2-10", step="start")
def malformed_input(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count failed tests of malformed tables, images, configurations and checkpoints."""
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


@check("P2-12", step="s2_validate")
def data_validation(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count broken critical data rules, in both engines and at every recorded step boundary."""
    validation = documents.need(ValidationRecord)
    critical = [rule for rule in validation.rules if rule.severity == "critical"]
    names = sorted({rule.rule for rule in critical})
    broken = [
        f"{rule.rule} ({rule.engine}, {rule.n_unexpected:,} rows)"
        for rule in critical
        if not rule.passed
    ]
    boundaries = documents.get(BoundaryChecks)
    at_boundary = [
        f"{rule} ({boundary.boundary})"
        for boundary in (boundaries.checks if boundaries else ())
        for rule in boundary.failed
    ]
    failed = [*broken, *at_boundary]
    method = (
        f"{counted(len(names), 'critical rule')} over {counted(validation.n_rows, 'row')}, by "
        "pandera and Great Expectations from one contract; again at the step boundaries"
    )
    if not failed:
        doubts = [*_engine_doubts(validation), *_boundary_doubts(documents.need(BoundaryChecks))]
        if doubts:
            return not_evaluated("; ".join(doubts), method=method, source=ValidationRecord)
    judged = {rule.rule for rule in critical if rule.n_evaluated}
    vacuous = [name for name in names if name not in judged]
    return judge(
        criterion,
        Observed(value=len(failed), n_images=validation.n_rows),
        reason=f"failed: {listed(failed)}"
        if failed
        else "no critical rule failed in either engine or at a step boundary",
        method=method,
        source=ValidationRecord if broken or not at_boundary else BoundaryChecks,
        limitations=f"Nothing to judge in this data: {listed(vacuous)}." if vacuous else "",
    )


def _engine_doubts(validation: ValidationRecord) -> list[str]:
    """List why a validation without a failed rule proves nothing; empty if it proves enough."""
    judged_by = {
        engine: {
            rule.rule
            for rule in validation.rules
            if rule.engine == engine and rule.severity == "critical" and rule.n_evaluated
        }
        for engine in ENGINES
    }
    idle = [engine for engine, judged in judged_by.items() if not judged]
    one_sided = sorted(set.symmetric_difference(*judged_by.values()))
    doubts = ["there was no row to validate"] if validation.n_rows == 0 else []
    doubts += [f"no critical rule was judged by {listed(idle)}"] if idle else []
    return doubts + ([f"judged by one engine only: {listed(one_sided)}"] if one_sided else [])


def _boundary_doubts(record: BoundaryChecks) -> list[str]:
    empty = [b.boundary for b in record.checks if not b.n_rows or not b.n_rules]
    if not record.checks:
        return ["no step boundary was checked"]
    return [f"no row or no rule at a step boundary: {listed(empty)}"] if empty else []


@check("P2-13", step="s3_audit")
def identifier_scan(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count columns and images that hold something identifying and were not reviewed.

    Metadata in an image file counts unless it is known to be harmless. A name, a date or a number
    counts; a time of day alone identifies nobody and does not.
    """
    scan = documents.need(ContentScan)
    columns = [c.column for c in scan.columns if not _is_reviewed(c.column, scan)]
    images, n_unlisted = _marked_images(scan)
    n = len(columns) + len(images) + n_unlisted + scan.n_images_with_metadata
    observed = Observed(value=n, n_images=scan.n_images)
    method = (
        f"{scan.engine} on {scan.n_scanned:,} of {counted(scan.n_images, 'image')} and "
        f"{counted(scan.n_columns, 'column')}; a name, date or number counts, a time of day does not"
    )
    limits = joined(
        scan.limitations,
        f"Reviewed by a person: {listed(scan.reviewed)}." if scan.reviewed else "",
    )
    doubt = _scan_doubt(scan)
    if doubt and not n:
        return not_evaluated(doubt, method=method, source=ContentScan, limitations=limits)
    words = [f"columns {listed(columns)}"] if columns else []
    words += [f"burned in, images {listed(images)}"] if images else []
    words += [f"{counted(n_unlisted, 'further image')} not named in the record"] * bool(n_unlisted)
    words += [
        f"in image files: {kind.kind} of {counted(kind.n_images, 'image')} "
        f"({listed(kind.image_ids)})"
        for kind in scan.file_metadata
    ]
    return judge(
        criterion,
        observed,
        reason=f"not reviewed: {'; '.join(words)}"
        if n
        else f"nothing identifying in columns; {_overlays(scan)}",
        method=method,
        source=ContentScan,
        limitations=limits,
    )


def _overlays(scan: ContentScan) -> str:
    if not scan.n_with_overlay:
        return "no overlay was found in any image"
    return f"{counted(scan.n_with_overlay, 'image')} with a burned-in overlay, all read"


def _is_reviewed(name: str, scan: ContentScan) -> bool:
    return any(entry == name or entry.startswith(f"{name}:") for entry in scan.reviewed)


def _scan_doubt(scan: ContentScan) -> str:
    """Return why finding nothing proves nothing; empty when everything was looked at."""
    if not scan.n_images or not scan.n_columns:
        return "there was no image or no column to scan"
    if scan.n_with_overlay and not scan.reads_text:
        return (
            f"{counted(scan.n_with_overlay, 'image')} with a burned-in overlay, and {scan.engine} "
            "does not read text; install tesseract"
        )
    # The images read are drawn at random: those with an overlay may not be among them.
    if scan.n_with_overlay and scan.n_scanned < scan.n_images:
        return (
            f"{scan.n_scanned:,} of {scan.n_images:,} images were read and {scan.n_with_overlay:,} "
            "carry a burned-in overlay; set audit.n_text_images=all to read them all"
        )
    return ""


def _marked_images(scan: ContentScan) -> tuple[list[str], int]:
    """Return images with unreviewed identifying marks, and how many more are only counted."""
    listed_images = {mark.image_id for mark in scan.marks}
    identifying = {mark.image_id for mark in scan.marks if mark.kind in IDENTIFYING}
    open_images = sorted(name for name in identifying if not _is_reviewed(name, scan))
    return open_images, max(scan.n_images_with_marks - len(listed_images), 0)


@check("P2-14", step="s7_evidence")
def compute(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Record the duration of the run and the machine it ran on."""
    outcome, environment = documents.need(Outcome), documents.need(Environment)
    n = counted(environment.cpu_count, "processor")
    return judge(
        criterion,
        Observed(value=outcome.duration_s),
        reason=f"{outcome.duration_s:.0f} s on {n}, compute device {environment.compute_device}",
        method="wall clock from the first step to the last",
        source=Outcome,
        limitations="Energy is not estimated.",
    )
