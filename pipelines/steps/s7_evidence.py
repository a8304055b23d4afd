"""s7 evidence: outcome, items, trace, roll-up and manifest, from the documents of the run folder."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from governance.audits.checks import Documents, evaluate
from governance.audits.rollup import roll_up, waiver_lines
from governance.audits.trace import TRACED, trace
from governance.errors import EvidenceError, RecordWriteError
from governance.evidence.documents import Manifest, Outcome, RollUp, SigningRecord
from governance.evidence.manifest import close_evidence, read_manifest
from governance.evidence.record import ItemRecord
from governance.files import sha256_file
from governance.isolation.seal import remove_vault
from pipelines.context import RunContext


def run(outcome: Outcome, tool_version: str, context: RunContext) -> tuple[RollUp, Manifest]:
    """Judge every item of the policy, close the evidence and write the manifest.

    Works for any run: what a stopped run did not reach is `not evaluated`, with the reason.
    """
    store = context.store
    _end_vault(outcome, context)
    store.write_document("outcome.json", outcome)
    signing = SigningRecord() if context.signer is None else context.signer.record
    asked = {"timestamp_url": context.config.signing.timestamp_url}
    store.write_document("signing.json", signing.model_copy(update=asked))
    store.write_document("integrity.json", store.recheck())
    documents = Documents.load(store.run_dir)
    now = datetime.now(UTC)
    records = _judged(documents, now, context)
    waivers = waiver_lines(
        context.policy, records, documents.declarations, documents.facts, now.date()
    )
    rollup = roll_up(context.policy, records, outcome, waivers=waivers)
    store.write_document("summary.json", rollup)
    manifest = close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version=tool_version,
        journal=store.journal,
        previous_run=_previous_root(store.run_dir),
        now=now,
    )
    return rollup, manifest


def _judged(documents: Documents, now: datetime, context: RunContext) -> tuple[ItemRecord, ...]:
    """Judge and record every item; the one on the trace table last, from the table of the rest."""
    store, policy = context.store, context.policy
    plan = store.run_dir / "plan.json"
    plan_sha256 = sha256_file(plan) if plan.exists() else None

    def judged(documents: Documents, only: Collection[str]) -> tuple[ItemRecord, ...]:
        artifacts = store.artifacts()
        records = evaluate(
            policy, documents, plan_sha256=plan_sha256, now=now, artifacts=artifacts, only=only
        )
        store.write_records(records)
        return records

    order = [item.id for item in policy.items]
    records = judged(documents, {*order} - {TRACED})
    table = trace(policy, records, documents, store.artifacts())
    store.write_document("trace.json", table)
    records += judged(replace(documents, trace=table), {TRACED})
    return tuple(sorted(records, key=lambda record: order.index(record.id)))


def _end_vault(outcome: Outcome, context: RunContext) -> None:
    """Remove vault and key of a run that cannot open its test set again.

    A run that failed or was stopped after its data were split may go on: it keeps them.
    """
    is_split = any(s.step == "s4_split" and s.status == "finished" for s in outcome.steps)
    may_go_on = outcome.status in ("failed", "interrupted") and is_split
    if may_go_on:
        return
    try:
        if remove_vault(context.store, context.vault):
            context.console.say("removed the encrypted test images of this run and their key")
    except RecordWriteError as error:
        context.console.warn(f"encrypted test images stay: {error}")  # a report is worth more


def _previous_root(run_dir: Path) -> str | None:
    """Evidence root of the latest earlier run in the same workspace that has a manifest."""
    for earlier in sorted(run_dir.parent.iterdir(), reverse=True):
        if earlier.name < run_dir.name and (earlier / "manifest.json").is_file():
            try:
                return read_manifest(earlier).evidence_root
            except EvidenceError:
                continue
    return None
