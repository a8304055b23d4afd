"""What a look at the drafted card and report found, before the evidence was closed."""

from typing import Literal

from governance.evidence.documents.base import Document


class TracedPart(Document):
    """One field of the card or section of the report, and the files it was written from.

    Attributes:
        output: "card" or "report".
        part: Id of the field or section.
        n_numbers: Numbers printed in it.
        computed: Those that do not stand in its files just as printed, each once: they are
            counted or computed from them, or belong to fixed words ("95 %").
        sources: Files of the run folder that were read to write it; "records/" is all records.
    """

    output: Literal["card", "report"]
    part: str
    n_numbers: int
    computed: tuple[str, ...]
    sources: tuple[str, ...]


class FoundWord(Document):
    """A word that neither card nor report may use, with what stands around it."""

    output: str
    word: str
    context: str


class CardCheck(Document):
    """Card, its JSON twin and report, drafted and checked (card_check.json).

    The draft differs from what is written later in the standing of the items that this check
    decides, and in root and journal head of the evidence.

    Attributes:
        n_filled: Fields of the card that are filled; n_reasoned: that give a reason instead.
        empty_fields: Fields with neither, as "section.field".
        parts: Fields and sections that print numbers, with the files behind them.
        untraced: Numbers without a file behind them, in words.
        n_limits: Failed, missing and not evaluated items and absent attributes.
        unlisted: Those that card or report leave out, in words.
        n_compared: Statements looked for in card, JSON twin and report.
        disagreements: Those that one of them lacks or says otherwise, in words.
        words: Words found that must not stand there.
    """

    n_filled: int
    n_reasoned: int
    empty_fields: tuple[str, ...]
    parts: tuple[TracedPart, ...]
    untraced: tuple[str, ...]
    n_limits: int
    unlisted: tuple[str, ...]
    n_compared: int
    disagreements: tuple[str, ...]
    words: tuple[FoundWord, ...]
