"""The evidence map as a Markdown page: principle > item > check > step, from policy and registry.

`python -m governance.checks.evidence_map docs/gmlp.md` writes it into the page, between its marks.
"""

import sys
from pathlib import Path

from governance.checks.registry import CHECKS
from governance.policy.load import load_policy
from governance.records.errors import PolicyError
from governance.records.files import write_atomic
from governance.records.policy import Criterion, Item, Policy, Principle

BEGIN = "<!-- evidence map: begin (generated) -->"
END = "<!-- evidence map: end -->"
_OPERATORS = {"==": "=", "<=": "≤", ">=": "≥"}


def markdown_table(policy: Policy) -> str:
    """Return the gate and one table for each principle, as Markdown."""
    parts = [_gate(policy), _controls(policy), *map(_principle, policy.principles)]
    return "\n\n".join(parts) + "\n"


def with_map(page: str, policy: Policy) -> str:
    """Return the page with the part between its marks replaced by today's map.

    Raises:
        PolicyError: The page does not hold both marks, once each and in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise PolicyError(f"expected one {BEGIN!r} and one {END!r} after it; put them in")
    return f"{before}{BEGIN}\n\n{markdown_table(policy)}\n{END}{after}"


def _gate(policy: Policy) -> str:
    rows = [
        f"| {gate.item_id} | {_cell(policy.item(gate.item_id).title)} | {gate.exit_code} |"
        for gate in policy.gate
    ]
    head = ["## Gate items", "", "| item | what must be shown | exit code when it fails |"]
    return "\n".join([*head, "|---|---|---|", *rows])


def _controls(policy: Policy) -> str:
    rows = [
        f"| `{order.control}` | {order.must_be} {'' if order.must_be == 'at least' else 'than '}"
        f"{order.than} | {', '.join(order.metrics)} |"
        for order in policy.controls
    ]
    head = ["## Controls", "", "| control | must be | in |", "|---|---|---|"]
    minimum = policy.fidelity_minimum
    words = (
        f"Minimum for credit in P6-04, P6-05 and P6-07: {minimum.metric.upper()} nearer than "
        f"{' and '.join(minimum.nearer_than)}, intervals apart. {minimum.reason}"
        if minimum
        else "No minimum is set."
    )
    limits = policy.copying
    copying = (
        f"Search for copied parts (P6-04): at least {100 * limits.least_recall:g} % of planted altered "
        f"copies found, at most {100 * limits.most_unseen:g} % of unseen images flagged, C_T at least "
        f"{limits.least_c_t:g}. {limits.reason}"
        if limits
        else "No limit is set on the search for copied parts."
    )
    return "\n".join([*head, *rows, "", words, "", copying])


def _principle(principle: Principle) -> str:
    lines = [
        f"## {principle.id} {principle.title_2021}",
        "",
        f"IMDRF N88 (2025): {principle.title_n88}.",
        "",
        f"Auditors ask: {principle.auditor_questions}",
    ]
    if principle.ceiling:
        lines += ["", principle.ceiling]
    lines += ["", "| item | class | what must be shown | criterion | from | check | step |"]
    lines += ["|---|---|---|---|---|---|---|", *(_row(item) for item in principle.items)]
    return "\n".join(lines)


def _row(item: Item) -> str:
    registered = CHECKS.get(item.id)
    function, step = "", ""
    if item.kind == "human":
        function = "a named person's word"
    elif registered is None:
        function = "not implemented yet"
    else:
        module = registered.function.__module__.rsplit(".", 1)[-1]
        function = f"`{module}.{registered.function.__name__}`"
        step = f"`{registered.step}`"
    title = f"{item.title} (only if {item.when})" if item.when else item.title
    cells = (item.id, item.item_class.value, title, _criterion(item.criterion), item.source)
    return f"| {' | '.join(_cell(cell) for cell in cells)} | {function} | {step} |"


def _criterion(criterion: Criterion | None) -> str:
    if criterion is None:
        return ""
    if criterion.operator == "none":
        return f"{criterion.metric}: recorded"
    sign = _OPERATORS[criterion.operator]
    if criterion.value is None:
        return f"{criterion.metric} {sign} limit of the configuration"
    if isinstance(criterion.value, bool):
        return f"{criterion.metric}: {'yes' if criterion.value else 'no'}"
    return f"{criterion.metric} {sign} {criterion.value} {criterion.unit}".strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the map into the pages named on the command line."""
    for name in arguments:
        page = Path(name)
        write_atomic(page, with_map(page.read_text("utf-8"), load_policy()).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
