"""Promotes a run's model after verifying the run; refuses while the rule of the stage is not met.

A candidate needs the gate. A release needs besides: no core item failed, images better than simple
controls, a declared intended use, a signature, a named person and a reason.

Only a promotion moves an alias. The record is the workspace's promotions.jsonl; the alias in
MLflow follows it, at once or with the next `sync`.
"""

import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from governance.evidence.folder import RunFolder
from governance.people.rules import is_placeholder
from governance.records.base import ItemClass, ItemStatus
from governance.records.credentials import has_credentials
from governance.records.errors import ConfigError, EvidenceError, PromotionError, first_line
from governance.records.item import ItemRecord
from governance.records.people import SigningRecord
from governance.records.rollup import GateLine, RollUp
from governance.records.run import Outcome
from governance.verdict.boxes import BETTER_THAN_CONTROLS, INTENDED_USE
from governance.verdict.rollup import waiver_words
from governance.verdict.sentence import short_title
from pipelines.finished_runs.promotions import (
    Promotion,
    append_promotion,
    holder,
    read_promotions,
    version_of,
)
from pipelines.finished_runs.published_cards import (
    CARD,
    card_folder,
    publish_card,
    refuse_other_card,
)
from pipelines.finished_runs.sync import Synced, mark, sync_run
from pipelines.finished_runs.verify import verify_all

STAGES = ("candidate", "released")
CARDS = "model_cards"
_UNVERIFIED = 5
_MAX_TEXT = 2_000


@dataclass(frozen=True)
class Request:
    """A request to promote a model.

    Attributes:
        to: "candidate" or "released".
        by: Who promotes. Default: the user of the system.
        reason: Why.
        accept_waivers: Whether gate items that a person waived may stand; needs a reason.
    """

    to: str
    by: str | None = None
    reason: str = ""
    accept_waivers: bool = False


@dataclass(frozen=True)
class Promoted:
    """Result of a promotion.

    Attributes:
        promotion: The line in promotions.jsonl.
        is_new: Whether it was written now; False if the run held the stage already.
        card: Published model card; None for a candidate.
        mirror: Whether the alias was moved.
    """

    promotion: Promotion
    is_new: bool
    card: Path | None
    mirror: Synced


def promote(run_dir: Path, request: Request, say: Callable[[str], None]) -> Promoted:
    """Verify a run and promote its model.

    Args:
        run_dir: The run folder; its workspace is the folder above runs/.
        request: Stage, person and reason.
        say: Where warnings go.

    Raises:
        ConfigError: It is no finished run, or the request is not complete.
        PromotionError: The run does not verify (exit 5), or something that the stage needs is
            open (exit 9); every such thing is a finding.
        EvidenceError: promotions.jsonl is damaged, or another card lies where this one belongs.
        RecordWriteError: The workspace cannot be written.
    """
    _check(request)
    run = RunFolder.finished(run_dir)
    verified = verify_all(run_dir)
    if verified.faults:
        raise PromotionError(
            f"{run_dir.name}: does not verify, so it is not promoted; restore the run folder",
            findings=verified.faults,
            exit_code=_UNVERIFIED,
        )
    earlier = read_promotions(run.workspace)
    _refuse_other_evidence(run, earlier)
    waived = _accepted_waivers(run, request, datetime.now(UTC).date())
    model = card_folder(run)
    held = holder(earlier, model, request.to)
    promotion, is_new = held, False
    if promotion is None or promotion.run_id != run.identity.run_id:
        if request.to == "released":
            version = version_of(earlier, run.identity.run_id, model)
            refuse_other_card(_card_path(run, model, version), run.read(CARD) or b"", run)
        promotion, is_new = _append(run, model, request, waived), True
    card = _publish(run, promotion) if request.to == "released" else None
    mark(run.workspace, run_dir.name, f"promoted to {request.to}")
    return Promoted(promotion, is_new, card, _move_alias(run_dir, say))


def _check(request: Request) -> None:
    if request.to not in STAGES:
        raise ConfigError(f"--to: {request.to[:80]!r}; expected {' or '.join(STAGES)}")
    for name, text in (("--by", request.by), ("--reason", request.reason or None)):
        if text is not None and has_credentials(text):
            raise ConfigError(
                f"{name}: no user name, password or token in an address: promotions are kept for "
                "ever; leave it out"
            )
        if text is not None and (is_placeholder(text) or len(text) > _MAX_TEXT):
            raise ConfigError(
                f"{name}: {text[:80]!r} says nothing, or is longer than {_MAX_TEXT:,} characters; "
                "write it out"
            )
    if request.accept_waivers and not request.reason.strip():
        raise ConfigError("--accept-waivers: needs --reason; say why the waived items may stand")


def _refuse_other_evidence(run: RunFolder, earlier: tuple[Promotion, ...]) -> None:
    """Refuse a run whose evidence root changed since an earlier promotion.

    A run folder that was rewritten consistently still verifies; only the kept root shows it.
    """
    for line in earlier:
        now = run.manifest.evidence_root
        if line.run_id == run.identity.run_id and line.evidence_root != now:
            raise PromotionError(
                f"{run.path.name}: promoted on {line.time_utc} with evidence root "
                f"{line.evidence_root[:12]}, now it is {now[:12]}; restore the run folder",
                exit_code=_UNVERIFIED,
            )


def _accepted_waivers(run: RunFolder, request: Request, today: date) -> tuple[str, ...]:
    """Return the waived items that are accepted; PromotionError if anything stands open."""
    rollup = run.need(RollUp)
    waivers = _Waivers(rollup, request, today)
    open_items = _open_in_gate(run, rollup, waivers)
    if open_items or rollup.exit_code:
        raise PromotionError(
            f"{run.path.name}: not promoted to {request.to}, the gate is open at "
            f"{len(open_items):,} places; mend them and run anew",
            findings=tuple(open_items),
        )
    if request.to == "released":
        open_items = _open_for_release(run, request, waivers)
        if open_items:
            raise PromotionError(
                f"{run.path.name}: not released, {len(open_items):,} "
                f"{'condition is' if len(open_items) == 1 else 'conditions are'} not met beyond the "
                "gate; see docs/runs.md for each",
                findings=tuple(open_items),
            )
    return tuple(waivers.accepted)


class _Waivers:
    """The waivers of a run that hold on a day, and which of them were accepted so far."""

    def __init__(self, rollup: RollUp, request: Request, today: date) -> None:
        in_force = (line for line in rollup.waivers if line.state == "in force")
        self._lines = {line.item_id: line for line in in_force}
        self._is_accepting, self._today = request.accept_waivers, today
        self.accepted: list[str] = []

    def open_because(self, item_id: str) -> str | None:
        """Return why an item that is not met stands open: "" without a waiver, None if accepted."""
        line = self._lines.get(item_id)
        if line is None:
            return ""
        words = waiver_words(line)
        if line.expires < self._today:
            return f"{words}; the waiver has expired"
        if not self._is_accepting:
            return f"{words}; accept with --accept-waivers"
        self.accepted.append(f"{item_id}: {words}")
        return None


def _open_in_gate(run: RunFolder, rollup: RollUp, waivers: _Waivers) -> list[str]:
    """List what keeps a run from any stage: it did not finish, or a gate item is open."""
    found = []
    outcome = run.need(Outcome)
    if outcome.status != "finished":
        where = f" at {outcome.stopped_at}" if outcome.stopped_at else ""
        found.append(f"the run was {outcome.status}{where}: {first_line(outcome.message)}")
    for line in rollup.gate_items:
        if line.exit_code:
            found.append(_words(line, line.reason))
        elif line.waiver and (why := waivers.open_because(line.item_id)) is not None:
            found.append(_words(line, why))
    return found


def _open_for_release(run: RunFolder, request: Request, waivers: _Waivers) -> list[str]:
    """List what a release needs beyond the gate and does not have."""
    records = run.records()
    found = [
        _record_words(record, why)
        for record in records.values()
        if record.item_class is ItemClass.CORE
        and record.status is ItemStatus.FAILED
        and (why := waivers.open_because(record.id)) is not None
    ]
    beaten, intended = records.get(BETTER_THAN_CONTROLS), records.get(INTENDED_USE)
    if beaten is None or beaten.status not in (ItemStatus.PASSED, ItemStatus.FAILED):
        status = "not on record" if beaten is None else f"{beaten.status.value}; {beaten.reason}"
        found.append(
            f"{BETTER_THAN_CONTROLS} the images must be better than simple controls: {status}"
        )
    if intended is None or intended.status is not ItemStatus.DECLARED:
        found.append(f"{INTENDED_USE} intended use: not declared")
    signing = run.get(SigningRecord)
    if signing is None or signing.key_id is None:
        found.append("signature: the run is not signed; run anew with signing.key")
    if request.by is None:
        found.append("a named person: give --by NAME")
    if not request.reason.strip():
        found.append("a reason: give --reason TEXT")
    return found


def _record_words(record: ItemRecord, why: str) -> str:
    waived = f"; {why}" if why else ""
    return (
        f"{record.id} {short_title(record.title)}: core item {record.status.value}; "
        f"{record.reason}{waived}"
    )


def _words(line: GateLine, why: str) -> str:
    return f"{line.item_id} {short_title(line.title)}: {line.status.value}; {why}"


def _append(run: RunFolder, model: str, request: Request, waived: tuple[str, ...]) -> Promotion:
    return append_promotion(
        run.workspace,
        run.identity.run_id,
        model=model,
        to=request.to,
        facts={
            "by": request.by or _user(),
            "by_is": "as named" if request.by else "user of the system",
            "reason": request.reason.strip(),
            "evidence_root": run.manifest.evidence_root,
            "journal_head": run.manifest.journal_head,
            "journal_events": run.manifest.journal_events,
            "gate": run.need(RollUp).gate.value,
            "accepted_waivers": list(waived),
        },
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"


def _card_path(run: RunFolder, model: str, version: int) -> Path:
    return run.workspace / CARDS / model / f"{version}.md"


def _publish(run: RunFolder, promotion: Promotion) -> Path:
    """Copy the run's card unchanged to the released cards; return its path."""
    path = _card_path(run, promotion.model, promotion.version)
    publish_card(path, run.read(CARD) or b"", run)
    return path


def _move_alias(run_dir: Path, say: Callable[[str], None]) -> Synced:
    """Move the alias in MLflow; on failure the promotion stands and the alias waits."""
    try:
        return sync_run(run_dir, say)
    except (ConfigError, EvidenceError) as error:
        return Synced(run_dir.name, "waiting", str(error))
