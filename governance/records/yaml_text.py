"""The one reader of YAML, and the handling of configuration values read from it."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    NodeEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from governance.records.credentials import has_credentials
from governance.records.errors import ConfigError
from governance.records.files import open_regular

MAX_BYTES = 64 * 1024
MAX_LEVELS = 8
_SCALAR_LIMIT = 80
_PROBLEM_LIMIT = 200


def describe(
    error: ValidationError,
    model: type[BaseModel],
    prefix: str = "",
    where: Callable[[str], str] = lambda _key: "",
) -> str:
    """Describe every fault of a model with its key, the value and what is allowed.

    Args:
        error: The faults.
        model: Model that they are of.
        prefix: Dotted key of the model in the configuration.
        where: Takes a dotted key and returns what to put before it: file and line, or "".
    """
    sentences = []
    for fault in error.errors(include_url=False):
        path = [str(part) for part in fault["loc"] if not _is_union_branch(part)]
        key = ".".join([prefix, *path] if prefix else path)
        words = f"{where(key)}{key or 'configuration'}"
        if fault["type"] == "extra_forbidden":
            sentences.append(f"{words}: unknown key{_nearest(path, model, prefix)}")
        elif fault["type"] == "missing":
            sentences.append(f"{words}: a value is required")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            sentences.append(f"{words}: {_refused_value(fault)}{message}{_quoting(fault, key)}")
    return "; ".join(dict.fromkeys(sentences))


def _quoting(fault: ErrorDetails, key: str) -> str:
    """Return advice on a text that YAML reads as something else, or "" where there is none."""
    if fault["type"] != "string_type" or fault["input"] is None:
        return ""
    if isinstance(fault["input"], Mapping):
        return f": a colon makes it keys and values; {_quoted(key)}"
    return f"; {_quoted(key)}"


def _quoted(key: str) -> str:
    return f"put the text in quotes, on the command line -o '{key}=\"TEXT\"'"


def _refused_value(fault: ErrorDetails) -> str:
    """Describe the refused value; "" for a section whose values do not fit together.

    The message for such a section names the values; printing the whole section would hide them.
    """
    if fault["type"] == "value_error" and isinstance(fault["input"], Mapping):
        return ""
    value = repr(fault["input"])
    shown = value if len(value) <= _SCALAR_LIMIT else value[:_SCALAR_LIMIT] + "…"
    return f"{shown} cannot be used; "


def _is_union_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part.startswith(("literal[", "tuple[")) or part in _BRANCHES)


_BRANCHES = {"float", "int", "bool", "str"}


def _nearest(path: Sequence[str], model: type[BaseModel], prefix: str) -> str:
    """Return the key that an unknown one is probably meant to be, or the keys that are known."""
    section: type[BaseModel] | None = model
    for part in path[:-1]:
        if part.isdecimal() or section is None:  # an entry of a list: the section stays
            continue
        field = section.model_fields.get(part)
        section = _section(field.annotation) if field else None
    if section is None:
        return ""
    known = list(section.model_fields)
    above = [prefix, *path[:-1]] if prefix else list(path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1)
    places = [".".join([*above, near[0]])] if near else []
    if not near:
        start = f"{prefix}." if prefix else ""
        places = [f"{start}{key}" for key in _keys(model) if key.split(".")[-1] == path[-1]]
    if places:
        return f"; did you mean {' or '.join(map(repr, places))}?"
    return f"; known are {', '.join(known)}"


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a section that may be absent or repeated; None for plain values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def _keys(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted keys of all values of a model."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            yield name
        else:
            yield from (f"{name}.{key}" for key in _keys(section))


@dataclass(frozen=True)
class YamlFile:
    """The content of a YAML file, its bytes and its syntax tree.

    Attributes:
        data: Its bytes.
        content: Its keys and values; empty for an empty file.
        root: Its syntax tree, for the line of a key; None for an empty file.
    """

    data: bytes
    content: dict[str, Any]
    root: Node | None

    def line(self, place: Sequence[int | str]) -> int:
        """Return the line, from 1, of a key or list entry, or of its nearest part that exists."""
        node, line = self.root, 1 if self.root is None else self.root.start_mark.line + 1
        for part in place:
            found = child(node, part)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def has(self, place: Sequence[int | str]) -> bool:
        """Whether the file gives a value at this place."""
        node = self.root
        for part in place:
            found = child(node, part)
            if found is None:
                return False
            node = found[1]
        return True


def child(node: Node | None, part: int | str) -> tuple[Node, Node] | None:
    """Return key node and value node of a child in a syntax tree; None where there is none."""
    if isinstance(node, MappingNode):
        return next((pair for pair in node.value if pair[0].value == str(part)), None)
    if isinstance(node, SequenceNode) and str(part).isdecimal() and int(part) < len(node.value):
        return node.value[int(part)], node.value[int(part)]
    return None


def read_yaml(
    source: Path | bytes,
    name: str = "",
    *,
    what: str = "a configuration",
    hint: str = "give a file",
    error: Callable[[str], Exception] = ConfigError,
    most_bytes: int = MAX_BYTES,
    may_be_empty: bool = False,
    may_hold_credentials: bool = False,
) -> YamlFile:
    """Read a mapping in YAML 1.2 and refuse all features beyond plain keys and values.

    Args:
        source: A file, or its bytes.
        name: Name in messages; default: the file's path.
        what: What the file should be, for messages.
        hint: What to do about a file that cannot be read.
        error: Makes the exception of a message.
        most_bytes: Largest size that is accepted.
        may_be_empty: Whether a file may be empty.
        may_hold_credentials: Whether addresses in it may carry a password or token: for a file of
            a run, and for one that is checked after it was read.

    Raises:
        Exception: As `error` makes it, one sentence with line and column: the file cannot be read,
            is too large, not UTF-8, no YAML, nested deeper than 8 levels, has equal keys, anchors,
            aliases, tags or directives, is no mapping, or carries a password or token.
    """
    name = name or str(source)
    data = (
        _read(source, name, what, hint, error, most_bytes) if isinstance(source, Path) else source
    )
    if len(data) > most_bytes:
        raise error(f"{name}: larger than {most_bytes // 1024} kB; expected {what}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        raise error(f"{name}:{line}: is not UTF-8 text; save it again as UTF-8") from fault
    lines = [] if may_hold_credentials else text.splitlines()
    for number, row in enumerate(lines, 1):
        if has_credentials(row):
            raise error(
                f"{name}:{number}: no user name, password or token in an address: the file goes "
                "into the evidence; leave it out"
            )
    content, root = _value(text, name, error)
    if content is None:
        if not may_be_empty:
            raise error(f"{name}: is empty; expected {what} with keys and values")
        content = {}
    if not isinstance(content, dict):
        raise error(f"{name}: expected keys and values, found {type(content).__name__}")
    return YamlFile(data, content, root)


def _read(
    path: Path,
    name: str,
    what: str,
    hint: str,
    error: Callable[[str], Exception],
    most_bytes: int,
) -> bytes:
    try:
        with open_regular(path) as stream:
            return stream.read(most_bytes + 1)
    except OSError as fault:
        raise error(
            f"{name}: cannot be read ({fault.strerror or fault}); expected {what} (YAML); {hint}"
        ) from fault


def _value(text: str, name: str, error: Callable[[str], Exception]) -> tuple[Any, Node | None]:
    """Return the value of a YAML text and its syntax tree; (None, None) for an empty text."""
    reader = YAML(typ="safe", pure=True)  # YAML 1.2: 1e-4 is a number, equal keys are refused
    try:
        trick = _trick(text)  # events come before objects: an alias is refused before it multiplies
        if trick:
            raise error(f"{name}:{trick}; write the values out")
        root = reader.compose(text)
        return (None if root is None else reader.constructor.construct_document(root)), root
    except YAMLError as fault:
        raise error(f"{name}{_problem(fault)}") from fault
    except (ValueError, RecursionError, OverflowError) as fault:  # e.g. a number of 5,000 digits
        words = " ".join(str(fault).split())[:_PROBLEM_LIMIT]
        raise error(f"{name}: not readable as YAML ({words})") from fault


def _trick(text: str) -> str:
    """Return line, name and column of the first refused YAML feature; "" for none."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        trick = ""
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            trick = "anchors and aliases"
        elif isinstance(event, NodeEvent) and getattr(event, "tag", None):
            trick = "tags"
        elif isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            trick = "directives"
        elif depth > MAX_LEVELS:
            trick = f"more than {MAX_LEVELS} levels"
        if trick:
            mark = event.start_mark
            return f"{mark.line + 1}: {trick} are not allowed (column {mark.column + 1})"
    return ""


def _problem(fault: YAMLError) -> str:
    """Return line, problem and column of a fault, to follow the name of the file."""
    problem = getattr(fault, "problem", None) or "not readable as YAML"
    problem = " ".join(str(problem).split())[:_PROBLEM_LIMIT]
    mark = getattr(fault, "problem_mark", None)
    place, column = (
        ("", "") if mark is None else (f":{mark.line + 1}", f", column {mark.column + 1}")
    )
    if isinstance(fault, DuplicateKeyError):
        return f"{place}: {problem}{column}; name each key once"
    return f"{place}: not readable as YAML ({problem}{column})"


def parse_override(override: str) -> tuple[str, Any]:
    """Split "a.b=value" into key and value; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-o {override}: expected KEY=VALUE, e.g. -o data.planes=all")
    try:
        return key.strip(), _value(text, f"-o {key}", ConfigError)[0]
    except ConfigError as fault:
        hint = f"; {_quoted(key.strip())}" if ":" in text else ""
        raise ConfigError(f"{fault}{hint}") from fault


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
    """Merge nested sections into others; a new value wins, and a list replaces a list."""
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        flat |= flatten(value, name) if isinstance(value, Mapping) else {name: value}
    return flat
