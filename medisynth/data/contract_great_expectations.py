"""Rules of the data contract as a Great Expectations suite, run in memory and off the network."""

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from medisynth.data.contract import Rule, RuleOutcome, examples

_TYPES = {
    "text": ["str"],
    "integer": ["int", "int64", "int32", "int16", "uint8", "Int64", "Int32"],
    "real": ["float", "float64", "float32", "Float64", "int", "int64", "int32", "Int64"],
    "boolean": ["bool", "boolean"],
}


def run_rules(table: pd.DataFrame, rules: Sequence[Rule]) -> list[RuleOutcome]:
    """Try rules on a table whose columns are there wherever a rule needs them.

    Args:
        table: Image table with text as plain strings and None.
        rules: Rules to try.

    Returns:
        One outcome a rule, in order.

    Raises:
        RuntimeError: An expectation broke instead of giving a verdict.
    """
    with _quiet():
        results = {result["meta"]["rule"]: result for result in _validate(table, rules)}
    return [_outcome(rule, results[rule.name]) for rule in rules]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No analytics, no progress bars, no chatter; everything is put back afterwards.

    Great Expectations imports modules that Python 3.11 calls deprecated, which is its makers' to
    mend and no finding about the data.
    """
    logger, silence = logging.getLogger("great_expectations"), logging.NullHandler()
    propagate, analytics = logger.propagate, os.environ.get("GX_ANALYTICS_ENABLED")
    logger.propagate = False  # its modules set their own levels, so a level here would not do
    logger.addHandler(silence)
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import by versions that have analytics
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(silence)
        if analytics is None:
            del os.environ["GX_ANALYTICS_ENABLED"]
        else:
            os.environ["GX_ANALYTICS_ENABLED"] = analytics


def _validate(table: pd.DataFrame, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        ),
    )
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset("images")
    definition = gx.ValidationDefinition(
        name="image table",
        data=asset.add_batch_definition_whole_dataframe("all images"),
        suite=context.suites.add(
            gx.ExpectationSuite(
                name="image table", expectations=[_expectation(rule) for rule in rules]
            )
        ),
    )
    result = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": table},
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": 5},
    )
    return [
        {
            "meta": item.expectation_config.meta,
            "success": bool(item.success),
            "result": item.result,
            "exception": item.exception_info,
        }
        for item in result.results
        if item.expectation_config is not None
    ]


def _expectation(rule: Rule) -> Any:
    from great_expectations.expectations.row_conditions import Column

    # its expectations are re-exported without saying so, which a strict type check refuses
    gxe: Any = importlib.import_module("great_expectations.expectations")
    common: dict[str, Any] = {"meta": {"rule": rule.name}, "severity": rule.severity}
    if rule.kind == "row_count":
        return gxe.ExpectTableRowCountToBeBetween(min_value=rule.minimum, **common)
    common["column"] = rule.column
    match rule.kind:
        case "exists":
            return gxe.ExpectColumnToExist(**common)
        case "dtype":
            return gxe.ExpectColumnValuesToBeInTypeList(type_list=_TYPES[rule.dtype], **common)
        case "not_null" | "all_or_none":
            return gxe.ExpectColumnValuesToNotBeNull(**common)
        case "unique":
            return gxe.ExpectColumnValuesToBeUnique(**common)
        case "pattern":
            return gxe.ExpectColumnValuesToMatchRegex(regex=rule.pattern, **common)
        case "allowed":
            return gxe.ExpectColumnValuesToBeInSet(value_set=list(rule.allowed), **common)
        case "range":
            return gxe.ExpectColumnValuesToBeBetween(
                min_value=rule.minimum, max_value=rule.maximum, **common
            )
    column = Column(rule.when_column)
    common["row_condition"] = (
        column == rule.when_value if rule.when_equal else column != rule.when_value
    )
    if rule.expect_filled:
        return gxe.ExpectColumnValuesToNotBeNull(**common)
    return gxe.ExpectColumnValuesToBeNull(**common)


def _outcome(rule: Rule, item: dict[str, Any]) -> RuleOutcome:
    result = item["result"] or {}
    values: tuple[str, ...] = ()
    # A broken expectation also says `success: false`; only its exception tells the two apart.
    if _broke(item["exception"]) or (not result and rule.kind != "exists"):
        raise RuntimeError(
            f"Great Expectations gave no verdict on {rule.name} but broke; this is a fault of the "
            f"contract or of the engine, not of the data: {_message(item['exception'])}"
        )
    if "element_count" in result and rule.kind != "dtype":
        n_evaluated = int(result["element_count"]) - int(result.get("missing_count") or 0)
        n_unexpected = int(result["unexpected_count"])
        values = examples(result.get("partial_unexpected_list") or [])
    else:  # about the column or the table itself
        n_evaluated, n_unexpected = 1, int(not item["success"])
    return RuleOutcome(
        engine="great_expectations",
        rule=rule.name,
        column=rule.column,
        severity=rule.severity,
        passed=item["success"],
        n_evaluated=n_evaluated,
        n_unexpected=n_unexpected,
        reason=rule.reason,
        examples=values,
    )


def _broke(info: dict[str, Any] | None) -> bool:
    """Whether an exception was raised; the record is flat, or nested once a metric."""
    if not info:
        return False
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(isinstance(one, dict) and one.get("raised_exception") for one in info.values())


def _message(info: dict[str, Any] | None) -> str:
    if not info:
        return "no result"
    nested = [info] if "exception_message" in info else list(info.values())
    return examples([str(one.get("exception_message")) for one in nested if isinstance(one, dict)])[
        0
    ]
