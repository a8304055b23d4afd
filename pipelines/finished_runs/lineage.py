"""The ancestors of a run and what changed since, and the baseline for later runs."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from governance.evidence.folder import RunFolder, is_ended
from governance.evidence.manifest import is_safe_path
from governance.records.base import ItemStatus
from governance.records.dataset import DatasetIdentity
from governance.records.errors import ConfigError, EvidenceError, MetricUndefinedError
from governance.records.evaluation import Baseline, EvaluationRecord
from governance.records.files import sha256_file
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
from governance.records.training import TrainingRecord
from medisynth.data.reading.views import ImageView
from medisynth.metrics.features import ExtractorFacts, Features
from medisynth.metrics.fingerprint import feature_fingerprint, histogram_distance, image_fingerprint
from pipelines.config.sections import LineageConfig
from pipelines.current_run.context import IMAGE_TABLE, RunContext
from pipelines.finished_runs.compare import (
    CHECKPOINT,
    Difference,
    code_facts,
    config_facts,
    data_facts,
    differences,
    later_openings,
    metric_pairs,
    unfair,
)


def baseline_of(
    training: ImageView,
    features: Features | None,
    extractor: ExtractorFacts | None,
    evaluation: EvaluationRecord,
) -> Baseline:
    """Return the fingerprint of the training images and the metrics of the generator.

    Args:
        training: Training view, at least one image.
        features: Features of training images, shape (n, d); None when they were not extracted.
        extractor: Extractor of the features; None without them.
        evaluation: Metrics of the released generator.
    """
    summary, faults = None, []
    if features is not None and extractor is not None:
        try:
            summary = feature_fingerprint(features, extractor)
        except MetricUndefinedError as error:
            faults.append(str(error))
    measured = tuple(m for m in evaluation.metrics if m.status is ItemStatus.RECORDED)
    faults += [m.reason for m in evaluation.metrics if m.status is not ItemStatus.RECORDED]
    return Baseline(
        partition=training.partition,
        view_sha256=training.digest,
        n_images=len(training),
        n_patients=len(set(training.patient_ids)),
        image_size_px=int(training.pixels.shape[1]),
        images=image_fingerprint(training.pixels),
        features=summary,
        metrics=measured,
        reason=faults[0] if faults and not (summary and measured) else "",
    )


def drift_between(before: Baseline | None, after: Baseline | None) -> tuple[Drift, ...]:
    """Return how far image statistics moved; empty if a baseline is missing or sizes differ."""
    if before is None or after is None or before.image_size_px != after.image_size_px:
        return ()
    known = {one.name: one for one in before.images}
    return tuple(
        Drift(
            name=one.name,
            distance=histogram_distance(known[one.name].counts, one.counts),
            n_before=before.n_images,
            n_after=after.n_images,
        )
        for one in after.images
        if one.name in known and (known[one.name].low, known[one.name].high) == (one.low, one.high)
    )


FIRST = "first run"
_NAMES = ("the parent", "this run")
# Settings that may differ between runs of one experiment with several seeds.
_NOT_THE_EXPERIMENT = ("seed", "declarations", "hazards", "tracking.", "signing.", "seal.")


@dataclass(frozen=True)
class _Known:
    """Facts of an earlier run, read before its digests are checked."""

    folder: Path
    facts: tuple[Any, ...]  # code version, commit, digest of the images


def require_parent(workspace: Path, wanted: LineageConfig) -> None:
    """Refuse a configured parent that is no finished run of the workspace.

    Raises:
        ConfigError: There is no such run, or it did not come to its end.
    """
    if wanted.parent in ("auto", "none"):
        return
    folder = workspace / "runs" / wanted.parent
    if not is_safe_path(wanted.parent) or "/" in wanted.parent or not folder.is_dir():
        raise ConfigError(
            f"lineage.parent: no run {wanted.parent[:80]!a} in {workspace / 'runs'}; expected "
            "'auto', 'none' or the id of a run"
        )
    if not is_ended(folder):
        raise ConfigError(f"lineage.parent: run {wanted.parent} did not come to its end")


def write_lineage(context: RunContext) -> None:
    """Write lineage.json and, if there is a parent, change.json; nothing without a model.

    If the run's own files are damaged, warn and write no lineage: the run must still be closed.
    """
    try:
        _write(context)
    except EvidenceError as error:
        context.console.warn(f"no lineage was written: {error}")


def _write(context: RunContext) -> None:
    store = context.store
    run = RunFolder.open(store)
    dataset = run.get(DatasetIdentity)
    if run.get(TrainingRecord) is None or dataset is None:
        return
    lineage, parent = _lineage(run, dataset, context.config.lineage)
    if parent is not None:
        try:
            change = _change(parent, run, context.config.lineage.change_plan)
            store.write_document(change)
        except EvidenceError as error:
            lineage = lineage.model_copy(update={"fault": str(error)})
    store.write_document(lineage)


def _lineage(
    run: RunFolder, dataset: DatasetIdentity, wanted: LineageConfig
) -> tuple[Lineage, RunFolder | None]:
    """Return the lineage and the opened parent; None without a readable parent."""
    earlier, n_unreadable = _earlier(run, dataset)
    parent, found, fault, delta = None, None, "", None
    folder = _parent_folder(run, earlier, wanted)
    if folder is not None:
        try:
            parent = RunFolder.finished(folder)
            found = _parent(parent)
            delta = _delta(parent, run)
        except (EvidenceError, ConfigError) as error:
            parent, fault = None, str(error)
    is_first = folder is None
    lineage = Lineage(
        model=run.identity.generator,
        data=dataset.name,
        parent=found,
        is_chosen=wanted.parent != "auto",
        reason=FIRST if is_first else wanted.reason.strip(),
        delta=delta,
        fault=fault,
        n_runs=len(earlier) + 1,
        n_unreadable=n_unreadable,
        seeds=_seeds(run, dataset, earlier),
    )
    return lineage, parent


def _parent_folder(run: RunFolder, earlier: list[_Known], wanted: LineageConfig) -> Path | None:
    if wanted.parent == "none":
        return None
    if wanted.parent != "auto":
        return run.path.parent / wanted.parent
    return earlier[-1].folder if earlier else None


def _earlier(run: RunFolder, dataset: DatasetIdentity) -> tuple[list[_Known], int]:
    """Return earlier finished runs of this model and data, oldest first; and n unreadable."""
    found, n_unreadable = [], 0
    for folder in sorted(run.path.parent.iterdir()):
        if folder.name >= run.path.name or not is_ended(folder):
            continue
        try:
            identity, data = (_peek(folder / name) for name in ("run.json", "data/dataset.json"))
            outcome = _peek(folder / "outcome.json")
            is_alike = (identity["generator"], data.get("name")) == (
                run.identity.generator,
                dataset.name,
            )
            if is_alike and outcome["status"] == "finished":
                facts = (identity["tool_version"], identity["code_commit"], data["content_sha256"])
                found.append(_Known(folder, facts))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            n_unreadable += 1
    return found, n_unreadable


def _peek(path: Path) -> dict[str, Any]:
    """Read a document unchecked, only to see whether its run is of interest."""
    if path.name == "dataset.json" and not path.exists():
        return {}  # a run that stopped before it read its data
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path}: no JSON object")
    return content


def _parent(parent: RunFolder) -> ParentRun:
    training = parent.need(TrainingRecord)
    return ParentRun(
        run_id=parent.identity.run_id,
        evidence_root=parent.manifest.evidence_root,
        checkpoint_path=training.checkpoint_path,
        checkpoint_sha256=training.checkpoint_sha256,
        checkpoint=_state_of(parent, training),
    )


def _state_of(
    parent: RunFolder, training: TrainingRecord
) -> Literal["intact", "changed", "missing"]:
    """Return whether the released checkpoint is intact, changed or missing."""
    path = parent.path / training.checkpoint_path
    if not is_safe_path(training.checkpoint_path) or path.is_symlink() or not path.is_file():
        return "missing"
    try:
        return "intact" if sha256_file(path) == training.checkpoint_sha256 else "changed"
    except OSError:
        return "missing"


def _delta(parent: RunFolder, run: RunFolder) -> DataDelta | None:
    """Count equal, changed, added and removed images; None when a run has no image table."""
    before, after = _images(parent), _images(run)
    if before is None or after is None:
        return None
    shared = before.index.intersection(after.index)
    n_same = int((before.loc[shared] == after.loc[shared]).sum())
    return DataDelta(
        n_same=n_same,
        n_changed=len(shared) - n_same,
        n_added=len(after) - len(shared),
        n_removed=len(before) - len(shared),
    )


def _images(run: RunFolder) -> "pd.Series[str] | None":
    """Return the pixel digest of each selected image by its id; None without an image table."""
    data = run.read(IMAGE_TABLE)
    if data is None:
        return None
    try:
        table = pd.read_parquet(BytesIO(data), columns=["image_id", "pixel_sha256"])
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{run.path / IMAGE_TABLE}: not a readable table of images") from error
    return table.astype(str).set_index("image_id")["pixel_sha256"]


def _seeds(run: RunFolder, dataset: DatasetIdentity, earlier: list[_Known]) -> tuple[SeedRun, ...]:
    """Return the runs that differ from this one in their seed only, this one last."""
    own = _experiment(run)
    identity = run.identity
    facts = (identity.tool_version, identity.code_commit, dataset.content_sha256)
    found = []
    for known in earlier:
        if known.facts != facts:
            continue
        try:
            other = RunFolder.finished(known.folder)
            if _experiment(other) == own:
                found.append(_seed_run(other))
        except (EvidenceError, ConfigError):
            continue  # an unreadable run is no evidence about seeds
    return (*found, _seed_run(run))


def _experiment(run: RunFolder) -> dict[str, Any]:
    return {
        key: value
        for key, value in config_facts(run).items()
        if not any(
            key.startswith(name) if name.endswith(".") else key == name
            for name in _NOT_THE_EXPERIMENT
        )
    }


def _seed_run(run: RunFolder) -> SeedRun:
    evaluation = run.get(EvaluationRecord)
    kid = next(
        (m for m in (evaluation.metrics if evaluation else ()) if _is_primary(m.id, m.subgroup)),
        None,
    )
    return SeedRun(
        run_id=run.identity.run_id,
        seed=run.identity.seed,
        value=kid.value if kid else None,
        metric_id=kid.id if kid else "",
    )


def _is_primary(metric_id: str, subgroup: str) -> bool:
    return metric_id.startswith("kid") and not subgroup


def _change(parent: RunFolder, run: RunFolder, plan: tuple[str, ...]) -> ChangeRecord:
    found = {
        "config": differences(config_facts(parent), config_facts(run)),
        "data": differences(data_facts(parent), data_facts(run)),
        "code": differences(code_facts(parent), code_facts(run)),
    }
    # Training makes a new checkpoint each time: a plan need not name that change.
    names = [f"{kind}: {d.name}" for kind, ds in found.items() for d in ds if d.name != CHECKPOINT]
    outside = [n for n in names if plan and not any(fnmatchcase(n, pattern) for pattern in plan)]
    return ChangeRecord(
        parent=parent.identity.run_id,
        **{kind: tuple(map(_changed, ds)) for kind, ds in found.items()},
        metrics=_changed_metrics(parent, run),
        unfair=unfair(parent, run, found["data"]),
        cautions=later_openings(parent, run),
        plan=plan,
        outside_plan=tuple(outside),
        drift=drift_between(parent.get(Baseline), run.get(Baseline)),
    )


def _changed(difference: Difference) -> ChangedValue:
    return ChangedValue(name=difference.name, before=difference.a, after=difference.b)


def _changed_metrics(parent: RunFolder, run: RunFolder) -> tuple[ChangedMetric, ...]:
    changed = []
    for pair in metric_pairs(parent, run, _NAMES):
        known = pair.b or pair.a
        if known is None:
            continue
        changed.append(
            ChangedMetric(
                name=pair.name,
                subgroup=known.subgroup,
                better=known.better,
                before=pair.a.value if pair.a else None,
                after=pair.b.value if pair.b else None,
                before_ci95=pair.a.ci95 if pair.a else None,
                after_ci95=pair.b.ci95 if pair.b else None,
                unfair=pair.unfair,
            )
        )
    return tuple(changed)
