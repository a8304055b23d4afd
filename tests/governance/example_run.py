"""Builds a complete, plausible run folder in plain Python, for tests of verifiers and reports.

Nothing in it was trained: numbers are made up and pictures are drawn. The folder passes
`governance.verify.folder.verify_run`.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from governance.evidence.journal import Journal
from governance.evidence.manifest import close_evidence, merkle_root
from governance.evidence.store import EvidenceStore
from governance.people.rules import NO_FILE
from governance.policy.load import load_policy
from governance.records.base import (
    PARTITIONS,
    TEST,
    TRAINING,
    TUNING,
    Document,
    ItemClass,
    ItemStatus,
)
from governance.records.comparison import Control, TuningComparison
from governance.records.dataset import (
    AbsentAttribute,
    DatasetIdentity,
    FindingRecord,
    Findings,
    RuleResult,
    ValidationRecord,
)
from governance.records.evaluation import (
    DiversityRecord,
    EvaluationRecord,
    MembershipRecord,
    MemorisationRecord,
    MetricResult,
    NearestPair,
    Opening,
    RobustnessLoss,
    SamplingRepeat,
    SubgroupGap,
)
from governance.records.files import canonical_json, sha256_bytes
from governance.records.item import Artifact, FrozenCriterion, ItemRecord, Observed
from governance.records.partition import (
    IsolationRecord,
    PartitionSummary,
    RefusedRead,
    SealRecord,
    SplitRecord,
)
from governance.records.people import SigningRecord, WaiverLine
from governance.records.policy import Item, Policy, Principle
from governance.records.run import (
    Environment,
    Figure,
    Figures,
    Outcome,
    Package,
    Plan,
    RunIdentity,
    StepTiming,
)
from governance.records.training import (
    Candidate,
    Curve,
    FittedThing,
    SampleSet,
    Selection,
    TrainingRecord,
    TrainingStage,
)
from governance.reports.audit_report import renderer
from governance.reports.evidence import ReportEvidence
from governance.verdict.rollup import roll_up
from tests.governance.example_audit import (
    COUNTS,
    N_LISTED,
    PAIR_FIGURE,
    PAIRS,
    audit_documents,
    divided,
    flow,
)
from tests.governance.example_software import example_repeat, write_software

START = datetime(2026, 3, 4, 10, 11, 12, tzinfo=UTC)
RUN_ID = "20260304T101112Z-a1b2c3d4"
VERSION = "0.1.0"
HOSTILE = (
    '<b>bold</b> <img src="/etc/passwd"> & Ångström Жанна 胎児 \u202eevil\u202c a|b `c` *d* [e](f)'
)
LONG = "extraordinarily-long-name-without-any-blank-" * 6
NOT_YET = "not implemented yet"
PIN_LINE = f"data.digest: {hashlib.sha256(b'content').hexdigest()}"
PIN_REASON = f"not pinned; if it is the one you mean, put this line into it: `{PIN_LINE}`"


@dataclass(frozen=True)
class Example:
    """What kind of run to build.

    Attributes:
        blocked: Stopped in data validation: nothing was divided, trained or evaluated.
        gate_passed: Whether P5-01 passed; else it is not evaluated.
        fid: Whether FID could be measured.
        odd: Text put into names that come from files, e.g. HOSTILE.
        simulated: Whether the data set is of phantoms.
        openings: Number of the opening over all runs.
        missing: Policy on missing images, when it is not what `blocked` implies.
        nothing_recorded: Whether rules on machine had no row to judge, and one rule failed.
        run_id: Id of the run.
        config: The configuration file.
        waivers: What became of each waiver.
        releasable: Whether the intended use is declared, simple controls are beaten, and no core
            item failed.
        signing: Public record of the key that signs the run, as JSON; "" for an unsigned run.
    """

    blocked: bool = False
    gate_passed: bool = True
    fid: bool = True
    odd: str = ""
    simulated: bool = False
    openings: int = 1
    missing: str = ""
    nothing_recorded: bool = False
    run_id: str = RUN_ID
    config: bytes = b"preset: laptop\nseed: 7\n"
    waivers: tuple[WaiverLine, ...] = ()
    releasable: bool = False
    signing: str = ""


def digest(text: str) -> str:
    """A digest that stands for some file."""
    return sha256_bytes(text.encode())


def showing(evidence: ReportEvidence, *documents: Document) -> ReportEvidence:
    """The same evidence with these documents in place of the run's."""
    return replace(evidence, documents=evidence.documents.knowing(*documents))


def build_example_run(runs_dir: Path, example: Example | None = None) -> Path:
    """Write a run folder with evidence and manifest; return it."""
    example = example or Example()
    store = EvidenceStore.create(runs_dir, example.run_id, tool_version=VERSION)
    policy = load_policy()
    config = example.config
    store.write_bytes("config.yaml", config)
    store.write_document(_run(example, sha256_bytes(config)))
    store.write_document(_environment())
    write_software(store, example.odd)
    store.write_document(_dataset(example))
    store.write_document(_findings(example))
    store.write_document(_validation(example))
    artifacts = ["environment.json", "data/dataset.json", "data/validation.json"]
    plan_digest = None
    if not example.blocked:
        plan = _plan(policy, sha256_bytes(config))
        plan_digest = store.write_document(plan).sha256
        artifacts += _write_partitions(store, example)
        artifacts += _write_model(store, example, plan_digest)
    store.write_document(_outcome(example))
    if example.signing:
        store.write_document(SigningRecord.model_validate_json(example.signing))
    store.write_document(store.recheck())
    artifacts.append("integrity.json")
    records = tuple(
        _record(item, principle, example, store.artifacts(), plan_digest)
        for principle in policy.principles
        for item in principle.items
    )
    if example.releasable:
        records = tuple(map(_met_for_release, records))
    store.write_records(records)
    rollup = roll_up(policy, records, _outcome(example), waivers=example.waivers)
    store.write_document(rollup)
    _close(store)
    return store.run_dir


def _close(store: EvidenceStore) -> None:
    journal: Journal = store.journal
    close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version=VERSION,
        journal=journal,
        previous_run=digest("run before"),
        now=START + timedelta(minutes=9),
    )


def _run(example: Example, config_sha256: str) -> RunIdentity:
    return RunIdentity(
        run_id=example.run_id,
        started_utc=START,
        tool_version=VERSION,
        code_commit="0123456789abcdef0123456789abcdef01234567",
        code_clean=True,
        command=("medisynth-gov", "run", "--preset", "laptop", "--data", f"planes {example.odd}"),
        preset="laptop",
        generator="dsr-gan",
        seed=7,
        config_sha256=config_sha256,
    )


def _environment() -> Environment:
    packages = [
        Package(name=f"package-{n:02d}", version=f"1.{n}.0", locked=f"1.{n}.0") for n in range(40)
    ]
    return Environment(
        python="3.11.9",
        platform="Linux-6.18-x86_64",
        cpu_count=2,
        memory_bytes=8 * 2**30,
        compute_device="cpu",
        packages=(*packages, Package(name="torch", version="2.6.1", locked="2.6.0")),
        lock_file="constraints.txt",
        lock_differences=("torch 2.6.1 is installed, the lock says 2.6.0",),
        renderer=renderer(),
    )


def _dataset(example: Example) -> DatasetIdentity:
    return DatasetIdentity(
        name="phantom" if example.simulated else "fetal-planes-db",
        title=f"FETAL_PLANES_DB: Common maternal fetal planes {example.odd}".strip(),
        version="1.0",
        doi="10.5281/zenodo.3904280",
        licence="CC-BY-4.0",
        citation="Burgos-Artizzu et al., Scientific Reports 10, 10200 (2020)",
        is_simulated=example.simulated,
        split_unit="patient",
        metadata_file="FETAL_PLANES_DB_data.csv",
        split_unit_note="A patient examined under two numbers counts as two.",
        metadata_sha256=digest("metadata"),
        content_sha256=None if example.blocked else digest("content"),
        pinned_sha256=digest("content") if example.gate_passed and not example.blocked else None,
        n_listed=N_LISTED,
        n_missing=12_280,
        missing_policy=example.missing or ("error" if example.blocked else "drop"),
        missing_examples=("Patient00001_Plane1_1_of_2.png", "Patient00001_Plane1_2_of_2.png"),
        planes="all",
        absent_attributes=(
            AbsentAttribute(
                name="gestational age", consequence="no result by gestational age can be given"
            ),
            AbsentAttribute(name="ethnicity", consequence="who is left out cannot be shown"),
            AbsentAttribute(name="site", consequence="independence of sites is unknown"),
        ),
        flow=flow(example.odd),
        notes=("Labels by one expert clinician.",),
    )


def _findings(example: Example) -> Findings:
    if not example.blocked:
        return Findings(findings=())
    return Findings(
        findings=tuple(
            FindingRecord(
                code="D012",
                where=f"Images/Patient{row:05d}_{example.odd or 'Plane1'}.png",
                row=row,
                column="Image_name",
                message="listed in FETAL_PLANES_DB_data.csv but not in the folder",
            )
            for row in range(2, 42)
        )
    )


def _rule(example: Example, engine: Any, rule: str, column: str) -> RuleResult:
    failed = example.blocked and column == "machine"
    empty = example.nothing_recorded and column == "machine"
    once = column == "" or rule.endswith("_exists")
    return RuleResult(
        engine=engine,
        rule=rule,
        column=column,
        severity="warning" if rule.endswith("_range") else "critical",
        passed=not failed,
        n_evaluated=0 if empty else (1 if once else 120),
        n_unexpected=3 if failed else 0,
        reason="3 rows have no machine" if failed else "",
        examples=(f"row 7: {example.odd}",) if failed else (),
    )


def _validation(example: Example) -> ValidationRecord:
    rules = [
        _rule(example, engine, rule, column)
        for engine in ("pandera", "great_expectations")
        for rule, column in (
            ("row_count", ""),
            ("image_id_exists", "image_id"),
            ("image_id_unique", "image_id"),
            ("patient_id_not_null", "patient_id"),
            ("machine_all_or_none", "machine"),
            ("width_px_exists", "width_px"),
            ("width_px_range", "width_px"),
        )
    ]
    return ValidationRecord(
        contract="image table",
        contract_version="1",
        n_rows=120,
        engine_versions={"pandera": "0.24.0", "great_expectations": "1.5.0"},
        rules=tuple(rules),
    )


def _plan(policy: Policy, config_sha256: str) -> Plan:
    return Plan(
        frozen_utc=START + timedelta(seconds=40),
        config_sha256=config_sha256,
        policy=policy.model_dump(mode="json"),
        primary_endpoint="kid-inception_pool3-n24",
        endpoints=("kid-inception_pool3-n24", "fid-inception_pool3-d2048-n24"),
        subgroups=("machine", "plane"),
        statistics="Two-sided 95 % intervals by patient bootstrap, 200 resamples.",
        multiplicity="One primary endpoint; all others are descriptive.",
    )


def _write_partitions(store: EvidenceStore, example: Example) -> list[str]:
    written = audit_documents(example.odd)
    for document in written:
        store.write_document(document)
    both = Image.new("L", (130, 64), 255)
    for at, turned in ((0, False), (66, True)):
        head = _head(1, synthetic=False)
        both.paste(ImageOps.mirror(head) if turned else head, (at, 0))
    store.write_bytes(PAIR_FIGURE, _png(both))
    store.write_document(_split(example))
    leaves = [{"id": f"image {n}"} for n in range(24)]
    store.write_bytes("data/seal_leaves.json", canonical_json({"leaves": leaves}))
    root = merkle_root([canonical_json(leaf) for leaf in leaves])
    ledger = f"{digest('selection')}.jsonl"
    facts = {"seal_number": example.openings, "ledger": ledger, "ledger_head": digest("sealing")}
    store.journal.append("test set sealed", {"merkle_root": root, "n_images": len(leaves), **facts})
    store.write_document(
        SealRecord(
            merkle_root=root,
            n_images=len(leaves),
            n_patients=12,
            sealed_utc=START + timedelta(seconds=30),
            ledger=ledger,
            n_earlier_seals=example.openings - 1,
            n_earlier_openings=example.openings - 1,
        ),
    )
    return [*(document.PATH for document in written), SplitRecord.PATH, SealRecord.PATH]


def _split(example: Example) -> SplitRecord:
    return SplitRecord(
        source="computed",
        official_available=True,
        seed=7,
        unit="patient",
        partitions=tuple(
            PartitionSummary(
                partition=name,
                n_images=COUNTS[name][1],
                n_patients=COUNTS[name][0],
                sha256=digest(name),
            )
            for name in PARTITIONS
        ),
        shared_patients=dict.fromkeys(PAIRS, 0),
        shared_content=dict.fromkeys(PAIRS, 0),
        shared_near=dict.fromkeys(PAIRS, 0),
        flow=divided(example.odd),
        deviations=(
            "all present images belong to the official training part",
            "the data set's official split was not used",
        ),
    )


def _write_model(store: EvidenceStore, example: Example, plan_digest: str) -> list[str]:
    checkpoint = hashlib.sha256(b"weights").digest() * 64
    path = "checkpoints/step-000400.safetensors"
    checkpoint_sha256 = store.write_bytes(path, checkpoint).sha256
    store.write_document(_isolation())
    store.write_document(_training(path, checkpoint_sha256))
    store.write_document(example_repeat())
    files = []
    for n in range(4):
        data = _png(_head(n, synthetic=True))
        name = f"samples/synthetic-{n:04d}.png"
        files.append((name, store.write_bytes(name, data).sha256, digest(f"pixels {n}")))
    store.write_document(
        SampleSet(
            generator="dsr-gan",
            checkpoint_sha256=checkpoint_sha256,
            seed=7,
            n_images=4,
            image_size_px=64,
            files=tuple(files),
            n_marks_read_back=4,
            duration_s=12.5,
        ),
    )
    evaluation = _evaluation(example, plan_digest, checkpoint_sha256)
    assert evaluation.opening is not None
    opened = evaluation.opening.model_dump(mode="json")
    store.journal.append("test set opened", {**opened, "ledger_head": digest("opening")})
    store.write_document(evaluation)
    _write_figures(store, example)
    return ["isolation.json", "metrics/training.json", "metrics/evaluation.json"]


def _isolation() -> IsolationRecord:
    return IsolationRecord(
        level=4,
        level_name="separate process, Landlock, test images encrypted at rest",
        mechanism="Landlock ABI 7, AES-256-GCM",
        attempts=(
            RefusedRead(target="sealed image", refused=True, error="PermissionError 13"),
            RefusedRead(target="data root", refused=True, error="PermissionError 13"),
        ),
        n_sealed_reads=0,
        limits=(
            "The owner of the machine can read everything.",
            "A public data set cannot be kept secret.",
        ),
    )


KID_ON_TUNING = "kid-inception_pool3-d2048"


def _training(checkpoint_path: str, checkpoint_sha256: str) -> TrainingRecord:
    steps = tuple(range(0, 401, 10))
    curves = [
        Curve(
            stage=stage,
            name=name,
            steps=steps,
            values=tuple(round(low + 0.8 * float(np.exp(-step / 90)), 6) for step in steps),
        )
        for stage, name, low in (
            ("diffusion", "training loss", 0.121),
            ("diffusion", "tuning loss", 0.148),
            ("super-resolution", "generator loss", 0.702),
            ("super-resolution", "discriminator loss", 0.655),
            ("super-resolution", "learning rate", 0.0001),
        )
    ]
    return TrainingRecord(
        generator="dsr-gan",
        title="DSR-GAN (diffusion, histogram matching, super-resolution GAN)",
        recipe="laptop",
        image_size_px=64,
        training_view_sha256=digest("training view"),
        tuning_view_sha256=digest("tuning view"),
        description={
            "architecture": "EDM diffusion at 32 px, then super-resolution GAN to 64 px",
            "augmentation": "none",
            "losses": "denoising (EDM), adversarial, L1",
            "optimiser": "Adam, 0.0002",
        },
        stages=(
            TrainingStage(
                name="diffusion",
                n_parameters=1_234_567,
                n_steps=400,
                batch_size=16,
                duration_s=251.4,
                images_per_s=25.46,
                precision="float32",
            ),
            TrainingStage(
                name="super-resolution",
                n_parameters=345_678,
                n_steps=400,
                batch_size=8,
                duration_s=98.7,
                images_per_s=32.42,
                precision="float32",
            ),
        ),
        curves=tuple(curves),
        fitted=(
            FittedThing(
                name="histogram-matching reference", fit_view_sha256=digest("training view")
            ),
        ),
        selection=Selection(
            partition=TUNING,
            view_sha256=digest("tuning view"),
            criterion="lowest denoising loss",
            candidates=(
                Candidate(step=200, score=0.2351),
                Candidate(step=400, score=0.1573),
            ),
            chosen_step=400,
        ),
        checkpoint_path=checkpoint_path,
        checkpoint_sha256=checkpoint_sha256,
        compute_device="cpu",
        duration_s=350.1,
        comparison=TuningComparison(
            metric_id=f"{KID_ON_TUNING}-n24",
            value=0.364,
            ci95=(0.331, 0.402),
            controls=tuple(
                Control(
                    name=name,
                    metric_id=f"{KID_ON_TUNING}-n24",
                    value=value,
                    meaning=meaning,
                    ci95=(value - 0.03, value + 0.03),
                )
                for name, value, meaning in (
                    ("pca", 0.229, "a Gaussian fitted to training pixels"),
                    ("blur", 0.352, "training images, strongly blurred"),
                )
            ),
            n_real=24,
            n_patients=12,
            n_images=24,
        ),
    )


def _metric(value: float | None, **changes: object) -> MetricResult:
    fields: dict[str, object] = {
        "id": "kid-inception_pool3-n24",
        "title": "Kernel Inception distance (KID)",
        "status": ItemStatus.NOT_EVALUATED if value is None else ItemStatus.RECORDED,
        "value": value,
        "better": "near floor",
        "n_real": 24,
        "n_synthetic": 24,
        "n_patients": 12,
        "extractor": "Inception v3, pool 3",
        "extractor_sha256": digest("inception"),
        "n_features": 2048,
        "resize": "bilinear to 299 px",
        "seed": 7,
    }
    return MetricResult.model_validate(fields | changes)


def _evaluation(example: Example, plan: str, model: str) -> EvaluationRecord:
    fid_id, fid_title = "fid-inception_pool3-d2048-n24", "Fréchet Inception distance (FID)"
    fid = (
        _metric(
            183.4567,
            id=fid_id,
            title=fid_title,
            ci95=(171.25, 196.75),
            floor=62.5,
            floor_ci95=(55.125, 70.5),
            reason="fewer images than features: compare only at equal numbers",
        )
        if example.fid
        else _metric(
            None, id=fid_id, title=fid_title, reason="the Inception weights are not in the cache"
        )
    )
    null = tuple(round(0.30 + 0.002 * n, 4) for n in range(100))
    synthetic = tuple(round(0.33 + 0.0021 * n, 4) for n in range(100))
    return EvaluationRecord(
        metrics=(
            _metric(0.04567, ci95=(0.0312, 0.0611), floor=-0.0012, floor_ci95=(-0.0105, 0.0093)),
            fid,
            _metric(0.051, subgroup=f"machine=Voluson E6 {example.odd}".strip(), n_real=19),
            _metric(
                None, subgroup="machine=Voluson S10", reason="too few: 3 patients", n_patients=3
            ),
        ),
        memorisation=MemorisationRecord(
            method="Root mean square difference of 32 x 32 images, mean removed.",
            threshold=0.302,
            null_median=0.399,
            synthetic_median=0.43395,
            n_null=100,
            n_synthetic=100,
            n_flagged=0,
            share_ci95=(0.0, 0.037),
            null_distances=null,
            synthetic_distances=synthetic,
            closest=tuple(
                NearestPair(
                    synthetic=f"samples/synthetic-{n:04d}.png",
                    training_id=f"Patient{n:05d}_Plane3 {example.odd}".strip(),
                    distance=synthetic[n],
                )
                for n in range(4)
            ),
        ),
        controls=(
            Control(
                name="noise",
                metric_id="kid-inception_pool3-n24",
                value=0.4321,
                meaning="images of noise are far from real ones",
                ci95=(0.41, 0.45),
            ),
            Control(
                name="copycat",
                metric_id="kid-inception_pool3-n24",
                value=0.0123,
                meaning=f"training images themselves {example.odd}".strip(),
                ci95=(0.001, 0.024),
            ),
        ),
        opening=Opening(
            number=example.openings,
            label="confirmatory"
            if example.openings == 1
            else f"exploratory, opening {example.openings}",
            purpose="evaluation of the released checkpoint",
            plan_sha256=plan,
            model_sha256=model,
            opened_utc=START + timedelta(minutes=7),
            n_images=24,
        ),
        gaps=(
            SubgroupGap(
                attribute=f"machine {example.odd}".strip(),
                worst="Voluson S10",
                best=f"Voluson E6 {example.odd}".strip(),
                value=0.0345,
                ci95=(-0.0123, 0.0812),
                p_value=0.1571,
                n_comparisons=3,
            ),
        ),
        least_patients=30,
        repeats=tuple(
            SamplingRepeat(seed=seed, value=value, metric_id="kid-inception_pool3-n24")
            for seed, value in ((0, 0.04567), (1, 0.0471), (2, 0.0442))
        ),
        robustness=(
            RobustnessLoss(alteration="gain", value=0.0117, ci95=(0.0021, 0.0214), n_images=24),
        ),
        membership=MembershipRecord(
            method="relative distance to the nearest synthetic image",
            auc=0.5125,
            ci95=(0.4371, 0.5882),
            n_training=40,
            n_tuning=12,
        ),
        diversity=DiversityRecord(
            vendi=8.25,
            vendi_real=10.75,
            ms_ssim=0.4125,
            ms_ssim_real=0.3275,
            n_images=24,
            n_pairs=200,
        ),
        n_synthetic_in_test=0,
        n_test_patients_in_training=0,
        notes=("Small numbers: intervals are wide.",),
    )


def _head(seed: int, *, synthetic: bool) -> Image.Image:
    """A drawn head: an ellipse in a dark sector, with speckle."""
    picture = Image.new("L", (64, 64), 0)
    draw = ImageDraw.Draw(picture)
    draw.pieslice((-20, -30, 84, 74), 40, 140, fill=40)
    draw.ellipse((12, 18 + seed % 3, 52, 48 + seed % 3), outline=220, width=3)
    draw.line((14, 33, 50, 33), fill=150 if synthetic else 180)
    speckle = np.random.default_rng(seed).gamma(4.0, 0.25, (64, 64))
    pixels = np.asarray(picture, dtype=np.float64) * speckle
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _grid(synthetic: bool, first: int) -> Image.Image:
    grid = Image.new("L", (8 * 66, 3 * 66), 255)
    for n in range(24):
        at = ((n % 8) * 66 + 1, (n // 8) * 66 + 1)
        grid.paste(_head(first + n, synthetic=synthetic), at)
    return grid


def _write_figures(store: EvidenceStore, example: Example) -> None:
    drawn = (
        (
            "real.png",
            "Real images",
            "REAL images of the training partition, first of each patient.",
        ),
        ("synthetic.png", "Synthetic images", "SYNTHETIC images, random, seed 7. No patient."),
    )
    figures = []
    for place, (name, title, caption) in enumerate(drawn):
        path = f"figures/{name}"
        store.write_bytes(path, _png(_grid(place == 1, 100 * place)))
        figures.append(Figure(path=path, title=title, caption=f"{caption} {example.odd}".strip()))
    store.write_document(Figures(figures=tuple(figures)))


_STEPS = (
    "s1_ingest",
    "s2_validate",
    "s3_audit",
    "s4_split",
    "s5_train",
    "s6_evaluate",
)


def _outcome(example: Example) -> Outcome:
    ended = ("finished", "blocked", "skipped", "skipped", "skipped", "skipped")
    steps = tuple(
        StepTiming(
            step=step,
            status=ended[place] if example.blocked else "finished",
            duration_s=round(1.75 * 3**place, 2),
            message="12,280 of 12,400 listed images are missing"
            if example.blocked and place == 1
            else "",
        )
        for place, step in enumerate(_STEPS)
    )
    if example.blocked:
        return Outcome(
            status="blocked",
            stopped_at="s2_validate",
            error_code="D012",
            message=(
                "FETAL_PLANES_DB_data.csv: 12,280 of 12,400 listed images are missing; fetch them "
                f"or set data.missing_images=drop {example.odd}"
            ).strip(),
            steps=steps,
            duration_s=7.0,
        )
    return Outcome(
        status="finished",
        stopped_at=None,
        error_code=None,
        message="",
        steps=steps,
        duration_s=637.0,
    )


_PASSED: dict[str, tuple[Observed, str]] = {
    "P2-01": (Observed(value=True), "environment.json"),
    "P2-07": (Observed(value=0, unit="files"), "integrity.json"),
    "P2-08": (Observed(value=0, unit="breaks"), "integrity.json"),
    "P2-12": (Observed(value=0, unit="expectations"), "data/validation.json"),
    "P3-02": (Observed(value=True), "data/coverage.json"),
    "P3-08": (Observed(value=0, unit="counts"), "data/dataset.json"),
    "P4-01": (Observed(value=0, unit="patients", n_patients=58, n_images=120), "data/split.json"),
    "P4-02": (Observed(value=0, unit="images", n_images=120), "data/duplicates.json"),
    "P4-05": (Observed(value=0, unit="reads", n_images=24, partition=TEST), "isolation.json"),
    "P4-07": (Observed(value=0, unit="things"), "metrics/training.json"),
    "P4-08": (Observed(value=True, partition=TUNING), "metrics/training.json"),
    "P4-11": (
        Observed(value=0, unit="images and patients", partition=TEST),
        "metrics/evaluation.json",
    ),
    "P5-01": (Observed(value=True), "data/dataset.json"),
    "P6-04": (
        Observed(
            value=0.037,
            unit="fraction of synthetic images",
            ci95=(0.0, 0.037),
            n_images=100,
            partition=TRAINING,
        ),
        "metrics/evaluation.json",
    ),
    "P8-03": (
        Observed(
            value=0.04567,
            ci95=(0.0312, 0.0611),
            n_patients=12,
            n_images=24,
            partition=TEST,
        ),
        "metrics/evaluation.json",
    ),
    "P9-05": (Observed(value=4, unit="images"), "samples/manifest.json"),
}
_FAILED: dict[str, tuple[Observed, str, str]] = {
    "P2-02": (
        Observed(value=1, unit="differences"),
        "environment.json",
        "torch 2.6.1 is installed, the lock says 2.6.0",
    ),
    "P3-01": (
        Observed(value=0.0, unit="fraction of patients", n_patients=58),
        "data/dataset.json",
        "gestational age, ethnicity and site are not recorded",
    ),
    "P3-03": (
        Observed(value=3, unit="patients", n_patients=12, n_images=24, partition=TEST),
        "data/coverage.json",
        "smallest level: Voluson S10",
    ),
}
_BLOCKED_KNOWN = ("P2-01", "P2-02", "P2-07", "P2-08")


def _met_for_release(record: ItemRecord) -> ItemRecord:
    """The record as it is in a run that may be released."""
    if record.id == "P1-H1":
        return record.model_copy(update={"status": ItemStatus.DECLARED, "reason": ""})
    is_open = record.item_class is ItemClass.CORE and record.status is ItemStatus.FAILED
    if not is_open and record.id != "P6-03":
        return record
    met = {"status": ItemStatus.PASSED, "reason": "", "observed": Observed(value=True)}
    return record.model_copy(update=met)


def _record(
    item: Item,
    principle: Principle,
    example: Example,
    artifacts: dict[str, str],
    plan_digest: str | None,
) -> ItemRecord:
    status, reason = ItemStatus.NOT_EVALUATED, NOT_YET
    observed: Observed | None = None
    source = ""
    unreached = example.blocked and item.id not in (*_BLOCKED_KNOWN, "P2-12")
    if item.kind == "human":
        status, reason = ItemStatus.MISSING, NO_FILE
    elif unreached and item.id in {*_PASSED, *_FAILED}:
        reason = "the run stopped at s2_validate"
    elif item.id == "P5-01" and not example.gate_passed:
        reason = PIN_REASON
    elif item.id == "P2-12" and example.blocked:
        status, reason = ItemStatus.FAILED, "machine is never empty: 3 rows have no machine"
        observed, source = Observed(value=2, unit="expectations"), "data/validation.json"
    elif item.id in _PASSED:
        status, reason = ItemStatus.PASSED, ""
        observed, source = _PASSED[item.id]
    elif item.id in _FAILED:
        status = ItemStatus.FAILED
        observed, source, reason = _FAILED[item.id]
        reason = f"{reason} {example.odd}".strip()
    criterion = None
    if item.criterion and plan_digest:
        criterion = FrozenCriterion(
            **item.criterion.model_dump(),
            frozen_at=START + timedelta(seconds=40),
            frozen_sha256=plan_digest,
        )
    return ItemRecord(
        id=item.id,
        title=item.title,
        principle=principle.id,
        item_class=item.item_class,
        kind=item.kind,
        status=status,
        criterion=criterion,
        observed=observed,
        method="Counted over the whole partition." if observed else "",
        artifact=Artifact(path=source, sha256=artifacts[source]) if source else None,
        reason=reason,
        limitations="Patients under two numbers are not found." if item.id == "P4-01" else "",
        time_utc=START + timedelta(minutes=8),
    )
