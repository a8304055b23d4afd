"""The roll-up as a run's summary records it: principles, gate and exit code."""

from governance.records.base import Document, Gate, ItemStatus, PrincipleStatus
from governance.records.people import WaiverLine

EXIT_CODES_WORST_FIRST = (5, 4, 3, 9, 0)
"""Tampering, leakage, data, any other gate item that has not passed, all passed."""


class GateLine(Document):
    """One gate item and its status.

    Attributes:
        exit_code: Exit code that it brings; 0 when it passed or is waived.
        waiver: Who waived it, until when and why; "" when nobody did.
    """

    item_id: str
    title: str
    status: ItemStatus
    exit_code: int
    reason: str
    waiver: str = ""


class PrincipleLine(Document):
    """One principle, its status and its counts.

    Attributes:
        n_passed / n_computed: "verified by this run a/b".
        n_declared / n_human: "declared c/d".
        gaps: Items that are failed, missing or not evaluated, core items first.
    """

    id: str
    title_2021: str
    title_n88: str
    status: PrincipleStatus
    n_passed: int
    n_computed: int
    n_declared: int
    n_human: int
    n_missing: int
    n_not_evaluated: int
    n_failed: int
    n_recorded: int
    n_not_applicable: int
    gaps: tuple[str, ...]


class RollUp(Document):
    """Statuses and gate of the whole run (summary.json)."""

    PATH = "summary.json"
    ABSENCE = "the evidence step did not run to its end"

    policy: str
    policy_version: str
    gate: Gate
    exit_code: int
    verdict: str  # one sentence for page 1
    gate_items: tuple[GateLine, ...]
    principles: tuple[PrincipleLine, ...]
    waivers: tuple[WaiverLine, ...] = ()
