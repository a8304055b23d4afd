"""Tries the plants one by one; the result goes to the screen, a file or a run's record."""

import re
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from errno import EDQUOT, EIO, ENOSPC, EROFS
from pathlib import Path
from typing import Literal

from governance.records.errors import InterruptedByUser, MachineError, MedisynthGovError
from governance.records.files import write_atomic
from governance.records.selftest import GuardAnswer, NotPlanted, PlantTrial, SelftestRecord
from governance.reports import formats
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.selftest.bench import Answers, Bench, Plant, alarm_of
from pipelines.selftest.boundary_plants import BOUNDARY_PLANTS
from pipelines.selftest.data_plants import DATA_PLANTS
from pipelines.selftest.isolation_plants import ISOLATION_PLANTS
from pipelines.selftest.model_plants import MODEL_PLANTS
from pipelines.selftest.record_plants import RECORD_PLANTS

PLANTS: tuple[Plant, ...] = (
    *DATA_PLANTS,
    *BOUNDARY_PLANTS,
    *ISOLATION_PLANTS,
    *MODEL_PLANTS,
    *RECORD_PLANTS,
)

_NO_ROOM = (ENOSPC, EDQUOT, EROFS, EIO)
_MAKE_ROOM = "free some space or set TMPDIR"


def run_selftest(scope: Literal["quick", "full"], console: Console) -> SelftestRecord:
    """Plant faults one at a time and record which guards catch them.

    Args:
        scope: "quick" tries the fast plants without training; "full" tries every plant.
        console: Shows progress; a stop request is obeyed.

    Raises:
        MachineError: There is no room for temporary files.
        InterruptedByUser: A stop was asked for.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    chosen = [plant for plant in PLANTS if scope == "full" or not plant.why_not_quick]
    with _temporary_folder() as folder:
        trials = _try_all(chosen, Path(folder).resolve(), console)
    left_out = [plant for plant in PLANTS if plant not in chosen]
    return SelftestRecord(
        scope=scope,
        started_utc=started,
        trials=trials,
        not_planted=tuple(
            NotPlanted(name=p.name, planted=p.planted, reason=p.why_not_quick) for p in left_out
        ),
        duration_s=round(time.monotonic() - clock, 3),
    )


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="medisynth-gov-selftest-")
    except OSError as error:
        raise MachineError(
            f"self-test: no temporary folder can be made ({error.strerror or error}); {_MAKE_ROOM}"
        ) from error


def _try_all(chosen: Sequence[Plant], folder: Path, console: Console) -> tuple[PlantTrial, ...]:
    bench = Bench(folder, console)
    trials = []
    try:
        for number, plant in enumerate(chosen):
            console.progress("trying the guards", number, len(chosen))
            trials.append(try_plant(plant, bench))
    finally:
        bench.end()
    console.progress("trying the guards", len(chosen), len(chosen))
    return tuple(trials)


def try_plant(plant: Plant, bench: Bench) -> PlantTrial:
    """Give the guards the clean control, then the planted fault."""
    started = time.monotonic()
    control: Answers = ()
    answers: Answers = ()
    fault = ""
    try:
        control = _answers(plant, bench, is_planted=False)
        answers = _answers(plant, bench, is_planted=True)
    except InterruptedByUser:
        raise
    except MedisynthGovError as error:  # the machine failed: no verdict
        fault = str(error)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        fault = f"the temporary folder cannot be written ({error.strerror}); {_MAKE_ROOM}"
    alarms = {answer.guard for answer in answers if answer.is_alarm}
    answered = {answer.guard for answer in control}
    return PlantTrial(
        name=plant.name,
        about=plant.about,
        planted=plant.planted,
        expected=plant.expected,
        failure_exit_code=plant.failure_exit_code,
        answers=_without(bench.folder, answers),
        control=_without(bench.folder, control),
        is_caught={*plant.expected} <= alarms,
        is_control_clean={*plant.expected} <= answered
        and not any(answer.is_alarm for answer in control),
        duration_s=round(time.monotonic() - started, 3),
        fault=fault.replace(f"{bench.folder}/", ""),
    )


def _answers(plant: Plant, bench: Bench, *, is_planted: bool) -> Answers:
    """Return the guards' answers; an unexpected error also counts as an alarm."""
    try:
        return plant.trial(bench, is_planted)
    except InterruptedByUser:
        raise
    except MedisynthGovError as error:
        return (alarm_of(error),)


def _without(folder: Path, answers: Answers) -> Answers:
    """Shorten paths in the answers: they begin at the run folder or the data folder."""
    prefix = re.compile(rf"{re.escape(str(folder))}/(\d{{3}}/)?((runs/)?selftest/)?")

    def shortened(answer: GuardAnswer) -> GuardAnswer:
        return answer.model_copy(update={"sentence": prefix.sub("", answer.sentence)})

    return tuple(shortened(answer) for answer in answers)


_SENTENCE_CHARACTERS = 160
_MACHINE = 7


def exit_code(record: SelftestRecord) -> int:
    """Return the exit code: 0 when every plant was caught and every control clean.

    4 when a plant that leaks data failed, 5 when only others did, 7 when nothing failed but a
    plant could not be tried to its end.
    """
    failed = {trial.failure_exit_code for trial in record.trials if _is_failed(trial)}
    if failed:
        return min(failed)
    return _MACHINE if any(trial.fault for trial in record.trials) else 0


def _is_failed(trial: PlantTrial) -> bool:
    return not trial.is_proof and not trial.fault


def as_text(record: SelftestRecord) -> str:
    """Return text for the screen: a block a plant, then how many were caught."""
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
    path = folder / SelftestRecord.PATH
    write_atomic(path, record.model_dump_json(indent=1).encode() + b"\n")
    return path


def try_guards(context: RunContext) -> None:
    """Run the quick self-test inside a run and record its result.

    The faults are planted in simulated patients in a temporary folder; the run's own data, ledger
    and keys are not touched. The run goes on in any case: item P4-12 reports the result.

    Raises:
        InterruptedByUser: A stop was asked for.
    """
    console, store = context.console, context.store
    try:
        record = run_selftest("quick", console)
    except MachineError as error:
        console.warn(f"the guards were not tried: {error}")
        return
    store.write_document(record)
    failed = [trial.name for trial in record.trials if not trial.is_proof]
    store.journal.append("guards tried", {"planted": len(record.trials), "without_proof": failed})
    for name in failed:
        console.warn(
            f"self-test: the planted fault {name} does not prove its guard; see {SelftestRecord.PATH}"
        )
