"""Writes the documents of the data set audit, once the split is known or was refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from governance.evidence.store import EvidenceStore
from governance.records.audit import (
    AttributeShift,
    CoverageAudit,
    DatasetAudit,
    DemographicCell,
    LabelAudit,
)
from governance.records.base import TRAINING
from governance.records.duplicates import DuplicateAudit, DuplicatePair
from medisynth.data.audit.confounding import confounding
from medisynth.data.audit.coverage import ATTRIBUTES, completeness, concentration, coverage
from medisynth.data.audit.demographics import declared_shifts, demographics_audit
from medisynth.data.audit.labels import audit_labels
from medisynth.data.audit.quality import image_quality
from medisynth.data.audit.shift import shifts
from medisynth.data.audit.target_population import load_target_population
from medisynth.data.duplicates.exact import in_partitions
from pipelines.current_run.context import AuditedImages, ImageSet, ListedData, RunContext

LABELS = "labels"  # key in audit.reviewed for the review of suspected labels


def write_coverage(
    table: pd.DataFrame, partition: "pd.Series[str] | None", store: EvidenceStore
) -> None:
    """Write data/coverage.json: patients and images of every attribute level, by partition."""
    complete = completeness(table, ATTRIBUTES)
    audit = CoverageAudit(
        attributes=tuple(complete), levels=coverage(table, partition), completeness=complete
    )
    store.write_document(audit)


def write_demographics(
    images: ImageSet, partition: "pd.Series[str] | None", context: RunContext
) -> tuple[DemographicCell, ...]:
    """Write data/demographics.json from the columns that the contract declares; return its cells.

    Raises:
        SettingsError: The target population cannot be read.
    """
    config = context.config.audit
    named = config.target_population
    file = images.info.target_population if named is None else Path(named).expanduser()
    target = None if file is None else load_target_population(file)
    rows = images.table.index if partition is None else partition.index
    places = images.table.index.get_indexer(rows)
    audit = demographics_audit(
        images.table.iloc[places],
        images.metadata.iloc[places],
        images.contract.demographics,
        partition,
        smallest_cell=config.smallest_cell,
        target=target,
        n_resamples=config.n_resamples,
        seed=context.config.seed,
    )
    context.store.write_document(audit)
    return audit.cells


def _shifts(
    images: ImageSet,
    partition: "pd.Series[str]",
    cells: Sequence[DemographicCell],
    context: RunContext,
) -> tuple[AttributeShift, ...]:
    """Compute shifts of the image table's attributes, then of those that the contract declares."""
    table = images.table.loc[partition.index]
    metadata = images.metadata.iloc[images.table.index.get_indexer(partition.index)]
    n_resamples, seed = context.config.audit.n_resamples, context.config.seed
    return shifts(table, partition, n_resamples=n_resamples, seed=seed) + declared_shifts(
        table,
        metadata,
        images.contract.demographics,
        partition,
        cells,
        smallest_cell=context.config.audit.smallest_cell,
        n_resamples=n_resamples,
        seed=seed,
    )


def audit_listing(listed: ListedData, context: RunContext) -> None:
    """Audit the metadata file with its official partitions; reads no image.

    Steps that read images later write the same documents again, for the selected images.
    """
    table, config = listed.listing.table, context.config.audit
    official = table["official_partition"]
    partition = official[official.notna()] if official.notna().any() else None
    write_coverage(table, partition, context.store)
    seed, n_resamples = context.config.seed, config.n_resamples
    found: tuple[AttributeShift, ...] = ()
    if partition is not None:
        listed_in = table.loc[partition.index]
        found = shifts(listed_in, partition, n_resamples=n_resamples, seed=seed)
    audit = DatasetAudit(
        concentration=concentration(table),
        confounding=confounding(table, n_resamples=n_resamples, seed=seed),
        quality=(),
        shifts=found,
        n_resamples=n_resamples,
        seed=seed,
    )
    context.store.write_document(audit)


def write_audits(
    images: ImageSet,
    audited: AuditedImages,
    partition: "pd.Series[str] | None",
    context: RunContext,
) -> None:
    """Write the audits of the images, each document once.

    Args:
        images: Every selected image.
        audited: Findings of the audit step.
        partition: Partition of each image in use; None when the images were not divided: then there
            are no results by partition and no search for suspected labels.
        context: Configuration, store and console of the run.
    """
    store = context.store
    cells = write_demographics(images, partition, context)
    if partition is None:
        write_coverage(images.table, None, store)
        store.write_document(audited.audit)
        store.write_document(audited.duplicates)
        return
    table = images.table.loc[partition.index]
    write_coverage(table, partition, store)
    found = {
        "shifts": _shifts(images, partition, cells, context),
        "quality": image_quality(table, partition),
    }
    store.write_document(audited.audit.model_copy(update=found))
    store.write_document(_with_partitions(audited, images, partition))
    store.write_document(_labels(images, partition, context))


def _with_partitions(
    audited: AuditedImages, images: ImageSet, partition: "pd.Series[str]"
) -> DuplicateAudit:
    """Return the duplicate audit with this run's partitions instead of the official ones."""
    names = images.table["image_id"].reindex(partition.index).astype(str)
    part = dict(zip(names, partition.astype(str), strict=True))
    pairs = in_partitions(audited.duplicates.pairs, part)
    n = n_across(audited.pairs, part)  # over all pairs: the record lists only the first ones
    return audited.duplicates.model_copy(update={"pairs": pairs, "n_pairs_across_partitions": n})


def n_across(pairs: Sequence[DuplicatePair], partition: Mapping[str, str]) -> int:
    """Count the pairs whose images are in two known, different partitions.

    Args:
        pairs: Pairs.
        partition: Image id -> partition, where it is known.
    """
    sides = [(partition.get(pair.left_id), partition.get(pair.right_id)) for pair in pairs]
    return sum(bool(left and right and left != right) for left, right in sides)


def _labels(images: ImageSet, partition: "pd.Series[str]", context: RunContext) -> LabelAudit:
    rows = images.table.index.get_indexer(partition.index[partition == TRAINING])
    audit = audit_labels(
        images.table.iloc[rows].reset_index(drop=True),
        images.thumbnails[rows],
        seed=context.config.seed,
        progress=lambda done, total: context.console.progress("auditing labels", done, total),
    )
    review = context.config.audit.reviews().get(LABELS, "")
    return audit.model_copy(update={"reviewed": review})
