"""The section on isolation of the held-out test set and on the self-test of the guards."""

from governance.records.base import TEST, TRAINING, TUNING
from governance.records.evaluation import EvaluationRecord
from governance.records.partition import IsolationRecord, RefusedRead, SealRecord, SplitRecord
from governance.records.selftest import STOPPED, GuardAnswer, PlantTrial, SelftestRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Boxes,
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
from governance.reports.sections.data_coverage import partition_boxes

_SENTENCE_CHARACTERS = 150
_PRIMARY_ENDPOINT = "P8-02"
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
    tried = selftest_blocks(evidence.get(SelftestRecord))
    blocks: list[Block] = [*_attempts(isolation), *(tried[:1] if tried[2:] else ()), *tried[2:]]
    if isolation and isolation.limits:
        blocks.extend((Heading("What it does not protect against"),))
        blocks.append(Bullets(isolation.limits))
    return Section(
        "isolation",
        "4",
        "Isolation of the held-out test set",
        blocks=tuple(blocks),
        main=(
            Text(THREAT_MODEL),
            *_partition_diagram(evidence),
            *_level(isolation),
            *_seal(evidence.get(SealRecord), evidence.unit),
            *_opening(evidence),
            *tried[:2],
        ),
    )


def _partition_diagram(evidence: ReportEvidence) -> tuple[Block, ...]:
    """Draw each partition, and below it who may read it."""
    split, seal = evidence.get(SplitRecord), evidence.get(SealRecord)
    if split is None:
        return ()
    evaluation = evidence.get(EvaluationRecord)
    opening = evaluation.opening if evaluation else None
    sealed = "sealed and encrypted" if seal and seal.encryption else "sealed"
    read = {
        TRAINING: ("training process", "fits the generator"),
        TUNING: ("training process", "chooses the checkpoint"),
        TEST: (
            sealed if seal else "not sealed",
            f"opening {opening.number}" if opening else "never opened",
        ),
    }
    boxes = partition_boxes(split)
    below = tuple(read.get(name, ("nobody", "not used")) for name, _ in boxes)
    return (Boxes("Who may read which part of the data", (boxes, below)),)


def _level(isolation: IsolationRecord | None) -> tuple[Block, ...]:
    if isolation is None:
        return (Text("No training process is on record, so no isolation was in force."),)
    n_refused = sum(attempt.refused for attempt in isolation.attempts)
    refused = (
        f"{formats.count(n_refused)} of {formats.counted(len(isolation.attempts), 'attempt')} to "
        "read what training must not"
    )
    facts = (
        ("Level in force", cell(strong(f"{isolation.level} of 5: {isolation.level_name}"))),
        ("Enforced by", cell(isolation.mechanism)),
        ("Refused before the first step", cell(refused)),
        ("Reads of sealed files before the opening", cell(formats.count(isolation.n_sealed_reads))),
    )
    return (Facts(facts), *_noticed(isolation))


def _attempts(isolation: IsolationRecord | None) -> tuple[Block, ...]:
    if isolation is None:
        return ()
    rows = tuple(
        (cell(attempt.target), _result(attempt), cell(attempt.error))
        for attempt in isolation.attempts
    )
    head = columns(
        ("What it tried to read", 0.40), ("Result", 0.22), ("Answer of the system", 0.38)
    )
    return (
        Heading("What the training process tried before its first step"),
        Table(head, rows, "" if rows else "No attempt is on record."),
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


def opening_words(evidence: ReportEvidence) -> str:
    """Say what an opening of the test set is worth: confirmatory only with a limit frozen before it.

    "" where the test set was not opened.
    """
    evaluation = evidence.get(EvaluationRecord)
    opening = evaluation.opening if evaluation else None
    if opening is None:
        return ""
    if opening.number > 1:
        times = formats.counted(opening.number - 1, "time")
        return (
            f"this test set has been used before, {times} ({opening.label}): read the numbers as "
            "exploratory"
        )
    endpoint = evidence.records.get(_PRIMARY_ENDPOINT)
    limit = endpoint.criterion if endpoint else None
    if limit is not None and limit.value is not None:
        return "first use of this test set, confirmatory: a limit was frozen before it"
    return "first use of this test set, descriptive: no limit was frozen before it"


def _opening(evidence: ReportEvidence) -> tuple[Block, ...]:
    evaluation = evidence.get(EvaluationRecord)
    opening = evaluation.opening if evaluation else None
    if opening is None:
        return (Heading("Opening"), Text("The sealed test set was not opened in this run."))
    facts = (
        (
            "Number over all runs",
            cell(formats.count(opening.number), small(opening_words(evidence))),
        ),
        ("Purpose", cell(opening.purpose)),
        ("Opened", cell(formats.utc(opening.opened_utc))),
        ("Images read", cell(formats.count(opening.n_images))),
        ("Plan", cell(mono(opening.plan_sha256))),
        ("Model", cell(mono(opening.model_sha256))),
    )
    return (Heading("Opening"), Facts(facts))
