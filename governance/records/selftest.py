"""The self-test of the guards: faults planted, guards that caught them, clean controls."""

from datetime import datetime
from typing import Literal

from governance.records.base import Document

STOPPED = "stopped"


class GuardAnswer(Document):
    """Answer of one guard to one input.

    Attributes:
        guard: Item of the policy ("P4-01"), code of the error that stops a run ("L000"), or name
            of the guard ("confinement", "verify").
        status: Status of the item, `STOPPED` for an error, or another answer of the guard.
        is_alarm: Whether the answer is an alarm.
        exit_code: Exit code that it brings to a run; None when it changes none.
        sentence: The answer for people.
    """

    guard: str
    status: str
    is_alarm: bool
    exit_code: int | None
    sentence: str


class PlantTrial(Document):
    """One fault planted on purpose, tried beside a clean control.

    Attributes:
        name: Name of the plant, e.g. "patient-in-both".
        about: Kind of fault, e.g. "patient", "duplicate", "early read".
        planted: Description of the planted fault.
        expected: Guards that must each raise an alarm.
        failure_exit_code: Exit code of a self-test in which it is not caught: 4 or 5.
        answers: Answers of the guards to the planted fault.
        control: Their answers to the clean control.
        is_caught: Whether every expected guard raised an alarm.
        is_control_clean: Whether the expected guards judged the control and none raised an alarm.
        duration_s: Time of both.
        fault: Why it could not be tried to its end; empty when it was.
    """

    name: str
    about: str
    planted: str
    expected: tuple[str, ...]
    failure_exit_code: Literal[4, 5]
    answers: tuple[GuardAnswer, ...]
    control: tuple[GuardAnswer, ...]
    is_caught: bool
    is_control_clean: bool
    duration_s: float
    fault: str = ""

    @property
    def is_proof(self) -> bool:
        """Whether the trial shows that the guard works: caught, and silent on the control."""
        return self.is_caught and self.is_control_clean and not self.fault


class NotPlanted(Document):
    """A fault that was not planted this time, and why."""

    name: str
    planted: str
    reason: str


class SelftestRecord(Document):
    """Result of a self-test (selftest.json).

    Attributes:
        scope: "quick" inside a run, "full" by the command.
        started_utc: When it began.
        trials: One for each planted fault.
        not_planted: Faults left out, and why.
        duration_s: Time of the whole.
    """

    PATH = "selftest.json"
    ABSENCE = "the guards were not tried in this run"

    scope: Literal["quick", "full"]
    started_utc: datetime
    trials: tuple[PlantTrial, ...]
    not_planted: tuple[NotPlanted, ...]
    duration_s: float
