"""Checks of principle 5: labels, references and data quality."""

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    check,
    counted,
    evaluated,
    family_of,
    joined,
    judge,
    listed,
    no_metric,
    not_evaluated,
)
from governance.records.audit import LabelAudit
from governance.records.base import TRAINING
from governance.records.dataset import DatasetIdentity, ValidationRecord
from governance.records.evaluation import EvaluationRecord
from governance.records.item import CheckResult, Observed
from governance.records.partition import SplitRecord
from governance.records.policy import Criterion

HIERARCHY_RULE = "brain_plane_only_with_fetal_brain"
LABEL_RULES = (
    HIERARCHY_RULE,
    "fetal_brain_has_brain_plane",
    "plane_allowed",
    "brain_plane_allowed",
)


@check("P5-01", step="s1_ingest")
def dataset_identity(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the selected images have the content digest pinned in the configuration."""
    dataset = documents.need(DatasetIdentity)
    found, pinned = dataset.content_sha256, dataset.pinned_sha256
    if found is None:
        return not_evaluated("the images were not read to the end", source=DatasetIdentity)
    method = "SHA-256 over id, pixel digest and labels of every selected image"
    if pinned is None:
        return not_evaluated(
            "the content of the data set is not pinned; if it is the one you mean, put this line "
            f"into the configuration: `data.digest: {found}`",
            method=method,
            source=DatasetIdentity,
        )
    unstated = [name for name in ("doi", "version", "licence") if not getattr(dataset, name)]
    return judge(
        criterion,
        Observed(value=found == pinned),
        reason=(
            f"content {found[:12]} is the pinned one"
            if found == pinned
            else f"content is {found}, pinned is {pinned}; restore the data or pin the new content"
        ),
        method=method,
        source=DatasetIdentity,
        limitations=f"The data set states no {', no '.join(unstated)}." if unstated else "",
    )


@check("P5-02", step="s2_validate")
def label_hierarchy(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that labels are known and only images of the fetal brain have a brain plane."""
    validation = documents.need(ValidationRecord)
    rules = [rule for rule in validation.rules if rule.rule in LABEL_RULES]
    if not any(rule.rule == HIERARCHY_RULE for rule in rules):
        return not_evaluated(f"the rule {HIERARCHY_RULE} was not run", source=ValidationRecord)
    failed = [rule for rule in rules if not rule.passed]
    # If all selected images are of the brain, none can break the hierarchy;
    # the other rules then show that brain planes are recorded at all.
    if not failed and not any(r.n_evaluated for r in rules if r.column == "brain_plane"):
        return not_evaluated("no image carries a brain plane", source=ValidationRecord)
    outside = any(rule.n_evaluated for rule in rules if rule.rule == HIERARCHY_RULE)
    worst: dict[str, int] = {}
    for rule in rules:
        worst[rule.rule] = max(worst.get(rule.rule, 0), rule.n_unexpected)
    names = sorted({f"{rule.rule} ({rule.n_unexpected:,} images)" for rule in failed})
    return judge(
        criterion,
        Observed(value=sum(worst.values()), n_images=validation.n_rows),
        reason=f"broken: {listed(names)}" if failed else "no label breaks schema or hierarchy",
        method=f"rules {', '.join(sorted(worst))}, by {', '.join(sorted({r.engine for r in rules}))}",
        source=ValidationRecord,
        limitations=""
        if outside
        else "No selected image is of another plane than the fetal brain.",
        holds=not failed,
    )


@check("P5-03", step="s4_split")
def suspected_labels(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report labels that other patients' images contradict; one not reviewed fails the item."""
    audit = documents.need(LabelAudit)
    if doubt := _label_doubt(audit):
        return not_evaluated(doubt, method=audit.method, source=LabelAudit)
    named = [f"{s.image_id} ({s.given}, rather {s.suggested})" for s in audit.suspects]
    share, interval = audit.n_suspected / audit.n_images, audit.rate_ci95
    rate = f"{share:.1%} of {audit.n_images:,}"
    rate += f", 95 % interval {interval[0]:.1%} to {interval[1]:.1%}" if interval else ""
    review = f"reviewed: {audit.reviewed}" if audit.reviewed else "not reviewed"
    words = f"{audit.n_suspected:,} suspected ({rate}), {review}"
    return judge(
        criterion,
        Observed(
            value=audit.n_suspected == 0 or bool(audit.reviewed),
            n_patients=audit.n_patients,
            n_images=audit.n_images,
            partition=TRAINING,
        ),
        reason=f"{words}: {listed(named)}"
        if audit.n_suspected
        else f"no label of {audit.label} is suspected ({rate})",
        method=audit.method,
        source=LabelAudit,
        limitations=_label_limits(audit, documents.unit),
    )


def _label_limits(audit: LabelAudit, unit: str) -> str:
    return joined(
        f"Suspicion is only as good as the model: balanced accuracy {audit.balanced_accuracy:.2f} "
        f"over {counted(len(audit.classes), 'class', 'classes')} of {audit.label}.",
        "Tuning and the held-out test set are not audited.",
        ""
        if unit == "patient"
        else f"Cross-validated by {unit}: images of one patient may be on both sides.",
    )


def _label_doubt(audit: LabelAudit) -> str:
    """Return why the audit proves nothing about the labels; empty when it does."""
    if audit.reason:
        return audit.reason
    if not audit.n_images or len(audit.classes) < 2:
        return "fewer than two classes of labels to compare"
    if audit.balanced_accuracy is None:
        return "how well the model judges the labels is not on record"
    if audit.balanced_accuracy <= 1 / len(audit.classes):
        return (
            f"the model cannot judge these labels: balanced accuracy {audit.balanced_accuracy:.2f}, "
            f"chance {1 / len(audit.classes):.2f}"
        )
    return ""


@check("P5-04", step="s4_split")
def label_effect(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report how far the suspected labels could move the headline metrics."""
    audit = documents.need(LabelAudit)
    doubt = _label_doubt(audit) or ("" if audit.effect else "the effect is not stated")
    if doubt:
        return not_evaluated(doubt, method=audit.method, source=LabelAudit)
    return judge(
        criterion,
        Observed(
            value=audit.n_suspected / audit.n_images,
            unit="fraction of training images",
            ci95=audit.rate_ci95,
            n_patients=audit.n_patients,
            n_images=audit.n_images,
            partition=TRAINING,
        ),
        reason=audit.effect,
        method=f"share of suspected labels; {audit.method}",
        source=LabelAudit,
        limitations=_label_limits(audit, documents.unit),
    )


@check("P5-05", step="s6_evaluate")
def metric_reference(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that each metric names extractor, weights' hash, both n and a known partition."""
    evaluation, split = documents.need(EvaluationRecord), documents.need(SplitRecord)
    metrics = evaluated(evaluation)
    if not metrics:
        return not_evaluated(no_metric(evaluation), source=EvaluationRecord)
    known = {part.partition for part in split.partitions}
    loose = [
        metric.id
        for metric in metrics
        if not (metric.extractor and metric.extractor_sha256 and metric.n_real)
        or not metric.n_synthetic
        or metric.partition not in known
    ]
    return judge(
        criterion,
        Observed(value=len(loose)),
        reason=f"reference not fixed: {listed(loose)}"
        if loose
        else f"{counted(len(metrics), 'metric')} with extractor, its hash, n and partition",
        method="fields of every evaluated metric; the partition's digest is in the split record",
        source=EvaluationRecord,
        limitations="That another run used the same reference is not shown by this one.",
    )


@check("P5-06", step="s6_evaluate")
def enough_images(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that FID has two images a feature, or is flagged beside a KID with interval."""
    evaluation = documents.need(EvaluationRecord)
    metrics = evaluated(evaluation)
    fids = [metric for metric in metrics if family_of(metric) == "fid"]
    kid_groups = {m.subgroup for m in metrics if family_of(m) == "kid" and m.ci95 is not None}
    if not fids and "" not in kid_groups:
        return not_evaluated(no_metric(evaluation), source=EvaluationRecord)
    short = [m for m in fids if min(m.n_real, m.n_synthetic) < 2 * m.n_features]
    broken = [m.id for m in short if not (m.reason and m.subgroup in kid_groups)]
    if broken:
        words = f"too few images, and not flagged beside a KID with interval: {listed(broken)}"
    elif short:
        words = f"too few images, flagged and led by KID with interval: {short[0].id}"
    else:
        words = "enough images, or KID with interval alone"
    return judge(
        criterion,
        Observed(value=len(broken)),
        reason=words,
        method="images compared with twice the number of features",
        source=EvaluationRecord,
    )
