"""Scan of images and metadata for burned-in text, marks, identifying columns and PNG texts."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from governance.records.audit import ContentScan, IdentifyingColumn, TextMark
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
from medisynth.data.reading.png import text_chunks
from medisynth.data.reading.statistics import OVERLAY_FRACTION
from medisynth.data.reading.synthetic_mark import KEY
from medisynth.data.reading.views import Pixels

MAX_MARKS = 200
# Keywords that programs write about pictures, and those of our own mark; none is about a person.
ORDINARY_KEYWORDS = frozenset(
    {"Software", "Source", "Copyright", "Description", "Title", "XML:com.adobe.xmp", KEY}
    | {"date:create", "date:modify", "date:timestamp", "Creation Time", "Disclaimer", "Warning"}
)
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
    chunks: Mapping[str, str]


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
            known, png_text_keywords, site and file_sha256.
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
    looks = _all_looks(root, drawn, tesseract, n_workers, progress)
    done = [look for look in looks if not look.failure]
    marks = [mark for look in done for mark in look.marks if mark.image_id not in reviewed]
    keywords = _keyword_counts(table)
    columns = (*identifying_columns(metadata), *_identifying_keywords(keywords))
    known = {*table["image_id"], *metadata.columns, *keywords}
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
        reviewed=tuple(f"{name}: {why}" for name, why in sorted(reviewed.items()) if name in known),
        limitations=_limitations(
            tesseract is not None, len(table), looks, keywords, sorted(set(reviewed) - known)
        ),
    )


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
    return _Frame(image_id, decoded.grey, find_overlay(decoded.grey), text_chunks(data))


def _look(frame: "_Frame", words: tuple[Word, ...] | TextReaderError, *, reads_text: bool) -> _Look:
    if isinstance(words, TextReaderError):
        return _Look(frame.image_id, failure=str(words))
    lines = [line for line in lines_of(words) if line[1] >= _MIN_CONFIDENCE]
    has_text = bool(lines) if reads_text else bool(frame.overlay.boxes)
    lines += [
        (line, 1.0)
        for keyword, text in frame.chunks.items()
        if keyword not in ORDINARY_KEYWORDS
        for line in text[:10_000].splitlines()
    ]
    marks = [
        TextMark(image_id=frame.image_id, kind=kind, text=masked(text), confidence=confidence)
        for text, confidence in lines
        if (kind := text_kind(text)) is not None
    ]
    has_callipers = frame.overlay.n_callipers > 0 or frame.overlay.n_dots >= _MIN_DOTS
    return _Look(frame.image_id, has_text, has_callipers, tuple(marks))


def _keyword_counts(table: pd.DataFrame) -> dict[str, int]:
    """Count the images that have each keyword of PNG texts."""
    if "png_text_keywords" not in table:
        return {}
    counts: Counter[str] = Counter()
    for keywords in table["png_text_keywords"].fillna(""):
        counts.update({word for word in str(keywords).split(", ") if word})
    return dict(sorted(counts.items()))


def _identifying_keywords(keywords: Mapping[str, int]) -> tuple[IdentifyingColumn, ...]:
    found = ((word, reason_by_name(word), n) for word, n in keywords.items())
    return tuple(
        IdentifyingColumn(column=word, reason=f"text inside image files: {reason}", n_values=n)
        for word, reason, n in found
        if reason
    )


def _limitations(
    reads_text: bool,
    n_images: int,
    looks: list[_Look],
    keywords: Mapping[str, int],
    unmatched: list[str],
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
    others = [word for word in keywords if word not in ORDINARY_KEYWORDS]
    if others:
        sentences.append(
            "PNG texts under unusual keywords were read in the scanned images only: "
            + ", ".join(others)
            + "."
        )
    sentences.append("Whether a patient key is a pseudonym cannot be seen from the data.")
    if unmatched:
        sentences.append(
            f"{len(unmatched)} reviewed {'name fits' if len(unmatched) == 1 else 'names fit'} no "
            "column and no image."
        )
    return " ".join(sentences)
