"""What a recomputation says: a claim, values with their rules, a verdict."""

from dataclasses import dataclass
from enum import StrEnum

PAPER = "arXiv:2304.03941"
"""Iskandar et al., "Towards Realistic Ultrasound Fetal Brain Imaging Synthesis", MIDL 2023."""

CODE = "github.com/budai4medtech/midl2023"
"""The published code, read and not run."""


class Verdict(StrEnum):
    """What follows for a claim; in words, as printed."""

    REPRODUCED = "reproduced"
    NOT_AS_STATED = "not reproducible as stated"
    UNDECIDED = "cannot be decided from what is public"
    NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True)
class Value:
    """One recomputed number.

    Attributes:
        name: What it is, in words.
        value: The number, unrounded; None where it was not computed.
        shown: The number as printed, with its unit or its "of n".
        rule: How to compute it by hand.
    """

    name: str
    value: int | float | str | None
    shown: str
    rule: str


@dataclass(frozen=True)
class Finding:
    """One claim and what became of it.

    Attributes:
        number: Its place in the list, e.g. "1.1".
        title: A few words.
        claim: What is claimed, quoted or in short.
        where: Where the claim stands.
        values: What was recomputed.
        verdict: What follows.
        because: One or two sentences from the values to the verdict.
        source: Files that the values are from.
        read: What was read in the published code and not recomputed; "" if nothing.
    """

    number: str
    title: str
    claim: str
    where: str
    values: tuple[Value, ...]
    verdict: Verdict
    because: str
    source: str
    read: str = ""


def count(name: str, n: int, rule: str, *, of: int | None = None) -> Value:
    """A count, shown with its whole and its share where there is one."""
    shown = f"{n:,}" if of is None else f"{n:,} of {of:,}"
    if of:
        shown += f" ({100 * n / of:.1f} %)"
    return Value(name, n, shown, rule)


def number(name: str, value: float, rule: str, *, digits: int = 2) -> Value:
    """A real number, shown with a fixed number of decimals."""
    return Value(name, float(value), f"{value:.{digits}f}", rule)


def not_evaluated(
    numbered: str, title: str, *, claim: str, where: str, reason: str, source: str
) -> Finding:
    """A finding for which something was missing; the reason says what."""
    return Finding(numbered, title, claim, where, (), Verdict.NOT_EVALUATED, reason, source)
