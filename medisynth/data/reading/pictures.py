"""Frames of image files, whatever their format, as plain 8-bit pixels; see `conversion` for the rules."""

import io
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, features

from medisynth.data.reading import png
from medisynth.data.reading.conversion import Conversion, Format
from medisynth.data.reading.decode import (
    DECODE_ERRORS,
    MAX_PIXELS,
    Converted,
    check_container,
    chosen_frame,
    image_fault,
    windowed,
)
from medisynth.data.reading.dicom import convert_dicom
from medisynth.data.reading.synthetic_mark import is_marked_synthetic, is_synthetic_xmp
from medisynth.data.reading.views import Pixels

_TURN = 0x0112  # EXIF and TIFF tag of the orientation
_PHOTOMETRIC = 262
_TIFF_TEXTS = {270: "ImageDescription", 285: "PageName", 315: "Artist", 316: "HostComputer"}


def convert(
    data: bytes, where: str, frames: Sequence[int | None], settings: Conversion
) -> Iterator[Converted]:
    """Decode and convert frames of one file; run it where a hostile file can do no harm.

    Args:
        data: Bytes of the whole file.
        where: Name of the file for messages.
        frames: Number of each frame that is wanted, from 1; None for the only one.
        settings: What may be converted.

    Raises:
        DataError: The file is damaged, too large, of another kind, or needs a conversion that the
            settings do not allow; its one finding says what to set.
    """
    if not data:
        raise image_fault("D063", where, "is empty, expected an image; restore it from the source")
    if data[128:132] == b"DICM":
        _allowed("dicom", "a DICOM file", where, settings)
        yield from convert_dicom(data, where, frames, settings)
        return
    picture = _picture(data, where, settings)
    for frame in frames:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", message="(Possibly c|C)orrupt")
                image = picture(frame)
        except (*DECODE_ERRORS, Image.DecompressionBombError, UserWarning) as error:
            raise image_fault(
                "D063", where, "is damaged or cut short; restore it from the source"
            ) from error
        yield image


def _picture(data: bytes, where: str, settings: Conversion) -> partial[Converted]:
    if data.startswith(b"\xff\xd8\xff"):
        _allowed("jpeg", "a JPEG image", where, settings)
        return partial(_jpeg, data, where, settings)
    if data.startswith((b"II*\0", b"MM\0*")):
        _allowed("tiff", "a TIFF image", where, settings)
        return partial(_tiff, data, where, settings)
    return partial(_png, data, where, settings)


def _allowed(name: Format, what: str, where: str, settings: Conversion) -> None:
    if name not in settings.read:
        raise image_fault("D064", where, f"is {what}; to read it, add {name} to data.convert.read")


def _png(data: bytes, where: str, settings: Conversion, frame: int | None) -> Converted:
    kinds = check_container(data, where)
    chosen_frame(1, frame, where)
    if png.inflated_pixels(data) is None:
        raise image_fault(
            "D063", where, "has more or fewer pixels than its header says; restore it"
        )
    has_text = not png.TEXT_KINDS.isdisjoint(kinds)
    others = png.metadata_kinds(data, kinds)
    words = png.text_keywords(data) if has_text else ""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.load()
        if data[24] > 8 and not image.mode.startswith("I"):
            raise image_fault(
                "D065", where, "has 16-bit colours, expected 8-bit; save it as 8-bit RGB"
            )
        pixels, steps = _content(image, where, settings, is_inverted=False)
    return Converted(
        pixels,
        "; ".join(["PNG", *steps]),
        tuple(f"PNG text {word}" for word in words.split(", ") if word)
        + tuple(kind for kind in others.split(", ") if kind),
        has_text and is_marked_synthetic(data),
    )


def _jpeg(data: bytes, where: str, settings: Conversion, frame: int | None) -> Converted:
    chosen_frame(1, frame, where)
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        _check_size(image, where)
        image.load()
        pixels, steps = _content(image, where, settings, is_inverted=False)
        found = dict.fromkeys(_embedded(image))
        if "comment" in image.info:
            found["JPEG comment"] = None
        how = f"JPEG (lossy), decoded by libjpeg {features.version('libjpeg_turbo') or features.version('jpg')}"
        return Converted(pixels, "; ".join([how, *steps]), tuple(found), _says_synthetic(image))


def _tiff(data: bytes, where: str, settings: Conversion, frame: int | None) -> Converted:
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
        n_frames = int(getattr(image, "n_frames", 1))
        image.seek(chosen_frame(n_frames, frame, where) - 1)
        _check_size(image, where)
        tags: dict[int, Any] = dict(getattr(image, "tag_v2", {}))
        compression = str(image.info.get("compression", "raw"))
        found = dict.fromkeys(kind for kind in _embedded(image) if kind != png.EXIF_ROTATION)
        found |= dict.fromkeys(f"TIFF {name}" for tag, name in _TIFF_TEXTS.items() if tags.get(tag))
        image.load()
        is_deep = image.mode.startswith("I")
        is_inverted = is_deep and tags.get(_PHOTOMETRIC) == 0
        pixels, steps = _content(image, where, settings, is_inverted=is_inverted)
        if tags.get(_TURN, 1) != 1:
            steps.insert(0, "turned as its orientation says")
        how = f"TIFF ({compression}{', lossy' if 'jpeg' in compression else ''})"
        return Converted(pixels, "; ".join([how, *steps]), tuple(found), _says_synthetic(image))


def _check_size(image: Image.Image, where: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or 0 in image.size:
        raise image_fault(
            "D062", where, f"is {width} x {height} pixels, expected at most {MAX_PIXELS:,} in all"
        )


def _embedded(image: Image.Image) -> Iterator[str]:
    """Yield the kinds of metadata that Pillow finds in a JPEG or TIFF file."""
    exif = image.getexif()
    if image.format == "JPEG" and exif:
        if any(tag not in png.EXIF_ABOUT_PIXELS for tag in exif):
            yield png.EXIF
        if 2 <= int(exif.get(_TURN, 1)) <= 8:
            yield png.EXIF_ROTATION
    if image.info.get("xmp"):
        yield "XMP"
    if image.info.get("icc_profile"):
        yield "ICC profile"
    if image.info.get("photoshop"):
        yield "IPTC"


def _says_synthetic(image: Image.Image) -> bool:
    xmp = image.info.get("xmp", b"")
    return is_synthetic_xmp(xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp))


def _content(
    image: Image.Image, where: str, settings: Conversion, *, is_inverted: bool
) -> tuple[Pixels, list[str]]:
    """Return grey or RGB pixels of a loaded picture, and the conversions that were needed."""
    steps: list[str] = []
    if image.mode in {"P", "PA"}:
        if settings.palette == "refuse":
            raise image_fault(
                "D065",
                where,
                "has a palette of colours; to use the colours, set data.convert.palette: expand",
            )
        has_alpha = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
        steps.append("palette expanded")
    if image.mode in {"LA", "RGBA"}:
        image = _opaque(image, where, settings, steps)
    if image.mode in {"L", "RGB"}:
        return np.asarray(image), steps
    if image.mode in {"I;16", "I;16B", "I;16L", "I;16N"}:
        values = np.asarray(image).astype(np.uint16)
        if is_inverted:
            values = np.uint16(65535) - values
            steps.append("inverted (white is zero)")
        levels, words = windowed(values.astype(np.float64), (0.0, 65535.0), None, where, settings)
        return levels, [*steps, words]
    if image.mode == "1":
        what = "pixels of 1 bit (is it a mask?)"
    elif image.mode == "CMYK":
        what = "printing colours (CMYK)"
    else:
        what = f"pixels of mode {image.mode}"
    raise image_fault(
        "D065", where, f"has {what}, which is not converted; save it as 8-bit grey or RGB"
    )


def _opaque(image: Image.Image, where: str, settings: Conversion, steps: list[str]) -> Image.Image:
    plain = "L" if image.mode == "LA" else "RGB"
    lowest = image.getchannel("A").getextrema()[0]
    if lowest == 255:
        return image.convert(plain)
    if settings.alpha == "refuse":
        raise image_fault(
            "D067",
            where,
            "has transparent pixels; set data.convert.alpha to drop (ignore it) or black (put it "
            "on black)",
        )
    if settings.alpha == "drop":
        steps.append("transparency ignored")
        return image.convert(plain)
    steps.append("put on black")
    ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert(plain)
