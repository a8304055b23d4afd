"""Generators by name. A third party registers its own by the entry point group `medisynth.models`."""

from importlib.metadata import entry_points

from medisynth.errors import SettingsError
from medisynth.generator import Generator


def generator_names() -> tuple[str, ...]:
    """Names of all registered generators, sorted."""
    return tuple(sorted({point.name for point in entry_points(group="medisynth.models")}))


def load_generator(name: str) -> type[Generator]:
    """Return the generator class with this name.

    Raises:
        SettingsError: No generator has this name, or two have it.
    """
    points = list(entry_points(group="medisynth.models", name=name))
    if not points:
        known = ", ".join(generator_names())
        raise SettingsError(f"model.name: unknown generator {name!r}; known are {known}")
    if len({point.value for point in points}) > 1:
        raise SettingsError(f"model.name: two packages register a generator named {name!r}")
    generator: type[Generator] = points[0].load()
    return generator
