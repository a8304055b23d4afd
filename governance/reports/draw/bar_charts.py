"""Charts of horizontal bars: shares of groups, and ranges of numbers."""

from governance.reports import formats
from governance.reports.blocks import RangeBars, Share, ShareBars
from governance.reports.draw.charts import (
    Box,
    Chart,
    Frame,
    Label,
    Shape,
    Stroke,
    tick_texts,
    ticks,
)

_NAMES_SHARE, _RIGHT, _TOP, _BOTTOM = 0.36, 10.0, 15.0, 25.0
_BAR, _GROUP_GAP, _LEGEND_ROW = 6.4, 5.0, 10.0
_RANGE_ROW = 14.0
_LETTER = 3.9  # points: mean width of a letter of the size below
_SIZE = 6.6
_FILLS = ("fill0", "fill1", "fill2", "fill3")


def share_bars(chart: ShareBars, width: float) -> Chart:
    """Draw shares from 0 to 100 per cent; the chart grows with its rows.

    Each bar ends at its share; a thin line spans its interval. An unknown share is labelled as
    unknown.
    """
    n_groups = max(1, len(chart.groups))
    row = n_groups * _BAR + _GROUP_GAP
    legend = _LEGEND_ROW * (n_groups if n_groups > 1 else 0)
    height = _TOP + legend + row * len(chart.rows) + _BOTTOM
    shapes, frame = _axis(
        chart.title, chart.x_label, (0, 20, 40, 60, 80, 100), (width, height), legend
    )
    for place, group in enumerate(chart.groups if n_groups > 1 else ()):
        y = height - _TOP - _LEGEND_ROW * place - 5
        shapes.append(Box(frame.left, y - 1, 14, 5, _FILLS[place % len(_FILLS)]))
        shapes.append(Label(frame.left + 19, y - 0.8, formats.clean(group, 60)))
    for place, (name, shares) in enumerate(chart.rows):
        top = frame.top - place * row - _GROUP_GAP / 2
        shapes.append(_name(name, frame.left, top - n_groups * _BAR / 2))
        for bar, share in enumerate(shares):
            bottom = top - (bar + 1) * _BAR
            if share is None:
                shapes.append(Label(frame.left + 2, bottom + 0.4, chart.absent, "muted", size=4.6))
            else:
                shapes.extend(_share(share, frame, bottom, bar))
    return Chart(width, height, chart.title, tuple(shapes))


def _share(share: Share, frame: Frame, bottom: float, group: int) -> list[Shape]:
    right = frame.at(100 * share.value, 0.0)[0]
    shapes: list[Shape] = []
    if share.value > 0:
        width = round(right - frame.left, 2)
        shapes.append(
            Box(frame.left, round(bottom + 0.4, 2), width, _BAR - 0.8, _FILLS[group % len(_FILLS)])
        )
    if share.ci95:
        y = round(bottom + _BAR / 2, 2)
        ends = tuple((frame.at(100 * value, 0.0)[0], y) for value in share.ci95)
        shapes.append(Stroke(ends, "axis", 0.7))
    return shapes


def range_bars(chart: RangeBars, width: float) -> Chart:
    """Draw a box for the middle half, a line for the wider range and a stroke for the median."""
    height = _TOP + _RANGE_ROW * len(chart.rows) + _BOTTOM
    values = [value for _, row in chart.rows for value in row]
    shapes, frame = _axis(
        chart.title, chart.x_label, ticks(min(values), max(values)), (width, height)
    )
    half = _RANGE_ROW * 0.3
    for place, (name, row) in enumerate(chart.rows):
        y = round(frame.top - (place + 0.5) * _RANGE_ROW, 2)
        low, left, middle, right, high = (frame.at(value, 0.0)[0] for value in row)
        shapes.append(_name(name, frame.left, y))
        shapes.append(Stroke(((low, y), (high, y)), "axis", 0.8))
        box = Box(left, round(y - half, 2), max(0.6, round(right - left, 2)), 2 * half, "fill0")
        shapes.append(box)
        shapes.append(Stroke(((middle, y - half - 1), (middle, y + half + 1)), "series0", 1.4))
    return Chart(width, height, chart.title, tuple(shapes))


def _axis(
    title: str,
    x_label: str,
    marks: tuple[float, ...],
    size: tuple[float, float],
    legend: float = 0.0,
) -> tuple[list[Shape], Frame]:
    """Return title, grid and labels of the only axis, and the frame right of the row names."""
    width, height = size
    frame = Frame(
        round(width * _NAMES_SHARE, 2),
        _BOTTOM,
        width - _RIGHT,
        height - _TOP - legend,
        (marks[0], marks[-1]),
        (0.0, 1.0),
    )
    shapes: list[Shape] = [Label(0, height - 9, formats.clean(title, 60), size=7.6)]
    for mark, text in zip(marks, tick_texts(tuple(marks)), strict=True):
        x, _ = frame.at(mark, 0.0)
        shapes.append(Stroke(((x, frame.bottom), (x, frame.top)), "grid", 0.4))
        shapes.append(Label(x, frame.bottom - 8, text, "muted", "middle", 5.8))
    shapes.append(Stroke(((frame.left, frame.bottom), (frame.left, frame.top)), "axis", 0.6))
    shapes.append(Label(width - _RIGHT, 5, formats.clean(x_label), "muted", "end", 5.8))
    return shapes, frame


def _name(name: str, right: float, middle: float) -> Label:
    """Return the name of a row, cut to the room left of the frame."""
    letters = int((right - 5) / _LETTER)
    shown = formats.clean(name or "(no value)", 200)
    if len(shown) > letters:
        shown = f"{shown[: letters - 1]}…"
    return Label(right - 5, round(middle - 2.2, 2), shown, "ink", "end", _SIZE)
