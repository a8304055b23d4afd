"""Writes one run to MLflow: each part only if the store lacks it.

So a run can be mirrored while it goes on, after a failure of the server, or twice, without loss or
duplicates. Points carry the start time of the run, which is the same in every attempt.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from governance.evidence.folder import RunFolder, model_name
from governance.evidence.manifest import BESIDE, MANIFEST
from governance.records.dataset import DatasetIdentity
from governance.records.errors import TrackingError
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.partition import PartitionSummary, SplitRecord
from governance.records.rollup import RollUp
from governance.records.run import Outcome, RunIdentity
from governance.records.training import TrainingRecord
from governance.verdict.boxes import VerdictBox, verdict_boxes
from pipelines.tracking.store import Store, metric_name

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric

_BATCH = 900  # MLflow accepts 1,000 metrics a call
_PARAMETERS = 100  # and 100 parameters
_DIGEST_CHARS = 36  # width of MLflow's data set digest column; the full digest goes to a tag
_LARGE = ("samples/0", "records/", "checkpoints/", "history/")
_WORDS = {"finished": "FINISHED", "interrupted": "KILLED"}  # all others: FAILED
_LAST_STEPS = ("s7_evidence", "s8_report")
RUN_ID_TAG, SHA256_TAG = "medisynth.run_id", "medisynth.sha256"
CHECKPOINT_TAG = "medisynth.checkpoint_sha256"


def find_run(store: Store, run_id: str) -> str | None:
    """Return MLflow's id of a run of ours; None when the store does not know it."""
    text = f"tags.`{RUN_ID_TAG}` = '{run_id}'"
    found = store.client.search_runs([store.experiment_id], filter_string=text)
    return str(found[-1].info.run_id) if found else None  # the oldest, should there be several


class RunMirror:
    """Writes one of our runs as an MLflow parent run with child runs, inputs and outputs.

    Attributes:
        mlflow_id: MLflow's id of the parent run.
        was_known: Whether the store had it already.
    """

    def __init__(self, store: Store, identity: RunIdentity, parameters: Mapping[str, str]) -> None:
        self._store, self._client = store, store.client
        self._begun_ms = int(identity.started_utc.timestamp() * 1000)
        found = find_run(store, identity.run_id)
        self.was_known = found is not None
        self.mlflow_id = found or self._begin(identity)
        self._write_parameters(parameters)

    def _begin(self, identity: RunIdentity) -> str:
        run = self._client.create_run(
            self._store.experiment_id,
            start_time=self._begun_ms,
            run_name=identity.run_id,
            tags={
                RUN_ID_TAG: identity.run_id,
                "medisynth.verdict": "running",
                "mlflow.source.name": "medisynth-gov",
                "mlflow.source.git.commit": identity.code_commit or "unknown",
            },
        )
        return str(run.info.run_id)

    def _write_parameters(self, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self.mlflow_id).data.params
        wanted = {metric_name(key): value[:6000] for key, value in parameters.items()}
        missing = [Param(key, value) for key, value in wanted.items() if key not in known]
        for start in range(0, len(missing), _PARAMETERS):
            self._client.log_batch(self.mlflow_id, params=missing[start : start + _PARAMETERS])

    def go_on(self) -> None:
        """Set the run to RUNNING and its unfinished steps to KILLED."""
        self._client.update_run(self.mlflow_id, status="RUNNING")
        self._client.set_tag(self.mlflow_id, "medisynth.verdict", "running")
        self.end_steps("KILLED")

    def begin_step(self, name: str) -> str:
        """Begin a child run; return its MLflow id."""
        tags = {"mlflow.parentRunId": self.mlflow_id, "medisynth.step": name}
        run = self._client.create_run(self._store.experiment_id, run_name=name, tags=tags)
        return str(run.info.run_id)

    def end_steps(self, status: str) -> None:
        """End every child run that is still RUNNING."""
        for step_id, _, now in self._steps():
            if now == "RUNNING":
                self._client.set_terminated(step_id, status)

    def _steps(self) -> list[tuple[str, str, str]]:
        """Return MLflow's id, name and status of each child run."""
        text = f"tags.`mlflow.parentRunId` = '{self.mlflow_id}'"
        found = self._client.search_runs([self._store.experiment_id], filter_string=text)
        return [(run.info.run_id, str(run.info.run_name), run.info.status) for run in found]

    def write_steps(self, steps: Mapping[str, str]) -> None:
        """Make sure that each step has a child run with its MLflow status (step -> status)."""
        known = self._steps()
        for name, status in steps.items():
            there = [(step_id, now) for step_id, step, now in known if step == name]
            if status in {now for _, now in there}:
                continue
            running = [step_id for step_id, now in there if now == "RUNNING"]
            self._client.set_terminated(running[0] if running else self.begin_step(name), status)
        self.end_steps("KILLED")

    def write_partitions(self, dataset: str, partitions: Sequence[PartitionSummary]) -> None:
        """Write the partitions as data set inputs, with our digests."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        there = self._client.get_run(self.mlflow_id).inputs
        known = {
            (put.dataset.name, put.dataset.digest)
            for put in (there.dataset_inputs if there else [])
        }
        inputs = []
        for part in partitions:
            entity = Dataset(
                name=dataset_name(dataset, part),
                digest=part.sha256[:_DIGEST_CHARS],
                source_type="medisynth-gov",
                source=json.dumps({"dataset": dataset, "sha256": part.sha256}),
                profile=json.dumps({"n_images": part.n_images, "n_patients": part.n_patients}),
            )
            tags = [
                InputTag("mlflow.data.context", part.partition),
                InputTag(SHA256_TAG, part.sha256),
            ]
            if (entity.name, entity.digest) not in known:
                inputs.append(DatasetInput(dataset=entity, tags=tags))
        if inputs:
            self._client.log_inputs(self.mlflow_id, datasets=inputs)

    def write_training(self, record: TrainingRecord, checkpoint: Path) -> None:
        """Write curves, KID beside simple controls, and the checkpoint as a LoggedModel."""
        from mlflow.entities import LoggedModelOutput, Metric

        points = [
            Metric(key, value, self._begun_ms, step)
            for key, value, step in (*curve_points(record), *comparison_points(record))
        ]
        self._write_points(points)
        model_id, is_ready = self._model(record)
        if not is_ready:
            self._client.log_model_artifact(model_id, str(checkpoint))
            self._client.finalize_logged_model(model_id, "READY")
        run = self._client.get_run(self.mlflow_id)
        outputs = run.outputs.model_outputs if run.outputs else []
        if model_id not in {put.model_id for put in outputs}:
            last = record.stages[-1].n_steps if record.stages else 0
            self._client.log_outputs(self.mlflow_id, [LoggedModelOutput(model_id, last)])

    def released_model(self) -> tuple[str, str]:
        """Return MLflow's id of the run's LoggedModel, and where its files are.

        Raises:
            TrackingError: The store has none.
        """
        for model in self._models():
            return str(model.model_id), str(model.artifact_location)
        raise TrackingError(f"MLflow has no model of run {self.mlflow_id}; sync the run first")

    def _models(self) -> "list[LoggedModel]":
        """Return the run's LoggedModels, latest first."""
        text = f"source_run_id = '{self.mlflow_id}'"
        return list(
            self._client.search_logged_models([self._store.experiment_id], filter_string=text)
        )

    def _model(self, record: TrainingRecord) -> tuple[str, bool]:
        for known in self._models():
            if known.tags.get(CHECKPOINT_TAG) == record.checkpoint_sha256:
                return str(known.model_id), known.status == "READY"
        model = self._client.create_logged_model(
            self._store.experiment_id,
            name=model_name(record),
            source_run_id=self.mlflow_id,
            model_type="generator",
            tags={
                CHECKPOINT_TAG: record.checkpoint_sha256,
                "medisynth.training_view_sha256": record.training_view_sha256,
            },
            params={k: v[:500] for k, v in record.description.items()},
        )
        return str(model.model_id), False

    def write_metrics(
        self, metrics: Sequence[MetricResult], dataset: str, test: PartitionSummary | None
    ) -> None:
        """Write metrics, tied to the model and to the data set they were measured on."""
        from mlflow.entities import Metric

        name = dataset_name(dataset, test) if test else None
        digest = test.sha256[:_DIGEST_CHARS] if test else None
        model_id = next((str(model.model_id) for model in self._models()), None)
        self._write_points(
            [
                Metric(key, value, self._begun_ms, 0, model_id, name, digest, self.mlflow_id)
                for key, value in metric_values(metrics)
            ]
        )

    def _write_points(self, points: "Sequence[Metric]") -> None:
        """Write the points whose name and step the store does not have."""
        known = self._client.get_run(self.mlflow_id).data.metrics
        there = {
            (key, point.step)
            for key in {point.key for point in points} & set(known)
            for point in self._client.get_metric_history(self.mlflow_id, key)
        }
        missing = [point for point in points if (point.key, point.step) not in there]
        for start in range(0, len(missing), _BATCH):
            self._client.log_batch(self.mlflow_id, metrics=missing[start : start + _BATCH])

    def write_files(self, folder: Path, paths: Sequence[str]) -> None:
        """Write files of the run folder under the same relative paths, replacing earlier ones."""
        for path in paths:
            parent = str(Path(path).parent)
            self._client.log_artifact(
                self.mlflow_id, str(folder / path), None if parent == "." else parent
            )

    def write_verdict(self, run: RunFolder) -> None:
        """Write verdict, principle statuses, evidence root and journal head as tags."""
        from mlflow.entities import RunTag

        tags = verdict_tags(run)
        self._client.log_batch(self.mlflow_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def finish(self, status: str, ended_ms: int | None = None) -> None:
        """End the parent run with an MLflow status, unless it has that status already."""
        if self._client.get_run(self.mlflow_id).info.status != status:
            self._client.set_terminated(self.mlflow_id, status, ended_ms)


def write_finished(mirror: RunMirror, run: RunFolder, *, ended_ms: int | None) -> None:
    """Write the parts of a finished run that the store lacks.

    Args:
        mirror: The run in the store.
        run: The run folder.
        ended_ms: When the run ended, in ms since 1970; None is now.
    """
    dataset, split = run.get(DatasetIdentity), run.get(SplitRecord)
    training, evaluation = run.get(TrainingRecord), run.get(EvaluationRecord)
    name = dataset.name if dataset else ""
    if split is not None:
        mirror.write_partitions(name, split.partitions)
    if training is not None:
        mirror.write_training(training, run.path / training.checkpoint_path)
    if evaluation is not None:
        test = split.partitions[-1] if split else None
        mirror.write_metrics(evaluation.metrics, name, test)
    small = [path for path in run.digests if not path.startswith(_LARGE)]
    beside = [name for name in BESIDE if (run.path / name).exists()]
    mirror.write_files(run.path, [*small, MANIFEST, *beside])
    write_end(mirror, run, ended_ms=ended_ms)


def write_end(mirror: RunMirror, run: RunFolder, *, ended_ms: int | None) -> None:
    """Write end and verdict of a finished run and its steps; arguments of `write_finished`."""
    outcome = run.need(Outcome)
    statuses = {t.step: mlflow_status(t.status) for t in outcome.steps if t.status != "skipped"}
    mirror.write_steps(statuses | dict.fromkeys(_LAST_STEPS, "FINISHED"))
    mirror.write_verdict(run)
    mirror.finish(mlflow_status(outcome.status), ended_ms)


def mlflow_status(status: str) -> str:
    """Return MLflow's status for how a run or a step ended."""
    return _WORDS.get(status, "FAILED")


def verdict_tags(run: RunFolder) -> dict[str, str]:
    """Return the parent run's tags: verdict, statuses, gate, waivers and evidence root."""
    rollup, manifest = run.need(RollUp), run.manifest
    finished = run.need(Outcome).status == "finished"
    boxes = verdict_boxes(rollup, run.records()) if finished else ()
    tags = {
        "medisynth.verdict": rollup.verdict,
        "medisynth.gate": rollup.gate.value,
        "medisynth.evidence_root": manifest.evidence_root,
        "medisynth.journal_head": f"{manifest.journal_events}:{manifest.journal_head}",
        "mlflow.note.content": _note(rollup, boxes, manifest.evidence_root),
    }
    tags |= {f"medisynth.{_tag_name(box.title)}": box.words for box in boxes}
    tags |= {f"gmlp.{line.id}": line.status.value for line in rollup.principles}
    tags |= {f"gate.{line.item_id}": line.status.value for line in rollup.gate_items}
    return tags | {f"waiver.{line.item_id}": line.state for line in rollup.waivers}


def curve_points(record: TrainingRecord) -> list[tuple[str, float, int]]:
    """Return name, value and step of every point of the training curves."""
    return [
        (metric_name(f"{curve.stage}/{curve.name}"), value, step)
        for curve in record.curves
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]


def comparison_points(record: TrainingRecord) -> list[tuple[str, float, int]]:
    """Return name, value and step of the KID of the chosen checkpoint and of the controls."""
    comparison, step = record.comparison, record.selection.chosen_step
    if comparison is None or comparison.value is None:
        return []
    values = {"": comparison.value} | {f" {c.name}": c.value for c in comparison.controls}
    return [
        (metric_name(f"tuning/{comparison.metric_id}{name}"), value, step)
        for name, value in values.items()
    ]


def metric_values(metrics: Sequence[MetricResult]) -> list[tuple[str, float]]:
    """Return name and value of all numbers of the evaluation: metrics, intervals, floors."""
    found: list[tuple[str, float]] = []
    for metric in metrics:
        if metric.value is None:
            continue
        key = " ".join(filter(None, (f"evaluation/{metric.id}", metric.subgroup)))
        values = {key: metric.value}
        if metric.ci95:
            values |= {f"{key} ci95 low": metric.ci95[0], f"{key} ci95 high": metric.ci95[1]}
        if metric.floor is not None:
            values[f"{key} floor"] = metric.floor
        found += [(metric_name(name), value) for name, value in values.items()]
    return found


def dataset_name(dataset: str, part: PartitionSummary) -> str:
    """Return the name of a partition among MLflow's data sets."""
    return f"{dataset}: {part.partition}"


def _tag_name(title: str) -> str:
    """Return the first word of a box's title, in small letters: a column of MLflow's list."""
    return title.split()[0].lower().removesuffix("'s")


def _note(rollup: RollUp, boxes: Sequence[VerdictBox], evidence_root: str) -> str:
    lines = [f"- **{box.title}: {box.words}.** {box.sentence}" for box in boxes]
    lines += ["", f"**{rollup.verdict}**", "", "| principle | status |", "|---|---|"]
    lines += [f"| {p.id} {p.title_2021} | {p.status.value} |" for p in rollup.principles]
    lines += ["", f"Evidence root `{evidence_root}`. Mapped to GMLP; the run folder is the record."]
    return "\n".join(lines)
