"""Evidence as reports read it: only what the manifest lists, and only if its digest holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ValidationError

from governance.evidence.manifest import MANIFEST, evidence_root, is_safe_path, read_manifest
from governance.records.audit import (
    ContentScan,
    CoverageAudit,
    DatasetAudit,
    DemographicsAudit,
    DuplicateAudit,
    LabelAudit,
)
from governance.records.dataset import BoundaryChecks, DatasetIdentity, Findings, ValidationRecord
from governance.records.errors import EvidenceError, EvidenceTamperedError
from governance.records.evaluation import Baseline, EvaluationRecord
from governance.records.files import sha256_bytes
from governance.records.lineage import ChangeRecord, Lineage
from governance.records.manifest import Manifest
from governance.records.partition import IsolationRecord, SealRecord, SplitRecord
from governance.records.people import Declarations, SigningRecord
from governance.records.policy import Policy
from governance.records.run import (
    Environment,
    Figures,
    Hazards,
    IntegrityRecord,
    Outcome,
    Plan,
    RollUp,
    RunIdentity,
)
from governance.records.selftest import SelftestRecord
from governance.records.software import BillOfMaterials, SuiteReport, VulnerabilityScan
from governance.records.training import RepeatRecord, SampleSet, TrainingRecord
from governance.records.verdict import CardCheck, ItemRecord, TraceTable

_Model = TypeVar("_Model", bound=BaseModel)
_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
_LARGEST_PICTURE_PIXELS = 25_000_000


@dataclass(frozen=True)
class PictureFile:
    """A picture of the run folder: its bytes, media type and size in pixels."""

    data: bytes
    media_type: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class ReportEvidence:
    """Everything a report may say. A document is None when the step that writes it did not run.

    Attributes:
        manifest: Files, digests, evidence root and journal head.
        run: Identity of the run.
        summary: Statuses and gate.
        policy: Policy that was in force; None when neither plan nor caller gave one.
        records: Item records by item id.
        pictures: Picture files by path.
        digests: SHA-256 of every evidence file by path.
        declarations: People's word as it was when the run began.
        selftest: How the guards did on planted faults before the run's first step.
        scan: Supplied scan for known vulnerabilities.
        tests: Result of the framework's tests at the same commit.
        repeat: First steps of training made twice.
        trace: Links from principles to evidence.
    """

    manifest: Manifest
    run: RunIdentity
    summary: RollUp
    outcome: Outcome | None
    environment: Environment | None
    plan: Plan | None
    policy: Policy | None
    dataset: DatasetIdentity | None
    findings: Findings | None
    validation: ValidationRecord | None
    coverage: CoverageAudit | None
    boundaries: BoundaryChecks | None
    audit: DatasetAudit | None
    demographics: DemographicsAudit | None
    duplicates: DuplicateAudit | None
    content: ContentScan | None
    labels: LabelAudit | None
    split: SplitRecord | None
    seal: SealRecord | None
    isolation: IsolationRecord | None
    training: TrainingRecord | None
    samples: SampleSet | None
    evaluation: EvaluationRecord | None
    figures: Figures | None
    integrity: IntegrityRecord | None
    signing: SigningRecord | None
    records: Mapping[str, ItemRecord]
    pictures: Mapping[str, PictureFile]
    digests: Mapping[str, str]
    declarations: Declarations | None = None
    selftest: SelftestRecord | None = None
    materials: BillOfMaterials | None = None
    scan: VulnerabilityScan | None = None
    tests: SuiteReport | None = None
    repeat: RepeatRecord | None = None
    trace: TraceTable | None = None
    hazards: Hazards | None = None
    lineage: Lineage | None = None
    change: ChangeRecord | None = None
    baseline: Baseline | None = None
    card_check: CardCheck | None = None

    @property
    def unit(self) -> str:
        """Unit that is counted and never divided: "patient", or what the data set records."""
        return self.dataset.split_unit if self.dataset else "patient"


class _EvidenceFiles:
    """Reads evidence files of one run folder and checks each against the manifest."""

    def __init__(self, run_dir: Path, manifest: Manifest) -> None:
        self._root = run_dir.resolve()
        self.digests = {entry.path: entry.sha256 for entry in manifest.evidence}

    def read(self, path: str) -> bytes | None:
        """Bytes of an evidence file; None when the manifest does not list it.

        Raises:
            EvidenceTamperedError: Its digest is not the recorded one.
            EvidenceError: It is missing or lies outside the run folder.
        """
        if path not in self.digests:
            return None
        file = self._root / path
        if not is_safe_path(path) or self._root not in file.resolve().parents:
            raise EvidenceError(f"manifest.json: {path!r} lies outside the run folder")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise EvidenceError(
                f"{file}: listed in manifest.json but cannot be read ({error.strerror}); "
                "restore the file"
            ) from error
        found = sha256_bytes(data)
        if found != self.digests[path]:
            raise EvidenceTamperedError(file, expected=self.digests[path], found=found)
        return data

    def document(self, path: str, kind: type[_Model]) -> _Model | None:
        """Parsed document; None when the manifest does not list it."""
        data = self.read(path)
        return None if data is None else _parse(self._root / path, data, kind)

    def required(self, path: str, kind: type[_Model]) -> _Model:
        """Parsed document that every run has."""
        document = self.document(path, kind)
        if document is None:
            raise EvidenceError(
                f"{self._root}: manifest.json lists no {path}; without it there is no report"
            )
        return document


def _parse(path: Path, data: bytes, kind: type[_Model]) -> _Model:
    """Parse a JSON document.

    Raises:
        EvidenceError: It is not what its kind says; the first fault is named.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "document"
        raise EvidenceError(
            f"{path}: not a readable {kind.__name__}: {where}: {fault['msg']}"
        ) from error


def load_evidence(run_dir: Path, policy: Policy | None = None) -> ReportEvidence:
    """Read a run's evidence through its manifest, checking the digest of each file read.

    Args:
        run_dir: Run folder that holds manifest.json.
        policy: Policy to use when the run was stopped before it froze one in plan.json.

    Raises:
        EvidenceTamperedError: A file's digest differs from the manifest's.
        EvidenceError: A listed file is missing, unreadable or not what it should be.
    """
    manifest = _manifest(run_dir)
    files = _EvidenceFiles(run_dir, manifest)
    summary = files.required("summary.json", RollUp)
    return _read(run_dir, manifest, summary, _records(files), policy)


def draft_evidence(
    run_dir: Path,
    manifest: Manifest,
    *,
    summary: RollUp,
    records: Sequence[ItemRecord],
    policy: Policy,
) -> ReportEvidence:
    """Read the evidence of a run that is not closed yet, for a draft of card and report.

    Args:
        run_dir: Run folder.
        manifest: What is on record so far; its root and journal head are not the last ones.
        summary: Statuses as they stand.
        records: Item records as they stand.
        policy: Policy to use when the run was stopped before it froze one.

    Raises:
        EvidenceTamperedError: A file's digest differs from the one on record.
        EvidenceError: A file on record is missing, unreadable or not what it should be.
    """
    by_id = {record.id: record for record in records}
    return _read(run_dir, manifest, summary, by_id, policy)


def _read(
    run_dir: Path,
    manifest: Manifest,
    summary: RollUp,
    records: Mapping[str, ItemRecord],
    policy: Policy | None,
) -> ReportEvidence:
    files = _EvidenceFiles(run_dir, manifest)
    plan = files.document("plan.json", Plan)
    figures = files.document("figures/figures.json", Figures)
    return ReportEvidence(
        manifest=manifest,
        run=_run(run_dir, files, manifest),
        summary=summary,
        outcome=files.document("outcome.json", Outcome),
        environment=files.document("environment.json", Environment),
        plan=plan,
        policy=_policy(run_dir, plan) or policy,
        dataset=files.document("data/dataset.json", DatasetIdentity),
        findings=files.document("data/findings.json", Findings),
        validation=files.document("data/validation.json", ValidationRecord),
        coverage=files.document("data/coverage.json", CoverageAudit),
        boundaries=files.document("data/boundaries.json", BoundaryChecks),
        audit=files.document("data/audit.json", DatasetAudit),
        demographics=files.document("data/demographics.json", DemographicsAudit),
        duplicates=files.document("data/duplicates.json", DuplicateAudit),
        content=files.document("data/content.json", ContentScan),
        labels=files.document("data/labels.json", LabelAudit),
        split=files.document("data/split.json", SplitRecord),
        seal=files.document("data/seal.json", SealRecord),
        isolation=files.document("isolation.json", IsolationRecord),
        training=files.document("metrics/training.json", TrainingRecord),
        samples=files.document("samples/manifest.json", SampleSet),
        evaluation=files.document("metrics/evaluation.json", EvaluationRecord),
        figures=figures,
        integrity=files.document("integrity.json", IntegrityRecord),
        signing=files.document("signing.json", SigningRecord),
        records=records,
        pictures=_pictures(run_dir, files, figures),
        digests=files.digests,
        declarations=files.document("declarations.json", Declarations),
        selftest=files.document("selftest.json", SelftestRecord),
        materials=files.document("software/bill_of_materials.json", BillOfMaterials),
        scan=files.document("software/vulnerabilities.json", VulnerabilityScan),
        tests=files.document("software/tests.json", SuiteReport),
        repeat=files.document("metrics/repeat.json", RepeatRecord),
        trace=files.document("trace.json", TraceTable),
        hazards=files.document("hazards.json", Hazards),
        lineage=files.document("lineage.json", Lineage),
        change=files.document("change.json", ChangeRecord),
        baseline=files.document("metrics/baseline.json", Baseline),
        card_check=files.document("card_check.json", CardCheck),
    )


def _manifest(run_dir: Path) -> Manifest:
    manifest = read_manifest(run_dir)
    if evidence_root(manifest.evidence) != manifest.evidence_root:
        raise EvidenceError(
            f"{run_dir / MANIFEST}: the evidence root is not that of the files listed; "
            "the manifest was changed: restore it"
        )
    return manifest


def _run(run_dir: Path, files: _EvidenceFiles, manifest: Manifest) -> RunIdentity:
    run = files.required("run.json", RunIdentity)
    if run.run_id != manifest.run_id:
        raise EvidenceError(
            f"{run_dir / 'run.json'}: is of run {run.run_id!r}, the manifest of "
            f"{manifest.run_id!r}; restore the right file"
        )
    return run


def _policy(run_dir: Path, plan: Plan | None) -> Policy | None:
    if plan is None:
        return None
    try:
        return Policy.model_validate(plan.policy)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "policy"
        raise EvidenceError(
            f"{run_dir / 'plan.json'}: not a readable policy: {where}: {fault['msg']}"
        ) from error


def _records(files: _EvidenceFiles) -> dict[str, ItemRecord]:
    records = {}
    for path in sorted(files.digests):
        if path.startswith("records/") and path.endswith(".json"):
            record = files.required(path, ItemRecord)
            records[record.id] = record
    return records


def _pictures(
    run_dir: Path, files: _EvidenceFiles, figures: Figures | None
) -> dict[str, PictureFile]:
    pictures = {}
    for figure in figures.figures if figures else ():
        data = files.read(figure.path)
        if data is None:
            raise EvidenceError(
                f"{run_dir / 'figures/figures.json'}: {figure.path!r} is not in manifest.json"
            )
        pictures[figure.path] = _picture(run_dir / figure.path, data)
    return pictures


def read_pictures(folder: Path, figures: Figures | None) -> dict[str, PictureFile]:
    """Picture files that were written a moment ago, outside any run; none is checked by digest.

    Args:
        folder: Folder that the paths start from.
        figures: Pictures wanted; None for none.

    Raises:
        EvidenceError: A file is not a readable PNG or JPEG picture.
    """
    paths = [figure.path for figure in figures.figures] if figures else []
    return {path: _picture(folder / path, (folder / path).read_bytes()) for path in paths}


def _picture(path: Path, data: bytes) -> PictureFile:
    try:
        with Image.open(BytesIO(data), formats=list(_MEDIA_TYPES)) as image:
            width, height, kind = image.width, image.height, image.format or ""
            if width * height > _LARGEST_PICTURE_PIXELS:
                raise EvidenceError(
                    f"{path}: {width} x {height} pixels, at most {_LARGEST_PICTURE_PIXELS:,}"
                )
            image.load()
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
    ) as error:
        raise EvidenceError(f"{path}: not a readable PNG or JPEG picture ({error})") from error
    return PictureFile(data, _MEDIA_TYPES[kind], width, height)
