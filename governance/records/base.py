"""Terms that all records share: statuses, names of partitions, the base of documents."""

import pkgutil
from enum import StrEnum
from importlib import import_module
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, StringConstraints


class ItemStatus(StrEnum):
    """Status of one evidence item. A human item is never PASSED."""

    PASSED = "passed"
    FAILED = "failed"
    RECORDED = "recorded"  # measured, no criterion
    NOT_EVALUATED = "not evaluated"  # always with a reason
    DECLARED = "declared"  # a named person's word; not verified
    MISSING = "missing"
    NOT_APPLICABLE = "not applicable"  # always with a reason and an owner


class ItemClass(StrEnum):
    """Weight of an item in the roll-up."""

    CORE = "C"
    REQUIRED = "R"
    INFORMATIVE = "I"

    @property
    def word(self) -> str:
        """The class as a word for people, e.g. "core"."""
        return self.name.lower()


class PrincipleStatus(StrEnum):
    """Status of one GMLP principle, best to worst; NOT_APPLICABLE stands apart."""

    SATISFIED = "satisfied"
    DECLARED = "declared"
    PARTIAL = "partial"
    NOT_SATISFIED = "not satisfied"
    NOT_APPLICABLE = "not applicable"


class Gate(StrEnum):
    """Whether every gate item passed; WAIVED: a person waived those that did not."""

    PASSED = "passed"
    WAIVED = "passed with waivers"
    FAILED = "failed"

    @property
    def headline(self) -> str:
        """Return the outcome that reports and card of a finished run state first."""
        return "Gate not passed" if self is Gate.FAILED else f"Gate {self.value}"


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

TRAINING, TUNING, TEST = "training", "tuning", "held-out test set"
PARTITIONS = (TRAINING, TUNING, TEST)


class Document(BaseModel):
    """Base of all documents and their parts: frozen, closed, collections are tuples.

    Attributes:
        PATH: File of the run folder that holds the document, e.g. "data/split.json"; "" for a part
            of another document, and for one that is written to several places.
        ABSENCE: Why a run may lack it: the reason that checks and errors give.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    PATH: ClassVar[str] = ""
    ABSENCE: ClassVar[str] = ""


def document_kinds() -> dict[str, type[Document]]:
    """Return the documents of a run folder by path, sorted: all classes here that name a file."""
    package = import_module(__name__.rpartition(".")[0])
    modules = {f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__)}
    for name in modules:
        import_module(name)
    kinds = [kind for kind in Document.__subclasses__() if kind.__module__ in modules]
    return {kind.PATH: kind for kind in sorted(kinds, key=lambda kind: kind.PATH) if kind.PATH}
