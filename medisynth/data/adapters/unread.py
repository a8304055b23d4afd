"""Files and columns that lie in a data set and that nothing reads."""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path, PurePosixPath

from medisynth.data.adapters import DatasetAdapter, Listing
from medisynth.data.adapters.layout import known_tables

_EXAMPLES = 3
_USUAL = re.compile(
    r"(readme|licen[cs]e|citation|changelog|sha\d+sums|md5sums?)(\.[a-z]+)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Unread:
    """What lies in a data folder beside what is read.

    Attributes:
        n_images: PNG files, in the folders of the listed images, that the table does not list.
        images: The first of them by name, relative to the data root.
        n_files: Other files.
        files: The first of them by name.
        columns: Columns of the metadata file that neither adapter nor contract knows; None where
            the adapter does not say which columns it knows.
    """

    n_images: int
    images: tuple[str, ...]
    n_files: int
    files: tuple[str, ...]
    columns: tuple[str, ...] | None

    def sentences(self, metadata_file: str) -> tuple[str, ...]:
        """One sentence for each kind that there is, with its count and the first names.

        Args:
            metadata_file: Name of the metadata file.
        """
        told = []
        if self.n_images:
            listed = f"{metadata_file} does not list"
            told.append(_counted(self.n_images, "image", listed, self.images))
        if self.n_files:
            told.append(_counted(self.n_files, "file", "nothing reads", self.files))
        if self.columns:
            unknown = f"of {metadata_file} that nothing reads"
            names = self.columns[:_EXAMPLES]
            told.append(_counted(len(self.columns), "column", unknown, names))
        return tuple(told)


def _counted(n: int, what: str, why: str, names: tuple[str, ...]) -> str:
    that = "" if what == "column" else "that "
    shown = ", ".join(f"{name[:80]!a}" for name in names)
    return (
        f"{n:,} {what}{'s' if n > 1 else ''} {that}{why}: {shown}{', …' if n > len(names) else ''}"
    )


def find_unread(
    root: Path,
    listing: Listing,
    adapter: DatasetAdapter,
    *,
    files: Collection[str] = (),
    columns: Collection[str] = (),
) -> Unread:
    """Find what lies in a data folder and is not read; opens no file.

    Hidden files, links to folders, what the publisher puts beside the images (the adapter's
    `companions`) and read-me, licence and checksum files are passed over.

    Args:
        root: Data root.
        listing: Its listing.
        adapter: Adapter that made the listing.
        files: Further files that are read, relative to the root.
        columns: Columns of the metadata file that the contract reads.
    """
    tables = known_tables(adapter)
    listed = set(listing.table["path"].astype(str))
    folders = {str(PurePosixPath(path).parent) for path in listed}
    read = {listing.metadata_file, *(table.file for table in tables), *files}
    companions = [re.compile(translate(p)) for p in getattr(adapter, "companions", ())]
    images: list[str] = []
    others: list[str] = []
    for folder, name in _walk(root):
        path = f"{folder}/{name}" if folder else name
        if path in listed or path in read or any(p.match(path) for p in companions):
            continue
        if name.lower().endswith(".png") and (folder or ".") in folders:
            images.append(path)
        elif folder or not _USUAL.fullmatch(name):
            others.append(path)
    return Unread(
        n_images=len(images),
        images=tuple(sorted(images)[:_EXAMPLES]),
        n_files=len(others),
        files=tuple(sorted(others)[:_EXAMPLES]),
        columns=_columns(listing, adapter, columns),
    )


def _columns(
    listing: Listing, adapter: DatasetAdapter, columns: Collection[str]
) -> tuple[str, ...] | None:
    known = [t.columns for t in known_tables(adapter) if t.file == listing.metadata_file]
    if not known:
        return None
    return tuple(c for c in listing.metadata.columns if c not in known[0] and c not in columns)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yield folder ("" for the root) and name of every file that is not hidden."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{folder}/{entry.name}" if folder else entry.name)
                    else:
                        yield folder, entry.name
        except OSError:  # a folder that may not be listed holds nothing that is read
            continue
