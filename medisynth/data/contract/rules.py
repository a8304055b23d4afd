"""Combine contract files into one list of rules: base first, then adapter, the user's own last.

A rule that a later built-in file states again replaces the earlier one. The user's own file may
replace a warning or an info; a critical rule it can only tighten.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from governance.records.dataset import Severity
from medisynth.data.contract.file import ContractFile, ImageColumn, MetadataColumn, Path_, whole
from medisynth.data.contract.records import (
    ATTRIBUTE,
    METADATA,
    NUMBER,
    NUMBER_PATTERN,
    AttributeDeclaration,
    DataContract,
    Kind,
    Rule,
    Step,
)

_RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}
_WHOLE_NUMBER = r"[+-]?[0-9]{1,18}"
_Rules = dict[str, Rule]


def combine(files: Sequence[ContractFile], own: ContractFile | None = None) -> DataContract:
    """Combine contract files into one contract.

    Args:
        files: Built-in files, base first; each further one names the file that it extends.
        own: The user's own file.

    Raises:
        SettingsError: A file contradicts itself or an earlier one, or the user's own weakens a
            critical rule.
    """
    name, version = "", 0
    rules: _Rules = {}
    demographics: dict[str, AttributeDeclaration] = {}
    for file in files:
        if file.content.extends != (name or None):
            file.fault(("extends",), f"expected {name!r}, the contract below this one")
        name, version = file.content.name, file.content.version
        _add(file, rules, is_own=False)
        _declare(file, rules, demographics)
    if own is not None:
        if own.content.extends not in {None, name}:
            own.fault(("extends",), f"expected {name!r}, the contract of this data set")
        _add(own, rules, is_own=True)
        _declare(own, rules, demographics)
    digests = tuple((file.path.name, file.sha256) for file in (*files, *([own] if own else [])))
    return DataContract(name, version, _dated(rules), digests, tuple(demographics.values()))


def _dated(rules: _Rules) -> tuple[Rule, ...]:
    """Set `since` of rules about several columns to the step that adds the last of them."""
    since = {rule.column: rule.since for rule in rules.values() if rule.kind == "exists"}
    return tuple(
        replace(
            rule, since=max([rule.since, *(since.get(name, rule.since) for name in rule.reads)])
        )
        for rule in rules.values()
    )


def _add(file: ContractFile, rules: _Rules, *, is_own: bool) -> None:
    """Add the rules of one file to those of earlier files."""
    stated: set[str] = set()
    for where, rule in _rules_of(file, rules):
        if rule.name in stated:
            file.fault(where, f"two rules of this file are named {rule.name!r}; rename one")
        stated.add(rule.name)
        below = rules.get(rule.name)
        if is_own and below is not None and below.severity == "critical":
            if rule.kind == "pattern" and rule.pattern != below.pattern:
                rule = replace(rule, name=f"{rule.name}_own")  # both must match
            else:
                _refuse_weaker(file, where, rule, below)
        rules[rule.name] = rule
    for column, part in file.content.columns.items():
        _refuse_lifted(file, column, part, rules, is_own=is_own)
        _settle_column(column, part, rules)


def _refuse_weaker(file: ContractFile, where: Path_, rule: Rule, below: Rule) -> None:
    """Refuse a user's restatement of a critical rule that is less strict than the rule."""
    weaker = ""
    if rule.severity != "critical":
        weaker = f"severity {rule.severity}"
    elif rule.kind == "allowed" and not set(rule.allowed) <= set(below.allowed):
        more = next(value for value in rule.allowed if value not in below.allowed)
        weaker = f"{more!r} besides the allowed values"
    elif rule.kind in {"range", "row_count"} and _is_wider(rule, below):
        weaker = (
            f"{rule.minimum} to {rule.maximum} where {below.minimum} to {below.maximum} is allowed"
        )
    elif rule.kind == "dtype" and rule.dtype != below.dtype:
        weaker = f"type {rule.dtype} where {below.dtype} is expected"
    elif rule.kind == "when" and replace(rule, reason="") != replace(below, reason=""):
        weaker = "another condition"
    if weaker:
        file.fault(
            where,
            f"weakens the critical rule {rule.name!r} with {weaker}; "
            "your own contract may only tighten critical rules",
        )


def _is_wider(rule: Rule, below: Rule) -> bool:
    minimum, maximum = float("-inf"), float("inf")
    low, low_below = (minimum if r.minimum is None else r.minimum for r in (rule, below))
    high, high_below = (maximum if r.maximum is None else r.maximum for r in (rule, below))
    return low < low_below or high > high_below


def _refuse_lifted(
    file: ContractFile, column: str, part: ImageColumn, rules: _Rules, *, is_own: bool
) -> None:
    """Remove rules that a file lifts by `nullable: true`, `unique: false` or `required: false`.

    Raises:
        SettingsError: The user's own file lifts a critical rule.
    """
    lifted: list[tuple[str, str]] = []
    if part.nullable is True or part.nullable == "all_or_none":
        lifted.append(("nullable", f"{column}_not_null"))
    if part.nullable is True:
        lifted.append(("nullable", f"{column}_all_or_none"))
    if part.unique is False:
        lifted.append(("unique", f"{column}_unique"))
    for key, name in lifted:
        below = rules.get(name)
        if below is None:
            continue
        if is_own and below.severity == "critical":
            file.fault(
                ("columns", column, key),
                f"takes back the critical rule {name!r}; "
                "your own contract may only tighten critical rules",
            )
        del rules[name]
    exists = rules[f"{column}_exists"]
    if is_own and part.required is False and not exists.is_optional:
        file.fault(
            ("columns", column, "required"),
            f"takes back the critical rule {exists.name!r}; "
            "your own contract may only tighten critical rules",
        )


def _settle_column(column: str, part: ImageColumn, rules: _Rules) -> None:
    """Apply a column's `required` and `since` to all its rules."""
    exists = rules[f"{column}_exists"]
    is_optional = exists.is_optional if part.required is None else not part.required
    since: Step = part.since or exists.since
    for name, rule in rules.items():
        if rule.column == column and not rule.parts:
            rules[name] = replace(rule, is_optional=is_optional, since=since)


def _rules_of(file: ContractFile, below: _Rules) -> Iterator[tuple[Path_, Rule]]:
    """Yield the rules that one file states, each with its key in the file."""
    content = file.content
    if content.min_rows is not None:
        reason = f"A table of fewer than {content.min_rows} images supports nothing."
        rule = Rule("row_count", "row_count", "", "critical", reason, minimum=content.min_rows)
        yield ("min_rows",), rule
    for name, column in content.columns.items():
        yield from _image_column(file, name, column, below)
    for name, other in content.metadata.items():
        yield from _metadata_column(name, other)
    for at, cross in enumerate(content.cross_column):
        yield (
            ("cross_column", at),
            Rule(
                cross.name,
                "when",
                cross.column,
                cross.severity,
                cross.reason,
                when_column=cross.when_column,
                when_value=cross.is_ if cross.is_ is not None else cross.is_not or "",
                when_equal=cross.is_ is not None,
                expect_filled=cross.expect == "filled",
                if_recorded=cross.if_recorded,
            ),
        )
    for at, agreement in enumerate(content.agreements):
        rule = Rule(
            agreement.name,
            "pattern",
            ", ".join(agreement.columns),
            agreement.severity,
            agreement.reason,
            pattern=whole(agreement.pattern),
            parts=tuple(agreement.columns),
        )
        yield ("agreements", at), rule


def _image_column(
    file: ContractFile, name: str, column: ImageColumn, below: _Rules
) -> Iterator[tuple[Path_, Rule]]:
    def rule(kind: Kind, **parameters: Any) -> Rule:
        return Rule(f"{name}_{kind}", kind, name, "critical", column.reason, **parameters)

    # A wrong structure makes all other rules of the column meaningless: always critical.
    if f"{name}_exists" not in below:
        for key in ("dtype", "nullable"):
            if getattr(column, key) is None:
                file.fault(("columns", name), f"is new here and needs {key!r}; add it")
        yield ("columns", name, "required"), rule("exists")
    if column.dtype is not None:
        yield ("columns", name, "dtype"), rule("dtype", dtype=column.dtype)
    for key, one in _value_rules(name, name, column):
        yield ("columns", name, key), one


def _metadata_column(name: str, column: MetadataColumn) -> Iterator[tuple[Path_, Rule]]:
    where, shown = ("metadata", name), METADATA + name
    is_optional = column.required is False
    exists = Rule(f"{shown}_exists", "exists", shown, "critical", column.reason)
    yield where, replace(exists, is_optional=is_optional)
    if column.dtype != "text":  # all values are text: a type is a pattern here
        number = _WHOLE_NUMBER if column.dtype == "integer" else NUMBER_PATTERN
        severity = column.severities.get("dtype", column.severity)
        is_number = Rule(f"{shown}_is_{column.dtype}", "pattern", shown, severity, column.reason)
        yield where, replace(is_number, pattern=whole(number), is_optional=is_optional)
    for key, rule in _value_rules(shown, shown, column):
        read = NUMBER + name if rule.kind == "range" else shown
        yield (*where, key), replace(rule, column=read, is_optional=is_optional)


def _value_rules(
    name: str, column: str, part: ImageColumn | MetadataColumn
) -> Iterator[tuple[str, Rule]]:
    """Yield the rules about single values, each with the key that states it."""

    def rule(kind: Kind, **parameters: Any) -> Rule:
        severity = part.severities.get(kind, part.severity)
        return Rule(f"{name}_{kind}", kind, column, severity, part.reason, **parameters)

    if part.nullable is False:
        yield "nullable", rule("not_null")
    if part.nullable == "all_or_none":
        yield "nullable", rule("all_or_none", if_recorded=True)
    if part.unique:
        yield "unique", rule("unique")
    if part.pattern is not None:
        yield "pattern", rule("pattern", pattern=whole(part.pattern))
    if part.allowed is not None:
        yield "allowed", rule("allowed", allowed=tuple(part.allowed))
    if part.min is not None or part.max is not None:
        key = "max" if part.min is None else "min"
        yield key, rule("range", minimum=part.min, maximum=part.max)


def _declare(
    file: ContractFile, rules: _Rules, demographics: dict[str, AttributeDeclaration]
) -> None:
    """Add the attributes that a file declares, and the rules that follow from them."""
    stated: set[str] = set()
    for at, attribute in enumerate(file.content.demographics):
        where: Path_ = ("demographics", at)
        if attribute.name in stated:
            file.fault((*where, "name"), f"{attribute.name!r} is declared twice; declare it once")
        stated.add(attribute.name)
        demographics[attribute.name] = AttributeDeclaration(
            attribute.name,
            attribute.column,
            attribute.kind,
            attribute.unit,
            tuple(attribute.levels),
            tuple(attribute.edges),
            attribute.is_proxy,
            attribute.note,
            tuple(attribute.bins),
        )
        slug, column = attribute.name.replace(" ", "_"), ATTRIBUTE + attribute.name
        for name in (f"{slug}_declared", f"{slug}_known_level", f"{slug}_is_number"):
            rules.pop(name, None)  # of the declaration below, which this one replaces
        rules[f"{slug}_declared"] = Rule(
            f"{slug}_declared",
            "exists",
            column,
            "critical",
            f"The contract declares {attribute.name} in column {attribute.column!r}, "
            "which must be in the metadata file or the image table.",
        )
        if attribute.kind == "category":
            rules[f"{slug}_known_level"] = Rule(
                f"{slug}_known_level",
                "allowed",
                column,
                attribute.severity,
                f"An unknown level of {attribute.name} may be misspelt and is counted in no "
                "declared group.",
                allowed=tuple(attribute.levels),
            )
        else:
            rules[f"{slug}_is_number"] = Rule(
                f"{slug}_is_number",
                "pattern",
                column,
                attribute.severity,
                f"A value of {attribute.name} that is no number is counted in no bin.",
                pattern=whole(NUMBER_PATTERN),
            )
