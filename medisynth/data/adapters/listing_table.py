"""Build the table of a listing."""

from collections.abc import Mapping, Sequence

import pandas as pd

from medisynth.data.adapters import LISTING_COLUMNS


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
