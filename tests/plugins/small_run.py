"""A finished run folder around a tiny PCA Gaussian, in milliseconds, for tests of what uses one."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from governance.evidence.manifest import close_evidence
from governance.evidence.store import EvidenceStore
from governance.records.base import Gate
from governance.records.files import sha256_bytes
from governance.records.rollup import RollUp
from governance.records.run import Outcome, RunIdentity
from governance.records.training import TrainingRecord
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.registry import load_generator
from pipelines.current_run.identity import tool_version
from pipelines.steps.s8_report import write_outputs

RUN_ID = "20260101T000000Z-0a1b2c3d"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PCA = "tests.plugins.pca_gaussian:PcaGaussian"


def view(partition: str, n: int, size: int, seed: int = 0) -> ImageView:
    """Discs of random place and brightness on black."""
    rng = np.random.default_rng([seed, n])
    rows, columns = np.mgrid[:size, :size] / size
    pixels = np.zeros((n, size, size), np.uint8)
    for image, (top, left, grey) in zip(pixels, rng.random((n, 3)), strict=True):
        image[(rows - 0.3 - 0.4 * top) ** 2 + (columns - 0.3 - 0.4 * left) ** 2 < 0.06] = (
            80 + 150 * grey
        )
    ids = tuple(f"{partition}-{k}" for k in range(n))
    return ImageView(partition, pixels, ids, ids, ("",) * n, ("",) * n)


def context(seed: int = 3, **values: Any) -> TrainingContext:
    return TrainingContext(
        **{
            "seed": seed,
            "compute_device": "cpu",
            "log": lambda *_: None,
            "progress": lambda *_: None,
            "should_stop": lambda: False,
            **values,
        }
    )


def write_run(
    workspace: Path,
    *,
    model: str = PCA,
    settings: Mapping[str, Any] | None = None,
    is_blocked: bool = False,
    is_gate_passed: bool = True,
    run_id: str = RUN_ID,
) -> Path:
    """Train (unless blocked) and write what `sample` reads; return the run folder."""
    store = EvidenceStore.create(workspace / "runs", run_id, tool_version=tool_version())
    given = {"size": 16, "components": 4, **(settings or {})}
    config = json.dumps({"model": {"name": model, "settings": given}}).encode()  # JSON is YAML
    store.write_bytes("config.yaml", config)
    identity = RunIdentity(
        run_id=run_id,
        started_utc=NOW,
        tool_version=tool_version(),
        code_commit=None,
        code_clean=None,
        command=("medisynth-gov", "run"),
        preset="smoke",
        generator=model,
        seed=3,
        config_sha256=sha256_bytes(config),
    )
    store.write_document(identity)
    if not is_blocked:
        _train(store, model, given)
    outcome = Outcome(
        status="blocked" if is_blocked else "finished",
        stopped_at="s2_validate" if is_blocked else None,
        error_code="D070" if is_blocked else None,
        message="rule 'x' failed" if is_blocked else "",
        steps=(),
        duration_s=1,
    )
    store.write_document(outcome)
    rollup = RollUp(
        policy="example",
        policy_version="1",
        gate=Gate.PASSED if is_gate_passed and not is_blocked else Gate.FAILED,
        exit_code=3 if is_blocked else 0,
        verdict="example",
        gate_items=(),
        principles=(),
    )
    store.write_document(rollup)
    close_evidence(
        store.run_dir,
        run_id=run_id,
        tool_version=tool_version(),
        journal=store.journal,
        previous_run=None,
        now=NOW,
    )
    write_outputs(store.run_dir, {"report.pdf": b"none"})
    return store.run_dir


def _train(store: EvidenceStore, model: str, values: Mapping[str, Any]) -> None:
    generator_type = load_generator(model)
    settings = generator_type.Settings.model_validate(values)
    generator = generator_type(settings)
    size = generator_type.image_size_px(settings)
    tuning = view("tuning", 8, size)
    report = generator.fit(view("training", 24, size), tuning, context())
    data = checkpoint.encode(generator.state(), {"generator": generator_type.name})
    digest = sha256_bytes(data)
    path = f"checkpoints/{generator_type.name}-{digest[:12]}.safetensors"
    store.write_bytes(path, data)
    record = TrainingRecord(
        generator=model,
        title=generator_type.title,
        recipe="as configured",
        image_size_px=size,
        training_view_sha256="0" * 64,
        tuning_view_sha256=tuning.digest,
        description=report.description,
        stages=(),
        curves=(),
        fitted=(),
        selection=report.selection,
        checkpoint_path=path,
        checkpoint_sha256=digest,
        compute_device="cpu",
        duration_s=1,
    )
    store.write_document(record)
