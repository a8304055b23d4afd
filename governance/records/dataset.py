"""Documents of ingest and validation: identity of the data, faults found, contract results."""

from typing import Any, Literal

from pydantic import Field

from governance.records.base import Document, Sha256
from governance.records.errors import Finding


class AbsentAttribute(Document):
    """An attribute that the data set does not record, and what that prevents."""

    name: str
    consequence: str


class FlowLevel(Document):
    """Images and patients of one level of one attribute that remain after a step."""

    attribute: str
    level: str  # "not recorded" for images without a value
    n_images: int
    n_patients: int


class FlowStep(Document):
    """Images and patients that remain after one step, from listing to partitions.

    Attributes:
        step: "listed", "selected", "present", "decoded".
        n_images: Images left.
        n_patients: Patients left; one may count in several levels below.
        note: Criterion of the step, or why images were lost.
        levels: The same images by level of each recorded attribute; the images of an attribute's
            levels add up to `n_images`.
    """

    step: str
    n_images: int
    n_patients: int
    note: str = ""
    levels: tuple[FlowLevel, ...] = ()


class DatasetIdentity(Document):
    """Identity of the data set (data/dataset.json).

    Attributes:
        name: Adapter name, e.g. "hc18".
        title: Full title.
        version: Publisher's version; empty when it has none.
        doi: DOI; empty when it has none.
        licence: Licence of the data.
        citation: How to cite it.
        is_simulated: True for phantoms: no patient is behind any image.
        split_unit: Unit that is never divided: "patient" or "examination".
        split_unit_note: What that unit can and cannot guarantee; may be empty.
        metadata_file: Metadata file, relative to the data root.
        metadata_sha256: Its digest.
        content_sha256: Digest over (id, pixel digest, labels) of every selected image.
        pinned_sha256: The content_sha256 that the configuration expects; None when not pinned.
        n_listed: Rows of the metadata file.
        n_missing: Listed images without a file.
        missing_policy: "error" or "drop".
        missing_examples: Up to 20 missing files.
        planes: Planes selected, as configured.
        absent_attributes: Attributes not recorded.
        flow: Images and patients left after each selection step.
        notes: What a reader must know about this data set.
        n_decoded: Images decoded in this run.
        n_from_cache: Images whose file digest was known, so that an earlier decoding was used.
        decode_s: Seconds of reading, digesting and decoding them; None in older runs.
        unread: Sentences on files and columns in the data folder that nothing reads, each with a
            count; None in older runs.
        mapping_sha256: Digest of the `dataset.yaml` that says what the metadata file means; None
            where an adapter's code does.
        convert: Settings by which files that are no 8-bit PNG were converted; None where nothing
            was.
        conversions: What was done to images, in words -> number of images; empty where nothing was.
    """

    PATH = "data/dataset.json"
    ABSENCE = "the ingest step did not run to its end"

    name: str
    title: str
    version: str
    doi: str
    licence: str
    citation: str
    is_simulated: bool
    split_unit: str
    split_unit_note: str
    metadata_file: str
    metadata_sha256: Sha256
    content_sha256: Sha256 | None
    pinned_sha256: Sha256 | None
    n_listed: int
    n_missing: int
    missing_policy: str
    missing_examples: tuple[str, ...]
    planes: str
    absent_attributes: tuple[AbsentAttribute, ...]
    flow: tuple[FlowStep, ...]
    notes: tuple[str, ...] = ()
    n_decoded: int = 0
    n_from_cache: int = 0
    decode_s: float | None = None
    unread: tuple[str, ...] | None = None
    mapping_sha256: Sha256 | None = None
    convert: dict[str, Any] | None = None
    conversions: dict[str, int] = Field(default_factory=dict)


class Findings(Document):
    """Every fault found in the data (data/findings.json)."""

    PATH = "data/findings.json"
    ABSENCE = "the ingest step did not run to its end"

    findings: tuple[Finding, ...]


Engine = Literal["pandera", "great_expectations"]
Severity = Literal["critical", "warning", "info"]


class RuleBreak(Document):
    """One value that broke a rule of the data contract.

    Attributes:
        image_id: Image.
        row: Line of the image in the metadata file.
        value: Value, at most 80 characters, control characters escaped; "(empty)" where missing.
        nearest: Allowed value nearest to it; "" where the rule names none or none is alike.
    """

    image_id: str
    row: int
    value: str
    nearest: str = ""

    @property
    def sentence(self) -> str:
        """Name the image with its row, the value and the nearest that is allowed."""
        near = f", nearest allowed {self.nearest}" if self.nearest else ""
        return f"row {self.row}, {self.image_id}: {self.value}{near}"


class RuleResult(Document):
    """Result of one rule of the data contract in one engine.

    Attributes:
        engine: Engine that checked it.
        rule: Name of the rule.
        column: Column; empty for the number of rows.
        severity: "critical", "warning" or "info".
        passed: Whether nothing broke the rule; meaningless where `n_evaluated` is 0.
        n_evaluated: Values checked (1 for a rule about the column or table itself). 0 means that
            there was nothing to check: not recorded, or blocked by a missing or mistyped column.
        n_unexpected: Values that broke the rule.
        reason: Why the rule is there, or why it could not be checked.
        examples: At most 5 offending values, each at most 80 characters, control characters
            escaped.
        breaks: The first 20 values that broke the rule, with their images; given by pandera for
            rules about single images, empty in older runs.
    """

    engine: Engine
    rule: str
    column: str
    severity: Severity
    passed: bool
    n_evaluated: int
    n_unexpected: int
    reason: str
    examples: tuple[str, ...] = ()
    breaks: tuple[RuleBreak, ...] = ()


class ValidationRecord(Document):
    """Results of both engines on the image table (data/validation.json).

    Attributes:
        contract: Name of the contract, e.g. "hc18".
        contract_version: Its version.
        contract_files: YAML files that it was made of, base first, each with its SHA-256; a
            user's own contract beside the data is the last.
        n_rows: Rows of the table.
        engine_versions: Version of each engine.
        rules: Every rule, once for each engine.
        native_results: File with Great Expectations' own result, relative to the run folder.
    """

    PATH = "data/validation.json"
    ABSENCE = "the validation step did not run to its end"

    contract: str
    contract_version: str
    n_rows: int
    engine_versions: dict[str, str]
    rules: tuple[RuleResult, ...]
    contract_files: tuple[tuple[str, Sha256], ...] = ()
    native_results: str = ""


class BoundaryCheck(Document):
    """Result of the rules on what one step hands to the next.

    Attributes:
        boundary: E.g. "s3_audit to s4_split".
        n_rows: Images handed on.
        n_rules: Rules checked.
        failed: Names of the rules that did not hold.
    """

    boundary: str
    n_rows: int
    n_rules: int
    failed: tuple[str, ...] = ()


class BoundaryChecks(Document):
    """Results at every step boundary (data/boundaries.json), written when the evidence closes."""

    PATH = "data/boundaries.json"
    ABSENCE = "the validation step did not run to its end"

    checks: tuple[BoundaryCheck, ...]
