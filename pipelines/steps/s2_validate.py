"""s2 validate: one data contract, judged by pandera and by Great Expectations."""

from collections.abc import Sequence
from importlib.metadata import version

from governance.records.dataset import RuleResult, ValidationRecord
from governance.records.errors import DataError
from medisynth.data.contract.contract import (
    validate_with_great_expectations,
    validate_with_pandera,
    with_metadata,
)
from pipelines.current_run.context import ImageSet, RunContext
from pipelines.steps import boundaries

NATIVE_RESULTS = "data/great_expectations.json"


def run(images: ImageSet, context: RunContext) -> ImageSet:
    """Check the image table; return it unchanged when no critical rule failed.

    Raises:
        DataError: The images are not those on record, or a critical rule of the contract failed
            in either engine.
        RuntimeError: An engine failed, so there is no verdict on the data.
    """
    boundaries.images_ingested(images, context)
    contract = images.contract
    rows = with_metadata(images.table, images.metadata, contract)
    outcomes = list(validate_with_pandera(rows, contract))
    context.console.progress("validating", 1, 2)
    expectations = validate_with_great_expectations(rows, contract)
    outcomes += expectations.outcomes
    context.console.progress("validating", 2, 2)
    context.store.write_bytes(NATIVE_RESULTS, expectations.native_json)
    record = ValidationRecord(
        contract=contract.name,
        contract_version=str(contract.version),
        contract_files=contract.files,
        n_rows=len(images.table),
        engine_versions={
            "pandera": version("pandera"),
            "great_expectations": version("great-expectations"),
        },
        rules=tuple(outcomes),
        native_results=NATIVE_RESULTS,
    )
    context.store.write_document(record)
    _refuse_broken(outcomes)
    return images


def _refuse_broken(outcomes: Sequence[RuleResult]) -> None:
    """Raise DataError about the first failed critical rule, with the number of all of them."""
    broken = [o for o in outcomes if o.severity == "critical" and not o.passed]
    if not broken:
        return
    first = broken[0]
    place = f"on column {first.column!r}" if first.column else "on the table"
    examples = f" ({', '.join(first.examples)})" if first.examples else ""
    n_broken = len({outcome.rule for outcome in broken})
    raise DataError(
        f"image table: rule {first.rule!r} {place} failed for {first.n_unexpected:,} of "
        f"{first.n_evaluated:,} values{examples}; {first.reason.rstrip('.')}; "
        f"{n_broken:,} critical rule{'s' if n_broken > 1 else ''} failed in all, see "
        "data/validation.json of the run, and mend the data or the contract",
        code="D070",
    )
