"""What the pages on data read: the part that a run and a data check have in common."""

from collections.abc import Mapping
from typing import Protocol

from governance.records.audit import (
    ContentScan,
    CoverageAudit,
    DatasetAudit,
    DemographicsAudit,
    DuplicateAudit,
    LabelAudit,
)
from governance.records.base import PARTITIONS
from governance.records.dataset import BoundaryChecks, DatasetIdentity, Findings, ValidationRecord
from governance.records.partition import SplitRecord
from governance.records.policy import Policy
from governance.records.run import Figures
from governance.records.verdict import ItemRecord
from governance.reports import formats
from governance.reports.blocks import Cell, Column, Line, columns
from governance.reports.evidence import PictureFile

_ALL = "all"
_WIDEST_PART, _LEAST_REST = 0.24, 0.05


class DataEvidence(Protocol):
    """Evidence about a data set. A document is None when the step that writes it did not run."""

    @property
    def dataset(self) -> DatasetIdentity | None:
        """Which data set it is."""

    @property
    def findings(self) -> Findings | None:
        """Faults found while reading."""

    @property
    def validation(self) -> ValidationRecord | None:
        """What both engines said about the contract."""

    @property
    def boundaries(self) -> BoundaryChecks | None:
        """The typed schema at every step boundary."""

    @property
    def coverage(self) -> CoverageAudit | None:
        """Who is in the data."""

    @property
    def audit(self) -> DatasetAudit | None:
        """Concentration, confounding, shift and image quality."""

    @property
    def demographics(self) -> DemographicsAudit | None:
        """Declared attributes of patients."""

    @property
    def duplicates(self) -> DuplicateAudit | None:
        """Images that occur more than once."""

    @property
    def content(self) -> ContentScan | None:
        """What stands in images and metadata besides anatomy."""

    @property
    def labels(self) -> LabelAudit | None:
        """Suspected label errors."""

    @property
    def split(self) -> SplitRecord | None:
        """How the data was divided."""

    @property
    def policy(self) -> Policy | None:
        """Policy in force; None when unknown."""

    @property
    def figures(self) -> Figures | None:
        """Pictures and their captions."""

    @property
    def pictures(self) -> Mapping[str, PictureFile]:
        """Picture files by path."""

    @property
    def records(self) -> Mapping[str, ItemRecord]:
        """Item records by item id."""

    @property
    def unit(self) -> str:
        """Unit that is counted and never divided."""


def units(unit: str) -> str:
    """Plural of the unit counted, as a heading: "Patients", "Examinations"."""
    return f"{unit[:1].upper()}{unit[1:]}s"


def limit_of(evidence: DataEvidence, item_id: str) -> float | None:
    """Limit of an item's criterion: the frozen one, else the policy's; None when there is none."""
    record = evidence.records.get(item_id)
    criterion = record.criterion if record else None
    if criterion is None and evidence.policy is not None:
        found = [item.criterion for item in evidence.policy.items if item.id == item_id]
        value = found[0].value if found and found[0] else None
    else:
        value = criterion.value if criterion else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value is not None else None


def beyond(text: str) -> Line:
    """Line that says by mark, word and colour that a number is beyond its limit."""
    return Line(text, "mark", "!", "unsure")


def more(n_all: int, n_shown: int, path: str) -> str:
    """Note under a table that was cut; "" when it was not."""
    return f"{formats.count(n_all - n_shown)} more in {path}." if n_all > n_shown else ""


def partition_order(found: set[str]) -> tuple[str, ...]:
    """Partitions in the order of the report, other names after them, "all" last."""
    known = [part for part in PARTITIONS if part in found]
    other = sorted(found - {*PARTITIONS, _ALL})
    return (*known, *other, *([_ALL] if _ALL in found else []))


def part_columns(
    parts: tuple[str, ...], room: float
) -> tuple[tuple[Column, ...], tuple[Cell, ...]]:
    """Columns of counts, one a partition, and the empty cells that end a row.

    Few partitions leave room at the right, so that counts stay near the names that they belong to.
    """
    width = min(_WIDEST_PART, room / max(1, len(parts)))
    rest = room - width * len(parts)
    made = columns(*((part, width, "right") for part in parts))
    return ((*made, Column("", rest)), ((),)) if rest > _LEAST_REST else (made, ())


def share_text(share: float | None, ci95: tuple[float, float] | None) -> str:
    """Share with its 95 % interval in per cent: "89.5 % (75.9 to 95.8)"; "" for None."""
    if share is None:
        return ""
    interval = f" ({100 * ci95[0]:.1f} to {100 * ci95[1]:.1f})" if ci95 else ""
    return f"{formats.percent(share, 1)}{interval}"
