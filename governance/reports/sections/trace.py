"""The section on the files from which each part of card and report was written."""

from governance.records.item import CardCheck, TracedPart
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Section,
    Table,
    Text,
    cell,
    columns,
    joined,
    mono,
)
from governance.reports.evidence import ReportEvidence

_LEAD = (
    "Card and report were drafted and checked before the evidence was closed. The table says "
    "which files each field of the card and each section of the report was written from; their "
    "digests are in manifest.json. Computed: numbers that do not stand in these files as they are "
    "printed, each once: they are counted or computed from them, or belong to fixed words."
)


def trace_section(evidence: ReportEvidence) -> Section:
    """Show the results of checking the draft, and the files behind each part."""
    record = evidence.get(CardCheck)
    blocks: tuple[Block, ...] = (Text("Card and report were not checked before the run closed."),)
    if record is not None:
        rows = tuple(_row(part) for part in record.parts)
        head = columns(
            ("Part", 0.22), ("Numbers", 0.12, "right"), ("Computed", 0.22), ("Files", 0.44)
        )
        blocks = (Text(_LEAD), Facts(_facts(record)), *_faults(record), Table(head, rows))
    return Section("trace", "15", "Where the numbers come from", blocks=blocks)


def _facts(record: CardCheck) -> tuple[tuple[str, Cell], ...]:
    n_fields = record.n_filled + record.n_reasoned + len(record.empty_fields)
    return (
        (
            "Fields of the card",
            cell(
                f"{formats.count(n_fields)}: {formats.count(record.n_filled)} filled, "
                f"{formats.count(record.n_reasoned)} with a reason instead, "
                f"{formats.count(len(record.empty_fields))} empty"
            ),
        ),
        (
            "Numbers without a file behind them",
            cell(formats.count(len(record.untraced))),
        ),
        (
            "Limits left out",
            cell(f"{formats.count(len(record.unlisted))} of {formats.count(record.n_limits)}"),
        ),
        (
            "Statements that differ between card and report",
            cell(
                f"{formats.count(len(record.disagreements))} of {formats.count(record.n_compared)}"
            ),
        ),
        ("Words that must not stand there", cell(formats.count(len(record.words)))),
    )


def _faults(record: CardCheck) -> tuple[Block, ...]:
    faults = (
        *(f"empty field: {name}" for name in record.empty_fields),
        *(f"without a file: {words}" for words in record.untraced),
        *(f"limit left out: {words}" for words in record.unlisted),
        *(f"differs: {words}" for words in record.disagreements),
        *(f"word: {w.word!r} in the {w.output} ({w.context})" for w in record.words),
    )
    return (Heading("Found"), Bullets(faults)) if faults else ()


def _row(part: TracedPart) -> tuple[Cell, ...]:
    return (
        cell(f"{part.output}: {part.part.replace('_', ' ')}"),
        cell(formats.count(part.n_numbers)),
        cell(joined(part.computed, empty="")),
        cell(mono(joined(part.sources))),
    )
