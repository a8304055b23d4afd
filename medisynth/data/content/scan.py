"""Scan of images and metadata for burned-in text, marks, identifying columns and PNG texts."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from governance.records.content import ContentScan, FileMetadata, TextMark
from governance.records.errors import DataError, SettingsError
from medisynth.data.content.identifiers import (
    identifying_columns,
    masked,
    reason_by_name,
    text_kind,
)
from medisynth.data.content.marks import Overlay, find_overlay
from medisynth.data.content.text import (
    TextReaderError,
    Word,
    find_tesseract,
    lines_of,
    read_texts,
    tesseract_version,
)
from medisynth.data.reading.decode import decode_bytes
from medisynth.data.reading.folder import DataFolder
from medisynth.data.reading.png import EXIF_ROTATION, all_texts
from medisynth.data.reading.statistics import OVERLAY_FRACTION
from medisynth.data.reading.views import Pixels

MAX_MARKS = 200
_MAX_NAMED_IMAGES = 20
# Keywords of texts that programs and data sets write about pictures; their text must be harmless,
# too. Dates are not among them: they may be those of the examination.
_HARMLESS_KEYWORDS = frozenset(
    {"Software", "Source", "Copyright", "Description", "Title", "Disclaimer", "Warning"}
)
_KNOWN_PROGRAM = re.compile(
    r"(?:adobe (?:imageready|photoshop(?: cc)?)|imagemagick|graphicsmagick|gimp|imagej|fiji|matlab|"
    r"octave|matplotlib|pillow|opencv|paint\.net|inkscape|gnome-screenshot|www\.inkscape\.org|"
    r"matplotlib version)[ \d.,()/:-]*(?:https?://(?:matplotlib\.org|imagemagick\.org)/?)?",
    re.IGNORECASE,
)
_LONGEST_HARMLESS_TEXT = 1_000  # characters
_XMP_KEY, _XMP = "XML:com.adobe.xmp", "XMP"
_NOT_READ = "may hold names and dates, which are not read"
_BY_PS315 = "DICOM PS3.15 wants it removed or replaced; its value is not repeated"
_REASONS = {
    "DICOM private tags": "a maker's own attributes may hold anything",
    "DICOM BurnedInAnnotation": "the file says that annotations stand in its pixels",
}
_MIN_CONFIDENCE = 0.3  # a reading below is more often speckle than letters
_BATCH = 10  # images whose text is read in one run of the program
_MIN_DOTS = 10  # dots in a row that a measurement leaves, at least


@dataclass(frozen=True)
class _Look:
    """Result of scanning one image; `failure` says why it could not be scanned."""

    image_id: str
    has_text: bool = False
    has_callipers: bool = False
    marks: tuple[TextMark, ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class _Frame:
    """One image as it was read for the scan."""

    image_id: str
    grey: Pixels
    overlay: Overlay


_Job = tuple[str, str, str | None]  # image id, path, digest of the file


def scan_content(
    root: Path,
    table: pd.DataFrame,
    metadata: pd.DataFrame,
    *,
    n_text_images: int | Literal["all"],
    reviewed: Mapping[str, str],
    seed: int,
    n_workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ContentScan:
    """Look for text, marks, PNG texts and columns that could identify a person.

    Args:
        root: Data root.
        table: Ingested images with image_id, path, machine, overlay_fraction and, where they are
            known, png_text_keywords, png_metadata, site and file_sha256.
        metadata: The metadata file as text, see `Listing.metadata`.
        n_text_images: Images whose burned-in text is read, see `drawn_images`.
        reviewed: Image id or column name -> why a person found it harmless.
        seed: Seed of the draw.
        n_workers: Images looked at at a time.
        progress: Called after each image with images done and images in all.

    Raises:
        SettingsError: A number of images is negative or no worker is allowed.
    """
    if n_workers < 1 or (n_text_images != "all" and n_text_images < 0):
        raise SettingsError(
            f"n_workers must be at least 1 and n_text_images at least 0, found {n_workers} and "
            f"{n_text_images}"
        )
    version = tesseract_version()
    tesseract = None if version is None else find_tesseract()
    drawn = drawn_images(table, n_text_images, seed)
    tagged = [
        index
        for index, v in zip(table.index, _column(table, "burned_in"), strict=True)
        if v == "YES"
    ]
    drawn = table.loc[table.index.isin([*drawn.index, *tagged])]
    looks = _all_looks(root, drawn, tesseract, n_workers, progress)
    done = [look for look in looks if not look.failure]
    marks = [mark for look in done for mark in look.marks if mark.image_id not in reviewed]
    keywords = _keyword_counts(table)
    columns = identifying_columns(metadata)
    in_files = _metadata_of_files(root, table)
    found = {kind for kinds in in_files.values() for kind in kinds}
    in_files = {name: kinds for name, kinds in in_files.items() if name not in reviewed}
    known = {*table["image_id"], *metadata.columns, *keywords, *found}
    file_metadata = _by_kind(in_files, reviewed)
    return ContentScan(
        engine="overlay detector" if tesseract is None else f"tesseract {version}",
        reads_text=tesseract is not None,
        n_images=len(table),
        n_scanned=len(done),
        n_with_overlay=int((table["overlay_fraction"] >= OVERLAY_FRACTION).sum()),
        n_with_text=sum(look.has_text for look in done),
        n_with_callipers=sum(look.has_callipers for look in done),
        marks=tuple(marks[:MAX_MARKS]),
        n_images_with_marks=len({mark.image_id for mark in marks}),
        text_chunks=keywords,
        n_columns=metadata.shape[1],
        columns=tuple(column for column in columns if column.column not in reviewed),
        file_metadata=file_metadata,
        n_images_with_metadata=sum(bool(set(kinds) - set(reviewed)) for kinds in in_files.values()),
        reviewed=tuple(f"{name}: {why}" for name, why in sorted(reviewed.items()) if name in known),
        limitations=_limitations(
            tesseract is not None,
            len(table),
            looks,
            len(turned(table)),
            sorted(set(reviewed) - known),
            _about_dicom(table, {look.image_id for look in done if look.has_text}),
        ),
    )


def _about_dicom(table: pd.DataFrame, with_text: set[str]) -> list[str]:
    """Say what DICOM headers leave open, and where they contradict the pixels."""
    n = int(is_dicom(table).sum())
    if not n:
        return []
    burned_in = dict(zip(table["image_id"], _column(table, "burned_in"), strict=True))
    n_silent = sum(not burned_in[name] for name in table["image_id"][is_dicom(table)])
    n_wrong = sum(burned_in[name] == "NO" for name in with_text)
    said = [
        f"Whether UIDs and PatientID of {n:,} images from DICOM were replaced cannot be seen from them."
    ]
    if n_silent:
        said.append(f"{n_silent:,} of them do not say whether annotations are burned in.")
    if n_wrong:
        said.append(
            f"{n_wrong:,} images say that nothing is burned in, yet text was found in them."
        )
    return said


def turned(table: pd.DataFrame) -> list[str]:
    """Return the ids of images that EXIF asks to turn; they are used as they are stored."""
    kinds = _column(table, "png_metadata")
    return [
        str(name)
        for name, kind in zip(table["image_id"], kinds, strict=True)
        if EXIF_ROTATION in kind.split(", ")
    ]


def is_dicom(table: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the images that were converted from DICOM files."""
    if "conversion" not in table:
        return pd.Series(False, index=table.index)
    return table["conversion"].str.startswith("DICOM").astype(bool)


def drawn_images(table: pd.DataFrame, n: int | Literal["all"], seed: int) -> pd.DataFrame:
    """Select the images whose text is read: evenly over machines, at random within each.

    Scanners differ in what they write, so each gives as many images as any other until it has no
    more; where no machine is recorded, the site is taken. Within a machine the draw is random and
    ignores the amount of overlay: scales and wedges cover most pixels and a name few, and only a
    random draw tells how common something is.

    Args:
        table: Rows with image_id, machine and, where it is known, site.
        n: How many; "all" takes every image.
        seed: The order within a machine depends on this and the image id, not on the table's order.
    """
    if n == "all" or n >= len(table):
        return table
    place = table["site"] if "site" in table else pd.Series(pd.NA, index=table.index)
    machine = table["machine"].fillna(place).fillna("not recorded").astype(str)
    ticket = table["image_id"].map(
        lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
    )
    order = pd.DataFrame({"machine": machine, "ticket": ticket}).sort_values(["ticket", "machine"])
    order["turn"] = order.groupby("machine").cumcount()
    chosen = order.sort_values(["turn", "ticket"]).index[:n]
    return table.loc[table.index.isin(chosen)]


def _all_looks(
    root: Path,
    drawn: pd.DataFrame,
    tesseract: str | None,
    n_workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[_Look]:
    digests = drawn["file_sha256"] if "file_sha256" in drawn else [None] * len(drawn)
    jobs = list(zip(drawn["image_id"], drawn["path"], digests, strict=True))
    batches = [jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH)]
    looks: list[_Look] = []
    pool = ThreadPoolExecutor(max_workers=n_workers, thread_name_prefix="content")
    try:
        for seen in pool.map(partial(_look_at_all, DataFolder(root), tesseract), batches):
            for look in seen:
                looks.append(look)
                if progress is not None:
                    progress(len(looks), len(jobs))
    finally:  # also on Ctrl-C: what has not begun is given up
        pool.shutdown(wait=True, cancel_futures=True)
    return looks


def _look_at_all(folder: DataFolder, tesseract: str | None, jobs: list[_Job]) -> list[_Look]:
    """Scan a few images; their text is read in one run of tesseract."""
    frames = [_frame(folder, *job) for job in jobs]
    usable = [frame for frame in frames if isinstance(frame, _Frame)]
    texts: list[tuple[Word, ...] | TextReaderError]
    if tesseract is None:
        texts = [()] * len(usable)
    else:
        texts = read_texts([(frame.grey, frame.overlay.boxes) for frame in usable], tesseract)
    read = iter(texts)
    return [
        _look(frame, next(read), reads_text=tesseract is not None)
        if isinstance(frame, _Frame)
        else frame
        for frame in frames
    ]


def _frame(folder: DataFolder, image_id: str, path: str, digest: str | None) -> _Frame | _Look:
    try:
        data = folder.read(path)
        decoded = decode_bytes(data, path)
    except DataError:
        return _Look(image_id, failure="the file could not be read again")
    if isinstance(digest, str) and decoded.file_sha256 != digest:
        return _Look(image_id, failure="the file changed since it was first read")
    return _Frame(image_id, decoded.grey, find_overlay(decoded.grey))


def _look(frame: "_Frame", words: tuple[Word, ...] | TextReaderError, *, reads_text: bool) -> _Look:
    if isinstance(words, TextReaderError):
        return _Look(frame.image_id, failure=str(words))
    lines = [line for line in lines_of(words) if line[1] >= _MIN_CONFIDENCE]
    has_text = bool(lines) if reads_text else bool(frame.overlay.boxes)
    marks = [
        TextMark(image_id=frame.image_id, kind=kind, text=masked(text), confidence=confidence)
        for text, confidence in lines
        if (kind := text_kind(text)) is not None
    ]
    has_callipers = frame.overlay.n_callipers > 0 or frame.overlay.n_dots >= _MIN_DOTS
    return _Look(frame.image_id, has_text, has_callipers, tuple(marks))


def _keyword_counts(table: pd.DataFrame) -> dict[str, int]:
    """Count the images that have each keyword of PNG texts."""
    counts: Counter[str] = Counter()
    for keywords in _column(table, "png_text_keywords"):
        counts.update({_shown(word) for word in keywords.split(", ") if word})
    return dict(sorted(counts.items()))


def _column(table: pd.DataFrame, name: str) -> list[str]:
    return [str(v) for v in table[name].fillna("")] if name in table else [""] * len(table)


def _shown(keyword: str) -> str:
    """Return a keyword as it may be printed: one that looks like a name or a date is masked."""
    return keyword if text_kind(keyword) is None else masked(keyword)


def _metadata_of_files(root: Path, table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return image id -> kind of metadata not known to be harmless -> why, for every image."""
    folder, found = DataFolder(root), {}
    rows = zip(
        table["image_id"],
        table["path"],
        _column(table, "png_text_keywords"),
        _column(table, "png_metadata"),
        strict=True,
    )
    for image_id, path, keywords, others in rows:
        kinds = {
            kind: _REASONS.get(kind, _BY_PS315 if kind.startswith("DICOM ") else _NOT_READ)
            for kind in others.split(", ")
            if kind and kind != EXIF_ROTATION
        }
        if keywords:
            kinds |= _texts_of_file(folder, path, keywords)
        if kinds:
            found[str(image_id)] = kinds
    return found


def _texts_of_file(folder: DataFolder, path: str, keywords: str) -> dict[str, str]:
    """Return kind -> why for the texts of one file that are not known to be harmless."""
    try:
        texts = list(all_texts(folder.read(path)))
    except DataError:
        return {_kind(word): "could not be read again" for word in keywords.split(", ")}
    faults = ((_kind(keyword), _fault_of_text(keyword, text)) for keyword, text in texts)
    return {kind: fault for kind, fault in faults if fault}


def _kind(keyword: str) -> str:
    # without the colon, which ends a name in audit.reviewed
    return _XMP if keyword == _XMP_KEY else _shown(keyword).replace(":", " ")


def _fault_of_text(keyword: str, text: str | None) -> str:
    """Return why a text in an image file is not known to be harmless; "" if it is."""
    if keyword not in _HARMLESS_KEYWORDS:
        by_name = reason_by_name(keyword)
        return by_name or "not among the texts that are known to be harmless"
    if text is None or len(text) > _LONGEST_HARMLESS_TEXT:
        return "too long, or damaged"
    if keyword == "Software" and _KNOWN_PROGRAM.fullmatch(text.strip()):
        return ""
    kinds = {kind for line in text.splitlines() if (kind := text_kind(line)) is not None}
    return f"looks like a {' and a '.join(sorted(kinds))}" if kinds else ""


def _by_kind(
    in_files: Mapping[str, Mapping[str, str]], reviewed: Mapping[str, str]
) -> tuple[FileMetadata, ...]:
    images: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for image_id, kinds in in_files.items():
        for kind, reason in kinds.items():
            if kind not in reviewed:
                images.setdefault(kind, []).append(image_id)
                reasons.setdefault(kind, reason)
    return tuple(
        FileMetadata(
            kind=kind,
            reason=reasons[kind],
            n_images=len(names),
            image_ids=tuple(names[:_MAX_NAMED_IMAGES]),
        )
        for kind, names in sorted(images.items())
    )


def _limitations(
    reads_text: bool,
    n_images: int,
    looks: list[_Look],
    n_turned: int,
    unmatched: list[str],
    about_dicom: list[str],
) -> str:
    failures = Counter(look.failure for look in looks if look.failure)
    n_left = n_images - len(looks)
    sentences = []
    if n_left:
        sentences.append(f"{n_left:,} of {n_images:,} images were not looked at for text.")
    for failure, n in sorted(failures.items()):
        sentences.append(
            f"{n:,} drawn {'image was' if n == 1 else 'images were'} not scanned: {failure}."
        )
    if reads_text:
        sentences.append(
            "Text below 5 pixels' height, dim, slanted or handwritten text and single names without "
            "a label are not recognised; letters may be misread, and only English is read."
        )
    else:
        sentences.append(
            "No program that reads text is installed: overlays are found, what they say is unknown."
        )
    if n_turned:
        sentences.append(
            f"{n_turned:,} {'image asks' if n_turned == 1 else 'images ask'} by EXIF to be turned; "
            "the pixels are used as they are stored."
        )
    sentences += about_dicom
    sentences.append("Whether a patient key is a pseudonym cannot be seen from the data.")
    if unmatched:
        sentences.append(
            f"{len(unmatched)} reviewed {'name fits' if len(unmatched) == 1 else 'names fit'} no "
            "column and no image."
        )
    return " ".join(sentences)
