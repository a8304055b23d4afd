"""Content on the self-test: whether the guards have ever caught anything."""

from governance.evidence.documents import GuardAnswer, PlantTrial, SelftestRecord
from governance.evidence.documents.selftest import STOPPED
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
    small,
    strong,
)

_SENTENCE_CHARACTERS = 150
_WHOLE = (
    "The whole self-test, with every fault, is the command medisynth-gov selftest; it leaves the "
    "same record."
)


def selftest_blocks(record: SelftestRecord | None) -> tuple[Block, ...]:
    """What was planted, what caught it, and how long it took."""
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
