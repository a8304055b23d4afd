"""The generator that a finished run released, read from its folder; every file must be the recorded one.

Neither the data nor MLflow is needed. Only the files that are read are compared with the manifest;
`medisynth-gov verify` compares all.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from governance.evidence.manifest import (
    JOURNAL,
    MANIFEST,
    evidence_root,
    measure,
    printable,
    read_manifest,
)
from governance.records.base import Document
from governance.records.errors import (
    ConfigError,
    EvidenceError,
    EvidenceTamperedError,
)
from governance.records.files import sha256_bytes
from governance.records.manifest import Manifest
from governance.records.run import Outcome, RollUp, RunIdentity
from governance.records.training import TrainingRecord
from governance.records.yaml_text import read_yaml
from medisynth.generator import Generator
from medisynth.models.recipe import model_on_record
from medisynth.models.registry import GeneratorOrigin, generator_origin, load_generator
from pipelines.config.sections import ModelConfig
from pipelines.current_run.identity import tool_version

if TYPE_CHECKING:
    import torch

RUN, CONFIG, TRAINING = "run.json", "config.yaml", "metrics/training.json"
OUTCOME, SUMMARY = "outcome.json", "summary.json"
_D = TypeVar("_D", bound=Document)
_SHOWN_RUNS = 5


@dataclass(frozen=True)
class ReleasedModel:
    """What a run folder says about the generator that it released.

    Attributes:
        folder: The run folder.
        identity: Who, what, when.
        training: What was trained, and the digest of the checkpoint.
        rollup: How the run was judged.
        generator_type: Class of the generator, as it is installed now.
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
        """The released tensors.

        Raises:
            WeightsError: The file is missing or has another digest than the record.
        """
        from medisynth import checkpoint

        path = self.folder / self.training.checkpoint_path
        return checkpoint.load(path, self.training.checkpoint_sha256)


def read_run(run_dir: Path) -> ReleasedModel:
    """Read what is needed of a run; every file must be the one on its manifest.

    Raises:
        ConfigError: It is no run folder, the run has no checkpoint, or its configuration cannot be
            used by this version.
        EvidenceError: A file is missing or is not the one on record.
        SettingsError: The generator cannot be loaded.
    """
    if not any((run_dir / name).exists() for name in (MANIFEST, JOURNAL, RUN)):
        raise ConfigError(f"{run_dir}: not a run folder; expected {RUN} and {MANIFEST} in it")
    if not (run_dir / MANIFEST).exists():
        raise EvidenceError(
            f"{run_dir}: has no {MANIFEST}, so this run did not come to its end or the file is "
            "gone; finish or restore it, or sample another run"
        )
    manifest = read_manifest(run_dir)
    if evidence_root(manifest.evidence) != manifest.evidence_root:
        raise EvidenceError(
            f"{run_dir / MANIFEST}: its evidence root is not that of the files it lists; "
            "restore the file"
        )
    if TRAINING not in {file.path for file in manifest.evidence}:
        raise ConfigError(_without_checkpoint(run_dir, manifest))
    identity = _document(run_dir, RUN, RunIdentity, manifest)
    training = _document(run_dir, TRAINING, TrainingRecord, manifest)
    rollup = _document(run_dir, SUMMARY, RollUp, manifest)
    _check_checkpoint_is_listed(run_dir, training, manifest)
    model = _model_config(run_dir, _recorded(run_dir, CONFIG, manifest))
    name, recorded = model_on_record(model.name, model.settings)
    generator_type = load_generator(name)
    try:
        settings = generator_type.Settings.model_validate(recorded)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(["model.settings", *map(str, fault["loc"])])
        raise ConfigError(
            f"{run_dir / CONFIG}: {where}: {fault['msg']}; the run was made by version "
            f"{identity.tool_version}, this is {tool_version()}: sample with the version of the run"
        ) from error
    return ReleasedModel(
        folder=run_dir,
        identity=identity,
        training=training,
        rollup=rollup,
        generator_type=generator_type,
        origin=generator_origin(name),
        settings=settings,
    )


def _without_checkpoint(run_dir: Path, manifest: Manifest) -> str:
    """Why a run has none, in one sentence."""
    try:
        outcome = _document(run_dir, OUTCOME, Outcome, manifest)
        why = f"it was {outcome.status} at {outcome.stopped_at} ({outcome.message[:200]})"
    except EvidenceError:
        why = "it was never trained"
    return f"{run_dir.name}: this run has no checkpoint, {why}; sample a run that was trained"


def _document(run_dir: Path, path: str, kind: type[_D], manifest: Manifest) -> _D:
    try:
        return kind.model_validate_json(_recorded(run_dir, path, manifest))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise EvidenceError(
            f"{run_dir / path}: {'.'.join(map(str, fault['loc']))}: {fault['msg'][:120]}; the run "
            f"was made by version {manifest.tool_version}, this is {tool_version()}: use the "
            "version of the run"
        ) from error


def _recorded(run_dir: Path, path: str, manifest: Manifest) -> bytes:
    """A file's bytes, if they are those on the manifest."""
    expected = next((file.sha256 for file in manifest.evidence if file.path == path), None)
    if expected is None:
        raise EvidenceError(f"{run_dir / path}: not on the manifest; restore the run folder")
    measure(run_dir, path)  # a regular file that can be read
    data = (run_dir / path).read_bytes()
    found = sha256_bytes(data)
    if found != expected:
        raise EvidenceTamperedError(run_dir / path, expected=expected, found=found)
    return data


def _check_checkpoint_is_listed(
    run_dir: Path, training: TrainingRecord, manifest: Manifest
) -> None:
    listed = {file.path: file.sha256 for file in manifest.evidence}.get(training.checkpoint_path)
    if listed != training.checkpoint_sha256:
        found = f"sha256:{listed}" if listed else "no such file"
        raise EvidenceError(
            f"{run_dir / MANIFEST}: {printable(training.checkpoint_path)}: {TRAINING} expects "
            f"sha256:{training.checkpoint_sha256}, the manifest lists {found}; "
            "restore the run folder"
        )


def _model_config(run_dir: Path, data: bytes) -> ModelConfig:
    """The model section alone: other sections may have changed between versions."""
    values = read_yaml(data, str(run_dir / CONFIG), may_be_empty=True).content
    try:
        return ModelConfig.model_validate(values["model"])
    except (ValidationError, KeyError) as error:
        raise ConfigError(
            f"{run_dir / CONFIG}: expected a section 'model' with name and settings, found none "
            f"that can be read ({type(error).__name__}); sample with the version of the run"
        ) from error
