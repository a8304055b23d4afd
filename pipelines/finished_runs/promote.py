"""Promotes a run's model after verifying the run; refuses while a gate item is open.

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
from governance.records.errors import ConfigError, EvidenceError, PromotionError
from governance.records.rollup import GateLine, RollUp
from governance.records.run import Outcome
from governance.verdict.rollup import short_title
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
        PromotionError: The run does not verify (exit 5), or a gate item is open (exit 9).
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
    """Return the waived gate items that are accepted; PromotionError if any item is open."""
    rollup = run.need(RollUp)
    expires = {w.item_id: w.expires for w in rollup.waivers if w.state == "in force"}
    open_items, waived = [], []
    for line in rollup.gate_items:
        if line.exit_code:
            open_items.append(_words(line, line.reason))
        elif line.waiver and expires.get(line.item_id, today) < today:
            open_items.append(_words(line, f"{line.waiver}; the waiver has expired"))
        elif line.waiver and not request.accept_waivers:
            open_items.append(_words(line, f"{line.waiver}; accept with --accept-waivers"))
        elif line.waiver:
            waived.append(f"{line.item_id}: {line.waiver}")
    outcome = run.need(Outcome)
    if outcome.status != "finished":
        where = f" at {outcome.stopped_at}" if outcome.stopped_at else ""
        open_items.insert(0, f"the run was {outcome.status}{where}: {outcome.message[:200]}")
    if open_items or rollup.exit_code:
        raise PromotionError(
            f"{run.path.name}: not promoted to {request.to}, the gate is open at "
            f"{len(open_items):,} places; mend them and run anew",
            findings=tuple(open_items),
        )
    return tuple(waived)


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
