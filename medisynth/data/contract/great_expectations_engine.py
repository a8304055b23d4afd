"""Rules of the data contract as a Great Expectations suite, run in memory and off the network."""

import contextlib
import importlib
import json
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from governance.records.dataset import RuleResult
from medisynth.data.contract.records import MAX_EXAMPLES, Rule, examples, n_to_try

_DRAWN_EACH_RUN = frozenset(
    {"id", "validation_id", "run_id", "validation_time", "ge_load_time", "exception_traceback"}
)
_TYPES = {
    "text": ["str"],
    "integer": ["int", "int64", "int32", "int16", "uint8", "Int64", "Int32"],
    "real": ["float", "float64", "float32", "Float64", "int", "int64", "int32", "Int64"],
    "boolean": ["bool", "boolean"],
}


def import_engine() -> None:
    """Import the engine, which takes seconds; see `contract.warm_up`."""
    importlib.import_module("great_expectations")
    importlib.import_module("great_expectations.expectations")
    importlib.import_module("great_expectations.expectations.row_conditions")


def run_rules(
    table: pd.DataFrame, rules: Sequence[Rule]
) -> tuple[list[RuleResult], dict[str, Any]]:
    """Try rules on a table that has every column they need.

    Args:
        table: Image table with text as plain strings and None.
        rules: Rules to try.

    Returns:
        One outcome a rule, in order, and the engine's own result as a JSON object.

    Raises:
        RuntimeError: An expectation broke instead of giving a verdict, tried other values than the
            table has, or the engine reports another worst failure than its expectations do.
    """
    with _quiet():
        suite_result = _validate(table, rules)
        worst = suite_result.get_max_severity_failure()
        native = suite_result.to_json_dict()
    results = {
        item.expectation_config.meta["rule"]: item
        for item in suite_result.results
        if item.expectation_config is not None
    }
    missing = [rule.name for rule in rules if rule.name not in results]
    if missing:
        raise RuntimeError(f"Great Expectations gave no result for {', '.join(missing)}")
    outcomes = [_outcome(rule, results[rule.name], table) for rule in rules]
    _check_worst(outcomes, None if worst is None else worst.value)
    return outcomes, native


def _check_worst(outcomes: Sequence[RuleResult], worst: str | None) -> None:
    """Check the outcomes against the worst failure that the engine itself reports."""
    failed = {outcome.severity for outcome in outcomes if not outcome.passed}
    ours = next((s for s in ("critical", "warning", "info") if s in failed), None)
    if ours != worst:
        raise RuntimeError(
            f"Great Expectations calls its worst failure {worst}, its expectations say {ours}; "
            "this is a fault of the engine or of medisynth, not of the data"
        )


def native_json(native: Sequence[dict[str, Any]], outcomes: Sequence[RuleResult]) -> bytes:
    """Encode the engine's own results as JSON that is equal for equal tables and contracts.

    Args:
        native: Results of `run_rules`, in order.
        outcomes: Outcomes of all rules; those that were not tried are listed with the reason.
    """
    validations = [_stable(result) for result in native]
    tried = {
        result["expectation_config"]["meta"]["rule"]
        for validation in validations
        for result in validation["results"]
    }
    document = {
        "note": "Results of Great Expectations as it gives them, without the identifiers and times "
        "that it draws for each run; values are at most 5 an expectation and 80 characters each.",
        "validations": validations,
        "not_tried": [
            {"rule": o.rule, "severity": o.severity, "passed": o.passed, "reason": o.reason}
            for o in outcomes
            if o.rule not in tried
        ],
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _stable(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {
            name: _stable(item, name) for name, item in value.items() if name not in _DRAWN_EACH_RUN
        }
    if isinstance(value, list):
        few = value[:MAX_EXAMPLES] if key.startswith("partial_") else value
        return [_stable(item, key) for item in few]
    if isinstance(value, str) and (key == "value" or key.startswith("partial_")):
        return examples([value])[0]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence analytics, progress bars and logging; restore everything afterwards.

    Warnings are silenced too: Great Expectations imports modules that Python 3.11 deprecates,
    which says nothing about the data.
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


def _validate(table: pd.DataFrame, rules: Sequence[Rule]) -> Any:
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
    return context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": table},
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_EXAMPLES},
    )


def _expectation(rule: Rule) -> Any:
    from great_expectations.expectations.row_conditions import Column

    # its expectations are re-exported without saying so, which a strict type check refuses
    gxe: Any = importlib.import_module("great_expectations.expectations")
    meta = {"rule": rule.name, "severity": rule.severity, "reason": rule.reason}
    common: dict[str, Any] = {"meta": meta, "severity": rule.severity}
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


def _outcome(rule: Rule, item: Any, table: pd.DataFrame) -> RuleResult:
    result, passed = item.result or {}, bool(item.success)
    values: tuple[str, ...] = ()
    # A broken expectation also says `success: false`; only its exception tells the two apart.
    if _broke(item.exception_info) or (not result and rule.kind != "exists"):
        raise RuntimeError(
            f"Great Expectations gave no verdict on {rule.name} but broke; this is a fault of the "
            f"contract or of the engine, not of the data: {_message(item.exception_info)}"
        )
    if "element_count" in result and rule.kind != "dtype":
        n_evaluated = int(result["element_count"]) - int(result.get("missing_count") or 0)
        n_unexpected = int(result["unexpected_count"])
        values = examples(result.get("partial_unexpected_list") or [])
        n_expected = n_to_try(rule, table)
        if n_evaluated != n_expected or passed != (n_unexpected == 0):
            raise RuntimeError(
                f"Great Expectations tried {rule.name} on {n_evaluated:,} values and found "
                f"{n_unexpected:,} unexpected (success: {passed}), but the table has "
                f"{n_expected:,}; this is a fault of the engine or of medisynth, not of the data"
            )
    else:  # about the column or the table itself
        n_evaluated, n_unexpected = 1, int(not passed)
    return RuleResult(
        engine="great_expectations",
        rule=rule.name,
        column=rule.column,
        severity=rule.severity,
        passed=passed,
        n_evaluated=n_evaluated,
        n_unexpected=n_unexpected,
        reason=rule.reason,
        examples=values,
    )


def _broke(info: dict[str, Any] | None) -> bool:
    """Whether an expectation raised an exception; its record is flat, or nested by metric."""
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
