"""Reads burned-in text with tesseract, an optional program."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from medisynth.data.reading.statistics import Box
from medisynth.data.reading.views import Pixels

TIMEOUT_S = 20
_GLYPH_PX = 32  # height to which lines are enlarged; tesseract's network was trained near it
_MAX_ENLARGEMENT = 5
_GAP_PX = 24  # white between the lines on the sheet
_MAX_SHEET_PX = 8_000_000
_WIDEST_GAP = 4  # line heights between two words of one line
_OPTIONS = ["stdin", "stdout", "-l", "eng", "--oem", "1", "--psm", "6", "--dpi", "150", "tsv"]
# One thread each: several images are read at once. Nothing else of the caller's environment
# is needed, and a user's TESSDATA_PREFIX must not change what is read unseen.
_ENVIRONMENT = {"OMP_THREAD_LIMIT": "1", "LC_ALL": "C.UTF-8"}


class TextReaderError(Exception):
    """Tesseract crashed, took too long or gave output that is no table of words."""


@dataclass(frozen=True)
class Word:
    """One word as read.

    Attributes:
        text: The word.
        confidence: Tesseract's confidence, 0 to 1.
        box: Where it stands in the image: left, top, right, bottom in pixels.
        line: Number of its line in the image, from 0, top to bottom.
    """

    text: str
    confidence: float
    box: Box
    line: int = 0


@dataclass(frozen=True)
class _Strip:
    """One line of text on the sheet given to tesseract."""

    box: Box
    top: int
    bottom: int
    scale: int


def find_tesseract() -> str | None:
    """Absolute path of tesseract, or None where it is not installed."""
    found = shutil.which("tesseract")
    return None if found is None else os.path.realpath(found)


def tesseract_version() -> str | None:
    """Version of the installed tesseract, e.g. "5.3.0"; None where it does not work.

    English must be among its languages, since `read_texts` uses it.
    """
    program = find_tesseract()
    if program is None:
        return None
    try:
        version = _run([program, "--version"], b"").split()
        languages = _run([program, "--list-langs"], b"").split()
    except TextReaderError:
        return None
    return version[1] if len(version) > 1 and "eng" in languages else None


def read_texts(
    frames: Sequence[tuple[Pixels, tuple[Box, ...]]], tesseract: str
) -> list[tuple[Word, ...] | TextReaderError]:
    """Read the burned-in text of several images in one run of tesseract, which starts slowly.

    Only lines that `marks.text_lines` finds are read: each is enlarged, turned to dark on
    light and put on a white sheet, one sheet an image, which reads better and several times faster
    than whole frames.

    Args:
        frames: Image at its own size, shape (height, width), uint8, and the lines found in it, see
            `Overlay.boxes`.
        tesseract: Path of the program, see `find_tesseract`.

    Returns:
        For each image its words, line by line, empty where nothing looks like text; or the error
        that prevented reading.
    """
    answers: list[tuple[Word, ...] | TextReaderError] = [() for _ in frames]
    sheets: dict[int, tuple[Pixels, list[_Strip]]] = {}
    for number, (grey, boxes) in enumerate(frames):
        lines = _joined(boxes)
        if lines:
            try:
                sheets[number] = _sheet(grey, lines)
            except TextReaderError as error:
                answers[number] = error
    for numbers in _runs({number: sheet.size for number, (sheet, _) in sheets.items()}):
        answers_of_run = _read_sheets([sheets[number] for number in numbers], tesseract)
        for number, answer in zip(numbers, answers_of_run, strict=True):
            answers[number] = answer
    return answers


def _runs(n_pixels: dict[int, int]) -> list[list[int]]:
    """Divide sheets over runs of tesseract so that each run needs the memory of one large sheet."""
    runs: list[list[int]] = []
    room = 0
    for number, size in n_pixels.items():
        if size > room:
            runs.append([])
            room = _MAX_SHEET_PX
        runs[-1].append(number)
        room -= size
    return runs


def _read_sheets(
    sheets: list[tuple[Pixels, list[_Strip]]], tesseract: str
) -> list[tuple[Word, ...] | TextReaderError]:
    """Read the words on each sheet; where a run of several fails, read each by itself."""
    pages = [Image.fromarray(sheet) for sheet, _ in sheets]
    stream = BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    try:
        rows = _rows_by_page(_run([tesseract, *_OPTIONS], stream.getvalue()), len(pages))
        return [_words(page, strips) for page, (_, strips) in zip(rows, sheets, strict=True)]
    except TextReaderError as error:
        if len(sheets) == 1:
            return [error]
        return [_read_sheets([sheet], tesseract)[0] for sheet in sheets]


def lines_of(words: tuple[Word, ...]) -> tuple[tuple[str, float], ...]:
    """Text and mean confidence of each line that was read."""
    by_line: dict[int, list[Word]] = {}
    for word in words:
        by_line.setdefault(word.line, []).append(word)
    return tuple(
        (" ".join(word.text for word in line), _mean(line)) for _, line in sorted(by_line.items())
    )


def _mean(words: list[Word]) -> float:
    return sum(word.confidence for word in words) / len(words)


def _joined(boxes: tuple[Box, ...]) -> list[Box]:
    """Join boxes that lie side by side on one line, since a name has more than one word."""
    lines: list[Box] = []
    for box in sorted(boxes):
        for number, line in enumerate(lines):
            tall = max(box[3] - box[1], line[3] - line[1])
            overlap = min(box[3], line[3]) - max(box[1], line[1])
            if overlap >= 0.6 * tall and box[0] - line[2] <= _WIDEST_GAP * tall:
                lines[number] = (
                    line[0],
                    min(line[1], box[1]),
                    max(line[2], box[2]),
                    max(line[3], box[3]),
                )
                break
        else:
            lines.append(box)
    return sorted(lines, key=lambda line: (line[1], line[0]))


def _sheet(grey: Pixels, lines: list[Box]) -> tuple[Pixels, list[_Strip]]:
    """Draw the lines, enlarged and dark on light, one below the other on white."""
    pieces: list[Pixels] = []
    strips: list[_Strip] = []
    top, n_pixels = _GAP_PX, 0
    for left, upper, right, lower in lines:
        scale = min(_MAX_ENLARGEMENT, max(1, round(_GLYPH_PX / max(1, lower - upper))))
        piece = _dark_on_light(grey[upper:lower, left:right], scale)
        n_pixels += (piece.shape[0] + _GAP_PX) * (piece.shape[1] + 2 * _GAP_PX)
        if n_pixels > _MAX_SHEET_PX:
            raise TextReaderError("more text than one sheet holds was found; the image is not read")
        strips.append(_Strip((left, upper, right, lower), top, top + piece.shape[0], scale))
        pieces.append(piece)
        top += piece.shape[0] + _GAP_PX
    width = max(piece.shape[1] for piece in pieces) + 2 * _GAP_PX
    sheet = np.full((top, width), 255, dtype=np.uint8)
    for strip, piece in zip(strips, pieces, strict=True):
        sheet[strip.top : strip.bottom, _GAP_PX : _GAP_PX + piece.shape[1]] = piece
    return sheet, strips


def _dark_on_light(patch: Pixels, scale: int) -> Pixels:
    """Enlarge a patch, stretch it to full contrast and make its background light."""
    low, middle, high = np.percentile(patch, (2, 50, 99.5))
    stretched = (patch.astype(np.float64) - low) * (255.0 / max(1.0, high - low))
    image = Image.fromarray(np.clip(np.rint(stretched), 0, 255).astype(np.uint8))
    enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    pixels = np.asarray(enlarged)
    return pixels if middle - low > high - middle else 255 - pixels


def _run(command: list[str], given: bytes) -> str:
    """Run tesseract and return its standard output; a failure raises a one-sentence error."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell; program found by its full path
            command,
            input=given,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
            env=_ENVIRONMENT,
        )
        return done.stdout.decode("utf-8")
    except subprocess.TimeoutExpired as error:
        raise TextReaderError(f"tesseract took longer than {TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        raise TextReaderError(f"tesseract ended with status {error.returncode}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TextReaderError(f"tesseract cannot be used ({type(error).__name__})") from error


def _rows_by_page(table: str, n_pages: int) -> list[list[list[str]]]:
    """Return the rows of tesseract's table that hold words, page by page."""
    pages: list[list[list[str]]] = [[] for _ in range(n_pages)]
    for row in table.splitlines()[1:]:
        cells = row.split("\t")
        if len(cells) != 12 or not cells[1].isdigit() or not 1 <= int(cells[1]) <= n_pages:
            raise TextReaderError("tesseract answered something else than its table of words")
        if cells[0] == "5" and cells[11].strip():
            pages[int(cells[1]) - 1].append(cells)
    return pages


def _words(rows: list[list[str]], strips: list[_Strip]) -> tuple[Word, ...]:
    """Return the words of one page in the image's coordinates."""
    words: list[Word] = []
    for cells in rows:
        try:
            left, top, width, height = (int(cell) for cell in cells[6:10])
            confidence = min(1.0, max(0.0, float(cells[10]) / 100))
        except ValueError as error:
            raise TextReaderError("tesseract's table holds no numbers") from error
        middle = top + height / 2
        number = min(
            range(len(strips)),
            key=lambda k: abs(middle - (strips[k].top + strips[k].bottom) / 2),
        )
        strip = strips[number]
        x, y = strip.box[:2]
        box = (
            x + max(0, left - _GAP_PX) // strip.scale,
            y + max(0, top - strip.top) // strip.scale,
            x + -(-max(0, left + width - _GAP_PX) // strip.scale),
            y + -(-max(0, top + height - strip.top) // strip.scale),
        )
        words.append(Word(cells[11].strip(), confidence, box, number))
    return tuple(sorted(words, key=lambda word: (word.line, word.box[0])))
