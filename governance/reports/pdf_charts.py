"""Charts as vector drawings of the PDF."""

from reportlab.graphics.shapes import Drawing, Group, PolyLine, Rect, String
from reportlab.lib.colors import Color, HexColor

from governance.reports.charts import Box, Chart, Label, Stroke
from governance.reports.pdf_text import BOLD, INK, MUTED, REGULAR, RULE, drawable

_COLOURS: dict[str, Color] = {
    "ink": INK,
    "muted": MUTED,
    "grid": RULE,
    "axis": MUTED,
    "series0": HexColor("#17506b"),
    "series1": HexColor("#b3541e"),
    "series2": HexColor("#a3241c"),
    "series3": HexColor("#4d4a8f"),
    "fill0": HexColor("#8fb6c8"),
    "fill1": HexColor("#e3b594"),
    "fill2": HexColor("#8c8ab8"),
    "fill3": HexColor("#b9c4a0"),
}
_TITLE_SIZE = 7.6


def drawing(chart: Chart) -> Drawing:
    """Turn a chart's shapes into a drawing of the same size in points."""
    made = Drawing(chart.width, chart.height)
    for shape in chart.shapes:
        if isinstance(shape, Stroke):
            made.add(_line(shape))
        elif isinstance(shape, Box):
            made.add(_rectangle(shape))
        else:
            made.add(_text(shape))
    return made


def _rectangle(box: Box) -> Rect:
    made = Rect(box.x, box.y, box.width, box.height)
    made.fillColor, made.strokeColor = _COLOURS[box.role], None
    return made


def _line(stroke: Stroke) -> PolyLine:
    made = PolyLine([value for point in stroke.points for value in point])
    made.strokeColor, made.strokeWidth = _COLOURS[stroke.role], stroke.width
    made.strokeLineJoin = 1
    if stroke.dash:
        made.strokeDashArray = list(stroke.dash)
    return made


def _text(label: Label) -> Group | String:
    text = String(
        0 if label.upright else label.x,
        0 if label.upright else label.y,
        drawable(label.text, 120),
        fontName=BOLD if label.size >= _TITLE_SIZE else REGULAR,
        fontSize=label.size,
        fillColor=_COLOURS[label.role],
        textAnchor=label.anchor,
    )
    if not label.upright:
        return text
    turned = Group(text)
    turned.translate(label.x, label.y)
    turned.rotate(90)
    return turned
