"""Select the listed images that a run uses, and find those missing from the folder."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from governance.records.errors import DataError, Finding, SettingsError
from medisynth.data.adapters import Listing
from medisynth.data.reading.csv_table import folded, shown

_OTHER_ENDINGS = (".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".dcm", "")
_CONVERT = "save the images losslessly as PNG under the names of the table"
_BY_DVC = "DVC keeps them and only its pointers lie there; run `dvc pull`"
_REASONS_SHOWN = 3
UNKNOWN = "no known plane"


def select_planes(listing: Listing, planes: str | Sequence[str]) -> pd.DataFrame:
    """Choose the rows of the wanted planes.

    Args:
        listing: Listing of a data set.
        planes: "default" for the data set's own default planes (all where it names none), "all", or one or several names,
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
    is_all = wanted == ["all"] or (wanted == ["default"] and not listing.info.default_planes)
    if is_all or table.empty:
        return table.reset_index(drop=True)
    if wanted == ["default"]:
        chosen = table["plane"].isin(listing.info.default_planes).fillna(False)
        if not chosen.any():
            names = ", ".join(listing.info.default_planes)
            forms = set(map(folded, listing.info.default_planes))
            occurring = table["plane"].dropna().unique()
            near = [shown(str(name)) for name in occurring if folded(str(name)) in forms]
            written = f", which the table writes {', '.join(near)}" if near else ""
            raise DataError(
                f"{listing.metadata_file}: no image of the default planes ({names}){written}; set "
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
        wanted_name = name.strip().casefold()
        # "Other" is a level of both columns; as a plane it means no standard plane at all, and
        # mixing the two would be a silent surprise, so the plane goes first.
        matches = (plane == wanted_name).fillna(False).astype(bool)
        if not matches.any():
            matches = (brain_plane == wanted_name).fillna(False).astype(bool)
        if not matches.any():
            raise SettingsError(
                f"data.planes: unknown plane {name!r}; expected 'default', 'all' or one or more "
                f"of {_known_planes(table)}"
            )
        chosen |= matches
    return chosen


def not_selected(
    table: pd.DataFrame, selected: pd.DataFrame, known_planes: Sequence[str]
) -> dict[str, int]:
    """Count the listed rows that a selection leaves out, by the reason.

    Args:
        table: All listed rows.
        selected: Those selected.
        known_planes: Planes that the contract knows; none where it knows no list.

    Returns:
        Plane -> rows, the most frequent first; where other rows of the plane are selected, the
        brain plane as well. A plane that is not known is marked as such.
    """
    rest = table[~table["image_id"].isin(selected["image_id"])]
    taken = set(selected["plane"].dropna())
    counts: Counter[str] = Counter()
    for plane, brain_plane in zip(rest["plane"], rest["brain_plane"], strict=True):
        if pd.isna(plane):
            reason = "no plane recorded"
        elif plane in taken:
            brain = "not recorded" if pd.isna(brain_plane) else brain_plane
            reason = f"{plane} with brain plane {brain}"
        elif known_planes and plane not in known_planes:
            reason = f"{plane} ({UNKNOWN}{_nearest(plane, known_planes)})"
        else:
            reason = str(plane)
        counts[reason] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _nearest(value: str, known: Sequence[str]) -> str:
    near = get_close_matches(value, known, n=1)
    return f", nearest is {near[0]}" if near else ""


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
    root: Path, table: pd.DataFrame, missing: "pd.Series[bool]", *, metadata_file: str
) -> DataError:
    """Return the error for missing listed images, one finding for each, with what lies there.

    Args:
        root: Data root.
        table: All listed rows.
        missing: True where the image is missing, as from `missing_images`.
        metadata_file: Name of the metadata file, for the findings.
    """
    absent = table[missing]
    reasons = _reasons(root, absent["path"])
    findings = [
        Finding(
            "D030",
            metadata_file,
            f"{path} is listed, but there is no such file{f'; {reason.found}' if reason else ''}",
            int(row),
        )
        for path, row, reason in zip(absent["path"], absent["row"], reasons, strict=True)
    ]
    return DataError(
        f"{len(absent):,} of {len(table):,} listed images are missing; {_explained(reasons)}"
        "complete the folder, or go on without them by data.missing_images=drop",
        code="D030",
        findings=findings,
    )


def absence_explained(root: Path, table: pd.DataFrame) -> str:
    """Say where images that are missing seem to be, and how to put it right; "" if nowhere.

    Args:
        root: Data root.
        table: Rows whose images are missing.
    """
    return _explained(_reasons(root, table["path"])).removesuffix("; ")


class _Reason(NamedTuple):
    """What lies where a listed image is missing.

    Attributes:
        kind: What is wrong and what to do, the same for all images of a kind.
        found: What lies there for this image.
    """

    kind: str
    found: str


def _explained(reasons: Sequence[_Reason | None]) -> str:
    """Count the reasons, the most frequent first, each with what to do; ends in "; " or is ""."""
    counts = Counter(reason.kind for reason in reasons if reason is not None)
    return "".join(f"{n:,} of them: {kind}; " for kind, n in counts.most_common(_REASONS_SHOWN))


def _reasons(root: Path, paths: "pd.Series[str]") -> list[_Reason | None]:
    nearby = _Nearby(root)
    return [nearby.reason(PurePosixPath(path)) for path in paths]


class _Nearby:
    """Looks for the files that may be meant where listed images are missing.

    Each folder is listed once.

    Args:
        root: Data root.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, dict[str, list[str]]] = {}

    def reason(self, path: PurePosixPath) -> _Reason | None:
        """Return what lies there instead of a listed image, or None if nothing like it does."""
        folder, name = str(path.parent), path.name
        if not (self._root / folder).is_dir():
            return self._no_folder(path)
        doubled = name.removesuffix(".png")
        if doubled.lower().endswith(".png") and doubled in self._names(folder).get(
            folded(doubled), ()
        ):
            return _Reason(
                "the names in the table end in '.png' already; take that ending off in the table",
                f"{doubled!a} lies there",
            )
        for other in self._names(folder).get(folded(name), ()):
            return _Reason(_spelling(name, other), f"{other!a} lies there")
        for ending in _OTHER_ENDINGS:
            for other in self._names(folder).get(folded(path.stem + ending), ()):
                if ending:
                    kind = f"a file ending in {ending!r} lies there; {_CONVERT}"
                else:
                    kind = "a file without an ending lies there; name it with '.png' if it is a PNG"
                return _Reason(kind, f"{other!a} lies there")
        if f"{name}.dvc" in self._names(folder).get(folded(f"{name}.dvc"), ()):
            return _Reason(_BY_DVC, f"'{name}.dvc' lies there")
        for inner in self._folders(folder):
            if name in self._names(inner).get(folded(name), ()):
                return _Reason(
                    f"the files lie one folder deeper, in {inner!a}; move them to {folder!a}",
                    f"it lies in {inner!a}",
                )
        return None

    def _no_folder(self, path: PurePosixPath) -> _Reason:
        folder = path.parent
        for other in self._names(str(folder.parent)).get(folded(folder.name), ()):
            return _Reason(
                f"the folder is named {other!a}, expected {folder.name!a}; rename it",
                f"there is a folder {other!a}",
            )
        pointer = f"{folder.name}.dvc"
        if pointer in self._names(str(folder.parent)).get(folded(pointer), ()):
            return _Reason(_BY_DVC, f"{pointer!a} lies there")
        above = str(folder.parent)
        if path.name in self._names(above).get(folded(path.name), ()):
            return _Reason(
                f"the files lie beside the folder; make {str(folder)!a} and move them there",
                f"it lies in {above!a}",
            )
        told = f"there is no folder {str(folder)!a}"
        return _Reason(told, told)

    def _names(self, folder: str) -> dict[str, list[str]]:
        """Names in a folder by their folded form."""
        if folder not in self._listed:
            found: dict[str, list[str]] = {}
            for name in sorted(_names(self._root / folder)):
                found.setdefault(folded(name), []).append(name)
            self._listed[folder] = found
        return self._listed[folder]

    @cache  # noqa: B019 - lives as long as one error is written
    def _folders(self, folder: str) -> tuple[str, ...]:
        names = [name for same in self._names(folder).values() for name in same]
        return tuple(
            f"{folder}/{name}"
            for name in names
            if "." not in name and (self._root / folder / name).is_dir()
        )


def _spelling(listed: str, found: str) -> str:
    """Say how two names of one file differ, and what to do."""
    if unicodedata.normalize("NFC", listed) == unicodedata.normalize("NFC", found):
        return (
            "the same name in another Unicode form lies there; write table and file names in one "
            "form, e.g. `convmv -f utf8 -t utf8 --nfc -r --notest` on the folder"
        )
    one, other = PurePosixPath(listed), PurePosixPath(found)
    if one.stem == other.stem:
        return f"the ending is written {other.suffix!r}, expected {one.suffix!r}; rename the files"
    if listed.casefold() == found.casefold():
        return "the name lies there in another letter case; write both alike"
    return "the name lies there with other blanks or characters; write both alike"
