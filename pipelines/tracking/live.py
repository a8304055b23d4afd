"""Mirrors a run in MLflow while it goes on, and completes the mirror afterwards."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from governance.evidence.folder import RunFolder
from governance.records.dataset import DatasetIdentity
from governance.records.errors import InterruptedByUser, TrackingError
from governance.records.evaluation import EvaluationRecord
from governance.records.partition import SplitRecord
from governance.records.run import RunIdentity
from governance.records.training import TrainingRecord
from pipelines.config.sections import TrackingConfig
from pipelines.tracking.alias import Release, set_alias
from pipelines.tracking.mirror import RunMirror, find_run, mlflow_status, write_end, write_finished
from pipelines.tracking.store import Store, open_store, patiently, reason_of

_P = ParamSpec("_P")
_T = TypeVar("_T")
_RETRY_PAUSES_S = (0.2, 1.0)
_RETRY_UNTIL_S = 4.0  # a call that took longer already waited for the server


def _mirrored(
    method: "Callable[Concatenate[Tracker, _P], None]",
) -> "Callable[Concatenate[Tracker, _P], None]":
    """Wrap a method: do nothing without a store; on a failure warn once and stop mirroring."""

    @wraps(method)
    def call(self: "Tracker", /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if self._store is None or self.problem:
            return
        try:
            method(self, *args, **kwargs)
        except self._store.errors as error:
            self.problem = reason_of(error)
            self._warn(f"MLflow mirror stopped ({self.problem}); the run folder stays complete")

    return call


class Tracker:
    """Mirrors one run: a parent run, a child run for each step, data sets, curves and the model.

    Attributes:
        run_id: MLflow id of the parent run; None when nothing is mirrored.
        problem: Why mirroring stopped; empty while it works.
    """

    def __init__(
        self, workspace: Path, config: TrackingConfig, warn: Callable[[str], None]
    ) -> None:
        self.run_id: str | None = None
        self.problem = ""
        self._workspace, self._config, self._warn = workspace, config, warn
        self._store: Store | None = None
        self._mirror: RunMirror | None = None
        self._step_run: str | None = None

    @property
    def is_on(self) -> bool:
        """Whether the configuration asks for a mirror."""
        return self._config.enabled

    def connect(self) -> None:
        """Open the store and the experiment before any work is done.

        Raises:
            TrackingError: The store cannot be opened.
        """
        if self._config.enabled and self._store is None:
            self._store = open_store(self._workspace, self._config)

    @_mirrored
    def start(self, identity: RunIdentity, parameters: Mapping[str, str]) -> None:
        """Begin the parent run."""
        self._open(identity, parameters)

    @_mirrored
    def resume(self, identity: RunIdentity, parameters: Mapping[str, str]) -> None:
        """Go on with the parent run of a run that was cut short; begin one when there is none."""
        mirror = self._open(identity, parameters)
        if mirror.was_known:
            mirror.go_on()
        else:
            self._warn("MLflow has no run of this id; a new one begins here")

    def _open(self, identity: RunIdentity, parameters: Mapping[str, str]) -> RunMirror:
        if self._store is None:
            raise TrackingError("the MLflow store is not open; connect first")
        self._mirror = RunMirror(self._store, identity, parameters)
        self.run_id = self._mirror.mlflow_id
        return self._mirror

    @contextmanager
    def closing(self) -> Iterator[None]:
        """End the run in MLflow if the block raises an exception."""
        try:
            yield
        except BaseException as error:
            self.finish(_word(error))
            raise

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Mirror one step as a child run, with the right status after errors too."""
        self._start_step(name)
        status = "FINISHED"
        try:
            yield
        except BaseException as error:
            status = _word(error)
            raise
        finally:
            self._finish_step(status)

    @_mirrored
    def _start_step(self, name: str) -> None:
        if self._mirror is not None:
            self._step_run = self._mirror.begin_step(name)

    @_mirrored
    def _finish_step(self, status: str) -> None:
        if self._store is not None and self._step_run is not None:
            self._store.client.set_terminated(self._step_run, status)
        self._step_run = None

    @_mirrored
    def log_step(self, step: str, files: RunFolder) -> None:
        """Mirror the results of a finished step from the run folder.

        Partitions become data set inputs, with our digests; training becomes curves and a
        LoggedModel; metrics are tied to that model and to the held-out test set.
        """
        if self._mirror is None:
            return
        if step == "s4_split":
            name = files.need(DatasetIdentity).name
            self._mirror.write_partitions(name, files.need(SplitRecord).partitions)
        elif step == "s5_train":
            record = files.need(TrainingRecord)
            self._mirror.write_training(record, files.path / record.checkpoint_path)
        elif step == "s6_evaluate":
            metrics = files.need(EvaluationRecord).metrics
            test = files.need(SplitRecord).partitions[-1]
            self._mirror.write_metrics(metrics, files.need(DatasetIdentity).name, test)

    @_mirrored
    def finish(self, status: str) -> None:
        """End the parent run with MLflow's word for it: FINISHED, FAILED or KILLED."""
        if self._mirror is not None:
            self._mirror.end_steps(status)
            self._mirror.finish(status)

    def complete(self, run: RunFolder) -> bool:
        """Write the parts of a finished run that the store lacks; on failure set `problem`.

        A store that failed is tried again for a few seconds. Nothing is written twice.

        Returns:
            Whether the store has all of the run now.
        """
        if not self._config.enabled:
            return True
        ended_ms = None if self._mirror else _ended_ms(run)

        def write(store: Store) -> None:
            mirror = RunMirror(store, run.identity, _parameters(run))
            self.run_id = mirror.mlflow_id
            write_finished(mirror, run, ended_ms=ended_ms)

        with patiently():
            return self._try(write)

    def close_ended(self, run: RunFolder) -> bool:
        """Write the end of a finished run that the store still shows as running.

        Curves, metrics and files are left to `complete`.

        Returns:
            Whether the store no longer shows the run as running.
        """

        def close(store: Store) -> None:
            found = find_run(store, run.identity.run_id)
            if found is not None and store.client.get_run(found).info.status == "RUNNING":
                mirror = RunMirror(store, run.identity, _parameters(run))
                write_end(mirror, run, ended_ms=_ended_ms(run))

        return not self._config.enabled or self._try(close)

    def close_left_behind(self, run_id: str) -> bool:
        """End runs in the store that a killed process left running; return whether it succeeded."""

        def close(store: Store) -> None:
            found = find_run(store, run_id)
            if found is None:
                return
            children = f"tags.`mlflow.parentRunId` = '{found}'"
            for run in store.client.search_runs([store.experiment_id], filter_string=children):
                if run.info.status == "RUNNING":
                    store.client.set_terminated(run.info.run_id, "KILLED")
            if store.client.get_run(found).info.status == "RUNNING":
                store.client.set_terminated(found, "KILLED")
                store.client.set_tag(found, "medisynth.verdict", "cut short")

        return not self._config.enabled or self._try(close)

    def set_alias(self, run: RunFolder, release: Release) -> bool:
        """Point an alias of the registered model at a run's model; return whether it succeeded."""
        return self._config.enabled and self._try(lambda store: set_alias(store, run, release))

    def _try(self, work: Callable[[Store], None]) -> bool:
        deadline = time.monotonic() + _RETRY_UNTIL_S
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                self.connect()
                if self._store is not None:
                    self._attempt(self._store, work)
            except TrackingError as error:
                self.problem = reason_of(error)
            else:
                self.problem = ""
                return True
            if pause_s is None or time.monotonic() > deadline:
                break
            time.sleep(pause_s)
        return False

    @staticmethod
    def _attempt(store: Store, work: Callable[[Store], None]) -> None:
        try:
            work(store)
        except store.errors as error:
            raise TrackingError(reason_of(error)) from error


def _parameters(run: RunFolder) -> dict[str, str]:
    return {key: str(value) for key, value in run.flat_config().items()}


def _ended_ms(run: RunFolder) -> int:
    return int(run.manifest.created_utc.timestamp() * 1000)


def _word(error: BaseException) -> str:
    """Return MLflow's status for an error that ended a step or a run."""
    stopped = isinstance(error, InterruptedByUser | KeyboardInterrupt)
    return mlflow_status("interrupted" if stopped else "failed")
