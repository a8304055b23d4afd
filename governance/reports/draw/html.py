"""The audit report as one HTML file: no script, nothing loaded from outside."""

import base64
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from governance.reports import formats
from governance.reports.blocks import Chart, Picture, Report
from governance.reports.draw.charts import chart_svg
from governance.reports.draw.pdf_layout import ANNEX

_TEMPLATE = "report.html.j2"
_CHART_WIDTH = 360.0
_LONG_TEXT_CHARACTERS = 6_000


def html_page(report: Report) -> bytes:
    """Draw a report as a page; equal content gives equal bytes.

    Returns:
        UTF-8 HTML with inline styles and pictures as data addresses. All text is escaped; a
        content security policy forbids scripts and any load.
    """
    return _environment().get_template(_TEMPLATE).render(report=report, annex=ANNEX).encode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("governance.reports.draw"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_clean,
    )
    filters: dict[str, Callable[..., Any]] = {
        "kind": lambda block: type(block).__name__,
        "svg": _svg,
        "data_address": _data_address,
        "short": formats.short,
    }
    environment.filters.update(filters)
    return environment


def _clean(value: Any) -> Any:
    """Clean every text that the template prints; markup of the template itself passes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return formats.clean(value, _LONG_TEXT_CHARACTERS)
    return value


def _svg(chart: Chart) -> Markup:
    return Markup(chart_svg(chart, _CHART_WIDTH))  # noqa: S704 - the renderer escapes every text


def _data_address(picture: Picture) -> Markup:
    encoded = base64.b64encode(picture.data).decode("ascii")
    return Markup(f"data:{picture.media_type};base64,{encoded}")  # noqa: S704 - letters of base64
