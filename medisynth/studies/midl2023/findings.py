"""Findings of a recomputation (a claim, values with their rules, a verdict) and published deviations."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

PAPER = "arXiv:2304.03941"
"""Iskandar et al., "Towards Realistic Ultrasound Fetal Brain Imaging Synthesis", MIDL 2023."""

CODE = "github.com/budai4medtech/midl2023"
"""The published code, read and not run."""


class Verdict(StrEnum):
    """Verdict on a claim, as printed."""

    REPRODUCED = "reproduced"
    NOT_AS_STATED = "not reproducible as stated"
    UNDECIDED = "cannot be decided from what is public"
    NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True)
class Value:
    """One recomputed number.

    Attributes:
        name: Description of the number.
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
    """One claim and the result of checking it.

    Attributes:
        number: Number of the finding in the list, e.g. "1.1".
        title: Short title.
        claim: The claim, quoted or summarised.
        where: Place of the claim in the paper or elsewhere.
        values: Recomputed values.
        verdict: Verdict on the claim.
        because: One or two sentences that lead from the values to the verdict.
        source: Files that the values come from.
        read: Facts read in the published code and not recomputed; "" if none.
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
    """Make a count, shown with its total and share where a total is given."""
    shown = f"{n:,}" if of is None else f"{n:,} of {of:,}"
    if of:
        shown += f" ({100 * n / of:.1f} %)"
    return Value(name, n, shown, rule)


def number(name: str, value: float, rule: str, *, digits: int = 2) -> Value:
    """Make a real number, shown with a fixed number of decimals."""
    return Value(name, float(value), f"{value:.{digits}f}", rule)


def not_evaluated(
    numbered: str, title: str, *, claim: str, where: str, reason: str, source: str
) -> Finding:
    """Make a finding that could not be evaluated; the reason states what is missing."""
    return Finding(numbered, title, claim, where, (), Verdict.NOT_EVALUATED, reason, source)


class Deviations(BaseModel):
    """Switches defined by subclasses, all on unless turned off by name.

    The description of a field states the effect of the published choice; the model card lists the
    deviations that are on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def switched_on(self) -> dict[str, str]:
        """Map the name of each deviation that is on to its description."""
        return {
            name: str(field.description)
            for name, field in type(self).model_fields.items()
            if getattr(self, name)
        }
