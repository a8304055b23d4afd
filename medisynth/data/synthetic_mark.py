"""The mark that every synthetic image carries in its file: machine-readable, and in plain words."""

import dataclasses
import io
import json
import re
from dataclasses import dataclass
from xml.sax.saxutils import escape

from medisynth.data.png import text_chunks
from medisynth.data.views import Pixels
from medisynth.errors import SettingsError

KEY = "medisynth-gov"
DESCRIPTION = "SYNTHETIC IMAGE - not a patient"
# IPTC NewsCodes, digital source type: what a picture says that a trained model made
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
    """Where one synthetic image comes from.

    Attributes:
        generator: Name and version of the generator, e.g. "dsr-gan 0.1.0".
        run_id: Run that drew the image.
        checkpoint_sha256: Digest of the weights, 64 lowercase hex digits.
        seed: Seed of the sampling.
        index: Number of the image in the batch drawn with that seed, from 0.
        licence: Licence text of the image.
    """

    generator: str
    run_id: str
    checkpoint_sha256: str
    seed: int
    index: int
    licence: str


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
    payload = json.dumps(dataclasses.asdict(mark), sort_keys=True, separators=(",", ":"))
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
    fields = dataclasses.fields(SyntheticMark)
    if not isinstance(values, dict) or set(values) != {f.name for f in fields}:
        return None
    if any(type(values[f.name]) is not f.type for f in fields):
        return None
    return SyntheticMark(**values)


def is_marked_synthetic(data: bytes) -> bool:
    """Whether a PNG file says that it is synthetic.

    Our mark counts, whole or damaged, and so do IPTC's digital source type and the text keys of
    common image generators. A file that says nothing is not thereby shown to be real.
    """
    texts = text_chunks(data)
    if KEY in texts or texts.get("Description") == DESCRIPTION or _GENERATOR_KEYS & set(texts):
        return True
    return _SYNTHETIC_SOURCE.search(texts.get(_XMP_KEY, "")) is not None


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
