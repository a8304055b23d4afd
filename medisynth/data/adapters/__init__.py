"""Data set adapters: one module a data set; each turns a folder into a listing of its images.

An adapter is found by name through the entry point group `medisynth.data`; a third party adds
its own by the same group and uses nothing that the built-in ones do not.
"""

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import pandas as pd

from governance.records.errors import DataError, SettingsError, first_line
from medisynth.data.adapters.layout import locate
from medisynth.data.reading.conversion import Conversion
from medisynth.data.reading.kinds import kind_at

LISTING_COLUMNS = (
    "image_id",  # unique name of the image
    "path",  # POSIX path relative to the data root
    "patient_id",  # unit that is never divided, canonical ("0001" and "1" are one patient)
    "plane",  # e.g. "Fetal brain"
    "brain_plane",  # e.g. "Trans-thalamic"
    "operator",
    "machine",
    "site",
    "official_partition",  # "training", "held-out test set" or missing
    "row",  # line number in the metadata file, 1 is the header
)


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set that are known before any image is read.

    Attributes:
        name: Adapter name, e.g. "hc18".
        title: Full title.
        version: Publisher's version; empty when it has none.
        doi: DOI; empty when it has none.
        licence: Licence of the data.
        citation: How to cite it.
        split_unit: Unit that is never divided: "patient" or "examination".
        split_unit_note: What that unit can and cannot guarantee.
        absent_attributes: Attributes that are not recorded, each with what that prevents.
        notes: Remarks for the readers of reports.
        is_simulated: True when no patient is behind any image.
        default_planes: Values of `plane` that are selected unless the user says otherwise.
        target_population: File of the population that the data should stand for, used unless the
            user names one; None for a data set that has none of its own.
    """

    name: str
    title: str
    version: str
    doi: str
    licence: str
    citation: str
    split_unit: str = "patient"
    split_unit_note: str = ""
    absent_attributes: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_simulated: bool = False
    default_planes: tuple[str, ...] = ("Fetal brain",)
    target_population: Path | None = None


@dataclass(frozen=True)
class Listing:
    """All images that a data set lists, whether or not their files exist.

    Attributes:
        info: Facts about the data set.
        table: One row an image, columns LISTING_COLUMNS first, then extra columns of the adapter.
            Text columns are `str` with `pandas.NA` for "not recorded"; `row` is int64.
        metadata_file: Metadata file, relative to the data root.
        metadata_sha256: Its digest.
        metadata: The metadata file itself: every column under its own name, blanks at both ends
            removed, as text; rows in the order of `table`. Demographics are read from here and
            identifying columns are looked for here. Empty when an adapter does not give it.
        convert: How the data set says that files are read which are no 8-bit PNG.
        mapping_sha256: Digest of a file that says what the metadata file means; None without one.
    """

    info: DatasetInfo
    table: pd.DataFrame
    metadata_file: str
    metadata_sha256: str
    metadata: pd.DataFrame = field(default_factory=pd.DataFrame)
    convert: Conversion = field(default_factory=Conversion)
    mapping_sha256: str | None = None


class DatasetAdapter(Protocol):
    """Reads the listing of one kind of data set.

    An adapter may also have `tables`, see `layout.KnownTable`: what a folder lacks is then named,
    and columns and files that are not read are told from those that are; and `companions`,
    patterns (`fnmatch`) of files that the publisher puts beside the images.
    """

    name: str

    def detects(self, root: Path) -> bool:
        """Whether the folder has this adapter's layout; looks at names only, reads no image."""
        ...

    def list_images(self, root: Path) -> Listing:
        """Read the metadata file strictly and list every image; opens no image.

        Raises:
            DataError: The metadata file is unreadable or malformed; all findings are attached.
        """
        ...


def adapter_names() -> tuple[str, ...]:
    """Names of all registered adapters, sorted."""
    return tuple(sorted({point.name for point in entry_points(group="medisynth.data")}))


def load_adapter(name: str) -> DatasetAdapter:
    """Return the adapter with this name.

    Raises:
        SettingsError: No adapter has this name, two have it, or it cannot be imported.
    """
    points = list(entry_points(group="medisynth.data", name=name))
    if not points:
        known = ", ".join(adapter_names())
        raise SettingsError(f"data.adapter: unknown adapter {name!r}; known are {known}")
    if len({point.value for point in points}) > 1:
        raise SettingsError(f"data.adapter: two packages register an adapter named {name!r}")
    try:
        adapter: DatasetAdapter = points[0].load()()
    except ImportError as error:
        raise SettingsError(
            f"data.adapter: the registered adapter {name!r} cannot be imported "
            f"({first_line(error)}); install the package that registers it anew, or remove it"
        ) from error
    return adapter


def refuse_known_layout(root: Path) -> None:
    """Refuse a folder that an adapter knows already.

    Raises:
        DataError: D005 the folder needs no `dataset.yaml`, because an adapter reads it as it is.
    """
    for name in adapter_names():
        if name != "table" and load_adapter(name).detects(root):
            raise DataError(
                f"{root}: has the layout of {name}, which needs no dataset.yaml; check it as it is: "
                f"medisynth-gov data check {root}",
                code="D005",
            )


def locate_data_set(root: Path, name: str | None = None) -> tuple[DatasetAdapter, Path]:
    """Find the data set that a folder holds, itself or in the one folder below that has a layout.

    Args:
        root: Folder that was given.
        name: Adapter to use; None takes the one whose layout is there.

    Returns:
        The adapter and the data set's folder: the root, or a folder at most two levels below it.

    Raises:
        DataError: The folder is missing, empty, or no adapter (or more than one) fits; where an
            adapter is named, its layout may be missing: reading then says what is.
        SettingsError: No adapter has this name.
    """
    named = None if name is None else load_adapter(name)
    if not root.exists():
        raise DataError(f"{root}: no such folder; give the data set's folder", code="D001")
    if not root.is_dir():
        kind = kind_at(root)
        found = (
            f"is {kind.what}, expected a folder; {kind.remedy} and " if kind else "not a folder; "
        )
        raise DataError(f"{root}: {found}give the folder that holds the data", code="D002")
    if not any(root.iterdir()):
        raise DataError(f"{root}: the folder is empty; expected a data set", code="D003")
    if named is None:
        return locate(root, [load_adapter(known) for known in adapter_names()])
    try:
        return locate(root, [named])
    except DataError:
        return named, root  # reading says what is missing there
