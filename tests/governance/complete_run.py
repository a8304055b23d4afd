"""A run in which all went well, as documents, and ways to spoil one of them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS
from governance.evidence.folder import RunFolder
from governance.policy.load import load_policy, with_criteria
from governance.records.audit import (
    AttributeShift,
    Concentration,
    Confounding,
    CoverageAudit,
    CoverageLevel,
    DatasetAudit,
    DeclaredAttribute,
    DemographicsAudit,
    LabelAudit,
    TargetDistance,
)
from governance.records.base import TEST, TRAINING, TUNING, Document, ItemStatus
from governance.records.comparison import Control, TuningComparison
from governance.records.content import ContentScan
from governance.records.dataset import (
    BoundaryCheck,
    BoundaryChecks,
    DatasetIdentity,
    Findings,
    FlowLevel,
    FlowStep,
    RuleResult,
    ValidationRecord,
)
from governance.records.duplicates import DuplicateAudit, SimilarityNull
from governance.records.evaluation import (
    Baseline,
    DiversityRecord,
    EvaluationRecord,
    FeatureStatistics,
    ImageStatistic,
    MembershipRecord,
    MemorisationRecord,
    MetricResult,
    NearestPair,
    Opening,
    RobustnessLoss,
    SamplingRepeat,
    SubgroupGap,
)
from governance.records.item import CardCheck, CheckResult, TracedPart, TraceLine, TraceTable
from governance.records.lineage import (
    ChangedMetric,
    ChangedValue,
    ChangeRecord,
    DataDelta,
    Drift,
    Lineage,
    ParentRun,
    SeedRun,
)
from governance.records.partition import (
    IsolationRecord,
    PartitionSummary,
    RefusedRead,
    SealRecord,
    SplitRecord,
)
from governance.records.people import AppliesTo, Declaration, Declarations, DeclaredScope
from governance.records.run import (
    Environment,
    Figure,
    Figures,
    Hazard,
    Hazards,
    IntegrityRecord,
    Outcome,
    Package,
    Plan,
    RunIdentity,
)
from governance.records.software import (
    BillOfMaterials,
    MalformedInput,
    SuiteReport,
    VulnerabilityScan,
)
from governance.records.training import (
    Candidate,
    Curve,
    FittedThing,
    PretrainedComponent,
    RepeatRecord,
    SampleSet,
    Selection,
    TrainingRecord,
)
from tests.governance.checks.selftest_cases import ALL, record

PASSED, FAILED = ItemStatus.PASSED, ItemStatus.FAILED
RECORDED, NOT_EVALUATED = ItemStatus.RECORDED, ItemStatus.NOT_EVALUATED

START = datetime(2026, 11, 2, 9, 0, 0, tzinfo=UTC)
POLICY = load_policy()
A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
PAIRS = (f"{TRAINING} | {TUNING}", f"{TRAINING} | {TEST}", f"{TUNING} | {TEST}")
INCEPTION = "inception_pool3"
SCOPE = DeclaredScope(
    planes=("Fetal brain",),
    machines=("E6", "S10"),
    image_size_px=(32, 64),
    output_roles=("research",),
)
DESCRIPTION = {
    "architecture": "text",
    "sizes": "text",
    "losses": "text",
    "optimiser": "text",
    "schedule": "text",
    "augmentation": "text",
    "pre-training": "text",
}

Change = Callable[[JudgedRun], JudgedRun]


def rules(n_rows: int = 300) -> tuple[RuleResult, ...]:
    named = [
        ("patient_id_not_null", "patient_id", "critical", n_rows),
        ("brain_plane_only_with_fetal_brain", "brain_plane", "critical", 0),
        ("fetal_brain_has_brain_plane", "brain_plane", "critical", n_rows),
        ("brain_plane_allowed", "brain_plane", "warning", n_rows),
    ]
    return tuple(
        RuleResult.model_validate(
            {
                "engine": engine,
                "rule": name,
                "column": column,
                "severity": severity,
                "passed": True,
                "n_evaluated": n,
                "n_unexpected": 0,
                "reason": "why",
            }
        )
        for engine in ("pandera", "great_expectations")
        for name, column, severity, n in named
    )


def levels(counts: dict[str, dict[str, tuple[int, int]]]) -> tuple[CoverageLevel, ...]:
    """attribute -> level -> (training patients, test patients)."""
    return tuple(
        CoverageLevel(
            attribute=attribute, level=level, partition=part, n_patients=n, n_images=2 * n
        )
        for attribute, by_level in counts.items()
        for level, (training, test) in by_level.items()
        for part, n in (("all", training + test), (TRAINING, training), (TUNING, 9), (TEST, test))
    )


def metric(family: str, **changes: Any) -> MetricResult:
    return MetricResult.model_validate(
        {
            "id": f"{family}-{INCEPTION}-d2048-n100",
            "title": family.upper(),
            "status": "recorded",
            "value": 0.05,
            "ci95": (0.04, 0.07),
            "floor": 0.01,
            "floor_ci95": (0.0, 0.02),
            "n_real": 100,
            "n_synthetic": 100,
            "n_patients": 60,
            "extractor": INCEPTION,
            "extractor_sha256": D,
            "n_features": 2048,
            "reason": "below 4,096 images: compare with its floor" if family == "fid" else "",
            **changes,
        }
    )


def gap(**changes: Any) -> SubgroupGap:
    """A gap between two machines that ends within the limit of 0.05, unless changed."""
    return SubgroupGap.model_validate(
        {
            "attribute": "machine",
            "worst": "S10",
            "best": "E6",
            "value": 0.01,
            "ci95": (-0.01, 0.03),
            "p_value": 0.4,
            "n_comparisons": 3,
            **changes,
        }
    )


def loss(alteration: str, **changes: Any) -> RobustnessLoss:
    """A loss under an alteration that ends within the limit of 0.05, unless changed."""
    return RobustnessLoss.model_validate(
        {"alteration": alteration, "value": 0.01, "ci95": (0.0, 0.03), "n_images": 48, **changes}
    )


def declaration(**changes: Any) -> Declaration:
    """An entry that counts for the run of this module, unless changed."""
    fields = {
        "id": "P1-H1",
        "statement": "For research on image synthesis; not a device.",
        "owner_name": "Ada Beispiel",
        "owner_role": "fetal medicine",
        "date": date(2026, 10, 1),
        "reference": "minutes 12",
        "applies_to": AppliesTo(config=A),
        "meaning": "approver",
        "expires": date(2027, 10, 1),
        "scope": SCOPE,
    }
    return Declaration.model_validate(fields | changes)


def _run() -> dict[str, Any]:
    return {
        "declarations": Declarations(
            file="declarations.yaml", sha256=B, read_utc=START, declarations=(declaration(),)
        ),
        "selftest": record(*ALL),
        "run": RunIdentity(
            run_id="20261102T090000Z-abc",
            started_utc=START,
            tool_version="0.1.0",
            code_commit="1" * 40,
            code_clean=True,
            command=("medisynth-gov", "run"),
            preset="smoke",
            generator="dsr-gan",
            seed=0,
            config_sha256=A,
            output_role="research",
        ),
        "environment": Environment(
            python="3.11.7",
            platform="Linux",
            cpu_count=2,
            memory_bytes=None,
            compute_device="cpu",
            packages=(
                Package(name="medisynth-gov", version="0.1.0"),
                Package(name="numpy", version="2.0", locked="2.0"),
            ),
            lock_file="constraints.txt",
        ),
        "materials": BillOfMaterials(
            path="sbom.cdx.json",
            sha256=A,
            spec_version="1.6",
            serial_number="urn:uuid:1",
            n_packages=1,
            n_without_licence=0,
            n_pretrained=1,
        ),
        "tests": SuiteReport(
            commit="1" * 40,
            clean=True,
            finished_utc=START,
            duration_s=300,
            python="3.11.7",
            selection="not slow",
            exit_status=0,
            n_passed=3000,
            n_failed=0,
            n_errors=0,
            n_skipped=2,
            n_deselected=10,
            malformed=tuple(
                MalformedInput(kind=kind, n_passed=9, n_failed=0, n_skipped=0)
                for kind in ("checkpoint", "config", "csv", "png")
            ),
        ),
        "trace": TraceTable(
            lines=(TraceLine(principle="P1", item_id="P1-01", status="passed"),),
            n_links=3,
            broken=(),
        ),
        "scan": VulnerabilityScan(
            file="scan.json",
            sha256=B,
            read_utc=START,
            packages=(Package(name="numpy", version="2.0"),),
            skipped=(("medisynth-gov", "not found on PyPI"),),
            vulnerabilities=(),
        ),
        "plan": Plan(
            frozen_utc=START,
            config_sha256=A,
            policy=POLICY.model_dump(mode="json"),
            primary_endpoint="KID on Inception features, synthetic against held-out test set",
            endpoints=("FID",),
            subgroups=("plane", "machine"),
            statistics="95 % intervals by patient bootstrap",
            multiplicity="one primary endpoint",
        ),
        "outcome": Outcome(
            status="finished",
            stopped_at=None,
            error_code=None,
            message="",
            steps=(),
            duration_s=12.5,
        ),
        "integrity": IntegrityRecord(
            n_files=20,
            mismatches=(),
            unregistered=(),
            journal_events=40,
            journal_head=B,
            journal_faults=(),
        ),
    }


def _data() -> dict[str, Any]:
    return {
        **_audits(),
        "dataset": DatasetIdentity(
            name="fetal-planes-db",
            title="FETAL_PLANES_DB",
            version="1.0",
            doi="10.5281/zenodo.3904280",
            licence="CC BY 4.0",
            citation="Burgos-Artizzu 2020",
            is_simulated=False,
            split_unit="patient",
            split_unit_note="",
            metadata_file="data.csv",
            metadata_sha256=A,
            content_sha256=B,
            pinned_sha256=B,
            n_listed=400,
            n_missing=0,
            missing_policy="error",
            missing_examples=(),
            planes="default",
            absent_attributes=(),
            flow=(
                flow_step("listed", (400, 200), E6=(200, 100), S10=(200, 100)),
                flow_step("selected", (300, 150), E6=(150, 75), S10=(150, 75)),
            ),
        ),
        "findings": Findings(findings=()),
        "validation": ValidationRecord(
            contract="image-table",
            contract_version="1",
            n_rows=300,
            engine_versions={},
            rules=rules(),
        ),
        "coverage": CoverageAudit(
            attributes=("plane", "machine"),
            levels=levels(
                {
                    "plane": {"Fetal brain": (80, 50)},
                    "machine": {"E6": (40, 30), "S10": (40, 30)},
                }
            ),
            completeness={"plane": 1.0, "machine": 0.96},
        ),
        "duplicates": DuplicateAudit(
            method="pixels",
            n_images=300,
            n_pairs=0,
            n_pairs_across_patients=0,
            n_pairs_across_partitions=0,
            pairs=(),
            null=SimilarityNull(n_pairs=9_000, nearest=(0.4, 0.8), threshold=0.92, highest=0.8),
        ),
        "split": SplitRecord(
            source="official",
            official_available=True,
            seed=0,
            unit="patient",
            partitions=(
                PartitionSummary(partition=TRAINING, n_images=160, n_patients=80, sha256=A),
                PartitionSummary(partition=TUNING, n_images=40, n_patients=20, sha256=B),
                PartitionSummary(partition=TEST, n_images=100, n_patients=50, sha256=C),
            ),
            shared_patients=dict.fromkeys(PAIRS, 0),
            shared_content=dict.fromkeys(PAIRS, 0),
            shared_near=dict.fromkeys(PAIRS, 0),
            flow=flow_step("divided", (300, 150), E6=(150, 75), S10=(150, 75)),
        ),
        "seal": SealRecord(
            merkle_root=C,
            n_images=100,
            n_patients=50,
            sealed_utc=START + timedelta(minutes=1),
            ledger="ledger.jsonl",
            n_earlier_seals=0,
            n_earlier_openings=0,
        ),
    }


def flow_step(step: str, total: tuple[int, int], **machines: tuple[int, int]) -> FlowStep:
    """Images and patients that a step left, in all and by machine."""
    return FlowStep(
        step=step,
        n_images=total[0],
        n_patients=total[1],
        levels=tuple(
            FlowLevel(attribute="machine", level=level, n_images=n, n_patients=patients)
            for level, (n, patients) in machines.items()
        ),
    )


def share(attribute: str, level: str, largest: float, n_images: int) -> Concentration:
    """Concentration of one class."""
    return Concentration(
        attribute=attribute,
        level=level,
        n_patients=90,
        n_images=n_images,
        largest_patient="7",
        largest_share=largest,
        effective_patients=61.25,
    )


def shift(attribute: str, variation: float, **changes: Any) -> AttributeShift:
    """Shift of one attribute between training and the held-out test set."""
    return AttributeShift.model_validate(
        {
            "attribute": attribute,
            "left": TRAINING,
            "right": TEST,
            "total_variation": variation,
            "ci95": (variation / 2, variation * 2),
            "floor": 0.15,
            **changes,
        }
    )


def pair(left: str, right: str, v: float, **changes: Any) -> Confounding:
    """How far two attributes go together."""
    return Confounding.model_validate(
        {
            "left": left,
            "right": right,
            "v": v,
            "p_value": 0.001,
            "n_permutations": 999,
            "n_patients": 150,
            "n_images": 300,
            **changes,
        }
    )


def declared(name: str, completeness: float, **changes: Any) -> DeclaredAttribute:
    """An attribute that the contract declares."""
    return DeclaredAttribute.model_validate(
        {
            "name": name,
            "column": name.title(),
            "kind": "category",
            "unit": "",
            "is_proxy": False,
            "note": "",
            "completeness": completeness,
            **changes,
        }
    )


def distance(attribute: str, variation: float, upper: float) -> TargetDistance:
    """Distance to the target population in one attribute."""
    return TargetDistance(
        attribute=attribute,
        total_variation=variation,
        ci95=(variation / 2, upper),
        n_patients=140,
        source="register 2018",
        widest="parous: 40 % here, 50 % there",
    )


def _audits() -> dict[str, Any]:
    return {
        "boundaries": BoundaryChecks(
            checks=(BoundaryCheck(boundary="s3_audit to s4_split", n_rows=300, n_rules=9),)
        ),
        "audit": DatasetAudit(
            concentration=(
                share("all", "all", 0.01, 300),
                share("plane", "Fetal brain", 0.02, 250),
            ),
            confounding=(pair("plane", "machine", 0.2), pair("operator", "machine", 0.5)),
            quality=(),
            shifts=(shift("plane", 0.02), shift("machine", 0.1)),
            n_resamples=1000,
        ),
        "demographics": DemographicsAudit(
            declared=(declared("parity", 0.97),),
            undeclared=(),
            cells=(),
            numbers=(),
            smallest_cell=5,
            n_suppressed=0,
            target_name="births 2018",
            distances=(distance("parity", 0.05, 0.12), distance("BMI", 0.08, 0.11)),
        ),
        "content": ContentScan(
            engine="tesseract 5.3.0",
            reads_text=True,
            n_images=300,
            n_scanned=300,
            n_with_overlay=120,
            n_with_text=40,
            n_with_callipers=3,
            marks=(),
            n_images_with_marks=0,
            text_chunks={},
            n_columns=7,
            columns=(),
        ),
        "labels": LabelAudit(
            label="brain_plane",
            method="cross-validated",
            n_images=160,
            n_patients=80,
            classes={"a": 100, "b": 60},
            balanced_accuracy=0.9,
            n_suspected=0,
            rate_ci95=(0.0, 0.023),
            suspects=(),
            effect="none is suspected",
        ),
    }


def _model() -> dict[str, Any]:
    return {
        "isolation": IsolationRecord(
            level=3,
            level_name="and Landlock",
            mechanism="Landlock ABI 7",
            attempts=(
                RefusedRead(target="sealed image", refused=True, error="PermissionError 13"),
                RefusedRead(target="data folder", refused=True, error="PermissionError 13"),
            ),
            n_sealed_reads=0,
            limits=("The owner of the machine is not kept out.",),
        ),
        "training": TrainingRecord(
            generator="dsr-gan",
            title="DSR-GAN",
            recipe="corrected",
            image_size_px=32,
            training_view_sha256=A,
            tuning_view_sha256=B,
            description=DESCRIPTION,
            stages=(),
            curves=(
                curve("training loss", 9.0, *([1.0] * 9), 0.5),
                curve("tuning loss", 2.0, 0.6),
            ),
            fitted=(FittedThing(name="mean image", fit_view_sha256=A),),
            selection=Selection(
                partition=TUNING,
                view_sha256=B,
                criterion="lowest loss",
                candidates=(Candidate(step=10, score=0.1),),
                chosen_step=10,
            ),
            checkpoint_path="checkpoints/x.safetensors",
            checkpoint_sha256=C,
            compute_device="cpu",
            duration_s=5,
            comparison=comparison(0.05, pca=0.2, blur=0.3),
        ),
        "repeat": RepeatRecord(
            stage="diffusion",
            step=10,
            sha256=A,
            repeated_sha256=A,
            tolerance=0.001,
            compute_device="cpu",
            duration_s=4,
        ),
        "samples": SampleSet(
            generator="dsr-gan",
            checkpoint_sha256=C,
            seed=0,
            n_images=100,
            image_size_px=32,
            files=(),
            n_marks_read_back=100,
            duration_s=1,
            n_asked=100,
            n_drawn=100,
        ),
        "evaluation": _evaluation(),
        "figures": Figures(
            figures=(
                Figure(
                    path="figures/samples.png",
                    title="Real and synthetic images",
                    caption="Drawn at random with seed 0.",
                ),
                Figure(path="figures/nearest.png", title="Nearest training images", caption=""),
                Figure(path="figures/worst.png", title="Worst-scoring images", caption=""),
            )
        ),
    }


def curve(name: str, *values: float) -> Curve:
    """A curve of the stage "diffusion"."""
    return Curve(stage="diffusion", name=name, steps=tuple(range(len(values))), values=values)


def comparison(value: float, half_width: float = 0.02, **controls: float) -> TuningComparison:
    """KID of the generator and of controls on tuning images, with intervals of equal width."""

    def interval(middle: float) -> tuple[float, float]:
        return middle - half_width, middle + half_width

    metric_id = f"kid-{INCEPTION}-d2048-n96"
    return TuningComparison(
        metric_id=metric_id,
        value=value,
        ci95=interval(value),
        controls=tuple(
            Control(name=name, metric_id=metric_id, value=v, meaning="", ci95=interval(v))
            for name, v in controls.items()
        ),
        n_real=96,
        n_patients=40,
        n_images=96,
    )


def changed_metric(**changes: Any) -> ChangedMetric:
    """KID of this run and of its parent, which can be compared unless changed."""
    return ChangedMetric.model_validate(
        {
            "name": "KID",
            "subgroup": "",
            "better": "lower",
            "before": 0.06,
            "after": 0.05,
            "before_ci95": (0.05, 0.08),
            "after_ci95": (0.04, 0.07),
            **changes,
        }
    )


def seed_run(seed: int, value: float | None = 0.05, n: int = 100) -> SeedRun:
    """A run of another seed."""
    return SeedRun(run_id=f"run-{seed}", seed=seed, value=value, metric_id=f"kid-n{n}")


def _history() -> dict[str, Any]:
    return {
        "hazards": Hazards(
            hazards=(
                Hazard(id="HZ-01", hazard="copies a patient", items=("P6-04", "P2-H4")),
                Hazard(id="HZ-C1", hazard="of our own", items=("P7-H2",), set_by="configuration"),
            )
        ),
        "lineage": Lineage(
            model="dsr-gan",
            data="fetal-planes-db",
            parent=ParentRun(
                run_id="20261001T090000Z-abc",
                evidence_root=A,
                checkpoint_path="checkpoints/x.safetensors",
                checkpoint_sha256=C,
                checkpoint="intact",
            ),
            is_chosen=False,
            reason="more images",
            delta=DataDelta(n_same=290, n_changed=0, n_added=10, n_removed=0),
            n_runs=3,
            seeds=(seed_run(1, 0.04), seed_run(2, 0.06), seed_run(0, 0.05)),
        ),
        "change": ChangeRecord(
            parent="20261001T090000Z-abc",
            config=(ChangedValue(name="seed", before="1", after="0"),),
            data=(ChangedValue(name="images", before="290", after="300"),),
            metrics=(
                changed_metric(),
                changed_metric(name="KID plane=Fetal brain", subgroup="plane=Fetal brain"),
            ),
            plan=("config: seed", "data: *"),
            drift=(
                Drift(name="mean_intensity", distance=0.1, n_before=150, n_after=160),
                Drift(name="black_fraction", distance=0.25, n_before=150, n_after=160),
            ),
        ),
        "baseline": Baseline(
            partition=TRAINING,
            view_sha256=A,
            n_images=160,
            n_patients=80,
            image_size_px=32,
            images=(
                ImageStatistic(
                    name="mean_intensity",
                    unit="grey levels",
                    low=0,
                    high=256,
                    counts=(100, 60),
                    mean=60,
                    sd=5,
                ),
            ),
            features=FeatureStatistics(
                extractor=INCEPTION,
                extractor_sha256=D,
                n_images=100,
                mean=(0.1,),
                sd=(0.2,),
                total_variance=1,
                leading_variances=(0.5,),
            ),
            metrics=(metric("kid"),),
        ),
        "card_check": CardCheck(
            n_filled=35,
            n_reasoned=20,
            empty_fields=(),
            parts=(
                TracedPart(
                    output="card",
                    part="metrics",
                    n_numbers=40,
                    computed=("95",),
                    sources=("metrics/evaluation.json",),
                ),
            ),
            untraced=(),
            n_limits=12,
            unlisted=(),
            n_compared=900,
            disagreements=(),
            words=(),
        ),
    }


def _evaluation() -> EvaluationRecord:
    subgroups = ("plane=Fetal brain", "machine=E6", "machine=S10")
    return EvaluationRecord(
        metrics=(
            metric("kid"),
            metric("fid"),
            metric("precision", better="higher"),
            metric("coverage", better="higher", value=0.8, floor=0.9),
            metric("recall", better="higher", value=0.6, floor=0.9),
            *(
                metric(family, subgroup=name, id=f"{family}-{name}", better=better)
                for name in subgroups
                for family, better in (("kid", "lower"), ("fid", "lower"), ("precision", "higher"))
            ),
            *(
                metric(family, subgroup=subgroups[0], value=value, better="higher")
                for family, value in (("coverage", 0.7), ("recall", 0.4))
            ),
        ),
        memorisation=MemorisationRecord(
            method="distance",
            threshold=0.3,
            null_median=0.6,
            synthetic_median=0.7,
            n_null=200,
            n_synthetic=100,
            n_flagged=0,
            share_ci95=(0.0, 0.037),
            null_distances=(),
            synthetic_distances=(),
            closest=(NearestPair(synthetic="a.png", training_id="x", distance=0.5),),
        ),
        controls=tuple(
            Control(
                name=name,
                metric_id=f"kid-{INCEPTION}-d2048",
                value=0.3,
                ci95=(0.2, 0.4),
                meaning="known beforehand",
            )
            for name in ("black", "noise", "blur", "pca", "augmentation")
        ),
        opening=Opening(
            number=1,
            label="confirmatory",
            purpose="evaluation",
            plan_sha256=D,
            model_sha256=C,
            opened_utc=START + timedelta(minutes=9),
            n_images=100,
        ),
        gaps=(gap(),),
        least_patients=30,
        repeats=tuple(
            SamplingRepeat(seed=seed, value=value, metric_id="kid-n100")
            for seed, value in ((0, 0.05), (1, 0.052), (2, 0.048))
        ),
        robustness=(loss("gain"), loss("zoom", value=0.02)),
        membership=MembershipRecord(
            method="by distance", auc=0.51, ci95=(0.44, 0.58), n_training=80, n_tuning=40
        ),
        diversity=DiversityRecord(
            vendi=8, vendi_real=10, ms_ssim=0.4, ms_ssim_real=0.3, n_images=100, n_pairs=200
        ),
        n_synthetic_in_test=0,
        n_test_patients_in_training=0,
        pretrained=(
            PretrainedComponent(
                name=INCEPTION,
                used_for="metrics",
                source="pytorch-fid",
                licence="Apache-2.0",
                sha256=D,
                training_data="ImageNet",
                overlap="none known",
                declared_by="its publisher",
            ),
        ),
    )


def _documents() -> dict[str, Document]:
    return {**_run(), **_data(), **_model(), **_history()}


# Short names of the documents of a good run, for the tables of cases.
PARTS = {name: type(document) for name, document in _documents().items()}


def complete() -> JudgedRun:
    """A run in which all went well."""
    return JudgedRun(RunFolder.of(*_documents().values(), digests={Plan.PATH: D}))


def nothing() -> JudgedRun:
    """A run that left no document."""
    return JudgedRun(RunFolder.of())


def with_document(run: JudgedRun, document: Document) -> JudgedRun:
    return replace(run, folder=run.folder.knowing(document))


def change(part: str, **changes: Any) -> Change:
    """Change fields of one document."""

    def apply(run: JudgedRun) -> JudgedRun:
        document = run.need(PARTS[part])
        return with_document(run, type(document).model_validate({**dict(document), **changes}))

    return apply


def without(*parts: str) -> Change:
    def apply(run: JudgedRun) -> JudgedRun:
        kept = (run.get(kind) for part, kind in PARTS.items() if part not in parts)
        digests = {} if {"plan", "plan_sha256"} & {*parts} else run.folder.digests
        return JudgedRun(RunFolder.of(*filter(None, kept), digests=digests))

    return apply


def nested(part: str, inner: str, **changes: Any) -> Change:
    """Change fields of a document inside a document."""

    def apply(run: JudgedRun) -> JudgedRun:
        old = getattr(run.need(PARTS[part]), inner)
        return change(part, **{inner: type(old).model_validate({**dict(old), **changes})})(run)

    return apply


def result(item_id: str, run: JudgedRun, limit: float | None = None) -> CheckResult:
    policy = POLICY if limit is None else with_criteria(POLICY, {item_id: limit})
    criterion = policy.item(item_id).criterion
    assert criterion is not None
    return CHECKS[item_id].function(run, criterion)


def with_rules(**changes: Any) -> Change:
    """Change all results of one rule (first two arguments name it)."""
    name, engine = changes.pop("rule"), changes.pop("engine", None)

    def apply(run: JudgedRun) -> JudgedRun:
        new = tuple(
            r.model_copy(update=changes) if r.rule == name and engine in (None, r.engine) else r
            for r in run.need(ValidationRecord).rules
        )
        return change("validation", rules=new)(run)

    return apply


def with_coverage(counts: dict[str, dict[str, tuple[int, int]]]) -> Change:
    return change(
        "coverage",
        attributes=tuple(counts),
        levels=levels(counts),
        completeness=dict.fromkeys(counts, 1.0),
    )
