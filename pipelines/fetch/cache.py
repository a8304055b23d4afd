"""Folders of the tool's own cache: downloaded weights, decoded images, check results."""

import os
from pathlib import Path

import platformdirs

from pipelines.config.sections import DataConfig

CACHE_VARIABLE = "MEDISYNTH_GOV_CACHE"


def cache_dir() -> Path:
    """Return the cache folder: $MEDISYNTH_GOV_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("medisynth-gov"))


def image_cache(data: DataConfig) -> Path | None:
    """Return the folder of decoded images; None when the configuration keeps none."""
    return cache_folder(data, "images")


def cache_folder(data: DataConfig, kind: str) -> Path | None:
    """Return the cache folder of "images" or "checks"; None when nothing is kept."""
    if data.cache == "off":
        return None
    if data.cache == "auto":
        return cache_dir() / kind
    chosen = Path(data.cache).expanduser().resolve()
    return chosen if kind == "images" else chosen / kind
