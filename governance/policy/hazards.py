"""The project's list of hazards, and those that a configuration adds."""

import re
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from governance.records.errors import PolicyError
from governance.records.yaml_text import read_yaml

_PACKAGED = "hazards.yaml"
_ADDED = re.compile(r"\s*(\S.*?)\s*:\s*([^:]*?)\s*")
EXPECTED = "expected 'what could go wrong: P6-04, P7-H2', the ids of items that look at it"


class ListedHazard(NamedTuple):
    """One thing that could go wrong.

    Attributes:
        id: Id in the list, e.g. "HZ-01"; those that a configuration adds are "HZ-C1" and so on.
        hazard: What could go wrong.
        harm: What harm it could do; "" where nobody said.
        items: Ids of the items that cover it.
        is_default: Whether it is on the project's own list.
    """

    id: str
    hazard: str
    harm: str
    items: tuple[str, ...]
    is_default: bool


def split_hazard(text: str) -> tuple[str, tuple[str, ...]]:
    """Split a line "hazard: id, id" into the hazard and the item ids.

    Raises:
        PolicyError: The line has another form.
    """
    match = _ADDED.fullmatch(text)
    items = tuple(part.strip() for part in match[2].split(",") if part.strip()) if match else ()
    if match is None or not items:
        raise PolicyError(f"{EXPECTED}; found {text[:80]!a}")
    return match[1], items


def list_hazards(added: Sequence[str] = ()) -> tuple[ListedHazard, ...]:
    """Return the packaged hazards, then those of the configuration, lines "hazard: id, id".

    Raises:
        PolicyError: An added line cannot be read. Whether its ids exist is checked by P6-10.
    """
    data = (resources.files("governance.policy") / _PACKAGED).read_bytes()
    known = read_yaml(data, _PACKAGED).content["hazards"]
    own = [
        ListedHazard(entry["id"], entry["hazard"], entry["harm"], tuple(entry["items"]), True)
        for entry in known
    ]
    more = [
        ListedHazard(f"HZ-C{place}", hazard, "", items, False)
        for place, (hazard, items) in enumerate(map(split_hazard, added), start=1)
    ]
    return (*own, *more)
