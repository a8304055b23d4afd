"""Read one contract file: safe YAML into checked records, every fault with file, line and key."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from governance.records.dataset import Severity
from governance.records.errors import SettingsError
from governance.records.yaml_text import YamlFile, child, read_yaml
from medisynth.data.contract.records import Kind, Step
from medisynth.data.reading.csv_table import shown
from medisynth.data.reading.kinds import obstacle

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Path_ = tuple[str | int, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Values(_Part):
    """Rules about values, for image columns and metadata columns alike."""

    required: bool | None = None
    nullable: Literal["all_or_none"] | bool | None = None
    unique: bool | None = None
    pattern: Annotated[str, Field(max_length=1000)] | None = None
    min: Number | None = None
    max: Number | None = None
    severity: Severity
    severities: dict[Kind, Severity] = Field(default_factory=dict)
    reason: Text

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return None if pattern is None else checked_pattern(pattern)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"expected min to be at most max, found {self.min} and {self.max}")
        return self


class ImageColumn(_Values):
    """Rules about a column of the image table; a later file states only its changes."""

    dtype: Literal["text", "integer", "real", "boolean"] | None = None
    allowed: Annotated[list[str | bool], Field(min_length=1)] | None = None
    since: Step | None = None


class MetadataColumn(_Values):
    """Rules about a column of the metadata file; all its values are text, read as declared."""

    dtype: Literal["text", "integer", "real"] = "text"
    allowed: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _numbers_have_ranges(self) -> Self:
        if self.dtype == "text" and (self.min is not None or self.max is not None):
            raise ValueError("min and max need dtype integer or real, as text has no order")
        return self


class CrossColumn(_Part):
    """In rows where one column is (or is not) a value, another is empty or filled."""

    name: Name
    column: Name
    when_column: Name
    is_: Annotated[str | None, Field(alias="is")] = None
    is_not: str | None = None
    expect: Literal["empty", "filled"]
    if_recorded: bool = False
    severity: Severity
    reason: Text

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if (self.is_ is None) == (self.is_not is None):
            raise ValueError("expected exactly one of `is` and `is_not`")
        return self


class Agreement(_Part):
    """The values of several columns, joined by blanks, match a pattern."""

    name: Name
    columns: Annotated[list[Name], Field(min_length=2, max_length=5)]
    pattern: Annotated[str, Field(max_length=1000)]
    severity: Severity
    reason: Text

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return checked_pattern(pattern)


class Attribute(_Part):
    """A demographic or clinical attribute; see AttributeDeclaration."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9 _-]{0,59}$")]
    column: Name
    kind: Literal["category", "number"]
    unit: Annotated[str, Field(max_length=40)] = ""
    levels: list[Name] = Field(default_factory=list, max_length=200)
    edges: list[Number] = Field(default_factory=list, max_length=50)
    bins: list[Name] = Field(default_factory=list, max_length=51)
    is_proxy: bool = False
    note: Annotated[str, Field(max_length=2000)] = ""
    severity: Severity = "warning"

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "category":
            if not self.levels or self.edges or self.unit or self.bins:
                raise ValueError(
                    "a category needs `levels` and has neither `edges` nor `unit` nor `bins`"
                )
            if len(set(self.levels)) < len(self.levels):
                raise ValueError("expected each level once")
        else:
            if not self.edges or self.levels:
                raise ValueError("a number needs `edges` for its bins and has no `levels`")
            if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
                raise ValueError("expected increasing `edges`")
            n_bins = len(self.edges) + 1
            if self.bins and (len(self.bins) != n_bins or len(set(self.bins)) < n_bins):
                raise ValueError(
                    f"expected {n_bins} different names in `bins`, one more than edges"
                )
        if self.is_proxy and not self.note:
            raise ValueError("a proxy needs a `note` that says what it cannot show")
        return self


class Content(_Part):
    """All entries that a contract file may have."""

    name: Name
    version: Annotated[int, Field(ge=1)]
    extends: Name | None = None
    min_rows: Annotated[int, Field(ge=1)] | None = None
    columns: dict[Name, ImageColumn] = Field(default_factory=dict)
    metadata: dict[Name, MetadataColumn] = Field(default_factory=dict)
    cross_column: list[CrossColumn] = Field(default_factory=list)
    agreements: list[Agreement] = Field(default_factory=list)
    demographics: list[Attribute] = Field(default_factory=list)


@dataclass(frozen=True)
class ContractFile:
    """One contract file, read and checked.

    Attributes:
        path: The file.
        sha256: Digest of its bytes.
        content: Its entries.
        file: The same as YAML, for the line of a key.
    """

    path: Path
    sha256: str
    content: Content
    file: YamlFile

    def fault(self, where: Path_, message: str) -> NoReturn:
        """Refuse the file because of the entry at a key.

        Raises:
            SettingsError: Always; names file, line and key.
        """
        raise SettingsError(_place(self.path, self.file, where) + message)


def whole(pattern: str) -> str:
    """Return the pattern anchored at both ends."""
    return rf"\A(?:{pattern})\Z"


def checked_pattern(pattern: str) -> str:
    """Return the pattern after checking that it is valid.

    Raises:
        ValueError: It is no regular expression of Python.
    """
    try:
        re.compile(pattern)
        re.compile(whole(pattern))  # a flag such as (?i) may stand at the very start only
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression of Python ({error})") from error
    return pattern


def read_contract(path: Path) -> ContractFile:
    """Read one contract file.

    Raises:
        SettingsError: The file is unreadable, larger than 64 kB, no plain YAML (aliases, anchors,
            tags, directives and equal keys are refused) or has an invalid entry.
    """
    try:
        kind = obstacle(path)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; expected a data contract (YAML)") from None
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be looked at ({error.strerror}); expected a data contract (YAML)"
        ) from error
    if kind is not None:
        raise SettingsError(f"{path}: is {kind.what}, expected a data contract (YAML)")
    file = read_yaml(path, what="a data contract", error=SettingsError)
    try:
        checked = Content.model_validate(file.content)
    except ValidationError as error:
        raise SettingsError(_schema_fault(path, file, error)) from error
    return ContractFile(path, hashlib.sha256(file.data).hexdigest(), checked, file)


def _schema_fault(path: Path, file: YamlFile, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where: list[str | int] = []
    node = file.root
    for key in first["loc"]:  # union members and "[key]" stand in the location, too
        pair = child(node, key)
        if pair is not None or first["type"] in {"missing", "extra_forbidden"}:
            where.append(key)
            node = None if pair is None else pair[1]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{_place(path, file, tuple(where[:-1]))}{where[-1]}: is missing; add it"
    if first["type"] == "extra_forbidden":
        return f"{_place(path, file, tuple(where))}is no key of a contract; remove or mend it"
    found = first.get("input")
    if isinstance(found, str | int | float | bool) and message.startswith("Input"):
        message = f"{message.replace('Input should', 'should')}, found {shown(str(found))}"
        if message.startswith("should be a valid string"):
            message += "; put it in quotes"
    return _place(path, file, tuple(where)) + message


def _place(path: Path, file: YamlFile, where: Path_) -> str:
    key = ".".join(map(str, where))
    return f"{path}:{file.line(where)}: {key}: " if key else f"{path}:{file.line(where)}: "
