"""The coverage document: written by the audit, and again by the split with partitions."""

import pandas as pd

from governance.evidence.documents import CoverageAudit, CoverageLevel
from governance.evidence.store import EvidenceStore
from medisynth.data.coverage import ATTRIBUTES, completeness, coverage


def write_coverage(
    table: pd.DataFrame,
    partition: "pd.Series[str] | None",
    store: EvidenceStore,
) -> None:
    """Write data/coverage.json: patients and images of every attribute level, by partition."""
    levels = tuple(
        CoverageLevel(
            attribute=row.attribute,
            level=row.level,
            partition=row.partition,
            n_patients=row.n_patients,
            n_images=row.n_images,
        )
        for row in coverage(table, partition)
    )
    complete = completeness(table, ATTRIBUTES)
    audit = CoverageAudit(attributes=tuple(complete), levels=levels, completeness=complete)
    store.write_document("data/coverage.json", audit)
