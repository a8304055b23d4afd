"""The model card as data: sections and fields in the order of FDA's draft example card."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from governance.reports.blocks import Block, Text
from governance.reports.card import data_fields as data
from governance.reports.card import run_fields as run
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.people import declared_text, why_no_text

Origin = Literal["run", "declared", "both"]
State = Literal["filled", "not available", "not declared"]
_Source = Callable[[ReportEvidence], data.Answer]


@dataclass(frozen=True)
class Field:
    """One field of the card.

    Attributes:
        id: Stable id, e.g. "intended_use".
        title: Name for people.
        origin: Whether the run, a declaration or both fill it.
        state: Whether it is filled; if not, `reason` says why.
        reason: Why it, or its declared part, is not filled; "" when nothing is missing.
        content: Blocks that fill it.
    """

    id: str
    title: str
    origin: Origin
    state: State
    reason: str
    content: tuple[Block, ...]


@dataclass(frozen=True)
class CardSection:
    """Section of the card."""

    id: str
    title: str
    fields: tuple[Field, ...]


_Entry = tuple[str, str, Origin, _Source | None]
# Order and names: FDA draft guidance of January 2025 (draft), appendix E; the last section is ours.
_SECTIONS: tuple[tuple[str, str, tuple[_Entry, ...]], ...] = (
    (
        "model_information",
        "Model information",
        (
            ("name", "Name", "both", run.name),
            ("version", "Version", "run", run.version),
            ("date", "Date", "run", run.date),
            ("architecture", "Architecture", "run", run.architecture),
        ),
    ),
    (
        "regulatory_status",
        "Regulatory status",
        (
            ("authorisation", "Authorisation", "declared", None),
            ("file_number", "File number", "declared", None),
        ),
    ),
    (
        "description",
        "Description",
        (
            ("intended_users", "Intended users", "declared", None),
            ("intended_use", "Intended use", "declared", None),
            ("target_population", "Indications and target population", "declared", None),
            ("instructions", "Instructions for use", "declared", None),
            ("benefits_and_limits", "Benefits and limits", "declared", None),
            ("supervision", "Supervision by a professional", "declared", None),
            ("workflow_phase", "Workflow phase", "declared", None),
            ("inputs_and_outputs", "Inputs and outputs", "run", run.inputs_and_outputs),
            ("automation", "Degree of automation", "declared", None),
        ),
    ),
    (
        "performance_and_limitations",
        "Performance and limitations",
        (
            ("metrics", "Metrics with 95 % intervals", "run", run.metrics),
            ("biases", "Known biases and failure modes", "both", run.biases),
            ("precision", "Precision", "run", run.precision),
            ("data_gaps", "Gaps in data characterisation", "run", data.data_gaps),
            ("limits", "Limits of development and evaluation", "both", run.limits),
            ("unlike_inputs", "Inputs unlike the data", "both", run.unlike_inputs),
            ("published_evidence", "Published evidence and DOI", "declared", None),
            ("test_sources", "Test data: sources and devices", "both", data.test_sources),
            ("test_types", "Test data: types", "both", data.data_types),
            ("test_size", "Test data: sample size", "both", data.test_size),
            ("test_effect", "Test data: effect size", "both", run.effect),
            ("test_quality", "Test data: quality", "both", data.quality),
            ("test_reference", "Test data: reference standard", "both", data.reference),
            ("test_diversity", "Test data: diversity", "both", data.test_diversity),
            ("fitness", "How fitness for the intended use was established", "both", run.fitness),
        ),
    ),
    (
        "risk_management",
        "Risk management",
        (
            ("risks", "Risks of model, data and outputs", "both", run.risks),
            ("risk_changes", "What could change risk over the life cycle", "declared", None),
            ("computing_resources", "Computing resources", "run", run.computing_resources),
            ("deployment", "Deployment and update", "declared", None),
            ("communication", "Communication", "declared", None),
            ("software_quality", "Software quality and standards", "both", run.software_quality),
        ),
    ),
    (
        "development",
        "Development",
        (
            (
                "training_sources",
                "Training data: sources and devices",
                "both",
                data.training_sources,
            ),
            ("training_types", "Training data: types", "both", data.data_types),
            ("training_size", "Training data: sample size", "both", data.training_size),
            ("training_quality", "Training data: quality", "both", data.quality),
            ("training_reference", "Training data: reference standard", "both", data.reference),
            ("training_diversity", "Training data: diversity", "both", data.training_diversity),
        ),
    ),
    (
        "evidence",
        "Evidence of this run",
        (
            ("partitions", "Partitions and independence", "run", data.partitions),
            ("test_use", "Use of the held-out test set", "run", run.test_use),
            ("subgroups", "Subgroups", "run", run.subgroups),
            ("absent_attributes", "Absent attributes", "run", data.absent_attributes),
            ("memorisation", "Memorisation", "run", run.memorisation),
            ("membership", "Membership inference", "run", run.membership),
            ("synthetic_marking", "Synthetic marking", "run", run.synthetic_marking),
            ("seven_c", "7C table (quality of synthetic data)", "run", run.seven_c),
            ("pretrained", "Pre-trained components", "run", run.pretrained),
            ("funding", "Funding and third parties", "declared", None),
            ("consultation", "People consulted and consent", "declared", None),
            ("gmlp", "GMLP principles with statuses", "run", run.gmlp),
            ("hashes", "Run, commit, configuration, data and lock digests", "run", run.hashes),
            ("signature", "Who signed this run", "run", run.signature),
        ),
    ),
)
FIELD_IDS = tuple(entry[0] for _, _, entries in _SECTIONS for entry in entries)
DECLARABLE_FIELDS = {
    entry[0]: entry[1] for _, _, entries in _SECTIONS for entry in entries if entry[2] != "run"
}


def card_sections(evidence: ReportEvidence) -> tuple[CardSection, ...]:
    """Return all sections and fields of the card; each is filled or says why it is not."""
    return tuple(
        CardSection(key, title, tuple(_field(evidence, *entry) for entry in entries))
        for key, title, entries in _SECTIONS
    )


def card_field(evidence: ReportEvidence, field_id: str) -> Field:
    """Return one field of the card; KeyError when the card has no such field."""
    entries = {entry[0]: entry for _, _, listed in _SECTIONS for entry in listed}
    return _field(evidence, *entries[field_id])


def _field(
    evidence: ReportEvidence, key: str, title: str, origin: Origin, source: _Source | None
) -> Field:
    if source is None:
        return _declared_field(evidence, key, title)
    answer = source(evidence)
    if origin == "run":
        if isinstance(answer, str):
            return Field(key, title, origin, "not available", answer, ())
        return Field(key, title, origin, "filled", "", answer)
    declared = declared_text(evidence, key)
    if declared is None:
        why = why_no_text(evidence)
        if isinstance(answer, str):
            return Field(key, title, origin, "not available", f"{answer}; {why}", ())
        return Field(key, title, origin, "filled", f"declared part: {why}", answer)
    said = Text(f"Declared: {declared[0]}")
    if isinstance(answer, str):
        return Field(key, title, origin, "filled", f"{declared[1]}; {answer}", (said,))
    return Field(key, title, origin, "filled", declared[1], (*answer, said))


def _declared_field(evidence: ReportEvidence, key: str, title: str) -> Field:
    """Return a field that only people can fill."""
    declared = declared_text(evidence, key)
    if declared is None:
        return Field(key, title, "declared", "not declared", why_no_text(evidence), ())
    return Field(key, title, "declared", "filled", declared[1], (Text(declared[0]),))
