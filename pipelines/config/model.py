"""The frozen configuration of a run, resolved before any work starts.

Order of precedence, last wins: the preset, the configuration file, the command line's flags, its
`-o a.b=value` overrides. Nothing else (no environment variable, no global state) changes a result.
"""

import difflib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
)
from ruamel.yaml import YAML

from governance.policy.hazards import split_hazard
from governance.records.credentials import credentials_in
from governance.records.errors import ConfigError, PolicyError, SettingsError
from governance.records.people import OutputRole
from governance.records.yaml_text import (
    describe,
    flatten,
    merge,
    parse_override,
    read_yaml,
    set_value,
)
from medisynth.models.registry import load_generator, read_settings
from pipelines.config.sections import (
    AuditConfig,
    DataConfig,
    EvaluationConfig,
    EvidenceConfig,
    LineageConfig,
    ModelConfig,
    PathText,
    SealConfig,
    Section,
    SigningConfig,
    SplitConfig,
    Texts,
    TrackingConfig,
    TrainingConfig,
)


def _a_number_alone(value: Any) -> Any:
    if not isinstance(value, float | int):
        raise ValueError(
            "expected a number alone: the operator is the policy's, only its limit can be set"
        )
    return value


_Limit = Annotated[float | int | bool, BeforeValidator(_a_number_alone)]


_PATHS = (
    *("workspace", "data.path", "data.contract", "data.cache", "audit.target_population"),
    *("signing.key", "signing.public_key", "signing.certificate", "signing.timestamp_certificate"),
    *("seal.ledger_dir", "seal.key_dir", "evidence.vulnerability_scan", "declarations"),
)
_NO_PATHS = ("auto", "off")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class RunConfig(Section):
    """The whole configuration of a run.

    Attributes:
        preset: Preset that the rest started from.
        seed: Seed of training, sampling and resampling.
        workspace: Folder that holds runs/, mlflow/, ledger/ and simulated data.
        compute_device: "auto" takes CUDA, then MPS, then CPU.
        criteria: Limits of policy items that differ from the project's defaults, by item id.
        declarations: File with what people declare and waive (YAML); None leaves every item that
            asks for people's word missing.
        output_role: Purpose of the synthetic images; compared with the declared intended use.
        hazards: Hazards beside the project's own, as "what could go wrong: P6-04, P7-H2".
    """

    preset: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    workspace: PathText = Field(default=".", validate_default=True)
    compute_device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    data: DataConfig = DataConfig()
    audit: AuditConfig = AuditConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    signing: SigningConfig = SigningConfig()
    seal: SealConfig = SealConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    criteria: dict[str, _Limit] = Field(default_factory=dict)
    declarations: PathText | None = None
    output_role: OutputRole = "research"
    lineage: LineageConfig = LineageConfig()
    hazards: Texts = ()

    @field_validator("hazards")
    @classmethod
    def _hazards_name_items(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                split_hazard(text)
            except PolicyError as error:
                raise ValueError(str(error)) from error
        return value

    @property
    def workspace_path(self) -> Path:
        """The workspace as an absolute path."""
        return Path(self.workspace).expanduser().resolve()

    def generator_settings(self) -> BaseModel:
        """Return the generator's settings with every default written out."""
        return read_settings(load_generator(self.model.name), self.model.settings)

    def plain(self) -> dict[str, Any]:
        """Return the configuration as JSON data with every default written out."""
        plain = self.model_dump(mode="json")
        plain["model"]["settings"] = self.generator_settings().model_dump(mode="json")
        return plain

    def to_yaml(self) -> bytes:
        """Return the configuration as YAML with every default; equal values give equal bytes."""
        plain = self.plain()
        stream = io.BytesIO()
        writer = YAML(typ="safe", pure=True)
        writer.default_flow_style = False
        writer.dump(plain, stream)
        return stream.getvalue()


def preset_names() -> tuple[str, ...]:
    """Return the names of the packaged presets, sorted."""
    folder = resources.files("pipelines.config") / "presets"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_config(
    file: Path | None = None,
    *,
    preset: str | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Merge preset, file, flags and overrides into a valid configuration.

    Args:
        file: Configuration file; its `preset` key names the preset it starts from.
        preset: Preset of the command line; wins over the file's.
        flags: Dotted key to value, from the command line's flags; None values are left out.
        overrides: "a.b=value" strings; the value is read as YAML.

    Raises:
        ConfigError: A key or value cannot be used; names key, value and what is allowed.
    """
    given: dict[str, Any] = {}
    read = read_yaml(file, may_hold_credentials=True) if file is not None else None
    if read is not None:
        merge(given, read.content)
    later = _set_later(given, flags, overrides)
    name = preset or given.pop("preset", None) or "laptop"
    given.pop("preset", None)
    resolved = _read_preset(name)
    _drop_pin_of_other_data(resolved, given)
    _take_settings_of_other_model(resolved, given)
    merge(resolved, given)
    resolved["preset"] = name
    _resolve_paths(resolved)

    def where(key: str) -> str:
        place = key.split(".")
        if read is None or not read.has(place) or key in later:
            return ""
        return f"{file}:{read.line(place)}: "

    return _validate(resolved, where)


def _set_later(
    values: dict[str, Any], flags: Mapping[str, Any] | None, overrides: Sequence[str]
) -> set[str]:
    """Set what flags and overrides give; return their dotted keys."""
    given = [(key, value) for key, value in (flags or {}).items() if value is not None]
    given += map(parse_override, overrides)
    for key, value in given:
        set_value(values, key, _absolute(value) if key in _PATHS else value)
    return {key for key, _ in given}


def _resolve_paths(values: dict[str, Any]) -> None:
    """Make the paths of a configuration absolute: a run is gone on with from any folder."""
    values.setdefault("workspace", ".")
    for dotted in _PATHS:
        section, _, key = dotted.rpartition(".")
        holder = values.get(section) if section else values
        if isinstance(holder, dict) and key in holder:
            holder[key] = _absolute(holder[key])


def _absolute(value: Any) -> Any:
    """Return a path as an absolute one, links and ~ left alone; what is no path as it is."""
    if not isinstance(value, str) or not value.strip() or value in _NO_PATHS:
        return value
    is_address = _ADDRESS.match(value) and not Path(value).exists()  # e.g. of a key service
    return value if value.startswith("~") or is_address else os.path.abspath(value)  # noqa: PTH100


def read_config(data: bytes, where: str) -> RunConfig:
    """Read a configuration that `RunConfig.to_yaml` wrote.

    `where` names the file in messages.

    Raises:
        ConfigError: This version cannot use it, or another version wrote it.
    """
    values = read_yaml(data, where, may_hold_credentials=True).content
    try:
        config = _validate(values)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {error}; a run goes on with the version of medisynth-gov that began it"
        ) from error
    if config.to_yaml() != data:
        raise ConfigError(
            f"{where}: was written by another version of medisynth-gov, which knew other keys; "
            "resume with that version"
        )
    return config


def changed_config(
    config: RunConfig,
    file: Path | None = None,
    *,
    preset: str | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Return `config` with the given flags and overrides applied.

    With a file or a preset, ignore `config` and load as `load_config` does.
    """
    if file is not None or preset is not None:
        return load_config(file, preset=preset, flags=flags, overrides=overrides)
    values = config.plain()
    _set_later(values, flags, overrides)
    return _validate(values)


def flat_config(config: RunConfig) -> dict[str, Any]:
    """Return every value of a configuration by its dotted key."""
    return flatten(config.plain())


def _drop_pin_of_other_data(preset: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Drop the preset's pinned digest when the user names other data."""
    if set(given.get("data", {})) - {"digest"}:
        preset.get("data", {}).pop("digest", None)


def _take_settings_of_other_model(preset: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Use the settings under the preset's `models` when the user chooses another generator."""
    others = preset.pop("models", {})
    name = given.get("model", {}).get("name")
    if name is not None and name != preset.get("model", {}).get("name"):
        preset["model"] = {"name": name, "settings": others.get(name, {})}


def _validate(values: dict[str, Any], where: Callable[[str], str] = lambda _key: "") -> RunConfig:
    """Return the configuration; `where` returns file and line of a dotted key, for messages."""
    if found := credentials_in(values):
        key, fault = found
        raise ConfigError(f"{where(key)}{key}: {fault}")
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, RunConfig, where=where)) from error
    try:
        generator = load_generator(config.model.name)
    except SettingsError as error:
        raise ConfigError(str(error)) from error
    try:
        read_settings(generator, config.model.settings)
    except ValidationError as error:
        raise ConfigError(describe(error, generator.Settings, "model.settings", where)) from error
    _refuse_seal_folders(config)
    return config


def _refuse_seal_folders(config: RunConfig) -> None:
    """Refuse a ledger or key folder inside the data folder or the run folders."""
    refused = {"run folders": config.workspace_path / "runs"}
    if config.data.folder is not None:
        refused["data folder"] = config.data.folder
    for name in ("ledger_dir", "key_dir"):
        folder = config.seal.folder(name)
        for what, place in refused.items():
            if folder is not None and folder.is_relative_to(place):
                raise ConfigError(
                    f"seal.{name}: {folder} is in the {what} ({place}); choose another"
                )


def _read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(preset_names())}"
        raise ConfigError(f"preset: unknown preset {name!r}; {hint}")
    data = (resources.files("pipelines.config") / "presets" / f"{name}.yaml").read_bytes()
    return read_yaml(data, f"preset {name}").content
