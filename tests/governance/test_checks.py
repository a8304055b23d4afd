import itertools
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from governance.audits.checks import (
    CHECKS,
    Documents,
    check,
    evaluate,
    judge,
    listed,
    not_evaluated,
)
from governance.audits.data_checks import total_variation
from governance.errors import EvidenceError, PolicyError
from governance.evidence.documents import (
    DOCUMENTS,
    TEST,
    TRAINING,
    TUNING,
    AbsentAttribute,
    Candidate,
    CoverageAudit,
    CoverageLevel,
    DatasetIdentity,
    DuplicateAudit,
    Environment,
    EvaluationRecord,
    Figure,
    Figures,
    Findings,
    FittedThing,
    FlowStep,
    IntegrityRecord,
    IsolationRecord,
    MemorisationRecord,
    MetricResult,
    NearestPair,
    Opening,
    Outcome,
    Package,
    PartitionSummary,
    Plan,
    PretrainedComponent,
    RefusedRead,
    RuleResult,
    RunIdentity,
    SampleSet,
    SealRecord,
    Selection,
    SplitRecord,
    TrainingRecord,
    ValidationRecord,
)
from governance.evidence.record import CheckResult, ItemRecord, Observed
from governance.policies.load import load_policy, with_criteria
from governance.policies.model import Criterion
from governance.statuses import ItemStatus

PASSED, FAILED = ItemStatus.PASSED, ItemStatus.FAILED
RECORDED, NOT_EVALUATED = ItemStatus.RECORDED, ItemStatus.NOT_EVALUATED

START = datetime(2026, 11, 2, 9, 0, 0, tzinfo=UTC)
POLICY = load_policy()
A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
PAIRS = (f"{TRAINING} | {TUNING}", f"{TRAINING} | {TEST}", f"{TUNING} | {TEST}")
INCEPTION = "inception_pool3"
DESCRIPTION = {
    "architecture": "text",
    "sizes": "text",
    "losses": "text",
    "optimiser": "text",
    "schedule": "text",
    "augmentation": "text",
    "pre-training": "text",
}

Change = Callable[[Documents], Documents]


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


def _run() -> dict[str, Any]:
    return {
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
        ),
        "environment": Environment(
            python="3.11.7",
            platform="Linux",
            cpu_count=2,
            memory_bytes=None,
            compute_device="cpu",
            packages=(Package(name="numpy", version="2.0", locked="2.0"),),
            lock_file="constraints.txt",
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
                FlowStep(step="listed", n_images=400, n_patients=200),
                FlowStep(step="selected", n_images=300, n_patients=150),
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
                    "machine": {"E6": (40, 30), "S10": (40, 30), "not recorded": (0, 3)},
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
            curves=(),
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
        "plan_sha256": D,
    }


def _evaluation() -> EvaluationRecord:
    subgroups = ("plane=Fetal brain", "machine=E6", "machine=S10")
    return EvaluationRecord(
        metrics=(
            metric("kid"),
            metric("fid"),
            metric("precision", better="higher"),
            *(metric("kid", subgroup=name, id=f"kid-{name}") for name in subgroups),
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
        controls=(),
        opening=Opening(
            number=1,
            label="confirmatory",
            purpose="evaluation",
            plan_sha256=D,
            model_sha256=C,
            opened_utc=START + timedelta(minutes=9),
            n_images=100,
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
            ),
        ),
    )


def complete() -> Documents:
    """A run in which all went well."""
    return Documents(**_run(), **_data(), **_model())


def change(part: str, **changes: Any) -> Change:
    """Change fields of one document."""

    def apply(documents: Documents) -> Documents:
        document = getattr(documents, part)
        new = type(document).model_validate({**dict(document), **changes})
        return replace(documents, **{part: new})

    return apply


def without(*parts: str) -> Change:
    return lambda documents: replace(documents, **dict.fromkeys(parts))


def nested(part: str, inner: str, **changes: Any) -> Change:
    """Change fields of a document inside a document."""

    def apply(documents: Documents) -> Documents:
        old = getattr(getattr(documents, part), inner)
        return change(part, **{inner: type(old).model_validate({**dict(old), **changes})})(
            documents
        )

    return apply


def result(item_id: str, documents: Documents, limit: float | None = None) -> CheckResult:
    policy = POLICY if limit is None else with_criteria(POLICY, {item_id: limit})
    criterion = policy.item(item_id).criterion
    assert criterion is not None
    return CHECKS[item_id].function(documents, criterion)


def with_rules(**changes: Any) -> Change:
    """Change all results of one rule (first two arguments name it)."""
    name, engine = changes.pop("rule"), changes.pop("engine", None)

    def apply(documents: Documents) -> Documents:
        assert documents.validation is not None
        new = tuple(
            r.model_copy(update=changes) if r.rule == name and engine in (None, r.engine) else r
            for r in documents.validation.rules
        )
        return change("validation", rules=new)(documents)

    return apply


def with_coverage(counts: dict[str, dict[str, tuple[int, int]]]) -> Change:
    return change(
        "coverage",
        attributes=tuple(counts),
        levels=levels(counts),
        completeness=dict.fromkeys(counts, 1.0),
    )


EXPECTED_OF_A_GOOD_RUN = {
    **dict.fromkeys(CHECKS, PASSED),
    "P2-14": RECORDED,
    "P8-02": RECORDED,  # measured, but no goal is configured
    "P4-10": FAILED,  # machines are shared in the example
    "P4-13": NOT_EVALUATED,
}

CASES: list[tuple[str, Change, ItemStatus, str]] = [
    ("P2-01", change("run", code_clean=False), FAILED, "uncommitted changes"),
    (
        "P2-01",
        change("run", code_commit=None, code_clean=None),
        NOT_EVALUATED,
        "not run from a git",
    ),
    ("P2-02", change("environment", lock_differences=("numpy: 1",)), FAILED, "numpy: 1"),
    ("P2-02", change("environment", lock_file=None), NOT_EVALUATED, "no lock file"),
    ("P2-07", change("integrity", mismatches=("plan.json",)), FAILED, "plan.json"),
    ("P2-07", change("integrity", unregistered=("x",)), NOT_EVALUATED, "no digest on record"),
    (
        "P2-07",
        change("integrity", unregistered=("x",), mismatches=("plan.json",)),
        FAILED,
        "plan.json",
    ),
    ("P2-07", change("integrity", n_files=0), NOT_EVALUATED, "no file"),
    ("P2-08", change("integrity", journal_faults=("line 3",)), FAILED, "line 3"),
    ("P2-08", change("integrity", journal_events=0), NOT_EVALUATED, "empty"),
    ("P2-09", change("evaluation", pretrained=()), NOT_EVALUATED, "source and licence are not on"),
    (
        "P2-09",
        change("evaluation", metrics=(metric("kid", extractor_sha256=""),)),
        FAILED,
        INCEPTION,
    ),
    ("P2-09", change("evaluation", metrics=(), pretrained=()), PASSED, "0 components"),
    (
        "P2-09",
        change("training", pretrained=({**dict(_evaluation().pretrained[0]), "licence": " "},)),
        FAILED,
        INCEPTION,
    ),
    (
        "P2-12",
        with_rules(rule="patient_id_not_null", engine="pandera", passed=False, n_unexpected=2),
        FAILED,
        "patient_id_not_null (pandera, 2 rows)",
    ),
    ("P2-12", with_rules(rule="brain_plane_allowed", passed=False, n_unexpected=2), PASSED, ""),
    ("P2-12", change("validation", n_rows=0), NOT_EVALUATED, "no row to validate"),
    ("P2-12", change("validation", rules=rules()[:4]), NOT_EVALUATED, "great_expectations"),
    ("P2-12", change("validation", rules=()), NOT_EVALUATED, "great_expectations, pandera"),
    (
        "P2-12",
        with_rules(rule="patient_id_not_null", engine="pandera", n_evaluated=0),
        NOT_EVALUATED,
        "one engine only: patient_id_not_null",
    ),
    (
        "P3-01",
        change(
            "dataset",
            absent_attributes=(
                AbsentAttribute(name="ethnicity", consequence="no subgroup"),
                AbsentAttribute(name="maternal age", consequence="no subgroup"),
            ),
        ),
        FAILED,
        "not recorded: ethnicity, maternal age",
    ),
    ("P3-01", change("coverage", completeness={"machine": 0.94}), FAILED, "machine (94.0%)"),
    ("P3-01", change("coverage", completeness={"machine": 0.95}), PASSED, ""),
    ("P3-01", change("coverage", completeness={}), NOT_EVALUATED, "no attribute"),
    (
        "P3-02",
        change("coverage", levels=(complete().coverage or CoverageAudit).levels[:1]),
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
    ("P3-05", with_coverage({"machine": {"E6": (60, 50), "S10": (40, 50)}}), PASSED, "machine"),
    ("P3-05", with_coverage({"machine": {"E6": (61, 50), "S10": (39, 50)}}), FAILED, "machine"),
    (
        "P3-05",
        with_coverage({"machine": {"E6": (99, 100), "Aloka": (1, 0)}}),
        FAILED,
        "one part only: machine Aloka",
    ),
    ("P3-05", with_coverage({"site": {"not recorded": (9, 9)}}), NOT_EVALUATED, "no attribute"),
    (
        "P3-08",
        change(
            "dataset",
            flow=(
                FlowStep(step="listed", n_images=250, n_patients=150),
                FlowStep(step="selected", n_images=300, n_patients=150),
            ),
        ),
        FAILED,
        "selected has more than listed",
    ),
    ("P3-08", change("dataset", n_listed=399), FAILED, "more than the 399 listed"),
    ("P3-08", change("split", dropped=("img: copy",)), FAILED, "1 were dropped"),
    ("P3-08", change("dataset", flow=()), NOT_EVALUATED, "not on record"),
    (
        "P4-01",
        change("split", shared_patients=dict(zip(PAIRS, (0, 2, 0), strict=True))),
        FAILED,
        "2 in training | held-out test set",
    ),
    ("P4-01", change("split", shared_patients={PAIRS[0]: 0}), NOT_EVALUATED, "not counted"),
    ("P4-01", change("split", shared_patients={PAIRS[0]: 3}), FAILED, "3 in"),
    (
        "P4-01",
        change("split", unit="examination"),
        NOT_EVALUATED,
        "examinations are of one patient",
    ),
    ("P4-01", without("seal"), NOT_EVALUATED, "the split step did not run"),
    (
        "P4-02",
        change("split", shared_content=dict(zip(PAIRS, (1, 0, 0), strict=True))),
        FAILED,
        "1 in training | tuning",
    ),
    ("P4-02", change("split", shared_content={}), NOT_EVALUATED, "not counted"),
    ("P4-02", change("split", unit="examination"), PASSED, ""),
    ("P4-04", change("split", official_available=False), NOT_EVALUATED, "no official split"),
    ("P4-04", change("split", source="computed"), FAILED, "no departure is stated"),
    ("P4-04", change("split", source="computed", deviations=("not used",)), PASSED, "not used"),
    ("P4-05", change("isolation", n_sealed_reads=1), FAILED, "1 sealed file opened"),
    ("P4-05", change("isolation", level=1), FAILED, "level 1"),
    ("P4-05", change("isolation", attempts=()), NOT_EVALUATED, "did not try"),
    (
        "P4-05",
        change(
            "isolation", attempts=(RefusedRead(target="data folder", refused=True, error="13"),)
        ),
        NOT_EVALUATED,
        "did not try to read a sealed image",
    ),
    (
        "P4-05",
        change(
            "isolation", attempts=(RefusedRead(target="sealed image", refused=False, error=""),)
        ),
        FAILED,
        "could read: sealed image",
    ),
    ("P4-05", without("evaluation"), NOT_EVALUATED, "evaluation step did not run"),
    ("P4-06", nested("evaluation", "opening", number=2), FAILED, "confirmatory"),
    ("P4-06", change("evaluation", opening=None), NOT_EVALUATED, "was not opened"),
    (
        "P4-07",
        change("training", fitted=(FittedThing(name="histograms", fit_view_sha256=C),)),
        FAILED,
        "histograms",
    ),
    ("P4-07", change("training", fitted=()), NOT_EVALUATED, "no fitted thing"),
    ("P4-08", nested("training", "selection", partition=TEST), FAILED, TEST),
    ("P4-08", nested("training", "selection", view_sha256=A), FAILED, "not the tuning view"),
    ("P4-10", with_coverage({"machine": {"E6": (9, 0), "S10": (0, 9)}}), NOT_EVALUATED, "site"),
    ("P4-11", change("evaluation", n_synthetic_in_test=1), FAILED, "1 synthetic image in the test"),
    ("P4-11", change("evaluation", n_test_patients_in_training=4), FAILED, "4 test patients"),
    ("P4-11", change("evaluation", n_synthetic_in_test=None), NOT_EVALUATED, "not compared"),
    ("P4-11", change("split", unit="examination"), NOT_EVALUATED, "of one patient"),
    ("P5-01", change("dataset", pinned_sha256=None), NOT_EVALUATED, f"`data.digest: {B}`"),
    ("P5-01", change("dataset", pinned_sha256=A), FAILED, f"content is {B}, pinned is {A}"),
    ("P5-01", change("dataset", content_sha256=None), NOT_EVALUATED, "not read to the end"),
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
    ("P5-02", change("validation", rules=rules()[:1]), NOT_EVALUATED, "was not run"),
    ("P5-02", change("validation", rules=rules(n_rows=0)), NOT_EVALUATED, "no image carries"),
    ("P5-05", change("evaluation", metrics=(metric("kid", extractor=""),)), FAILED, "kid-"),
    ("P5-05", change("evaluation", metrics=(metric("kid", partition="other"),)), FAILED, "kid-"),
    (
        "P5-05",
        change(
            "evaluation",
            metrics=(metric("kid", status="not evaluated", value=None, reason="no weights"),),
        ),
        NOT_EVALUATED,
        "no weights",
    ),
    (
        "P5-06",
        change("evaluation", metrics=(metric("kid"), metric("fid", reason=""))),
        FAILED,
        "fid",
    ),
    ("P5-06", change("evaluation", metrics=(metric("fid"),)), FAILED, "fid-"),
    (
        "P5-06",
        change("evaluation", metrics=(metric("fid"), metric("kid", ci95=None))),
        FAILED,
        "fid",
    ),
    ("P5-06", change("evaluation", metrics=(metric("fid", n_features=50, reason=""),)), PASSED, ""),
    ("P5-06", change("evaluation", metrics=(metric("kid"),)), PASSED, "KID with interval"),
    ("P5-06", change("evaluation", metrics=()), NOT_EVALUATED, "no metric was evaluated"),
    ("P6-01", change("training", description={"architecture": "x"}), FAILED, "sizes, losses"),
    (
        "P6-01",
        change("training", description=DESCRIPTION | {"Optimiser ": "x", "pre-training": " "}),
        FAILED,
        "empty: pre-training",
    ),
    ("P6-02", change("plan", frozen_utc=START + timedelta(minutes=2)), FAILED, "sealed"),
    ("P6-02", without("training"), NOT_EVALUATED, "the training step did not run"),
    (
        "P6-04",
        nested("evaluation", "memorisation", n_flagged=9, share_ci95=(0.05, 0.16)),
        FAILED,
        "9 of 100 flagged",
    ),
    (
        "P6-04",
        nested("evaluation", "memorisation", n_flagged=1, share_ci95=(0.0, 0.049)),
        NOT_EVALUATED,
        "neither confirmed nor ruled out",
    ),
    (
        "P6-04",
        nested("evaluation", "memorisation", n_synthetic=40, share_ci95=(0.0, 0.088)),
        FAILED,
        "draw more",
    ),
    (
        "P6-04",
        nested(
            "evaluation",
            "memorisation",
            n_flagged=1,
            share_ci95=(0.0, 0.049),
            closest=(NearestPair(synthetic="s.png", training_id="x", distance=0.0),),
        ),
        FAILED,
        "equal to a training image: s.png",
    ),
    ("P6-04", change("evaluation", memorisation=None), NOT_EVALUATED, "not computed"),
    ("P7-01", change("figures", figures=()), FAILED, "no random sample sheet"),
    (
        "P7-01",
        change("figures", figures=(complete().figures or Figures).figures[:2]),
        NOT_EVALUATED,
        "worst-scoring sheet is not implemented yet",
    ),
    (
        "P7-01",
        change(
            "figures",
            figures=(Figure(path="a", title="synthetic, at random", caption="nearest, worst"),),
        ),
        FAILED,
        "does not state its seed",
    ),
    ("P8-01", nested("evaluation", "opening", plan_sha256=A), FAILED, "names another plan"),
    ("P8-01", nested("evaluation", "opening", opened_utc=START - timedelta(1)), FAILED, "after"),
    ("P8-01", change("plan", multiplicity=" "), FAILED, "nothing on multiplicity"),
    ("P8-01", change("evaluation", opening=None), NOT_EVALUATED, "was not opened"),
    ("P8-02", change("evaluation", metrics=(metric("kid", ci95=None),)), FAILED, "no interval"),
    ("P8-02", change("evaluation", metrics=(metric("fid"),)), NOT_EVALUATED, "not among"),
    (
        "P8-02",
        change("evaluation", metrics=(metric("kid", status="not evaluated", reason="no weights"),)),
        NOT_EVALUATED,
        "no weights",
    ),
    (
        "P8-03",
        change(
            "evaluation",
            metrics=(
                metric("kid"),
                metric("fid", status="not evaluated", value=None, reason="no weights"),
            ),
        ),
        NOT_EVALUATED,
        "FID (no weights), PRECISION, by machine",
    ),
    ("P8-03", change("evaluation", metrics=(metric("kid", n_patients=0),)), FAILED, "kid-"),
    ("P8-09", change("samples", checkpoint_sha256=A), FAILED, "images were drawn from another"),
    ("P8-09", nested("evaluation", "opening", model_sha256=A), FAILED, "the opening names another"),
    ("P9-03", change("evaluation", metrics=(metric("kid", ci95=None),)), FAILED, "kid-"),
    ("P9-03", change("evaluation", metrics=()), NOT_EVALUATED, "no metric"),
    ("P9-05", change("samples", n_marks_read_back=99), FAILED, "99 of 100 marks"),
    ("P9-05", change("samples", n_marks_read_back=101), FAILED, "101 of 100"),
    ("P9-05", change("samples", n_images=0, n_marks_read_back=0), NOT_EVALUATED, "no synthetic"),
]


@pytest.mark.parametrize("item_id", sorted(CHECKS))
def test_in_a_good_run_each_check_says_what_is_true(item_id: str) -> None:
    found = result(item_id, complete())

    assert (found.status, bool(found.reason)) == (EXPECTED_OF_A_GOOD_RUN[item_id], True), found


@pytest.mark.parametrize(("item_id", "apply", "status", "words"), CASES)
def test_one_fault_changes_the_item_and_the_reason_names_it(
    item_id: str, apply: Change, status: ItemStatus, words: str
) -> None:
    found = result(item_id, apply(complete()))

    assert found.status is status, found
    assert words in found.reason
    assert found.reason


def test_every_check_has_a_case_that_does_not_pass() -> None:
    spoiled = {item_id for item_id, _, status, _ in CASES if status is not PASSED}

    assert set(CHECKS) - spoiled == {"P2-14", "P4-13"}


def test_checks_belong_to_computed_items_and_to_one_of_the_steps() -> None:
    computed = {item.id for item in POLICY.items if item.kind == "computed"}

    assert set(CHECKS) <= computed
    assert {gate.item_id for gate in POLICY.gate} <= set(CHECKS)
    assert {c.step for c in CHECKS.values()} <= {
        "start",
        "s1_ingest",
        "s2_validate",
        "s3_audit",
        "s4_split",
        "s5_train",
        "s6_evaluate",
        "s7_evidence",
    }


def test_a_run_that_left_nothing_passes_nothing() -> None:
    for item_id in CHECKS:
        found = result(item_id, Documents())

        assert found.status is NOT_EVALUATED
        assert found.reason
        assert found.observed is None


def test_losing_documents_never_turns_anything_better() -> None:
    """A check sees less: it says the same or that it cannot say."""
    parts = [field.name for field in fields(Documents)]
    singles: list[tuple[str, ...]] = [(part,) for part in parts]
    starts = [(complete(), [*singles, *itertools.combinations(parts, 2)])]
    starts += [(apply(complete()), singles) for _, apply, _, _ in CASES[::10]]
    for start, removals in starts:
        before = {item_id: result(item_id, start).status for item_id in CHECKS}
        for gone in removals:
            fewer = without(*gone)(start)
            for item_id in CHECKS:
                after = result(item_id, fewer).status
                assert after in (before[item_id], NOT_EVALUATED), (item_id, gone)


def test_a_refused_split_passes_no_item_of_independence() -> None:
    refused = without("seal", "isolation", "training", "samples", "evaluation", "figures")
    for item_id in (name for name in CHECKS if name.startswith("P4-")):
        assert result(item_id, refused(complete())).status is NOT_EVALUATED


def test_the_numbers_observed_are_those_of_the_documents() -> None:
    def seen(item_id: str, documents: Documents) -> Observed:
        observed = result(item_id, documents).observed
        assert observed is not None
        return observed

    shifted = with_coverage({"machine": {"E6": (60, 10), "S10": (40, 90)}})(complete())
    assert seen("P3-05", shifted).value == pytest.approx(0.5)
    assert seen("P3-03", shifted).value == 10
    assert seen("P3-01", complete()).value == 0.96
    assert seen("P6-04", complete()) == Observed(
        value=0.0, unit="fraction of synthetic images", ci95=(0.0, 0.037), n_images=100
    )
    assert seen("P4-06", complete()).value == 1
    assert seen("P2-14", complete()) == Observed(value=12.5, unit="s")
    assert seen("P8-02", complete()) == Observed(
        value=0.05, ci95=(0.04, 0.07), n_patients=60, n_images=100, partition=TEST
    )


def test_an_absent_attribute_is_observed_as_zero_patients_and_fails() -> None:
    absent = (AbsentAttribute(name="BMI", consequence=""),)
    simulated = change("dataset", absent_attributes=absent, is_simulated=True)(complete())
    found = result("P3-01", simulated)

    assert (found.status, found.observed) == (
        FAILED,
        Observed(value=0.0, unit="fraction of patients"),
    )
    assert "no patient is behind any image" in found.limitations


@pytest.mark.parametrize(("goal", "status"), [(0.07, PASSED), (0.069, FAILED), (0.05, FAILED)])
def test_the_primary_endpoint_is_judged_by_its_bound_and_not_by_its_value(
    goal: float, status: ItemStatus
) -> None:
    assert result("P8-02", complete(), limit=goal).status is status


def test_an_unset_goal_is_recorded_and_says_so() -> None:
    found = result("P8-02", complete())

    assert found.status is RECORDED
    assert "no limit is configured" in found.reason


def test_an_upper_goal_does_not_judge_a_metric_that_is_better_when_higher() -> None:
    higher = change("evaluation", metrics=(metric("kid", better="higher"),))(complete())

    assert result("P8-02", higher, limit=1.0).status is NOT_EVALUATED


@pytest.mark.parametrize(("limit", "status"), [(2, PASSED), (1, FAILED)])
def test_a_second_opening_is_within_a_limit_of_two(limit: int, status: ItemStatus) -> None:
    second = nested("evaluation", "opening", number=2)(complete())

    assert result("P4-06", second, limit=limit).status is status


def test_a_later_opening_is_a_limitation_of_the_plan() -> None:
    later = result("P8-01", nested("evaluation", "opening", number=3)(complete()))

    assert later.status is PASSED
    assert "opened 2 times before" in later.limitations


def test_a_rule_with_nothing_to_judge_is_named_as_a_limitation() -> None:
    assert "brain_plane_only_with_fetal_brain" in result("P2-12", complete()).limitations
    assert "another plane" in result("P5-02", complete()).limitations


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ({"a": 1}, {"a": 7}, 0.0),
        ({"a": 1}, {"b": 1}, 1.0),
        ({"a": 1, "b": 1}, {"a": 3, "b": 1}, 0.25),
        ({"a": 2, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 2}, 0.25),
    ],
)
def test_total_variation_is_half_the_sum_of_differences(
    left: dict[str, int], right: dict[str, int], expected: float
) -> None:
    assert total_variation(left, right) == pytest.approx(expected)
    assert total_variation(right, left) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("operator", "limit", "value", "status"),
    [
        ("==", 0, 0, PASSED),
        ("==", 0, 1, FAILED),
        ("==", 0, False, FAILED),
        ("==", True, 1, FAILED),
        ("==", True, True, PASSED),
        ("<=", 0.1, 0.1, PASSED),
        ("<=", 0.1, 0.11, FAILED),
        (">=", 30, 30, PASSED),
        (">=", 30, 29, FAILED),
        (">=", 1, True, FAILED),
        ("<=", 1, "none", FAILED),
        ("<=", 0.1, float("nan"), NOT_EVALUATED),
        (">=", 0.1, float("inf"), NOT_EVALUATED),
        ("none", None, 3, RECORDED),
        ("<=", None, 3, RECORDED),
    ],
)
def test_an_observed_value_is_compared_as_the_criterion_says(
    operator: Any, limit: Any, value: Any, status: ItemStatus
) -> None:
    criterion = Criterion(metric="m", operator=operator, value=limit)
    found = judge(criterion, Observed(value=value), reason="r", method="m", source=SplitRecord)

    assert found.status is status
    assert found.artifact == "data/split.json"


@pytest.mark.parametrize("operator", ["==", "<=", "none"])
def test_what_an_item_asks_besides_its_criterion_fails_it(operator: Any) -> None:
    value = None if operator == "none" else 0
    criterion = Criterion(metric="m", operator=operator, value=value)
    found = judge(
        criterion, Observed(value=0), reason="r", method="", source=SplitRecord, holds=False
    )

    assert found.status is FAILED


def test_many_names_are_cut_and_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(8)]) == "0, 1, 2, 3, 4 and 3 more"


def test_a_taken_id_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"P4-01: the check 'shared_patients' has this id"):

        @check("P4-01", step="s4_split")
        def another(documents: Documents, criterion: Criterion) -> CheckResult:
            return not_evaluated("never")


def save(documents: Documents, folder: Path) -> Path:
    parts = {type(value): value for value in vars(documents).values() if value is not None}
    for path, kind in DOCUMENTS.items():
        if kind in parts:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(parts[kind].model_dump_json(), "utf-8")
    return folder


def test_documents_are_read_from_a_run_folder_as_they_were_written(tmp_path: Path) -> None:
    loaded = Documents.load(save(complete(), tmp_path))

    assert replace(loaded, plan_sha256=D) == complete()
    assert loaded.plan_sha256 not in (None, D)


def test_an_empty_run_folder_gives_no_documents(tmp_path: Path) -> None:
    assert Documents.load(tmp_path) == Documents()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"unit": "patient"}', '{"unit": 1, "x": 2}'])
def test_a_document_that_does_not_parse_is_named(tmp_path: Path, text: str) -> None:
    save(complete(), tmp_path)
    (tmp_path / "data" / "split.json").write_text(text, "utf-8")

    with pytest.raises(EvidenceError, match=r"data/split\.json: not a readable SplitRecord"):
        Documents.load(tmp_path)


def test_a_document_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()

    with pytest.raises(EvidenceError, match=r"plan\.json: cannot be read"):
        Documents.load(tmp_path)


def records(documents: Documents, **changes: Any) -> dict[str, ItemRecord]:
    arguments: dict[str, Any] = {
        "plan_sha256": documents.plan_sha256,
        "now": START,
        "artifacts": {"data/split.json": A, "integrity.json": B},
        **changes,
    }
    return {record.id: record for record in evaluate(POLICY, documents, **arguments)}


def test_every_item_gets_one_record_in_the_order_of_the_policy() -> None:
    for documents in (complete(), Documents()):
        assert list(records(documents)) == [item.id for item in POLICY.items]


def test_nothing_passes_in_the_records_of_an_empty_run() -> None:
    assert {record.status for record in records(Documents()).values()} == {NOT_EVALUATED}
    assert all(record.reason for record in records(Documents()).values())


def test_what_no_check_computes_is_not_implemented_yet() -> None:
    found = records(complete())
    for item in POLICY.items:
        if item.id in CHECKS:
            continue
        assert found[item.id].status is NOT_EVALUATED
        assert "not implemented yet" in found[item.id].reason
        assert found[item.id].observed is None
    assert "declarations" in found["P1-H1"].reason


def test_a_record_carries_the_frozen_criterion_and_the_artifact() -> None:
    record = records(complete())["P4-01"]
    assert record.criterion is not None
    assert record.artifact is not None

    assert (record.criterion.frozen_at, record.criterion.frozen_sha256) == (START, D)
    assert (record.criterion.operator, record.criterion.value) == ("==", 0)
    assert (record.artifact.path, record.artifact.sha256) == ("data/split.json", A)
    assert (record.principle, record.title) == ("P4", POLICY.item("P4-01").title)


def test_without_a_plan_no_criterion_is_called_frozen() -> None:
    for gone in (without("plan"), without("plan_sha256")):
        assert all(r.criterion is None for r in records(gone(complete())).values())


def test_human_items_carry_no_criterion() -> None:
    assert all(r.criterion is None for r in records(complete()).values() if r.kind == "human")


def test_only_the_items_asked_for_are_computed() -> None:
    assert list(records(complete(), only=["P4-01", "P2-12"])) == ["P2-12", "P4-01"]

    with pytest.raises(PolicyError, match="P4-99: the policy has no such item"):
        records(complete(), only=["P4-99"])


def test_another_policy_than_the_frozen_one_is_refused() -> None:
    other = with_criteria(POLICY, {"P3-03": 1})

    with pytest.raises(EvidenceError, match="the frozen policy differs"):
        evaluate(other, complete(), plan_sha256=D, now=START, artifacts={})
    with pytest.raises(EvidenceError, match="its policy is not readable"):
        records(change("plan", policy={})(complete()))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (CheckResult(status=ItemStatus.DECLARED, reason="r"), "its check returned 'declared'"),
        (CheckResult(status=ItemStatus.NOT_APPLICABLE, reason="r"), "returned 'not applicable'"),
        (CheckResult(status=ItemStatus.NOT_EVALUATED), "gave no reason"),
        (CheckResult(status=ItemStatus.PASSED), "gave no reason"),
    ],
)
def test_a_check_may_not_return_what_none_may(
    monkeypatch: pytest.MonkeyPatch, bad: CheckResult, message: str
) -> None:
    monkeypatch.setitem(CHECKS, "P4-01", replace(CHECKS["P4-01"], function=lambda *_: bad))

    with pytest.raises(EvidenceError, match=message):
        records(complete())


def test_checks_are_pure() -> None:
    documents = complete()
    first, second = records(documents), records(documents)

    assert first == second
    assert documents == complete()
