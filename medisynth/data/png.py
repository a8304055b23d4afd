"""PNG files as a list of chunks: what stands in them besides pixels, read without decoding."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # the last 12 bytes of every whole PNG file
_MAX_TEXT_BYTES = 1 << 20
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


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the header says, or None if there is no PNG header."""
    if len(data) < 33 or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def has_whole_pixels(data: bytes) -> bool:
    """Whether the compressed pixel data are exactly as long as the header says.

    Decoders fill missing rows with black when a stream ends early but cleanly, and pass over
    surplus bytes. The file's size must have been limited before: all pixels are unpacked.
    """
    size = header_size(data)
    if size is None:
        return False
    depth, colour, interlaced = data[24], data[25], data[28]
    bits = depth * _CHANNELS.get(colour, 0)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, step_x, step_y in passes:
        width = max(0, -(-(size[0] - left) // step_x))
        height = max(0, -(-(size[1] - top) // step_y))
        if width and height:  # each row starts with one byte for its filter
            expected += height * (1 + -(-width * bits // 8))
    inflater = zlib.decompressobj()
    found = 0
    try:
        for kind, body in chunks(data):
            if kind == b"IDAT":
                found += len(inflater.decompress(body, expected - found + 1))
                if found > expected or inflater.unconsumed_tail:
                    return False
    except zlib.error:
        return False
    return found == expected and inflater.eof and not inflater.unused_data


def text_chunks(data: bytes) -> dict[str, str]:
    """Texts in a PNG file by keyword; damaged or oversized ones are left out.

    A text of more than 1 MiB after decompression is left out: a small file can hold a huge one.
    """
    texts: dict[str, str] = {}
    for kind, body in chunks(data):
        if kind not in {b"tEXt", b"zTXt", b"iTXt"}:
            continue
        keyword, _, rest = body.partition(b"\0")
        text = _text(kind, rest)
        if text is not None:
            texts.setdefault(keyword.decode("latin-1"), text)
    return texts


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
