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
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from governance.records.credentials import HIDDEN, without_credentials
from governance.records.errors import RecordWriteError, TrackingError, first_line
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
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # that MLflow takes
_PACKAGES = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "psycopg[binary]",
    "MySQLdb": "mysqlclient",
}  # module -> what brings it
_PATIENCE_S = 4.0
_TIME_LIMITS: dict[str, dict[str, Any]] = {
    name: {"connect_timeout": int(_PATIENCE_S)}
    for name in ("psycopg2", "psycopg", "pymysql", "mysqldb")
}
_LONGEST_REASON = 300
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
    return config.uri or _sqlite_uri(workspace / "mlflow" / _DATABASE)


def _sqlite_uri(file: Path) -> str:
    # In a URI these two signs mean something else; what reads it decodes it once.
    return _SQLITE + str(file).replace("%", "%25").replace("?", "%3F")


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
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    sentence = str(error).strip() or type(error).__name__
    for name in _SECRETS:  # a library may repeat what it read itself
        sentence = sentence.replace(os.environ.get(name) or HIDDEN, HIDDEN)
    return first_line(without_credentials(sentence), _LONGEST_REASON)


def open_store(workspace: Path, config: TrackingConfig) -> Store:
    """Open the store and the experiment, making them if needed.

    Raises:
        TrackingError: The store cannot be opened.
    """
    _quiet()
    uri = store_uri(workspace, config)
    _check_database(uri, will_write=True)
    from mlflow import MlflowClient

    errors = _store_errors()
    folder = workspace / "mlflow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two processes creating one sqlite schema would crash.
        with _schema_lock(folder), _no_stray_folders(uri):
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
    path = _sqlite_file(uri)
    if path is not None and not path.is_file():
        raise TrackingError(f"tracking.uri: {uri}: there is no such store; nothing was compared")
    _check_database(uri, will_write=False)
    from mlflow import MlflowClient

    errors = _store_errors()
    try:
        with _no_stray_folders(uri):
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
    now = known if config.uri else _own_artifacts(workspace / "mlflow")
    return Store(client, str(found.experiment_id), errors, (known, now))


def _experiment(client: "MlflowClient", folder: Path, config: TrackingConfig) -> str:
    found = client.get_experiment_by_name(config.experiment)
    if found is not None:
        return str(found.experiment_id)
    location = _artifacts(folder, config.uri)
    return client.create_experiment(
        config.experiment,
        artifact_location=location,
        tags={"mlflow.experimentKind": "custom_model_development"},  # opens the right views
    )


def _artifacts(folder: Path, uri: str | None) -> str | None:
    """Return where files of the mirror go; None leaves it to a tracking server.

    Without an address MLflow would write beside a database into whatever folder one stands in.
    """
    if uri is not None:
        database = _sqlite_file(uri)
        if database is None and urlsplit(uri).scheme.partition("+")[0] not in _DATABASES:
            return None
        folder = folder if database is None else database.absolute().parent
    return _own_artifacts(folder)


def _own_artifacts(folder: Path) -> str:
    return (folder.resolve() / _ARTIFACTS).as_uri()


def _follow_a_move(folder: Path, experiment: str) -> None:
    """Tell the workspace's own store where its artifacts are, if the workspace was moved.

    MLflow keeps absolute addresses: it would make the old place again and fill it.
    """
    now = _own_artifacts(folder)
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
    advice = "check that it is an MLflow store and can be written, or set tracking.enabled=false"
    if "locked" in why:
        advice = "another program holds the database: close it, or wait, then try again"
    elif "out-of-date" in why or "Can't locate revision" in why:
        advice = (
            f"it is of another version of MLflow than {version('mlflow')} here: back it up and "
            f"run `mlflow db upgrade`, use that version, or name another store"
        )
    return TrackingError(f"tracking.uri: {uri} cannot be opened ({why}); {advice}")


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of a plain sqlite URI; None for every other store."""
    is_plain = uri.startswith(_SQLITE) and "?" not in uri
    return Path(unquote(uri.removeprefix(_SQLITE))) if is_plain else None


@contextmanager
def _no_stray_folders(uri: str) -> Iterator[None]:
    """Remove what MLflow makes in the block by taking an encoded sqlite path literally."""
    literal = Path(uri.removeprefix(_SQLITE).partition("?")[0])
    path = _sqlite_file(uri)
    made = [] if path in (None, literal) else [p for p in literal.parents if not p.exists()]
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


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
    part.touch()  # fails at once where no file can be made; MLflow tries for two minutes
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

    uri = _sqlite_uri(file)
    with _no_stray_folders(uri):
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    # The default experiment names this folder; MLflow makes a new one when it opens the copy.
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM experiments")


def _digest_beside(file: Path) -> str:
    try:
        return file.with_suffix(".sha256").read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def _check_database(uri: str, *, will_write: bool) -> None:
    """Open a database once ourselves: MLflow takes two minutes to give up.

    Raises:
        TrackingError: It cannot be opened or, if asked for, written, or its driver is missing.
    """
    path = _sqlite_file(uri)
    if path is None:
        _check_server(uri)
    elif path.exists():
        try:
            with closing(sqlite3.connect(path, timeout=_PATIENCE_S)) as connection:
                connection.execute("PRAGMA schema_version").fetchone()
                if will_write:
                    connection.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _unopenable(uri, reason_of(error)) from error


def _check_server(uri: str) -> None:
    """Look for the driver of a database's URI, and connect once."""
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    kind = urlsplit(uri).scheme.partition("+")[0]
    if kind not in _DATABASES:
        return
    try:
        make_url(uri).get_dialect().import_dbapi()
        limit = _TIME_LIMITS.get(make_url(uri).get_driver_name(), {})
        create_engine(uri, poolclass=NullPool, connect_args=limit).connect().close()
    except ImportError as error:
        module = error.name or "its driver"
        package = _PACKAGES.get(module, module)
        raise TrackingError(
            f"tracking.uri: no driver for {kind} here ({module} is not installed); "
            f"pip install {package}, or set tracking.enabled=false"
        ) from error
    except (SQLAlchemyError, OSError, TypeError, ValueError) as error:
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
