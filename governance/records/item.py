"""Documents on one item: check result, item record, trace table, check of the card."""

from typing import Literal

from pydantic import AwareDatetime

from governance.records.base import Document, ItemClass, ItemStatus, Sha256
from governance.records.policy import Criterion


class Observed(Document):
    """The measured value, with its unit, interval, counts and partition.

    Attributes:
        value: The number, boolean or short text that the criterion is compared with.
        unit: Unit of the value; empty when it has none.
        ci95: Two-sided 95 % interval, (low, high), by patient; None when there is none.
        n_patients: Patients behind the value.
        n_images: Images behind the value.
        partition: Partition measured on, e.g. "held-out test set".
    """

    value: float | int | bool | str | None
    unit: str = ""
    ci95: tuple[float, float] | None = None
    n_patients: int | None = None
    n_images: int | None = None
    partition: str | None = None


class CheckResult(Document):
    """Result of a check of one item.

    Attributes:
        status: PASSED, FAILED, RECORDED or NOT_EVALUATED.
        observed: Measured value; None when nothing was measured.
        reason: Why the status is what it is, one sentence. Required for NOT_EVALUATED.
        method: How it was measured, one sentence.
        artifact: Path in the run folder of the evidence behind it; None when there is none.
        limitations: What the result does not show; may be empty.
    """

    status: ItemStatus
    observed: Observed | None = None
    reason: str = ""
    method: str = ""
    artifact: str | None = None
    limitations: str = ""


class Artifact(Document):
    """A file of the run folder and its digest."""

    path: str
    sha256: Sha256


class FrozenCriterion(Criterion):
    """A criterion with the time of freezing and the digest of the frozen plan."""

    frozen_at: AwareDatetime
    frozen_sha256: Sha256


class ItemRecord(Document):
    """One immutable record that supports one item of the policy.

    Attributes:
        id: Item id, e.g. "P4-01".
        title: Item title.
        principle: Principle id, e.g. "P4".
        item_class: Core, required or informative.
        kind: "computed" or "human".
        status: Status of the item.
        criterion: Frozen criterion; None for human items or when the plan was never frozen.
        observed: Measured value; None when nothing was measured.
        method: How it was measured.
        artifact: Evidence behind it.
        reason: Why the status is what it is.
        limitations: What the result does not show.
        time_utc: Time of writing.
    """

    id: str
    title: str
    principle: str
    item_class: ItemClass
    kind: str
    status: ItemStatus
    criterion: FrozenCriterion | None = None
    observed: Observed | None = None
    method: str = ""
    artifact: Artifact | None = None
    reason: str = ""
    limitations: str = ""
    time_utc: AwareDatetime


class TracedPart(Document):
    """One field of the card or section of the report, and the files it was written from.

    Attributes:
        output: "card" or "report".
        part: Id of the field or section.
        n_numbers: Numbers printed in it.
        computed: Numbers that its files do not hold just as printed, each once: they are
            counted or computed from them, or belong to fixed words ("95 %").
        sources: Files of the run folder that were read to write it; "records/" is all records.
    """

    output: Literal["card", "report"]
    part: str
    n_numbers: int
    computed: tuple[str, ...]
    sources: tuple[str, ...]


class FoundWord(Document):
    """A word that neither card nor report may use, with the text around it."""

    output: str
    word: str
    context: str


class CardCheck(Document):
    """Result of checking the drafted card, its JSON twin and the report (card_check.json).

    Checked on the draft: the items that this check decides, and root and journal head of the
    evidence, were added afterwards.

    Attributes:
        n_filled: Fields of the card that are filled; n_reasoned: that give a reason instead.
        empty_fields: Fields with neither, as "section.field".
        parts: Fields and sections that print numbers, with the files behind them.
        untraced: Numbers without a file behind them, each with its place.
        n_limits: Failed, missing and not evaluated items and absent attributes.
        unlisted: Limits that card or report leave out, e.g. "P4-01 in the card".
        n_compared: Statements looked for in card, JSON twin and report.
        disagreements: Statements that differ or are missing in one of them.
        words: Forbidden words found.
    """

    PATH = "card_check.json"
    ABSENCE = "card and report were not drafted"

    n_filled: int
    n_reasoned: int
    empty_fields: tuple[str, ...]
    parts: tuple[TracedPart, ...]
    untraced: tuple[str, ...]
    n_limits: int
    unlisted: tuple[str, ...]
    n_compared: int
    disagreements: tuple[str, ...]
    words: tuple[FoundWord, ...]


class TraceLine(Document):
    """One item: its status, its check and the files that prove it.

    Attributes:
        principle: Principle, e.g. "P4".
        item_id: Item.
        status: Its status.
        check: Its check, "module.function"; "" where it has none or people declare it.
        step: Step that writes what the check reads.
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
    """Every link from principle to item, record, evidence and files (trace.json).

    Attributes:
        lines: One line for each item, in the order of the policy.
        n_links: Links that were followed.
        broken: Links that do not resolve, with the reason.
    """

    PATH = "trace.json"
    ABSENCE = "the evidence step did not run to its end"

    lines: tuple[TraceLine, ...]
    n_links: int
    broken: tuple[str, ...]
