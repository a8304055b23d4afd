"""s7 evidence: judges all items, writes trace and roll-up, and closes the evidence."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import judge_items
from governance.checks.trace import TRACED, trace
from governance.evidence.folder import RunFolder
from governance.evidence.manifest import close_evidence, evidence_root, read_manifest
from governance.evidence.store import EvidenceStore
from governance.records.base import Document
from governance.records.errors import EvidenceError, RecordWriteError
from governance.records.evaluation import EvaluationRecord
from governance.records.item import CardCheck, ItemRecord
from governance.records.manifest import Manifest, ManifestFile
from governance.records.people import Declarations, SigningRecord
from governance.records.rollup import RollUp
from governance.records.run import Outcome, RunIdentity
from governance.records.training import TrainingRecord
from governance.reports.audit_report import renderer
from governance.reports.card.check import check_card
from governance.reports.evidence import draft_evidence
from governance.sealing.seal import remove_vault
from governance.verdict.rollup import roll_up, waiver_lines
from pipelines.current_run.context import RunContext, figures_on_record, isolation_on_record
from pipelines.current_run.identity import environment, installed_packages, tool_version
from pipelines.current_run.software import write_bill_of_materials
from pipelines.finished_runs.lineage import write_lineage
from pipelines.steps.boundaries import boundary_checks

# Items judged from the draft of card and report, after all the others.
_OF_THE_DRAFT = ("P9-01", "P9-02", "P9-04", "P9-06", "P9-08")


def run(outcome: Outcome, context: RunContext) -> RollUp:
    """Judge every item of the policy, close the evidence and write the manifest.

    Works for any run: items that a stopped run did not reach are `not evaluated`, with the reason.
    Card and report are drafted from the other items and checked; that check decides the items on
    card and report, and only then is the evidence closed.
    """
    store = context.store
    _write_software(store)
    _end_vault(outcome, context)
    store.write_document(outcome)
    signing = SigningRecord() if context.signer is None else context.signer.record
    asked = {"timestamp_url": context.config.signing.timestamp_url}
    store.write_document(signing.model_copy(update=asked))
    for accumulated in (
        boundary_checks(store.journal),
        figures_on_record(store.journal),
        isolation_on_record(store.journal),
    ):
        if accumulated is not None:
            store.write_document(accumulated)
    write_lineage(context)
    integrity = store.recheck()
    store.write_document(integrity)
    # Files changed after recording are judged as they are; the integrity record names them.
    folder = RunFolder.open(store, as_found=integrity.mismatches)
    judge = _Judge(folder, outcome, datetime.now(UTC), context)
    records = judge.records()
    found = _check_draft(judge, records)
    if found is not None:
        store.write_document(found)
        judge = judge.knowing(found)
        records = judge.again(records, _OF_THE_DRAFT)
    others = tuple(record for record in records if record.id != TRACED)
    store.write_records(others)
    table = trace(context.policy, others, judge.folder, store.artifacts())
    store.write_document(table)
    judge = judge.knowing(table)
    records = judge.again(records, (TRACED,))
    store.write_records(tuple(record for record in records if record.id == TRACED))
    rollup = judge.roll_up(records)
    store.write_document(rollup)
    close_evidence(
        store.run_dir,
        run_id=store.run_id,
        tool_version=tool_version(),
        journal=store.journal,
        previous_run=_previous_root(store.run_dir),
        now=judge.now,
    )
    return rollup


def _write_software(store: EvidenceStore) -> None:
    """Write the environment and the bill of materials."""
    kinds = (RunIdentity, TrainingRecord, EvaluationRecord)
    # A changed file must not stop this step: it is named when the run is judged.
    folder = RunFolder.open(store, as_found=[kind.PATH for kind in kinds])
    installed, training = installed_packages(), folder.get(TrainingRecord)
    device = training.compute_device if training else "none: nothing was trained"
    store.write_document(environment(device, installed, renderer()))
    parts = (training, folder.get(EvaluationRecord))
    pretrained = [component for part in parts if part for component in part.pretrained]
    write_bill_of_materials(folder.identity, installed, pretrained, store)


@dataclass(frozen=True)
class _Judge:
    """Judges items and roll-up from the documents of one run folder."""

    folder: RunFolder
    outcome: Outcome
    now: datetime
    context: RunContext

    def records(self, only: Collection[str] | None = None) -> tuple[ItemRecord, ...]:
        """Judge all items, or those in `only`; return their records."""
        return judge_items(
            self.context.policy,
            self.folder,
            now=self.now,
            artifacts=self.context.store.artifacts(),
            only=only,
        )

    def again(
        self, records: tuple[ItemRecord, ...], only: Collection[str]
    ) -> tuple[ItemRecord, ...]:
        """Judge the items in `only` anew; return all records in the same order."""
        decided = {record.id: record for record in self.records(only)}
        return tuple(decided.get(record.id, record) for record in records)

    def knowing(self, document: Document) -> "_Judge":
        """Return a judge that also has this document."""
        return replace(self, folder=self.folder.knowing(document))

    def roll_up(self, records: tuple[ItemRecord, ...]) -> RollUp:
        """Return statuses and gate of the whole run."""
        policy, run = self.context.policy, JudgedRun(self.folder, self.now)
        waivers = waiver_lines(policy, records, run.get(Declarations), run.facts, self.now.date())
        return roll_up(policy, records, self.outcome, waivers=waivers)


def _check_draft(judge: _Judge, records: tuple[ItemRecord, ...]) -> CardCheck | None:
    """Check card and report as they would be if the evidence closed now.

    Returns None, with a warning, if the evidence is damaged: it must still be closed, so that the
    report can say so.
    """
    store, policy = judge.context.store, judge.context.policy
    files = _files(judge)
    manifest = Manifest(
        run_id=store.run_id,
        tool_version=tool_version(),
        created_utc=judge.now,
        evidence=files,
        evidence_root=evidence_root(files),
        journal_events=store.journal.n_events,
        journal_head=store.journal.head,
        previous_run=_previous_root(store.run_dir),
    )
    summary = judge.roll_up(records)
    try:
        return check_card(
            draft_evidence(judge.folder, manifest, summary=summary, records=records, policy=policy)
        )
    except EvidenceError as error:
        judge.context.console.warn(f"card and report were not drafted: {error}")
        return None


def _files(judge: _Judge) -> tuple[ManifestFile, ...]:
    """Return the recorded files as they are now, in the form of the manifest."""
    folder = judge.folder.path
    return tuple(
        ManifestFile(path=path, n_bytes=(folder / path).stat().st_size, sha256=sha256)
        for path, sha256 in sorted(judge.folder.digests.items())
    )


def _end_vault(outcome: Outcome, context: RunContext) -> None:
    """Remove vault and key, unless the run can be resumed.

    A run can be resumed if it failed or was interrupted after its data were split.
    """
    is_split = any(s.step == "s4_split" and s.status == "finished" for s in outcome.steps)
    may_go_on = outcome.status in ("failed", "interrupted") and is_split
    if may_go_on:
        return
    try:
        if remove_vault(context.store, context.vault):
            context.console.say("removed the encrypted test images of this run and their key")
    except RecordWriteError as error:
        context.console.warn(f"encrypted test images stay: {error}")  # the report matters more


def _previous_root(run_dir: Path) -> str | None:
    """Return the evidence root of the latest earlier run with a manifest in the workspace."""
    for earlier in sorted(run_dir.parent.iterdir(), reverse=True):
        if earlier.name < run_dir.name and (earlier / "manifest.json").is_file():
            try:
                return read_manifest(earlier).evidence_root
            except EvidenceError:
                continue
    return None
