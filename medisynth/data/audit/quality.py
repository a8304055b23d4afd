"""Distributions of image statistics by partition, and outlying images."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.audit import QuantityLevel
from medisynth.data.audit.coverage import ALL, rows_by_side

QUANTITIES = {
    "mean_intensity": "grey levels",
    "std_intensity": "grey levels",
    "sharpness": "squared grey levels",
    "black_fraction": "",
    "sector_fraction": "",
    "overlay_fraction": "",
    "width_px": "px",
    "height_px": "px",
}
PERCENTS = (0, 1, 5, 25, 50, 75, 95, 99, 100)
_FENCE = 3.0  # interquartile ranges; Tukey's "far out"
_MAX_OUTLIERS = 20


def image_quality(
    table: pd.DataFrame, partition: pd.Series | None = None
) -> tuple[QuantityLevel, ...]:
    """Distribution of brightness, contrast, sharpness, background, overlay and size.

    Args:
        table: Rows with patient_id, image_id and any of QUANTITIES.
        partition: Partition of rows, on the table's index; None gives the whole table only.

    Returns:
        By quantity, then "all", then partition. A quantity, or a partition, without any finite
        value is left out.

    Source:
        Tukey 1977, Exploratory Data Analysis, for the fences.
    """
    sides = {ALL: np.ones(len(table), dtype=bool)}
    if partition is not None:
        sides |= rows_by_side(table, partition)
    patients = table["patient_id"].to_numpy(dtype=object)
    found = []
    for quantity, unit in QUANTITIES.items():
        if quantity not in table:
            continue
        values = pd.to_numeric(table[quantity]).to_numpy(dtype=np.float64, na_value=np.nan)
        distance = fence_distance(values)
        for name, rows in sides.items():
            kept = np.flatnonzero(rows & np.isfinite(values))
            if not len(kept):
                continue
            far = kept[distance[kept] > 0]
            farthest = far[np.argsort(-distance[far], kind="stable")][:_MAX_OUTLIERS]
            found.append(
                QuantityLevel(
                    quantity=quantity,
                    unit=unit,
                    partition=name,
                    n_images=len(kept),
                    n_patients=len(pd.unique(patients[kept])),
                    quantiles=tuple(map(float, np.percentile(values[kept], PERCENTS))),
                    n_outliers=len(far),
                    outliers=tuple(map(str, table["image_id"].iloc[farthest])),
                )
            )
    return tuple(found)


def fence_distance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each value beyond fences three interquartile ranges from the quartiles.

    Args:
        values: Shape (n,), NaN where there is none.

    Returns:
        Shape (n,): above 0 beyond the fences; 0 inside them, for NaN, and everywhere when the
        quartiles are equal.
    """
    finite = values[np.isfinite(values)]
    outside = np.zeros(len(values))
    if not len(finite):
        return outside
    low, high = np.percentile(finite, (25, 75))
    if low == high:
        return outside
    reach = _FENCE * (high - low)
    beyond = np.maximum(low - reach - values, values - high - reach)
    return np.where(np.isfinite(values), np.maximum(beyond, 0.0), outside)
