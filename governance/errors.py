"""The exceptions of the governance package, in one tree.

    GovernanceError
    ├── PolicyError            2  a policy file is not usable
    ├── IsolationError         4  the test set is not, or would not stay, out of reach
    ├── EvidenceError          5  evidence is missing, damaged or not the evidence that was written
    │   ├── EvidenceTamperedError
    │   └── SealError
    ├── RecordWriteError       7  the run folder cannot be written
    ├── SigningKeyError        7  a signing key cannot be used
    ├── TimeStampError         7  a time-stamp authority gave no usable answer
    └── AnchorError            2  what a run is to be compared with is no key or digest

A failed check is a result, not an exception: an exception means that there is no verdict.
Each class carries the `code` printed in `error[CODE]` and the `exit_code` of the command line.
"""

from pathlib import Path


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
