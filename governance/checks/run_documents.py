"""The documents that a run has left, as checks read them."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError

from governance.people.rules import RunFacts
from governance.records.audit import (
    ContentScan,
    CoverageAudit,
    DatasetAudit,
    DemographicsAudit,
    DuplicateAudit,
    LabelAudit,
)
from governance.records.base import Document
from governance.records.dataset import BoundaryChecks, DatasetIdentity, Findings, ValidationRecord
from governance.records.errors import EvidenceError
from governance.records.evaluation import Baseline, EvaluationRecord
from governance.records.files import sha256_bytes
from governance.records.lineage import ChangeRecord, Lineage
from governance.records.partition import IsolationRecord, SealRecord, SplitRecord
from governance.records.people import Declarations
from governance.records.run import (
    Environment,
    Figures,
    Hazards,
    IntegrityRecord,
    Outcome,
    Plan,
    RunIdentity,
)
from governance.records.run_files import DOCUMENTS
from governance.records.selftest import SelftestRecord
from governance.records.software import BillOfMaterials, SuiteReport, VulnerabilityScan
from governance.records.training import RepeatRecord, SampleSet, TrainingRecord
from governance.records.verdict import CardCheck, TraceTable

D = TypeVar("D", bound=Document)

# Document -> (attribute of Documents, why it may be absent).
_PARTS: dict[type[Document], tuple[str, str]] = {
    RunIdentity: ("run", "the identity of the run is not on record"),
    Environment: ("environment", "the environment is not on record"),
    Declarations: ("declarations", "the configuration names no declarations file"),
    Plan: ("plan", "the plan was not frozen"),
    SelftestRecord: ("selftest", "the guards were not tried in this run"),
    IsolationRecord: ("isolation", "the training step did not run to its end"),
    Outcome: ("outcome", "the run has not ended yet"),
    IntegrityRecord: ("integrity", "the evidence step did not run to its end"),
    BillOfMaterials: ("materials", "no bill of materials was written"),
    SuiteReport: (
        "tests",
        "no test result of this commit is on this machine; run make test on this commit first",
    ),
    VulnerabilityScan: (
        "scan",
        "no result of a scan for known vulnerabilities was given, and there is no database of them "
        "to scan with; name a file by evidence.vulnerability_scan",
    ),
    TraceTable: ("trace", "the evidence step did not run to its end"),
    Hazards: ("hazards", "the list of hazards is not on record"),
    Lineage: (
        "lineage",
        "no lineage is on record: no model was trained, or the run's files are damaged",
    ),
    ChangeRecord: ("change", "no change record was written"),
    CardCheck: ("card_check", "card and report were not drafted"),
    DatasetIdentity: ("dataset", "the ingest step did not run to its end"),
    Findings: ("findings", "the ingest step did not run to its end"),
    ValidationRecord: ("validation", "the validation step did not run to its end"),
    CoverageAudit: ("coverage", "the audit step did not run to its end"),
    BoundaryChecks: ("boundaries", "the validation step did not run to its end"),
    DatasetAudit: ("audit", "the audit step did not run to its end"),
    DemographicsAudit: ("demographics", "the audit step did not run to its end"),
    DuplicateAudit: ("duplicates", "the audit step did not run to its end"),
    ContentScan: ("content", "the audit step did not run to its end"),
    LabelAudit: ("labels", "the split step did not run to its end"),
    SplitRecord: ("split", "the split step did not run to its end"),
    SealRecord: ("seal", "the split step did not run to its end"),
    TrainingRecord: ("training", "the training step did not run to its end"),
    RepeatRecord: ("repeat", "the training step did not run to its end"),
    EvaluationRecord: ("evaluation", "the evaluation step did not run to its end"),
    Baseline: ("baseline", "the evaluation step did not run to its end"),
    SampleSet: ("samples", "no synthetic images were drawn"),
    Figures: ("figures", "no figures were drawn"),
}
PATHS = {kind: path for path, kind in DOCUMENTS.items()}
PART_PATHS = {attribute: PATHS[kind] for kind, (attribute, _) in _PARTS.items()}


class NotRunError(Exception):
    """A check asked for a document that the run did not leave."""


@dataclass(frozen=True)
class Documents:
    """What a run has left so far: one attribute a document, None when it is not there.

    Attributes:
        plan_sha256: Digest of plan.json; None when the plan was not frozen.
        now: Moment of judgement, with a time zone; None before there is one.
    """

    run: RunIdentity | None = None
    environment: Environment | None = None
    declarations: Declarations | None = None
    plan: Plan | None = None
    selftest: SelftestRecord | None = None
    isolation: IsolationRecord | None = None
    outcome: Outcome | None = None
    integrity: IntegrityRecord | None = None
    materials: BillOfMaterials | None = None
    tests: SuiteReport | None = None
    scan: VulnerabilityScan | None = None
    trace: TraceTable | None = None
    hazards: Hazards | None = None
    lineage: Lineage | None = None
    change: ChangeRecord | None = None
    card_check: CardCheck | None = None
    dataset: DatasetIdentity | None = None
    findings: Findings | None = None
    validation: ValidationRecord | None = None
    coverage: CoverageAudit | None = None
    boundaries: BoundaryChecks | None = None
    audit: DatasetAudit | None = None
    demographics: DemographicsAudit | None = None
    duplicates: DuplicateAudit | None = None
    content: ContentScan | None = None
    labels: LabelAudit | None = None
    split: SplitRecord | None = None
    seal: SealRecord | None = None
    training: TrainingRecord | None = None
    repeat: RepeatRecord | None = None
    evaluation: EvaluationRecord | None = None
    baseline: Baseline | None = None
    samples: SampleSet | None = None
    figures: Figures | None = None
    plan_sha256: str | None = None
    now: datetime | None = None

    @property
    def today(self) -> date:
        """Day of judgement, UTC; before there is one, the day on which declarations were read."""
        read = self.declarations.read_utc if self.declarations else None
        moment = self.now or read
        return moment.astimezone(UTC).date() if moment else date.max  # nothing is then in date

    @property
    def facts(self) -> RunFacts:
        """What people's word about this run must name."""
        return RunFacts(
            run=self.run.run_id if self.run else None,
            config=self.run.config_sha256 if self.run else None,
            version=self.run.tool_version if self.run else None,
            data=self.dataset.content_sha256 if self.dataset else None,
            model=self.run.generator if self.run else None,
        )

    @property
    def unit(self) -> str:
        """Unit that is counted and never divided: "patient" or "examination"."""
        return self.dataset.split_unit if self.dataset else "patient"

    @classmethod
    def load(cls, run_dir: Path) -> "Documents":
        """Read the documents that a run folder holds.

        Raises:
            EvidenceError: A document cannot be read or is not what its kind says; it is named.
        """
        parts: dict[str, Document] = {}
        plan_sha256 = None
        for kind, (attribute, _) in _PARTS.items():
            path = run_dir / PATHS[kind]
            try:
                data = path.read_bytes()
                parts[attribute] = kind.model_validate_json(data)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise EvidenceError(f"{path}: cannot be read ({error.strerror})") from error
            except ValidationError as error:
                fault = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(str(part) for part in fault["loc"]) or "document"
                raise EvidenceError(
                    f"{path}: not a readable {kind.__name__}: {place}: {fault['msg']}; "
                    "rerun the step that wrote it"
                ) from error
            if kind is Plan:
                plan_sha256 = sha256_bytes(data)
        return replace(cls(plan_sha256=plan_sha256), **parts)  # type: ignore[arg-type]

    def need(self, kind: type[D]) -> D:
        """Return the document of this kind; without it the check ends as NOT_EVALUATED."""
        attribute, absence = _PARTS[kind]
        document = getattr(self, attribute)
        if document is None:
            raise NotRunError(absence)
        return cast(D, document)
