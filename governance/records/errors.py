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

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


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


class GovernanceError(Exception):
    """Base of all errors that a user of the governance package can cause or meet."""

    code = "G000"
    exit_code = 5


class PolicyError(GovernanceError):
    """A policy cannot be read, or drops what a policy must hold."""

    code = "G010"
    exit_code = 2


class IsolationError(GovernanceError):
    """Isolation of the held-out test set is broken or cannot be shown."""

    code = "G020"
    exit_code = 4


class EvidenceError(GovernanceError):
    """Evidence is missing, unreadable or contradicts itself."""

    code = "G030"
    exit_code = 5


class EvidenceTamperedError(EvidenceError):
    """A stored digest no longer matches its file.

    Attributes:
        path: File that changed.
        expected: Digest on record, 64 lowercase hex digits.
        found: Digest of the file as it is now.
    """

    code = "G031"

    def __init__(self, path: Path, *, expected: str, found: str) -> None:
        self.path, self.expected, self.found = path, expected, found
        super().__init__(
            f"{path}: recorded as sha256:{expected[:12]}, now sha256:{found[:12]}; "
            "restore the file or rerun the step that wrote it"
        )


class SealError(EvidenceError):
    """The sealed test set differs from what was sealed, or may not be opened."""

    code = "G032"


class RecordWriteError(GovernanceError):
    """A record cannot be written: disk full, read-only folder, missing permission."""

    code = "G040"
    exit_code = 7


class SigningKeyError(GovernanceError):
    """A signing key cannot be read, made or used."""

    code = "G041"
    exit_code = 7


class TimeStampError(GovernanceError):
    """A time-stamp authority cannot be reached, or its answer is no time-stamp of the manifest."""

    code = "G043"
    exit_code = 7


class AnchorError(GovernanceError):
    """What a run is to be compared with is not a public key or a digest."""

    code = "G042"
    exit_code = 2


class PipelineError(Exception):
    """Base of all errors of the pipelines package that a user can cause or meet."""

    code = "P000"
    exit_code = 9


class ConfigError(PipelineError):
    """A key or value of the configuration cannot be used."""

    code = "C000"
    exit_code = 2


class DeclarationsError(ConfigError):
    """A declarations file cannot be read or used.

    Attributes:
        findings: Every fault with its line and key, when there are several.
    """

    code = "C010"

    def __init__(self, message: str, *, findings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class TrackingError(PipelineError):
    """The tracking store cannot be used."""

    code = "S000"
    exit_code = 6


class PromotionError(PipelineError):
    """A run may not be promoted.

    Attributes:
        findings: Every open gate item, or every file that does not fit.
    """

    code = "P010"

    def __init__(self, message: str, *, findings: tuple[str, ...] = (), exit_code: int = 9) -> None:
        super().__init__(message)
        self.findings, self.exit_code = findings, exit_code


class MachineError(PipelineError):
    """The machine lacks memory, disk space or permission, or ended a process of ours."""

    code = "X000"
    exit_code = 7


class ProcessError(PipelineError):
    """The training process ended with an error of its own, which keeps its code."""

    def __init__(self, message: str, *, code: str, exit_code: int) -> None:
        super().__init__(message)
        self.code, self.exit_code = code, exit_code


class InterruptedByUser(PipelineError):  # noqa: N818 - a request, not a fault
    """A stop signal was received and obeyed between two pieces of work."""

    code = "I000"

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
