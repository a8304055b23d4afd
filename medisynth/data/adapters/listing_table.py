"""Helpers of the built-in adapters: build a listing table, read the column names of a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from medisynth.data.adapters import LISTING_COLUMNS

_PEEK_BYTES = 4096


def listing_table(
    columns: Mapping[str, Sequence[str | int | None]],
    extra: Mapping[str, pd.Series] | None = None,
) -> pd.DataFrame:
    """Build the table of a `Listing`.

    Args:
        columns: Values of LISTING_COLUMNS; None is "not recorded", and so is a column left out.
        extra: Further columns of the adapter, already typed.

    Returns:
        LISTING_COLUMNS first ("string" with `pandas.NA`, `row` int64), then the extra columns.
    """
    n_images = len(columns["image_id"])
    table = pd.DataFrame(index=pd.RangeIndex(n_images))
    for name in LISTING_COLUMNS:
        values = list(columns.get(name, [None] * n_images))
        table[name] = pd.Series(values, dtype="int64" if name == "row" else "string")
    for name, column in (extra or {}).items():
        table[name] = column
    return table


def header_names(path: Path, delimiter: str) -> frozenset[str]:
    """Column names in the first line of a file, for telling layouts apart; empty if unreadable."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_PEEK_BYTES)
    except OSError:
        return frozenset()
    first = start.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    return frozenset(name.strip() for name in first.split(delimiter))
