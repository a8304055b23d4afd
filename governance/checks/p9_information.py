"""Checks of principle 9: what users are told."""

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    check,
    counted,
    evaluated,
    joined,
    judge,
    listed,
    no_metric,
    not_evaluated,
)
from governance.records.evaluation import EvaluationRecord
from governance.records.item import CardCheck, CheckResult, Observed
from governance.records.lineage import ChangeRecord, Lineage
from governance.records.policy import Criterion
from governance.records.training import SampleSet

_DRAFT = "Checked on the draft; its own results, root and head were added afterwards."


@check("P9-01", step="s7_evidence")
def card_is_complete(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count fields of the card that are empty and do not say why."""
    found = documents.need(CardCheck)
    n_fields = found.n_filled + found.n_reasoned + len(found.empty_fields)
    if n_fields == 0:
        return not_evaluated("the card has no field", source=CardCheck)
    return judge(
        criterion,
        Observed(value=len(found.empty_fields)),
        reason=f"empty: {listed(found.empty_fields)}"
        if found.empty_fields
        else f"{counted(n_fields, 'field')}: {found.n_filled} filled, {found.n_reasoned} with a "
        "reason instead",
        method="every field of the drafted card; one without a word counts as empty",
        source=CardCheck,
        limitations="Completeness was checked, not quality.",
    )


@check("P9-02", step="s7_evidence")
def numbers_are_traced(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count numbers in card and report that are not backed by a file with a digest."""
    found = documents.need(CardCheck)
    n_numbers = sum(part.n_numbers for part in found.parts)
    n_computed = sum(len(part.computed) for part in found.parts)
    if n_numbers == 0:
        return not_evaluated("card and report print no number", source=CardCheck)
    return judge(
        criterion,
        Observed(value=len(found.untraced)),
        reason=f"without a file behind them: {listed(found.untraced)}"
        if found.untraced
        else f"{n_numbers:,} numbers in {counted(len(found.parts), 'part')}, each part traced to "
        f"files with a digest; {n_computed:,} are computed from them or fixed, the others stand "
        "there",
        method="files read while each field and section was written; every observed value of an "
        "item compared with the digest of its artifact",
        source=CardCheck,
        limitations=f"That a number was computed rightly from its files is not shown. {_DRAFT}",
    )


@check("P9-03", step="s6_evaluate")
def metrics_are_complete(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count metrics that lack interval, number of patients or partition."""
    evaluation = documents.need(EvaluationRecord)
    metrics = evaluated(evaluation)
    if not metrics:
        return not_evaluated(no_metric(evaluation), source=EvaluationRecord)
    bare = [m.id for m in metrics if m.ci95 is None or not m.n_patients or not m.partition]
    return judge(
        criterion,
        Observed(value=len(bare)),
        reason=f"interval, {documents.unit}s or partition missing: {listed(bare)}"
        if bare
        else f"{counted(len(metrics), 'metric')}, all complete",
        method="fields of every evaluated metric",
        source=EvaluationRecord,
        limitations="Read where card and reports take the numbers from, not from card and reports.",
    )


@check("P9-04", step="s7_evidence")
def limits_are_listed(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count open items and absent attributes missing from the limits in card or report."""
    found = documents.need(CardCheck)
    return judge(
        criterion,
        Observed(value=len(found.unlisted)),
        reason=f"not listed: {listed(found.unlisted)}"
        if found.unlisted
        else f"{counted(found.n_limits, 'limit')}, all in card and report",
        method="failed, missing and not evaluated items and absent attributes looked for in the "
        "limits of the drafted card and report",
        source=CardCheck,
        limitations=_DRAFT,
    )


@check("P9-05", step="s5_train")
def synthetic_marking(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count synthetic images whose mark cannot be read back from the saved file."""
    samples = documents.need(SampleSet)
    if samples.n_images == 0:
        return not_evaluated("no synthetic image was kept", source=SampleSet)
    unread = samples.n_images - samples.n_marks_read_back
    return judge(
        criterion,
        Observed(value=unread, n_images=samples.n_images),
        reason=f"{samples.n_marks_read_back:,} of {samples.n_images:,} marks read back",
        method="mark read from every saved file and compared with generator and run",
        source=SampleSet,
        limitations="The mark is metadata: it is lost when an image is copied as pixels.",
    )


@check("P9-06", step="s7_evidence")
def card_and_report_agree(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that card, JSON twin and report agree."""
    found = documents.need(CardCheck)
    if found.n_compared == 0:
        return not_evaluated("nothing was compared", source=CardCheck)
    return judge(
        criterion,
        Observed(value=not found.disagreements),
        reason=f"not alike: {listed(found.disagreements)}"
        if found.disagreements
        else f"{counted(found.n_compared, 'statement')} compared, all alike",
        method="verdict, identity, conditions, principles, items, metrics and every field of the "
        "card looked for in the rendered card (Markdown and JSON) and page (HTML)",
        source=CardCheck,
        limitations="The PDF is drawn from the same content as the page and is not read back "
        f"here. {_DRAFT}",
    )


@check("P9-07", step="s7_evidence")
def change_notes(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that every difference from the parent run is written down."""
    lineage = documents.need(Lineage)
    if lineage.is_first:
        return not_evaluated(
            f"a first run of {lineage.model} on {lineage.data} in this workspace has no parent to "
            "be compared with",
            source=Lineage,
        )
    if lineage.fault:
        return judge(
            criterion,
            Observed(value=False),
            reason=f"the parent run cannot be read: {lineage.fault}",
            method="documents of the parent run, each compared with its digest",
            source=Lineage,
        )
    change = documents.need(ChangeRecord)
    return judge(
        criterion,
        Observed(value=True),
        reason=f"against run {change.parent}: {len(change.config)} values of the configuration, "
        f"{len(change.data)} of the data and {len(change.code)} of the code differ; "
        f"{counted(len(change.metrics), 'metric')} side by side",
        method="documents of both runs, the parent's compared with their digests",
        source=ChangeRecord,
        limitations=joined(
            f"Not a fair comparison: {'; '.join(change.unfair)}." if change.unfair else "",
            f"With caution: {'; '.join(change.cautions)}." if change.cautions else "",
        ),
    )


@check("P9-08", step="s7_evidence")
def words(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count words that claim too much, or call tuning by the name of a test."""
    found = documents.need(CardCheck)
    places = [f"{w.word!r} in {w.output} ({w.context})" for w in found.words]
    return judge(
        criterion,
        Observed(value=len(found.words)),
        reason=f"found: {listed(places)}" if places else "none is in card or report",
        method="a fixed list of words looked for in the drafted card (Markdown and JSON) and page; the "
        "title of this item, which names some, is left out",
        source=CardCheck,
        limitations=f"A list of words does not judge what is meant. {_DRAFT}",
    )
