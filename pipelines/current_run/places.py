"""Where folders may lie: ours never in the data, the data never in ours or where training reads."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from governance.confinement.confine import readable_root
from governance.records.errors import ConfigError
from medisynth.data.adapters import adapter_names, load_adapter
from pipelines.config.model import RunConfig
from pipelines.config.sections import DataConfig
from pipelines.fetch.cache import CACHE_VARIABLE, cache_dir, image_cache

LAID_OUT = "data/assessed"  # folder of the workspace for what assessments lay out


def refuse_misplaced_folders(config: RunConfig) -> None:
    """Refuse a configuration under which we would write into data, or whose data lie in ours.

    Links are followed. Nothing is written.

    Raises:
        ConfigError: Workspace, ledger, keys, cache, tracking store or temporary folder lie in the
            data folder or in another one with the layout of a data set; or the data folder lies
            in the workspace.
    """
    data = config.data.folder
    external = {f"evaluation.external {x.name}": x.folder for x in config.evaluation.external}
    for key, path in _written(config):
        for folder in (data, *external.values()):
            refuse_in_data(key, path, folder)
    for key, path in external.items():
        if data is not None and (path.is_relative_to(data) or data.is_relative_to(path)):
            raise ConfigError(
                f"{key}: {path} and the data folder {data} lie in one another; an external test "
                "set comes from another source, in a folder of its own"
            )
    workspace, ours = config.workspace_path, config.workspace_path / LAID_OUT
    if data is not None and data.is_relative_to(workspace) and not data.is_relative_to(ours):
        raise ConfigError(
            f"data.path: {data} is in the workspace {config.workspace_path}, which is written to; "
            "give the workspace a folder of its own with --workspace"
        )


def refuse_in_data(key: str, path: Path, data: Path | None = None) -> None:
    """Refuse to write to a path that lies in a data folder.

    Args:
        key: Setting or option that names the path, for the message.
        path: File or folder; a relative path starts at the current folder.
        data: A data folder; folders with the layout of a data set count, too.

    Raises:
        ConfigError: The path is the data folder or lies in it.
    """
    place = path.resolve()
    inside = data if data is not None and place.is_relative_to(data) else _data_around(place)
    if inside is not None:
        raise ConfigError(
            f"{key}: {place} is in the data folder {inside}, which nothing is written to; "
            "choose a folder outside"
        )


def refuse_check_in_data(data: DataConfig, out: Path | None) -> None:
    """Refuse to check data with a cache or an output folder in it; ConfigError as above."""
    for key, path in (*_caches(data), *([("--out", out)] if out is not None else [])):
        refuse_in_data(key, path, data.folder)


def refuse_readable_folders(config: RunConfig) -> None:
    """Refuse a configuration under which the training process could not be confined.

    Raises:
        ConfigError: Data, keys, ledger or workspace lie in a folder that training must read, e.g.
            the Python installation.
    """
    for key, path in _kept_from_training(config):
        root = readable_root(path)
        if root is not None:
            raise ConfigError(
                f"{key}: {path} is in {root}, which the training process must be able to read "
                "(interpreter, packages, system); choose a folder outside"
            )


def _written(config: RunConfig) -> Iterator[tuple[str, Path]]:
    yield "workspace", config.workspace_path
    yield from _keys_and_ledger(config)
    yield from _caches(config.data)
    store = urlsplit(config.tracking.uri or "")
    if config.tracking.enabled and store.path and store.scheme in ("", "file", "sqlite"):
        name = unquote(store.path)
        yield "tracking.uri", Path(name[1:] if store.scheme == "sqlite" else name)


def _keys_and_ledger(config: RunConfig) -> Iterator[tuple[str, Path]]:
    for name in ("key_dir", "ledger_dir"):
        folder = config.seal.folder(name)
        if folder is not None:
            yield f"seal.{name}", folder
    key = config.signing.key
    if key is not None and Path(key).expanduser().is_file():  # not the address of a key service
        yield "signing.key", Path(key).expanduser().resolve()


def _caches(data: DataConfig) -> Iterator[tuple[str, Path]]:
    cache = image_cache(data)
    if cache is not None:
        yield "data.cache", cache
    ours = cache_dir()
    if ours is not None:
        yield CACHE_VARIABLE, ours
    with suppress(OSError):  # there is none, which stops the work elsewhere
        yield "TMPDIR", Path(tempfile.gettempdir())


def _kept_from_training(config: RunConfig) -> Iterator[tuple[str, Path]]:
    if config.data.folder is not None:
        yield "data.path", config.data.folder
    yield from _keys_and_ledger(config)
    cache = image_cache(config.data)
    if cache is not None:
        yield "data.cache", cache
    yield "workspace", config.workspace_path


def _data_around(place: Path) -> Path | None:
    """Return the nearest folder around a path that has the layout of a data set, or None."""
    adapters = [load_adapter(name) for name in adapter_names()]
    for folder in (place, *place.parents):
        with suppress(OSError):  # a folder that cannot be looked into
            if any(adapter.detects(folder) for adapter in adapters):
                return folder
    return None
