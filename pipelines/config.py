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
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from ruamel.yaml import YAML

from governance.errors import PolicyError
from governance.evidence.documents import OutputRole
from governance.policies.hazards import split_hazard
from medisynth.errors import SettingsError
from medisynth.models.registry import load_generator
from pipelines.config_text import (
    describe,
    flatten,
    merge,
    parse_override,
    parse_yaml,
    read_yaml_file,
    set_value,
)
from pipelines.errors import ConfigError
from pipelines.lineage_config import LineageConfig

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


class TrainingConfig(_Section):
    """How training is carried out; nothing here changes what is learnt, but `selection`.

    Attributes:
        commit_every: Steps between two states that a killed run can go on from.
        preview_every: Steps between two sheets of sample images; 0 draws none.
        processes: Training processes on this machine; several share every batch.
        selection: What chooses the checkpoint: "auto" is KID to the tuning images where the FID
            weights are on this machine, otherwise the generator's own objective; "objective" is
            always its own.
        repeat_steps: First steps of training that a second process repeats and is compared in; 0
            repeats none.
        repeat_tolerance: Relative difference of the two states up to which they count as equal;
            0 asks for equal bits.
    """

    commit_every: int = Field(default=200, ge=1, le=1_000_000)
    preview_every: int = Field(default=500, ge=0, le=1_000_000)
    processes: int = Field(default=1, ge=1, le=64)
    selection: Literal["auto", "objective"] = "auto"
    repeat_steps: int = Field(default=10, ge=0, le=1_000_000)
    repeat_tolerance: float = Field(default=1e-3, ge=0, le=1)


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


def authority_address(value: str) -> str:
    """A time-stamp authority's address; ValueError when it is none, or holds a password."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not value.isprintable() or " " in value:
        raise ValueError("expected the http or https address of a time-stamp authority")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user name or password in the address: every run records it")
    return value


class SigningConfig(_Section):
    """Who signs the run; without a key it is unsigned, and says so.

    Attributes:
        key: File of an Ed25519 private key, as `keygen` makes it, or a securesystemslib URI
            ("hsm:…", "gcpkms:…").
        public_key: File of the public key; needed for a URI.
        certificate: X.509 certificate of the key, for a signed copy of the PDF; None takes the
            .crt beside a key file, where there is one.
        identity: Who signs, in free words; reported as not vouched for.
        timestamp_url: Time-stamp authority (RFC 3161, http or https) that is asked for a
            time-stamp of the manifest when the run ends, signed or not; None asks none.
        timestamp_certificate: Certificate of that authority (PEM); its answer is then checked with
            it before it is kept.
    """

    key: str | None = Field(default=None, min_length=1)
    public_key: str | None = None
    certificate: str | None = None
    identity: str | None = Field(default=None, max_length=200)
    timestamp_url: str | None = None
    timestamp_certificate: str | None = Field(default=None, min_length=1)

    @field_validator("timestamp_url")
    @classmethod
    def _an_address_without_secrets(cls, value: str | None) -> str | None:
        return None if value is None else authority_address(value)


class SealConfig(_Section):
    """Where the record and the key of the sealed test set are kept.

    Attributes:
        ledger_dir: Folder of the ledgers, on storage that several workspaces share if their
            openings are to add up; None is ledger/ in the workspace.
        key_dir: Folder of the keys of encrypted test images; None is keys/ in the workspace.
    """

    ledger_dir: str | None = Field(default=None, min_length=1)
    key_dir: str | None = Field(default=None, min_length=1)

    def folder(self, name: Literal["ledger_dir", "key_dir"]) -> Path | None:
        """One of the folders as an absolute path; None where the workspace's is meant."""
        given: str | None = getattr(self, name)
        return Path(given).expanduser().resolve() if given is not None else None


class EvidenceConfig(_Section):
    """Evidence that comes from outside the run.

    Attributes:
        vulnerability_scan: Result of a scan for known vulnerabilities (pip-audit, JSON); None
            leaves P2-04 not evaluated.
        accepted_vulnerabilities: Vulnerabilities that a person accepts, as "ID: reason".
    """

    vulnerability_scan: str | None = Field(default=None, min_length=1)
    accepted_vulnerabilities: tuple[str, ...] = ()

    @field_validator("accepted_vulnerabilities", mode="before")
    @classmethod
    def _a_list_is_a_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("accepted_vulnerabilities")
    @classmethod
    def _each_has_a_reason(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _REVIEWED.fullmatch(text):
                raise ValueError(f"expected 'ID: reason', found {text[:80]!a}")
        return value

    def accepted(self) -> dict[str, str]:
        """Accepted vulnerability -> reason."""
        found = [_REVIEWED.fullmatch(text) for text in self.accepted_vulnerabilities]
        return {match[1]: match[2] for match in found if match}


def _a_number_alone(value: Any) -> Any:
    if not isinstance(value, float | int):
        raise ValueError(
            "expected a number alone: the operator is the policy's, only its limit can be set"
        )
    return value


_Limit = Annotated[float | int | bool, BeforeValidator(_a_number_alone)]


class RunConfig(_Section):
    """Everything a run depends on.

    Attributes:
        preset: Preset that the rest started from.
        seed: Seed of training, sampling and resampling.
        workspace: Folder that holds runs/, mlflow/, ledger/ and simulated data.
        compute_device: "auto" takes CUDA, then MPS, then CPU.
        criteria: Limits of policy items that differ from the project's defaults, by item id.
        declarations: File with what people declare and waive (YAML); None leaves every item that
            asks for people's word missing.
        output_role: What the synthetic images are for; compared with the declared intended use.
        hazards: Hazards beside the project's own, as "what could go wrong: P6-04, P7-H2".
    """

    preset: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    workspace: str = "."
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
    declarations: str | None = Field(default=None, min_length=1)
    output_role: OutputRole = "research"
    lineage: LineageConfig = LineageConfig()
    hazards: tuple[str, ...] = ()

    @field_validator("hazards", mode="before")
    @classmethod
    def _a_list_is_a_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("hazards")
    @classmethod
    def _hazards_name_items(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                split_hazard(text)
            except PolicyError as error:
                raise ValueError(str(error)) from error
        return value

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

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON data, every default written out."""
        plain = self.model_dump(mode="json")
        plain["model"]["settings"] = self.generator_settings().model_dump(mode="json")
        return plain

    def to_yaml(self) -> bytes:
        """The configuration as YAML, every default written out; same values, same bytes."""
        plain = self.plain()
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
        merge(given, read_yaml_file(file))
    for key, value in (flags or {}).items():
        if value is not None:
            set_value(given, key, value)
    for override in overrides:
        key, value = parse_override(override)
        set_value(given, key, value)
    name = preset or given.pop("preset", None) or "laptop"
    given.pop("preset", None)
    resolved = _read_preset(name)
    _drop_pin_of_other_data(resolved, given)
    _take_settings_of_other_model(resolved, given)
    merge(resolved, given)
    resolved["preset"] = name
    return _validate(resolved)


def read_config(data: bytes, where: str) -> RunConfig:
    """Read what `RunConfig.to_yaml` wrote.

    `where` names the file in messages.

    Raises:
        ConfigError: This version cannot use it.
    """
    config = _validate(parse_yaml(data.decode("utf-8", "replace"), where))
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
    """The configuration that arguments name, where what they leave out is as in `config`.

    With a file or a preset it is what these give, as in `load_config`.
    """
    if file is not None or preset is not None:
        return load_config(file, preset=preset, flags=flags, overrides=overrides)
    values = config.plain()
    for key, value in (flags or {}).items():
        if value is not None:
            set_value(values, key, value)
    for override in overrides:
        key, value = parse_override(override)
        set_value(values, key, value)
    return _validate(values)


def flat_config(config: RunConfig) -> dict[str, Any]:
    """Every value of a configuration by its dotted key."""
    return flatten(config.plain())


def _drop_pin_of_other_data(preset: dict[str, Any], given: Mapping[str, Any]) -> None:
    """A preset's pinned digest belongs to the preset's own data, not to what the user names."""
    if set(given.get("data", {})) - {"digest"}:
        preset.get("data", {}).pop("digest", None)


def _take_settings_of_other_model(preset: dict[str, Any], given: Mapping[str, Any]) -> None:
    """A preset has settings for its own model and, under `models`, for others by name."""
    others = preset.pop("models", {})
    name = given.get("model", {}).get("name")
    if name is not None and name != preset.get("model", {}).get("name"):
        preset["model"] = {"name": name, "settings": others.get(name, {})}


def _validate(values: dict[str, Any]) -> RunConfig:
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, RunConfig)) from error
    try:
        settings_type = load_generator(config.model.name).Settings
    except SettingsError as error:
        raise ConfigError(str(error)) from error
    try:
        settings_type.model_validate(config.model.settings)
    except ValidationError as error:
        raise ConfigError(describe(error, settings_type, prefix="model.settings")) from error
    _refuse_seal_folders(config)
    return config


def _refuse_seal_folders(config: RunConfig) -> None:
    """A data folder is never written to, and no key lies among the evidence."""
    refused = {"run folders": config.workspace_path / "runs"}
    if config.data.path is not None:
        refused["data folder"] = Path(config.data.path).expanduser().resolve()
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
    text = (resources.files("pipelines") / "configs" / f"{name}.yaml").read_text("utf-8")
    return parse_yaml(text, f"preset {name}")
