"""Compares a finished run in MLflow with its folder; writes nothing.

MLflow stays editable, so a difference means that MLflow no longer shows what is on record.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from governance.evidence.folder import RunFolder
from governance.records.dataset import DatasetIdentity
from governance.records.errors import TrackingError
from governance.records.evaluation import EvaluationRecord
from governance.records.files import sha256_file
from governance.records.partition import SplitRecord
from governance.records.run import Outcome
from governance.records.training import TrainingRecord
from pipelines.config.sections import TrackingConfig
from pipelines.tracking.mirror import (
    CHECKPOINT_TAG,
    SHA256_TAG,
    curve_points,
    dataset_name,
    find_run,
    metric_values,
    mlflow_status,
    verdict_tags,
)
from pipelines.tracking.store import Store, metric_name, open_known_store, reason_of

_ABSENT = "nothing"


def compare_mirror(run: RunFolder, config: TrackingConfig) -> tuple[str, tuple[str, ...]]:
    """Compare tags, data sets, parameters, metrics and model of a run with its folder.

    Args:
        run: The run folder.
        config: Tracking section of the run's configuration.

    Returns:
        A sentence on the comparison, and every difference.

    Raises:
        TrackingError: The store cannot be read or has no such experiment.
    """
    store = open_known_store(run.workspace, config)
    try:
        mlflow_id = find_run(store, run.identity.run_id)
        if mlflow_id is None:
            return "no run of this id", (
                f"MLflow: has no run {run.identity.run_id}; medisynth-gov sync writes it",
            )
        faults = _compare(store, mlflow_id, run)
    except store.errors as error:
        raise TrackingError(
            f"the MLflow store cannot be read ({reason_of(error)}); try again when it is back"
        ) from error
    return f"run {mlflow_id}: tags, data sets, parameters, metrics and model compared", faults


def _compare(store: Store, mlflow_id: str, run: RunFolder) -> tuple[str, ...]:
    found = store.client.get_run(mlflow_id)
    status = mlflow_status(run.need(Outcome).status)
    tags = verdict_tags(run)
    parameters = {metric_name(key): str(value)[:6000] for key, value in run.flat_config().items()}
    faults = _unlike("status", {"status": status}, {"status": str(found.info.status)})
    faults += _unlike("tag", tags, found.data.tags)
    faults += _unlike("parameter", parameters, found.data.params)
    faults += _data_sets(found, run)
    faults += _metrics(store, mlflow_id, set(found.data.metrics), run)
    faults += _model(store, mlflow_id, run)
    return tuple(faults)


def _unlike(what: str, ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    return [
        f"MLflow: {what} {key[:100]!a} is {str(theirs.get(key, _ABSENT))[:80]!a}, the run folder "
        f"has {str(value)[:80]!a}"
        for key, value in ours.items()
        if theirs.get(key) != value
    ]


def _data_sets(found: object, run: RunFolder) -> list[str]:
    """Compare the full digest of each partition with the tag of its MLflow input."""
    split, dataset = run.get(SplitRecord), run.get(DatasetIdentity)
    if split is None:
        return []
    name = dataset.name if dataset else ""
    ours = {dataset_name(name, part): part.sha256 for part in split.partitions}
    inputs = getattr(found, "inputs", None)
    theirs = {
        put.dataset.name: next((tag.value for tag in put.tags if tag.key == SHA256_TAG), _ABSENT)
        for put in (inputs.dataset_inputs if inputs else ())
    }
    return _unlike("digest of data set", ours, theirs)


def _metrics(store: Store, mlflow_id: str, theirs: set[str], run: RunFolder) -> list[str]:
    """Compare all numbers of the evaluation and all points of the training curves."""
    evaluation, training = run.get(EvaluationRecord), run.get(TrainingRecord)
    ours: dict[str, list[tuple[int, float]]] = {}
    for key, value, step in curve_points(training) if training else ():
        ours.setdefault(key, []).append((step, value))
    for key, value in metric_values(evaluation.metrics) if evaluation else ():
        ours.setdefault(key, []).append((0, value))
    faults = []
    for key, points in ours.items():
        history = store.client.get_metric_history(mlflow_id, key) if key in theirs else []
        told = sorted((point.step, point.value) for point in history)
        if told != sorted(points):
            faults.append(_metric_fault(key, sorted(points), told))
    extra = sorted(key for key in theirs - set(ours) if key.startswith("evaluation/"))
    return faults + [f"MLflow: metric {key[:100]!a} is not in the run folder" for key in extra]


def _metric_fault(key: str, ours: list[tuple[int, float]], theirs: list[tuple[int, float]]) -> str:
    """Return a sentence on the first point that differs and the numbers of points."""
    by_step = dict(theirs)
    step, value = next((p for p in ours if by_step.get(p[0]) != p[1]), ours[0])
    return (
        f"MLflow: metric {key[:100]!a} is {by_step.get(step, _ABSENT)} at step {step}, the run "
        f"folder has {value}; {len(theirs)} points, the run folder has {len(ours)}"
    )


def _model(store: Store, mlflow_id: str, run: RunFolder) -> list[str]:
    """Compare the released checkpoint's digest with MLflow's tag and, if local, its file."""
    training = run.get(TrainingRecord)
    if training is None:
        return []
    models = store.client.search_logged_models(
        [store.experiment_id], filter_string=f"source_run_id = '{mlflow_id}'"
    )
    name, expected = Path(training.checkpoint_path).name, training.checkpoint_sha256
    if not models:
        return [f"MLflow: has no model of this run, the run folder has {name}"]
    faults = []
    for model in models:
        digests = {"tag": str(model.tags.get(CHECKPOINT_TAG, _ABSENT))}
        place = urlsplit(store.place_of(str(model.artifact_location)))
        if place.scheme in ("", "file"):  # files of a remote store would have to be fetched first
            file = Path(unquote(place.path)) / name
            digests["file"] = sha256_file(file) if file.is_file() else _ABSENT
        faults += [
            f"MLflow: digest of model checkpoint {name} ({where}) is {digest[:80]}, the run folder "
            f"has {expected}"
            for where, digest in digests.items()
            if digest != expected
        ]
    return faults
