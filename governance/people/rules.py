"""When a declaration or waiver counts for a run: pure rules.

A declaration never makes an item passed, and a waiver never changes an item's status.
"""

import re
from dataclasses import dataclass
from datetime import date

from governance.people.signature import check_entry_signature
from governance.records.base import ItemStatus
from governance.records.item import CheckResult
from governance.records.people import AppliesTo, Declaration, Declarations, Waiver, WaiverState
from governance.records.policy import Item, Policy

NO_DAY = "no date"
NO_FILE = "nobody declared it: the configuration names no declarations file"
NO_ENTRY = "nobody declared it: the declarations file has no entry for it"
UNTOUCHED = "the entry still holds the template's placeholder"
# Core items that may be declared not applicable; for others that would be a loophole.
MAY_BE_NOT_APPLICABLE = frozenset({"P7-H1", "P10-H1"})
NEVER_WAIVED = frozenset({"P2-07", "P2-08", "P2-12"})
_NEVER_WAIVED_PRINCIPLE = "P4-"
_STOPPING_CODES = {3: "data that break their contract", 4: "leakage", 5: "integrity"}
_PLACEHOLDER = re.compile(
    r"|\?+|-+|\.+|…|x{2,}|n/?a|none|unknown|(your |first |last )?name|(your )?role|"
    r"(jane|john) doe|someone|<.*>|\[.*\]|.*\b(todo|tbd|tba|fixme)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_TO_DO = re.compile(r"\b(todo|tbd|tba|fixme)\b", re.IGNORECASE)
_BINDINGS = (
    ("run", "run"),
    ("config", "configuration"),
    ("version", "version of medisynth-gov"),
    ("data", "data"),
    ("model", "generator"),
)
_TEXTS = ("statement", "owner_name", "owner_role", "reference")


@dataclass(frozen=True)
class RunFacts:
    """The identity of a run, for comparison with `applies_to`; None where it is not known."""

    run: str | None = None
    config: str | None = None
    version: str | None = None
    data: str | None = None
    model: str | None = None


def is_placeholder(text: str) -> bool:
    """Whether a text is empty or a mere placeholder, e.g. "TODO" or "<name>"."""
    return _PLACEHOLDER.fullmatch(text.strip()) is not None


def is_unfilled(text: str) -> bool:
    """Whether a free text is empty or still to be written; "none" counts as an answer."""
    return not text.strip() or _TO_DO.search(text) is not None


def is_untouched(declaration: Declaration) -> bool:
    """Whether an entry is still as the template wrote it, or empty."""
    return is_placeholder(declaration.statement) and is_placeholder(declaration.owner_name)


def why_missing(declaration: Declaration, facts: RunFacts, today: date) -> str:
    """Return every reason why a declaration does not count for a run; "" when it counts.

    Args:
        declaration: Entry of the declarations file.
        facts: Identity of the run.
        today: Day of judgement (UTC); a declaration holds through the day on which it expires.
    """
    if is_untouched(declaration):
        return UNTOUCHED
    given = {name: getattr(declaration, name) for name in _TEXTS}
    faults = [
        f"{name} is {'a placeholder' if text.strip() else 'empty'}"
        for name, text in given.items()
        if is_placeholder(text)
    ]
    if not declaration.meaning:
        faults.append("meaning is empty")
    if declaration.date is None:
        faults.append("date is empty")
    elif declaration.date > today:
        faults.append(f"its date, {declaration.date}, is in the future")
    if declaration.expires is None:
        faults.append("expires is empty")
    elif declaration.expires < today:
        faults.append(f"it expired on {declaration.expires}")
    faults.extend(_reference_faults(declaration))
    if elsewhere := unlike(declaration.applies_to, facts):
        faults.append(elsewhere)
    return "; ".join(faults)


def _reference_faults(declaration: Declaration) -> list[str]:
    given, found = declaration.reference_sha256, declaration.reference_found
    if not given:
        return []
    if found is None:
        return [f"reference_sha256 is given, but {declaration.reference!r} was not found as a file"]
    if found != given:
        return [f"{declaration.reference!r} has sha256 {found[:12]}, declared was {given[:12]}"]
    return []


def unlike(applies_to: AppliesTo, facts: RunFacts) -> str:
    """Return how `applies_to` differs from this run; "" when it names nothing else."""
    faults = []
    n_named = 0
    for key, words in _BINDINGS:
        wanted, found = getattr(applies_to, key), getattr(facts, key)
        if is_placeholder(wanted):
            continue
        n_named += 1
        if found is None:
            faults.append(f"it applies to {words} {wanted}, and this run's is not known")
        elif wanted != found:
            faults.append(f"it applies to {words} {wanted}, this run's is {found}")
    if not n_named:
        known = f"; this run's configuration is {facts.config}" if facts.config else ""
        return f"applies_to is empty or a placeholder{known}"
    return "; ".join(faults)


def can_be_compared(applies_to: AppliesTo, facts: RunFacts) -> bool:
    """Whether everything that `applies_to` names is known of this run."""
    return all(
        getattr(facts, key) is not None
        for key, _ in _BINDINGS
        if not is_placeholder(getattr(applies_to, key))
    )


def binding_words(applies_to: AppliesTo) -> str:
    """Describe what a declaration or waiver applies to, e.g. run, configuration, version."""
    named = [
        f"{words} {getattr(applies_to, key)}"
        for key, words in _BINDINGS
        if not is_placeholder(getattr(applies_to, key))
    ]
    return ", ".join(named) or "nothing"


def human_result(
    item: Item, declarations: Declarations | None, facts: RunFacts, today: date
) -> CheckResult:
    """Return the result of a human item: DECLARED, NOT_APPLICABLE or MISSING, never PASSED."""
    if declarations is None:
        return CheckResult(status=ItemStatus.MISSING, reason=NO_FILE)
    entry = next((d for d in declarations.declarations if d.id == item.id), None)
    if entry is None:
        return CheckResult(status=ItemStatus.MISSING, reason=NO_ENTRY, artifact=Declarations.PATH)
    fault = why_missing(entry, facts, today)
    if fault:
        return CheckResult(status=ItemStatus.MISSING, reason=fault, artifact=Declarations.PATH)
    not_applicable = entry.not_applicable and item.id in MAY_BE_NOT_APPLICABLE
    return CheckResult(
        status=ItemStatus.NOT_APPLICABLE if not_applicable else ItemStatus.DECLARED,
        reason=f"{entry.statement.strip()} ({owner_words(entry)})",
        method=f"{signing_words(entry)}. Applies to {binding_words(entry.applies_to)}; "
        f"holds through {entry.expires}.",
        artifact=Declarations.PATH,
    )


def owner_words(entry: Declaration) -> str:
    """Return name, role, meaning and date of a declaration, joined with commas."""
    day = str(entry.date) if entry.date else NO_DAY
    parts = (entry.owner_name.strip(), entry.owner_role.strip(), entry.meaning, day)
    return ", ".join(part for part in parts if part)


def signing_words(entry: Declaration) -> str:
    """Say how an entry is backed: by a name only, by a file, by a signature."""
    signed = check_entry_signature(entry).words
    reference = entry.reference.strip()
    if entry.reference_found is not None:
        return f"Named, {signed}; file {reference} sha256 {entry.reference_found}"
    return f"Named, {signed}; reference {reference or 'not given'}, not read"


def waiver_refusal(policy: Policy, item_id: str) -> str:
    """Return why an item may not be waived, as a sentence part; "" when it may."""
    item = next((item for item in policy.items if item.id == item_id), None)
    if item is None:
        return "the policy has no such item"
    if item.kind == "human":
        return "it asks for a person's word, so declare it instead"
    gate = {line.item_id: line.exit_code for line in policy.gate}
    if item_id.startswith(_NEVER_WAIVED_PRINCIPLE):
        return "independence and isolation of the held-out test set are never waived"
    if item_id in NEVER_WAIVED or gate.get(item_id) in _STOPPING_CODES:
        what = _STOPPING_CODES.get(gate.get(item_id, 0), "integrity")
        return f"{what} is never waived" if what[0] != "d" else f"{what} are never waived"
    return ""


def waiver_state(waiver: Waiver, facts: RunFacts, today: date, *, is_met: bool) -> WaiverState:
    """Return the state of a waiver; only one "in force" has an effect.

    Args:
        waiver: Entry of the declarations file.
        facts: Identity of the run.
        today: Day of judgement (UTC); a waiver holds through the day on which it expires.
        is_met: Whether the item is met, so that there is nothing to waive.
    """
    if waiver.expires < today:
        return "expired"
    if unlike(waiver.applies_to, facts):
        return "other run"
    return "unused" if is_met else "in force"
