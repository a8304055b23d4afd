"""s7 evidence: outcome, items, trace, roll-up and manifest, from the documents of the run folder."""

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
from governance.reports.card.check import check_card
from governance.reports.evidence import draft_evidence
from governance.sealing.seal import remove_vault
from governance.verdict.rollup import roll_up, waiver_lines
from pipelines.current_run.context import RunContext
from pipelines.current_run.identity import environment, installed_packages, tool_version
from pipelines.current_run.software import write_bill_of_materials
from pipelines.finished_runs.lineage import write_lineage

# Judged from the draft of card and report, which needs all the others.
_OF_THE_DRAFT = ("P9-01", "P9-02", "P9-04", "P9-06", "P9-08")


def run(outcome: Outcome, context: RunContext) -> RollUp:
    """Judge every item of the policy, close the evidence and write the manifest.

    Works for any run: what a stopped run did not reach is `not evaluated`, with the reason. Card
    and report are drafted here from what the items say so far, and looked at: what is found
    decides the items on card and report, and only then is the evidence closed.
    """
    store = context.store
    _write_software(store)
    _end_vault(outcome, context)
    store.write_document(outcome)
    signing = SigningRecord() if context.signer is None else context.signer.record
    asked = {"timestamp_url": context.config.signing.timestamp_url}
    store.write_document(signing.model_copy(update=asked))
    write_lineage(context)
    integrity = store.recheck()
    store.write_document(integrity)
    # What was changed behind the record is judged as it is: the integrity record names it.
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
    """Put on record what the run ran on, and the bill of materials of it."""
    kinds = (RunIdentity, TrainingRecord, EvaluationRecord)
    # A file that was changed since is named when the run is judged; it must not prevent that.
    folder = RunFolder.open(store, as_found=[kind.PATH for kind in kinds])
    installed, training = installed_packages(), folder.get(TrainingRecord)
    device = training.compute_device if training else "none: nothing was trained"
    store.write_document(environment(device, installed))
    parts = (training, folder.get(EvaluationRecord))
    pretrained = [component for part in parts if part for component in part.pretrained]
    write_bill_of_materials(folder.identity, installed, pretrained, store)


@dataclass(frozen=True)
class _Judge:
    """What items and roll-up are judged from."""

    folder: RunFolder
    outcome: Outcome
    now: datetime
    context: RunContext

    def records(self, only: Collection[str] | None = None) -> tuple[ItemRecord, ...]:
        """Records of all items, or of some."""
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
        """The records in their order, some of them judged anew."""
        decided = {record.id: record for record in self.records(only)}
        return tuple(decided.get(record.id, record) for record in records)

    def knowing(self, document: Document) -> "_Judge":
        """A judge who has this document, too."""
        return replace(self, folder=self.folder.knowing(document))

    def roll_up(self, records: tuple[ItemRecord, ...]) -> RollUp:
        """Statuses and gate of the whole run."""
        policy, run = self.context.policy, JudgedRun(self.folder, self.now)
        waivers = waiver_lines(policy, records, run.get(Declarations), run.facts, self.now.date())
        return roll_up(policy, records, self.outcome, waivers=waivers)


def _check_draft(judge: _Judge, records: tuple[ItemRecord, ...]) -> CardCheck | None:
    """Look at card and report as they would be if the evidence closed now; None if it cannot be.

    Evidence that is damaged must still be closed, so that the report can say so.
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
    """The files on record as they are now, as the manifest will list them."""
    folder = judge.folder.path
    return tuple(
        ManifestFile(path=path, n_bytes=(folder / path).stat().st_size, sha256=sha256)
        for path, sha256 in sorted(judge.folder.digests.items())
    )


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
