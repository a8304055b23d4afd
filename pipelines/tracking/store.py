"""Opens the MLflow store within seconds, or refuses it with one sentence."""

import fcntl
import logging
import os
import re
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from governance.records.credentials import HIDDEN, without_credentials
from governance.records.errors import RecordWriteError, TrackingError
from governance.records.files import sha256_file, write_atomic
from pipelines.config.sections import TrackingConfig
from pipelines.fetch.cache import cache_dir

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FORBIDDEN = re.compile(r"[^\w\-. :/]")
_SQLITE = "sqlite:///"
_DATABASE, _ARTIFACTS = "mlflow.db", "artifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_WHILE_RUNNING_S, _AFTERWARDS_S = "3", "10"  # seconds, as MLflow's environment variable has them


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        client: MLflow's client.
        experiment_id: Experiment of all our runs.
        errors: Exceptions that its calls raise when the store fails.
        moved: Folder of artifacts as the store has it, and where it is now (addresses).
    """

    client: "MlflowClient"
    experiment_id: str
    errors: tuple[type[Exception], ...]
    moved: tuple[str, str] = ("", "")

    def place_of(self, location: str) -> str:
        """Return where an artifact is now; another address only in a workspace that was moved."""
        before, now = self.moved
        return now + location.removeprefix(before) if location.startswith(before) else location


def store_uri(workspace: Path, config: TrackingConfig) -> str:
    """Return the tracking URI: the configured one, or a sqlite file in the workspace."""
    return config.uri or f"{_SQLITE}{workspace / 'mlflow' / _DATABASE}"


def metric_name(text: str) -> str:
    """Replace characters that MLflow refuses by their code point, e.g. "_u00e9"."""
    return _FORBIDDEN.sub(lambda match: f"_u{ord(match.group()):04x}", text)[:250]


def reason_of(error: Exception) -> str:
    """Return an error's message as one short line; for a lost connection only its reason."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError | TimeoutError | socket.gaierror):
            return f"the tracking server cannot be reached: {cause.strerror or cause}"
        cause = cause.__cause__ or cause.__context__
    sentence = (str(error).strip() or type(error).__name__).splitlines()[0]
    for name in _SECRETS:  # a library may repeat what it read itself
        sentence = sentence.replace(os.environ.get(name) or HIDDEN, HIDDEN)
    return without_credentials(sentence)[:160]


def open_store(workspace: Path, config: TrackingConfig) -> Store:
    """Open the store and the experiment, making them if needed.

    Raises:
        TrackingError: The store cannot be opened.
    """
    _quiet()
    uri = store_uri(workspace, config)
    _check_sqlite(uri)
    from mlflow import MlflowClient

    errors = _store_errors()
    folder = workspace / "mlflow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _schema_lock(folder):  # two processes creating one sqlite schema would crash
            _make_sqlite(uri)
            if config.uri is None:
                _follow_a_move(folder, config.experiment)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment_id = _experiment(client, folder, config)
    except errors as error:
        raise _unopenable(uri, reason_of(error)) from error
    return Store(client, experiment_id, errors)


def open_known_store(workspace: Path, config: TrackingConfig) -> Store:
    """Open an existing store; make and write nothing.

    Raises:
        TrackingError: The store cannot be opened, or does not know the experiment.
    """
    _quiet()
    uri = store_uri(workspace, config)
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).is_file():
        raise TrackingError(f"tracking.uri: {uri}: there is no such store; nothing was compared")
    _check_sqlite(uri)
    from mlflow import MlflowClient

    errors = _store_errors()
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = client.get_experiment_by_name(config.experiment)
    except errors as error:
        raise _unopenable(uri, reason_of(error)) from error
    if found is None:
        raise TrackingError(
            f"tracking.experiment: {uri} has no experiment {config.experiment!r}; nothing was "
            "compared"
        )
    known = str(found.artifact_location)
    now = known if config.uri else _artifacts(workspace / "mlflow")
    return Store(client, str(found.experiment_id), errors, (known, now))


def _experiment(client: "MlflowClient", folder: Path, config: TrackingConfig) -> str:
    found = client.get_experiment_by_name(config.experiment)
    if found is not None:
        return str(found.experiment_id)
    location = None if config.uri else _artifacts(folder)
    return client.create_experiment(
        config.experiment,
        artifact_location=location,
        tags={"mlflow.experimentKind": "custom_model_development"},  # opens the right views
    )


def _artifacts(folder: Path) -> str:
    return (folder.resolve() / _ARTIFACTS).as_uri()


def _follow_a_move(folder: Path, experiment: str) -> None:
    """Tell the workspace's own store where its artifacts are, if the workspace was moved.

    MLflow keeps absolute addresses: it would make the old place again and fill it.
    """
    now = _artifacts(folder)
    with closing(sqlite3.connect(folder / _DATABASE, timeout=5.0)) as connection, connection:
        found = connection.execute(
            "SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)
        ).fetchone()
        before = str(found[0]) if found else now
        if before == now:
            return
        for table, column in _LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - our names
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )


def _unopenable(uri: str, why: str) -> TrackingError:
    return TrackingError(
        f"tracking.uri: {uri} cannot be opened ({why}); "
        "check that it is an MLflow store, or set tracking.enabled=false"
    )


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of a plain sqlite URI; None for every other store."""
    is_plain = uri.startswith(_SQLITE) and "?" not in uri
    return Path(uri.removeprefix(_SQLITE)) if is_plain else None


def _make_sqlite(uri: str) -> None:
    """Make the sqlite file with MLflow's empty tables in one atomic step.

    MLflow makes the tables in hundreds of small steps, which takes seconds; a kill in between
    leaves a file that it never opens again. So they are made once for each version of MLflow, kept
    in the tool's cache, and copied from there.
    """
    path = _sqlite_file(uri)
    if path is None or (path.exists() and path.stat().st_size > 0):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    for old in (part, part.with_name(f"{part.name}-journal")):
        old.unlink(missing_ok=True)  # left by a start that was killed
    folder = cache_dir()
    if folder is None:
        _make_tables(part)
        part.replace(path)
        return
    empty = folder / f"mlflow-{version('mlflow')}-empty.db"
    if empty.is_file() and sha256_file(empty) == _digest_beside(empty):
        shutil.copyfile(empty, part)
    else:
        _make_tables(part)
        with suppress(RecordWriteError):  # do without a cache that cannot be written
            digest = write_atomic(empty, part.read_bytes())
            write_atomic(empty.with_suffix(".sha256"), digest.encode())
    part.replace(path)


def _make_tables(file: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"{_SQLITE}{file}").search_experiments(max_results=1)
    # The default experiment names this folder; MLflow makes a new one when it opens the copy.
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM experiments")


def _digest_beside(file: Path) -> str:
    try:
        return file.with_suffix(".sha256").read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def _check_sqlite(uri: str) -> None:
    """Open the file once ourselves: MLflow takes more than a minute to give up."""
    path = _sqlite_file(uri)
    if path is None or not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=5.0)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise _unopenable(uri, reason_of(error)) from error


@contextmanager
def patiently() -> Iterator[None]:
    """Use a longer timeout for requests while the block runs.

    During a run the timeout is short, so that a server that hangs costs little time.
    """
    before = os.environ.get(_TIMEOUT)
    if before in (None, _WHILE_RUNNING_S):  # keep a value that the user set
        os.environ[_TIMEOUT] = _AFTERWARDS_S
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_TIMEOUT, None)
        else:
            os.environ[_TIMEOUT] = before


def _quiet() -> None:
    """Turn off telemetry, migration logs and long waits; call before MLflow is imported."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # MLflow's own retries may begin a run twice; ours look first whether it exists.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault(_TIMEOUT, _WHILE_RUNNING_S)
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # MLflow logs a traceback besides raising; the exception is reported in one line.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    logging.getLogger("alembic").setLevel(logging.ERROR)


def _store_errors() -> tuple[type[Exception], ...]:
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, OSError, SQLAlchemyError, CommandError)


@contextmanager
def _schema_lock(folder: Path) -> Iterator[None]:
    with (folder / ".schema.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
