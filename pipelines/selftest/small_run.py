"""A small run: the steps of a run, one at a time, on simulated patients."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from governance.audits.checks import Documents, evaluate
from governance.evidence.documents import GuardAnswer
from governance.evidence.manifest import close_evidence
from governance.evidence.record import ItemRecord
from governance.statuses import ItemStatus
from medisynth.data.views import ImageView, Pixels
from medisynth.metrics.controls import control_images
from pipelines.context import AuditedImages, ImageSet, RunContext, SplitImages, TrainedGenerator
from pipelines.identity import tool_version
from pipelines.selftest.plants import Answers
from pipelines.steps import s1_ingest, s3_audit, s4_split, s5_train, s6_evaluate

N_SYNTHETIC = 100  # 0 of 100 flagged has an upper bound of 3.7 %, below the policy's limit
_RECORDED = ("P4-01", "P4-13")
_SEED = 7
_STAND_IN = "0" * 64


class SmallRun:
    """One run on simulated patients, taken as far as a trial needs.

    Attributes:
        context: What its steps use.
    """

    def __init__(self, context: RunContext, plan_sha256: str) -> None:
        self.context, self._plan_sha256 = context, plan_sha256
        self._prepared: tuple[ImageSet, SplitImages] | None = None

    @property
    def run_dir(self) -> Path:
        """Its folder."""
        return self.context.store.run_dir

    @property
    def images(self) -> ImageSet:
        """All images of a run that was prepared, as a run itself no longer has them."""
        return self._need()[0]

    @property
    def split(self) -> SplitImages:
        """Views and sealed test set of a run that was prepared."""
        return self._need()[1]

    def _need(self) -> tuple[ImageSet, SplitImages]:
        if self._prepared is None:
            raise RuntimeError("small run: not prepared yet")
        return self._prepared

    def ingest(self) -> ImageSet:
        """Step 1."""
        return s1_ingest.run(s1_ingest.list_data(self.context), self.context)

    def audit(self) -> tuple[ImageSet, AuditedImages]:
        """Steps 1 and 3; the contract that step 2 tries in full is tried at every boundary."""
        images = self.ingest()
        return images, s3_audit.run(images, self.context)

    def prepare(self) -> SplitImages:
        """Steps 1, 3 and 4."""
        images, audited = self.audit()
        split = s4_split.run(images, audited, self.context)
        self._prepared = images, split
        return split

    def prove_isolation(self, must_refuse: dict[str, str] | None = None) -> None:
        """First part of step 5: the confined child tries to read what it must not."""
        split = self.split
        s5_train.prove_isolation(
            split.must_refuse if must_refuse is None else must_refuse,
            split.access_log,
            self.context,
        )

    def train(self) -> TrainedGenerator:
        """Step 5."""
        split = self.split
        return s5_train.run(
            split.training, split.tuning, split.must_refuse, split.access_log, self.context
        )

    def evaluate(self, synthetic: Pixels, training: ImageView | None = None) -> None:
        """Step 6 on given synthetic images, as if a generator had drawn them."""
        names = tuple(f"samples/{number:05d}.png" for number in range(len(synthetic)))
        trained = TrainedGenerator("checkpoints/stand-in", _STAND_IN, synthetic, names)
        split = self.split
        s6_evaluate.run(
            trained,
            training or split.training,
            split.tuning,
            split.sealed_test,
            split.access_log,
            self._plan_sha256,
            self.context,
        )

    def close(self) -> None:
        """Step 7, with the items of `_RECORDED` only: integrity, records, manifest."""
        store, now = self.context.store, datetime.now(UTC)
        store.write_document("integrity.json", store.recheck())
        store.write_records(_records(self.run_dir, self.context, _RECORDED))
        close_evidence(
            store.run_dir,
            run_id=store.run_id,
            tool_version=tool_version(),
            journal=store.journal,
            previous_run=None,
            now=now,
        )

    def end(self) -> None:
        """Stop counting reads."""
        if self._prepared is not None:
            self.split.access_log.stop()

    def honest_images(self) -> Pixels:
        """Images that copy nothing: random pixels."""
        return control_images("noise", self.split.training.pixels, N_SYNTHETIC, _SEED)

    def judge(self, *item_ids: str) -> Answers:
        """What the checks of the policy say of the documents so far."""
        return judge_folder(self.run_dir, self.context, *item_ids)


def judge_folder(run_dir: Path, context: RunContext, *item_ids: str) -> Answers:
    """What the checks of the policy say of the documents of a run folder, in the order asked."""
    records = _records(run_dir, context, item_ids)
    gate = {line.item_id: line.exit_code for line in context.policy.gate}
    answers = {
        record.id: GuardAnswer(
            guard=record.id,
            status=record.status.value,
            is_alarm=record.status is ItemStatus.FAILED,
            exit_code=gate.get(record.id) if record.status is ItemStatus.FAILED else None,
            sentence=record.reason,
        )
        for record in records
    }
    return tuple(answers[item_id] for item_id in item_ids)


def _records(run_dir: Path, context: RunContext, ids: Sequence[str]) -> tuple[ItemRecord, ...]:
    documents = Documents.load(run_dir)
    return evaluate(
        context.policy,
        documents,
        plan_sha256=documents.plan_sha256,
        now=datetime.now(UTC),
        artifacts={},
        only=ids,
    )
