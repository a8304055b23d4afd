"""The data contract: rules from YAML files, checked by pandera and by Great Expectations.

The base file holds for every image table, each adapter may add a file for its data set, and the
user may add one of their own. Both engines get the same rules in the same order and give one
outcome a rule. A rule that cannot be tried, because its column is missing or has the wrong type,
fails with that reason. An engine that breaks raises: a crash is no verdict on the data.
"""

import contextlib
import importlib
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from governance.records.dataset import Engine, RuleResult
from medisynth.data.contract.records import (
    ATTRIBUTE,
    METADATA,
    NUMBER,
    NUMBER_PATTERN,
    AttributeDeclaration,
    DataContract,
    GreatExpectationsResult,
    Kind,
    Rule,
    Step,
)

if TYPE_CHECKING:
    from medisynth.data.contract.file import ContractFile

__all__ = [
    "AttributeDeclaration",
    "DataContract",
    "GreatExpectationsResult",
    "Rule",
    "broken_rules",
    "load_contract",
    "validate_with_great_expectations",
    "validate_with_pandera",
    "warm_up",
    "with_metadata",
]

_STRUCTURE: frozenset[Kind] = frozenset({"exists", "dtype"})
_STEPS = ("s1_ingest", "s2_validate", "s3_audit", "s4_split", "s5_train")

RunRules = Callable[[pd.DataFrame, Sequence[Rule]], list[RuleResult]]


def load_contract(adapter: str | None = None, own: Path | None = None) -> DataContract:
    """Read the contract of a data set.

    Args:
        adapter: Name of the adapter, e.g. "hc18"; None, and an adapter without a contract of its
            own, takes the base that every image table must keep.
        own: The user's own file. It adds rules and tightens; it weakens no critical rule.

    Returns:
        All rules with unique names; a rule that a later file states again replaces the earlier.

    Raises:
        SettingsError: A file is unreadable or too large, has an invalid entry, or weakens a
            critical rule.
    """
    from medisynth.data.contract.file import read_contract
    from medisynth.data.contract.rules import combine

    folder = Path(__file__).with_name("built_in")
    base = folder / "image_table.yaml"
    files = [_packaged(base)]
    named = {path.stem.replace("_", "-"): path for path in sorted(folder.glob("*.yaml"))}
    path = base if adapter is None else named.get(adapter, base)
    if path != base:
        files.append(_packaged(path))
    return combine(files, None if own is None else read_contract(own))


@cache
def _packaged(path: Path) -> "ContractFile":
    """Read a contract of the package, once a process since it does not change."""
    from medisynth.data.contract.file import read_contract

    return read_contract(path)


def with_metadata(
    table: pd.DataFrame, metadata: pd.DataFrame, contract: DataContract
) -> pd.DataFrame:
    """Add to the image table the columns that rules about the metadata file read.

    Args:
        table: Image table.
        metadata: Rows of the metadata file in the same order, every column as text; without
            columns where the adapter does not give it.
        contract: Rules.

    Returns:
        The table, index 0 to n - 1, with a column "metadata.<name>" (text, an empty cell is
        missing), "number.<name>" (float64, missing where the text is no number) or
        "attribute.<name>" (text) for each that a rule reads and that is there.

    Raises:
        ValueError: The two have different numbers of rows.
    """
    if len(metadata.columns) and len(metadata) != len(table):
        raise ValueError(f"{len(table)} images but {len(metadata)} rows of metadata")
    joined = table.reset_index(drop=True)
    declared = {ATTRIBUTE + one.name: one.column for one in contract.demographics}
    for name in dict.fromkeys(column for rule in contract.rules for column in rule.reads):
        column = None
        if name.startswith(METADATA):
            column = _text(metadata, name.removeprefix(METADATA))
        elif name.startswith(NUMBER):
            column = _text(metadata, name.removeprefix(NUMBER))
            column = None if column is None else _numbers(column)
        elif name in declared:
            source = metadata if declared[name] in metadata else table
            column = _text(source, declared[name])
        if column is not None:
            joined[name] = column
    return joined


def _text(table: pd.DataFrame, name: str) -> pd.Series | None:
    if name not in table:
        return None
    column = table[name].reset_index(drop=True)
    text = column.astype("string")
    return text.mask(text.eq("") | column.isna(), pd.NA)


def _numbers(text: pd.Series) -> pd.Series:
    plain = text.str.fullmatch(NUMBER_PATTERN).fillna(False).astype(bool)
    return pd.to_numeric(text.where(plain, pd.NA), errors="coerce").astype("float64")


def validate_with_pandera(table: pd.DataFrame, contract: DataContract) -> tuple[RuleResult, ...]:
    """Try every rule of a contract with pandera.

    Args:
        table: Image table as the ingest made it, metadata joined by `with_metadata`.
        contract: Rules; those of columns that later steps add are left out.

    Returns:
        One outcome a rule, in the contract's order.

    Raises:
        pandera.errors.BackendNotFoundError: pandera cannot handle the table at all.
        RuntimeError: A check broke instead of giving a verdict.
    """
    from medisynth.data.contract.pandera_engine import run_rules

    return _validate(table, _rules_at("s1_ingest", contract), "pandera", run_rules)


def validate_with_great_expectations(
    table: pd.DataFrame, contract: DataContract
) -> GreatExpectationsResult:
    """Try every rule of a contract with Great Expectations; takes seconds to import.

    Args:
        table: Image table as the ingest made it, metadata joined by `with_metadata`.
        contract: Rules; those of columns that later steps add are left out.

    Returns:
        One outcome a rule, in the contract's order, and the engine's own results.

    Raises:
        RuntimeError: An expectation broke instead of giving a verdict, or its verdicts contradict
            each other. That is a fault of the contract or the engine, and no verdict on the data.
    """
    from medisynth.data.contract.great_expectations_engine import native_json, run_rules

    native: list[dict[str, Any]] = []

    def run(rows: pd.DataFrame, rules: Sequence[Rule]) -> list[RuleResult]:
        outcomes, result = run_rules(rows, rules)
        native.append(result)
        return outcomes

    rules = _rules_at("s1_ingest", contract)
    outcomes = _validate(table, rules, "great_expectations", run)
    return GreatExpectationsResult(outcomes, native_json(native, outcomes))


def broken_rules(table: pd.DataFrame, contract: DataContract, *, added_by: Step) -> tuple[str, ...]:
    """Try, with pandera, the critical rules of columns that a later step adds to the image table.

    Args:
        table: Image table with these columns.
        contract: Rules.
        added_by: "s3_audit" or "s4_split".

    Returns:
        Names of the rules that do not hold.

    Raises:
        RuntimeError: A check broke instead of giving a verdict.
    """
    from medisynth.data.contract.pandera_engine import run_rules

    rules = [
        rule
        for rule in contract.rules
        if rule.since == added_by and rule.severity == "critical" and not rule.is_about_metadata
    ]
    outcomes = _validate(table, rules, "pandera", run_rules)
    return tuple(outcome.rule for outcome in outcomes if not outcome.passed)


def warm_up() -> threading.Thread:
    """Import the engines in the background, as Great Expectations takes seconds to import.

    Start it where nothing else is imported meanwhile. A failure is silent: whoever needs the
    engine imports it again and meets the error there.

    Returns:
        The thread, for callers that want to wait.
    """

    def import_engines() -> None:
        with contextlib.suppress(Exception):
            importlib.import_module("medisynth.data.contract.pandera_engine")
            importlib.import_module(
                "medisynth.data.contract.great_expectations_engine"
            ).import_engine()

    thread = threading.Thread(target=import_engines, name="import engines", daemon=True)
    thread.start()
    return thread


def _rules_at(step: str, contract: DataContract) -> list[Rule]:
    """Return the rules whose columns exist once a step is done."""
    done = _STEPS.index(step)
    return [rule for rule in contract.rules if _STEPS.index(rule.since) <= done]


def _validate(
    table: pd.DataFrame, rules: Sequence[Rule], engine: Engine, run_rules: RunRules
) -> tuple[RuleResult, ...]:
    """Try structure rules, then value rules where the structure holds; return all outcomes."""
    plain = _plain(table, rules)
    outcomes: dict[str, RuleResult] = {}

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

    settle([rule for rule in rules if rule.kind in _STRUCTURE])
    settle([rule for rule in rules if rule.kind not in _STRUCTURE])
    missing = [rule.name for rule in rules if rule.name not in outcomes]
    if missing:
        raise RuntimeError(f"{engine} gave no outcome for {', '.join(missing)}")
    return tuple(outcomes[rule.name] for rule in rules)


def _plain(table: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """Return the columns that the rules read, text as plain strings and None, for both engines."""
    columns: dict[str, pd.Series] = {}
    for name in dict.fromkeys(column for rule in rules for column in rule.reads):
        if name not in table:
            continue
        column = table[name].reset_index(drop=True)
        if pd.api.types.is_string_dtype(column.dtype) or column.dtype == object:
            text = column.astype(object)
            column = text.where(text.notna(), None)
        columns[name] = column
    for rule in rules:
        if rule.parts and all(part in columns for part in rule.parts):
            columns[rule.column] = _together([columns[part] for part in rule.parts])
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)))


def _together(columns: Sequence[pd.Series]) -> pd.Series:
    """Join the values of several columns by blanks; missing where one of them is."""
    is_whole = np.logical_and.reduce([column.notna().to_numpy() for column in columns])
    texts = zip(*(column.astype(str) for column in columns), strict=True)
    values = [" ".join(row) if whole else None for whole, row in zip(is_whole, texts, strict=True)]
    return pd.Series(values, dtype=object)


def _settled(
    rule: Rule, table: pd.DataFrame, outcomes: dict[str, RuleResult], engine: Engine
) -> RuleResult | None:
    """Return the outcome of a rule that needs no engine, or None where an engine must try it."""
    nothing = RuleResult(
        engine=engine,
        rule=rule.name,
        column=rule.column,
        severity=rule.severity,
        passed=True,
        n_evaluated=0,
        n_unexpected=0,
        reason="",
    )
    if rule.kind == "row_count":
        return None
    if rule.is_optional and rule.column not in table:
        return nothing.model_copy(update={"reason": f"column {rule.column} is not recorded"})
    obstacle = _obstacle(rule, table, outcomes)
    if obstacle:
        return nothing.model_copy(update={"passed": False, "reason": obstacle})
    if rule.if_recorded and not table[rule.column].notna().any():
        reason = f"{rule.column} is not recorded for any image"
        return nothing.model_copy(update={"reason": reason})
    return None


def _obstacle(rule: Rule, table: pd.DataFrame, outcomes: dict[str, RuleResult]) -> str:
    """Why a rule cannot be tried, given the outcomes of structure rules; empty if it can."""
    if rule.kind == "exists":
        return ""
    for column in rule.reads:
        if column not in table:
            return f"column {column} is missing"
        dtype = outcomes.get(f"{column}_dtype")
        if dtype is not None and not dtype.passed:
            return f"column {column} has the wrong type"
    return ""
