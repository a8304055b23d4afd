"""The page of a data check without a run: its findings and the data section of the report."""

from dataclasses import dataclass, replace

from governance.records.base import ItemStatus
from governance.records.dataset import DatasetIdentity
from governance.records.item import ItemRecord
from governance.reports import formats
from governance.reports.blocks import (
    Report,
    Section,
    Table,
    Text,
    Verdict,
    cell,
    columns,
    mono,
    small,
    status_line,
    strong,
)
from governance.reports.draw.html import html_page
from governance.reports.evidence import Evidence
from governance.reports.items import natural_key
from governance.reports.sections.data import data_parts

_SUBTITLE = "Data check: is this data set fit to be used?"
_SHORT_REASON = 80
_EXIT_WORDS = {
    0: "nothing stops a run",
    3: "data unreadable, invalid or refused by validation",
    4: "a leak between partitions, or isolation broken",
}
_STATUS_ORDER = (
    ItemStatus.FAILED,
    ItemStatus.NOT_EVALUATED,
    ItemStatus.MISSING,
    ItemStatus.RECORDED,
    ItemStatus.DECLARED,
    ItemStatus.PASSED,
    ItemStatus.NOT_APPLICABLE,
)


@dataclass(frozen=True)
class DataCheckEvidence(Evidence):
    """The evidence from which the page of a data check is written.

    Attributes:
        tool_version: Version of medisynth-gov.
        folder: Folder that was checked, as the user named it.
        exit_code: Exit code of the command.
        sentence: One sentence on what would stop a run, or that nothing would.
    """

    tool_version: str
    folder: str
    exit_code: int
    sentence: str


def write_data_check_html(evidence: DataCheckEvidence) -> bytes:
    """Draw the data check as a page; equal evidence gives equal bytes.

    Returns:
        UTF-8 HTML with inline styles and pictures as data addresses; no script, nothing loaded.
        All text is escaped.
    """
    return html_page(build_data_check(evidence))


def build_data_check(evidence: DataCheckEvidence) -> Report:
    """Turn evidence into the page's content; equal evidence gives equal content."""
    data = evidence.get(DatasetIdentity)
    title = data.title if data else evidence.folder
    kind = " Simulated data: no patient is behind any image." if data and data.is_simulated else ""
    return Report(
        title=formats.clean(title.split(":")[0].strip() or title, 110),
        about=f"{title}.{kind}",
        subtitle=_SUBTITLE,
        run_id="",
        evidence_root="",
        tool_version=evidence.tool_version,
        foot=f"medisynth-gov {evidence.tool_version} · not a medical device · research use",
        verdict=_verdict(evidence),
        strip=_strip(evidence),
        front=(),
        sections=(
            _items_section(evidence),
            *(
                replace(part, blocks=(*part.main, *part.blocks), main=())
                for part in data_parts(evidence)
            ),
        ),
        is_open=True,
    )


def _verdict(evidence: DataCheckEvidence) -> Verdict:
    """Say whether a run would stop, and how many items failed without stopping it."""
    said = formats.sentence(evidence.sentence)
    if evidence.exit_code:
        return Verdict("A run on this data stops", "✗", "bad", said)
    failed = sum(record.status is ItemStatus.FAILED for record in evidence.records.values())
    if failed:
        n = formats.counted(failed, "item")
        sentence = f"{said} {n} failed all the same; see the table of items."
        return Verdict("Nothing stops a run on this data", "!", "unsure", sentence.strip())
    return Verdict("Nothing stops a run on this data", "✓", "good", said)


def _strip(evidence: DataCheckEvidence) -> tuple[tuple[str, str], ...]:
    data = evidence.get(DatasetIdentity)
    digest = data.content_sha256 if data else None
    return (
        ("Folder", evidence.folder),
        ("Exit code", _exit_words(evidence.exit_code)),
        ("Content digest", digest or formats.NOT_AVAILABLE),
    )


def _exit_words(code: int) -> str:
    return f"{code} ({_EXIT_WORDS[code]})" if code in _EXIT_WORDS else str(code)


def _items_section(evidence: DataCheckEvidence) -> Section:
    """Build the table of data items, failed ones first."""
    records = sorted(
        evidence.records.values(),
        key=lambda record: (_STATUS_ORDER.index(record.status), natural_key(record.id)),
    )
    if not records:
        blocks: tuple[Text | Table, ...] = (Text("No item was judged."),)
        return Section("items", "1", "Items on data", blocks=blocks)
    counts = ", ".join(
        f"{sum(record.status is status for record in records)} {status.value}"
        for status in _STATUS_ORDER
        if any(record.status is status for record in records)
    )
    text = Text(
        "What the evidence map asks of the data, failed and unknown items first; the parts below "
        f"show what each answer rests on. {formats.counted(len(records), 'item')}: {counts}."
    )
    head = columns(("Item", 0.09), ("What must be shown", 0.37), ("Status", 0.17), ("Why", 0.37))
    rows = tuple(
        (
            cell(strong(record.id)),
            cell(record.title),
            cell(status_line(record.status)),
            cell(_reason(record, evidence), small(_observed(record)), mono(_source(record))),
        )
        for record in records
    )
    return Section("items", "1", "Items on data", blocks=(text, Table(head, rows)))


def _reason(record: ItemRecord, evidence: DataCheckEvidence) -> str:
    """Return the reason of an item's status, unless the verdict gives it already."""
    reason = record.reason.rstrip(".")
    told = len(reason) > _SHORT_REASON and reason in evidence.sentence
    return "the run stops before it could be judged; the reason stands above" if told else reason


def _observed(record: ItemRecord) -> str:
    """Return the observed value and the criterion it is compared with."""
    if record.observed is None:
        return ""
    seen = f"observed {formats.with_unit(record.observed.value, record.observed.unit)}"
    asked = formats.criterion(record.criterion)
    return f"{seen}; asked {asked}" if asked else seen


def _source(record: ItemRecord) -> str:
    return record.artifact.path if record.artifact else ""
