"""Small runs on simulated patients, in which the self-test plants its faults.

They use the same steps as a real run. Each has a workspace of its own: data, ledger and keys of
real runs are never touched.
"""

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from governance.checks.registry import judge_items
from governance.evidence.folder import RunFolder
from governance.evidence.manifest import close_evidence
from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.base import ItemStatus
from governance.records.errors import InterruptedByUser, MedisynthGovError
from governance.records.files import sha256_bytes
from governance.records.item import ItemRecord
from governance.records.run import RunIdentity
from governance.records.selftest import STOPPED, GuardAnswer
from medisynth.data.contract.contract import warm_up
from medisynth.data.phantom import PhantomSettings, plant_in_copy, write_phantoms
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.metrics.controls import control_images
from pipelines.config.model import changed_config, load_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import (
    ISOLATION,
    AuditedImages,
    ImageSet,
    RunContext,
    SplitImages,
    TrainedGenerator,
    isolation_on_record,
)
from pipelines.current_run.identity import test_plan, tool_version
from pipelines.selftest.generator import NAME
from pipelines.steps import s1_ingest, s3_audit, s4_split, s5_train, s6_evaluate

if TYPE_CHECKING:
    pass

Answers = tuple[GuardAnswer, ...]
LEAKAGE: Literal[4] = 4
INTEGRITY: Literal[5] = 5
LONGER = "left to the whole self-test, which takes longer"
TRAINS = "needs training, which takes longer"
_MACHINE = 7


@dataclass(frozen=True)
class Plant:
    """One fault and the guards that must catch it.

    Attributes:
        name: Short name.
        about: Kind of fault; the check of P4-12 requires "patient", "duplicate", "early read".
        planted: Description of the fault.
        expected: Guards that must all raise an alarm: items, error codes, names of guards.
        failure_exit_code: 4 for a leak of data, else 5.
        trial: Gives the guards the clean control (False) or the planted fault (True).
        why_not_quick: Why the quick self-test of a run leaves it out; empty when it does not.
    """

    name: str
    about: str
    planted: str
    expected: tuple[str, ...]
    failure_exit_code: Literal[4, 5]
    trial: "Callable[[Bench, bool], Answers]"
    why_not_quick: str = ""


def stopped_by(guard: str, work: Callable[[], object]) -> Answers:
    """Do work that a guard must stop; return the guard's alarm, or that there was none.

    Args:
        guard: Expected error code, named in the answer when nothing stops the work.
        work: The work.

    Raises:
        InterruptedByUser: A stop was asked for.
        MachineError, ProcessError: The machine failed (exit code 7), so there is no verdict.
    """
    try:
        work()
    except InterruptedByUser:
        raise
    except MedisynthGovError as error:
        return (alarm_of(error),)
    return (silent(guard, "did not stop it"),)


def alarm_of(error: MedisynthGovError) -> GuardAnswer:
    """Turn an error into an alarm; raise errors of the machine (exit code 7) again."""
    if error.exit_code == _MACHINE:
        raise error
    return GuardAnswer(
        guard=error.code,
        status=STOPPED,
        is_alarm=True,
        exit_code=error.exit_code,
        sentence=str(error),
    )


def silent(guard: str, status: str, sentence: str = "") -> GuardAnswer:
    """Return the answer of a guard that raised no alarm."""
    return GuardAnswer(
        guard=guard, status=status, is_alarm=False, exit_code=None, sentence=sentence
    )


N_SYNTHETIC = 100  # 0 of 100 flagged has an upper bound of 3.7 %, below the policy's limit
_RECORDED = ("P4-01", "P4-13")
_SEED = 7
_STAND_IN = "0" * 64


class SmallRun:
    """One run on simulated patients, done only as far as a trial needs.

    Attributes:
        context: Context that its steps get.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self._prepared: tuple[ImageSet, AuditedImages, SplitImages] | None = None
        self._trained: TrainedGenerator | None = None

    @property
    def run_dir(self) -> Path:
        """Its folder."""
        return self.context.store.run_dir

    @property
    def folder(self) -> RunFolder:
        """The run folder with everything on record so far, the isolation as of now."""
        folder = RunFolder.open(self.context.store)
        isolation = isolation_on_record(self.context.store.journal)
        return folder if isolation is None else folder.knowing(isolation)

    @property
    def images(self) -> ImageSet:
        """All images of a prepared run, test images included, which a real run no longer has."""
        return self._need()[0]

    @property
    def audited(self) -> AuditedImages:
        """Findings of the audit of a prepared run."""
        return self._need()[1]

    @property
    def split(self) -> SplitImages:
        """Views and sealed test set of a run that was prepared."""
        return self._need()[2]

    @property
    def trained(self) -> TrainedGenerator:
        """Checkpoint and images of a run that was trained."""
        if self._trained is None:
            raise RuntimeError("small run: not trained yet")
        return self._trained

    def _need(self) -> tuple[ImageSet, AuditedImages, SplitImages]:
        if self._prepared is None:
            raise RuntimeError("small run: not prepared yet")
        return self._prepared

    def ingest(self) -> ImageSet:
        """Do step 1."""
        return s1_ingest.run(self.context)

    def audit(self) -> tuple[ImageSet, AuditedImages]:
        """Do steps 1 and 3; what each step receives is checked."""
        images = self.ingest()
        return images, s3_audit.run(images, self.context)

    def prepare(self) -> SplitImages:
        """Do steps 1, 3 and 4."""
        images, audited = self.audit()
        split = s4_split.run(images, audited, self.context)
        self._prepared = images, audited, split
        return split

    def prove_isolation(self, must_refuse: dict[str, str] | None = None) -> None:
        """Do the first part of step 5: the confined child tries forbidden reads."""
        split = self.split
        s5_train.prove_isolation(
            split.must_refuse if must_refuse is None else must_refuse,
            split.access_log,
            self.context,
        )

    def train(self) -> TrainedGenerator:
        """Do step 5."""
        self._trained = s5_train.run(self.split, self.context)
        return self._trained

    def evaluate(self, synthetic: Pixels, training: ImageView | None = None) -> None:
        """Do step 6 on given images, as if a generator had drawn them."""
        names = tuple(f"samples/{number:05d}.png" for number in range(len(synthetic)))
        trained = TrainedGenerator("checkpoints/stand-in", _STAND_IN, synthetic, names)
        split = self.split
        if training is not None:
            split = replace(split, training=training)
        s6_evaluate.evaluate(trained, split, self.context)

    def close(self) -> None:
        """Do step 7 with the items of `_RECORDED` only: integrity, records, manifest."""
        store, now = self.context.store, datetime.now(UTC)
        isolation = isolation_on_record(store.journal)
        if isolation is not None:
            store.write_document(isolation)
        integrity = store.recheck()
        store.write_document(integrity)
        folder = RunFolder.open(store, as_found=integrity.mismatches)
        store.write_records(_records(folder, self.context, _RECORDED))
        close_evidence(
            store.run_dir,
            run_id=store.run_id,
            tool_version=tool_version(),
            journal=store.journal,
            previous_run=None,
            now=now,
        )

    def end(self) -> None:
        """Stop the access log."""
        if self._prepared is not None:
            self.split.access_log.stop()

    def honest_images(self) -> Pixels:
        """Return images of random pixels, which copy no training image."""
        return control_images("noise", self.split.training.pixels, N_SYNTHETIC, _SEED)

    def judge(self, *item_ids: str) -> Answers:
        """Judge items by the documents so far."""
        return judge_folder(self.folder, self.context, *item_ids)


def judge_folder(folder: RunFolder, context: RunContext, *item_ids: str) -> Answers:
    """Judge items by the documents of a run folder; answers in the order asked."""
    records = _records(folder, context, item_ids)
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


def _records(folder: RunFolder, context: RunContext, ids: Sequence[str]) -> tuple[ItemRecord, ...]:
    return judge_items(context.policy, folder, now=datetime.now(UTC), artifacts={}, only=ids)


PATIENTS = PhantomSettings(
    n_patients=12, seed=7, machines=("Voluson E6",), max_images_per_patient=2, image_height_px=64
)
MANY_PATIENTS = replace(PATIENTS, n_patients=30)
_RUN_ID = "selftest"
_SETTINGS = {
    "data.cache": "off",
    "data.adapter": "phantom",
    "audit.n_text_images": 0,
    "audit.n_calibrated": 0,
    "audit.n_resamples": 100,
    "split.tuning_fraction": 0.4,  # few patients: with one tuning patient there is no null
    "evaluation.extractor": "none",
    "tracking.enabled": False,
    "compute_device": "cpu",
    "model.name": NAME,
}


class Bench:
    """Simulated patients, clean and with faults, and small runs on them."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self._console = Console(stream=io.StringIO(), stop=console.stop)
        self._runs: list[SmallRun] = []
        self._config = load_config(preset="smoke", flags=_SETTINGS)
        # Step 1 starts these imports in the background for step 2, which small runs leave out.
        warm_up().join()

    @cached_property
    def clean_data(self) -> Path:
        """Data folder of simulated patients without a fault."""
        root = self.folder / "clean"
        write_phantoms(root, PATIENTS)
        return root

    @cached_property
    def data_of_many(self) -> Path:
        """Data folder with enough simulated patients for the memorisation check."""
        root = self.folder / "many"
        write_phantoms(root, MANY_PATIENTS)
        return root

    def planted_data(self, leak: str) -> Path:
        """Make a data folder of the same patients with one of the simulator's faults."""
        root = self.new_folder() / "data"
        with_leak = replace(PATIENTS, leaks=(leak,))
        plant_in_copy(self.clean_data, root, with_leak)
        return root

    def copied_data(self) -> Path:
        """Make a copy of the clean data that may be changed."""
        root = self.new_folder() / "data"
        shutil.copytree(self.clean_data, root)
        return root

    def new_folder(self) -> Path:
        """Make an empty folder."""
        n_folders = sum(1 for _ in self.folder.iterdir())
        folder = self.folder / f"{n_folders:03d}"
        folder.mkdir()
        return folder

    def copied_run(self, run: SmallRun) -> Path:
        """Copy a small run's folder, without working files, so that it can be tampered with."""
        copy = self.new_folder() / run.context.store.run_id
        shutil.copytree(run.run_dir, copy, ignore=shutil.ignore_patterns(run.context.scratch.name))
        return copy

    def new_run(self, data: Path | None = None, **settings: Any) -> SmallRun:
        """Begin a small run with its plan frozen and no step done.

        Args:
            data: Data folder. Default: the clean one.
            settings: Dotted keys of the configuration, "__" for each dot.
        """
        workspace = self.new_folder()
        given = {name.replace("__", "."): value for name, value in settings.items()}
        root = data or self.clean_data
        flags = {"workspace": str(workspace), "data.path": str(root), **given}
        config = changed_config(self._config, flags=flags)
        policy = load_policy()
        store = EvidenceStore.create(workspace / "runs", _RUN_ID, tool_version=tool_version())
        config_yaml = config.to_yaml()
        store.write_bytes("config.yaml", config_yaml)
        identity = RunIdentity(
            run_id=_RUN_ID,
            started_utc=datetime.now(UTC),
            tool_version=tool_version(),
            code_commit=None,
            code_clean=None,
            command=("medisynth-gov", "selftest"),
            preset=config.preset,
            generator=config.model.name,
            seed=config.seed,
            config_sha256=sha256_bytes(config_yaml),
        )
        store.write_document(identity)
        plan = test_plan(config, identity.config_sha256, policy)
        store.write_document(plan)
        context = RunContext(config, policy, store, self._console, workspace)
        self._runs.append(SmallRun(context))
        return self._runs[-1]

    @cached_property
    def control(self) -> SmallRun:
        """A clean run up to closed evidence, without training."""
        run = self.new_run()
        run.prepare()
        run.prove_isolation()
        run.evaluate(run.honest_images())
        run.close()
        return run

    def of_control(self, *item_ids: str) -> Answers:
        """Judge items of the clean run; if a guard stopped it, return that alarm."""
        stop = stopped_by("control", lambda: self.control)
        return stop if stop[0].is_alarm else self.control.judge(*item_ids)

    @cached_property
    def trained_control(self) -> SmallRun:
        """A clean run that trained the small generator of the self-test."""
        run = self.new_run()
        run.prepare()
        run.train()
        return run

    @cached_property
    def prepared(self) -> SmallRun:
        """A clean run that ends after packing views and sealing the test set."""
        run = self.new_run()
        run.prepare()
        return run

    def lend_isolation(self, run: SmallRun) -> None:
        """Give a run the control's isolation record, to save another training process."""
        proof = isolation_on_record(self.control.context.store.journal)
        if proof is not None:  # without it the evaluation refuses
            run.context.store.journal.append(ISOLATION, proof.model_dump(mode="json"))

    def end(self) -> None:
        """Stop all access logs; the caller removes the folder."""
        for run in self._runs:
            run.end()
