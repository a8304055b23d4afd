"""The errors that a user can cause or meet, in one tree: a branch for each exit code.

    MedisynthGovError                  B000
    ├── UsageError
    │   ├── SettingsError              M010
    │   ├── ConfigError                C000
    │   │   └── DeclarationsError      C010
    │   ├── PolicyError                G010
    │   └── AnchorError                G042
    ├── DataError                      D000
    ├── SeparationError
    │   ├── LeakageError               L000
    │   └── IsolationError             G020
    ├── IntegrityError
    │   ├── WeightsError               W000
    │   └── EvidenceError              G030
    │       ├── EvidenceTamperedError  G031
    │       ├── NotRunError            G033
    │       └── SealError              G032
    ├── TrackingError                  S000
    ├── MachineError                   X000
    │   ├── ResourceError              R000
    │   ├── RecordWriteError           G040
    │   ├── SigningKeyError            G041
    │   └── TimeStampError             G043
    ├── TrainingError                  T000
    ├── UnfinishedError
    │   ├── MetricUndefinedError       E000
    │   └── PromotionError             P010
    ├── ProcessError                   T901
    └── InterruptedByUser              I000

Classes without a code of their own are never raised. `error_codes.py` says of every code what it
means and what to do. Messages say what, where, expected, found and what to do.
"""

import errno
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

from governance.records.credentials import without_credentials


@dataclass(frozen=True)
class Finding:
    """One fault found in the data, described for the user.

    Attributes:
        code: Kind of fault, e.g. "D016".
        where: File, relative to the data root.
        message: What is wrong: expected, found, what to do. One sentence, no line breaks.
        row: Line number in `where`, 1 is the header; None if it does not apply.
        column: Column name; None if it does not apply.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # findings.json holds these

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


class MedisynthGovError(Exception):
    """A fault of medisynth-gov itself.

    Base of all errors that a user can cause or meet. Credentials in an address that a message
    repeats are hidden: messages are printed, journaled and mirrored.

    Attributes:
        code: What `error[CODE]` shows.
        exit_code: Exit code of the command line.
        findings: Every fault found, first to last; empty when the message says it all.
    """

    code = "B000"
    exit_code = 1
    findings: tuple[Finding | str, ...]

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        exit_code: int | None = None,
        findings: Sequence[Finding | str] = (),
    ) -> None:
        super().__init__(without_credentials(message))
        self.findings = tuple(
            without_credentials(found) if isinstance(found, str) else found for found in findings
        )
        if code is not None:
            self.code = code
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(MedisynthGovError):
    """Something that was asked for cannot be used."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting of a model, a metric or a data contract cannot be used."""

    code = "M010"


class ConfigError(UsageError):
    """A key or value of the configuration cannot be used."""

    code = "C000"


class DeclarationsError(ConfigError):
    """A declarations file cannot be read or used; findings name line and key."""

    code = "C010"


class PolicyError(UsageError):
    """A policy cannot be read, or drops what a policy must hold."""

    code = "G010"


class AnchorError(UsageError):
    """The given public key, certificate or digest to compare a run with cannot be used."""

    code = "G042"


class DataError(MedisynthGovError):
    """Data cannot be read or is not what it must be."""

    code = "D000"
    exit_code = 3
    findings: tuple[Finding, ...]


class SeparationError(MedisynthGovError):
    """Training and held-out test set are not kept apart."""

    exit_code = 4


class LeakageError(SeparationError):
    """A patient or an image is on both sides of a split."""

    code = "L000"


class IsolationError(SeparationError):
    """Isolation of the held-out test set is broken or cannot be shown."""

    code = "G020"


class IntegrityError(MedisynthGovError):
    """A file is missing, damaged or not the one on record."""

    exit_code = 5


class WeightsError(IntegrityError):
    """Weights are missing, damaged or not the ones that were pinned."""

    code = "W000"


class EvidenceError(IntegrityError):
    """Evidence is missing, unreadable or contradicts itself."""

    code = "G030"


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


class NotRunError(EvidenceError):
    """A run has no document of the kind that is asked for, or an empty one.

    Attributes:
        absence: Why; the reason that a check gives.
    """

    code = "G033"

    def __init__(self, absence: str, sentence: str = "") -> None:
        self.absence = absence
        super().__init__(sentence or absence)


class SealError(EvidenceError):
    """The sealed test set differs from what was sealed, or may not be opened."""

    code = "G032"


class TrackingError(MedisynthGovError):
    """The tracking store cannot be used."""

    code = "S000"
    exit_code = 6


class MachineError(MedisynthGovError):
    """The machine lacks something that is needed, or ended a process of ours."""

    code = "X000"
    exit_code = 7


class ResourceError(MachineError):
    """The machine lacks memory, disk, a network or a device."""

    code = "R000"


class RecordWriteError(MachineError):
    """A record cannot be written: disk full, read-only folder, missing permission."""

    code = "G040"


class SigningKeyError(MachineError):
    """A signing key cannot be read, made or used."""

    code = "G041"


class TimeStampError(MachineError):
    """A time-stamp authority cannot be reached, or its answer is no time-stamp of the manifest."""

    code = "G043"


class TrainingError(MedisynthGovError):
    """Training produced non-finite values, diverged or collapsed."""

    code = "T000"
    exit_code = 8


class UnfinishedError(MedisynthGovError):
    """A value cannot be computed, or a run may not be promoted."""

    exit_code = 9


class MetricUndefinedError(UnfinishedError):
    """A metric has no value for this input, e.g. fewer than two images."""

    code = "E000"


class PromotionError(UnfinishedError):
    """A run may not be promoted; findings are open gate items or files that do not fit."""

    code = "P010"


class ProcessError(MedisynthGovError):
    """A generator or its process failed; an error of the process keeps its code and exit code."""

    code = "T901"


class InterruptedByUser(MedisynthGovError):  # noqa: N818 - a request, not a fault
    """A stop signal was received and obeyed between two pieces of work.

    The exit code is 128 and the number of the signal: 130 for SIGINT.
    """

    code = "I000"
    exit_code = 130

    def __init__(self, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name}", exit_code=128 + signal_number
        )


_LONGEST_NAME = 160
_PERMISSION = "check the permissions of it and of the folders above it"
_SYSTEM = {  # refusals of the system that no command of ours can cause by itself -> what to do
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "choose a folder that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file, give a folder",
    errno.ELOOP: "its links lead in a circle, mend them",
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "choose a file system that takes larger files",
    errno.EIO: "the disk or its connection fails, see the system's log",
    errno.ESTALE: "mount the file system again",
    errno.ETIMEDOUT: "see whether the file system or server answers",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "end other programs, the system has too many open files",
    errno.ENOMEM: "end other programs, or use a machine with more memory",
    errno.EAGAIN: "allow more processes (ulimit -u), or end other programs",
}


def first_line(said: object, most: int = 200) -> str:
    """Return the first line of another program's message; a long one is cut between two words."""
    text = " ".join((str(said).strip().splitlines() or [""])[0].split())
    if len(text) <= most:
        return text
    return f"{text[:most].rpartition(' ')[0] or text[:most]} …"


@contextmanager
def refusals_named() -> Iterator[None]:
    """Raise as an error of ours what the system refuses in the block, e.g. a permission.

    A missing file is not among it: where a name was given, it is known what was expected there.

    Raises:
        MachineError: The system refused something.
        ConfigError: A path begins with the name of an unknown user.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        known = _refusal(error)
        if known is None:
            raise
        raise known from error


def _refusal(error: OSError | RuntimeError) -> MedisynthGovError | None:
    """Return the error of ours for what the system refused; None if it is a fault of our own."""
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # by pathlib
        return ConfigError("a path that begins with ~ names no user with a home; write it out")
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # by pathlib
        return MachineError(f"{str(error)[:1].lower()}{str(error)[1:]}; mend these links")
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or str(error)
    if error.filename is None and "temporary directory" in reason:  # by tempfile
        return MachineError("no temporary folder can be written; name one with TMPDIR")
    if error.errno == errno.ENOENT and error.filename is None:
        return MachineError("the current folder was removed; go to one that exists")
    if error.errno not in _SYSTEM:
        return None
    if error.filename is None:
        return MachineError(f"a file or the output: {reason}; {_SYSTEM[error.errno]}")
    name = str(error.filename)
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME // 2]}…{name[-_LONGEST_NAME // 2 :]}"
    return MachineError(f"{name}: {reason}; {_SYSTEM[error.errno]}")
