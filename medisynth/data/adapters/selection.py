"""Select the listed images that a run uses, and find those missing from the folder."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from governance.records.errors import DataError, Finding, SettingsError
from medisynth.data.adapters import Listing


def select_planes(listing: Listing, planes: str | Sequence[str]) -> pd.DataFrame:
    """Choose the rows of the wanted planes.

    Args:
        listing: Listing of a data set.
        planes: "default" for the data set's own default planes, "all", or one or several names,
            each matched against `plane` and `brain_plane` without regard to case.

    Returns:
        Matching rows in listing order, with a new index 0 to n - 1. A listing without rows
        gives a selection without rows, whatever is named.

    Raises:
        SettingsError: No name is given, or one is not in the listing.
        DataError: The default planes are not in the listing.
    """
    table = listing.table
    wanted = [planes] if isinstance(planes, str) else list(planes)
    if wanted == ["all"] or table.empty:
        return table.reset_index(drop=True)
    if wanted == ["default"]:
        chosen = table["plane"].isin(listing.info.default_planes).fillna(False)
        if not chosen.any():
            names = ", ".join(listing.info.default_planes)
            raise DataError(
                f"{listing.metadata_file}: no image of the default planes ({names}); set "
                f"data.planes to one or more of {_known_planes(table)}",
                code="D031",
            )
        return table[chosen].reset_index(drop=True)
    return table[_named_planes(table, wanted)].reset_index(drop=True)


def _named_planes(table: pd.DataFrame, wanted: Sequence[str]) -> pd.Series:
    if not wanted:
        raise SettingsError(
            f"data.planes: no plane is named; expected 'default', 'all' or one or more of "
            f"{_known_planes(table)}"
        )
    plane = table["plane"].str.casefold()
    brain_plane = table["brain_plane"].str.casefold()
    chosen = pd.Series(False, index=table.index)
    for name in wanted:
        folded = name.strip().casefold()
        # "Other" is a level of both columns; as a plane it means no standard plane at all, and
        # mixing the two would be a silent surprise, so the plane goes first.
        matches = (plane == folded).fillna(False).astype(bool)
        if not matches.any():
            matches = (brain_plane == folded).fillna(False).astype(bool)
        if not matches.any():
            raise SettingsError(
                f"data.planes: unknown plane {name!r}; expected 'default', 'all' or one or more "
                f"of {_known_planes(table)}"
            )
        chosen |= matches
    return chosen


def _known_planes(table: pd.DataFrame) -> str:
    """List the names in `plane` and `brain_plane` with their image counts, most frequent first."""
    parts = []
    for column in ("plane", "brain_plane"):
        counts = table[column].value_counts()
        ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        parts += [f"{name} ({count:,})" for name, count in ordered]
    return ", ".join(parts) if parts else "(no plane is recorded)"


def missing_images(root: Path, table: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the listed images whose file is not in the folder, by name alone.

    Each folder is listed once; no image is opened, so 12,400 rows take milliseconds.

    Args:
        root: Data root.
        table: Rows with a `path` relative to the root.

    Returns:
        True where the image is missing, on the table's index.
    """
    names_in: dict[str, frozenset[str]] = {}
    flags = []
    for path in table["path"]:
        pure = PurePosixPath(path)
        folder = str(pure.parent)
        if folder not in names_in:
            names_in[folder] = _names(root / folder)
        flags.append(pure.name not in names_in[folder])
    return pd.Series(flags, index=table.index, dtype="bool")


def _names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); check its permissions", code="D032"
        ) from error


def missing_images_error(
    table: pd.DataFrame, missing: "pd.Series[bool]", *, metadata_file: str
) -> DataError:
    """Return the error for missing listed images, one finding for each.

    Args:
        table: All listed rows.
        missing: True where the image is missing, as from `missing_images`.
        metadata_file: Name of the metadata file, for the findings.
    """
    absent = table[missing]
    findings = [
        Finding("D030", metadata_file, f"{path} is listed, but there is no such file", int(row))
        for path, row in zip(absent["path"], absent["row"], strict=True)
    ]
    return DataError(
        f"{len(absent):,} of {len(table):,} listed images are missing; complete the folder, or go "
        "on without them by data.missing_images=drop",
        code="D030",
        findings=findings,
    )
