"""Reads the generator that a finished run released from the run folder.

Needs neither the data nor MLflow. Only the files that are read are compared with the manifest;
`medisynth-gov verify` compares all.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from governance.evidence.folder import CONFIG, RunFolder
from governance.evidence.manifest import JOURNAL, MANIFEST, printable
from governance.records.errors import ConfigError, EvidenceError, first_line
from governance.records.rollup import RollUp
from governance.records.run import Outcome, RunIdentity
from governance.records.training import TrainingRecord
from medisynth.generator import Generator
from medisynth.models.recipe import model_on_record
from medisynth.models.registry import GeneratorOrigin, generator_origin, load_generator
from pipelines.config.sections import ModelConfig
from pipelines.current_run.identity import tool_version

if TYPE_CHECKING:
    import torch

_SHOWN_RUNS = 5


@dataclass(frozen=True)
class ReleasedModel:
    """The released generator of a run, with the records about it.

    Attributes:
        folder: The run folder.
        identity: Identity of the run.
        training: Training record, with the digest of the checkpoint.
        rollup: Statuses and verdict of the run.
        generator_type: Class of the generator as installed now.
        origin: Where that class comes from.
        settings: Its settings in this run.
    """

    folder: Path
    identity: RunIdentity
    training: TrainingRecord
    rollup: RollUp
    generator_type: type[Generator]
    origin: GeneratorOrigin
    settings: BaseModel

    def checkpoint(self) -> "dict[str, torch.Tensor]":
        """Load and return the released tensors.

        Raises:
            WeightsError: The file is missing or has another digest than the record.
        """
        from medisynth import checkpoint

        path = self.folder / self.training.checkpoint_path
        return checkpoint.load(path, self.training.checkpoint_sha256)


def read_run(run_dir: Path) -> ReleasedModel:
    """Read the released generator of a run; check every file against the manifest.

    Raises:
        ConfigError: It is no run folder, the run has no checkpoint, or its configuration cannot be
            used by this version.
        EvidenceError: A file is missing or is not the one on record.
        SettingsError: The generator cannot be loaded.
    """
    names = (MANIFEST, JOURNAL, RunIdentity.PATH)
    if not any((run_dir / name).exists() for name in names):
        raise ConfigError(
            f"{run_dir}: not a run folder; expected {RunIdentity.PATH} and {MANIFEST} in it"
        )
    if not (run_dir / MANIFEST).exists():
        raise EvidenceError(
            f"{run_dir}: has no {MANIFEST}, so this run did not come to its end or the file is "
            "gone; finish or restore it, or sample another run"
        )
    run = RunFolder.closed(run_dir)
    training = run.get(TrainingRecord)
    if training is None:
        raise ConfigError(_without_checkpoint(run))
    rollup = run.need(RollUp)
    _check_checkpoint_is_listed(run, training)
    model = _model_config(run)
    name, recorded = model_on_record(model.name, model.settings)
    generator_type = load_generator(name)
    try:
        settings = generator_type.Settings.model_validate(recorded)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(["model.settings", *map(str, fault["loc"])])
        raise ConfigError(
            f"{run_dir / CONFIG}: {where}: {fault['msg']}; the run was made by version "
            f"{run.identity.tool_version}, this is {tool_version()}: sample with the version of the run"
        ) from error
    return ReleasedModel(
        folder=run_dir,
        identity=run.identity,
        training=training,
        rollup=rollup,
        generator_type=generator_type,
        origin=generator_origin(name),
        settings=settings,
    )


def _without_checkpoint(run: RunFolder) -> str:
    """Return a sentence on why a run has no checkpoint."""
    try:
        outcome = run.need(Outcome)
        why = f"it was {outcome.status} at {outcome.stopped_at} ({first_line(outcome.message)})"
    except EvidenceError:
        why = "it was never trained"
    return f"{run.path.name}: this run has no checkpoint, {why}; sample a run that was trained"


def _check_checkpoint_is_listed(run: RunFolder, training: TrainingRecord) -> None:
    listed = run.digests.get(training.checkpoint_path)
    if listed != training.checkpoint_sha256:
        found = f"sha256:{listed}" if listed else "no such file"
        raise EvidenceError(
            f"{run.path / MANIFEST}: {printable(training.checkpoint_path)}: {training.PATH} expects "
            f"sha256:{training.checkpoint_sha256}, the manifest lists {found}; "
            "restore the run folder"
        )


def _model_config(run: RunFolder) -> ModelConfig:
    """Read the configuration's model section only: others may differ between versions."""
    try:
        return ModelConfig.model_validate(run.config()["model"])
    except (ValidationError, KeyError) as error:
        raise ConfigError(
            f"{run.path / CONFIG}: expected a section 'model' with name and settings, found none "
            f"that can be read ({type(error).__name__}); sample with the version of the run"
        ) from error
