"""Records of the data contract: rules, declared attributes, engine results."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import pandas as pd

from governance.records.dataset import RuleBreak, RuleResult, Severity
from medisynth.data.reading.csv_table import folded

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
Step = Literal["s1_ingest", "s2_validate", "s3_audit", "s4_split"]

# Columns that are not in the image table but made for the rules about the metadata file.
METADATA = "metadata."  # a column of the metadata file, as text
NUMBER = "number."  # the same column as a number, where its text is one
ATTRIBUTE = "attribute."  # a declared attribute, as text
NUMBER_PATTERN = r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?"

MAX_EXAMPLES = 5
MAX_BREAKS = 20
_MAX_EXAMPLE_CHARACTERS = 80


@dataclass(frozen=True)
class Rule:
    """One rule of the contract, in the form that both engines read.

    Attributes:
        name: Unique name, e.g. "image_id_unique".
        kind: Kind of test.
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
        parts: Columns whose values, joined by blanks, are the value of `column`; empty where
            `column` is a column of the table.
        since: First step whose table has the column.
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
    parts: tuple[str, ...] = ()
    since: Step = "s1_ingest"

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that the rule needs in order to be tried."""
        return tuple(filter(None, (*(self.parts or (self.column,)), self.when_column)))

    @property
    def is_about_metadata(self) -> bool:
        """Whether a column is read that is made from the metadata file."""
        return any(name.startswith((METADATA, NUMBER, ATTRIBUTE)) for name in self.reads)


@dataclass(frozen=True)
class AttributeDeclaration:
    """A demographic or clinical attribute that a data set carries, as its contract declares it.

    Attributes:
        name: Name in reports, e.g. "maternal age".
        column: Column that holds it: of the metadata file, else of the image table.
        kind: "category" or "number".
        unit: Unit of a number; "" for a category.
        levels: Known levels of a category, in the order of reports; () for a number. A value
            outside breaks a rule of the contract, which need not stop a run.
        edges: Increasing edges of a number's bins, in its unit: n edges make n + 1 bins, each
            closed on the left, the first and the last open; () for a category.
        is_proxy: Whether the column only stands in for the attribute.
        note: How it was recorded, or what a proxy cannot show.
        bins: Names of a number's bins from low to high; () names them after the edges.
    """

    name: str
    column: str
    kind: Literal["category", "number"]
    unit: str = ""
    levels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    is_proxy: bool = False
    note: str = ""
    bins: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataContract:
    """All rules for one kind of table.

    Attributes:
        name: Name of the contract, e.g. "hc18".
        version: Its version, raised whenever a rule changes.
        rules: Rules, the base's first.
        files: Name and SHA-256 of each file that the contract was made of, base first, the
            user's own last.
        demographics: Attributes that the data set carries.
    """

    name: str
    version: int
    rules: tuple[Rule, ...]
    files: tuple[tuple[str, str], ...] = ()
    demographics: tuple[AttributeDeclaration, ...] = ()

    @property
    def metadata_columns(self) -> frozenset[str]:
        """Columns of the metadata file that a rule or a declared attribute reads."""
        read = {name for rule in self.rules for name in rule.reads}
        return frozenset(
            {one.column for one in self.demographics}
            | {
                name.removeprefix(prefix)
                for name in read
                for prefix in (METADATA, NUMBER)
                if name.startswith(prefix)
            }
        )


@dataclass(frozen=True)
class GreatExpectationsResult:
    """Result of a validation by Great Expectations.

    Attributes:
        outcomes: One outcome a rule, in the contract's order.
        native_json: Its own results as UTF-8 JSON, equal for equal tables and contracts: the
            random identifiers and times that it adds are left out.
    """

    outcomes: tuple[RuleResult, ...]
    native_json: bytes


def condition(rule: Rule, table: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the rows that a rule of kind "when" applies to."""
    equal = (table[rule.when_column] == rule.when_value).astype(bool)
    return equal if rule.when_equal else ~equal


def n_to_try(rule: Rule, table: pd.DataFrame) -> int:
    """Number of values that a rule applies to, which each engine must report as evaluated."""
    if rule.kind == "when":
        return int(condition(rule, table).sum())
    if rule.kind in {"not_null", "all_or_none"}:
        return len(table)
    return int(table[rule.column].notna().sum())


def nearest_allowed(rule: Rule, value: object) -> str:
    """The allowed value nearest to one that broke a rule; "" where there is none or none is alike.

    For a list of allowed texts the most similar one, the same but for letter case, blanks and
    Unicode form first; for a range its nearer end.
    """
    if rule.kind == "range" and isinstance(value, int | float):
        end = rule.minimum if rule.minimum is not None and value < rule.minimum else rule.maximum
        return "" if end is None else f"{end:g}"
    if rule.kind != "allowed" or not isinstance(value, str):
        return ""
    levels = [level for level in rule.allowed if isinstance(level, str)]
    same = [level for level in levels if folded(level) == folded(value)]
    return next(iter(same or get_close_matches(value, levels, n=1)), "")


def rule_breaks(rule: Rule, table: pd.DataFrame, rows: Sequence[int]) -> tuple[RuleBreak, ...]:
    """Name the first values that broke a rule, with their images; at most 20.

    Args:
        rule: The rule.
        table: Table that it was tried on; without image_id and row nothing can be named.
        rows: Places in the table, ascending.
    """
    if not {"image_id", "row", rule.column} <= set(table.columns):
        return ()
    return tuple(
        RuleBreak(
            image_id=examples([table["image_id"].iloc[place]])[0],
            row=int(table["row"].iloc[place]),
            value=examples([value])[0],
            nearest=nearest_allowed(rule, value),
        )
        for place in rows[:MAX_BREAKS]
        for value in [table[rule.column].iloc[place]]
    )


def examples(values: Sequence[object]) -> tuple[str, ...]:
    """The first offending values, fit for a report: at most 5, short, control characters escaped."""
    texts = []
    for value in values[:MAX_EXAMPLES]:
        is_empty = value is None or value != value or str(value) == "<NA>"
        text = "(empty)" if is_empty else str(value)[: _MAX_EXAMPLE_CHARACTERS + 1]
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
        )
        if len(text) > _MAX_EXAMPLE_CHARACTERS:
            text = text[: _MAX_EXAMPLE_CHARACTERS - 1] + "…"
        texts.append(text)
    return tuple(texts)
