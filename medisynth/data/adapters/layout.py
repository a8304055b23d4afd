"""Find the data set in a folder; where there is none, say what lies there instead."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from governance.records.errors import DataError
from medisynth.data.reading.csv_table import folded
from medisynth.data.reading.kinds import kind_at, obstacle

_PEEK_BYTES = 4096
_DEPTH = 2  # folders below the given one in which a data set is looked for
_MOST_FOLDERS = 200
_MOST_FILES = 50
_SHOWN = 5
_DELIMITERS = ";,\t"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".7z", ".rar")


@dataclass(frozen=True)
class KnownTable:
    """A file by which an adapter knows its data set.

    Attributes:
        file: Name in the data folder.
        delimiter: Field separator; "" for a file that is no table.
        columns: Names of its columns, those included that need not be there.
    """

    file: str
    delimiter: str = ""
    columns: tuple[str, ...] = ()


class Detecting(Protocol):
    """What is needed of an adapter to find its data set."""

    name: str

    def detects(self, root: Path) -> bool:
        """Whether the folder has the adapter's layout."""
        ...


def known_tables(adapter: object) -> tuple[KnownTable, ...]:
    """Files by which an adapter knows its data set: its attribute `tables`, which is optional."""
    tables: tuple[KnownTable, ...] = getattr(adapter, "tables", ())
    return tables


def header_names(path: Path, delimiter: str) -> frozenset[str]:
    """Column names in the first line of a file, for telling layouts apart; empty if unreadable."""
    try:
        if obstacle(path) is not None:  # opening a named pipe would wait for ever
            return frozenset()
        with path.open("rb") as stream:
            start = stream.read(_PEEK_BYTES)
    except OSError:
        return frozenset()
    first = start.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    return frozenset(name.strip() for name in first.split(delimiter))


def image_folder(root: Path, *names: str) -> str:
    """Folder of the images: the first of some names that is a folder, or the one folder within it.

    An archive unpacked into a folder of its own name leaves `Images/Images/`.

    Args:
        root: Data folder.
        names: Names in the order of preference; the first is returned where none is a folder.

    Returns:
        POSIX path relative to the root.
    """
    name = next((name for name in names if (root / name).is_dir()), names[0])
    for _ in range(_DEPTH):
        inner = _only_folder(root / name)
        if inner is None:
            break
        name = f"{name}/{inner}"
    return name


def _only_folder(folder: Path) -> str | None:
    """Name of the one folder that a folder holds, if it holds no file but hidden ones."""
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if found or not entry.is_dir(follow_symlinks=False):
                    return None
                found.append(entry.name)
    except OSError:
        return None
    return found[0] if found else None


Adapter = TypeVar("Adapter", bound="Detecting")


def locate(root: Path, adapters: Sequence[Adapter]) -> tuple[Adapter, Path]:
    """Find the one adapter that fits a folder, or else the one folder below that has a fitting one.

    Args:
        root: Folder that was given; it is there and not empty.
        adapters: Adapters that may fit.

    Returns:
        The adapter and the folder that it fits: the root, or a folder at most two levels below.

    Raises:
        DataError: D010 a table is there but is no regular file; D005 several adapters fit; D004
            none does.
    """
    fitting = [adapter for adapter in adapters if adapter.detects(root)]
    if len(fitting) == 1:
        return fitting[0], root
    if fitting:
        names = ", ".join(adapter.name for adapter in fitting)
        raise DataError(f"{root}: fits {names}; choose one with --adapter", code="D005")
    _refuse_special(root, adapters)
    below = [
        (adapter, folder)
        for folder in _folders_below(root)
        for adapter in adapters
        if adapter.detects(folder)
    ]
    if len(below) == 1:
        return below[0]
    if below:
        folders = ", ".join(dict.fromkeys(_below(root, folder) for _, folder in below[:_SHOWN]))
        raise DataError(
            f"{root}: holds no data set itself but {len(below):,} below it ({folders}); give the "
            "folder of one of them",
            code="D004",
        )
    _refuse_unknown(root, adapters)


def _below(root: Path, folder: Path) -> str:
    return f"{ascii(folder.relative_to(root).as_posix())[1:-1]}/"


def _folders_below(root: Path) -> Iterator[Path]:
    """Yield folders below, level by level and by name, hidden ones and links left out."""
    level, n_seen = [root], 0
    for _ in range(_DEPTH):
        inner: list[Path] = []
        for folder in level:
            for name, is_folder in _entries(folder):
                if is_folder and n_seen < _MOST_FOLDERS:
                    n_seen += 1
                    inner.append(folder / name)
        yield from inner
        level = inner


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, and whether each is a folder; hidden ones are left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError:
        return []


def _tables(adapters: Sequence[Detecting]) -> dict[str, list[tuple[str, KnownTable]]]:
    """File name -> adapters that read it, each with what it expects of the file."""
    found: dict[str, list[tuple[str, KnownTable]]] = {}
    for adapter in adapters:
        for table in known_tables(adapter):
            found.setdefault(table.file, []).append((adapter.name, table))
    return found


def _refuse_special(root: Path, adapters: Sequence[Detecting]) -> None:
    """Refuse a folder in which something other than a file has the name of a known table."""
    for file, users in _tables(adapters).items():
        try:
            kind = obstacle(root / file)
        except OSError:
            continue
        if kind is not None:
            names = " or ".join(name for name, _ in users)
            raise DataError(
                f"{root}: {file} is {kind.what}, expected the file of {names}; {kind.remedy}",
                code="D010",
            )


def _refuse_unknown(root: Path, adapters: Sequence[Detecting]) -> NoReturn:
    """Refuse a folder without a data set.

    The message names a file that is nearly a known table, or all that is expected and found.
    """
    entries = _entries(root)
    expected = "; ".join(
        f"{file} ({' or '.join(name for name, _ in users)})"
        for file, users in _tables(adapters).items()
    )
    near = _near(root, entries, adapters)
    if near:
        raise DataError(f"{root}: no known data set layout, but {near}", code="D004")
    shown = ", ".join(
        f"{ascii(name[:80])[1:-1]}{'/' if is_folder else ''}"
        for name, is_folder in entries[:_SHOWN]
    )
    more = f" and {len(entries) - _SHOWN:,} more" if len(entries) > _SHOWN else ""
    others = [adapter.name for adapter in adapters if not known_tables(adapter)]
    more_layouts = f", or the layout of {', '.join(others)}" if others else ""
    raise DataError(
        f"{root}: no known data set layout; expected one of these tables: {expected}{more_layouts}; "
        f"found {shown or 'only hidden files'}{more}; see docs/data_sets.md for each layout",
        code="D004",
    )


def _near(root: Path, entries: list[tuple[str, bool]], adapters: Sequence[Detecting]) -> str:
    """Say which file is nearly a known table and what to do; empty if none is."""
    files = [name for name, is_folder in entries if not is_folder]
    tables = _tables(adapters)
    spelt = {folded(file): file for file in tables}
    stems = {Path(file).stem.casefold(): file for file in tables}
    for name in files:
        shown = ascii(name[:80])
        if file := spelt.get(folded(name)):
            return f"{shown} is nearly the name of {file}; rename it"
        if Path(name).stem in tables:
            kind = kind_at(root / name)
            if kind is not None:
                return f"{shown} is {kind.what}; {kind.remedy}"
        if file := stems.get(Path(name).stem.casefold()):
            return f"{shown} lies there where {file} is expected; save it as text (CSV, UTF-8)"
    for name in files[:_MOST_FILES]:
        if told := _like_a_table(root / name, tables):
            return told
    if archives := [name for name in files if name.lower().endswith(_ARCHIVES)]:
        return f"{archives[0][:80]!a} is an archive; unpack it there"
    pointers = [name for name in files if name.endswith(".dvc")]
    if pointers:
        return f"{pointers[0][:80]!a} is a DVC pointer; run `dvc pull`"
    return ""


def _like_a_table(path: Path, tables: dict[str, list[tuple[str, KnownTable]]]) -> str:
    """Say of which known table a file has at least half of the columns; empty if of none."""
    best: tuple[float, str] = (0.0, "")
    for delimiter in _DELIMITERS:
        found = {folded(name) for name in header_names(path, delimiter)}
        for file, users in tables.items():
            for adapter, table in users:
                lacking = [c for c in table.columns if folded(c) not in found]
                n = len(table.columns) - len(lacking)
                if n < 2 or 2 * n < len(table.columns) or n / len(table.columns) <= best[0]:
                    continue
                lacks = f"; it lacks {', '.join(map(repr, lacking[:_SHOWN]))}" if lacking else ""
                separated = (
                    f", with fields separated by {table.delimiter!r}"
                    if delimiter != table.delimiter
                    else ""
                )
                words = (
                    f"{path.name[:80]!a} has {n} of the {len(table.columns)} columns of "
                    f"{adapter}'s table; expected it as {file}{separated}{lacks}"
                )
                best = (n / len(table.columns), words)
    return best[1]
