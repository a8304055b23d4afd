"""Rules of the data contract as a pandera schema."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from governance.records.dataset import RuleResult
from medisynth.data.contract.records import Rule, condition, examples, n_to_try, rule_breaks

# pandera has these three as properties of a column and reports them by a code, not by a name.
_BUILT_IN = {
    SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME: ("exists",),
    SchemaErrorReason.SERIES_CONTAINS_NULLS: ("not_null", "all_or_none"),
    SchemaErrorReason.SERIES_CONTAINS_DUPLICATES: ("unique",),
}


def run_rules(table: pd.DataFrame, rules: Sequence[Rule]) -> list[RuleResult]:
    """Try rules on a table that has every column they need.

    Args:
        table: Image table with text as plain strings and None.
        rules: Rules to try.

    Returns:
        One outcome a rule, in order.

    Raises:
        RuntimeError: A check broke instead of giving a verdict.
    """
    errors: dict[str, SchemaError] = {}
    try:
        _schema(rules).validate(table, lazy=True)
    except SchemaErrors as found:
        for error in found.schema_errors:
            errors[_rule_of(error, rules).name] = error
    return [_outcome(rule, table, errors.get(rule.name)) for rule in rules]


def _schema(rules: Sequence[Rule]) -> pa.DataFrameSchema:
    by_column: dict[str, list[Rule]] = {}
    table_checks = []
    for rule in rules:
        if rule.kind in {"row_count", "when"}:
            table_checks.append(_table_check(rule))
        else:
            by_column.setdefault(rule.column, []).append(rule)
    columns = {}
    for name, own in by_column.items():
        kinds = {rule.kind for rule in own}
        columns[name] = pa.Column(
            dtype=None,
            checks=[check for rule in own if (check := _column_check(rule)) is not None],
            nullable=not kinds & {"not_null", "all_or_none"},
            unique="unique" in kinds,
            required="exists" in kinds,
        )
    return pa.DataFrameSchema(columns, checks=table_checks)


def _column_check(rule: Rule) -> pa.Check | None:
    common: dict[str, Any] = {"name": rule.name, "error": rule.name}
    if rule.kind == "dtype":
        return pa.Check(lambda column: _has_dtype(column, rule.dtype), ignore_na=False, **common)
    if rule.kind == "pattern":
        return pa.Check.str_matches(rule.pattern, **common)
    if rule.kind == "allowed":
        return pa.Check.isin(list(rule.allowed), **common)
    if rule.kind == "range":
        minimum = float("-inf") if rule.minimum is None else rule.minimum
        maximum = float("inf") if rule.maximum is None else rule.maximum
        return pa.Check.in_range(minimum, maximum, **common)
    return None  # exists, not_null, all_or_none and unique are properties of the column


def _table_check(rule: Rule) -> pa.Check:
    if rule.kind == "row_count":
        minimum = rule.minimum or 0
        return pa.Check(lambda table: len(table) >= minimum, name=rule.name, error=rule.name)

    def holds(table: pd.DataFrame) -> "pd.Series[bool]":
        filled = table[rule.column].notna()
        return ~condition(rule, table) | (filled if rule.expect_filled else ~filled)

    return pa.Check(holds, name=rule.name, error=rule.name, ignore_na=False)


def _has_dtype(column: pd.Series, dtype: str) -> bool:
    types = pd.api.types
    if dtype == "text":
        return bool(column.map(lambda value: value is None or isinstance(value, str)).all())
    if dtype == "boolean":
        return types.is_bool_dtype(column.dtype)
    if types.is_bool_dtype(column.dtype):
        return False
    if dtype == "integer":
        return types.is_integer_dtype(column.dtype)
    return types.is_numeric_dtype(column.dtype)


def _rule_of(error: SchemaError, rules: Sequence[Rule]) -> Rule:
    kinds = _BUILT_IN.get(error.reason_code) if error.reason_code else None
    if kinds is not None:
        # a missing column is reported by the table, with the column as the failure case
        column = str(error.failure_cases) if kinds == ("exists",) else error.schema.name
        found = [rule for rule in rules if rule.kind in kinds and rule.column == column]
    elif error.reason_code is SchemaErrorReason.DATAFRAME_CHECK:
        found = [rule for rule in rules if rule.name == getattr(error.check, "name", None)]
    else:
        found = []
    if len(found) != 1:
        raise RuntimeError(
            f"pandera gave no verdict but broke ({error.reason_code}); this is a fault of the "
            "contract or of pandera, not of the data"
        ) from error
    return found[0]


def _outcome(rule: Rule, table: pd.DataFrame, error: SchemaError | None) -> RuleResult:
    rows: list[int] = []
    if rule.kind in {"row_count", "exists", "dtype"}:
        n_evaluated, n_unexpected = 1, int(error is not None)
    else:
        n_evaluated = n_to_try(rule, table)
        rows = [] if error is None else sorted(set(error.failure_cases["index"]))
        n_unexpected = len(rows)
    return RuleResult(
        engine="pandera",
        rule=rule.name,
        column=rule.column,
        severity=rule.severity,
        passed=error is None,
        n_evaluated=n_evaluated,
        n_unexpected=n_unexpected,
        reason=rule.reason,
        examples=examples(table[rule.column].loc[rows].tolist()) if rows else (),
        breaks=rule_breaks(rule, table, rows),
    )
