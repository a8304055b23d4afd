"""The exceptions of the medisynth package, in one tree.

    MedisynthError
    ├── SettingsError           2  a model, adapter or metric setting cannot be used
    ├── DataError               3  data cannot be read or is not what it must be
    ├── LeakageError            4  a patient or an image is on both sides of a split
    ├── WeightsError            5  weights are not the weights that were pinned
    ├── ResourceError           7  memory, disk or device
    ├── TrainingError           8  non-finite, diverged or collapsed
    └── MetricUndefinedError    9  a metric has no value for this input

Each class carries the `code` printed in `error[CODE]` and the `exit_code` of the command line.
Messages say what, where, expected, found and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class MedisynthError(Exception):
    """Base of all errors that a user of the medisynth package can cause or meet."""

    code = "M000"
    exit_code = 3


class SettingsError(MedisynthError):
    """A setting cannot be used."""

    code = "M010"
    exit_code = 2


@dataclass(frozen=True)
class Finding:
    """One fault found in the data, in words.

    Attributes:
        code: Kind of fault, e.g. "D016".
        where: File, relative to the data root.
        message: What is wrong: expected, found, what to do. One sentence, no line breaks.
        row: Line number in `where`, 1 is the header; None if it does not apply.
        column: Column name; None if it does not apply.
    """

    code: str
    where: str
    message: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = self.where if self.row is None else f"{self.where}:{self.row}"
        if self.column is not None:
            place += f" column {self.column!r}"
        return f"{place}: {self.message}"


class DataError(MedisynthError):
    """Data cannot be read or is not what it must be.

    Attributes:
        findings: Every fault found, first to last; may be empty when the message says it all.
    """

    code = "D000"
    exit_code = 3

    def __init__(
        self, message: str, *, code: str | None = None, findings: Sequence[Finding] = ()
    ) -> None:
        super().__init__(message)
        self.findings = tuple(findings)
        if code is not None:
            self.code = code


class LeakageError(MedisynthError):
    """A patient or an image is on both sides of a split."""

    code = "L000"
    exit_code = 4


class WeightsError(MedisynthError):
    """Weights are missing, damaged or not the ones that were pinned."""

    code = "W000"
    exit_code = 5


class ResourceError(MedisynthError):
    """The machine lacks memory, disk or a device."""

    code = "R000"
    exit_code = 7


class TrainingError(MedisynthError):
    """Training produced non-finite values, diverged or collapsed."""

    code = "T000"
    exit_code = 8


class MetricUndefinedError(MedisynthError):
    """A metric has no value for this input, e.g. fewer than two images."""

    code = "E000"
    exit_code = 9
