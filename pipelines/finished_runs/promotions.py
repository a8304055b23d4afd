"""The promotions of a workspace (promotions.jsonl): an append-only chain, never in a run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.evidence.chain import Chain, JournalEvent, make_empty
from pipelines.current_run.identity import tool_version

PROMOTIONS = "promotions.jsonl"
PROMOTED = "model promoted"
NOT_PROMOTED = "none"


@dataclass(frozen=True)
class Promotion:
    """One line of the file.

    Attributes:
        run_id: Run whose model was promoted.
        model: Name of the model.
        version: Version of the model: the same for every promotion of one run.
        came_from: Stage that the run was last promoted to; "none" for its first promotion.
        to: Stage that it was promoted to.
        by: Who promoted it.
        reason: Why; empty when nothing was said.
        evidence_root: Root of the run's evidence, as verified then.
        replaces: Run that held the stage before; empty when none did.
        time_utc: When.
        accepted_waivers: Items that a waiver was accepted for, with its words.
    """

    run_id: str
    model: str
    version: int
    came_from: str
    to: str
    by: str
    reason: str
    evidence_root: str
    replaces: str
    time_utc: str
    accepted_waivers: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The stage, since when, by whom and why, with every waiver that it stands on."""
        why = f": {self.reason}" if self.reason else ", no reason given"
        waived = "; ".join(self.accepted_waivers)
        return (
            f"{self.to} as {self.model} version {self.version}, {self.time_utc}, by {self.by}{why}"
            + (f"; stands on waivers: {waived}" if waived else "")
        )


def read_promotions(workspace: Path) -> tuple[Promotion, ...]:
    """Return all promotions, first to last.

    Raises:
        EvidenceError: The chain is broken.
        RecordWriteError: The file cannot be opened.
    """
    path = workspace / PROMOTIONS
    if not path.exists():
        return ()
    return _promotions(Chain(path, one_run=False).read())


def holder(promotions: Sequence[Promotion], model: str, stage: str) -> Promotion | None:
    """Return the latest promotion of a model to a stage; None when there is none."""
    found = [line for line in promotions if (line.model, line.to) == (model, stage)]
    return found[-1] if found else None


def version_of(promotions: Sequence[Promotion], run_id: str, model: str) -> int:
    """Return the version of a run's model, or the one its first promotion would get."""
    own = [line.version for line in promotions if line.run_id == run_id]
    versions = (line.version for line in promotions if line.model == model)
    return own[-1] if own else max(versions, default=0) + 1


def aliases_of(workspace: Path, run_id: str) -> tuple[Promotion, ...]:
    """Return a run's promotions whose stage it still holds; errors as in `read_promotions`."""
    promotions = read_promotions(workspace)
    held = {(line.model, line.to): line for line in promotions}
    return tuple(line for line in held.values() if line.run_id == run_id)


def append_promotion(
    workspace: Path, run_id: str, *, model: str, to: str, facts: Mapping[str, Any]
) -> Promotion:
    """Append one promotion; it is on disk when this returns.

    Args:
        workspace: Folder of the file.
        run_id: Run whose model is promoted.
        model: Name of the model.
        to: Stage that it is promoted to.
        facts: Further fields: by whom, why, evidence root and more.

    Raises:
        EvidenceError: The chain is broken.
        RecordWriteError: The file cannot be written.
    """
    path = workspace / PROMOTIONS
    make_empty(path, exist_ok=True)

    def body(events: Sequence[JournalEvent]) -> dict[str, Any]:
        # Counted under the file's lock: two promotions never get one version.
        earlier = _promotions(events)
        own = [line for line in earlier if line.run_id == run_id]
        held = holder(earlier, model, to)
        return {
            **facts,
            "model": model,
            "version": version_of(earlier, run_id, model),
            "from": own[-1].to if own else NOT_PROMOTED,
            "to": to,
            "replaces": held.run_id if held else "",
        }

    chain = Chain(path, one_run=False)
    return _promotion(chain.append(PROMOTED, body, run=run_id, version=tool_version()))


def _promotions(events: Sequence[JournalEvent]) -> tuple[Promotion, ...]:
    return tuple(_promotion(event) for event in events if event.type == PROMOTED)


def _promotion(event: JournalEvent) -> Promotion:
    body = event.body
    return Promotion(
        run_id=event.run,
        model=str(body["model"]),
        version=int(body["version"]),
        came_from=str(body["from"]),
        to=str(body["to"]),
        by=str(body["by"]),
        reason=str(body["reason"]),
        evidence_root=str(body["evidence_root"]),
        replaces=str(body["replaces"]),
        time_utc=event.time_utc,
        accepted_waivers=tuple(map(str, body.get("accepted_waivers", ()))),
    )
