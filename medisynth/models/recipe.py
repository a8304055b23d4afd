"""Handling of the former keys `recipe` and `deviations` in settings of built-in generators."""

from collections.abc import Mapping
from typing import Any

_KEYS = ("recipe", "deviations")
_GENERATORS = ("dsr-gan", "tb-gan")


def refuse_recipe(values: Any, generator: str) -> None:
    """Refuse settings that still have `recipe` or `deviations`.

    Args:
        values: Settings as they were given; anything but a mapping is left to pydantic.
        generator: Name of the generator whose settings they are.

    Raises:
        ValueError: They have one of the keys; it names the generator of the published recipe where
            that was asked for, and otherwise says to leave the key out.
    """
    if not isinstance(values, Mapping):
        return
    if _is_published(values):
        raise ValueError(
            "recipe and deviations of the published model belong to a generator of their own; set "
            f"model.name: {generator}-published and leave recipe out"
        )
    for key in _KEYS:
        if key in values:
            raise ValueError(f"{key}: {generator} has one recipe alone; leave the key out")


def model_on_record(generator: str, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the generator and settings that can read the weights of a finished run.

    Runs of built-in generators may have `recipe` and `deviations` on record. Where these state no
    deviation, the keys are left out; otherwise the run is one of the published model.
    """
    if generator not in _GENERATORS:
        return generator, dict(settings)
    if _is_published(settings):
        return f"{generator}-published", {k: v for k, v in settings.items() if k != "recipe"}
    return generator, {k: v for k, v in settings.items() if k not in _KEYS}


def _is_published(settings: Mapping[str, Any]) -> bool:
    """Whether settings ask for the published recipe, or for a deviation by name."""
    deviations = settings.get("deviations")
    is_deviating = isinstance(deviations, Mapping) and any(deviations.values())
    return settings.get("recipe") == "published" or is_deviating
