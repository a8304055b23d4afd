"""Classes that packages register by entry point: found by name, imported, errors in one sentence."""

import difflib
import traceback
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from governance.records.errors import SettingsError


def registered_names(group: str) -> tuple[str, ...]:
    """Names registered in an entry point group, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def registered(group: str, name: str, key: str, noun: str, otherwise: str = "") -> EntryPoint:
    """Return the entry point of a name.

    Args:
        group: Entry point group, e.g. "medisynth.models".
        name: Registered name.
        key: Configuration key that named it, for messages.
        noun: What is registered, e.g. "generator".
        otherwise: End of the message on an unknown name: what else may be given.

    Raises:
        SettingsError: None has this name, or two packages give it to different classes.
    """
    points = list(entry_points(group=group, name=name))
    if not points:
        known = registered_names(group)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SettingsError(
            f"{key}: unknown {noun} {name!a}; {hint}known are {', '.join(known)}{otherwise}"
        )
    if len({point.value for point in points}) > 1:
        article = "an" if noun[0] in "aeiou" else "a"
        raise SettingsError(f"{key}: two packages register {article} {noun} named {name!r}")
    return points[0]


def import_point(point: EntryPoint, key: str) -> object:
    """Import the object an entry point names; any error of its module becomes one sentence.

    Raises:
        SettingsError: Its module cannot be imported.
    """
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # foreign code
        reason = str(error).strip().splitlines()
        raise SettingsError(
            f"{key}: {point.value} cannot be imported, {_place(error)} raised "
            f"{type(error).__name__}: {reason[0][:200] if reason else 'no reason given'}; "
            "mend it, or install what it needs into this Python environment"
        ) from error


def _place(error: BaseException) -> str:
    """File name and line at which an import failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno},"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}," if frames else "it"
