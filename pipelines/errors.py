"""The exceptions of the pipelines package, in one tree.

PipelineError
├── ConfigError      2    a key or value of the configuration cannot be used
│   └── DeclarationsError   a declarations file cannot be read or used
├── TrackingError    6    the tracking store cannot be used
├── PromotionError   9    a run may not be promoted; 5 when it does not verify
├── MachineError     7    disk, permission, memory or a process that the system ended
├── ProcessError     n    what the training process reported, with its own code
└── InterruptedByUser 128 + signal
"""

import signal


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
