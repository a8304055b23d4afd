"""Levels of one attribute that are probably one level written in two ways."""

import unicodedata
from dataclasses import dataclass

import pandas as pd

from governance.records.errors import Finding
from medisynth.data.adapters import Listing
from medisynth.data.contract.contract import with_metadata
from medisynth.data.contract.records import DataContract
from medisynth.data.reading.csv_table import folded, shown

LEVEL_COLUMNS = ("plane", "brain_plane", "operator", "machine", "site")
CODE = "D026"


@dataclass(frozen=True)
class _Level:
    """One value of a column, with its rows and the line of the first."""

    value: str
    n_rows: int
    line: int


def level_variants(listing: Listing, contract: DataContract) -> tuple[Finding, ...]:
    """Find values that differ from another of their column by letter case, blanks or Unicode form.

    All rows are looked at, selected or not: a plane that is written otherwise would not be
    selected. Compared are the values that occur and those that the contract allows. Values that
    the contract allows are levels of their own, however alike they are.

    Args:
        listing: Listing of the data set.
        contract: Its rules.

    Returns:
        One finding a value, at its first row, by column and row.
    """
    table = with_metadata(listing.table, listing.metadata, contract)
    allowed: dict[str, list[str]] = {}
    for rule in contract.rules:
        if rule.kind == "allowed" and (rule.column in LEVEL_COLUMNS or rule.is_about_metadata):
            allowed.setdefault(rule.column, []).extend(map(str, rule.allowed))
    columns = dict.fromkeys((*LEVEL_COLUMNS, *allowed))
    return tuple(
        finding
        for column in columns
        if column in table
        for finding in _of_column(
            column, _levels(table[column], table["row"]), allowed.get(column, []), listing
        )
    )


def _levels(values: "pd.Series[str]", rows: "pd.Series[int]") -> list[_Level]:
    known = values.notna()
    grouped = rows[known].groupby(values[known].astype(str), sort=True)
    return [
        _Level(str(value), int(n), int(line))
        for (value, n), line in zip(grouped.size().items(), grouped.min(), strict=True)
    ]


def _of_column(
    column: str, levels: list[_Level], allowed: list[str], listing: Listing
) -> list[Finding]:
    same: dict[str, list[_Level]] = {}
    for level in levels:
        same.setdefault(folded(level.value), []).append(level)
    found = []
    for form, group in same.items():
        declared = [value for value in allowed if folded(value) == form]
        most = max(group, key=lambda level: (level.n_rows, -level.line))
        meant = declared[0] if declared else most.value
        n_meant = sum(level.n_rows for level in group if level.value == meant)
        for level in group:
            if level.value == meant or level.value in declared:
                continue
            known = "a known level, " if declared else ""
            n_own = f"{level.n_rows:,} row{'s' if level.n_rows > 1 else ''}"
            found.append(
                Finding(
                    CODE,
                    listing.metadata_file,
                    f"{shown(level.value)} ({n_own}) differs from {shown(meant)} ({known}"
                    f"{n_meant:,} row{'s' if n_meant != 1 else ''}) only by "
                    f"{_difference(level.value, meant)}; write both alike, or declare both as "
                    f"levels in data_contract.yaml (allowed values of {column})",
                    level.line,
                    column,
                )
            )
    return sorted(found, key=lambda finding: finding.row or 0)


def _difference(one: str, other: str) -> str:
    if one.casefold() == other.casefold():
        return "letter case"
    if "".join(one.split()) == "".join(other.split()):
        return "blanks"
    if unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", other):
        return "its Unicode form"
    return "letter case, blanks or Unicode form"
