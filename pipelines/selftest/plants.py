"""What a plant is, and how the answer of a guard is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from governance.errors import GovernanceError
from governance.evidence.documents import GuardAnswer
from governance.evidence.documents.selftest import STOPPED
from medisynth.errors import MedisynthError
from pipelines.errors import InterruptedByUser, PipelineError

if TYPE_CHECKING:
    from pipelines.selftest.bench import Bench

Answers = tuple[GuardAnswer, ...]
LEAKAGE: Literal[4] = 4
INTEGRITY: Literal[5] = 5
LONGER = "left to the whole self-test, which takes longer"
TRAINS = "needs training, which takes longer"
STOPS = (GovernanceError, MedisynthError, PipelineError)
_MACHINE = 7


@dataclass(frozen=True)
class Plant:
    """One fault and the guards that must catch it.

    Attributes:
        name: Short name.
        about: What it is about; the check of P4-12 asks for "patient", "duplicate", "early read".
        planted: What is planted, in words.
        expected: Guards that must each raise an alarm: items, error codes, names of guards.
        failure_exit_code: 4 where data would get to where they must not be, else 5.
        trial: Gives the guards the clean control (False) or the planted fault (True).
        why_not_quick: Why a run does not try it by itself; empty when it does.
    """

    name: str
    about: str
    planted: str
    expected: tuple[str, ...]
    failure_exit_code: Literal[4, 5]
    trial: "Callable[[Bench, bool], Answers]"
    why_not_quick: str = ""


def stopped_by(guard: str, work: Callable[[], object]) -> Answers:
    """Do work that a guard must stop, and say whether it did, and which guard it was.

    Args:
        guard: Error code that is expected, for the answer when nothing stops the work.
        work: The work.

    Raises:
        InterruptedByUser: A stop was asked for.
        GovernanceError, MedisynthError, PipelineError: Of the machine (exit code 7): no verdict.
    """
    try:
        work()
    except InterruptedByUser:
        raise
    except STOPS as error:
        return (alarm_of(error),)
    return (silent(guard, "did not stop it"),)


def alarm_of(error: GovernanceError | MedisynthError | PipelineError) -> GuardAnswer:
    """The alarm that an error is; an error of the machine is none and is raised again."""
    if error.exit_code == _MACHINE:
        raise error
    return GuardAnswer(
        guard=error.code,
        status=STOPPED,
        is_alarm=True,
        exit_code=error.exit_code,
        sentence=str(error),
    )


def silent(guard: str, status: str, sentence: str = "") -> GuardAnswer:
    """Answer of a guard that raised no alarm."""
    return GuardAnswer(
        guard=guard, status=status, is_alarm=False, exit_code=None, sentence=sentence
    )
