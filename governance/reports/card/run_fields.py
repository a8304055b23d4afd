"""Fields of the model card on model, tests and evidence that the run itself can fill.

Each function returns the field's content, or, when there is none, the reason as a sentence part.
"""

from governance.records.audit import CoverageAudit
from governance.records.base import ItemStatus
from governance.records.dataset import DatasetIdentity
from governance.records.evaluation import EvaluationRecord
from governance.records.partition import IsolationRecord
from governance.records.people import SigningRecord
from governance.records.run import Environment, Outcome, Plan
from governance.records.training import TrainingRecord
from governance.reports import formats
from governance.reports.blocks import Bullets, Facts, Table, Text, cell, columns, mono, status_line
from governance.reports.card.data_fields import Answer, stopped
from governance.reports.evidence import ReportEvidence
from governance.reports.items import ItemView, by_weight, item_views
from governance.reports.sections.data import limit_sentences_on_data
from governance.reports.sections.data_coverage import coverage_table
from governance.reports.sections.front import full_titles, identity_rows, report_title
from governance.reports.sections.isolation import opening_words
from governance.reports.sections.limits_and_plan import limit_sentences
from governance.reports.sections.memorisation import copying_rows, memorisation_rows
from governance.reports.sections.metrics import (
    metric_table,
    metric_texts,
    provenance_rows,
    subgroup_blocks,
)
from governance.reports.sections.principles import principle_number, tally
from governance.reports.sections.training import pretrained_block, sample_rows, stage_table

_SEVEN_C = "the 7C evaluation of synthetic data is not implemented yet"


def name(evidence: ReportEvidence) -> Answer:
    """Return the names of generator and data set, short and in full."""
    return (Text(report_title(evidence)), Text(full_titles(evidence)))


def version(evidence: ReportEvidence) -> Answer:
    """Return the ids of run and checkpoint."""
    training = evidence.get(TrainingRecord)
    checkpoint = (
        f"checkpoint {formats.short(training.checkpoint_sha256)}" if training else ("no checkpoint")
    )
    return (Text(f"Run {evidence.run.run_id}, {checkpoint}."),)


def date(evidence: ReportEvidence) -> Answer:
    """Return the start of the run."""
    return (Text(formats.utc(evidence.run.started_utc)),)


def architecture(evidence: ReportEvidence) -> Answer:
    """Return description and stages of the model."""
    training = evidence.get(TrainingRecord)
    if training is None:
        return stopped(evidence)
    rows = tuple((key, cell(text)) for key, text in sorted(training.description.items()))
    return (Facts(rows), stage_table(training)) if rows else (stage_table(training),)


def inputs_and_outputs(evidence: ReportEvidence) -> Answer:
    """Return the inputs of the generator and the size of its images."""
    training = evidence.get(TrainingRecord)
    if training is None:
        return stopped(evidence)
    size = f"{training.image_size_px} {formats.TIMES} {training.image_size_px} px"
    return (Text(f"Input: a seed and a number of images. Output: synthetic images of {size}."),)


def metrics(evidence: ReportEvidence) -> Answer:
    """Return the metrics of all images with intervals and floor."""
    evaluation = evidence.get(EvaluationRecord)
    if evaluation is None:
        return stopped(evidence)
    overall = tuple(metric for metric in evaluation.metrics if not metric.subgroup)
    return (metric_table(overall, evidence.unit),) if overall else "no metric was measured"


def biases(evidence: ReportEvidence) -> Answer:
    """Return failed items on representation, and effects that the data cannot tell apart."""
    found = tuple(
        f"{item.id} {item.title}: {item.reason or 'failed'}"
        for item in by_weight(item_views(evidence))
        if item.status is ItemStatus.FAILED and item.principle == "P3"
    )
    found = (*found, *limit_sentences_on_data(evidence))
    return (Bullets(found),) if found else "no failed item on representativeness is on record"


def precision(evidence: ReportEvidence) -> Answer:
    """Return the intervals of the metrics, and whether runs were repeated."""
    evaluation = evidence.get(EvaluationRecord)
    listed = evaluation.metrics if evaluation else ()
    widths = tuple(
        f"{metric.title}: {value}, 95 % interval {interval}"
        for metric in listed
        for value, interval, _, _ in (metric_texts(metric),)
        if interval and not metric.subgroup
    )
    if not widths:
        return stopped(evidence) if not listed else "no metric has an interval"
    repeated = _item_sentence(evidence, "P8-07")
    return (Bullets(widths), *((Text(repeated),) if repeated else ()))


def limits(evidence: ReportEvidence) -> Answer:
    """Return failed, missing and unknown items, and what the results do not show."""
    items = item_views(evidence)
    sentences = [
        f"{status.value.capitalize()}: {_names(items, status)}."
        for status in (ItemStatus.FAILED, ItemStatus.NOT_EVALUATED, ItemStatus.MISSING)
        if any(item.status is status for item in items)
    ]
    on_data = limit_sentences_on_data(evidence)
    shown = (*sentences, *on_data, *limit_sentences(evidence, items))
    return (Bullets(shown),) if shown else "no limit is on record"


def _names(items: tuple[ItemView, ...], status: ItemStatus) -> str:
    return "; ".join(f"{i.id} {i.title}" for i in by_weight(items) if i.status is status)


def _item_sentence(evidence: ReportEvidence, item_id: str) -> str:
    """Return status and reason of one item; "" when there is no such item."""
    for item in item_views(evidence):
        if item.id == item_id:
            reason = f": {item.reason}" if item.reason else ""
            return formats.sentence(f"{item.id} {item.title}: {item.status.value}{reason}")
    return ""


def unlike_inputs(evidence: ReportEvidence) -> Answer:
    """Return the item on robustness; without one, say that it was not tested."""
    return _item_sentence(evidence, "P8-06") or "behaviour on unlike data was not tested"


def effect(evidence: ReportEvidence) -> Answer:
    """Return metrics beside their floor, the same metrics between real images."""
    evaluation = evidence.get(EvaluationRecord)
    listed = evaluation.metrics if evaluation else ()
    pairs = tuple(
        f"{metric.title}: {value} against {floor} between real images"
        for metric in listed
        for value, _, floor, _ in (metric_texts(metric),)
        if value and floor and not metric.subgroup
    )
    if pairs:
        return (Bullets(pairs),)
    return "no metric has a real-against-real floor" if listed else stopped(evidence)


def fitness(evidence: ReportEvidence) -> Answer:
    """Always unavailable: fitness needs a declared use."""
    return "fitness for an intended use cannot be shown before that use is declared"


def risks(evidence: ReportEvidence) -> Answer:
    """Return items on copied patients and leaks, and the limits of isolation."""
    isolation = evidence.get(IsolationRecord)
    sentences = [
        sentence
        for sentence in (_item_sentence(evidence, item) for item in ("P6-04", "P6-05", "P2-13"))
        if sentence
    ]
    if isolation is not None:
        sentences.extend(f"Isolation: {limit}" for limit in isolation.limits)
    return (Bullets(tuple(sentences)),) if sentences else stopped(evidence)


def computing_resources(evidence: ReportEvidence) -> Answer:
    """Return the machine and the time of training and of the whole run."""
    outcome = evidence.get(Outcome)
    record, training = evidence.get(Environment), evidence.get(TrainingRecord)
    rows = []
    if record is not None:
        device = f"{record.compute_device}, {formats.counted(record.cpu_count, 'processor')}"
        rows.append(("Machine", cell(f"{record.platform}; {device}; Python {record.python}")))
    if training is not None:
        rows.append(("Training", cell(formats.duration(training.duration_s))))
    if outcome is not None:
        rows.append(("Whole run", cell(formats.duration(outcome.duration_s))))
    return (Facts(tuple(rows)),) if rows else stopped(evidence)


def software_quality(evidence: ReportEvidence) -> Answer:
    """Return the computed items of principle 2 with their status."""
    items = [i for i in item_views(evidence) if i.principle == "P2" and not i.is_human]
    if not items:
        return "no item on software is on record"
    rows = tuple(
        (cell(item.id), cell(item.title), cell(status_line(item.status)), cell(item.reason))
        for item in items
    )
    head = columns(("Item", 0.1), ("What must be shown", 0.4), ("Status", 0.2), ("Reason", 0.3))
    return (Table(head, rows),)


def test_use(evidence: ReportEvidence) -> Answer:
    """Return how often the test set was opened, over all runs."""
    evaluation = evidence.get(EvaluationRecord)
    opening = evaluation.opening if evaluation else None
    if opening is None:
        return "the held-out test set was not opened"
    use = f"Opened {formats.counted(opening.number, 'time')} over all runs; {opening_words(evidence)}."
    rows = provenance_rows(evaluation, evidence.unit) if evaluation else ()
    return (Text(f"{use} Purpose: {opening.purpose}."), Facts(rows))


def subgroups(evidence: ReportEvidence) -> Answer:
    """Return the metrics of subgroups; without any, the counts by subgroup."""
    evaluation = evidence.get(EvaluationRecord)
    listed = evaluation.metrics if evaluation else ()
    parts = tuple(metric for metric in listed if metric.subgroup)
    if evaluation is not None and parts:
        return subgroup_blocks(evaluation, evidence.unit)
    coverage = evidence.get(CoverageAudit)
    if coverage is not None:
        counts = tuple(coverage_table(coverage, attribute) for attribute in coverage.attributes)
        return (Text(f"No metric was measured by subgroup; {evidence.unit}s / images:"), *counts)
    return stopped(evidence)


def memorisation(evidence: ReportEvidence) -> Answer:
    """Return the share of synthetic images too close to a training image."""
    evaluation = evidence.get(EvaluationRecord)
    record = evaluation.memorisation if evaluation else None
    if evaluation is None or record is None:
        return stopped(evidence)
    more = copying_rows(evaluation, evidence.unit)
    return (Facts((*memorisation_rows(record), *more)),)


def membership(evidence: ReportEvidence) -> Answer:
    """Return the value of the item on membership inference, or its status and reason."""
    for item in item_views(evidence):
        if item.id == "P6-05" and item.value:
            return (Text(f"{item.value} {item.interval}".strip()),)
    return _item_sentence(evidence, "P6-05") or "not evaluated"


def synthetic_marking(evidence: ReportEvidence) -> Answer:
    """Return whether the synthetic images carry a mark that says so."""
    rows = tuple(row for row in sample_rows(evidence) if row[0] == "Synthetic marking")
    return (Facts(rows),) if rows else stopped(evidence)


def seven_c(evidence: ReportEvidence) -> Answer:
    """Always unavailable: not part of this version."""
    return f"not evaluated: {_SEVEN_C}"


def pretrained(evidence: ReportEvidence) -> Answer:
    """Return the pretrained weights in generator and metrics."""
    evaluation = evidence.get(EvaluationRecord)
    training = evidence.get(TrainingRecord)
    if training is None:
        return stopped(evidence)
    extractors = evaluation.pretrained if evaluation else ()
    return (pretrained_block((*training.pretrained, *extractors)),)


def gmlp(evidence: ReportEvidence) -> Answer:
    """Return the ten principles with their status."""
    head = columns(
        ("No.", 0.06), ("2021 title", 0.3), ("N88 title", 0.3), ("Status", 0.14), ("Items", 0.2)
    )
    rows = tuple(
        (
            cell(principle_number(line)),
            cell(line.title_2021),
            cell(line.title_n88),
            cell(status_line(line.status)),
            cell(tally(line)),
        )
        for line in evidence.summary.principles
    )
    return (Table(head, rows),)


def hashes(evidence: ReportEvidence) -> Answer:
    """Return the digests and ids that identify this run."""
    environment = evidence.get(Environment)
    lock = environment.lock_file if environment else None
    rows = (
        *identity_rows(evidence),
        ("Configuration", cell(mono(evidence.run.config_sha256))),
        ("Data content", cell(mono(_content_digest(evidence)))),
        ("Environment record", cell(mono(evidence.digests.get(Environment.PATH, "none")))),
        ("Lock file", cell(lock or "none found")),
        ("Plan", cell(mono(evidence.digests.get(Plan.PATH, "none frozen")))),
        ("Checkpoint", cell(mono(_checkpoint_digest(evidence)))),
    )
    return (Facts(rows),)


def signature(evidence: ReportEvidence) -> Answer:
    """Return who was to sign when the evidence was closed; signing comes after the card."""
    signing = evidence.get(SigningRecord) or SigningRecord()
    if signing.key_id is None and signing.timestamp_url is None:
        return "the run is unsigned: nothing shows who wrote it"
    rows = [("Signed by", cell("nobody: the run is unsigned"))]
    if signing.key_id is not None:
        rows = [
            ("Signed by", cell(signing.identity or "no name was configured")),
            ("Key id", cell(mono(signing.key_id))),
            ("What that shows", cell(f"{signing.made}, identity not vouched for")),
        ]
    if signing.timestamp_url is not None:
        rows.append(("Time-stamp asked of", cell(signing.timestamp_url)))
    note = (
        "Signature and time-stamp are over manifest.json, which lists this card, so they are "
        "written after it: medisynth-gov verify shows whether they are there and fit."
    )
    return (Facts(tuple(rows)), Text(note))


def _content_digest(evidence: ReportEvidence) -> str:
    dataset = evidence.get(DatasetIdentity)
    return (dataset.content_sha256 if dataset else None) or formats.NOT_AVAILABLE


def _checkpoint_digest(evidence: ReportEvidence) -> str:
    training = evidence.get(TrainingRecord)
    return training.checkpoint_sha256 if training else "nothing was trained"
