"""What image files say about being synthetic, for people and for scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from governance.evidence.manifest import printable
from medisynth.data.reading.decode import MAX_FILE_BYTES
from medisynth.data.reading.synthetic_mark import SyntheticMark, is_marked_synthetic, read_mark


@dataclass(frozen=True)
class FoundMark:
    """What a file says about being synthetic.

    Attributes:
        path: The file.
        kind: "mark": our mark, whole. "other": it says that it is synthetic, but the mark is
            another maker's or damaged. "none": it says nothing. "unreadable": no file to read.
        mark: The mark where there is one.
        words: All of it in words for people.
    """

    path: str
    kind: Literal["mark", "other", "none", "unreadable"]
    mark: SyntheticMark | None
    words: str


def read_marks(paths: Sequence[Path]) -> tuple[FoundMark, ...]:
    """Read the mark of each file; nothing raises, what cannot be read says so."""
    return tuple(_read_mark(path) for path in paths)


def _read_mark(path: Path) -> FoundMark:
    name = printable(str(path))
    try:
        if not path.is_file():
            return FoundMark(name, "unreadable", None, "no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            return FoundMark(name, "none", None, f"not read: more than {MAX_FILE_BYTES:,} bytes")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return FoundMark(name, "unreadable", None, f"cannot be read ({reason})")
    mark = read_mark(data)
    if mark is not None:
        return FoundMark(name, "mark", mark, _words(mark))
    if is_marked_synthetic(data):
        words = "says that it is synthetic, by a damaged mark or another maker's: origin unknown"
        return FoundMark(name, "other", None, words)
    return FoundMark(name, "none", None, "no synthetic mark")


def _words(mark: SyntheticMark) -> str:
    parts = [
        f"synthetic, generator {mark.generator}",
        f"run {mark.run_id}",
        f"checkpoint sha256:{mark.checkpoint_sha256}",
        f"seed {mark.seed}",
        f"index {mark.index}",
        *([f"plane {mark.plane}"] if mark.plane is not None else []),
        *([f"machine {mark.machine}"] if mark.machine is not None else []),
        *(["visible mark"] if mark.visible else []),
        f"licence: {mark.licence}",
    ]
    return printable(", ".join(parts))
