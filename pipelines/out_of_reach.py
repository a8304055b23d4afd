"""What training must not reach lies outside all that it must read: known before any work is done."""

from collections.abc import Iterator
from pathlib import Path

from governance.isolation.confine import readable_root
from pipelines.cache import image_cache
from pipelines.config import RunConfig
from pipelines.errors import ConfigError


def refuse_readable_folders(config: RunConfig) -> None:
    """Refuse a configuration under which the training process could not be confined.

    Raises:
        ConfigError: Data, keys, ledger or workspace lie in a folder that training must read, e.g.
            the Python installation.
    """
    for key, path in _folders(config):
        root = readable_root(path)
        if root is not None:
            raise ConfigError(
                f"{key}: {path} is in {root}, which the training process must be able to read "
                "(interpreter, packages, system); choose a folder outside"
            )


def _folders(config: RunConfig) -> Iterator[tuple[str, Path]]:
    if config.data.path is not None:
        yield "data.path", _absolute(config.data.path)
    for name in ("key_dir", "ledger_dir"):
        folder = config.seal.folder(name)
        if folder is not None:
            yield f"seal.{name}", folder
    key = config.signing.key
    if key is not None and Path(key).expanduser().is_file():  # not the address of a key service
        yield "signing.key", _absolute(key)
    cache = image_cache(config.data)
    if cache is not None:
        yield "data.cache", cache
    yield "workspace", config.workspace_path


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()
