"""The section on isolation of the held-out test set and on the self-test of the guards."""

from governance.records.evaluation import EvaluationRecord
from governance.records.partition import IsolationRecord, RefusedRead, SealRecord
from governance.records.selftest import STOPPED, GuardAnswer, PlantTrial, SelftestRecord
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
    small,
    strong,
)
from governance.reports.evidence import ReportEvidence

_SENTENCE_CHARACTERS = 150
_WHOLE = (
    "The whole self-test, with every fault, is the command medisynth-gov selftest; it leaves the "
    "same record."
)


def selftest_blocks(record: SelftestRecord | None) -> tuple[Block, ...]:
    """Show which faults were planted, which guard caught them, and how long it took."""
    heading = Heading("Has a guard ever caught anything?")
    if record is None:
        return (heading, Text("The guards were not tried on planted faults in this run."))
    n_proof = sum(trial.is_proof for trial in record.trials)
    text = Text(
        "Before the first step, faults were planted one at a time in simulated patients, and the "
        "guards of this run were given each of them and a clean control. A guard that lets its "
        "fault pass, or stops clean data too, proves nothing. "
        f"{n_proof} of {formats.counted(len(record.trials), 'planted fault')} proved "
        f"{'its' if n_proof == 1 else 'their'} guard, in {record.duration_s:.1f} s."
    )
    head = columns(
        ("Planted", 0.36), ("Result", 0.14), ("What caught it", 0.40), ("Seconds", 0.10, "right")
    )
    rows = tuple(
        (
            cell(_sentence_case(trial.planted)),
            cell(_caught(trial), *_control(trial)),
            _caught_by(trial),
            cell(f"{trial.duration_s:.1f}"),
        )
        for trial in record.trials
    )
    return (heading, text, Table(head, rows), *_not_planted(record))


def _caught(trial: PlantTrial) -> Line:
    if trial.fault:
        return Line("not tried", "mark", "?", "unknown")
    if not trial.is_caught:
        return Line("NOT caught", "mark", "✗", "bad")
    if not trial.is_control_clean:
        return Line("no proof", "mark", "✗", "bad")
    return Line("caught", "mark", "✓", "good")


def _control(trial: PlantTrial) -> tuple[Line, ...]:
    if trial.is_control_clean:
        return (small("clean control: no alarm"),)
    false = [answer for answer in trial.control if answer.is_alarm]
    return tuple(small(f"clean control: {a.guard} {a.status}") for a in false)


def _caught_by(trial: PlantTrial) -> Cell:
    if trial.fault:
        return cell(formats.clean(trial.fault, _SENTENCE_CHARACTERS))
    lines: list[Line] = []
    for answer in trial.answers:
        lines += [
            strong(_guard(answer)),
            small(formats.clean(answer.sentence, _SENTENCE_CHARACTERS)),
        ]
    missing = sorted({*trial.expected} - {a.guard for a in trial.answers if a.is_alarm})
    if missing:
        lines.append(small(f"no alarm of {', '.join(missing)}"))
    return cell(*lines)


def _guard(answer: GuardAnswer) -> str:
    code = "" if answer.exit_code is None else f", exit code {answer.exit_code}"
    if answer.status == STOPPED:
        return f"The run stops with error {answer.guard}{code}"
    return f"{_sentence_case(answer.guard)}: {answer.status}{code}"


def _not_planted(record: SelftestRecord) -> tuple[Block, ...]:
    if not record.not_planted:
        return ()
    by_reason: dict[str, list[str]] = {}
    for left_out in record.not_planted:
        by_reason.setdefault(left_out.reason, []).append(left_out.planted)
    items = tuple(
        f"{_sentence_case(reason)}: {'; '.join(planted)}." for reason, planted in by_reason.items()
    )
    return (Text(f"Not planted inside a run. {_WHOLE}", "note"), Bullets(items))


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


THREAT_MODEL = (
    "Isolation guards against mistakes and temptation inside a team, not against somebody who owns "
    "the machine."
)


def isolation_section(evidence: ReportEvidence) -> Section:
    """Build the section: level in force, refused reads, seal, openings, limits."""
    isolation = evidence.get(IsolationRecord)
    blocks: list[Block] = [Text(THREAT_MODEL)]
    blocks.extend(_level(isolation))
    blocks.extend(_seal(evidence.get(SealRecord), evidence.unit))
    blocks.extend(_opening(evidence))
    blocks.extend(selftest_blocks(evidence.get(SelftestRecord)))
    if isolation and isolation.limits:
        blocks.extend((Heading("What it does not protect against"),))
        blocks.append(Bullets(isolation.limits))
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
    """List the generator's own forbidden attempts while it ran; empty without any."""
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
    evaluation = evidence.get(EvaluationRecord)
    opening = evaluation.opening if evaluation else None
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
