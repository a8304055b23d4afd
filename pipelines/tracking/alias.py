"""Sets aliases of registered models; used by `promote` and `sync` only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from governance.evidence.folder import RunFolder
from pipelines.tracking.mirror import RUN_ID_TAG, RunMirror
from pipelines.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

_UNKNOWN, _KNOWN = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"


@dataclass(frozen=True)
class Release:
    """A model version and the alias that shall point at it.

    Attributes:
        model: Registered model.
        alias: "candidate" or "released".
        version: Our version of the model; MLflow counts its own.
        evidence_root: Root of the run's evidence.
    """

    model: str
    alias: str
    version: int
    evidence_root: str


def set_alias(store: Store, run: RunFolder, release: Release) -> None:
    """Make the alias point at the run's model, creating model and version if needed."""
    client = store.client
    _ensure_model(client, release.model)
    version = _ensure_version(store, run, release)
    if _alias(client, release) != version:
        client.set_registered_model_alias(release.model, release.alias, version)


def _ensure_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != _UNKNOWN:
            raise
        try:
            client.create_registered_model(name)
        except MlflowException as again:
            if again.error_code != _KNOWN:  # another promotion made it in the meantime
                raise


def _ensure_version(store: Store, run: RunFolder, release: Release) -> str:
    """Return MLflow's number of the run's model version; create the version if needed."""
    for known in store.client.search_model_versions(f"name = '{release.model}'"):
        if known.tags.get(RUN_ID_TAG) == run.identity.run_id:
            return str(known.version)
    mirror = RunMirror(store, run.identity, {})
    model_id, place = mirror.released_model()
    made = store.client.create_model_version(
        release.model,
        source=place,  # "models:/<id>" would be looked up in MLflow's global store, not in this one
        run_id=mirror.mlflow_id,
        model_id=model_id,
        tags={
            RUN_ID_TAG: run.identity.run_id,
            "medisynth.version": str(release.version),
            "medisynth.evidence_root": release.evidence_root,
        },
    )
    return str(made.version)


def _alias(client: "MlflowClient", release: Release) -> str | None:
    """Return MLflow's number of the version that the alias points at; None without one."""
    aliases = client.get_registered_model(release.model).aliases
    found = aliases.get(release.alias)
    return None if found is None else str(found)
