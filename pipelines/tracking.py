"""The mirror of a run in MLflow, and the only module that imports it.

MLflow is a window: records in it stay editable, so nothing is proved from there. A tracking
server that fails in the middle of a run never stops it: the mirror goes silent, once, in words.
"""

import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from governance.evidence.documents import (
    Curve,
    MetricResult,
    PartitionSummary,
    RollUp,
    RunIdentity,
    TrainingRecord,
)
from medisynth.models.registry import load_generator
from pipelines.config import TrackingConfig
from pipelines.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 900  # MLflow accepts 1,000 metrics a call
_DIGEST_CHARS = 36  # width of MLflow's data set digest column; the full digest goes to a tag
_FORBIDDEN = re.compile(r"[^\w\-. :/]")


_P = ParamSpec("_P")


def _mirrored(
    method: "Callable[Concatenate[Tracker, MlflowClient, _P], None]",
) -> "Callable[Concatenate[Tracker, _P], None]":
    """Run a method against the store; without a store do nothing; on failure go silent for good."""

    @wraps(method)
    def call(self: "Tracker", /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if self._client is None:
            return
        try:
            method(self, self._client, *args, **kwargs)
        except self._errors as error:
            self._client = None
            self.problem = _first_line(error)
            self._warn(f"MLflow mirror stopped ({self.problem}); the run folder stays complete")

    return call


def store_uri(workspace: Path, config: TrackingConfig) -> str:
    """Tracking URI: the configured one, or an absolute sqlite file in the workspace."""
    return config.uri or f"sqlite:///{workspace / 'mlflow' / 'mlflow.db'}"


def metric_name(text: str) -> str:
    """A name that MLflow accepts; every refused character becomes its code point, e.g. "_u00e9"."""
    return _FORBIDDEN.sub(lambda match: f"_u{ord(match.group()):04x}", text)[:250]


class Tracker:
    """Mirrors one run: a parent run, a child run for each step, data sets, curves and the model.

    Attributes:
        run_id: MLflow id of the parent run; None when nothing is mirrored.
        problem: Why mirroring stopped; empty while it works.
    """

    def __init__(
        self,
        workspace: Path,
        config: TrackingConfig,
        warn: Callable[[str], None],
    ) -> None:
        self.run_id: str | None = None
        self.problem = ""
        self._workspace, self._config, self._warn = workspace, config, warn
        self._client: MlflowClient | None = None
        self._errors: tuple[type[Exception], ...] = ()
        self._experiment_id = ""
        self._model_id: str | None = None
        self._step_run: str | None = None
        self._datasets: dict[str, str] = {}

    def connect(self) -> None:
        """Open the store and the experiment before any work is done.

        Raises:
            TrackingError: The store cannot be opened.
        """
        if not self._config.enabled:
            return
        _quiet()
        from mlflow import MlflowClient

        self._errors = _store_errors()
        uri = store_uri(self._workspace, self._config)
        folder = self._workspace / "mlflow"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _schema_lock(folder):  # two processes creating one sqlite schema would crash
                client = MlflowClient(tracking_uri=uri)
                self._experiment_id = self._experiment(client, folder)
        except self._errors as error:
            raise TrackingError(
                f"tracking.uri: {uri} cannot be opened ({_first_line(error)}); "
                "check that it is an MLflow store, or set tracking.enabled=false"
            ) from error
        self._client = client

    def _experiment(self, client: "MlflowClient", folder: Path) -> str:
        found = client.get_experiment_by_name(self._config.experiment)
        if found is not None:
            return str(found.experiment_id)
        location = None if self._config.uri else (folder / "artifacts").as_uri()
        return client.create_experiment(
            self._config.experiment,
            artifact_location=location,
            tags={"mlflow.experimentKind": "custom_model_development"},  # opens the right views
        )

    @_mirrored
    def start(
        self, client: "MlflowClient", identity: RunIdentity, parameters: Mapping[str, str]
    ) -> None:
        """Begin the parent run."""
        run = client.create_run(
            self._experiment_id,
            run_name=identity.run_id,
            tags={
                "medisynth.run_id": identity.run_id,
                "medisynth.verdict": "running",
                "mlflow.source.name": "medisynth-gov",
                "mlflow.source.git.commit": identity.code_commit or "unknown",
            },
        )
        self.run_id = run.info.run_id
        self._log_params(client, self.run_id, parameters)

    @_mirrored
    def resume(
        self, client: "MlflowClient", identity: RunIdentity, parameters: Mapping[str, str]
    ) -> None:
        """Go on with the parent run of a run that was cut short; begin one when there is none."""
        tag = f"tags.`medisynth.run_id` = '{identity.run_id}'"
        found = client.search_runs([self._experiment_id], filter_string=tag)
        if not found:
            self._warn("MLflow has no run of this id; a new one begins here")
            self.start(identity, parameters)
            return
        self.run_id = found[0].info.run_id
        client.update_run(self.run_id, status="RUNNING")
        client.set_tag(self.run_id, "medisynth.verdict", "running")
        parent = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        for step in client.search_runs([self._experiment_id], filter_string=parent):
            if step.info.status == "RUNNING":  # its process was killed before it could say so
                client.set_terminated(step.info.run_id, "KILLED")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Mirror one step as a child run whose status is true after errors, too."""
        self._start_step(name)
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        finally:
            self._finish_step(status)

    @_mirrored
    def _start_step(self, client: "MlflowClient", name: str) -> None:
        tags = {"mlflow.parentRunId": self.run_id or "", "medisynth.step": name}
        run = client.create_run(self._experiment_id, run_name=name, tags=tags)
        self._step_run = run.info.run_id

    @_mirrored
    def _finish_step(self, client: "MlflowClient", status: str) -> None:
        if self._step_run is not None:
            client.set_terminated(self._step_run, status)
        self._step_run = None

    @_mirrored
    def log_partitions(
        self, client: "MlflowClient", dataset: str, partitions: Sequence[PartitionSummary]
    ) -> None:
        """Data sets as inputs, with our digests."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for part in partitions:
            name = f"{dataset}: {part.partition}"
            self._datasets[part.partition] = name
            entity = Dataset(
                name=name,
                digest=part.sha256[:_DIGEST_CHARS],
                source_type="medisynth-gov",
                source=json.dumps({"dataset": dataset, "sha256": part.sha256}),
                profile=json.dumps({"n_images": part.n_images, "n_patients": part.n_patients}),
            )
            tags = [
                InputTag("mlflow.data.context", part.partition),
                InputTag("medisynth.sha256", part.sha256),
            ]
            inputs.append(DatasetInput(dataset=entity, tags=tags))
        client.log_inputs(str(self.run_id), datasets=inputs)

    @_mirrored
    def log_training(
        self, client: "MlflowClient", record: TrainingRecord, checkpoint: Path, view_sha256: str
    ) -> None:
        """Curves, and the released checkpoint as a LoggedModel."""
        self._log_curves(client, record.curves)
        from mlflow.entities import LoggedModelOutput

        model = client.create_logged_model(
            self._experiment_id,
            # MLflow refuses the dots and colons of "package.module:Class".
            name=load_generator(record.generator).name,
            source_run_id=self.run_id,
            model_type="generator",
            tags={
                "medisynth.checkpoint_sha256": record.checkpoint_sha256,
                "medisynth.training_view_sha256": view_sha256,
            },
            params={k: v[:500] for k, v in record.description.items()},
        )
        self._model_id = model.model_id
        client.log_model_artifact(model.model_id, str(checkpoint))
        client.finalize_logged_model(model.model_id, "READY")
        last = record.stages[-1].n_steps if record.stages else 0
        client.log_outputs(str(self.run_id), [LoggedModelOutput(model.model_id, last)])

    @_mirrored
    def log_evaluation(
        self, client: "MlflowClient", metrics: Sequence[MetricResult], test: PartitionSummary | None
    ) -> None:
        """Metrics, tied to the model and to the data set they were measured on."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        name = self._datasets.get(test.partition) if test else None
        digest = test.sha256[:_DIGEST_CHARS] if test else None
        entities = []
        for metric in metrics:
            if metric.value is None:
                continue
            key = " ".join(filter(None, (f"evaluation/{metric.id}", metric.subgroup)))
            values = {key: metric.value}
            if metric.ci95:
                values |= {f"{key} ci95 low": metric.ci95[0], f"{key} ci95 high": metric.ci95[1]}
            if metric.floor is not None:
                values[f"{key} floor"] = metric.floor
            entities += [
                Metric(metric_name(k), v, now, 0, self._model_id, name, digest, self.run_id)
                for k, v in values.items()
            ]
        self._log_metrics(client, entities)

    @_mirrored
    def log_artifacts(self, client: "MlflowClient", folder: Path, paths: Sequence[str]) -> None:
        """Files of the run folder, under the same relative paths."""
        for path in paths:
            parent = str(Path(path).parent)
            client.log_artifact(
                str(self.run_id), str(folder / path), None if parent == "." else parent
            )

    @_mirrored
    def log_verdict(
        self,
        client: "MlflowClient",
        rollup: RollUp,
        *,
        evidence_root: str,
        journal_head: str,
        journal_events: int,
    ) -> None:
        """Verdict, principle statuses, manifest root and chain head as tags."""
        from mlflow.entities import RunTag

        tags = {
            "medisynth.verdict": rollup.verdict,
            "medisynth.gate": rollup.gate.value,
            "medisynth.evidence_root": evidence_root,
            "medisynth.journal_head": f"{journal_events}:{journal_head}",
            "mlflow.note.content": _note(rollup, evidence_root),
        }
        tags |= {f"gmlp.{line.id}": line.status.value for line in rollup.principles}
        tags |= {f"gate.{line.item_id}": line.status.value for line in rollup.gate_items}
        tags |= {f"waiver.{line.item_id}": line.state for line in rollup.waivers}
        client.log_batch(str(self.run_id), tags=[RunTag(k, v) for k, v in tags.items()])

    @_mirrored
    def finish(self, client: "MlflowClient", status: str) -> None:
        """End the parent run with MLflow's word for it: FINISHED, FAILED or KILLED."""
        client.set_terminated(str(self.run_id), status)

    def _log_curves(self, client: "MlflowClient", curves: Sequence[Curve]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [
            Metric(metric_name(f"{curve.stage}/{curve.name}"), value, now, step)
            for curve in curves
            for step, value in zip(curve.steps, curve.values, strict=True)
        ]
        self._log_metrics(client, entities)

    def _log_metrics(self, client: "MlflowClient", entities: Sequence[Any]) -> None:
        for start in range(0, len(entities), _BATCH):
            client.log_batch(str(self.run_id), metrics=entities[start : start + _BATCH])

    def _log_params(
        self, client: "MlflowClient", run_id: str, parameters: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param

        entities = [Param(metric_name(k), v[:6000]) for k, v in parameters.items()]
        for start in range(0, len(entities), 100):
            client.log_batch(run_id, params=entities[start : start + 100])


def _note(rollup: RollUp, evidence_root: str) -> str:
    lines = [f"**{rollup.verdict}**", "", "| principle | status |", "|---|---|"]
    lines += [f"| {p.id} {p.title_2021} | {p.status.value} |" for p in rollup.principles]
    lines += ["", f"Evidence root `{evidence_root}`. Mapped to GMLP; the run folder is the record."]
    return "\n".join(lines)


def _quiet() -> None:
    """No telemetry, no migration chatter; set before MLflow is imported."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("alembic").setLevel(logging.ERROR)


def _store_errors() -> tuple[type[Exception], ...]:
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, OSError, SQLAlchemyError, CommandError)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


@contextmanager
def _schema_lock(folder: Path) -> Iterator[None]:
    with (folder / ".schema.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
