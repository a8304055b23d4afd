"""s3 audit: who is in the data, and which images occur twice."""

from governance.evidence.documents import DuplicateAudit, DuplicatePair
from medisynth.data.duplicates import exact_pairs, leakage_groups
from pipelines.context import AuditedImages, ImageSet, RunContext
from pipelines.coverage import write_coverage

_MAX_PAIRS = 1000


def run(images: ImageSet, context: RunContext) -> AuditedImages:
    """Count patients and images by attribute, and find exact duplicates.

    A duplicate is no error here: it joins its images' patients into one group, which the split
    never divides.
    """
    write_coverage(images.table, None, context.store)
    pairs = exact_pairs(images.table)
    groups = leakage_groups(images.table, pairs)
    official = dict(zip(images.table["image_id"], images.table["official_partition"], strict=True))
    records = tuple(
        DuplicatePair(
            kind=pair.kind,
            left_id=pair.left_id,
            left_patient=pair.left_patient,
            left_partition=_text(official[pair.left_id]),
            right_id=pair.right_id,
            right_patient=pair.right_patient,
            right_partition=_text(official[pair.right_id]),
        )
        for pair in pairs
    )
    audit = DuplicateAudit(
        method="SHA-256 of the file and of the decoded pixels; near-duplicates are not searched",
        n_images=len(images.table),
        n_pairs=len(records),
        n_pairs_across_patients=sum(p.left_patient != p.right_patient for p in records),
        n_pairs_across_partitions=sum(
            p.left_partition != p.right_partition
            for p in records
            if p.left_partition and p.right_partition
        ),
        pairs=records[:_MAX_PAIRS],
    )
    context.store.write_document("data/duplicates.json", audit)
    if pairs:
        across = audit.n_pairs_across_patients
        context.console.warn(
            f"identical images: {len(pairs):,} {'pair' if len(pairs) == 1 else 'pairs'}, "
            f"{across:,} under different patients"
        )
    return AuditedImages(pairs, groups)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
