"""What several checks count: levels of the coverage table, pairs of partitions, and in what unit."""

from collections import defaultdict
from itertools import combinations

from governance.audits.checks import Documents
from governance.evidence.documents import PARTITIONS, TEST, TRAINING, CoverageAudit

NOT_RECORDED = "not recorded"  # level of images without a value
NO_PARTITIONS = "counts by partition are not on record"
_PAIRS = tuple(combinations(PARTITIONS, 2))


def recorded_attributes(
    coverage: CoverageAudit, wanted: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Attributes that have a value for at least one patient, of the wanted ones or of all."""
    found = {x.attribute for x in coverage.levels if x.n_patients and x.level != NOT_RECORDED}
    return tuple(a for a in wanted or coverage.attributes if a in found)


def patients_by_level(coverage: CoverageAudit, attribute: str, partition: str) -> dict[str, int]:
    """Patients of each level in one partition; 0 for a level that only others have."""
    counts: dict[str, int] = defaultdict(int)
    for level in coverage.levels:
        if level.attribute == attribute and level.level != NOT_RECORDED:
            counts[level.level] += level.n_patients if level.partition == partition else 0
    return counts


def by_partition(coverage: CoverageAudit) -> bool:
    """Whether training and the held-out test set were counted; the audit alone counts all."""
    return {TRAINING, TEST} <= {level.partition for level in coverage.levels if level.n_images}


def across_pairs(by_pair: dict[str, int]) -> tuple[int, list[str], str]:
    """Sum over the pairs of partitions, pairs that were not counted, and counts in words."""
    found = {frozenset(pair.split(" | ")) for pair in by_pair}
    gaps = [f"{a} | {b}" for a, b in _PAIRS if frozenset((a, b)) not in found]
    words = [f"{n:,} in {pair}" for pair, n in by_pair.items() if n]
    return sum(by_pair.values()), gaps, "; ".join(words)


def unit_note(documents: Documents) -> str:
    """What counting by another unit than the patient cannot show; empty for patients."""
    if documents.unit == "patient":
        return ""
    return (
        f"Counted by {documents.unit}: the data set does not say which {documents.unit}s are of "
        "one patient."
    )


def joined(*sentences: str) -> str:
    """Sentences that are there, with a blank between."""
    return " ".join(sentence for sentence in sentences if sentence)
