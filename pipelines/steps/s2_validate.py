"""s2 validate: one data contract, judged by pandera and by Great Expectations."""

from importlib.metadata import version

from governance.evidence.documents import RuleResult, ValidationRecord
from medisynth.data.contract import (
    RuleOutcome,
    load_contract,
    validate_with_great_expectations,
    validate_with_pandera,
)
from medisynth.errors import DataError
from pipelines.context import ImageSet, RunContext


def run(images: ImageSet, context: RunContext) -> ImageSet:
    """Check the image table; return it unchanged when no critical rule failed.

    Raises:
        DataError: A critical rule of the contract failed in either engine.
    """
    contract = load_contract()
    outcomes = list(validate_with_pandera(images.table, contract))
    context.console.progress("validating", 1, 2)
    outcomes += validate_with_great_expectations(images.table, contract)
    context.console.progress("validating", 2, 2)
    record = ValidationRecord(
        contract=contract.name,
        contract_version=str(contract.version),
        n_rows=len(images.table),
        engine_versions={
            "pandera": version("pandera"),
            "great_expectations": version("great-expectations"),
        },
        rules=tuple(_rule_result(outcome) for outcome in outcomes),
    )
    context.store.write_document("data/validation.json", record)
    broken = [o for o in outcomes if o.severity == "critical" and not o.passed]
    if broken:
        first = broken[0]
        examples = ", ".join(first.examples)
        raise DataError(
            f"image table: rule {first.rule!r} on column {first.column!r} failed for "
            f"{first.n_unexpected:,} of {first.n_evaluated:,} rows ({examples}); {first.reason}; "
            f"{len({o.rule for o in broken})} critical rules failed in all",
            code="D070",
        )
    return images


def _rule_result(outcome: RuleOutcome) -> RuleResult:
    return RuleResult(
        engine=outcome.engine,
        rule=outcome.rule,
        column=outcome.column,
        severity=outcome.severity,
        passed=outcome.passed,
        n_evaluated=outcome.n_evaluated,
        n_unexpected=outcome.n_unexpected,
        reason=outcome.reason,
        examples=outcome.examples,
    )
