"""Content on completeness: what is recorded, partly recorded or absent, and missing files."""

from governance.evidence.documents import DatasetIdentity
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Heading,
    Line,
    Table,
    Text,
    cell,
    columns,
    joined,
    small,
    strong,
)
from governance.reports.data_evidence import DataEvidence, limit_of, units

_STATES: dict[str, Line] = {
    "absent": Line("absent", "mark", "∅", "unsure"),
    "by proxy": Line("by proxy", "mark", "◐", "unsure"),
    "partly": Line("partly recorded", "mark", "◐", "unsure"),
    "recorded": Line("recorded", "mark", "✓", "good"),
}


def completeness_blocks(evidence: DataEvidence) -> tuple[Block, ...]:
    """Attributes by how far they are recorded, then missing files."""
    return (*_attributes(evidence), *_missing(evidence.dataset))


def _attributes(evidence: DataEvidence) -> tuple[Block, ...]:
    heading = Heading("Attributes recorded, partly recorded and absent")
    fractions = dict(evidence.coverage.completeness) if evidence.coverage else {}
    notes: dict[str, tuple[str, ...]] = {}
    proxies: set[str] = set()
    for declared in evidence.demographics.declared if evidence.demographics else ():
        fractions[declared.name] = declared.completeness
        proxies |= {declared.name} if declared.is_proxy else set()
        notes[declared.name] = (f"column {declared.column}", declared.note)
    absent = evidence.dataset.absent_attributes if evidence.dataset else ()
    if not fractions and not absent:
        return (heading, Text("What is recorded was not looked at."))
    for entry in absent:
        fractions.setdefault(entry.name, 0.0)
        notes[entry.name] = (entry.consequence, *notes.get(entry.name, ()))
    rows = [
        _row(name, part, notes.get(name, ()), name in proxies)
        for name, part in sorted(fractions.items(), key=lambda entry: (entry[1], entry[0]))
    ]
    head = columns(
        ("Attribute", 0.24),
        ("State", 0.19),
        (f"{units(evidence.unit)} with a value", 0.17, "right"),
        ("What follows from it, or how it was recorded", 0.40),
    )
    return (
        heading,
        Text(_sentence(evidence)),
        Table(head, tuple(rows)),
        *_undeclared(evidence),
    )


def _sentence(evidence: DataEvidence) -> str:
    limit = limit_of(evidence, "P3-01")
    asked = f" The policy asks for at least {formats.percent(limit, 1)}." if limit else ""
    return (
        f"How many {evidence.unit}s have a value of each attribute. What is absent cannot be "
        f"checked by any later page, and no result can be given by it.{asked}"
    )


def _row(name: str, part: float, notes: tuple[str, ...], is_proxy: bool) -> tuple[Cell, ...]:
    state = "absent" if part == 0 else "recorded" if part >= 1 else "partly"
    state = "by proxy" if is_proxy and part else state
    said = [note for note in notes if note]
    shown = cell(*said) if state == "absent" else cell(*(small(note) for note in said))
    value = "none" if part == 0 else formats.percent(part, 1)
    return (cell(strong(name)), cell(_STATES[state]), cell(value), shown)


def _undeclared(evidence: DataEvidence) -> tuple[Block, ...]:
    names = evidence.demographics.undeclared if evidence.demographics else ()
    if not names:
        return ()
    told = f"Usual attributes that the data contract does not declare: {joined(names)}."
    return (Text(told, "note"),)


def _missing(data: DatasetIdentity | None) -> tuple[Block, ...]:
    heading = Heading("Missing files")
    if data is None:
        return (heading, Text("The data set was not read."))
    if not data.n_missing:
        n = formats.counted(data.n_listed, "listed image")
        return (heading, Text(f"Every one of the {n} has a file."))
    share = formats.percent(data.n_missing, data.n_listed)
    text = (
        f"{formats.count(data.n_missing)} of {formats.counted(data.n_listed, 'listed image')} have "
        f"no file ({share}). What they would have shown is unknown; Flow by subgroup says "
        "whom they belong to."
    )
    shown = data.missing_examples[:5]
    more = f"Examples (all that were kept stand in data/dataset.json): {joined(shown)}."
    return (heading, Text(text), *((Bullets((more,)),) if shown else ()))
