"""Configuration as text: safe YAML in, and faults of a configuration in words."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from governance.records.errors import ConfigError

MAX_CONFIG_BYTES = 64 * 1024
MAX_BRACKETS = 1_000
_SCALAR_LIMIT = 80


def describe(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Every fault with its key, the value and what is allowed."""
    sentences = []
    for fault in error.errors(include_url=False):
        path = [str(part) for part in fault["loc"] if not _is_union_branch(part)]
        key = ".".join([prefix, *path] if prefix else path) or "configuration"
        if fault["type"] == "extra_forbidden":
            sentences.append(f"{key}: unknown key{_nearest(path, model)}")
        elif fault["type"] == "missing":
            sentences.append(f"{key}: a value is required")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            sentences.append(f"{key}: {_refused_value(fault)}{message}")
    return "; ".join(dict.fromkeys(sentences))


def _refused_value(fault: ErrorDetails) -> str:
    """The value that cannot be used, in words; "" for a section whose values do not fit together.

    Its message names the values concerned, which a whole section printed before it would hide.
    """
    if fault["type"] == "value_error" and isinstance(fault["input"], Mapping):
        return ""
    value = repr(fault["input"])
    shown = value if len(value) <= _SCALAR_LIMIT else value[:_SCALAR_LIMIT] + "…"
    return f"{shown} cannot be used; "


def _is_union_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part.startswith(("literal[", "tuple[")) or part in _BRANCHES)


_BRANCHES = {"float", "int", "bool", "str"}


def _nearest(path: Sequence[str], model: type[BaseModel]) -> str:
    for part in path[:-1]:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    known = list(model.model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1)
    if near:
        return f"; did you mean {'.'.join([*path[:-1], near[0]])!r}?"
    return f"; known are {', '.join(known)}"


def read_yaml_file(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file; ConfigError when it cannot be read."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: larger than 64 kB; expected a configuration file")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; expected a YAML configuration") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Keys and values of YAML text; `where` names it in a ConfigError."""
    value = _load_yaml(text, where)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected keys and values, found {type(value).__name__}")
    return value


def _load_yaml(text: str, where: str) -> Any:
    # The reader's time grows with the square of open brackets: 20,000 would take a minute.
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        raise ConfigError(f"{where}: more than {MAX_BRACKETS:,} opening brackets; expected YAML")
    reader = YAML(typ="safe", pure=True)  # YAML 1.2: 1e-4 is a number, equal keys are refused
    try:
        if any(type(event).__name__ == "AliasEvent" for event in reader.parse(text)):
            raise ConfigError(f"{where}: YAML aliases are not accepted; write the value out")
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{where}{line}: {problem}") from error


def parse_override(override: str) -> tuple[str, Any]:
    """Key and value of "a.b=value"; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-o {override}: expected KEY=VALUE, e.g. -o data.planes=all")
    return key.strip(), _load_yaml(text, f"-o {key}") if text.strip() else None


def set_value(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set the value of "a.b" in nested sections; ConfigError when "a" is no section."""
    *parents, last = dotted.split(".")
    for parent in parents:
        branch = values.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{dotted}: {parent!r} holds a value, not a section")
        values = branch
    values[last] = value


def merge(target: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Put the values of nested sections over those of others; a list replaces a list."""
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested sections by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        flat |= flatten(value, name) if isinstance(value, Mapping) else {name: value}
    return flat
