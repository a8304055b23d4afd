"""Decoding of image files to grey pixels, and resizing to squares."""

import contextlib
import hashlib
import io
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from kornia_rs.io import decode_image_png_u8
from numpy.typing import NDArray
from PIL import Image

from governance.records.errors import DataError, Finding
from medisynth.data.reading import png
from medisynth.data.reading.conversion import Conversion
from medisynth.data.reading.kinds import kind_of_content
from medisynth.data.reading.synthetic_mark import is_marked_synthetic
from medisynth.data.reading.views import Pixels

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 25_000_000
MODES = ("L", "RGB", "LA", "RGBA")  # the last two only where nothing is transparent
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_DAMAGED = "is a damaged or cut PNG file; restore it from the source"
# Pillow raises LookupError for files without pixel data and for chunks of unexpected content.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, LookupError)


@dataclass(frozen=True)
class DecodedImage:
    """One image file, decoded from memory.

    Attributes:
        grey: Grey image at its own size, shape (height, width), uint8; colour by ITU-R 601 luma.
        mode: "L" if the content is grey however it was stored, "RGB" if it has colour.
        width_px: Width.
        height_px: Height.
        n_bytes: Size of the file.
        file_sha256: Digest of the file's bytes.
        pixel_sha256: Digest of mode, size and raw pixels: equal for equal pictures, however they
            were compressed, and equal for a grey picture stored as RGB.
        synthetic_mark: Whether the file says that it is synthetic.
        png_text_keywords: Keywords of the text in the file, see `png.text_keywords`.
        png_metadata: Kinds of other metadata in the file, see `png.metadata_kinds`.
    """

    grey: Pixels
    mode: str
    width_px: int
    height_px: int
    n_bytes: int
    file_sha256: str
    pixel_sha256: str
    synthetic_mark: bool
    png_text_keywords: str
    png_metadata: str


def decode_bytes(data: bytes, where: str, *, file_sha256: str | None = None) -> DecodedImage:
    """Decode one PNG file from memory, refusing everything that is not one whole grey or RGB image.

    Args:
        data: Bytes of the whole file.
        where: Name of the file for messages.
        file_sha256: Digest of `data` where it is known already.

    Raises:
        DataError: The file is no PNG, damaged, cut short, animated, too large or of another kind
            of pixels; its one finding says which.
    """
    kinds = check_container(data, where)
    try:
        # Checksums have been compared already, as decoders ignore some. Unpacking finds cut,
        # damaged or surplus pixel data with fitting checksums; its result is decoded, once.
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in MODES or data[24] > 8:
                raise image_fault("D065", where, _pixels_fault(image.mode, depth=data[24]))
            pixels = png.inflated_pixels(data)
            if pixels is None:
                raise image_fault(
                    "D063", where, "has more or fewer pixels than its header says; restore it"
                )
        grey, mode, content = _decode(data, kinds, pixels, where)
    except DECODE_ERRORS as error:
        raise image_fault("D063", where, _DAMAGED) from error
    has_text = not png.TEXT_KINDS.isdisjoint(kinds)
    height, width = grey.shape
    content_digest = hashlib.sha256(f"{mode} {width} {height}\n".encode())
    content_digest.update(np.ascontiguousarray(content).data)
    return DecodedImage(
        grey=grey,
        mode=mode,
        width_px=width,
        height_px=height,
        n_bytes=len(data),
        file_sha256=file_sha256 or hashlib.sha256(data).hexdigest(),
        pixel_sha256=content_digest.hexdigest(),
        synthetic_mark=has_text and is_marked_synthetic(data),
        png_text_keywords=png.text_keywords(data) if has_text else "",
        png_metadata=png.metadata_kinds(data, kinds),
    )


def _pixels_fault(mode: str, *, depth: int) -> str:
    """Say which kind of pixels a PNG file has, and how to convert them."""
    if depth > 8:
        what = "16-bit pixels"
        remedy = "set data.convert.window, as the window decides what is seen"
    elif mode == "P":
        what, remedy = "a palette of colours", "set data.convert.palette: expand"
    elif mode == "1":
        what, remedy = "pixels of 1 bit (is it a mask?)", "save it as 8-bit grey"
    else:
        what, remedy = "pixels of another kind", "save it as 8-bit grey or RGB"
    return f"has {what} (mode {mode}), expected 8-bit grey or RGB; {remedy}"


def image_fault(code: str, where: str, message: str) -> DataError:
    """Return the error of one image file, with one finding."""
    finding = Finding(code, where, message)
    return DataError(str(finding), code=code, findings=[finding])


def check_container(data: bytes, where: str) -> list[bytes]:
    """Refuse files that must not reach the decoder, without decoding; return the chunk types."""
    if not data:
        raise image_fault(
            "D063", where, "is empty, expected a PNG file; restore it from the source"
        )
    if len(data) > MAX_FILE_BYTES:
        raise image_fault("D062", where, f"has more than {MAX_FILE_BYTES:,} bytes")
    size = png.header_size(data)
    if size is None:
        kind = kind_of_content(data)
        found = f"is {kind.what}, not a PNG file" if kind else "is not a PNG file"
        remedy = kind.remedy if kind else "get the file again from its source"
        raise image_fault("D064", where, f"{found}; expected an 8-bit grey or RGB PNG: {remedy}")
    if math.prod(size) > MAX_PIXELS or 0 in size:
        raise image_fault(
            "D062",
            where,
            f"is {size[0]} x {size[1]} pixels, expected at most {MAX_PIXELS:,} in all",
        )
    if not data.endswith(png.END):
        raise image_fault(
            "D063",
            where,
            "does not end as a PNG file must: it is cut short or has bytes appended; restore it "
            "from the source",
        )
    kinds = png.intact_kinds(data)
    if kinds is None:
        raise image_fault("D063", where, _DAMAGED)
    if kinds.count(b"IHDR") != 1:  # the size checked above must be the one that the decoder uses
        raise image_fault("D063", where, "has two headers; restore it from the source")
    if not _ANIMATION.isdisjoint(kinds):
        raise image_fault("D066", where, "holds several frames, expected one image")
    return kinds


def _decode(
    data: bytes, kinds: list[bytes], pixels: bytes, where: str
) -> tuple[Pixels, str, Pixels]:
    """Return grey pixels, mode and content of a file whose pixel data are already unpacked."""
    stored = png.with_stored_pixels(data, pixels)
    size = png.header_size(data)
    if size is not None and png.is_plain_grey(data, kinds):
        # Takes half of Pillow's time. Files that it refuses are left to Pillow.
        with contextlib.suppress(Exception):
            width, height = size
            grey: Pixels = decode_image_png_u8(stored, (height, width), "mono")[:, :, 0]
            return grey, "L", grey
    with Image.open(io.BytesIO(stored), formats=["PNG"]) as image:
        image.load()
        return _content(image, where)


def _content(image: Image.Image, where: str) -> tuple[Pixels, str, Pixels]:
    """Return grey pixels, mode and content in raw order, however the image was stored."""
    bands = image.split() if image.mode != "L" else (image,)
    if image.mode in {"LA", "RGBA"}:
        if bands[-1].getextrema()[0] != 255:
            raise image_fault("D067", where, "has transparent pixels; set data.convert.alpha")
        bands = bands[:-1]
    first = bands[0].tobytes() if len(bands) > 1 else b""
    if any(band.tobytes() != first for band in bands[1:]):
        colour = image.convert("RGB")
        return np.asarray(colour.convert("L")), "RGB", np.asarray(colour)
    grey = np.asarray(bands[0])
    return grey, "L", grey


@dataclass(frozen=True)
class Converted:
    """One image after its conversion.

    Attributes:
        pixels: Grey, shape (height, width), or RGB, shape (height, width, 3); uint8.
        how: What was done, in words; equal words for equal treatment.
        metadata: Kinds of metadata of the file that may identify somebody, never their values.
        is_synthetic: Whether the file says that it is synthetic.
        burned_in: "YES" or "NO" as a DICOM file says of annotations in its pixels; "" if it does
            not.
    """

    pixels: Pixels
    how: str
    metadata: tuple[str, ...] = ()
    is_synthetic: bool = False
    burned_in: str = ""


def chosen_frame(n_frames: int, frame: int | None, where: str) -> int:
    """Return the number of the frame to read, from 1.

    Raises:
        DataError: The file has several and none is named, or it has no such frame.
    """
    if frame is None:
        if n_frames == 1:
            return 1
        raise image_fault(
            "D066",
            where,
            f"holds {n_frames:,} frames, expected one image; name a column with the number of the "
            "frame (columns.frame in dataset.yaml)",
        )
    if not 1 <= frame <= n_frames:
        raise image_fault(
            "D066", where, f"has no frame {frame}; it holds {n_frames:,}, counted from 1"
        )
    return frame


def windowed(
    values: NDArray[np.float64],
    full: tuple[float, float],
    stored: tuple[float, float] | None,
    where: str,
    settings: Conversion,
) -> tuple[Pixels, str]:
    """Map values of more than 8 bits to grey levels.

    Args:
        values: Shape (height, width).
        full: Lowest and highest value that the stored bits can mean.
        stored: Centre and width that the file itself names; None if it names none.
        where: Name of the file for messages.
        settings: `window` says how.

    Returns:
        Shape (height, width), uint8, and the conversion in words.

    Raises:
        DataError: The settings refuse, or ask for a window that the file does not name.
    """
    window = settings.window
    if window == "refuse":
        more = ", stored (the window in the file)" if stored else ""
        raise image_fault(
            "D065",
            where,
            f"has pixels of more than 8 bits, and the window decides what is seen; set "
            f"data.convert.window to full{more} or {{centre: …, width: …}}",
        )
    if window == "full":
        low, high = full
        return _levels((values - low) / (high - low)), f"{low:g} to {high:g} scaled to 0 to 255"
    if window == "stored":
        if stored is None:
            raise image_fault(
                "D065",
                where,
                "names no window of its own; set data.convert.window to full or "
                "{centre: …, width: …}",
            )
        centre, width = stored
        words = f"window of the file, centre {centre:g} and width {width:g}"
    else:
        centre, width = window.centre, window.width
        words = f"window centre {centre:g} and width {width:g}"
    if width <= 1:
        return np.where(values > centre - 0.5, 255, 0).astype(np.uint8), words
    return _levels((values - (centre - 0.5)) / (width - 1) + 0.5), words


def _levels(shares: NDArray[np.float64]) -> Pixels:
    levels: Pixels = np.clip(np.rint(shares * 255), 0, 255).astype(np.uint8)
    return levels


Fit = Literal["pad", "stretch"]

THUMBNAIL_PX = 64
# Frames are reduced by whole factors, by means over areas, to no less than 1.5 times the size asked
# for, then filtered: a third of a grey level from filtering at full size on average (959 x 661
# pixels to 128), at most about 10 levels, at the edges of burned-in text.
_REDUCING_GAP = 1.5


def to_square(grey: Pixels, size_px: int, fit: Fit = "pad") -> Pixels:
    """Resize a grey image to a square.

    Args:
        grey: Image, shape (height, width), uint8.
        size_px: Side of the result.
        fit: "pad" keeps the aspect ratio and centres the image on black; "stretch" fills the
            square and changes the shape of the anatomy.

    Returns:
        Shape (size_px, size_px), uint8; reduced with a Lanczos filter as wide as the reduction.
    """
    return _Frame(grey).square(size_px, fit)


def to_square_and_thumbnail(grey: Pixels, size_px: int, fit: Fit = "pad") -> tuple[Pixels, Pixels]:
    """Return the square of `to_square`, and the whole frame stretched to a small square.

    Args:
        grey: Image, shape (height, width), uint8.
        size_px: Side of the square.
        fit: See `to_square`.

    Returns:
        The square; and the thumbnail, shape (THUMBNAIL_PX, THUMBNAIL_PX), uint8, whatever the other
        arguments: by means over areas whose borders lie on whole pixels, of frames with a side
        below 192 pixels by means weighted with the distance (triangle filter).
    """
    frame = _Frame(grey)
    return frame.square(size_px, fit), frame.thumbnail()


def to_thumbnail(grey: Pixels) -> Pixels:
    """Return the whole frame stretched to a small square, as `to_square_and_thumbnail` does it."""
    return _Frame(grey).thumbnail()


class _Frame:
    """One frame, reduced to half its size at most once."""

    def __init__(self, grey: Pixels) -> None:
        self._full = Image.fromarray(grey)
        self._half: Image.Image | None = None

    def square(self, size_px: int, fit: Fit) -> Pixels:
        width, height = self._full.size
        if fit == "stretch":
            new_width = new_height = size_px
        else:
            scale = size_px / max(width, height)
            new_width = min(size_px, max(1, round(width * scale)))
            new_height = min(size_px, max(1, round(height * scale)))
        image = self._resized((new_width, new_height), Image.Resampling.LANCZOS)
        square = np.zeros((size_px, size_px), dtype=np.uint8)
        top, left = (size_px - new_height) // 2, (size_px - new_width) // 2
        square[top : top + new_height, left : left + new_width] = np.asarray(image)
        return square

    def thumbnail(self) -> Pixels:
        size = (THUMBNAIL_PX, THUMBNAIL_PX)
        # Borders on whole pixels would fall elsewhere in a mirrored, cropped or resized copy, which
        # shows where a mean is over one or two pixels a side.
        is_small = min(self._full.size) < 2 * _REDUCING_GAP * THUMBNAIL_PX
        resample = Image.Resampling.BILINEAR if is_small else Image.Resampling.BOX
        return np.asarray(self._resized(size, resample))

    def _resized(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        width, height = self._full.size
        if size == (width, height):
            return self._full
        if min(width / size[0], height / size[1]) < 2 * _REDUCING_GAP:
            return self._full.resize(size, resample, reducing_gap=_REDUCING_GAP)
        if self._half is None:
            self._half = self._full.reduce(2)
        # in an odd number of columns the last one of the half stands for one column, not two
        box = (0, 0, width / 2, height / 2)
        return self._half.resize(size, resample, box, reducing_gap=_REDUCING_GAP)
