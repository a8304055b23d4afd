"""The self-test itself: each plant tried beside a clean control, and what that shows."""

import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from governance.evidence.documents import GuardAnswer, NotPlanted, PlantTrial, SelftestRecord
from pipelines.console import Console
from pipelines.errors import InterruptedByUser, MachineError
from pipelines.selftest.bench import Bench
from pipelines.selftest.data_plants import DATA_PLANTS
from pipelines.selftest.plants import STOPS, Answers, Plant

PLANTS: tuple[Plant, ...] = DATA_PLANTS


def run_selftest(scope: Literal["quick", "full"], console: Console) -> SelftestRecord:
    """Plant faults one at a time and see which guard catches each.

    Args:
        scope: "quick" tries what takes a moment and trains nothing; "full" tries every plant.
        console: Where progress goes; obeys a stop request.

    Raises:
        MachineError: There is no room for temporary files.
        InterruptedByUser: A stop was asked for.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    chosen = [plant for plant in PLANTS if scope == "full" or not plant.why_not_quick]
    try:
        with tempfile.TemporaryDirectory(prefix="medisynth-gov-selftest-") as folder:
            trials = _try_all(chosen, Path(folder).resolve(), console)
    except OSError as error:
        raise MachineError(
            f"self-test: temporary files cannot be written ({error.strerror or error}); free some "
            "space or set TMPDIR"
        ) from error
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
        control = plant.trial(bench, False)
        answers = plant.trial(bench, True)
    except InterruptedByUser:
        raise
    except STOPS as error:
        fault = str(error)
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


def _without(folder: Path, answers: Answers) -> Answers:
    """Answers whose sentences do not name the temporary folder, so that they can be compared."""

    def shortened(answer: GuardAnswer) -> GuardAnswer:
        sentence = answer.sentence.replace(f"{folder}/", "")
        return answer.model_copy(update={"sentence": sentence})

    return tuple(shortened(answer) for answer in answers)
