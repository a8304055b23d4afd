"""The list of hazards: the project's own leads to items that exist, a configuration adds to it."""

import pytest

from governance.policy.hazards import list_hazards, split_hazard
from governance.policy.load import load_policy
from governance.records.errors import PolicyError


def test_every_hazard_of_the_project_has_harm_and_items_of_the_policy() -> None:
    known = {item.id for item in load_policy().items}
    hazards = list_hazards()

    assert len(hazards) > 15
    assert len({hazard.id for hazard in hazards}) == len(hazards)
    for hazard in hazards:
        assert hazard.harm
        assert hazard.is_default
        assert hazard.items
        assert known.issuperset(hazard.items), hazard


def test_what_a_configuration_adds_comes_last_and_says_so() -> None:
    *_, added = list_hazards(["twins are drawn as one: P6-08 ,P7-H2"])

    assert (added.id, added.hazard, added.items) == (
        "HZ-C1",
        "twins are drawn as one",
        ("P6-08", "P7-H2"),
    )
    assert not added.is_default


def test_a_hazard_may_hold_a_colon() -> None:
    assert split_hazard("wrong: a leg: P6-08") == ("wrong: a leg", ("P6-08",))


@pytest.mark.parametrize("text", ["", "no items", "no items: ", ": P6-04", "x: ,"])
def test_a_line_without_hazard_or_items_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="expected 'what could go wrong: P6-04, P7-H2'"):
        split_hazard(text)
