"""Sheets of small pictures with captions, as PNG bytes. Same pictures, same bytes."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medisynth.data.reading.views import Pixels

_GAP_PX = 6
_CAPTION_PX = 16
_TITLE_PX = 24
_INK, _PAPER = 32, 255


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Pixels], Sequence[str]]], *, tile_px: int = 128
) -> bytes:
    """Draw titled rows of pictures.

    Args:
        rows: (title, pictures of shape (h, w) uint8, captions; no captions for none).
        tile_px: Side of one tile; pictures are enlarged or reduced without smoothing tricks.

    Returns:
        A grey PNG.

    Raises:
        ValueError: There is nothing to draw.
    """
    n_columns = max((len(pictures) for _, pictures, _ in rows), default=0)
    if n_columns == 0:
        raise ValueError("a contact sheet needs at least one picture")
    heights = [_TITLE_PX + tile_px + (_CAPTION_PX if captions else 0) for _, _, captions in rows]
    width = n_columns * (tile_px + _GAP_PX) + _GAP_PX
    sheet = Image.new("L", (width, sum(heights) + _GAP_PX * (len(rows) + 1)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP_PX
    for (title, pictures, captions), height in zip(rows, heights, strict=True):
        draw.text((_GAP_PX, top), title, fill=_INK, font=ImageFont.load_default(14))
        for column, picture in enumerate(pictures):
            left = _GAP_PX + column * (tile_px + _GAP_PX)
            tile = Image.fromarray(np.ascontiguousarray(picture)).resize(
                (tile_px, tile_px), Image.Resampling.BICUBIC
            )
            sheet.paste(tile, (left, top + _TITLE_PX))
            if captions:
                draw.text(
                    (left, top + _TITLE_PX + tile_px + 1),
                    captions[column],
                    fill=_INK,
                    font=ImageFont.load_default(10),
                )
        top += height + _GAP_PX
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
