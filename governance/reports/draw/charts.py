"""Charts as simple shapes, so that PDF and HTML draw the same picture."""

import math
from dataclasses import dataclass
from typing import Literal

from governance.reports import formats
from governance.reports.blocks import Histogram, LineChart

Anchor = Literal["start", "middle", "end"]
# Lines differ by dashes as well as by colour.
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 2), (1, 1.6), (6, 2, 1, 2))
_LEFT, _RIGHT, _BOTTOM, _TOP, _LEGEND_ROW = 44.0, 10.0, 34.0, 20.0, 11.0
_TICKS = 5
_DOT = 1.8
_BINS = 30
_STROKE_SHARE = 0.35
_NAME_CHARACTERS = 70


@dataclass(frozen=True)
class Stroke:
    """Line through points; `role` names its colour, `dash` its pattern."""

    points: tuple[tuple[float, float], ...]
    role: str
    width: float = 0.6
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Box:
    """Filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    role: str


@dataclass(frozen=True)
class Label:
    """Text at a point; turned by 90 degrees when `upright`."""

    x: float
    y: float
    text: str
    role: str = "ink"
    anchor: Anchor = "start"
    size: float = 6.6
    upright: bool = False


Shape = Stroke | Box | Label


@dataclass(frozen=True)
class Chart:
    """Shapes in a frame of `width` by `height` points; y grows upwards."""

    width: float
    height: float
    title: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Frame:
    """Plot area and the values at its edges."""

    left: float
    bottom: float
    right: float
    top: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the point of the chart at which a pair of values lies."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return (
            round(self.left + (x - x0) / (x1 - x0) * (self.right - self.left), 2),
            round(self.bottom + (y - y0) / (y1 - y0) * (self.top - self.bottom), 2),
        )


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


def line_chart(chart: LineChart, width: float, height: float) -> Chart:
    """Draw quantities over steps with axes, grid and legend."""
    xs = [x for series in chart.series for x in series.x]
    ys = [y for series in chart.series for y in series.y if math.isfinite(y)]
    if not xs or not ys:
        return Chart(width, height, chart.title, (Label(4, height / 2, "no finite value"),))
    names = {place: series.name for place, series in enumerate(chart.series)}
    shapes, frame = _axes(
        chart, (ticks(min(xs), max(xs)), ticks(min(ys), max(ys))), names, width, height
    )
    for place, series in enumerate(chart.series):
        shapes.extend(
            Stroke(part, f"series{place % len(DASHES)}", 1.1, DASHES[place % len(DASHES)])
            for part in _finite_parts(series.x, series.y, frame)
        )
        shapes.extend(
            Stroke(((x - _DOT, y), (x + _DOT, y)), f"series{place % len(DASHES)}", 2 * _DOT)
            for x, y in _single_points(series.x, series.y, frame)
        )
    return Chart(width, height, chart.title, tuple(shapes))


def _finite_parts(
    xs: tuple[float, ...], ys: tuple[float, ...], frame: Frame
) -> list[tuple[tuple[float, float], ...]]:
    """Split a line into runs of points; a value that is not finite leaves a gap."""
    parts: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            parts[-1].append(frame.at(x, y))
        else:
            parts.append([])
    return [tuple(part) for part in parts if len(part) > 1]


def _single_points(
    xs: tuple[float, ...], ys: tuple[float, ...], frame: Frame
) -> list[tuple[float, float]]:
    """Return finite points without a finite neighbour, which no line would show."""
    finite = [False, *(math.isfinite(y) for y in ys), False]
    return [
        frame.at(x, y)
        for place, (x, y) in enumerate(zip(xs, ys, strict=True), start=1)
        if finite[place] and not finite[place - 1] and not finite[place + 1]
    ]


def histogram(chart: Histogram, width: float, height: float) -> Chart:
    """Draw two sets over common bins: the subject filled, the reference as an outline.

    A set without values is left out of picture and legend.
    """
    (reference_name, reference), (subject_name, subject) = chart.reference, chart.subject
    threshold_name, threshold = chart.threshold
    values = [*reference, *subject, threshold]
    x_ticks = ticks(min(values), max(values))
    low, high = x_ticks[0], x_ticks[-1]
    shares = [_shares(part, low, high) for part in (reference, subject)]
    scaled = shares[:1] if chart.as_strokes else shares
    y_ticks = ticks(0.0, max(1.0, *(share for part in scaled for share in part)))
    names = {0: reference_name, 1: subject_name, 2: threshold_name}
    shown = {n: name for n, name in names.items() if n == 2 or (reference, subject)[n]}
    shapes, frame = _axes(chart, (x_ticks, y_ticks), shown, width, height)
    if chart.as_strokes:
        shapes.extend(_strokes(subject, frame))
    elif subject:
        shapes.extend(_bars(shares[1], frame))
    if reference:
        shapes.append(Stroke(_outline(shares[0], frame), "series0", 1.1))
    ends = (frame.at(threshold, 0.0), frame.at(threshold, y_ticks[-1]))
    shapes.append(Stroke(ends, "series2", 1.1, DASHES[2]))
    return Chart(width, height, chart.title, tuple(shapes))


def _shares(values: tuple[float, ...], low: float, high: float) -> list[float]:
    """Return the per cent of values in each bin; the last bin includes its upper edge."""
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / (high - low) * _BINS))] += 1
    return [100 * n / max(1, len(values)) for n in counts]


def _edges(frame: Frame) -> list[float]:
    low, high = frame.x_range
    return [low + (high - low) * place / _BINS for place in range(_BINS + 1)]


def _strokes(values: tuple[float, ...], frame: Frame) -> list[Stroke]:
    """Return one short upright stroke for each value."""
    low, high = frame.y_range
    top = low + _STROKE_SHARE * (high - low)
    return [Stroke((frame.at(v, low), frame.at(v, top)), "series1", 1.1) for v in values]


def _bars(shares: list[float], frame: Frame) -> list[Box]:
    edges = _edges(frame)
    bars = []
    for place, share in enumerate(shares):
        left, bottom = frame.at(edges[place], 0.0)
        right, top = frame.at(edges[place + 1], share)
        if share:
            bars.append(Box(left, bottom, round(right - left, 2), round(top - bottom, 2), "fill1"))
    return bars


def _outline(shares: list[float], frame: Frame) -> tuple[tuple[float, float], ...]:
    edges = _edges(frame)
    points = [frame.at(edges[0], 0.0)]
    for place, share in enumerate(shares):
        points += [frame.at(edges[place], share), frame.at(edges[place + 1], share)]
    return (*points, frame.at(edges[-1], 0.0))


def _axes(
    chart: LineChart | Histogram,
    both_ticks: tuple[tuple[float, ...], tuple[float, ...]],
    names: dict[int, str],
    width: float,
    height: float,
) -> tuple[list[Shape], Frame]:
    x_ticks, y_ticks = both_ticks
    frame = Frame(
        _LEFT,
        _BOTTOM,
        width - _RIGHT,
        height - _TOP - _LEGEND_ROW * len(names),
        (x_ticks[0], x_ticks[-1]),
        (y_ticks[0], y_ticks[-1]),
    )
    shapes: list[Shape] = [Label(0, height - 9, formats.clean(chart.title), size=7.6)]
    for tick, text in zip(y_ticks, tick_texts(y_ticks), strict=True):
        x, y = frame.at(x_ticks[0], tick)
        shapes.append(Stroke(((x, y), (frame.right, y)), "grid", 0.4))
        shapes.append(Label(x - 4, y - 2.2, text, "muted", "end"))
    for tick, text in zip(x_ticks, tick_texts(x_ticks), strict=True):
        x, y = frame.at(tick, y_ticks[0])
        shapes.append(Stroke(((x, y), (x, y - 2.5)), "axis", 0.5))
        shapes.append(Label(x, y - 10.5, text, "muted", "middle"))
    base = ((frame.left, frame.bottom), (frame.right, frame.bottom))
    shapes.append(Stroke(base, "axis", 0.6))
    middle = (frame.left + frame.right) / 2
    shapes.append(Label(middle, 6, formats.clean(chart.x_label), "muted", "middle"))
    centre = (frame.bottom + frame.top) / 2
    shapes.append(Label(8, centre, formats.clean(chart.y_label), "muted", "middle", upright=True))
    shapes.extend(_legend(chart, names, height))
    return shapes, frame


def tick_texts(values: tuple[float, ...]) -> tuple[str, ...]:
    """Return the labels of an axis with equal decimals, as many as the step needs."""
    step = values[1] - values[0]
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return tuple(formats.number(float(value), min(places, 6)) for value in values)


def _legend(chart: LineChart | Histogram, names: dict[int, str], height: float) -> list[Shape]:
    """Return names beside their line or filled box; the key is the place in the styles."""
    shapes: list[Shape] = []
    for row, (place, name) in enumerate(names.items()):
        y = height - _TOP - _LEGEND_ROW * row - 3
        if isinstance(chart, Histogram) and place == 1 and not chart.as_strokes:
            shapes.append(Box(_LEFT, y - 1, 16, 6, "fill1"))
        else:
            style = place % len(DASHES)
            dash = () if isinstance(chart, Histogram) and place == 1 else DASHES[style]
            line = ((_LEFT, y + 2), (_LEFT + 16, y + 2))
            shapes.append(Stroke(line, f"series{style}", 1.3, dash))
        shapes.append(Label(_LEFT + 21, y, formats.clean(name, _NAME_CHARACTERS)))
    return shapes
