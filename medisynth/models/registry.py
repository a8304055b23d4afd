"""Generators by name, or by "package.module:Class" for a class that is not registered.

Third parties register theirs by the entry point group `medisynth.models`. The module that is named
is imported here, so its top-level code runs in the calling process.
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from governance.records.errors import SettingsError
from medisynth.entry_points import import_point, registered, registered_names
from medisynth.generator import Generator

GROUP = "medisynth.models"
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it becomes part of file names
_METHODS = ("image_size_px", "fit", "sample", "state", "load_state")


@dataclass(frozen=True)
class GeneratorOrigin:
    """Where the code of a generator comes from.

    Attributes:
        module: Module that defines the class.
        class_name: Its name there.
        distribution: Installed distribution that the module belongs to; None when it is none's.
        version: Version of that distribution.
        source_sha256: Digest of the module's source file, 64 lowercase hex digits; None when it has
            none. Other files of the package are not covered.
    """

    module: str
    class_name: str
    distribution: str | None
    version: str | None
    source_sha256: str | None

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}" if self.distribution else "not installed"
        source = f", source sha256:{self.source_sha256}" if self.source_sha256 else ""
        return f"{self.module}:{self.class_name} ({package}{source})"


def generator_names() -> tuple[str, ...]:
    """Names of all registered generators, sorted."""
    return registered_names(GROUP)


def load_generator(name: str) -> type[Generator]:
    """Return the generator class of a registered name or of "package.module:Class".

    Raises:
        SettingsError: No generator has this name, two have it, its module cannot be imported, or
            the class lacks a member of the protocol.
    """
    point = _path_point(name) if ":" in name else _registered(name)
    return _checked(import_point(point, "model.name"), point.value)


def read_settings(generator: type[Generator], values: Mapping[str, Any]) -> BaseModel:
    """Return a generator's settings from the values that a person wrote.

    Strict, whatever the model allows: a number in quotes is a text, and `true` is no number.

    Raises:
        ValidationError: A value cannot be used, or would be taken as one of another kind.
    """
    settings = generator.Settings.model_validate(values)
    faults = list(_converted(values, settings.model_dump(mode="json"), ()))
    if faults:
        raise ValidationError.from_exception_data(generator.name, faults)
    return settings


def takes_condition(generator: Generator) -> bool:
    """Whether a generator's `sample` can be told what to draw; one without classes leaves it out."""
    return len(inspect.signature(generator.sample).parameters) > 2


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _converted(given: Any, taken: Any, place: tuple[int | str, ...]) -> Iterator[InitErrorDetails]:
    """Yield a fault for every plain value that was taken as one of another kind."""
    if isinstance(given, Mapping) and isinstance(taken, Mapping):
        for key in given.keys() & taken.keys():
            yield from _converted(given[key], taken[key], (*place, key))
    elif isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        for index, pair in enumerate(zip(given, taken, strict=True)):
            yield from _converted(*pair, (*place, index))
    else:
        was, now = type(given), type(taken)
        if {was, now} <= _KINDS.keys() and was is not now and (was, now) != (int, float):
            words = f"expected {_KINDS[now]}, found {_KINDS[was]}"
            fault = PydanticCustomError("other_kind", words)
            yield InitErrorDetails(type=fault, loc=place, input=given)


def generator_origin(name: str) -> GeneratorOrigin:
    """Distribution, version and source digest of a generator's code; errors as `load_generator`."""
    generator = load_generator(name)
    module = generator.__module__
    owner = _registering(name) or _owner(module.partition(".")[0])
    return GeneratorOrigin(
        module=module,
        class_name=generator.__qualname__,
        distribution=owner,
        version=version(owner) if owner else None,
        source_sha256=_source_digest(generator),
    )


def import_folder(name: str) -> Path | None:
    """Folder that must be on the import path for a "package.module:Class"; None for other names.

    Raises:
        SettingsError: As `load_generator`.
    """
    if ":" not in name:
        return None
    load_generator(name)
    # of the named module, not of the class: the class may be defined elsewhere
    module = sys.modules[name.partition(":")[0]]
    if module.__file__ is None:
        return None
    file = Path(module.__file__).absolute()
    return file.parents[module.__name__.count(".") + (file.name == "__init__.py")]


def _registering(name: str) -> str | None:
    """Return the distribution that registers a name; None unless there is exactly one."""
    points = () if ":" in name else entry_points(group=GROUP, name=name)
    names = {point.dist.name for point in points if point.dist is not None}
    return names.pop() if len(names) == 1 else None


def _owner(package: str) -> str | None:
    """Return the distribution that brings a top-level package; None unless exactly one does."""
    owners = set(packages_distributions().get(package, []))
    return owners.pop() if len(owners) == 1 else None


def _source_digest(generator: type[Generator]) -> str | None:
    try:
        return hashlib.sha256(Path(inspect.getfile(generator)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # built in, compiled or run from an archive
        return None


def _path_point(path: str) -> EntryPoint:
    if not _PATH.fullmatch(path):
        raise SettingsError(
            f"model.name: {path!a} is no path to a class; expected package.module:Class"
        )
    return EntryPoint(name=path, value=path, group=GROUP)


def _registered(name: str) -> EntryPoint:
    also = ", and package.module:Class for a class that is not registered"
    return registered(GROUP, name, "model.name", "generator", also)


def _checked(found: object, value: str) -> type[Generator]:
    """Return the class after checking that it has every member of the protocol."""
    if not isinstance(found, type):
        raise SettingsError(
            f"model.name: {value} is no class but {type(found).__name__}; "
            "expected a class that fulfils medisynth.generator.Generator"
        )
    lacking = list(_lacking(found))
    if lacking:
        raise SettingsError(
            f"model.name: {value} is no generator: {'; '.join(lacking)}; "
            "see medisynth.generator.Generator"
        )
    return found


def _lacking(found: type) -> Iterable[str]:
    """Yield a clause for each member of the protocol that a class lacks."""
    for name in _METHODS:
        if not callable(getattr(found, name, None)):
            yield f"it has no method {name}"
    for member in ("name", "title"):
        text = getattr(found, member, None)
        if not isinstance(text, str):
            yield f"it has no text {member}"
        elif member == "name" and not _NAME.fullmatch(text):
            yield f"its name {text!a} is not 1 to 64 letters, digits, '.', '_' or '-'"
    settings = getattr(found, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        yield "its Settings is no pydantic model"
