"""The trace table: from every principle over its items to what proves them."""

from governance.evidence.documents.base import Document


class TraceLine(Document):
    """One item, and where what was found of it stands.

    Attributes:
        principle: Principle, e.g. "P4".
        item_id: Item.
        status: How it stands.
        check: What computes it, "module.function"; "" where nothing does or people declare it.
        step: Step that leaves what the check reads.
        record: Path of its record; "" for the item whose record is written after the table.
        record_sha256: Digest of that record.
        artifact: Path of the evidence behind the record; "" where the record names none.
        artifact_sha256: Digest of that evidence.
    """

    principle: str
    item_id: str
    status: str
    check: str = ""
    step: str = ""
    record: str = ""
    record_sha256: str = ""
    artifact: str = ""
    artifact_sha256: str = ""


class TraceTable(Document):
    """Principle, item, record, evidence, files: each link followed at the end (trace.json).

    Attributes:
        lines: One an item, in the order of the policy.
        n_links: Links that were followed.
        broken: Those that do not resolve, in words.
    """

    lines: tuple[TraceLine, ...]
    n_links: int
    broken: tuple[str, ...]
