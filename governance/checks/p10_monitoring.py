"""Checks of principle 10: monitoring and retraining."""

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import check, counted, judge, listed, not_evaluated
from governance.records.base import ItemStatus
from governance.records.evaluation import Baseline
from governance.records.item import CheckResult, Observed
from governance.records.lineage import ChangedMetric, ChangeRecord, Lineage, ParentRun
from governance.records.policy import Criterion


@check("P10-01", step="s6_evaluate")
def baseline(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the baseline for later runs holds image and feature statistics and metrics."""
    found = documents.need(Baseline)
    method = "fields of the baseline file, whose digest is on the manifest"
    lacking = [
        name
        for name, is_there in (
            ("features", found.features is not None),
            ("metrics", bool(found.metrics)),
        )
        if not is_there
    ]
    bare = [metric.id for metric in found.metrics if metric.ci95 is None]
    if found.images and lacking and not bare:
        return not_evaluated(
            f"statistics of {counted(found.n_images, f'{found.partition} image')} are exported; "
            f"not evaluated: {listed(lacking)} ({found.reason or 'no reason is on record'})",
            method=method,
            source=Baseline,
        )
    return judge(
        criterion,
        Observed(
            value=bool(found.images) and not bare,
            n_patients=found.n_patients,
            n_images=found.n_images,
            partition=found.partition,
        ),
        reason=f"metrics without interval: {listed(bare)}"
        if bare
        else f"{counted(len(found.images), 'image statistic')}, features of "
        f"{counted(found.features.n_images if found.features else 0, 'image')}, "
        f"{counted(len(found.metrics), 'metric')} with intervals"
        if found.images
        else "no image statistic was exported",
        method=method,
        source=Baseline,
    )


@check("P10-02", step="s7_evidence")
def drift(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Compare the new training images with the baseline of the parent run."""
    lineage = documents.need(Lineage)
    parent = _parent(lineage)
    if isinstance(parent, CheckResult):
        return parent
    if lineage.delta is None:
        return not_evaluated("the images of the parent run are not on record", source=Lineage)
    if lineage.delta.is_empty:
        return not_evaluated(
            f"no new data: the images are those of run {parent.run_id}", source=Lineage
        )
    change = documents.need(ChangeRecord)
    if not change.drift:
        return not_evaluated("one of the two runs has no baseline", source=ChangeRecord)
    furthest = max(change.drift, key=lambda line: line.distance)
    return judge(
        criterion,
        Observed(value=True, n_images=furthest.n_after),
        reason=f"furthest from run {parent.run_id}: {furthest.name}, distance "
        f"{furthest.distance:.3g} of at most 1",
        method="largest difference of the cumulative histograms of each image statistic, "
        "training images of both runs",
        source=ChangeRecord,
        limitations="Whether a distance is too large is for people to judge; features are not "
        "compared.",
    )


def _parent(lineage: Lineage) -> ParentRun | CheckResult:
    """Return the parent run, or a NOT_EVALUATED result that says why there is none."""
    if lineage.parent is not None:
        return lineage.parent
    if lineage.fault:
        return not_evaluated(f"the parent run cannot be read: {lineage.fault}", source=Lineage)
    return not_evaluated(
        f"no earlier run: this is the first of {lineage.model} on {lineage.data} in this workspace",
        source=Lineage,
    )


@check("P10-03", step="s7_evidence")
def retraining(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the largest worsening of KID in a subgroup against the parent run."""
    lineage = documents.need(Lineage)
    parent = _parent(lineage)
    if isinstance(parent, CheckResult):
        return parent
    change = documents.need(ChangeRecord)
    kid = [m for m in change.metrics if "KID" in m.name and None not in (m.before, m.after)]
    fair = [m for m in kid if m.subgroup and not m.unfair]
    limitations = f"With caution: {'; '.join(change.cautions)}." if change.cautions else ""
    if change.unfair or not fair:
        why = (
            f"not a fair comparison: {listed(change.unfair)}"
            if change.unfair
            else "the metric is missing: KID by subgroup in both runs"
        )
        overall = "".join(f"; overall {_change_words(m)}" for m in kid if not m.subgroup)
        return not_evaluated(f"{why}{overall}", source=ChangeRecord, limitations=limitations)
    worst = max(fair, key=_loss)
    result = judge(
        criterion,
        Observed(value=_loss(worst)),
        reason=f"largest loss: {_change_words(worst)}",
        method=f"KID of {counted(len(fair), 'subgroup')} in both runs",
        source=ChangeRecord,
        limitations=limitations,
    )
    lost = [
        m.subgroup
        for m in change.metrics
        if "KID" in m.name and m.subgroup and m.before is not None and m not in fair
    ]
    if lost and result.status is ItemStatus.PASSED:
        return not_evaluated(
            f"{result.reason}; not comparable: {listed(lost)}",
            observed=result.observed,
            method=result.method,
            source=ChangeRecord,
            limitations=limitations,
        )
    return result


def _loss(metric: ChangedMetric) -> float:
    """Return how much worse a metric became; positive is worse, since lower KID is better."""
    return (metric.after or 0.0) - (metric.before or 0.0)


def _change_words(metric: ChangedMetric) -> str:
    tail = "; ".join(filter(None, (metric.intervals, *metric.unfair)))
    return (
        f"{metric.name} {metric.before:.4g}, then {metric.after:.4g}{f' ({tail})' if tail else ''}"
    )


@check("P10-04", step="s7_evidence")
def lineage_is_complete(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that parent run, reason and change of the data are on record."""
    lineage = documents.need(Lineage)
    what = f"{lineage.model} on {lineage.data}"
    method = "finished runs of the workspace, latest first; images compared by id and pixels"
    limitations = "Runs of other workspaces are not known."
    if lineage.is_first:
        said = " (says the configuration)" if lineage.is_chosen else ""
        return judge(
            criterion,
            Observed(value=True),
            reason=f"first run of {what}{said}: no parent, no change of the data",
            method=method,
            source=Lineage,
            limitations=limitations,
        )
    faults = [lineage.fault] if lineage.fault else []
    if not lineage.reason.strip():
        faults.append("nobody said why the model was trained again (lineage.reason)")
    if lineage.parent is not None and lineage.delta is None:
        faults.append("the parent's images are not on record")
    delta = lineage.delta
    words = (
        f"{delta.n_same:,} images as before, {delta.n_changed:,} changed, {delta.n_added:,} added, "
        f"{delta.n_removed:,} removed"
        if delta
        else ""
    )
    parent = lineage.parent.run_id if lineage.parent else "unknown"
    return judge(
        criterion,
        Observed(value=not faults),
        reason=f"parent {parent}: {listed(faults)}"
        if faults
        else f"parent {parent}; reason: {lineage.reason}; {words}",
        method=method,
        source=Lineage,
        limitations=limitations,
    )


@check("P10-05", step="s7_evidence")
def inside_change_plan(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that only what the configuration's change plan names has changed."""
    parent = _parent(documents.need(Lineage))
    if isinstance(parent, CheckResult):
        return parent
    change = documents.need(ChangeRecord)
    if not change.plan:
        return not_evaluated(
            "the configuration names no change plan (lineage.change_plan)", source=ChangeRecord
        )
    outside = change.outside_plan
    return judge(
        criterion,
        Observed(value="outside the plan" if outside else "inside the plan"),
        reason=f"not named by the plan: {listed(outside)}"
        if outside
        else f"{counted(change.n_changes, 'change')}, all named by the plan",
        method=f"names of all changed values compared with {counted(len(change.plan), 'pattern')} "
        "of the configuration",
        source=ChangeRecord,
        limitations="Names are compared, not by how much a value changed.",
    )


@check("P10-06", step="s7_evidence")
def way_back(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the parent run's checkpoint still has the digest on its manifest."""
    parent = _parent(documents.need(Lineage))
    if isinstance(parent, CheckResult):
        return parent
    words = {"intact": "is intact", "changed": "has another digest", "missing": "is gone"}
    return judge(
        criterion,
        Observed(value=parent.checkpoint == "intact"),
        reason=f"checkpoint {parent.checkpoint_sha256[:12]} of run {parent.run_id} "
        f"{words[parent.checkpoint]}",
        method="file in the parent's run folder read and compared with its manifest",
        source=Lineage,
    )
