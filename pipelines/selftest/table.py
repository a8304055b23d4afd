"""A self-test on the screen, as a file, and as an exit code."""

from pathlib import Path

from governance.evidence.documents import PlantTrial, SelftestRecord
from governance.files import write_atomic
from governance.reports import formats

_SENTENCE_CHARACTERS = 160
_MACHINE = 7


def exit_code(record: SelftestRecord) -> int:
    """0 when every plant was caught and every control clean.

    4 when one about data getting to where they must not be was not; otherwise 5. 7 when nothing
    failed but a plant could not be tried to its end.
    """
    failed = {trial.failure_exit_code for trial in record.trials if _is_failed(trial)}
    if failed:
        return min(failed)
    return _MACHINE if any(trial.fault for trial in record.trials) else 0


def _is_failed(trial: PlantTrial) -> bool:
    return not trial.is_proof and not trial.fault


def as_text(record: SelftestRecord) -> str:
    """For people: a block a plant, then how many were caught."""
    blocks = [_block(trial) for trial in record.trials]
    n_proof = sum(trial.is_proof for trial in record.trials)
    blocks.append(
        f"{n_proof} of {len(record.trials)} planted faults caught, with a clean control beside "
        f"each; {record.duration_s:.1f} s"
    )
    return "\n".join(blocks)


def _block(trial: PlantTrial) -> str:
    lines = [f"{_word(trial):<10}  {trial.name}: {trial.planted}  ({trial.duration_s:.1f} s)"]
    if trial.fault:
        lines.append(f"{'':<12}{formats.clean(trial.fault, _SENTENCE_CHARACTERS)}")
    for answer in trial.answers:
        code = "" if answer.exit_code is None else f", exit {answer.exit_code}"
        sentence = formats.clean(answer.sentence, _SENTENCE_CHARACTERS)
        lines.append(f"{'':<12}{answer.guard}: {answer.status}{code}; {sentence}")
    if not trial.is_caught and not trial.fault:
        lines.append(f"{'':<12}expected an alarm of each of: {', '.join(trial.expected)}")
    control = "; ".join(f"{answer.guard} {answer.status}" for answer in trial.control)
    lines.append(f"{'':<12}clean control: {control}")
    return "\n".join(lines)


def _word(trial: PlantTrial) -> str:
    if trial.fault:
        return "NOT TRIED"
    if not trial.is_caught:
        return "NOT CAUGHT"
    return "caught" if trial.is_control_clean else "NO PROOF"


def write_record(record: SelftestRecord, folder: Path) -> Path:
    """Write selftest.json into a folder.

    Raises:
        RecordWriteError: It cannot be written.
    """
    path = folder / "selftest.json"
    write_atomic(path, record.model_dump_json(indent=1).encode() + b"\n")
    return path
