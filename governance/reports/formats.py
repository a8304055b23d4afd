"""Format numbers, times, digests and names, in one place so that all reports agree."""

import math
import unicodedata
from datetime import UTC, datetime

from governance.records.policy import Criterion

NOT_AVAILABLE = "not available"
DASH, TIMES = "\u2013", "\u00d7"  # escaped, since they look like other letters in source
_DIGEST_LETTERS = 12
_SIGNIFICANT = 3
_CELL_CHARACTERS = 1_500
_OPERATORS = {"==": "=", "<=": "≤", ">=": "≥"}


def clean(text: str, limit: int = _CELL_CHARACTERS) -> str:
    r"""Make any text safe to show on one line.

    Line breaks become blanks; control, formatting, private and unassigned characters are written
    as `\uXXXX`, so that no name can hide or reverse its neighbours; what exceeds `limit`
    characters is cut and counted.
    """
    # Printable is what has none of the categories that `_visible` writes out.
    shown = text if text.isprintable() else "".join(_visible(letter) for letter in text)
    if len(shown) <= limit:
        return shown
    return f"{shown[:limit]}… ({len(shown) - limit:,} more characters)"


def _visible(letter: str) -> str:
    if letter in "\n\r\t\v\f\u2028\u2029":
        return " "
    if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Cn"}:
        return escaped(letter)
    return letter


def escaped(letter: str) -> str:
    r"""Write one character as `\uXXXX`, or `\UXXXXXXXX` beyond the basic plane."""
    code = ord(letter)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def count(value: int | None) -> str:
    """Write a whole number with thousands separated; "not available" for None."""
    return NOT_AVAILABLE if value is None else _minus(f"{value:,}")


def counted(value: int, noun: str, plural: str = "") -> str:
    """Return number and noun in agreement: "1 image", "12,400 images"."""
    return f"{count(value)} {noun if value == 1 else plural or noun + 's'}"


def decimals(*values: float) -> int:
    """Return the decimals that give the largest magnitude three significant digits, at most 6."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return 0
    return min(6, max(0, _SIGNIFICANT - 1 - math.floor(math.log10(largest))))


def number(value: float | int | bool | str | None, places: int | None = None) -> str:
    """Write one value; floats with three significant digits, unless `places` is given."""
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return count(value)
    if not math.isfinite(value):
        return "not finite"
    if places is None:
        places = 0 if value == int(value) and abs(value) < 1e15 else decimals(value)
        if value != 0 and abs(value) < 1e-6:
            return _minus(f"{value:.2e}")
    return _minus(f"{value:,.{places}f}")


def estimate(value: float, ci95: tuple[float, float] | None) -> tuple[str, str]:
    """Write a value and its 95 % interval with equal decimals; the interval is "" for None."""
    places = decimals(value, *(ci95 or ()))
    interval = f"{number(ci95[0], places)} to {number(ci95[1], places)}" if ci95 else ""
    return number(value, places), interval


def with_unit(value: float | int | bool | str | None, unit: str) -> str:
    """Write a value and its unit; "1 patient", "0.5 (fraction of patients)"."""
    return f"{number(value)} {_unit(value, unit)}".strip()


def _unit(value: float | int | bool | str | None, unit: str) -> str:
    if " of " in unit:
        return f"({unit})"
    is_plural_word = len(unit) > 2 and unit.endswith("s") and " " not in unit
    return unit[:-1] if value == 1 and is_plural_word else unit


def sentence(text: str) -> str:
    """Return a text with a capital letter at its start and one full stop at its end."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text.strip() else ""


def percent(part: float, whole: float) -> str:
    """Return a share in per cent with one decimal; "not available" if the whole is 0."""
    return NOT_AVAILABLE if whole == 0 else f"{100 * part / whole:.1f} %"


def short(digest: str | None) -> str:
    """Return the first twelve digits of a digest; the evidence list has all of them."""
    return NOT_AVAILABLE if not digest else f"sha256:{digest[:_DIGEST_LETTERS]}"


def utc(moment: datetime) -> str:
    """Write a moment in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """Write a length of time in seconds, minutes or hours, by its size."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def criterion(limit: Criterion | None) -> str:
    """Write a criterion: operator, limit and who set it."""
    if limit is None:
        return ""
    if limit.operator == "none":
        return "recorded; no limit is meant"
    if limit.value is None:
        return f"{_OPERATORS[limit.operator]} a limit that the configuration did not set"
    return f"{_OPERATORS[limit.operator]} {with_unit(limit.value, limit.unit)} ({limit.set_by})"


def _minus(text: str) -> str:
    return text.replace("-", "\u2212", 1) if text.startswith("-") else text
