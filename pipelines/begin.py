"""The start of a run: checks that may refuse it before anything is written, then its folder."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy, with_criteria
from governance.records.base import TRAINING
from governance.records.errors import ConfigError, DataError, MachineError
from governance.records.policy import Policy
from governance.records.run import RunIdentity
from governance.signing.keys import RunSigner
from medisynth.data.adapters import DatasetAdapter, locate_data_set
from medisynth.data.adapters.selection import select_planes
from medisynth.data.audit.target_population import load_target_population
from medisynth.data.contract.contract import load_contract
from medisynth.metrics.extractors import load_extractor
from pipelines.config.model import RunConfig, flat_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.current_run.identity import (
    TEST_REPORTS,
    code_identity,
    hazard_list,
    new_run_id,
    recorded_command,
    run_identity,
    test_plan,
    tool_version,
)
from pipelines.current_run.keys import open_signer
from pipelines.current_run.lock import folder_lock, run_lock
from pipelines.current_run.places import (
    refuse_in_data,
    refuse_misplaced_folders,
    refuse_readable_folders,
)
from pipelines.current_run.software import find_suite_report
from pipelines.current_run.vulnerability_scan import ReadScan, read_scan
from pipelines.fetch.weights import find_weights
from pipelines.finished_runs import sync
from pipelines.finished_runs.lineage import require_parent
from pipelines.finished_runs.listing import duration_of_one_like
from pipelines.finished_runs.resume import EarlierRun, open_earlier_run
from pipelines.people.read import ReadDeclarations, known_use, read_declarations
from pipelines.run import Run
from pipelines.steps import s1_ingest, s4_split, s5_train
from pipelines.tracking import Tracker
from pipelines.training.parent import batch_sizes, usable_device

_LEAST_FREE_BYTES = 32 << 20  # for records, reports and the tracking store of the smallest run


@dataclass(frozen=True)
class Ready:
    """A checked configuration and everything that was read for it.

    Attributes:
        config: The configuration.
        policy: Policy with the configuration's criteria.
        signer: Key that signs the run; None leaves it unsigned.
        declared: Declarations file; None when none is named.
        scan: Scan for known vulnerabilities; None when none is given.
    """

    config: RunConfig
    policy: Policy
    signer: RunSigner | None
    declared: ReadDeclarations | None
    scan: ReadScan | None


def ready(config: RunConfig) -> Ready:
    """Read and check everything that a run needs to begin.

    Makes the folder of the workspace, with runs/, and writes nothing else.

    Raises:
        ConfigError: A file that the configuration names cannot be used; data, keys, ledger or
            workspace lie in a folder that training must read, or in one another; or the parent run
            is not there.
        SettingsError: The data contract cannot be used.
        DataError: The data folder is missing, empty, or has no known layout.
        PolicyError: The policy or a criterion cannot be used.
        SigningKeyError: The signing key cannot be used.
        WeightsError: The FID weights on this machine are damaged.
        MachineError: The workspace cannot be written or lacks space, or there is no such device.
    """
    policy = with_criteria(load_policy(), config.criteria)
    signer = open_signer(config.signing)
    declared = read_declarations(config.declarations, policy) if config.declarations else None
    scan = read_scan(config.evidence)
    adapter, root = s1_ingest.find_data_set(config.data)  # a mistyped folder is no run
    for one in config.evaluation.external:
        locate_data_set(one.folder, one.adapter)
    if config.data.contract is not None:
        load_contract(adapter.name, Path(config.data.contract).expanduser())
    if config.compute_device != "auto":
        usable_device(config.compute_device)
    if config.evaluation.extractor == "inception":
        find_weights()
        for name in config.evaluation.further_extractors:
            load_extractor(name)
    _refuse_batches(config, adapter, root)
    if config.audit.target_population is not None:
        load_target_population(Path(config.audit.target_population).expanduser())
    refuse_misplaced_folders(config)
    refuse_readable_folders(config)
    require_parent(config.workspace_path, config.lineage)
    _make_workspace(config.workspace_path)
    return Ready(config, policy, signer, declared, scan)


@contextmanager
def opened(ready: Ready, command: list[str], console: Console) -> Iterator[Run]:
    """Make the folder of a new run and put identity, inputs and plan on record.

    The run's lock and its mirror are held until the block ends.

    Raises:
        TrackingError: The tracking store cannot be used.
        RecordWriteError: The run folder cannot be made.
    """
    config, workspace = ready.config, ready.config.workspace_path
    config_yaml = config.to_yaml()
    run_id = new_run_id(config_yaml)
    tracker = Tracker(workspace, config.tracking, console.warn)
    with ExitStack() as held, tracker.closing():
        with folder_lock(workspace):
            tracker.connect()
            sync.recover(workspace, console.warn)
            store = EvidenceStore.create(workspace / "runs", run_id, tool_version=tool_version())
            lock = held.enter_context(run_lock(store.run_dir))
        console.say(f"run {run_id}")
        took = duration_of_one_like(workspace, config.preset, config.model.name)
        if took is not None:
            console.say(f"the last run of this preset and generator here took {took / 60:.1f} min")
        identity = run_identity(run_id, config, config_yaml, command)
        _put_on_record(ready, identity, config_yaml, store, console)
        if tracker.is_on:
            sync.mark(workspace, run_id, "run began")
        tracker.start(identity, _parameters(config))
        context = RunContext(config, ready.policy, store, console, workspace, (lock,), ready.signer)
        yield Run(context, tracker)


@contextmanager
def resumed(
    run_dir: Path, asked: Callable[[RunConfig], RunConfig], command: list[str], console: Console
) -> Iterator[Run]:
    """Open the folder of a run that was cut short; all checks come before anything changes.

    Raises:
        ConfigError: It is finished or cannot go on, was made by another version, or another
            configuration was asked for.
        EvidenceError: Something on record is missing, damaged or changed.
        DataError: The data folder is gone.
        TrackingError: The tracking store cannot be used.
    """
    with run_lock(run_dir) as lock:
        earlier = open_earlier_run(run_dir, asked)
        config, store, workspace = earlier.config, earlier.store, run_dir.parent.parent
        refuse_in_data("workspace", workspace, config.data.folder)
        policy, signer = with_criteria(load_policy(), config.criteria), open_signer(config.signing)
        context = RunContext(config, policy, store, console, workspace, (lock,), signer)
        handed_on: dict[str, Any] = {}
        if not earlier.did("s6_evaluate"):
            handed_on["s4_split"] = s4_split.reload(s1_ingest.data_root(context), context)
            if earlier.did("s5_train"):
                handed_on["s5_train"] = s5_train.reload(context)
        tracker = Tracker(workspace, config.tracking, console.warn)
        tracker.connect()
        with tracker.closing():
            _take_up(earlier, command)
            console.say(f"run {store.run_id} goes on ({earlier.reason})")
            if tracker.is_on:
                sync.mark(workspace, store.run_id, "run went on")
            tracker.resume(earlier.identity, _parameters(config))
            run = Run(context, tracker, earlier, handed_on)
            tracker.log_step("s4_split", run.context.folder)
            yield run


def _put_on_record(
    ready: Ready, identity: RunIdentity, config_yaml: bytes, store: EvidenceStore, console: Console
) -> None:
    """Write everything known before the first step; the plan is frozen after its inputs."""
    config = ready.config
    store.write_bytes("config.yaml", config_yaml)
    store.write_document(identity)
    if ready.declared is not None:
        ready.declared.put_on_record(store)
        for sentence in ready.declared.warnings(identity, used=known_use(config)):
            console.warn(sentence)
    if ready.scan is not None:
        ready.scan.put_on_record(store)
    if tests := find_suite_report(identity.code_commit, TEST_REPORTS, console.warn):
        store.write_document(tests)
    plan = test_plan(config, identity.config_sha256, ready.policy)
    frozen = store.write_document(plan)
    store.journal.append("plan frozen", {"plan_sha256": frozen.sha256})
    store.write_document(hazard_list(config))


def _take_up(earlier: EarlierRun, command: list[str]) -> None:
    """Note in the journal that the run goes on, why, and with which code."""
    commit, clean = code_identity()
    earlier.store.resume(
        {
            "reason": earlier.reason,
            "finished_steps": [timing.step for timing in earlier.finished],
            "command": list(recorded_command(command)),
            "code_commit": commit,
            "code_clean": clean,
        }
    )


def _refuse_batches(config: RunConfig, adapter: DatasetAdapter, root: Path | None) -> None:
    """Refuse batches that the processes cannot share, or larger than the training set can be."""
    settings = config.generator_settings().model_dump(mode="json")
    most, n = _most_training_images(config, adapter, root), config.training.processes
    for key, size in batch_sizes(settings).items():
        if size % n:
            raise ConfigError(
                f"{key}: {size} images cannot be shared equally by training.processes={n}; choose "
                f"a multiple of {n}"
            )
        if most is not None and size > most:
            raise ConfigError(
                f"{key}: {size} images a batch, but the data have at most {most} to train on; "
                f"choose {most} or fewer, or give more data"
            )


def _most_training_images(
    config: RunConfig, adapter: DatasetAdapter, root: Path | None
) -> int | None:
    """Return how many images training can have at most, by the listing; None if unknown.

    What is wrong with a listing is for the run to put on record.
    """
    if root is None:
        return None
    try:
        listing = adapter.list_images(root)
        selected = select_planes(listing, config.data.planes)
    except DataError:
        return None
    official = selected["official_partition"]
    if s4_split.split_source(config.split.source, official) == "official":
        return int((official == TRAINING).sum()) or None
    return len(selected)


def _make_workspace(workspace: Path) -> None:
    try:
        (workspace / "runs").mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(workspace).free
    except OSError as error:
        raise MachineError(
            f"{workspace}: the workspace cannot be written ({error.strerror}); "
            "choose another with --workspace"
        ) from error
    if free < _LEAST_FREE_BYTES:
        raise MachineError(
            f"{workspace}: {free:,} bytes are free, a run needs at least {_LEAST_FREE_BYTES:,}; "
            "make room, or choose another workspace with --workspace"
        )


def _parameters(config: RunConfig) -> dict[str, str]:
    """Return the configuration as dotted key -> text, for the tracking store's parameters."""
    return {key: str(value) for key, value in flat_config(config).items()}
