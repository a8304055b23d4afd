"""Fields of the model card on the data that the run itself can fill.

Each function returns the field's content, or, when there is none, the reason as a sentence part.
"""

from governance.records.audit import CoverageAudit, DemographicsAudit
from governance.records.base import TEST, TRAINING, TUNING
from governance.records.dataset import DatasetIdentity, ValidationRecord
from governance.records.partition import IsolationRecord, SplitRecord
from governance.records.run import Outcome
from governance.reports import formats
from governance.reports.blocks import Block, Bullets, Table, Text, cells, columns, joined
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.data import quality_sentences
from governance.reports.sections.data_correctness import validation_sentence
from governance.reports.sections.data_coverage import partition_blocks
from governance.reports.sections.data_tables import units

Answer = tuple[Block, ...] | str


def stopped(evidence: ReportEvidence) -> str:
    """Return the reason why a later step left no evidence."""
    outcome = evidence.get(Outcome)
    if outcome is not None and outcome.status != "finished":
        return f"the run {outcome.status} at {outcome.stopped_at or 'an unknown step'}"
    return "this run left no evidence of it"


def data_gaps(evidence: ReportEvidence) -> Answer:
    """Return attributes without values and shares of patients with a value."""
    coverage = evidence.get(CoverageAudit)
    dataset = evidence.get(DatasetIdentity)
    sentences = []
    if dataset is not None:
        names = joined([entry.name for entry in dataset.absent_attributes])
        sentences.append(f"Not recorded in the data set: {names}.")
    if coverage is not None:
        sentences.extend(
            f"{units(evidence.unit)} with a value for {key}: {formats.percent(fraction, 1)}."
            for key, fraction in sorted(coverage.completeness.items())
        )
    sentences.extend(_declared(evidence))
    return (Bullets(tuple(sentences)),) if sentences else stopped(evidence)


def _declared(evidence: ReportEvidence) -> list[str]:
    """List declared demographic attributes with shares, and the usual ones not declared."""
    record = evidence.get(DemographicsAudit)
    if record is None:
        return []
    sentences = [
        f"{units(evidence.unit)} with a value for {entry.name}"
        f"{' (by proxy)' if entry.is_proxy else ''}: {formats.percent(entry.completeness, 1)}."
        for entry in record.declared
    ]
    if record.undeclared:
        sentences.append(f"Not declared by the data contract: {joined(record.undeclared)}.")
    return sentences


def _sources(evidence: ReportEvidence, parts: tuple[str, ...]) -> Answer:
    data = evidence.get(DatasetIdentity)
    if data is None:
        return stopped(evidence)
    kind = "Simulated; no patient is behind any image. " if data.is_simulated else ""
    doi = f", DOI {data.doi}" if data.doi else ""
    text = Text(f"{kind}{data.title}{doi}, licence {data.licence or formats.NOT_AVAILABLE}.")
    machines = _levels(evidence, "machine", parts)
    return (text, Text(f"Machines: {machines}.")) if machines else (text,)


def _levels(evidence: ReportEvidence, attribute: str, parts: tuple[str, ...]) -> str:
    """List the levels of an attribute in some partitions, with patients."""
    coverage = evidence.get(CoverageAudit)
    if coverage is None:
        return ""
    counted: dict[str, int] = {}
    for entry in coverage.levels:
        if entry.attribute == attribute and entry.partition in parts:
            counted[entry.level] = counted.get(entry.level, 0) + entry.n_patients
    return ", ".join(f"{key} ({formats.counted(n, evidence.unit)})" for key, n in counted.items())


def test_sources(evidence: ReportEvidence) -> Answer:
    """Return data set and machines of the held-out test set."""
    if evidence.get(SplitRecord) is None:
        return stopped(evidence)
    return _sources(evidence, (TEST,))


def training_sources(evidence: ReportEvidence) -> Answer:
    """Return data set and machines of training and tuning."""
    return _sources(evidence, (TRAINING, TUNING))


def data_types(evidence: ReportEvidence) -> Answer:
    """Return the planes selected and the unit that is never divided."""
    data = evidence.get(DatasetIdentity)
    if data is None:
        return stopped(evidence)
    return (Text(f"Images; planes selected: {data.planes or 'all'}; unit: {data.split_unit}."),)


def _size(split: SplitRecord, names: tuple[str, ...]) -> tuple[Block, ...]:
    return (
        Bullets(
            tuple(
                f"{part.partition}: {formats.counted(part.n_images, 'image')}, "
                f"{formats.counted(part.n_patients, split.unit)}"
                for part in split.partitions
                if part.partition in names
            )
        ),
    )


def test_size(evidence: ReportEvidence) -> Answer:
    """Return images and patients of the held-out test set."""
    split = evidence.get(SplitRecord)
    return _size(split, (TEST,)) if split else stopped(evidence)


def training_size(evidence: ReportEvidence) -> Answer:
    """Return images and patients of training and tuning."""
    split = evidence.get(SplitRecord)
    return _size(split, (TRAINING, TUNING)) if split else stopped(evidence)


def quality(evidence: ReportEvidence) -> Answer:
    """Return findings of validation, search for copies, audit of labels and content scan."""
    record = evidence.get(ValidationRecord)
    if record is None:
        return stopped(evidence)
    validation = f"Data validation: {validation_sentence(record)}"
    return (Bullets((validation, *quality_sentences(evidence))),)


def reference(evidence: ReportEvidence) -> Answer:
    """Return the data set's own notes on its labels."""
    dataset = evidence.get(DatasetIdentity)
    notes = dataset.notes if dataset else ()
    return (Bullets(notes),) if notes else "the data set says nothing about its labels"


def _diversity(evidence: ReportEvidence, parts: tuple[str, ...]) -> Answer:
    coverage = evidence.get(CoverageAudit)
    if coverage is None:
        return stopped(evidence)
    sentences = tuple(
        f"{attribute}: {_levels(evidence, attribute, parts)}"
        for attribute in coverage.attributes
        if _levels(evidence, attribute, parts)
    )
    return (Bullets(sentences),) if sentences else "no attribute is recorded"


def test_diversity(evidence: ReportEvidence) -> Answer:
    """Return the levels of every attribute in the held-out test set."""
    return _diversity(evidence, (TEST,))


def training_diversity(evidence: ReportEvidence) -> Answer:
    """Return the levels of every attribute in training and tuning."""
    return _diversity(evidence, (TRAINING, TUNING))


def partitions(evidence: ReportEvidence) -> Answer:
    """Return the partitions, what they share, and the isolation in force."""
    split = evidence.get(SplitRecord)
    if split is None:
        return stopped(evidence)
    isolation = evidence.get(IsolationRecord)
    level = (
        f"Isolation level in force: {isolation.level} of 5, {isolation.level_name}."
        if isolation
        else "Isolation: none in force; nothing was trained."
    )
    return (*partition_blocks(split)[1:], Text(level))


def absent_attributes(evidence: ReportEvidence) -> Answer:
    """Return the attributes that are not recorded, with the consequence."""
    dataset = evidence.get(DatasetIdentity)
    if dataset is None:
        return stopped(evidence)
    rows = tuple(cells(a.name, a.consequence) for a in dataset.absent_attributes)
    if not rows:
        return (Text("The data set lists no attribute as absent."),)
    return (Table(columns(("Attribute", 0.3), ("Consequence", 0.7)), rows),)
