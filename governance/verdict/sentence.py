"""Write the verdict for the first page: gate, gaps, or where and why a run stopped."""

import re
from collections.abc import Sequence

from governance.records.base import ItemStatus, PrincipleStatus
from governance.records.rollup import EXIT_CODES_WORST_FIRST, GateLine, PrincipleLine
from governance.records.run import Outcome

_WITHOUT_GAPS = (
    PrincipleStatus.SATISFIED,
    PrincipleStatus.DECLARED,
    PrincipleStatus.NOT_APPLICABLE,
)
_FIRST_STEP_AFTER_TRAINING = 6
_TRAINING_STEP = 5
_MOST_NAMED = 3  # more open gate items than this are named by id alone


def verdict(
    outcome: Outcome | None,
    gate: Sequence[GateLine],
    principles: Sequence[PrincipleLine],
    absent: Sequence[str],
) -> str:
    """Say how the run ended, whether the gate passed, and how many principles have gaps.

    Args:
        outcome: How the run ended; None while it has not.
        gate: Gate items with their status.
        principles: Principles with their status.
        absent: Absent results that a reader must know of.
    """
    if outcome is not None and outcome.status != "finished":
        return _stopped(outcome)
    open_lines = sorted(
        (line for line in gate if line.exit_code != 0),
        key=lambda line: EXIT_CODES_WORST_FIRST.index(line.exit_code),
    )
    gaps = _principles_with_gaps(principles)
    waived = [line for line in gate if line.waiver]
    n_passed = sum(line.status is ItemStatus.PASSED for line in gate)
    if open_lines and waived:
        words = f"Gate not passed: {_standings(open_lines)}; waived: {_standings(waived)}. {gaps}."
    elif open_lines:
        words = f"Gate not passed: {_standings(open_lines)}. {gaps}."
    elif waived:
        words = (
            f"Gate passed with waivers: {n_passed} of {len(gate)} gate items passed; "
            f"waived: {_standings(waived)}. {gaps}."
        )
    else:
        words = f"Gate passed: all {len(gate)} gate items passed. {gaps}."
    names = "; ".join(plain(name) for name in absent)
    return f"{words} Not evaluated: {names}." if names else words


def short_title(title: str) -> str:
    """Return an item's title up to its first colon, semicolon or bracket."""
    return re.split(r"[:;(]", title)[0].strip()


def _standings(lines: Sequence[GateLine]) -> str:
    """List ids and statuses, with titles where they are few; reasons stay in the records."""
    if len(lines) > _MOST_NAMED:
        return ", ".join(f"{line.item_id} {line.status.value}" for line in lines)
    return "; ".join(
        f"{line.item_id} {short_title(line.title)}: {line.status.value}" for line in lines
    )


def _principles_with_gaps(principles: Sequence[PrincipleLine]) -> str:
    gaps = [line for line in principles if line.status not in _WITHOUT_GAPS]
    if not gaps:
        return f"All {len(principles)} principles have no gaps"
    worst = [line.id for line in gaps if line.status is PrincipleStatus.NOT_SATISFIED]
    n_met = len(principles) - len(gaps)
    met = (
        f"{n_met} of {len(principles)} principles have no gaps"
        if n_met
        else "No principle is fully met"
    )
    if not worst:
        return met
    numbers = ", ".join(one.removeprefix("P") for one in worst)
    return f"{met}; {len(worst)} {'is' if len(worst) == 1 else 'are'} not met: {numbers}"


def _stopped(outcome: Outcome) -> str:
    how = "Interrupted" if outcome.status == "interrupted" else "Stopped"
    where = f" at {outcome.stopped_at}" if outcome.stopped_at else ""
    why = f": {plain(outcome.message)}" if outcome.message.strip() else ""
    return f"{how}{where}{why}; {_what_was_trained(outcome)}."


def _what_was_trained(outcome: Outcome) -> str:
    trained = any(
        _step_number(timing.step) == _TRAINING_STEP and timing.status == "finished"
        for timing in outcome.steps
    )
    if trained:
        return "the model was trained, but the run did not finish"
    begun = any(
        _step_number(timing.step) == _TRAINING_STEP and timing.status != "skipped"
        for timing in outcome.steps
    )
    if begun or _step_number(outcome.stopped_at or "") >= _FIRST_STEP_AFTER_TRAINING:
        return "training did not finish"
    return "nothing was trained"


def _step_number(step: str) -> int:
    match = re.match(r"s(\d+)_", step)
    return int(match.group(1)) if match else 0


def plain(text: str) -> str:
    """Return a text on one line, without a full stop at its end."""
    return " ".join(text.split()).rstrip(".")
