"""What a run depends on: one frozen configuration, resolved before any work starts.

Order of precedence, last wins: the preset, the configuration file, the command line's flags, its
`-o a.b=value` overrides. Nothing else (no environment variable, no global state) changes a result.
"""

import difflib
import io
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from medisynth.errors import SettingsError
from medisynth.models.registry import load_generator
from pipelines.errors import ConfigError

MAX_CONFIG_BYTES = 64 * 1024
_SCALAR_LIMIT = 80
_DISTINCT = re.compile(r"\s*([^=:]+?)\s*=\s*([^=:]+?)\s*:\s*(\S.*)")
_REVIEWED = re.compile(r"\s*([^:]+?)\s*:\s*(\S.*)")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PhantomConfig(_Section):
    """Simulated images, used when no data folder is given.

    Attributes:
        n_patients: Simulated patients, 8 to 20,000.
        seed: Seed of the simulator; the same seed gives the same bytes.
        image_height_px: Height of the simulated frames, 64 to 1,024.
    """

    n_patients: int = Field(default=64, ge=8, le=20_000)
    seed: int = Field(default=0, ge=0)
    image_height_px: int = Field(default=300, ge=64, le=1024)


class DataConfig(_Section):
    """Which images.

    Attributes:
        path: Data folder; None simulates phantoms in the workspace.
        adapter: Adapter name; None detects it from the folder.
        planes: "default" (the fetal brain planes), "all", or plane names.
        missing_images: What to do with listed images that have no file.
        digest: Expected digest of the selected images; None leaves the data set unpinned.
        fit: How a frame becomes square: "pad" keeps its shape on black, "stretch" distorts it.
        contract: The user's own data contract (YAML), tried besides the built-in one; None takes
            `data_contract.yaml` beside the data where there is one.
        cache: Folder that keeps decoded images by file digest, so that an unchanged file is
            decoded once only; "auto" is the user's cache folder, "off" keeps nothing.
        phantom: Simulated images, used when path is None.
    """

    path: str | None = None
    adapter: str | None = None
    planes: Literal["default", "all"] | tuple[str, ...] = "default"
    missing_images: Literal["error", "drop"] = "error"
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    fit: Literal["pad", "stretch"] = "pad"
    contract: str | None = None
    cache: str = Field(default="auto", min_length=1)
    phantom: PhantomConfig = PhantomConfig()

    @field_validator("planes", mode="before")
    @classmethod
    def _one_plane_is_a_list_of_one(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("default", "all"):
            return (value,)
        return tuple(value) if isinstance(value, list) else value


class AuditConfig(_Section):
    """How the data set is audited.

    Attributes:
        target_population: File that declares the target population (YAML); None leaves the
            distance to it not evaluated.
        smallest_cell: Demographic cells with fewer patients are suppressed in what is written.
        n_resamples: Permutations and bootstrap samples of patients behind each interval.
        n_text_images: Images in which burned-in text is read, drawn evenly over machines; 0 reads
            none. "all" may take a second an image.
        distinct_pairs: Pairs of images that a person looked at and found to be different patients'
            pictures, as "left = right: reason"; they are not taken for duplicates.
        reviewed: Columns and images with identifying text that a person reviewed, as
            "name: reason"; "labels: reason" for the list of suspected labels.
    """

    target_population: str | None = None
    smallest_cell: int = Field(default=5, ge=1, le=1_000)
    n_resamples: int = Field(default=500, ge=100, le=100_000)
    n_text_images: int | Literal["all"] = 60
    distinct_pairs: tuple[str, ...] = ()
    reviewed: tuple[str, ...] = ()

    @field_validator("distinct_pairs", "reviewed", mode="before")
    @classmethod
    def _a_list_is_a_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("distinct_pairs")
    @classmethod
    def _pairs_have_reasons(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _DISTINCT.fullmatch(text):
                raise ValueError(f"expected 'left = right: reason', found {text[:80]!a}")
        return value

    @field_validator("reviewed")
    @classmethod
    def _reviews_have_reasons(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _REVIEWED.fullmatch(text):
                raise ValueError(f"expected 'name: reason', found {text[:80]!a}")
        return value

    def distinct(self) -> frozenset[tuple[str, str]]:
        """Pairs of ids that a person found to be different images."""
        found = [_DISTINCT.fullmatch(text) for text in self.distinct_pairs]
        return frozenset((match[1], match[2]) for match in found if match)

    def reviews(self) -> dict[str, str]:
        """Reviewed column or image id -> reason."""
        found = [_REVIEWED.fullmatch(text) for text in self.reviewed]
        return {match[1]: match[2] for match in found if match}


class SplitConfig(_Section):
    """How images are divided, always by patient (or the data set's nearest unit).

    Attributes:
        source: "official" uses the split that the data set brings, "computed" draws one, "auto"
            is official where there is one.
        test_fraction: Share of patients in a computed held-out test set.
        tuning_fraction: Share of the remaining patients set aside for tuning.
        seed: Seed of the drawing.
        on_duplicate: A group that crosses the official split stops the run, or its training
            copies are dropped, on record.
    """

    source: Literal["auto", "official", "computed"] = "auto"
    test_fraction: float = Field(default=0.3, gt=0, lt=0.9)
    tuning_fraction: float = Field(default=0.2, gt=0, lt=0.9)
    seed: int = Field(default=0, ge=0)
    on_duplicate: Literal["stop", "drop_training"] = "stop"


class ModelConfig(_Section):
    """Which generator, and its settings (checked by the generator's own model)."""

    name: str = "dsr-gan"
    settings: dict[str, Any] = Field(default_factory=dict)


class EvaluationConfig(_Section):
    """How synthetic images are judged.

    Attributes:
        n_synthetic: Synthetic images drawn and kept.
        max_real: Real images used for fidelity, drawn by patient when there are more.
        n_bootstrap: Resamples behind every interval.
        extractor: "inception" needs the FID weights; "none" leaves fidelity not evaluated.
    """

    n_synthetic: int = Field(default=200, ge=16, le=100_000)
    max_real: int = Field(default=200, ge=16, le=100_000)
    n_bootstrap: int = Field(default=200, ge=50, le=10_000)
    extractor: Literal["inception", "none"] = "inception"


class TrackingConfig(_Section):
    """Mirror of the run in MLflow.

    Attributes:
        enabled: Mirror at all.
        uri: Tracking server; None is an sqlite store in the workspace.
        experiment: Experiment name.
    """

    enabled: bool = True
    uri: str | None = None
    experiment: str = "medisynth-gov"


class RunConfig(_Section):
    """Everything a run depends on.

    Attributes:
        preset: Preset that the rest started from.
        seed: Seed of training, sampling and resampling.
        workspace: Folder that holds runs/, mlflow/, ledger/ and simulated data.
        compute_device: "auto" takes CUDA, then MPS, then CPU.
        criteria: Limits of policy items that differ from the project's defaults, by item id.
    """

    preset: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    workspace: str = "."
    compute_device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    data: DataConfig = DataConfig()
    audit: AuditConfig = AuditConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    criteria: dict[str, float | int | bool] = Field(default_factory=dict)

    @field_validator("workspace")
    @classmethod
    def _workspace_is_named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("name a folder")
        return value

    @property
    def workspace_path(self) -> Path:
        """Workspace as an absolute path."""
        return Path(self.workspace).expanduser().resolve()

    def generator_settings(self) -> BaseModel:
        """Settings of the generator, every default written out."""
        return load_generator(self.model.name).Settings.model_validate(self.model.settings)

    def to_yaml(self) -> bytes:
        """The configuration as YAML, every default written out; same values, same bytes."""
        plain = self.model_dump(mode="json")
        plain["model"]["settings"] = self.generator_settings().model_dump(mode="json")
        stream = io.BytesIO()
        writer = YAML(typ="safe", pure=True)
        writer.default_flow_style = False
        writer.dump(plain, stream)
        return stream.getvalue()


def preset_names() -> tuple[str, ...]:
    """Names of the packaged presets, sorted."""
    folder = resources.files("pipelines") / "configs"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_config(
    file: Path | None = None,
    *,
    preset: str | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Resolve the configuration.

    Args:
        file: Configuration file; its `preset` key names the preset it starts from.
        preset: Preset of the command line; wins over the file's.
        flags: Dotted key to value, from the command line's flags; None values are left out.
        overrides: "a.b=value" strings; the value is read as YAML.

    Raises:
        ConfigError: A key or value cannot be used; names key, value and what is allowed.
    """
    given: dict[str, Any] = {}
    if file is not None:
        _merge(given, _read_yaml_file(file))
    for key, value in (flags or {}).items():
        if value is not None:
            _set(given, key, value)
    for override in overrides:
        key, value = _parse_override(override)
        _set(given, key, value)
    name = preset or given.pop("preset", None) or "laptop"
    given.pop("preset", None)
    resolved = _read_preset(name)
    _drop_pin_of_other_data(resolved, given)
    _merge(resolved, given)
    resolved["preset"] = name
    return _validate(resolved)


def _drop_pin_of_other_data(preset: dict[str, Any], given: Mapping[str, Any]) -> None:
    """A preset's pinned digest belongs to the preset's own data, not to what the user names."""
    if set(given.get("data", {})) - {"digest"}:
        preset.get("data", {}).pop("digest", None)


def _validate(values: dict[str, Any]) -> RunConfig:
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_describe(error, RunConfig)) from error
    try:
        settings_type = load_generator(config.model.name).Settings
    except SettingsError as error:
        raise ConfigError(str(error)) from error
    try:
        settings_type.model_validate(config.model.settings)
    except ValidationError as error:
        raise ConfigError(_describe(error, settings_type, prefix="model.settings")) from error
    return config


def _describe(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    sentences = []
    for fault in error.errors(include_url=False):
        path = [str(part) for part in fault["loc"] if not _is_union_branch(part)]
        key = ".".join([prefix, *path] if prefix else path) or "configuration"
        if fault["type"] == "extra_forbidden":
            sentences.append(f"{key}: unknown key{_nearest(path, model)}")
        elif fault["type"] == "missing":
            sentences.append(f"{key}: a value is required")
        else:
            value = repr(fault["input"])
            shown = value if len(value) <= _SCALAR_LIMIT else value[:_SCALAR_LIMIT] + "…"
            message = fault["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            sentences.append(f"{key}: {shown} cannot be used; {message}")
    return "; ".join(dict.fromkeys(sentences))


def _is_union_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part.startswith(("literal[", "tuple[")) or part in _BRANCHES)


_BRANCHES = {"float", "int", "bool", "str"}


def _nearest(path: Sequence[str], model: type[BaseModel]) -> str:
    for part in path[:-1]:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    known = list(model.model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1)
    if near:
        return f"; did you mean {'.'.join([*path[:-1], near[0]])!r}?"
    return f"; known are {', '.join(known)}"


def _read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(preset_names())}"
        raise ConfigError(f"preset: unknown preset {name!r}; {hint}")
    text = (resources.files("pipelines") / "configs" / f"{name}.yaml").read_text("utf-8")
    return _parse_yaml(text, f"preset {name}")


def _read_yaml_file(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: larger than 64 kB; expected a configuration file")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; expected a YAML configuration") from error
    return _parse_yaml(text, str(path))


def _parse_yaml(text: str, where: str) -> dict[str, Any]:
    value = _load_yaml(text, where)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected keys and values, found {type(value).__name__}")
    return value


def _load_yaml(text: str, where: str) -> Any:
    reader = YAML(typ="safe", pure=True)  # YAML 1.2: 1e-4 is a number, equal keys are refused
    try:
        if any(type(event).__name__ == "AliasEvent" for event in reader.parse(text)):
            raise ConfigError(f"{where}: YAML aliases are not accepted; write the value out")
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{where}{line}: {problem}") from error


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-o {override}: expected KEY=VALUE, e.g. -o data.planes=all")
    return key.strip(), _load_yaml(text, f"-o {key}") if text.strip() else None


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        branch = values.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{dotted}: {parent!r} holds a value, not a section")
        values = branch
    values[last] = value


def _merge(target: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
