"""Read and check a policy file; set limits from a configuration."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from governance.records.base import ItemClass
from governance.records.errors import PolicyError
from governance.records.policy import Item, Policy
from governance.records.yaml_text import read_yaml

MAX_POLICY_BYTES = 256 * 1024
PRINCIPLE_IDS = tuple(f"P{number}" for number in range(1, 11))
_PACKAGED = "gmlp.yaml"
_HUMAN_ID = re.compile(r"^P\d+-H\d+$")
_CONDITION = re.compile(r"^(P\d+-\d+) is not evaluated$")


def load_policy(path: Path | None = None) -> Policy:
    """Read a policy file and check it against the rules for policies.

    Args:
        path: Policy file; None reads the packaged evidence map.

    Raises:
        PolicyError: The file cannot be read, is not valid, or drops or weakens a core item of the
            packaged policy. The message names file and key.
    """
    if path is None:
        return _packaged()
    policy = _parse(path, str(path))
    _refuse_dropped_core_items(policy, _packaged(), str(path))
    _refuse_dropped_controls(policy, _packaged(), str(path))
    return policy


def with_criteria(policy: Policy, overrides: Mapping[str, float | int | bool]) -> Policy:
    """Return the policy with limits from the configuration, marked as set by it.

    Only limits (<= and >=) can be set; equalities, e.g. zero shared patients, stay.

    Args:
        policy: Policy to start from; it is not changed.
        overrides: New limit by item id, finite numbers.

    Raises:
        PolicyError: An id is unknown, its item has no limit, or the value is no finite number.
    """
    known = {item.id: item for item in policy.items}
    for item_id, value in overrides.items():
        _refuse_override(item_id, known.get(item_id), value)
    principles = tuple(
        principle.model_copy(
            update={"items": tuple(_with_limit(item, overrides) for item in principle.items)}
        )
        for principle in policy.principles
    )
    return policy.model_copy(update={"principles": principles})


def condition_item(item: Item) -> str | None:
    """Return the id of the item that must be NOT_EVALUATED for this one to be asked; else None."""
    match = _CONDITION.match(item.when)
    return match.group(1) if match else None


@cache
def _packaged() -> Policy:
    data = (resources.files("governance.policy") / _PACKAGED).read_bytes()
    return _parse(data, _PACKAGED)


def _parse(source: Path | bytes, name: str) -> Policy:
    content = read_yaml(
        source, name, what="a policy", error=PolicyError, most_bytes=MAX_POLICY_BYTES
    ).content
    plain = {**content, "principles": _with_derived_keys(content.get("principles"), name)}
    try:
        policy = Policy.model_validate(plain)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = _place(fault["loc"], plain)
        raise PolicyError(f"{name}: {place}: {fault['msg']}") from error
    _check(policy, name)
    return policy


def _with_derived_keys(principles: Any, name: str) -> Any:
    """Rename `class` (a Python keyword) and derive `kind` from the id, which need not repeat it."""
    if not isinstance(principles, list):
        return principles
    return [_principle_keys(principle, name) for principle in principles]


def _principle_keys(principle: Any, name: str) -> Any:
    if not isinstance(principle, dict) or not isinstance(principle.get("items"), list):
        return principle
    items = [_item_keys(item, name) for item in principle["items"]]
    return {**principle, "items": items}


def _item_keys(item: Any, name: str) -> Any:
    if not isinstance(item, dict):
        return item
    item_id = str(item.get("id", "?"))
    for key in ("kind", "item_class"):
        if key in item:
            raise PolicyError(f"{name}: {item_id}.{key}: not a key of a policy file; remove it")
    renamed = {("item_class" if key == "class" else key): value for key, value in item.items()}
    return {**renamed, "kind": "human" if _HUMAN_ID.match(item_id) else "computed"}


def _place(location: tuple[int | str, ...], content: Any) -> str:
    """Return the place of a fault, with ids for positions, e.g. P4.P4-01.criterion.operator."""
    words: list[str] = []
    for part in location:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(part, int):
            found = content.get("id") or content.get("item_id") if isinstance(content, dict) else ""
            words.append(str(found or part + 1))
        elif part not in ("principles", "items"):
            words.append("class" if part == "item_class" else str(part))
    return ".".join(words) or str(location[-1] if location else "policy")


def _check(policy: Policy, name: str) -> None:
    ids = tuple(principle.id for principle in policy.principles)
    if ids != PRINCIPLE_IDS:
        raise PolicyError(
            f"{name}: principles: expected P1 to P10 in order, found {', '.join(ids)}"
        )
    counts = Counter(item.id for item in policy.items)
    if twice := [item_id for item_id, n in counts.items() if n > 1]:
        raise PolicyError(f"{name}: {twice[0]}: two items have this id; ids are unique")
    for principle in policy.principles:
        for item in principle.items:
            _check_item(item, principle.id, counts, name)
    gate_counts = Counter(gate.item_id for gate in policy.gate)
    for item_id, n in gate_counts.items():
        if item_id not in counts:
            raise PolicyError(f"{name}: gate.{item_id}: no item has this id")
        if n > 1:
            raise PolicyError(f"{name}: gate.{item_id}: named twice; once is enough")
    if not policy.gate:
        raise PolicyError(f"{name}: gate: empty; a gate without items would pass every run")


def _check_item(item: Item, principle_id: str, known: Mapping[str, int], name: str) -> None:
    if not item.id.startswith(f"{principle_id}-"):
        raise PolicyError(f"{name}: {item.id}: stands under {principle_id}; move it")
    if item.kind == "computed" and item.criterion is None:
        raise PolicyError(f'{name}: {item.id}.criterion: missing; operator "none" records only')
    if item.kind == "human" and item.criterion is not None:
        raise PolicyError(f"{name}: {item.id}.criterion: a human item has none; remove it")
    if item.criterion is not None:
        _check_criterion(item, name)
    if item.when and condition_item(item) not in known:
        raise PolicyError(
            f'{name}: {item.id}.when: expected "<item id> is not evaluated" with a known id, '
            f"found {item.when!r}"
        )


def _check_criterion(item: Item, name: str) -> None:
    criterion = item.criterion
    if criterion is None:
        return
    place = f"{name}: {item.id}.criterion"
    if criterion.set_by != "project default":
        raise PolicyError(f"{place}.set_by: only the run's configuration sets it; remove it")
    if criterion.operator == "none" and criterion.value is not None:
        raise PolicyError(f'{place}.value: operator "none" compares with nothing; remove the value')
    if criterion.operator == "==" and criterion.value is None:
        raise PolicyError(f"{place}.value: missing; == needs a value")
    is_limit = criterion.operator in ("<=", ">=") and criterion.value is not None
    if is_limit and not _is_finite_number(criterion.value):
        raise PolicyError(f"{place}.value: expected a finite number, found {criterion.value!r}")


def _refuse_dropped_core_items(policy: Policy, packaged: Policy, name: str) -> None:
    found = {item.id: item for item in policy.items}
    for item in packaged.items:
        if item.item_class is not ItemClass.CORE:
            continue
        if item.id not in found:
            raise PolicyError(f"{name}: {item.id}: core item is missing; add {item.title!r}")
        if found[item.id].item_class is not ItemClass.CORE:
            raise PolicyError(f"{name}: {item.id}.class: must stay C; it is a core item")
        if found[item.id].when != item.when:
            raise PolicyError(f"{name}: {item.id}.when: a core item is always asked for; remove it")
        if _fixed_part(found[item.id]) != _fixed_part(item):
            # "== 5 shared patients" or operator "none" would keep the item in name only.
            raise PolicyError(
                f"{name}: {item.id}.criterion: operator and == value of a core item are fixed; "
                "only limits (<=, >=) may differ"
            )


def _refuse_dropped_controls(policy: Policy, packaged: Policy, name: str) -> None:
    """Raise an error where a policy asks less of controls than the packaged one: core items do."""
    for order in packaged.controls:
        asked = {
            metric
            for own in policy.controls
            if (own.control, own.must_be, own.than) == (order.control, order.must_be, order.than)
            for metric in own.metrics
        }
        if lacking := [metric for metric in order.metrics if metric not in asked]:
            than = "" if order.must_be == "at least" else "than "
            raise PolicyError(
                f"{name}: controls: {order.control} {order.must_be} {than}{order.than} is not "
                f"asked of {', '.join(lacking)}; add it, core items rest on it"
            )
    minimum, least = policy.fidelity_minimum, packaged.fidelity_minimum
    if least is not None and (
        minimum is None
        or minimum.metric != least.metric
        or not set(least.nearer_than) <= set(minimum.nearer_than)
    ):
        raise PolicyError(
            f"{name}: fidelity_minimum: expected {least.metric} nearer than "
            f"{' and '.join(least.nearer_than)} at least; P6-04 rests on it"
        )


def _fixed_part(item: Item) -> tuple[object, ...]:
    criterion = item.criterion
    if criterion is None:
        return ()
    return (criterion.operator, criterion.value if criterion.operator == "==" else None)


def _refuse_override(item_id: str, item: Item | None, value: object) -> None:
    place = f"criteria.{item_id}"
    if item is None:
        raise PolicyError(f"{place}: the policy has no such item")
    criterion = item.criterion
    if criterion is None or criterion.operator not in ("<=", ">="):
        fixed = "has no criterion" if criterion is None else "has no limit that can be set"
        raise PolicyError(f"{place}: {item.title} {fixed}; remove it")
    if not _is_finite_number(value):
        raise PolicyError(f"{place}: expected a finite number, found {value!r}")


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _with_limit(item: Item, overrides: Mapping[str, float | int | bool]) -> Item:
    if item.id not in overrides or item.criterion is None:
        return item
    update = {"value": overrides[item.id], "set_by": "configuration"}
    return item.model_copy(update={"criterion": item.criterion.model_copy(update=update)})
