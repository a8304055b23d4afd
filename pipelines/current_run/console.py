"""Progress and messages: bars on a terminal, otherwise lines of text or JSON."""

import json
import os
import re
import shutil
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from governance.records.credentials import without_credentials
from governance.records.errors import InterruptedByUser
from governance.records.files import typed

_LONGEST_LINE = 2_000
_LONG_WORD = re.compile(r"\S{300,}")
_LINE_EVERY_S = 10.0  # plain lines: at most one for each task in this time


def folded(text: str) -> str:
    """Return text with everything that is too long for a screen shortened; files have all of it."""
    return "\n".join(map(_folded_line, _LONG_WORD.sub(_folded_word, text).split("\n")))


def _folded_word(found: re.Match[str]) -> str:
    word = found[0]
    return f"{word[:80]}…{word[-20:]} ({len(word):,} characters)"


def _folded_line(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{line[:_LONGEST_LINE]}… ({len(line):,} characters)"


def of_workspace(workspace: Path) -> str:
    """Return the option that names a workspace to a command; "" for the current folder."""
    return "" if workspace == Path.cwd() else f" -w {typed(workspace)}"


def program() -> str:
    """Return how this program is called from the current folder: a word on the path, or its file.

    Without an activated environment, `medisynth-gov` alone would not be found by the shell.
    """
    name = "medisynth-gov"
    here = Path(sys.executable).parent / name
    if shutil.which(name) or not here.is_file():
        return name
    folder = Path.cwd()
    return typed(here.relative_to(folder) if here.is_relative_to(folder) else here)


def write_or_leave(stream: TextIO, text: str) -> None:
    """Write text; if the terminal is gone, redirect output to the null device and go on.

    After a hang-up every write to the terminal fails, even the flush at the end of the process.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        _leave_terminal()


def _leave_terminal() -> None:
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    for number in (1, 2):
        with suppress(OSError):
            is_device = stat.S_ISCHR(os.fstat(number).st_mode)
            if is_device and not os.isatty(number):  # leave a terminal that still answers
                os.dup2(nothing, number)
    os.close(nothing)


class StopRequest:
    """Remembers a stop signal until `check` reads it; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def check(self) -> None:
        """Raise InterruptedByUser if a stop signal came."""
        if self.signal_number is not None:
            raise InterruptedByUser(self.signal_number)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal_number = number
        write_or_leave(
            sys.stderr, "\nstopping after the current piece of work; once more leaves at once\n"
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT, SIGTERM and SIGHUP while the block runs."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass
class Console:
    """Shows progress and messages of one command; results go to standard output instead.

    Attributes:
        json_lines: Write one JSON object a message instead of text.
        stop: Stop request that every progress report reads.
        stream: Where messages go; standard error by default.
    """

    json_lines: bool = False
    stop: StopRequest = field(default_factory=StopRequest)
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _bar: Any = None
    _tasks: dict[str, Any] = field(default_factory=dict)
    _last_line: dict[str, float] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print one message; credentials in an address that it repeats are hidden."""
        text = without_credentials(text)
        if self.json_lines:
            self._write_json({"message": text})
            return
        text = folded(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            write_or_leave(self.stream, f"{text}\n")

    def warn(self, text: str) -> None:
        """Print one warning."""
        self.say(f"warning: {text}")

    def progress(self, task: str, done: int, total: int) -> None:
        """Report that `done` of `total` pieces of `task` are done; raise on a stop request."""
        if self._bar is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bar.add_task(task, total=total)
            self._bar.update(self._tasks[task], completed=done, total=total)
        else:
            self._progress_line(task, done, total)
        self.stop.check()

    def transfer(self, task: str, words: str, done_bytes: int, total_bytes: int) -> None:
        """Report a download's state as `words` and bytes; raise on a stop request."""
        if self._bar is not None:
            if task not in self._tasks:
                self._tasks[task] = self._bar.add_task(task, total=total_bytes)
            self._bar.update(
                self._tasks[task], description=words, completed=done_bytes, total=total_bytes
            )
        else:
            now = time.monotonic()
            due = now - self._last_line.get(task, -_LINE_EVERY_S) >= _LINE_EVERY_S
            if due or done_bytes >= total_bytes:
                self._last_line[task] = now
                self.say(f"  {words}")
        self.stop.check()

    def _progress_line(self, task: str, done: int, total: int) -> None:
        now = time.monotonic()
        first = task not in self._last_line
        if first:
            self._last_line[task] = now
        if done < total and (first or now - self._last_line[task] < _LINE_EVERY_S):
            return
        self._last_line[task] = now
        if self.json_lines:
            self._write_json({"task": task, "done": done, "total": total})
        else:
            write_or_leave(self.stream, f"  {task}: {done:,} of {total:,}\n")

    def _write_json(self, value: dict[str, Any]) -> None:
        write_or_leave(self.stream, json.dumps(value, ensure_ascii=False) + "\n")

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show progress bars while the block runs, if the stream is a terminal."""
        if self.json_lines or not self.stream.isatty():
            yield
            return
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=RichConsole(file=self.stream)) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None
                self._tasks.clear()
