"""Folders of the tool's own cache: downloaded weights, decoded images, check results."""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from pipelines.config.sections import DataConfig

CACHE_VARIABLE = "MEDISYNTH_GOV_CACHE"


NO_CACHE = f"this user has no home folder; name a folder for the cache with {CACHE_VARIABLE}"


def cache_dir() -> Path | None:
    """Return the cache folder: $MEDISYNTH_GOV_CACHE, else the user's; None for a user without home."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else users_folder(platformdirs.user_cache_path)


def users_folder(find: Callable[[str], Path]) -> Path | None:
    """Return the folder that `find` finds for this tool; None for a user without a home."""
    try:
        folder, home = find("medisynth-gov"), Path.home()
    except RuntimeError:
        return None
    return folder if home.is_dir() or not folder.is_relative_to(home) else None


def image_cache(data: DataConfig) -> Path | None:
    """Return the folder of decoded images; None when the configuration keeps none."""
    return cache_folder(data, "images")


def cache_folder(data: DataConfig, kind: str) -> Path | None:
    """Return the cache folder of "images" or "checks"; None when nothing is kept."""
    if data.cache == "off":
        return None
    if data.cache == "auto":
        folder = cache_dir()
        return None if folder is None else folder / kind
    chosen = Path(data.cache).expanduser().resolve()
    return chosen if kind == "images" else chosen / kind
