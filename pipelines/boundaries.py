"""The data contract at the step boundaries: what one step hands to the next is what it may be."""

from dataclasses import asdict

import pandas as pd

from governance.evidence.documents import BoundaryCheck, BoundaryChecks
from medisynth.data.contract import DataContract, check_boundary
from medisynth.errors import DataError
from pipelines.context import RunContext

BOUNDARIES = "data/boundaries.json"


def hand_over(
    table: pd.DataFrame, contract: DataContract, boundary: str, context: RunContext
) -> None:
    """Try the contract on a table that one step hands to the next, and put the result on record.

    Args:
        table: Image table with the columns that the steps so far have added.
        contract: Contract of the data set.
        boundary: E.g. "s3_audit to s4_split".
        context: What every step may use.

    Raises:
        DataError: A critical rule does not hold.
    """
    found = BoundaryCheck.model_validate(asdict(check_boundary(table, contract, boundary)))
    path = context.store.run_dir / BOUNDARIES
    before = BoundaryChecks.model_validate_json(path.read_bytes()).checks if path.exists() else ()
    context.store.write_document(BOUNDARIES, BoundaryChecks(checks=(*before, found)))
    if found.failed:
        raise DataError(
            f"image table, {boundary}: {len(found.failed):,} critical rules of the contract "
            f"{contract.name} do not hold ({', '.join(found.failed[:5])}); "
            "this is a fault of the step before or of an adapter, please report it",
            code="D071",
        )
