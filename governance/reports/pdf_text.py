"""Letters of the PDF: embedded fonts, styles, and the one way text gets onto a page."""

import importlib.util
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_LEFT, TA_RIGHT
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph

from governance.errors import RecordWriteError
from governance.reports import formats

REGULAR, BOLD, MONO = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"
INK, MUTED, RULE, ACCENT = (HexColor(c) for c in ("#1b2430", "#5b6673", "#d3d9df", "#17506b"))
TONES = {
    "good": (HexColor("#1d6b3f"), HexColor("#edf6f0")),
    "bad": (HexColor("#a3241c"), HexColor("#fbeeec")),
    "unsure": (HexColor("#8a5a00"), HexColor("#fbf4e4")),
    "unknown": (HexColor("#4b5563"), HexColor("#f1f3f5")),
    "people": (HexColor("#4d4a8f"), HexColor("#f0f0f8")),
    "none": (HexColor("#5b6673"), HexColor("#f4f6f8")),
}
_LONG_TEXT_CHARACTERS = 6000


def _style(name: str, size: float, leading: float, **more: Any) -> ParagraphStyle:
    settings: dict[str, Any] = {"fontName": REGULAR, "textColor": INK, "alignment": TA_LEFT}
    return ParagraphStyle(name, fontSize=size, leading=leading, **(settings | more))


STYLES: dict[str, ParagraphStyle] = {
    "kicker": _style("kicker", 7.6, 10, textColor=ACCENT, fontName=BOLD),
    "title": _style("title", 15.5, 20, fontName=BOLD, spaceAfter=2),
    "about": _style("about", 7.2, 10, textColor=MUTED, spaceAfter=9),
    "verdict": _style("verdict", 17, 22, fontName=BOLD),
    "sentence": _style("sentence", 8.6, 12.6),
    "section": _style("section", 13.5, 17.5, fontName=BOLD),
    "principle": _style("principle", 10.6, 14, fontName=BOLD),
    "subtitle": _style("subtitle", 7.8, 11, textColor=MUTED),
    "heading": _style("heading", 8.8, 12, fontName=BOLD, textColor=ACCENT),
    "body": _style("body", 8, 12),
    "lead": _style("lead", 8.4, 12.4, fontName=BOLD),
    "note": _style("note", 7.2, 10.4, textColor=MUTED),
    "bullet": _style("bullet", 8, 12, leftIndent=11, bulletIndent=1),
    "head": _style("head", 6.6, 9, fontName=BOLD, textColor=MUTED),
    "plain": _style("plain", 7.2, 10),
    "strong": _style("strong", 7.2, 10, fontName=BOLD),
    "small": _style("small", 6.3, 8.8, textColor=MUTED),
    "fact": _style("fact", 7.2, 10, textColor=MUTED),
    "mono": _style("mono", 6.2, 9.4, fontName=MONO, textColor=MUTED),
    "mark": _style("mark", 7.2, 10, fontName=BOLD),
    "statement": _style("statement", 6.8, 9.8, textColor=MUTED),
    "contents": _style("contents", 7.2, 10.2),
}
RIGHT_STYLES = {
    name: ParagraphStyle(f"{name}-right", parent=style, alignment=TA_RIGHT)
    for name, style in STYLES.items()
}


def font_folder() -> Path:
    """Folder of the DejaVu fonts that matplotlib brings; matplotlib itself is not imported."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise RecordWriteError(
            "report.pdf: the DejaVu fonts of the package matplotlib are not installed; "
            "install medisynth-gov again"
        )
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


@cache
def register_fonts() -> frozenset[int]:
    """Register the fonts once; return the code points that all of them can draw."""
    covered: frozenset[int] | None = None
    for name in (REGULAR, BOLD, MONO):
        font = TTFont(name, str(font_folder() / f"{name}.ttf"))
        pdfmetrics.registerFont(font)
        points = frozenset(font.face.charToGlyph)
        covered = points if covered is None else covered & points
    pdfmetrics.registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD, italic=REGULAR)
    return covered or frozenset()


def drawable(text: str, limit: int = _LONG_TEXT_CHARACTERS) -> str:
    r"""Clean text in which letters that the fonts cannot draw are written as `\uXXXX`.

    Right-to-left letters are written so as well: this PDF would show them in reverse.
    """
    covered = register_fonts()
    return "".join(
        letter if _can_draw(letter, covered) else formats.escaped(letter)
        for letter in formats.clean(text, limit)
    )


def _can_draw(letter: str, covered: frozenset[int]) -> bool:
    return ord(letter) in covered and unicodedata.bidirectional(letter) not in {"R", "AL"}


def paragraph(text: str, style: str, *, right: bool = False, tone: str = "") -> Paragraph:
    """Make a paragraph of any text. Nothing in the text is read as markup."""
    limit = _LONG_TEXT_CHARACTERS if style in {"body", "note", "bullet", "about"} else 1_500
    safe = escape(drawable(text, limit))
    chosen = (RIGHT_STYLES if right else STYLES)[style]
    if tone:
        chosen = _toned(chosen, tone)
    if style == "bullet":
        return Paragraph(safe, chosen, bulletText="\u2022")
    return Paragraph(safe, chosen)


@cache
def _toned(style: ParagraphStyle, tone: str) -> ParagraphStyle:
    return ParagraphStyle(f"{style.name}-{tone}", parent=style, textColor=TONES[tone][0])
