"""One fault in the data at a time: the item, the fault, the status and words of the reason."""

from typing import Any

from governance.checks.judged_run import JudgedRun
from governance.records.audit import (
    DEVELOPMENT,
    AttributeShift,
    Concentration,
    Confounding,
    CoverageAudit,
    DeclaredAttribute,
    DemographicCell,
    MissingCombination,
    SuspectedLabel,
)
from governance.records.base import TEST, TRAINING, TUNING, ItemStatus
from governance.records.content import FileMetadata, IdentifyingColumn, TextMark
from governance.records.dataset import AbsentAttribute, FlowStep, RuleResult
from tests.governance.checks.faults import (
    FAILED,
    NOT_EVALUATED,
    PASSED,
    RECORDED,
    A,
    B,
    Change,
    both,
    but,
    entry,
    of,
    with_coverage,
    with_rules,
    without,
)
from tests.stored_run.stored import change

PAIRS = (f"{TRAINING} | {TUNING}", f"{TRAINING} | {TEST}", f"{TUNING} | {TEST}")
COLUMN = IdentifyingColumn(column="Exam_date", reason="looks like dates", n_values=9)
SUSPECT = SuspectedLabel(image_id="img-9", given="a", suggested="b", probability_of_given=0.1)


def at_boundary(**fields: Any) -> Change:
    """Change the one step boundary."""
    return but("boundaries", checks=(entry("boundaries", "checks", **fields),))


def rules(n_rows: int | None = None) -> tuple[RuleResult, ...]:
    """The results of the good run, or of rules that had so many rows to judge."""
    found = of("validation").rules
    return found if n_rows is None else tuple(change(r, n_evaluated=n_rows) for r in found)


def flow_step(step: str, total: tuple[int, int], **machines: tuple[int, int]) -> FlowStep:
    """Images and patients that a step left, in all and by machine."""
    flow = of("split").flow
    levels = tuple(
        change(flow.levels[0], level=level, n_images=n, n_patients=patients)
        for level, (n, patients) in machines.items()
    )
    return change(flow, step=step, n_images=total[0], n_patients=total[1], levels=levels)


def share(attribute: str, level: str, largest: float, n_images: int) -> Concentration:
    """Concentration of one class."""
    fields = {"level": level, "largest_share": largest, "n_images": n_images}
    return entry("audit", "concentration", attribute=attribute, **fields)


def shift(attribute: str, variation: float, **fields: Any) -> AttributeShift:
    """Shift of one attribute between training and the held-out test set."""
    found = {"total_variation": variation, "ci95": (variation / 2, variation * 2), **fields}
    return entry("audit", "shifts", attribute=attribute, **found)


def pair(left: str, right: str, v: float, **fields: Any) -> Confounding:
    """How far two attributes go together."""
    return entry("audit", "confounding", left=left, right=right, v=v, **fields)


def declared(name: str, completeness: float, **fields: Any) -> DeclaredAttribute:
    """An attribute that the contract declares."""
    found = {"column": name.title(), "completeness": completeness, **fields}
    return entry("demographics", "declared", name=name, **found)


def with_marks(*kinds: Any, **changes: Any) -> Change:
    """One image with a mark of each kind."""
    marks = tuple(
        TextMark(image_id=f"img-{kind}", kind=kind, text="##", confidence=0.9) for kind in kinds
    )
    return but("content", **{"marks": marks, "n_images_with_marks": len(marks), **changes})


def declaring(*attributes: DeclaredAttribute) -> Change:
    return but("demographics", declared=attributes)


def band(n_patients: int | None, partition: str) -> DemographicCell:
    """Patients of 35 years and above in one partition; None is withheld."""
    return DemographicCell(
        attributes=("maternal age",),
        levels=("35 and above",),
        partition=partition,
        n_patients=n_patients,
    )


NO_SUCH_PATIENT = MissingCombination(
    attributes=("site", "group"), levels=("A", "B"), partition="all", expected=8.1, p_value=1e-5
)


def counted_levels(
    *cells: DemographicCell, missing: tuple[MissingCombination, ...] | None = ()
) -> Change:
    return but("demographics", cells=cells, missing_combinations=missing)


def shifted(*shifts: AttributeShift) -> Change:
    return but("audit", shifts=shifts)


def classes(*entries: Concentration) -> Change:
    return but("audit", concentration=entries)


def pairs(*entries: Confounding) -> Change:
    return but("audit", confounding=entries)


def all_only(documents: JudgedRun) -> JudgedRun:
    """Coverage as the audit leaves it before the partitions are known."""
    levels = documents.need(CoverageAudit).levels
    kept = tuple(level for level in levels if level.partition == "all")
    return but("coverage", levels=kept)(documents)


def without_level(attribute: str, partition: str) -> Change:
    """Coverage that left one attribute out in one partition."""

    def apply(documents: JudgedRun) -> JudgedRun:
        kept = tuple(
            level
            for level in documents.need(CoverageAudit).levels
            if (level.attribute, level.partition) != (attribute, partition)
        )
        return but("coverage", levels=kept)(documents)

    return apply


DATA_CASES: list[tuple[str, Change, ItemStatus, str]] = [
    (
        "P2-12",
        with_rules(rule="patient_id_not_null", engine="pandera", passed=False, n_unexpected=2),
        FAILED,
        "patient_id_not_null (pandera, 2 rows)",
    ),
    ("P2-12", with_rules(rule="brain_plane_allowed", passed=False, n_unexpected=2), PASSED, ""),
    ("P2-12", but("validation", n_rows=0), NOT_EVALUATED, "no row to validate"),
    ("P2-12", but("validation", rules=rules()[:4]), NOT_EVALUATED, "great_expectations"),
    ("P2-12", but("validation", rules=()), NOT_EVALUATED, "great_expectations, pandera"),
    (
        "P2-12",
        with_rules(rule="patient_id_not_null", engine="pandera", n_evaluated=0),
        NOT_EVALUATED,
        "one engine only: patient_id_not_null",
    ),
    (
        "P3-01",
        but(
            "dataset",
            absent_attributes=(
                AbsentAttribute(name="ethnicity", consequence="no subgroup"),
                AbsentAttribute(name="maternal age", consequence="no subgroup"),
            ),
        ),
        FAILED,
        "not recorded: ethnicity, maternal age",
    ),
    ("P3-01", but("coverage", completeness={"machine": 0.94}), FAILED, "machine (94.0%)"),
    ("P3-01", but("coverage", completeness={"machine": 0.95}), PASSED, ""),
    (
        "P3-01",
        both(but("coverage", completeness={}), but("demographics", declared=())),
        NOT_EVALUATED,
        "no attribute",
    ),
    (
        "P3-02",
        without_level("plane", TRAINING),
        FAILED,
        "plane in training",
    ),
    ("P3-02", with_coverage({}), NOT_EVALUATED, "no attribute is recorded"),
    (
        "P3-03",
        with_coverage({"machine": {"E6": (500, 400), "S10": (1, 90)}}),
        FAILED,
        "machine S10: 1 in training",
    ),
    ("P3-03", with_coverage({"machine": {"E6": (30, 29)}}), FAILED, "E6: 29 in held-out test set"),
    ("P3-03", with_coverage({"machine": {"E6": (30, 30)}}), PASSED, ""),
    ("P3-03", with_coverage({"operator": {"Op. 1": (1, 1)}}), NOT_EVALUATED, "neither machine nor"),
    (
        "P3-08",
        but(
            "dataset",
            flow=(
                FlowStep(step="listed", n_images=250, n_patients=150),
                FlowStep(step="selected", n_images=300, n_patients=150),
            ),
        ),
        FAILED,
        "selected has more than listed",
    ),
    ("P3-08", but("dataset", n_listed=399), FAILED, "more than the 399 listed"),
    ("P3-08", but("split", dropped=("img: copy",)), FAILED, "1 were dropped"),
    ("P3-08", but("dataset", flow=()), NOT_EVALUATED, "not on record"),
    (
        "P4-01",
        but("split", shared_patients=dict(zip(PAIRS, (0, 2, 0), strict=True))),
        FAILED,
        "2 in training | held-out test set",
    ),
    ("P4-01", but("split", shared_patients={PAIRS[0]: 0}), NOT_EVALUATED, "not counted"),
    ("P4-01", but("split", shared_patients={PAIRS[0]: 3}), FAILED, "3 in"),
    (
        "P4-01",
        but("split", unit="examination"),
        NOT_EVALUATED,
        "examinations are of one patient",
    ),
    (
        "P4-01",
        but("split", refused="a patient is in both"),
        NOT_EVALUATED,
        "a patient is in both",
    ),
    (
        "P4-02",
        but("split", shared_content=dict(zip(PAIRS, (1, 0, 0), strict=True))),
        FAILED,
        "1 in training | tuning",
    ),
    ("P4-02", but("split", shared_content={}), NOT_EVALUATED, "not counted"),
    ("P4-02", but("split", unit="examination"), PASSED, ""),
    ("P4-04", but("split", official_available=False), NOT_EVALUATED, "no official split"),
    ("P4-04", but("split", source="computed"), FAILED, "no departure is stated"),
    ("P4-04", but("split", source="computed", deviations=("not used",)), PASSED, "not used"),
    ("P4-10", with_coverage({"machine": {"E6": (9, 0), "S10": (0, 9)}}), NOT_EVALUATED, "site"),
    ("P5-01", but("dataset", pinned_sha256=None), NOT_EVALUATED, f"`data.digest: {B}`"),
    ("P5-01", but("dataset", pinned_sha256=A), FAILED, f"content is {B}, pinned is {A}"),
    ("P5-01", but("dataset", content_sha256=None), NOT_EVALUATED, "not read to the end"),
    (
        "P5-02",
        with_rules(
            rule="brain_plane_only_with_fetal_brain", n_evaluated=9, n_unexpected=3, passed=False
        ),
        FAILED,
        "brain_plane_only_with_fetal_brain (3 images)",
    ),
    (
        "P5-02",
        with_rules(rule="brain_plane_allowed", n_unexpected=1, passed=False),
        FAILED,
        "brain_plane_allowed (1 images)",
    ),
    ("P5-02", but("validation", rules=rules()[:1]), NOT_EVALUATED, "was not run"),
    ("P5-02", but("validation", rules=rules(n_rows=0)), NOT_EVALUATED, "no image carries"),
    ("P2-12", at_boundary(failed=("row_unique",)), FAILED, "row_unique (s3_audit to s4_split)"),
    ("P2-12", at_boundary(n_rows=0), NOT_EVALUATED, "at a step boundary: s3_audit"),
    ("P2-12", at_boundary(n_rules=0), NOT_EVALUATED, "no row or no rule"),
    ("P2-12", but("boundaries", checks=()), NOT_EVALUATED, "no step boundary was checked"),
    ("P2-12", without("boundaries"), NOT_EVALUATED, "validation step"),
    (
        "P2-12",
        both(
            without("boundaries"),
            with_rules(rule="patient_id_not_null", engine="pandera", passed=False, n_unexpected=2),
        ),
        FAILED,
        "2 rows",
    ),
    ("P2-13", but("content", columns=(COLUMN,)), FAILED, "not reviewed: columns Exam_date"),
    ("P2-13", but("content", columns=(COLUMN,), reviewed=("Exam_date",)), PASSED, "nothing"),
    ("P2-13", but("content", columns=(COLUMN,), reviewed=("Exam_date: of import",)), PASSED, ""),
    (
        "P2-13",
        but(
            "content",
            file_metadata=(
                FileMetadata(
                    kind="EXIF", reason="may hold names", n_images=2, image_ids=("a", "b")
                ),
            ),
            n_images_with_metadata=2,
        ),
        FAILED,
        "in image files: EXIF of 2 images (a, b)",
    ),
    ("P2-13", with_marks("date"), FAILED, "burned in, images img-date"),
    ("P2-13", with_marks("name", "number"), FAILED, "img-name, img-number"),
    ("P2-13", with_marks("time"), PASSED, "120 images with a burned-in overlay, all read"),
    ("P2-13", with_marks("date", reviewed=("img-date: of the machine",)), PASSED, ""),
    ("P2-13", with_marks("date", n_images_with_marks=4), FAILED, "3 further images not named"),
    (
        "P2-13",
        but("content", n_scanned=299),
        NOT_EVALUATED,
        "299 of 300 images were read and 120 carry",
    ),
    # As many images were read as carry an overlay, but at random: others may have been read.
    ("P2-13", but("content", n_scanned=120), NOT_EVALUATED, "audit.n_text_images=all"),
    (
        "P2-13",
        but("content", reads_text=False, engine="overlay detector"),
        NOT_EVALUATED,
        "overlay detector does not read text",
    ),
    ("P2-13", but("content", reads_text=False, columns=(COLUMN,)), FAILED, "Exam_date"),
    ("P2-13", but("content", n_with_overlay=0, n_scanned=0), PASSED, "no overlay was found"),
    ("P2-13", but("content", n_images=0), NOT_EVALUATED, "no image or no column"),
    ("P2-13", but("content", n_columns=0), NOT_EVALUATED, "no image or no column"),
    ("P3-01", declaring(declared("parity", 0.94)), FAILED, "parity (94.0%)"),
    ("P3-01", declaring(declared("parity", 1.0, is_proxy=True)), FAILED, "not recorded: parity"),
    ("P3-01", but("demographics", undeclared=("BMI",)), FAILED, "not recorded: BMI"),
    (
        "P3-01",
        both(
            but("dataset", absent_attributes=(AbsentAttribute(name="Parity", consequence=""),)),
            declaring(declared("parity", 0.99)),
        ),
        PASSED,
        "parity (99.0%)",
    ),
    ("P3-02", but("split", refused="a patient is in both"), NOT_EVALUATED, "a patient is in"),
    ("P3-03", without("coverage"), NOT_EVALUATED, "audit step"),
    (
        "P3-03",
        counted_levels(band(0, TRAINING)),
        FAILED,
        "maternal age 35 and above: 0 in training",
    ),
    ("P3-03", counted_levels(band(29, DEVELOPMENT)), FAILED, "29 in training and tuning"),
    ("P3-03", counted_levels(band(40, TRAINING), band(30, TEST)), PASSED, "every level has enough"),
    ("P3-03", counted_levels(band(3, TUNING)), PASSED, ""),
    ("P3-03", counted_levels(band(None, TEST)), NOT_EVALUATED, "above in held-out test set"),
    (
        "P3-03",
        counted_levels(missing=(NO_SUCH_PATIENT,)),
        FAILED,
        "site A and group B: none where 8.1 were expected",
    ),
    ("P3-03", counted_levels(band(0, TRAINING), missing=None), PASSED, ""),  # an older audit
    ("P3-03", all_only, NOT_EVALUATED, "counts by partition are not on record"),
    ("P3-04", but("demographics", target_name="", distances=()), NOT_EVALUATED, "no target"),
    (
        "P3-04",
        but(
            "demographics", target_name="", distances=(), declared=(), undeclared=("BMI", "parity")
        ),
        NOT_EVALUATED,
        "no demographic attribute; not declared: BMI, parity",
    ),
    (
        "P3-04",
        but("demographics", distances=(), not_compared=("BMI: not recorded",)),
        NOT_EVALUATED,
        "nothing of births 2018 could be compared; not compared: BMI: not recorded",
    ),
    ("P3-05", shifted(shift("machine", 0.1), shift("plane", 0.0)), PASSED, "machine: 0.100"),
    (
        "P3-05",
        shifted(shift("machine", 0.11), shift("plane", 0.0)),
        NOT_EVALUATED,
        "above the limit of 0.1, but dealing patients at random gives up to",
    ),
    (
        "P3-05",
        shifted(shift("machine", 0.11), shift("plane", 0.12, floor=0.05)),
        FAILED,
        "largest for plane: 0.120",
    ),
    ("P3-05", shifted(shift("machine", 0.5)), FAILED, "machine: 0.500, 95 % interval 0.25 to 1.00"),
    ("P3-05", shifted(shift("machine", 0.5)), FAILED, "; more than dealing patients at random"),
    (
        "P3-05",
        shifted(shift("machine", 0.01, one_sided=("Aloka only in training",))),
        FAILED,
        "in one part only: machine Aloka only in training",
    ),
    ("P3-05", shifted(shift("machine", 0.05, right=TUNING)), NOT_EVALUATED, "was compared"),
    ("P3-05", shifted(), NOT_EVALUATED, "partitions are not known"),
    (
        "P3-06",
        classes(share("plane", "Other", 0.021, 95), share("all", "all", 0.01, 300)),
        FAILED,
        "plane Other (2.1% by one patient; 61.2 effective of 90 patients)",
    ),
    (
        "P3-06",
        classes(share("plane", "Other", 0.04, 49)),
        FAILED,
        "with 49 images too few to reach the limit",
    ),
    ("P3-06", classes(share("plane", "Other", 0.02, 50)), PASSED, "largest: plane Other"),
    ("P3-06", classes(share("plane", "not recorded", 0.9, 90)), NOT_EVALUATED, "no image"),
    ("P3-06", classes(), NOT_EVALUATED, "no image"),
    (
        "P3-07",
        pairs(pair("operator", "machine", 0.61, exclusive=("Op. 3 only with machine Aloka",))),
        FAILED,
        "operator and machine (V 0.61, p 0.001); Op. 3 only with machine Aloka",
    ),
    ("P3-07", pairs(pair("operator", "machine", 0.5)), PASSED, "largest: operator and machine"),
    (
        "P3-07",
        pairs(pair("operator", "machine", 0.61, p_value=0.2), pair("plane", "machine", 0.3)),
        NOT_EVALUATED,
        "(V 0.61, p 0.200); above the limit of 0.5, but permuting patients",
    ),
    (
        "P3-07",
        pairs(pair("operator", "machine", 0.61, p_value=0.2), pair("plane", "machine", 0.55)),
        FAILED,
        "above the limit: plane and machine (V 0.55",
    ),
    ("P3-07", pairs(), NOT_EVALUATED, "fewer than two attributes"),
    (
        "P3-08",
        but("split", flow=flow_step("divided", (300, 150), E6=(160, 75), S10=(140, 75))),
        FAILED,
        "divided has more of machine E6 than selected",
    ),
    (
        "P3-08",
        but("split", flow=flow_step("divided", (300, 150), E6=(150, 75), S10=(149, 75))),
        FAILED,
        "divided: levels of machine add up to 299 of 300 images",
    ),
    (
        "P3-08",
        but("split", flow=flow_step("divided", (299, 150), E6=(150, 75), S10=(149, 75))),
        FAILED,
        "divided has 299 images, selected left 300 and 0 were dropped",
    ),
    ("P3-08", but("split", flow=None), NOT_EVALUATED, "by subgroup: partitions"),
    ("P3-08", but("split", flow=flow_step("divided", (300, 150))), NOT_EVALUATED, "divided"),
    ("P3-08", but("split", refused="a patient is in both"), NOT_EVALUATED, "is in both"),
    (
        "P4-02",
        but("split", refused="a picture is in both"),
        NOT_EVALUATED,
        "a picture is in both",
    ),
    (
        "P4-03",
        but("split", shared_near=dict(zip(PAIRS, (0, 3, 1), strict=True))),
        FAILED,
        "3 in training | held-out test set; 1 in tuning | held-out test set",
    ),
    ("P4-03", but("split", shared_near={}), NOT_EVALUATED, "not counted"),
    ("P4-03", but("duplicates", null=None), NOT_EVALUATED, "were not searched"),
    ("P4-03", but("duplicates", n_images=299), NOT_EVALUATED, "299 of 300 images were searched"),
    ("P4-03", but("split", refused="a patient is in both"), NOT_EVALUATED, "is in both"),
    (
        "P4-03",
        but("duplicates", distinct=("x and y: two fetuses",)),
        PASSED,
        "1 pair declared to be different images: x and y: two fetuses",
    ),
    ("P5-03", but("labels", n_suspected=4, suspects=(SUSPECT,)), FAILED, "4 suspected (2.5% of"),
    ("P5-03", but("labels", n_suspected=4, suspects=(SUSPECT,)), FAILED, "not reviewed: img-9"),
    ("P5-03", but("labels", reason="too few patients"), NOT_EVALUATED, "too few patients"),
    ("P5-03", but("labels", balanced_accuracy=None), NOT_EVALUATED, "not on record"),
    ("P5-03", but("labels", balanced_accuracy=0.5), NOT_EVALUATED, "cannot judge these labels"),
    ("P5-03", but("labels", classes={"a": 160}), NOT_EVALUATED, "fewer than two classes"),
    ("P5-04", but("labels", reason="too few patients"), NOT_EVALUATED, "too few patients"),
    ("P5-04", but("labels", effect=""), NOT_EVALUATED, "the effect is not stated"),
    ("P5-04", but("labels", effect="at most 2.5 %"), RECORDED, "at most 2.5 %"),
]
