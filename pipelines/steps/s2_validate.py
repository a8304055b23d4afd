"""s2 validate: one data contract, judged by pandera and by Great Expectations."""

from collections.abc import Sequence
from importlib.metadata import version

from governance.records.dataset import RuleResult, ValidationRecord
from governance.records.errors import DataError, Finding
from medisynth.data.contract.contract import (
    validate_with_great_expectations,
    validate_with_pandera,
    with_metadata,
)
from pipelines.current_run.context import ImageSet, RunContext
from pipelines.steps import boundaries

_WARNED = 5  # images named in a warning; 20 stand in the record
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
    _tell_broken(outcomes, context)
    _refuse_broken(outcomes, images.metadata_file)
    return images


def _tell_broken(outcomes: Sequence[RuleResult], context: RunContext) -> None:
    """Warn of each broken rule that does not stop the run, with the first images."""
    for outcome in outcomes:
        if outcome.passed or outcome.severity == "critical" or not outcome.breaks:
            continue
        named = "; ".join(one.sentence for one in outcome.breaks[:_WARNED])
        more = outcome.n_unexpected - min(len(outcome.breaks), _WARNED)
        context.console.warn(
            f"data contract, {outcome.severity}: {outcome.rule}, {outcome.n_unexpected:,} of "
            f"{outcome.n_evaluated:,} values: {named}{f'; and {more:,} more' if more else ''}"
        )


def _refuse_broken(outcomes: Sequence[RuleResult], metadata_file: str) -> None:
    """Raise DataError about the first failed critical rule; findings name the images of all."""
    broken = [o for o in outcomes if o.severity == "critical" and not o.passed]
    if not broken:
        return
    first = broken[0]
    place = f"on column {first.column!r}" if first.column else "on the table"
    examples = f" ({', '.join(first.examples)})" if first.examples else ""
    if first.breaks:
        examples = f" (first: {first.breaks[0].sentence})"
    n_broken = len({outcome.rule for outcome in broken})
    raise DataError(
        f"image table: rule {first.rule!r} {place} failed for {first.n_unexpected:,} of "
        f"{first.n_evaluated:,} values{examples}; {first.reason.rstrip('.')}; "
        f"{n_broken:,} critical rule{'s' if n_broken > 1 else ''} failed in all, see "
        "data/validation.json of the run, and mend the data or the contract",
        code="D070",
        findings=[finding for outcome in broken for finding in _findings(outcome, metadata_file)],
    )


def _findings(outcome: RuleResult, metadata_file: str) -> list[Finding]:
    """Return one finding for each named value that broke a rule."""
    return [
        Finding(
            "D070",
            metadata_file,
            f"{one.image_id}: {one.value}"
            f"{f', nearest allowed {one.nearest}' if one.nearest else ''}; rule {outcome.rule}: "
            f"{outcome.reason.rstrip('.')}",
            one.row,
            outcome.column,
        )
        for one in outcome.breaks
    ]
