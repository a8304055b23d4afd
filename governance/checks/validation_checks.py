"""Checks on rules and contents: data contract, step boundaries, identifiers."""

from governance.checks.registry import (
    Documents,
    check,
    counted,
    joined,
    judge,
    listed,
    not_evaluated,
)
from governance.records.audit import ContentScan
from governance.records.dataset import BoundaryChecks, ValidationRecord
from governance.records.policy import Criterion
from governance.records.verdict import CheckResult, Observed

ENGINES = ("great_expectations", "pandera")
IDENTIFYING = ("name", "date", "number")


@check("P2-12", step="s2_validate")
def data_validation(documents: Documents, criterion: Criterion) -> CheckResult:
    """No critical rule fails, in both engines and at every step boundary on record."""
    validation = documents.need(ValidationRecord)
    critical = [rule for rule in validation.rules if rule.severity == "critical"]
    names = sorted({rule.rule for rule in critical})
    broken = [
        f"{rule.rule} ({rule.engine}, {rule.n_unexpected:,} rows)"
        for rule in critical
        if not rule.passed
    ]
    at_boundary = [
        f"{rule} ({boundary.boundary})"
        for boundary in (documents.boundaries.checks if documents.boundaries else ())
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
    """Why a record without a failed rule shows nothing."""
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
def identifier_scan(documents: Documents, criterion: Criterion) -> CheckResult:
    """Columns and images with something identifying that nobody reviewed.

    A name, a date or a number counts; a time of day alone identifies nobody and does not.
    """
    scan = documents.need(ContentScan)
    columns = [c.column for c in scan.columns if not _is_reviewed(c.column, scan)]
    images, n_unlisted = _marked_images(scan)
    n = len(columns) + len(images) + n_unlisted
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


def _marked_images(scan: ContentScan) -> tuple[list[str], int]:
    """Images with an identifying mark that nobody reviewed, and images the record only counts."""
    listed_images = {mark.image_id for mark in scan.marks}
    identifying = {mark.image_id for mark in scan.marks if mark.kind in IDENTIFYING}
    open_images = sorted(name for name in identifying if not _is_reviewed(name, scan))
    return open_images, max(scan.n_images_with_marks - len(listed_images), 0)


def _overlays(scan: ContentScan) -> str:
    if not scan.n_with_overlay:
        return "no overlay was found in any image"
    return f"{counted(scan.n_with_overlay, 'image')} with a burned-in overlay, all read"


def _is_reviewed(name: str, scan: ContentScan) -> bool:
    return any(entry == name or entry.startswith(f"{name}:") for entry in scan.reviewed)


def _scan_doubt(scan: ContentScan) -> str:
    """Why finding nothing shows nothing; empty when everything was looked at."""
    if not scan.n_images or not scan.n_columns:
        return "there was no image or no column to scan"
    if scan.n_with_overlay and not scan.reads_text:
        return (
            f"{counted(scan.n_with_overlay, 'image')} with a burned-in overlay, and {scan.engine} "
            "does not read text; install tesseract"
        )
    # The images read are drawn at random: as many as carry an overlay need not be the same ones.
    if scan.n_with_overlay and scan.n_scanned < scan.n_images:
        return (
            f"{scan.n_scanned:,} of {scan.n_images:,} images were read and {scan.n_with_overlay:,} "
            "carry a burned-in overlay; set audit.n_text_images=all to read them all"
        )
    return ""
