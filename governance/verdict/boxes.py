"""The three boxes of page one: independence of the test set, quality of the images, people's word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from governance.records.base import Gate, ItemStatus
from governance.records.item import ItemRecord
from governance.records.rollup import RollUp
from governance.verdict.sentence import plain, short_title

Standing = Literal["not met", "unknown", "met"]

INTENDED_USE, BETTER_THAN_CONTROLS = "P1-H1", "P6-03"
QUALITY = "Quality of the images"  # title of its box
# What decides whether images are acceptable; the first two must have passed.
_MUST_PASS = (BETTER_THAN_CONTROLS, "P6-04")
_JUDGED = (*_MUST_PASS, "P6-07", "P8-05")
_ORDER: tuple[Standing, ...] = ("not met", "unknown", "met")
_REASON_CHARACTERS = 220


@dataclass(frozen=True)
class VerdictBox:
    """One box.

    Attributes:
        title: What it is about.
        standing: "met", "not met", or "unknown" where it was not judged or people were silent.
        words: Result in few words, e.g. "7 of 8 gate items".
        sentence: Why.
    """

    title: str
    standing: Standing
    words: str
    sentence: str


def verdict_boxes(summary: RollUp, records: Mapping[str, ItemRecord]) -> tuple[VerdictBox, ...]:
    """Return the three boxes of a run that came to its end, worst first.

    Args:
        summary: Roll-up of the run.
        records: Item id -> record.
    """
    found = (_independence(summary), _quality(records), _people(summary, records))
    return tuple(sorted(found, key=lambda box: _ORDER.index(box.standing)))


def _independence(summary: RollUp) -> VerdictBox:
    lines = summary.gate_items
    open_lines = [line for line in lines if line.status is not ItemStatus.PASSED]
    n_passed = len(lines) - len(open_lines)
    standings: dict[Gate, Standing] = {Gate.PASSED: "met", Gate.WAIVED: "unknown"}
    open_words = "; ".join(
        f"{line.item_id} {short_title(line.title)}: {line.status.value}"
        + (", waived" if line.waiver else "")
        for line in open_lines
    )
    return VerdictBox(
        "Integrity and independence",
        standings.get(summary.gate, "not met"),
        f"{summary.gate.headline}: {n_passed} of {len(lines)} gate items",
        f"{open_words}." if open_words else "Evidence is whole; the test set was kept apart.",
    )


def _quality(records: Mapping[str, ItemRecord]) -> VerdictBox:
    known = [records[item_id] for item_id in _JUDGED if item_id in records]
    failed = [record for record in known if record.status is ItemStatus.FAILED]
    passed = [record for record in known if record.status is ItemStatus.PASSED]
    if failed:
        return VerdictBox(QUALITY, "not met", "not acceptable", _reasons(failed))
    if {*_MUST_PASS} <= {record.id for record in passed}:
        return VerdictBox(QUALITY, "met", "acceptable", _reasons(passed))
    unknown = [r for r in known if r.id in _MUST_PASS and r.status is not ItemStatus.PASSED]
    return VerdictBox(
        QUALITY, "unknown", "not judged", _reasons(unknown) or "Nothing was measured."
    )


def _people(summary: RollUp, records: Mapping[str, ItemRecord]) -> VerdictBox:
    n_declared = sum(line.n_declared for line in summary.principles)
    n_human = sum(line.n_human for line in summary.principles)
    intended = records.get(INTENDED_USE)
    is_declared = intended is not None and intended.status is ItemStatus.DECLARED
    use = (
        "The intended use is declared."
        if is_declared
        else "Intended use not declared; the tool itself says: research on synthetic images, not "
        "for diagnosis."
    )
    return VerdictBox(
        "People's statements",
        "met" if n_human and n_declared == n_human else "unknown",
        f"{n_declared} of {n_human} declared",
        use,
    )


def _reasons(records: Sequence[ItemRecord]) -> str:
    """Return what each item found, shortened; an item's title where it gave no reason."""
    return " ".join(f"{r.id}: {_short(plain(r.reason or r.title))}" for r in records)


def _short(text: str) -> str:
    if len(text) <= _REASON_CHARACTERS:
        return f"{text}."
    return text[:_REASON_CHARACTERS].rsplit(" ", 1)[0] + " …"
