"""Chunks of PNG files: structure, header and texts, read without decoding pixels."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from isal import isal_zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # the last 12 bytes of every whole PNG file
MAX_KEYWORDS = 16  # kept of one file
_MAX_TEXT_BYTES = 1 << 20
_MAX_KEYWORD_BYTES = 79
_STORED_BYTES = 65535  # the longest stored block of a zlib stream
# its stub calls isal's error an instance
_INFLATE_ERRORS: Any = (isal_zlib.IsalError, EOFError, ValueError)
TEXT_KINDS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_ORDINARY = TEXT_KINDS | {b"IHDR", b"tIME", b"pHYs", b"IDAT", b"IEND"}
# Chunks of fixed fields about pixels and colours, which cannot hold a text.
_FIXED_FIELDS = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"sBIT", b"sRGB", b"bKGD"}
    | {b"hIST", b"pHYs", b"cICP", b"mDCV", b"cLLI"}
)
_METADATA_NAMES = {b"iCCP": "ICC profile", b"tIME": "tIME", b"sPLT": "sPLT"}
EXIF, EXIF_ROTATION = "EXIF", "EXIF rotation"
_ORIENTATION = 0x0112
# width, height, orientation, resolutions and their unit, position of colour samples
EXIF_ABOUT_PIXELS = {0x0100, 0x0101, _ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0213}
_MAX_PLAIN_EXIF_BYTES = 200  # a directory of the tags above and their values
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# left, top, step across and step down of each pass of an interlaced image
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, body) of each chunk up to the end or the first damaged one.

    Args:
        data: A whole PNG file; nothing is yielded for other content.
    """
    if not data.startswith(SIGNATURE):
        return
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            return
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def intact_kinds(data: bytes) -> list[bytes] | None:
    """Types of the chunks of a PNG file, if all are intact and the file holds nothing else.

    Args:
        data: Bytes of a whole file.

    Returns:
        Types in order, the last and no other "IEND"; None unless the chunks fill the file from its
        signature to its end, each with a sound type and the checksum of its content.
    """
    view, kinds, position = memoryview(data), [], len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data) or not kind.isalnum():
            return None
        if isal_zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return None
        kinds.append(kind)
        position = end + 4
    is_whole = data.startswith(SIGNATURE) and position == len(data) and data.endswith(END)
    return kinds if is_whole and kinds.count(b"IEND") == 1 else None


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the header says, or None if there is no PNG header."""
    if len(data) < 33 or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def is_plain_grey(data: bytes, kinds: Sequence[bytes]) -> bool:
    """Whether a file holds 8-bit grey rows and nothing that could change their meaning.

    Args:
        data: A whole PNG file.
        kinds: Types of its chunks, in order.

    Returns:
        False for colour, other depths, interlacing, and chunks of an unusual kind or place.
    """
    depth, colour, interlaced = data[24], data[25], data[28]
    is_grey = (depth, colour, interlaced) == (8, 0, 0)
    return is_grey and _ORDINARY.issuperset(kinds) and list(kinds[-2:]) == [b"IDAT", b"IEND"]


def inflated_pixels(data: bytes) -> bytes | None:
    """Unpack the pixel data of a PNG file, rows still filtered, if they are whole and undamaged.

    Decoders fill missing rows with black when a stream ends early but cleanly, and pass over
    surplus bytes; here both are faults, as is a stream whose chunks are not in one row.

    Args:
        data: A whole PNG file; its size in pixels must have been limited before.

    Returns:
        Exactly as many bytes as the header asks for; None if the file holds fewer, more or
        damaged ones.
    """
    expected = _n_filtered_bytes(data)
    bodies: list[bytes] = []
    previous = b""
    for kind, body in chunks(data):
        if kind == b"IDAT":
            if bodies and previous != b"IDAT":
                return None
            bodies.append(body)
        previous = kind
    inflater = isal_zlib.decompressobj()
    try:
        pixels = inflater.decompress(b"".join(bodies), expected + 1)
    except _INFLATE_ERRORS:
        return None
    is_whole = len(pixels) == expected and inflater.eof and not inflater.unused_data
    return pixels if is_whole else None


def with_stored_pixels(data: bytes, pixels: bytes) -> bytes:
    """Return the PNG file with its pixel data stored instead of compressed.

    So a decoder does not repeat the unpacking that `inflated_pixels` has done.

    Args:
        data: A whole PNG file.
        pixels: Its unpacked pixel data.
    """
    parts: list[bytes | memoryview] = [SIGNATURE]
    packed = [body for kind, body in chunks(data) if kind == b"IDAT"]
    for kind, body in chunks(data):
        if kind != b"IDAT":
            parts += _chunk(kind, body)
        elif packed:
            parts += _chunk(kind, *_stored(pixels, b"".join(packed)[-4:]))
            packed = []
    return b"".join(parts)


def _stored(plain: bytes, adler: bytes) -> list[bytes | memoryview]:
    """Make a zlib stream that holds its content uncompressed, from a checksum known already."""
    view = memoryview(plain)
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(plain), _STORED_BYTES):
        block = view[start : start + _STORED_BYTES]
        is_last = start + _STORED_BYTES >= len(plain)
        parts += [struct.pack("<BHH", is_last, len(block), _STORED_BYTES - len(block)), block]
    return [*parts, adler]


def _chunk(kind: bytes, *bodies: bytes | memoryview) -> list[bytes | memoryview]:
    checksum = isal_zlib.crc32(kind)
    for body in bodies:
        checksum = isal_zlib.crc32(body, checksum)
    length = struct.pack(">I", sum(map(len, bodies)))
    return [length, kind, *bodies, struct.pack(">I", checksum)]


def _n_filtered_bytes(data: bytes) -> int:
    """Length of the unpacked pixel data as the header says; 0 without a header."""
    size = header_size(data)
    if size is None:
        return 0
    depth, colour, interlaced = data[24], data[25], data[28]
    bits = depth * _CHANNELS.get(colour, 0)
    n_bytes = 0
    for left, top, step_x, step_y in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        width = max(0, -(-(size[0] - left) // step_x))
        height = max(0, -(-(size[1] - top) // step_y))
        if width and height:  # each row starts with one byte for its filter
            n_bytes += height * (1 + -(-width * bits // 8))
    return n_bytes


def metadata_kinds(data: bytes, kinds: Sequence[bytes]) -> str:
    """Kinds of metadata of a PNG file that may hold a text, never their content.

    Args:
        data: A whole PNG file.
        kinds: Types of its chunks.

    Returns:
        Distinct kinds joined by ", ": "EXIF" unless it is about pixels only, "EXIF rotation" where
        it asks to turn the picture, "ICC profile", "tIME", "sPLT", and "chunk xxxx" for a chunk
        that is not of the PNG specification. "" if there are none. Texts have `text_keywords`.
    """
    found: dict[str, None] = {}
    if _FIXED_FIELDS.union(TEXT_KINDS).issuperset(kinds):
        return ""
    for kind, body in chunks(data):
        if kind == b"eXIf":
            found |= dict.fromkeys(_exif_kinds(body))
        elif kind not in _FIXED_FIELDS and kind not in TEXT_KINDS:
            found[_METADATA_NAMES.get(kind, f"chunk {kind.decode('ascii')}")] = None
    shown = list(found)[:MAX_KEYWORDS]
    return ", ".join(shown + (["and more"] if len(found) > MAX_KEYWORDS else []))


def _exif_kinds(body: bytes) -> list[str]:
    """Return "EXIF" unless all tags are about pixels, and "EXIF rotation" if one turns them."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(body[:4])
    try:
        if order is None or len(body) > _MAX_PLAIN_EXIF_BYTES:
            raise ValueError("not a plain directory")
        (start,) = struct.unpack_from(f"{order}I", body, 4)
        (n_tags,) = struct.unpack_from(f"{order}H", body, start)
        places = range(start + 2, start + 2 + 12 * n_tags, 12)
        entries = (struct.unpack_from(f"{order}H6xH", body, place) for place in places)
        tags: dict[int, int] = dict(entries)
        (following,) = struct.unpack_from(f"{order}I", body, start + 2 + 12 * n_tags)
    except (ValueError, struct.error):
        return [EXIF]
    is_plain = EXIF_ABOUT_PIXELS.issuperset(tags) and following == 0
    is_turned = 2 <= tags.get(_ORIENTATION, 1) <= 8
    return [EXIF] * (not is_plain) + [EXIF_ROTATION] * is_turned


def text_keywords(data: bytes) -> str:
    """Keywords of all text chunks of a PNG file, never their values.

    Returns:
        Distinct keywords in the order of the file, joined by ", ", control characters escaped;
        at most `MAX_KEYWORDS` of at most 79 characters, the most that PNG allows, then "and more".
        "" if there is no text.
    """
    keywords: dict[str, None] = {}
    for kind, body in chunks(data):
        if kind in TEXT_KINDS:
            keyword = body.partition(b"\0")[0][:_MAX_KEYWORD_BYTES].decode("latin-1")
            keywords["".join(c if c.isprintable() else ascii(c)[1:-1] for c in keyword)] = None
    shown = list(keywords)[:MAX_KEYWORDS]
    return ", ".join(shown + (["and more"] if len(keywords) > MAX_KEYWORDS else []))


def text_chunks(data: bytes) -> dict[str, str]:
    """Texts in a PNG file by keyword; damaged or oversized ones are left out.

    A text of more than 1 MiB after decompression is left out: a small file can hold a huge one.
    """
    texts: dict[str, str] = {}
    for keyword, text in all_texts(data):
        if text is not None:
            texts.setdefault(keyword, text)
    return texts


def all_texts(data: bytes) -> Iterator[tuple[str, str | None]]:
    """Yield keyword and text of every text chunk; None for a damaged or oversized text."""
    for kind, body in chunks(data):
        if kind in TEXT_KINDS:
            keyword, _, rest = body.partition(b"\0")
            yield keyword.decode("latin-1"), _text(kind, rest)


def _text(kind: bytes, rest: bytes) -> str | None:
    try:
        if kind == b"tEXt":
            return rest.decode("latin-1") if len(rest) <= _MAX_TEXT_BYTES else None
        if kind == b"zTXt":
            plain = _inflate(rest[1:])
            return None if plain is None else plain.decode("latin-1")
        is_compressed = rest[:1] == b"\1"
        _language, _, tail = rest[2:].partition(b"\0")
        _translated, _, content = tail.partition(b"\0")
        plain = _inflate(content) if is_compressed else content[: _MAX_TEXT_BYTES + 1]
        if plain is None or len(plain) > _MAX_TEXT_BYTES:
            return None
        return plain.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _inflate(data: bytes) -> bytes | None:
    """Decompressed bytes, or None if they are damaged or more than the limit."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, _MAX_TEXT_BYTES)
    except zlib.error:
        return None
    return plain if inflater.eof else None
