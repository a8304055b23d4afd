"""Finds the folder of a run by its id or path."""

import difflib
from pathlib import Path

from governance.evidence.manifest import JOURNAL
from governance.records.errors import ConfigError

_SHOWN_RUNS = 3
_SHOWN_CHARACTERS = 120


def named_folder(name: str, workspace: Path | None) -> Path:
    """Return the folder that a name stands for, whatever is left of the run in it.

    Args:
        name: Path of the folder, or run id.
        workspace: Folder that holds runs/; None is the current folder.

    Raises:
        ConfigError: A plain name is neither; the message names a similar run, or the latest ones.
    """
    path, in_workspace = Path(name), (workspace or Path()) / "runs" / name
    if path.exists() or path.name != name:
        return path
    return in_workspace if in_workspace.is_dir() else find_run(name, workspace)


def find_run(name: str, workspace: Path | None) -> Path:
    """Return the folder of a run, by its id in the workspace or by path.

    Args:
        name: Run id, or path of the folder.
        workspace: Folder that holds runs/; None is the current folder.

    Raises:
        ConfigError: There is no such run, or the folder is no run folder; the message names a
            similar run, or the latest ones.
    """
    runs = (workspace or Path()) / "runs"
    for place in (runs / name, Path(name)):
        if name.strip() and (place / JOURNAL).is_file():
            return place.resolve()
    if name.strip() and Path(name).is_dir():
        raise ConfigError(
            f"{name}: not a run folder; expected {JOURNAL} in it; give the folder of a run, "
            "runs/<id> of its workspace"
        )
    there = runs.iterdir() if runs.is_dir() else ()
    known = sorted((folder.name for folder in there if folder.is_dir()), reverse=True)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        hint = f"did you mean {near[0]!a}?"
    elif known:
        hint = f"the latest there are {', '.join(known[:_SHOWN_RUNS])}; or give the run's folder"
    else:
        hint = "there is no run; give the run's folder, or name its workspace with -w"
    raise ConfigError(f"no run {name[:_SHOWN_CHARACTERS]!a} in {runs}, and no such folder; {hint}")
