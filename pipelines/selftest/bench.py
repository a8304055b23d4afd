"""The bench: small runs on simulated patients, step by step, in a folder of their own.

Every step is the one that a run takes. Nothing here reads or writes the data, the ledger or the
keys of a run: each small run has a workspace for itself.
"""

import io
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from governance.evidence.documents import RunIdentity
from governance.evidence.store import EvidenceStore
from governance.files import sha256_bytes
from governance.policies.load import load_policy
from medisynth.data.contract import warm_up
from medisynth.data.phantom import PhantomSettings, plant_in_copy, write_phantoms
from pipelines.config import changed_config, load_config
from pipelines.console import Console
from pipelines.context import RunContext
from pipelines.identity import test_plan, tool_version
from pipelines.selftest.generator import NAME
from pipelines.selftest.plants import Answers, stopped_by
from pipelines.selftest.small_run import SmallRun

PATIENTS = PhantomSettings(
    n_patients=12, seed=7, machines=("Voluson E6",), max_images_per_patient=2, image_height_px=64
)
MANY_PATIENTS = replace(PATIENTS, n_patients=30)
_RUN_ID = "selftest"
_SETTINGS = {
    "data.cache": "off",
    "data.adapter": "phantom",
    "audit.n_text_images": 0,
    "audit.n_resamples": 100,
    "split.tuning_fraction": 0.4,  # of few patients; one alone would have no null to compare with
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
        """Simulated patients without a fault."""
        root = self.folder / "clean"
        write_phantoms(root, PATIENTS)
        return root

    @cached_property
    def data_of_many(self) -> Path:
        """Simulated patients enough to say when an image is too near to one of them."""
        root = self.folder / "many"
        write_phantoms(root, MANY_PATIENTS)
        return root

    def planted_data(self, leak: str) -> Path:
        """The same patients with one fault of the simulator's."""
        root = self.new_folder() / "data"
        with_leak = replace(PATIENTS, leaks=(leak,))
        plant_in_copy(self.clean_data, root, with_leak)
        return root

    def copied_data(self) -> Path:
        """A copy of the clean data, to be changed."""
        root = self.new_folder() / "data"
        shutil.copytree(self.clean_data, root)
        return root

    def new_folder(self) -> Path:
        """An empty folder."""
        n_folders = sum(1 for _ in self.folder.iterdir())
        folder = self.folder / f"{n_folders:03d}"
        folder.mkdir()
        return folder

    def copied_run(self, run: SmallRun) -> Path:
        """A copy of a small run's folder, to be tampered with."""
        copy = self.new_folder() / run.context.store.run_id
        shutil.copytree(run.run_dir, copy, ignore=shutil.ignore_patterns(run.context.scratch.name))
        return copy

    def new_run(self, data: Path | None = None, **settings: Any) -> SmallRun:
        """A run that froze its plan and did nothing yet.

        Args:
            data: Data folder; None is the clean one.
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
        store.write_document("run.json", identity)
        plan = test_plan(config, identity.config_sha256, policy)
        plan_sha256 = store.write_document("plan.json", plan).sha256
        context = RunContext(config, policy, store, self._console, workspace)
        self._runs.append(SmallRun(context, plan_sha256))
        return self._runs[-1]

    @cached_property
    def control(self) -> SmallRun:
        """A clean run from its first step to its closed evidence, without training."""
        run = self.new_run()
        run.prepare()
        run.prove_isolation()
        run.evaluate(run.honest_images())
        run.close()
        return run

    def of_control(self, *item_ids: str) -> Answers:
        """What the checks say of the clean run; the guard that stopped it, if one did."""
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
        """A clean run with its views packed and its test set sealed, and no further."""
        run = self.new_run()
        run.prepare()
        return run

    def lend_isolation(self, run: SmallRun) -> None:
        """Let a run count as isolated as the control was, without another training process."""
        proof = (self.control.run_dir / "isolation.json").read_bytes()
        run.context.store.write_bytes("isolation.json", proof)

    def end(self) -> None:
        """Stop counting reads; the folder is the caller's to remove."""
        for run in self._runs:
            run.end()
