"""The population that the data should stand for, as a person declares it in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.records.errors import SettingsError
from governance.records.yaml_text import read_yaml
from medisynth.data.contract.contract import AttributeDeclaration

_SUM_TOLERANCE = 0.01
_MAX_QUOTED = 60
_PLACEHOLDERS = frozenset({"", "?", "-", "…", "...", "todo", "tbd", "n/a", "fill in", "source"})


@dataclass(frozen=True)
class TargetAttribute:
    """How one attribute is distributed in the target population.

    Attributes:
        shares: Level -> share of patients, 0 to 1, adding up to 1.
        source: Where the shares come from.
    """

    shares: dict[str, float]
    source: str


@dataclass(frozen=True)
class TargetPopulation:
    """The population that the data should stand for.

    Attributes:
        name: Name, with place and period.
        attributes: Attribute -> distribution.
        file: File that it was read from; "" when it was not.
    """

    name: str
    attributes: dict[str, TargetAttribute]
    file: str = ""


_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Attribute(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    shares: Annotated[dict[str, _Share | None], Field(min_length=1)]
    source: str | None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str | None
    attributes: Annotated[dict[str, _Attribute], Field(min_length=1)]


def load_target_population(path: Path) -> TargetPopulation:
    """Read a target population.

    Args:
        path: YAML file of at most 64 kB: `name`, and `attributes` with `shares` by level and a
            `source` each.

    Returns:
        The population, shares divided by their sum (1 within 0.01 in the file).

    Raises:
        SettingsError: The file cannot be read, is not filled in, or has an invalid entry; names
            file and key.
    """
    file = _read(path)
    filled = {name: _is_filled(entry) for name, entry in file.attributes.items()}
    if not any(filled.values()):
        raise SettingsError(
            f"{path}: the template is not filled in; expected shares and a source for at least one "
            "attribute: fill in those you can and delete the others"
        )
    if _is_placeholder(file.name):
        raise SettingsError(f"{path}: name: is empty; name the population, its place and period")
    attributes = {
        name: _distribution(f"{path}: attributes.{name}", entry)
        for name, entry in file.attributes.items()
    }
    return TargetPopulation(str(file.name).strip(), attributes, str(path))


def check_levels(target: TargetPopulation, declared: Sequence[AttributeDeclaration]) -> None:
    """Check that the target's levels are those that the data contract declares.

    Args:
        target: Target population.
        declared: Declared attributes; those that the target lacks, or that have no declared
            levels, are passed over.

    Raises:
        SettingsError: The target has another level than the contract, or lacks one.
    """
    for attribute in declared:
        found = target.attributes.get(attribute.name)
        expected = declared_levels(attribute)
        if found is None or not expected:
            continue
        odd = [level for level in found.shares if level not in expected]
        lacking = [level for level in expected if level not in found.shares]
        if odd or lacking:
            what = f"unknown level {_quoted(odd[0])}" if odd else f"no level {_quoted(lacking[0])}"
            raise SettingsError(
                f"{target.file or target.name}: attributes.{attribute.name}.shares: {what}; "
                f"expected the levels of the data contract, {', '.join(map(_quoted, expected))}"
            )


def declared_levels(attribute: AttributeDeclaration) -> tuple[str, ...]:
    """Levels of a category as declared, or the names of a number's bins; () when neither is."""
    if attribute.kind == "category":
        return tuple(attribute.levels)
    return attribute.bins or bin_names(attribute.edges, attribute.unit)


def bin_names(edges: Sequence[float], unit: str) -> tuple[str, ...]:
    """Names of the bins between edges, each closed on the left, e.g. "97 to below 177 mm".

    Args:
        edges: Increasing edges; n make n + 1 bins.
        unit: Unit; "" for none.

    Returns:
        Names from low to high; () without edges.
    """
    if not edges:
        return ()
    texts = [f"{edge:g}" for edge in edges]
    after = f" {unit}" if unit else ""
    inner = [f"{a} to below {b}{after}" for a, b in pairwise(texts)]
    return (f"below {texts[0]}{after}", *inner, f"{texts[-1]}{after} and above")


def _read(path: Path) -> _File:
    content = read_yaml(path, what="a target population", error=SettingsError).content
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(key) for key in first["loc"] if key != "[key]"]
        place = ".".join(keys) or "file"
        words = first["msg"].lower()
        if first["loc"][-1:] == ("[key]",):
            words = "the name of a level or attribute must be text; write it in quotes"
        raise SettingsError(f"{path}: {place[: 2 * _MAX_QUOTED]}: {words}") from error


def _is_filled(entry: _Attribute) -> bool:
    return not _is_placeholder(entry.source) or any(s is not None for s in entry.shares.values())


def _is_placeholder(text: str | None) -> bool:
    return text is None or text.strip().strip("<>[]").strip().lower() in _PLACEHOLDERS


def _distribution(place: str, entry: _Attribute) -> TargetAttribute:
    """Check one attribute: every share given, their sum, and a source."""
    given = {level: share for level, share in entry.shares.items() if share is not None}
    empty = [level for level in entry.shares if level not in given]
    if empty:
        raise SettingsError(
            f"{place}.shares: no share of {_quoted(empty[0])}; give one, or delete the attribute"
        )
    if _is_placeholder(entry.source):
        raise SettingsError(
            f"{place}.source: is empty; say where the shares come from, or delete the attribute"
        )
    total = sum(given.values())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise SettingsError(f"{place}.shares: add up to {total:.3f}; expected 1 within 0.01")
    shares = {level: share / total for level, share in given.items()}
    return TargetAttribute(shares, str(entry.source).strip())


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 1] + "…")
