"""Charts: one reportlab drawing each, which the PDF holds and the page shows as SVG."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from reportlab.graphics import renderSVG
from reportlab.graphics.shapes import (
    Circle,
    Drawing,
    Group,
    Hatching,
    Line,
    PolyLine,
    Rect,
    Shape,
    String,
)
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.utils import simpleSplit
from reportlab.pdfbase.pdfmetrics import stringWidth

from governance.reports import formats
from governance.reports.blocks import (
    Boxes,
    Chart,
    Histogram,
    LineChart,
    RangeBars,
    Share,
    ShareBars,
)
from governance.reports.draw.pdf_layout import (
    ACCENT,
    BOLD,
    INK,
    MUTED,
    REGULAR,
    RULE,
    drawable,
    register_fonts,
)

Point = tuple[float, float]
# Lines and bars differ by dashes and hatching as well as by colour, for readers without colours.
_LINES = tuple(HexColor(code) for code in ("#17506b", "#b3541e", "#a3241c", "#4d4a8f"))
_DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1, 1.6), (6, 2, 1, 2))
_FILLS = tuple(HexColor(code) for code in ("#8fb6c8", "#f0d3bd", "#c9c8e0", "#dfe5cf"))
_HATCHES: tuple[tuple[float, ...], ...] = ((), (45,), (135,), (45, 135))
_SIZE, _TITLE_SIZE, _ROW = 8.0, 8.8, 11.0  # points; nothing is smaller than 8
_LEFT, _RIGHT, _BOTTOM = 48.0, 12.0, 36.0
_LINE_HEIGHT, _HISTOGRAM_HEIGHT = 165.0, 205.0
_NAMES_SHARE, _BAR, _GROUP_GAP, _RANGE_ROW = 0.4, 9.0, 6.0, 16.0
_TICKS, _BINS, _STROKE_SHARE = 5, 30, 0.35
_BOX, _BOX_GAP, _BOX_WIDTH = 30.0, 14.0, 300.0
_FAMILY = "DejaVu Sans, Verdana, sans-serif"


@dataclass(frozen=True)
class Frame:
    """Plot area in points, and the values at its edges."""

    left: float
    bottom: float
    right: float
    top: float
    x_range: Point
    y_range: Point = (0.0, 1.0)

    def at(self, x: float, y: float) -> Point:
        """Return the point of the chart at which a pair of values lies."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return (
            round(self.left + (x - x0) / (x1 - x0) * (self.right - self.left), 2),
            round(self.bottom + (y - y0) / (y1 - y0) * (self.top - self.bottom), 2),
        )


def chart_drawing(chart: Chart, width: float) -> Drawing:
    """Draw a chart of a width in points; bar charts grow with their rows."""
    register_fonts()
    if isinstance(chart, ShareBars):
        return _share_bars(chart, width)
    if isinstance(chart, RangeBars):
        return _range_bars(chart, width)
    if isinstance(chart, Boxes):
        return _boxes(chart, width)
    return _histogram(chart, width) if isinstance(chart, Histogram) else _line_chart(chart, width)


def chart_svg(chart: Chart, width: float) -> str:
    """Return a chart as an SVG element with title and description; equal charts, equal text."""
    drawing = chart_drawing(chart, width)
    size = (drawing.width, drawing.height)
    attributes = {"role": "img", "viewBox": "0 0 {:g} {:g}".format(*size), "width": "100%"}
    fonts = {REGULAR: {"family": _FAMILY}, BOLD: {"family": _FAMILY, "weight": "bold"}}
    canvas: Any = renderSVG.SVGCanvas(size, useClip=True, svgAttrs=attributes, fontHacks=fonts)
    renderSVG.draw(drawing, canvas)
    for name in ("height", "version", "xmlns", "xmlns:xlink"):  # a page needs none of them
        canvas.svg.removeAttribute(name)
    canvas.groupTree.removeAttribute("id")  # a page has several charts
    for tag, text in (("title", formats.clean(chart.title)), ("desc", described(chart))):
        canvas.svg.getElementsByTagName(tag)[0].firstChild.data = text
    return str(canvas.svg.toxml())


def described(chart: Chart) -> str:
    """Return what a chart shows in words and numbers, for those who do not see it."""
    if isinstance(chart, ShareBars):
        parts = [
            f"{name}: {', '.join(_share_text(share, chart.absent) for share in shares)}"
            for name, shares in chart.rows
        ]
        parts[:0] = [f"Bars: {', '.join(chart.groups)}"] if len(chart.groups) > 1 else []
    elif isinstance(chart, RangeBars):
        parts = [
            f"{name}: {formats.number(row[2])}, "
            f"from {formats.number(row[0])} to {formats.number(row[-1])}"
            for name, row in chart.rows
        ]
    elif isinstance(chart, Boxes):
        parts = [f"{name}: {note}" for row in chart.rows for name, note in row]
    elif isinstance(chart, Histogram):
        sets = (chart.reference, chart.subject)
        parts = [f"{name}: {_span(values)}" for name, values in sets if values]
        parts.append(chart.threshold[0])
    else:
        parts = [f"{one.name}: {_span(one.y)}" for one in chart.series]
    return formats.clean("; ".join(parts), 4_000)


def _share_text(share: Share | None, absent: str) -> str:
    return absent if share is None else f"{100 * share.value:.1f} %"


def _span(values: tuple[float, ...]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "no finite value"
    low, high = formats.number(min(finite)), formats.number(max(finite))
    return f"{formats.counted(len(finite), 'value')} from {low} to {high}"


# ---------------------------------------------------------------- lines and histograms


def _line_chart(chart: LineChart, width: float) -> Drawing:
    """Draw quantities over steps; a value that is not finite leaves a gap."""
    xs = [x for series in chart.series for x in series.x]
    ys = [y for series in chart.series for y in series.y if math.isfinite(y)]
    if not xs or not ys:
        drawing = _empty(width, _LINE_HEIGHT)
        top = _heading(drawing, chart.title)
        drawing.add(_text((0, top - 2 * _ROW), "no finite value", width))
        return drawing
    keys = [(series.name, _key_line(place)) for place, series in enumerate(chart.series)]
    drawing, frame = _plot(
        chart, keys, ticks(min(xs), max(xs)), ticks(min(ys), max(ys)), (width, _LINE_HEIGHT)
    )
    for place, series in enumerate(chart.series):
        for part in _finite_parts(series.x, series.y):
            points = [frame.at(x, y) for x, y in part]
            alone = Circle(*points[0], 2, fillColor=_LINES[place % 4], strokeColor=None)
            drawing.add(_line(points, place) if len(points) > 1 else alone)
    return drawing


def _finite_parts(xs: tuple[float, ...], ys: tuple[float, ...]) -> list[list[Point]]:
    """Split a line where a value is not finite."""
    parts: list[list[Point]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            parts[-1].append((x, y))
        else:
            parts.append([])
    return [part for part in parts if part]


def _histogram(chart: Histogram, width: float) -> Drawing:
    """Draw two sets over common bins: the subject filled, the reference as an outline.

    A set without values is left out of picture and legend.
    """
    (reference_name, reference), (subject_name, subject) = chart.reference, chart.subject
    threshold_name, threshold = chart.threshold
    values = [*reference, *subject, threshold]
    marks = ticks(min(values), max(values))
    low, high = marks[0], marks[-1]
    scaled = [_shares(reference, low, high)]
    scaled += [] if chart.as_strokes else [_shares(subject, low, high)]
    y_marks = ticks(0.0, max(1.0, *(share for part in scaled for share in part)))
    subject_key: list[Shape] = [_line([(0, 3), (18, 3)], 1, dashed=False)]
    if not chart.as_strokes:
        subject_key = _bar(0, 0, 18, 7, 1)
    keys = [(reference_name, _key_line(0))] if reference else []
    keys += [(subject_name, subject_key)] if subject else []
    keys.append((threshold_name, _key_line(2)))
    drawing, frame = _plot(chart, keys, marks, y_marks, (width, _HISTOGRAM_HEIGHT))
    edges = [low + (high - low) * place / _BINS for place in range(_BINS + 1)]
    if chart.as_strokes:
        top = _STROKE_SHARE * y_marks[-1]
        for value in subject:
            drawing.add(_line([frame.at(value, 0), frame.at(value, top)], 1, dashed=False))
    else:
        for place, share in enumerate(scaled[1]):
            (left, bottom), (right, top) = (
                frame.at(edges[place], 0),
                frame.at(edges[place + 1], share),
            )
            for shape in _bar(left, bottom, right - left, top - bottom, 1) if share else ():
                drawing.add(shape)
    if reference:
        outline = [frame.at(low, 0)]
        for place, share in enumerate(scaled[0]):
            outline += [frame.at(edges[place], share), frame.at(edges[place + 1], share)]
        drawing.add(_line([*outline, frame.at(high, 0)], 0))
    drawing.add(_line([frame.at(threshold, 0), frame.at(threshold, y_marks[-1])], 2))
    return drawing


def _shares(values: tuple[float, ...], low: float, high: float) -> list[float]:
    """Return the per cent of values in each bin; the last bin includes its upper edge."""
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / (high - low) * _BINS))] += 1
    return [100 * n / max(1, len(values)) for n in counts]


def _plot(
    chart: LineChart | Histogram,
    keys: list[tuple[str, list[Shape]]],
    x_marks: tuple[float, ...],
    y_marks: tuple[float, ...],
    size: Point,
) -> tuple[Drawing, Frame]:
    """Return a drawing with title, legend, grid and both axes, and the frame inside it."""
    width, height = size
    drawing = _empty(width, height)
    top = _legend(drawing, keys, _LEFT, _heading(drawing, chart.title)) - 6
    spans = ((x_marks[0], x_marks[-1]), (y_marks[0], y_marks[-1]))
    frame = Frame(_LEFT, _BOTTOM, width - _RIGHT, top, *spans)
    for mark, text in zip(y_marks, _tick_texts(y_marks), strict=True):
        x, y = frame.at(x_marks[0], mark)
        drawing.add(Line(x, y, frame.right, y, strokeColor=RULE, strokeWidth=0.4))
        drawing.add(_text((x - 4, y - 3), text, _LEFT, "end", MUTED))
    for mark, text in zip(x_marks, _tick_texts(x_marks), strict=True):
        x, y = frame.at(mark, y_marks[0])
        drawing.add(Line(x, y, x, y - 3, strokeColor=MUTED, strokeWidth=0.5))
        drawing.add(_text((x, y - 12), text, _LEFT, "middle", MUTED))
    base = (frame.left, frame.bottom, frame.right, frame.bottom)
    drawing.add(Line(*base, strokeColor=MUTED, strokeWidth=0.6))
    middle = ((frame.left + frame.right) / 2, 8.0)
    drawing.add(_text(middle, chart.x_label, frame.right - frame.left, "middle", MUTED))
    upright = Group(_text((0, 0), chart.y_label, frame.top - 10, "middle", MUTED))
    upright.translate(9, (frame.bottom + frame.top) / 2)
    upright.rotate(90)
    drawing.add(upright)
    return drawing, frame


# ---------------------------------------------------------------- bars


def _share_bars(chart: ShareBars, width: float) -> Drawing:
    """Draw shares from 0 to 100 per cent; a thin line spans the interval of each."""
    n_groups = max(1, len(chart.groups))
    row = n_groups * _BAR + _GROUP_GAP
    groups = chart.groups if n_groups > 1 else ()
    keys = [(group, _bar(0, 0, 18, 7, place)) for place, group in enumerate(groups)]
    drawing, frame = _bar_plot(
        (chart.title, chart.x_label), keys, (0, 20, 40, 60, 80, 100), (width, row * len(chart.rows))
    )
    for place, (name, shares) in enumerate(chart.rows):
        top = frame.top - place * row - _GROUP_GAP / 2
        drawing.add(_row_name(name, frame, top - n_groups * _BAR / 2))
        for bar, share in enumerate(shares):
            bottom = top - (bar + 1) * _BAR
            if share is None:
                room = frame.right - frame.left
                drawing.add(_text((frame.left + 3, bottom + 1.5), chart.absent, room, colour=MUTED))
                continue
            right = frame.at(100 * share.value, 0)[0]
            size = (right - frame.left, _BAR - 1.4)
            for shape in _bar(frame.left, bottom + 0.7, *size, bar) if share.value > 0 else ():
                drawing.add(shape)
            if share.ci95:
                low, high = (frame.at(100 * value, 0)[0] for value in share.ci95)
                y = bottom + _BAR / 2
                drawing.add(Line(low, y, high, y, strokeColor=INK, strokeWidth=0.8))
    return drawing


def _range_bars(chart: RangeBars, width: float) -> Drawing:
    """Draw a box for the middle half, a line for the wider range and a stroke for the median."""
    values = [value for _, row in chart.rows for value in row]
    marks = ticks(min(values), max(values))
    size = (width, _RANGE_ROW * len(chart.rows))
    drawing, frame = _bar_plot((chart.title, chart.x_label), [], marks, size)
    half = _RANGE_ROW * 0.3
    for place, (name, row) in enumerate(chart.rows):
        y = frame.top - (place + 0.5) * _RANGE_ROW
        low, left, middle, right, high = (frame.at(value, 0)[0] for value in row)
        drawing.add(_row_name(name, frame, y))
        drawing.add(Line(low, y, high, y, strokeColor=MUTED, strokeWidth=0.8))
        for shape in _bar(left, y - half, max(0.6, right - left), 2 * half, 0):
            drawing.add(shape)
        stroke = (middle, y - half - 1.5, middle, y + half + 1.5)
        drawing.add(Line(*stroke, strokeColor=ACCENT, strokeWidth=1.6))
    return drawing


def _bar_plot(
    titles: tuple[str, str],
    keys: list[tuple[str, list[Shape]]],
    marks: tuple[float, ...],
    size: Point,
) -> tuple[Drawing, Frame]:
    """Return a drawing as tall as its rows need, and the frame right of their names."""
    width, rows_height = size
    above = _ROW * (len(_title_lines(titles[0], width)) + len(keys)) + 8
    drawing = _empty(width, math.ceil(above + rows_height + _BOTTOM))
    left = round(width * _NAMES_SHARE, 2)
    _legend(drawing, keys, left, _heading(drawing, titles[0]))
    span = (marks[0], marks[-1])
    frame = Frame(left, _BOTTOM, width - _RIGHT, _BOTTOM + rows_height, span)
    for mark, text in zip(marks, _tick_texts(marks), strict=True):
        x, _ = frame.at(mark, 0)
        drawing.add(Line(x, frame.bottom, x, frame.top, strokeColor=RULE, strokeWidth=0.4))
        drawing.add(_text((x, frame.bottom - 12), text, left, "middle", MUTED))
    axis = (left, frame.bottom, left, frame.top)
    drawing.add(Line(*axis, strokeColor=MUTED, strokeWidth=0.6))
    drawing.add(_text((frame.right, 8), titles[1], width - _RIGHT, "end", MUTED))
    return drawing, frame


def _row_name(name: str, frame: Frame, middle: float) -> String:
    return _text((frame.left - 5, middle - 3), name or "(no value)", frame.left - 6, "end")


# ---------------------------------------------------------------- diagrams


def _boxes(chart: Boxes, width: float) -> Drawing:
    """Draw rows of boxes, joined from row to row."""
    above = _ROW * len(_title_lines(chart.title, width)) + 6
    step = _BOX + _BOX_GAP
    drawing = _empty(width, math.ceil(above + step * len(chart.rows) - _BOX_GAP + 2))
    _heading(drawing, chart.title)
    bottom = float(drawing.height) - above - _BOX
    before: list[float] = []
    for row in chart.rows:
        room = min(_BOX_WIDTH, (width - 2 - _BOX_GAP * (len(row) - 1)) / len(row))
        left = (width - room * len(row) - _BOX_GAP * (len(row) - 1)) / 2
        middles = [left + place * (room + _BOX_GAP) + room / 2 for place in range(len(row))]
        is_paired = len(before) == len(row)
        joins = zip(before, middles, strict=True) if is_paired else product(before, middles)
        for start, end in joins:
            line = (start, bottom + step, end, bottom + _BOX)
            drawing.add(Line(*line, strokeColor=MUTED, strokeWidth=0.8))
        for middle, (name, note) in zip(middles, row, strict=True):
            box = Rect(middle - room / 2, bottom, room, _BOX)
            box.fillColor, box.strokeColor, box.strokeWidth = None, ACCENT, 0.9
            drawing.add(box)
            drawing.add(_text((middle, bottom + 17), name, room - 8, "middle", bold=True))
            drawing.add(_text((middle, bottom + 6), note, room - 8, "middle", MUTED))
        before, bottom = middles, bottom - step
    return drawing


# ---------------------------------------------------------------- parts


def _empty(width: float, height: float) -> Drawing:
    return Drawing(width, height, initialFontName=REGULAR, initialFontSize=_SIZE)


def _heading(drawing: Drawing, title: str) -> float:
    """Write the title, on up to three lines; return the height of the last."""
    y = float(drawing.height)
    for line in _title_lines(title, float(drawing.width)):
        y -= _ROW
        drawing.add(_text((0, y + 2), line, float(drawing.width), bold=True))
    return y


def _title_lines(title: str, width: float) -> list[str]:
    return [str(line) for line in simpleSplit(drawable(title, 200), BOLD, _TITLE_SIZE, width)][:3]


def _legend(
    drawing: Drawing, keys: list[tuple[str, list[Shape]]], left: float, top: float
) -> float:
    """Write one row a name beside its line or bar; return the height below them."""
    for name, shapes in keys:
        top -= _ROW
        key = Group(*shapes)
        key.translate(left, top)
        drawing.add(key)
        drawing.add(_text((left + 23, top), name, float(drawing.width) - left - 25))
    return top


def _key_line(place: int) -> list[Shape]:
    return [_line([(0, 3), (18, 3)], place)]


def _line(points: Iterable[Point], place: int, *, dashed: bool = True) -> PolyLine:
    """Return a line in the style of a place in the legend."""
    made = PolyLine([value for point in points for value in point])
    made.strokeColor, made.strokeWidth, made.strokeLineJoin = _LINES[place % 4], 1.2, 1
    if dashed and _DASHES[place % 4]:
        made.strokeDashArray = list(_DASHES[place % 4])
    return made


def _bar(x: float, y: float, width: float, height: float, place: int) -> list[Shape]:
    """Return a filled bar, hatched in the way of its place in the legend."""
    edges = tuple(round(value, 2) for value in (x, y, width, height))
    ink = _LINES[place % 4]
    bar = Rect(*edges)
    bar.fillColor, bar.strokeColor, bar.strokeWidth = _FILLS[place % 4], ink, 0.4
    shapes: list[Shape] = [bar]
    if angles := _HATCHES[place % 4]:
        right, top = x + width, y + height
        corners = [x, y, right, y, right, top, x, top]
        shapes.append(Hatching(3, angles, [corners], strokeColor=ink, strokeWidth=0.5))
    return shapes


def _text(
    at: Point,
    text: str,
    room: float,
    anchor: Literal["start", "middle", "end"] = "start",
    colour: Color = INK,
    *,
    bold: bool = False,
) -> String:
    """Return a text on one line, cut to its room in points."""
    font, size = (BOLD, _TITLE_SIZE) if bold else (REGULAR, _SIZE)
    shown = drawable(text, 200)
    while stringWidth(shown, font, size) > room and len(shown) > 1:
        shown = f"{shown[:-2]}…"
    # The SVG renderer turns a text about a whole number, twice its height.
    made: Any = String(round(at[0], 2), round(2 * at[1]) / 2, shown, fontName=font, fontSize=size)
    made.fillColor, made.textAnchor = colour, anchor
    # A browser without the font fits another one to the width reckoned with.
    made._svgAttrs = {"textLength": f"{stringWidth(shown, font, size):.2f}"}
    return made  # type: ignore[no-any-return]


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Return about five round values that span a range, in steps of 1, 2 or 5 times 10**n."""
    if not high > low:
        pad = abs(low) / 10 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(place * step, 12) for place in range(first, last + 1))


def _tick_texts(values: tuple[float, ...]) -> tuple[str, ...]:
    """Return the labels of an axis with equal decimals, as many as the step needs."""
    places = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    return tuple(formats.number(float(value), min(places, 6)) for value in values)
