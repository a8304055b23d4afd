"""One data contract, two engines: the rules of a YAML file, run by pandera and Great Expectations.

Both engines get the same rules in the same order and give one outcome a rule. A rule that cannot be
tried, because its column is missing or has the wrong type, fails with that reason: it is not passed
over. An engine that breaks raises; a crash is never a verdict on the data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medisynth.errors import SettingsError

Severity = Literal["critical", "warning", "info"]
Kind = Literal[
    "row_count",
    "exists",
    "dtype",
    "not_null",
    "all_or_none",
    "unique",
    "pattern",
    "allowed",
    "range",
    "when",
]
Engine = Literal["pandera", "great_expectations"]

_MAX_CONTRACT_BYTES = 64 * 1024
_MAX_EXAMPLES = 5
_MAX_EXAMPLE_CHARACTERS = 80
_STRUCTURE: frozenset[Kind] = frozenset({"exists", "dtype"})


@dataclass(frozen=True)
class Rule:
    """One rule of the contract, as an engine is given it.

    Attributes:
        name: Unique name, e.g. "image_id_unique".
        kind: What is tested.
        column: Column that is tested; empty for the number of rows.
        severity: "critical", "warning" or "info".
        reason: Why a value that breaks the rule must not pass.
        dtype: "text", "integer", "real" or "boolean", for kind "dtype".
        pattern: Regular expression for the whole value, for kind "pattern".
        allowed: Allowed values, for kind "allowed".
        minimum: Smallest value, for kinds "range" and "row_count"; None is open.
        maximum: Largest value, for kind "range"; None is open.
        when_column: Column of the condition, for kind "when".
        when_value: Value in the condition.
        when_equal: Whether the condition is equality; else rows with another or no value count.
        expect_filled: Whether `column` must be filled where the condition holds; else empty.
        if_recorded: Whether the rule is left out where `column` has no value in any row.
        is_optional: Whether the column may be missing; its rules then evaluate nothing.
    """

    name: str
    kind: Kind
    column: str
    severity: Severity
    reason: str
    dtype: str = ""
    pattern: str = ""
    allowed: tuple[str | bool, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    when_column: str = ""
    when_value: str = ""
    when_equal: bool = True
    expect_filled: bool = True
    if_recorded: bool = False
    is_optional: bool = False


@dataclass(frozen=True)
class DataContract:
    """All rules for one kind of table.

    Attributes:
        name: Name of the contract.
        version: Version of the contract, raised whenever a rule changes.
        rules: Rules in the order of the file.
    """

    name: str
    version: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class RuleOutcome:
    """How one rule went in one engine.

    Attributes:
        engine: Engine that tried it.
        rule: Name of the rule.
        column: Column; empty for the number of rows.
        severity: "critical", "warning" or "info".
        passed: Whether nothing broke the rule. Means nothing where `n_evaluated` is 0.
        n_evaluated: Values tried (1 for a rule about the column or table itself). 0 means that
            there was nothing to try: not recorded, or blocked by a missing or mistyped column.
        n_unexpected: Values that broke the rule.
        reason: Why the rule is there, or why it could not be tried.
        examples: At most 5 offending values, each at most 80 characters, control characters
            escaped.
    """

    engine: Engine
    rule: str
    column: str
    severity: Severity
    passed: bool
    n_evaluated: int
    n_unexpected: int
    reason: str
    examples: tuple[str, ...] = ()


class _Column(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: Literal["text", "integer", "real", "boolean"]
    required: bool = True
    nullable: Literal["all_or_none"] | bool
    unique: bool = False
    pattern: str | None = None
    allowed: list[str | bool] | None = None
    min: float | None = None
    max: float | None = None
    severity: Severity
    severities: dict[Kind, Severity] = Field(default_factory=dict)
    reason: str


class _CrossColumn(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    column: str
    when_column: str
    is_: Annotated[str | None, Field(alias="is")] = None
    is_not: str | None = None
    expect: Literal["empty", "filled"]
    if_recorded: bool = False
    severity: Severity
    reason: str

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if (self.is_ is None) == (self.is_not is None):
            raise ValueError("expected exactly one of `is` and `is_not`")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    version: int
    min_rows: Annotated[int, Field(ge=1)]
    columns: dict[str, _Column]
    cross_column: list[_CrossColumn] = Field(default_factory=list)


def load_contract(path: Path | None = None) -> DataContract:
    """Read a contract; without a path the built-in one of the image table.

    Raises:
        SettingsError: The file is unreadable, too large or says something a contract cannot say.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = path or Path(__file__).with_name("contracts") / "image_table.yaml"
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_CONTRACT_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > _MAX_CONTRACT_BYTES:
        raise SettingsError(f"{path}: larger than {_MAX_CONTRACT_BYTES:,} bytes")
    try:
        content = YAML(typ="safe", pure=True).load(data)
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{path}: {place}: {first['msg']}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f":{line + 1}"
        raise SettingsError(f"{path}{place}: not readable as YAML") from error
    rules = tuple(_rules(file))
    names = [rule.name for rule in rules]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SettingsError(f"{path}: two rules are named {doubled[0]}")
    return DataContract(file.name, file.version, rules)


def _rules(file: _File) -> list[Rule]:
    rules = [
        Rule(
            "row_count",
            "row_count",
            "",
            "critical",
            f"A table of fewer than {file.min_rows} images supports nothing.",
            minimum=file.min_rows,
        )
    ]
    for name, column in file.columns.items():
        rules += _column_rules(name, column)
    for cross in file.cross_column:
        rules.append(
            Rule(
                cross.name,
                "when",
                cross.column,
                cross.severity,
                cross.reason,
                when_column=cross.when_column,
                when_value=cross.is_ if cross.is_ is not None else cross.is_not or "",
                when_equal=cross.is_ is not None,
                expect_filled=cross.expect == "filled",
                if_recorded=cross.if_recorded,
            )
        )
    return rules


def _column_rules(name: str, column: _Column) -> list[Rule]:
    def rule(kind: Kind, *, severity: Severity | None = None, **parameters: Any) -> Rule:
        return Rule(
            f"{name}_{kind}",
            kind,
            name,
            severity or column.severities.get(kind, column.severity),
            column.reason,
            is_optional=not column.required,
            **parameters,
        )

    # A wrong structure makes all other rules of the column meaningless: always critical.
    rules = [rule("exists", severity="critical")]
    rules.append(rule("dtype", severity="critical", dtype=column.dtype))
    if column.nullable is False:
        rules.append(rule("not_null"))
    if column.nullable == "all_or_none":
        rules.append(rule("all_or_none", if_recorded=True))
    if column.unique:
        rules.append(rule("unique"))
    if column.pattern is not None:
        rules.append(rule("pattern", pattern=rf"\A(?:{column.pattern})\Z"))
    if column.allowed is not None:
        rules.append(rule("allowed", allowed=tuple(column.allowed)))
    if column.min is not None or column.max is not None:
        rules.append(rule("range", minimum=column.min, maximum=column.max))
    return rules


def validate_with_pandera(table: pd.DataFrame, contract: DataContract) -> tuple[RuleOutcome, ...]:
    """Try every rule of a contract with pandera.

    Args:
        table: Image table.
        contract: Rules.

    Returns:
        One outcome a rule, in the contract's order.

    Raises:
        pandera.errors.BackendNotFoundError: pandera cannot handle the table at all.
        RuntimeError: A check broke instead of giving a verdict.
    """
    from medisynth.data.contract_pandera import run_rules

    return _validate(table, contract, "pandera", run_rules)


def validate_with_great_expectations(
    table: pd.DataFrame, contract: DataContract
) -> tuple[RuleOutcome, ...]:
    """Try every rule of a contract with Great Expectations; takes seconds to import.

    Args:
        table: Image table.
        contract: Rules.

    Returns:
        One outcome a rule, in the contract's order.

    Raises:
        RuntimeError: An expectation broke instead of giving a verdict.
    """
    from medisynth.data.contract_great_expectations import run_rules

    return _validate(table, contract, "great_expectations", run_rules)


RunRules = Callable[[pd.DataFrame, Sequence[Rule]], list[RuleOutcome]]


def _validate(
    table: pd.DataFrame, contract: DataContract, engine: Engine, run_rules: RunRules
) -> tuple[RuleOutcome, ...]:
    """Try structure first, then values where the structure holds; nothing is left out."""
    plain = _plain(table)
    outcomes: dict[str, RuleOutcome] = {}

    def settle(rules: Sequence[Rule]) -> None:
        to_try = []
        for rule in rules:
            outcome = _settled(rule, plain, outcomes, engine)
            if outcome is None:
                to_try.append(rule)
            else:
                outcomes[rule.name] = outcome
        if to_try:
            outcomes.update({outcome.rule: outcome for outcome in run_rules(plain, to_try)})

    settle([rule for rule in contract.rules if rule.kind in _STRUCTURE])
    settle([rule for rule in contract.rules if rule.kind not in _STRUCTURE])
    missing = [rule.name for rule in contract.rules if rule.name not in outcomes]
    if missing:
        raise RuntimeError(f"{engine} gave no outcome for {', '.join(missing)}")
    return tuple(outcomes[rule.name] for rule in contract.rules)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """The table with text as plain strings and None, so that both engines see the same values."""
    plain = pd.DataFrame(index=pd.RangeIndex(len(table)))
    for name in table.columns:
        column = table[name].reset_index(drop=True)
        if pd.api.types.is_string_dtype(column.dtype) or column.dtype == object:
            text = column.astype(object)
            column = text.where(text.notna(), None)
        plain[name] = column
    return plain


def _settled(
    rule: Rule, table: pd.DataFrame, outcomes: dict[str, RuleOutcome], engine: Engine
) -> RuleOutcome | None:
    """The outcome of a rule that no engine needs to try, or None."""
    nothing = RuleOutcome(engine, rule.name, rule.column, rule.severity, True, 0, 0, "")
    if rule.kind == "row_count":
        return None
    if rule.is_optional and rule.column not in table:
        return replace(nothing, reason=f"column {rule.column} is not recorded")
    obstacle = _obstacle(rule, table, outcomes)
    if obstacle:
        return replace(nothing, passed=False, reason=obstacle)
    if rule.if_recorded and not table[rule.column].notna().any():
        return replace(nothing, reason=f"{rule.column} is not recorded for any image")
    return None


def _obstacle(rule: Rule, table: pd.DataFrame, outcomes: dict[str, RuleOutcome]) -> str:
    """Why a rule cannot be tried, from the structure rules settled before; empty if it can."""
    if rule.kind == "exists":
        return ""
    for column in filter(None, (rule.column, rule.when_column)):
        if column not in table:
            return f"column {column} is missing"
        dtype = outcomes.get(f"{column}_dtype")
        if dtype is not None and not dtype.passed:
            return f"column {column} has the wrong type"
    return ""


def examples(values: Sequence[object]) -> tuple[str, ...]:
    """The first offending values, fit for a report: at most 5, short, control characters escaped."""
    texts = []
    for value in values[:_MAX_EXAMPLES]:
        is_empty = value is None or value is pd.NA or value != value
        text = "(empty)" if is_empty else str(value)[: _MAX_EXAMPLE_CHARACTERS + 1]
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
        )
        if len(text) > _MAX_EXAMPLE_CHARACTERS:
            text = text[: _MAX_EXAMPLE_CHARACTERS - 1] + "…"
        texts.append(text)
    return tuple(texts)
