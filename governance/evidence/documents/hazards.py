"""What could go wrong, and the items that look at it."""

from typing import Literal

from governance.evidence.documents.base import Document


class Hazard(Document):
    """One thing that could go wrong.

    Attributes:
        id: Id in the list, e.g. "HZ-01".
        hazard: What could go wrong.
        harm: What harm it could do; "" where nobody said.
        items: Ids of the items that look at it.
        set_by: "configuration" when the user added it, else "project default".
    """

    id: str
    hazard: str
    harm: str = ""
    items: tuple[str, ...]
    set_by: Literal["project default", "configuration"] = "project default"


class Hazards(Document):
    """The list of hazards, fixed before training (hazards.json)."""

    hazards: tuple[Hazard, ...]
