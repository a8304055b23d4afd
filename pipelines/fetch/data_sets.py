"""Fetches public data sets from their publisher, checks and unpacks them.

A file is used only after the whole of it was compared with the MD5 that the publisher gives.
"""

import contextlib
import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from governance.records.errors import DataError, ResourceError, SettingsError
from governance.records.files import typed, write_atomic
from medisynth.data.adapters import (
    DatasetInfo,
    african_planes,
    fetal_planes_db,
    hc18,
    locate_data_set,
)
from medisynth.data.reading.archive import unpack_zip
from pipelines.fetch.download import CheckStop, Downloader, RemoteFile, Report, Say

_ZENODO = "https://zenodo.org/api/records"


@dataclass(frozen=True)
class Source:
    """A published data set and its files.

    Attributes:
        info: Facts about the data set.
        record: Address of the publisher's record, JSON.
        files: Files to fetch; a ZIP archive is unpacked, others are kept as they are.
        max_files: Most members of an archive.
        max_bytes: Most bytes of an archive, unpacked.
        test_files: Files of a test set, fetched only on request.
        by_hand: What the user must still do by hand; empty for nothing.
    """

    info: DatasetInfo
    record: str
    files: tuple[RemoteFile, ...]
    max_files: int = 20_000
    max_bytes: int = 8_000_000_000
    test_files: tuple[RemoteFile, ...] = ()
    by_hand: str = ""


def _zenodo(record: int, name: str, n_bytes: int | None, md5: str | None) -> RemoteFile:
    return RemoteFile(name, f"{_ZENODO}/{record}/files/{name}/content", n_bytes, md5)


SOURCES: Mapping[str, Source] = {
    "fetal-planes-db": Source(
        info=fetal_planes_db.INFO,
        record=f"{_ZENODO}/3904280",
        files=(
            _zenodo(
                3904280,
                "FETAL_PLANES_ZENODO.zip",
                2_088_522_169,
                "2a5fcc2cefb789bcc0f6c1f73e0ea43f",
            ),
        ),
    ),
    "hc18": Source(
        info=hc18.INFO,
        record=f"{_ZENODO}/1327317",
        files=(
            _zenodo(1327317, "training_set.zip", 132_926_838, "00eb8198b9a505b2b3a6dfc740382497"),
            _zenodo(1327317, hc18.PUBLISHED_FILE, 33_688, "c0761518fece2bd2d2ad4218f2cd9777"),
        ),
        test_files=(
            _zenodo(1327317, "test_set.zip", 43_518_463, "8402af5d137ef40a2888c1011ef3fe7e"),
            _zenodo(1327317, "test_set_pixel_size.csv", 9_096, "8476dc198cc6542f26c57e87faeee033"),
        ),
    ),
    "african-planes": Source(
        info=african_planes.INFO,
        record=f"{_ZENODO}/7540448",
        files=(_zenodo(7540448, "Zenodo_dataset.tar.xz", None, None),),
        by_hand=(
            "the publisher gives a .tar.xz archive, which is not unpacked here: unpack it by "
            "hand in its folder, with `tar xf`"
        ),
    ),
}


NOTE_FILE = "fetched.json"  # in the data set's folder: where each file came from
_MAX_RATIO = 100.0
_BLOCK_BYTES = 1 << 20
_MD5 = re.compile(r"md5:([0-9a-f]{32})")


@dataclass(frozen=True)
class FetchedFile:
    """One file that was fetched.

    Attributes:
        name: File name.
        address: Where it came from.
        n_bytes: Size.
        md5: MD5, equal to the published one.
        sha256: SHA-256, for the user's own records.
        is_pinned: Whether the published MD5 is part of this program, not only of the record.
    """

    name: str
    address: str
    n_bytes: int
    md5: str
    sha256: str
    is_pinned: bool


@dataclass(frozen=True)
class FetchedData:
    """A data set on this machine.

    Attributes:
        name: Adapter name, e.g. "hc18".
        folder: Its folder.
        files: Fetched files; empty when the folder was filled by other means.
        was_there: Whether it was there already, so that nothing was fetched.
        is_readable: Whether the adapter recognises the folder.
        hint: What to do next, one sentence.
    """

    name: str
    folder: Path
    files: tuple[FetchedFile, ...]
    was_there: bool
    is_readable: bool
    hint: str


def fetch_data_set(
    name: str,
    folder: Path,
    *,
    say: Say,
    progress: Report,
    check_stop: CheckStop | None = None,
    sources: Mapping[str, Source] | None = None,
    with_test_set: bool = False,
    back_off_s: float = 1.0,
) -> FetchedData:
    """Fetch a public data set into a new folder, unless it is there.

    Partial downloads are kept beside the folder in `.<folder>.fetch` until everything is in place,
    so that a stopped or broken download goes on with the next call.

    Args:
        name: One of `SOURCES`.
        folder: Folder to make; nothing that is there is overwritten.
        say: Called with one short sentence at each stage; licence and citation come first.
        progress: Called several times a second with the state of the download.
        check_stop: Called often; may raise to stop.
        sources: Sources to use instead of `SOURCES`.
        with_test_set: Also fetch the test set, where its files are separate.
        back_off_s: First wait after a failed attempt.

    Raises:
        SettingsError: No source has this name.
        DataError: D096 not the published bytes; D097 not the expected layout; D099 the folder
            holds something else; D090 to D095 an archive that is not unpacked.
        ResourceError: Network, server, disk, or another fetch into this folder.
    """
    source = _source(name, sources or SOURCES)
    folder = folder.absolute()
    present = _present(name, source, folder)
    if present is not None:
        say(f"already here: {folder}")
        return present
    _announce(source, say)
    stage = folder.with_name(f".{folder.name}.fetch")
    with _alone(stage):
        downloader = Downloader(say, progress, check_stop or (lambda: None), back_off_s)
        chosen = source.files + (source.test_files if with_test_set else ())
        files = [_described(file, source, downloader, say) for file in chosen]
        _check_room(stage, files)
        fetched = tuple(
            _fetch(file, replace_pin, stage, downloader)
            for file, replace_pin in zip(files, (f.md5 is not None for f in chosen), strict=True)
        )
        whole = _assemble(source, fetched, stage, say, check_stop)
        result = _result(name, source, folder, fetched, _detects(name, whole))
        _write_note(whole, source, fetched)
        if not source.by_hand and not result.is_readable:
            raise DataError(
                f"{whole}: unpacked, but not the layout that {name} expects; nothing was moved to "
                f"{folder}, see docs/data_sets.md",
                code="D097",
            )
        _move(whole, folder)
        shutil.rmtree(stage)
    say(result.hint)
    return result


def _source(name: str, sources: Mapping[str, Source]) -> Source:
    if name not in sources:
        raise SettingsError(
            f"data fetch: unknown data set {name!r}; known are {', '.join(sorted(sources))}"
        )
    return sources[name]


def _announce(source: Source, say: Say) -> None:
    info = source.info
    say(f"{info.title} (doi:{info.doi})")
    say(f"licence: {info.licence}")
    say(f"cite: {info.citation}")


def _present(name: str, source: Source, folder: Path) -> FetchedData | None:
    """Return the data set if it is complete, None if there is nothing; else DataError D099."""
    if not folder.exists() and not folder.is_symlink():
        return None
    if not folder.is_dir():
        raise DataError(f"{folder}: exists and is no folder; choose another", code="D099")
    if not any(folder.iterdir()):
        return None
    files = _read_note(folder)
    if source.by_hand:
        archives = [f for f in files if (folder / f.name).is_file()]
        if archives and all(_digests(folder / f.name)[0] == f.md5 for f in archives):
            return replace(_result(name, source, folder, files, False), was_there=True)
    elif _detects(name, folder) and not (missing := _missing(name, folder)):
        return replace(_result(name, source, folder, files, True), was_there=True)
    elif _detects(name, folder):
        raise DataError(
            f"{folder}: holds {name} but lacks {len(missing)} images, e.g. {missing[0]}; nothing "
            "is overwritten, choose a new folder",
            code="D099",
        )
    raise DataError(
        f"{folder}: holds something other than {name}; nothing is overwritten, choose a new folder",
        code="D099",
    )


def _detects(name: str, folder: Path) -> bool:
    adapter, root = locate_data_set(folder, name)  # archives unpack into a folder of their own
    return adapter.detects(root)


def _missing(name: str, folder: Path) -> list[str]:
    adapter, root = locate_data_set(folder, name)
    paths = adapter.list_images(root).table["path"].astype(str)
    return [path for path in paths if not (root / path).is_file()]


def _described(file: RemoteFile, source: Source, downloader: Downloader, say: Say) -> RemoteFile:
    """Return the file with size and checksum, taken from the publisher's record if not pinned."""
    if file.n_bytes is None or file.md5 is None:
        file = _from_record(file, source.record, downloader.read_json(source.record))
        say(
            f"{file.name}: checksum md5:{file.md5} is the publisher's own, read from {source.record} "
            "just now; it is not pinned in this program"
        )
    say(f"{file.name}: {(file.n_bytes or 0) / 1e6:,.1f} MB from {file.address}")
    return file


def _from_record(file: RemoteFile, address: str, record: object) -> RemoteFile:
    entries = record.get("files") if isinstance(record, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("key") == file.name:
            found = _MD5.fullmatch(str(entry.get("checksum", "")))
            size = entry.get("size")
            if found and isinstance(size, int) and size > 0:
                return replace(file, n_bytes=size, md5=found[1])
    raise ResourceError(
        f"{address}: the record gives no size and MD5 of {file.name}; see whether it has changed"
    )


def _check_room(stage: Path, files: list[RemoteFile]) -> None:
    # Archives of PNG images unpack to about their own size; both lie there for a moment.
    needed = sum(
        (file.n_bytes or 0) * (2.1 if _is_zip(file.name) else 1.0)
        - sum(p.stat().st_size for p in (stage / file.name, _part(stage, file)) if p.is_file())
        for file in files
    )
    free = shutil.disk_usage(stage).free
    if free < needed:
        raise ResourceError(
            f"{stage.parent}: {free / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB needed to fetch and "
            "unpack; make room or choose another disk"
        )


def _fetch(file: RemoteFile, is_pinned: bool, stage: Path, downloader: Downloader) -> FetchedFile:
    whole, part = stage / file.name, _part(stage, file)
    if whole.is_file():
        part.unlink(missing_ok=True)
        whole.replace(part)  # it may be old: check it again below
    resumed = part.is_file() and part.stat().st_size > 0
    downloader.fetch(file, part)
    md5, sha256 = _digests(part)
    if md5 != file.md5 and resumed:
        # Pieces of several answers may not fit together: fetch the file once more as a whole.
        downloader.say(f"{file.name}: the pieces do not fit together, starting again")
        part.unlink()
        downloader.fetch(file, part)
        md5, sha256 = _digests(part)
    if md5 != file.md5:
        part.unlink()
        raise DataError(
            f"{file.name}: expected md5:{file.md5} as published, found md5:{md5}; it is not the "
            "published file, nothing is kept",
            code="D096",
        )
    part.replace(whole)
    part.with_name(part.name + ".etag").unlink(missing_ok=True)
    return FetchedFile(file.name, file.address, whole.stat().st_size, md5, sha256, is_pinned)


def _part(stage: Path, file: RemoteFile) -> Path:
    return stage / f"{file.name}.part"


def _is_zip(name: str) -> bool:
    return name.endswith(".zip")


def _digests(path: Path) -> tuple[str, str]:
    """Return MD5 and SHA-256 of a file, in one pass."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()


def _assemble(
    source: Source,
    files: tuple[FetchedFile, ...],
    stage: Path,
    say: Say,
    check_stop: CheckStop | None,
) -> Path:
    """Unpack all files into one folder of the stage and return it."""
    whole = stage / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    for file in files:
        path = stage / file.name
        if not _is_zip(file.name):
            shutil.copyfile(path, whole / file.name)
            continue
        say(f"{file.name}: checksum agrees, unpacking")
        unpacked = stage / f"{file.name}.unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpack_zip(
            path,
            unpacked,
            max_files=source.max_files,
            max_bytes=source.max_bytes,
            max_ratio=_MAX_RATIO,
            progress=None if check_stop is None else _ignoring(check_stop),
        )
        for child in sorted(unpacked.iterdir()):
            if (whole / child.name).exists():
                raise DataError(
                    f"{file.name}: holds {child.name!a}, which another file brings too", code="D097"
                )
            child.rename(whole / child.name)
        unpacked.rmdir()
    return whole


def _ignoring(check_stop: CheckStop) -> Callable[[int, int], None]:
    return lambda _done, _total: check_stop()


def _result(
    name: str, source: Source, folder: Path, files: tuple[FetchedFile, ...], is_readable: bool
) -> FetchedData:
    hint = source.by_hand or f"check it with `medisynth-gov data check {typed(folder)}`"
    return FetchedData(name, folder, files, False, is_readable, hint)


def _write_note(folder: Path, source: Source, files: tuple[FetchedFile, ...]) -> None:
    info = source.info
    note = {
        "title": info.title,
        "doi": info.doi,
        "licence": info.licence,
        "citation": info.citation,
        "record": source.record,
        "files": [asdict(file) for file in files],
    }
    write_atomic(folder / NOTE_FILE, json.dumps(note, indent=2, ensure_ascii=False).encode())


def _read_note(folder: Path) -> tuple[FetchedFile, ...]:
    try:
        note = json.loads((folder / NOTE_FILE).read_bytes())
        return tuple(FetchedFile(**file) for file in note["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _move(whole: Path, folder: Path) -> None:
    try:
        whole.rename(folder)  # fails if somebody filled the folder meanwhile
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be put there ({error.strerror}); choose a new folder", code="D099"
        ) from error


@contextlib.contextmanager
def _alone(stage: Path) -> Iterator[None]:
    """Make the stage folder and lock it while the block runs; OSError becomes ResourceError."""
    try:
        stage.mkdir(parents=True, exist_ok=True)
        lock = (stage / "lock").open("w")
    except OSError as error:
        raise ResourceError(
            f"{stage}: cannot be made ({error.strerror}); choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResourceError(
                f"{stage}: another fetch into this folder is at work; wait for it"
            ) from error
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"{error.filename or stage}: {error.strerror or error}; what came is kept, make "
                "room or mend the permission and give the same command again"
            ) from error
        finally:
            if stage.is_dir() and [path.name for path in stage.iterdir()] == ["lock"]:
                shutil.rmtree(stage)
