"""Declarations and waivers: waivers on page 1, and a section on both."""

from governance.people.rules import NO_FILE, binding_words, is_unfilled, owner_words, signing_words
from governance.records.base import ItemStatus
from governance.records.people import Declaration, Declarations, DeclaredScope, WaiverLine
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Cell,
    Facts,
    Heading,
    Section,
    Table,
    Text,
    cell,
    columns,
    mono,
    small,
    status_line,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.items import DECLARED_NOTE

NO_TEXT = "nobody declared it: the declarations file gives no text for this field"
_SIGNING = (
    "People stand for their entries by name, or by a file that their entry names and whose digest "
    "is recorded here, or by a key that signed the entry. A signature shows that the holder of the "
    "key signed exactly this entry; nobody vouches for who that is. Nothing else is verified: no "
    "statement, no file's content, no person."
)
_MOST_ON_PAGE_ONE, _REASON_CHARACTERS = 6, 500
_NEVER = "A waiver never makes an item passed; expired waivers and those of other runs do nothing."


def waiver_blocks(evidence: ReportEvidence) -> tuple[Block, ...]:
    """Show the waivers of the run, for page 1, those in force first; empty without any."""
    waivers = evidence.summary.waivers
    if not waivers:
        return ()
    ordered = sorted(waivers, key=lambda line: line.state != "in force")
    more = len(ordered) - _MOST_ON_PAGE_ONE
    note = (
        f"{_NEVER} {formats.count(more)} more under Declarations and waivers."
        if more > 0
        else _NEVER
    )
    return (Heading("Waivers"), _waiver_table(tuple(ordered[:_MOST_ON_PAGE_ONE]), note))


def waiver_sentences(evidence: ReportEvidence) -> tuple[str, ...]:
    """Describe every waiver of the run in one sentence each; for the card."""
    return tuple(
        formats.sentence(
            f"Waiver of {line.item_id} {line.title} by {line.author} through {line.expires} "
            f"({line.reason.strip().rstrip('.')}), {line.state}; effect: {line.effect}"
            f"{'; ' + line.signing if line.signing else ''}"
        )
        for line in evidence.summary.waivers
    )


def declaration_words(evidence: ReportEvidence) -> Cell:
    """Summarise the declarations file in one cell, for the identity of the run."""
    record = evidence.get(Declarations)
    if record is None:
        return cell("no declarations file was given")
    entries = formats.counted(len(record.declarations), "entry", "entries")
    waivers = formats.counted(len(record.waivers), "waiver")
    return cell(f"{record.file}: {entries}, {waivers}; {DECLARED_NOTE}", mono(record.sha256))


def declared_text(evidence: ReportEvidence, field_id: str) -> tuple[str, str] | None:
    """Return the valid declared text of a card field and its author; None without one."""
    declarations = evidence.get(Declarations)
    for entry in declarations.declarations if declarations else ():
        text = entry.card.get(field_id, "")
        if not is_unfilled(text) and _counts(evidence, entry):
            return text, f"{DECLARED_NOTE}: {owner_words(entry)} ({entry.id})"
    return None


def why_no_text(evidence: ReportEvidence) -> str:
    """Return the reason why a card field has no declared text."""
    return NO_FILE if evidence.get(Declarations) is None else NO_TEXT


def _counts(evidence: ReportEvidence, entry: Declaration) -> bool:
    """Whether the item's record accepted the entry, on the day on which it was judged."""
    record = evidence.records.get(entry.id)
    in_force = (ItemStatus.DECLARED, ItemStatus.NOT_APPLICABLE)
    return record is not None and record.status in in_force


def declarations_section(evidence: ReportEvidence) -> Section:
    """List every entry of the declarations file with its result."""
    record = evidence.get(Declarations)
    if record is None:
        text = (
            "No declarations file was given, so every item that asks for people's word is missing."
        )
        return _section(Text(text))
    facts = Facts(
        (
            ("File", cell(record.file)),
            ("SHA-256", cell(mono(record.sha256))),
            ("Read", cell(formats.utc(record.read_utc))),
        )
    )
    blocks: list[Block] = [Text(_SIGNING, "lead"), facts]
    if record.declarations:
        head = columns(("Item", 0.16), ("Statement", 0.40), ("Who, and on what basis", 0.44))
        rows = tuple(_row(evidence, entry) for entry in record.declarations)
        blocks.extend((Heading("Declarations"), Table(head, rows)))
    else:
        blocks.append(Text("The file declares no item."))
    blocks.append(Heading("Waivers"))
    if evidence.summary.waivers:
        blocks.append(_waiver_table(evidence.summary.waivers, _NEVER))
    else:
        blocks.append(Text("None."))
    return _section(*blocks)


def _section(*blocks: Block) -> Section:
    return Section("declarations", "12", "Declarations and waivers", main=blocks)


def _row(evidence: ReportEvidence, entry: Declaration) -> tuple[Cell, ...]:
    record = evidence.records.get(entry.id)
    status = record.status if record else ItemStatus.MISSING
    fault = record.reason if record and status is ItemStatus.MISSING else ""
    dates = f"holds through {entry.expires or 'no date given'}"
    return (
        cell(strong(entry.id), status_line(status), small("" if fault else DECLARED_NOTE)),
        cell(
            entry.statement or formats.DASH,
            small(f"Why missing: {fault}" if fault else ""),
            small(_scope_words(entry.scope)),
        ),
        cell(
            owner_words(entry),
            small(f"{signing_words(entry)}."),
            small(f"Applies to {binding_words(entry.applies_to)}; {dates}."),
        ),
    )


def _scope_words(scope: DeclaredScope | None) -> str:
    """Describe the scope of an intended use; "" where the entry gives none."""
    if scope is None:
        return ""
    planes, machines = (
        "any" if names == "any" else ", ".join(names) for names in (scope.planes, scope.machines)
    )
    low, high = scope.image_size_px
    return (
        f"Scope: planes {planes}; machines {machines}; images of {low} to {high} px; for "
        f"{', '.join(scope.output_roles)}."
    )


def _waiver_table(waivers: tuple[WaiverLine, ...], note: str) -> Table:
    head = columns(("Item", 0.25), ("Reason", 0.35), ("Author and effect", 0.40))
    rows = tuple(
        (
            cell(strong(line.item_id), small(line.title)),
            cell(formats.clean(line.reason, _REASON_CHARACTERS)),
            cell(
                f"{line.author}, through {line.expires}: {line.state}",
                small(f"Effect: {line.effect}."),
                small(formats.sentence(line.signing)),
            ),
        )
        for line in waivers
    )
    return Table(head, rows, note)
