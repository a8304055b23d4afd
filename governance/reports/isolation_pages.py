"""Content of the section on isolation of the held-out test set."""

from governance.evidence.documents import IsolationRecord, RefusedRead, SealRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Line,
    Section,
    Table,
    Text,
    cell,
    columns,
    mono,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.selftest_blocks import selftest_blocks

THREAT_MODEL = (
    "Isolation guards against mistakes and temptation inside a team, not against somebody who owns "
    "the machine."
)


def isolation_section(evidence: ReportEvidence) -> Section:
    """Level in force, refused reads, seal, openings, and what none of it protects against."""
    blocks: list[Block] = [Text(THREAT_MODEL)]
    blocks.extend(_level(evidence.isolation))
    blocks.extend(_seal(evidence.seal, evidence.unit))
    blocks.extend(_opening(evidence))
    blocks.extend(selftest_blocks(evidence.selftest))
    if evidence.isolation and evidence.isolation.limits:
        blocks.extend((Heading("What it does not protect against"),))
        blocks.append(Bullets(evidence.isolation.limits))
    return Section("isolation", "4", "Isolation of the held-out test set", blocks=tuple(blocks))


def _level(isolation: IsolationRecord | None) -> tuple[Block, ...]:
    if isolation is None:
        return (Text("No training process is on record, so no isolation was in force."),)
    rows = tuple(
        (cell(attempt.target), _result(attempt), cell(attempt.error))
        for attempt in isolation.attempts
    )
    head = columns(
        ("What it tried to read", 0.40), ("Result", 0.22), ("Answer of the system", 0.38)
    )
    facts = (
        ("Level in force", cell(strong(f"{isolation.level} of 5: {isolation.level_name}"))),
        ("Enforced by", cell(isolation.mechanism)),
        ("Reads of sealed files before the opening", cell(formats.count(isolation.n_sealed_reads))),
    )
    return (
        Facts(facts),
        Heading("What the training process tried before its first step"),
        Table(head, rows, "" if rows else "No attempt is on record."),
        *_noticed(isolation),
    )


def _noticed(isolation: IsolationRecord) -> tuple[Block, ...]:
    """What the generator itself tried while it ran; nothing where nothing was noticed."""
    if not isolation.noticed:
        return ()
    rows = tuple(
        (cell(attempt.target), cell(attempt.way), _result(attempt), cell(attempt.error))
        for attempt in isolation.noticed
    )
    head = columns(
        ("What the generator tried to reach", 0.32),
        ("How", 0.22),
        ("Result", 0.18),
        ("Answer of the system", 0.28),
    )
    return (
        Heading("What the generator tried while it ran"),
        Text(
            "A generator has no reason to reach for any of this. The run was stopped; somebody has "
            "to read the generator's code before it is run again."
        ),
        Table(head, rows, ""),
    )


def _result(attempt: RefusedRead) -> Cell:
    if attempt.refused:
        return cell(Line("refused", "mark", "✓", "good"))
    return cell(Line("NOT refused", "mark", "✗", "bad"))


def _seal(seal: SealRecord | None, unit: str) -> tuple[Block, ...]:
    if seal is None:
        return (Heading("Seal"), Text("No test set was sealed in this run."))
    facts = (
        ("Merkle root of the test set", cell(mono(seal.merkle_root))),
        (
            "Sealed",
            cell(
                f"{formats.utc(seal.sealed_utc)}; {formats.counted(seal.n_images, 'image')}, "
                f"{formats.counted(seal.n_patients, unit)}"
            ),
        ),
        ("Sealed copy", cell(seal.encryption or "none: the files were not encrypted")),
        ("Ledger", cell(mono(seal.ledger))),
        ("Earlier seals of this set", cell(formats.count(seal.n_earlier_seals))),
        ("Earlier openings of this set", cell(formats.count(seal.n_earlier_openings))),
    )
    return (Heading("Seal"), Facts(facts))


def _opening(evidence: ReportEvidence) -> tuple[Block, ...]:
    opening = evidence.evaluation.opening if evidence.evaluation else None
    if opening is None:
        return (Heading("Opening"), Text("The sealed test set was not opened in this run."))
    facts = (
        ("Number over all runs", cell(f"{formats.count(opening.number)} ({opening.label})")),
        ("Purpose", cell(opening.purpose)),
        ("Opened", cell(formats.utc(opening.opened_utc))),
        ("Images read", cell(formats.count(opening.n_images))),
        ("Plan", cell(mono(opening.plan_sha256))),
        ("Model", cell(mono(opening.model_sha256))),
    )
    return (Heading("Opening"), Facts(facts))
