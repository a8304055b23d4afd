"""The mark in the file of every synthetic image, as data for machines and as readable text."""

import dataclasses
import io
import json
import re
from dataclasses import dataclass
from typing import Any, get_args
from xml.sax.saxutils import escape

import numpy as np

from governance.records.errors import SettingsError
from medisynth.data.reading.png import text_chunks
from medisynth.data.reading.views import Pixels

KEY = "medisynth-gov"
DESCRIPTION = "SYNTHETIC IMAGE - not a patient"
LICENCE = "research use; not for diagnosis"
VISIBLE_WORD = "SYNTHETIC"
SMALLEST_VISIBLE_PX = 64  # the narrowest image on which the word can be read
# IPTC NewsCodes: the digital source type of pictures made by a trained model
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP_KEY = "XML:com.adobe.xmp"
# Other makers' synthetic images, whole or in part, must not pass for patients either: IPTC's
# types, and the text keys under which common image generators keep their prompts.
_SYNTHETIC_SOURCE = re.compile(
    r"digitalsourcetype/(trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia)"
)
_GENERATOR_KEYS = frozenset(
    {"parameters", "prompt", "workflow", "sd-metadata", "invokeai_metadata"}
)


@dataclass(frozen=True)
class SyntheticMark:
    """Origin of one synthetic image.

    Attributes:
        generator: Name and version of the generator, e.g. "dsr-gan 0.1.0".
        run_id: Run that drew the image.
        checkpoint_sha256: Digest of the weights, 64 lowercase hex digits.
        seed: Seed of the sampling.
        index: Number of the image in the batch drawn with that seed, from 0.
        licence: Licence text of the image.
        plane: Plane that was asked for; None when none was.
        machine: Machine that was asked for; None when none was.
        visible: Whether the word SYNTHETIC stands in the pixels, see `burn_in`.
    """

    generator: str
    run_id: str
    checkpoint_sha256: str
    seed: int
    index: int
    licence: str
    plane: str | None = None
    machine: str | None = None
    visible: bool = False


_FIELDS = dataclasses.fields(SyntheticMark)
_OPTIONAL = {field.name for field in _FIELDS if field.default is not dataclasses.MISSING}


def marked_png(pixels: Pixels, mark: SyntheticMark) -> bytes:
    """Encode a grey image as PNG with the mark inside; equal input gives equal bytes.

    Args:
        pixels: Grey image, shape (height, width), uint8.
        mark: Origin of the image.

    Raises:
        SettingsError: The pixels are not a two-dimensional uint8 array.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if pixels.ndim != 2 or str(pixels.dtype) != "uint8":
        raise SettingsError(
            f"pixels: expected shape (height, width) and uint8, found shape {pixels.shape} and "
            f"{pixels.dtype}"
        )
    info = PngInfo()
    payload = json.dumps(_to_json(mark), sort_keys=True, separators=(",", ":"))
    info.add_itxt(KEY, payload)
    info.add_itxt("Description", DESCRIPTION)
    info.add_itxt("Software", f"{KEY} {mark.generator}")
    info.add_itxt("Copyright", mark.licence)
    info.add_itxt(_XMP_KEY, _xmp(mark))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def read_mark(data: bytes) -> SyntheticMark | None:
    """Return the mark in a PNG file; None if there is none or it is damaged.

    Use `is_marked_synthetic` to keep synthetic images out: a damaged mark counts there.
    """
    payload = text_chunks(data).get(KEY)
    if payload is None:
        return None
    try:
        values = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return _from_json(values)


def is_marked_synthetic(data: bytes) -> bool:
    """Whether a PNG file is marked as synthetic.

    Our mark counts, whole or damaged, and so do IPTC's digital source type and the text keys of
    common image generators. A file without a mark need not be real.
    """
    texts = text_chunks(data)
    if KEY in texts or texts.get("Description") == DESCRIPTION or _GENERATOR_KEYS & set(texts):
        return True
    return is_synthetic_xmp(texts.get(_XMP_KEY, ""))


def is_synthetic_xmp(xmp: str) -> bool:
    """Whether an XMP text names one of IPTC's digital source types of synthetic images."""
    return _SYNTHETIC_SOURCE.search(xmp) is not None


def burn_in(pixels: Pixels) -> Pixels:
    """Return a copy with the word SYNTHETIC, white on black, along the lower edge.

    The letters are those of Pillow's own bitmap font, enlarged by a whole number: the same pixels
    whatever fonts and libraries the machine has.

    Args:
        pixels: Grey images, shape (n, height, width), uint8, at least `SMALLEST_VISIBLE_PX` wide
            and high.

    Raises:
        SettingsError: The images are too small for the word to be read.
    """
    height, width = pixels.shape[1:]
    if min(height, width) < SMALLEST_VISIBLE_PX:
        raise SettingsError(
            f"visible mark: the word needs images of at least {SMALLEST_VISIBLE_PX} x "
            f"{SMALLEST_VISIBLE_PX} pixels, these have {height} x {width}; "
            "leave it out, the mark in the file stays"
        )
    letters = _letters()
    scale = max(1, width * 3 // 4 // letters.shape[1])
    word = letters.repeat(scale, axis=0).repeat(scale, axis=1)
    top = height - word.shape[0]
    left = (width - word.shape[1]) // 2
    burned = pixels.copy()
    burned[:, top:] = 0
    burned[:, top:, left : left + word.shape[1]] = word
    return burned


def _letters() -> Pixels:
    """The word's pixels with an empty row above and below, shape (8, 62), 0 or 255."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default_imagefont()
    _, _, width, height = (int(edge) for edge in font.getbbox("S"))
    step = width + 1  # the font's bold letters touch each other without it
    picture = Image.new("1", (step * len(VISIBLE_WORD) - 1, height))
    draw = ImageDraw.Draw(picture)
    for place, letter in enumerate(VISIBLE_WORD):
        draw.text((place * step, 0), letter, fill=1, font=font)
    drawn = np.asarray(picture)
    rows = np.flatnonzero(drawn.any(axis=1))
    return np.pad(drawn[rows[0] : rows[-1] + 1], ((1, 1), (0, 0))).astype(np.uint8) * 255


def _to_json(mark: SyntheticMark) -> dict[str, Any]:
    """Return the mark as JSON data, without fields that have their default."""
    values = dataclasses.asdict(mark)
    kept = {f.name: values[f.name] for f in _FIELDS if values[f.name] != f.default}
    return {"synthetic": True, **kept}


def _from_json(values: Any) -> SyntheticMark | None:
    """Return the mark from data of `_to_json`, old ones without optional fields too, or None."""
    if not isinstance(values, dict) or values.pop("synthetic", True) is not True:
        return None
    names = {field.name for field in _FIELDS}
    if not names - _OPTIONAL <= set(values) <= names:
        return None
    for field in _FIELDS:
        # by exact type: True is no seed
        allowed = get_args(field.type) or (field.type,)
        if field.name in values and type(values[field.name]) not in allowed:
            return None
    return SyntheticMark(**values)


def _xmp(mark: SyntheticMark) -> str:
    rights = escape(mark.licence)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}">'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{DESCRIPTION}</rdf:li></rdf:Alt>'
        "</dc:description>"
        f'<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">{rights}</rdf:li></rdf:Alt></dc:rights>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
