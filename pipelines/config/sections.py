"""The sections of a run's configuration, with their defaults and limits."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

from governance.records.credentials import has_credentials
from medisynth.data.reading.conversion import Conversion

_DISTINCT = re.compile(r"\s*([^=:]+?)\s*=\s*([^=:]+?)\s*:\s*(\S.*)")
_CHANGE = re.compile(r"(config|data|code): \S.*")
_REVIEWED = re.compile(r"\s*([^:]+?)\s*:\s*(\S.*)")
_CHANGE_FORM = "'config: NAME', 'data: NAME' or 'code: NAME', where * stands for anything"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _each(pattern: re.Pattern[str], form: str) -> AfterValidator:
    """Return a validator that every text matches `pattern`; `form` describes it in the message."""

    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not pattern.fullmatch(text):
                raise ValueError(f"expected {form}, found {text[:80]!a}")
        return value

    return AfterValidator(check)


def _reasons(texts: tuple[str, ...]) -> dict[str, str]:
    found = [_REVIEWED.fullmatch(text) for text in texts]
    return {match[1]: match[2] for match in found if match}


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]  # YAML gives a list

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def _usable_path(value: Any) -> Any:
    """Return a path as it was given; ValueError if no file or folder can be meant by it."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("names nothing; a variable of the shell that is not set leaves it empty")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    try:
        whole = Path(value).expanduser().resolve()
        is_there = os.path.lexists(whole)
    except (RuntimeError, OSError) as error:  # no such user, no home, links in a circle
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{why[:1].lower()}{why[1:].rstrip('.')}; write the path out") from error
    if not _is_text(str(whole)):
        raise ValueError(
            "the whole path has bytes that are no UTF-8 text, which records and reports cannot "
            "hold; rename that folder"
        )
    named = next(filter(None, map(_VARIABLE.fullmatch, Path(value).parts)), None)
    if named is not None and not is_there:
        name = named[1].strip("{}")
        state = "set to another value" if name in os.environ else "not set"
        raise ValueError(
            f"a configuration does not replace variables, and {name} is {state}; write the path out"
        )
    return value


def _is_text(value: str) -> bool:
    """Whether a path is UTF-8; bytes that are none stand in it as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


PathText = Annotated[str, BeforeValidator(_usable_path)]


class Section(BaseModel):
    """Base of all sections: unknown keys and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PhantomConfig(Section):
    """Simulated images, used when no data folder is given.

    Attributes:
        n_patients: Simulated patients, 8 to 20,000.
        seed: Seed of the simulator; the same seed gives the same bytes.
        image_height_px: Height of the simulated frames, 64 to 1,024.
    """

    n_patients: int = Field(default=64, ge=8, le=20_000)
    seed: int = Field(default=0, ge=0)
    image_height_px: int = Field(default=300, ge=64, le=1024)


class DataConfig(Section):
    """Which images are used, and how they are read.

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
        convert: How files that are no 8-bit grey or RGB PNG are read; goes before `convert` of a
            `dataset.yaml`. What is not asked for is refused.
        phantom: Simulated images, used when path is None.
    """

    path: PathText | None = None
    adapter: str | None = None
    planes: Literal["default", "all"] | tuple[str, ...] = "default"
    missing_images: Literal["error", "drop"] = "error"
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    fit: Literal["pad", "stretch"] = "pad"
    contract: PathText | None = None
    cache: PathText = "auto"
    convert: Conversion = Conversion()
    phantom: PhantomConfig = PhantomConfig()

    @property
    def folder(self) -> Path | None:
        """The data folder as an absolute path, links followed; None for phantoms."""
        return None if self.path is None else Path(self.path).expanduser().resolve()

    @field_validator("planes", mode="before")
    @classmethod
    def _one_plane_is_a_list_of_one(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("default", "all"):
            return (value,)
        return _as_tuple(value)


class AuditConfig(Section):
    """Settings of the data set audit.

    Attributes:
        target_population: File that declares the target population (YAML); None takes the data
            set's own, which phantoms have, and leaves the distance not evaluated where there is
            none.
        smallest_cell: Demographic cells with fewer patients are suppressed in what is written.
        n_resamples: Permutations and bootstrap samples of patients behind each interval.
        n_calibrated: Images that are copied and changed to try the search for duplicates on; 0 tries
            none.
        n_text_images: Images in which burned-in text is read, drawn evenly over machines; 0 reads
            none. "all" may take a second an image.
        distinct_pairs: Pairs of images that a person looked at and found to be different patients'
            pictures, as "left = right: reason"; they are not taken for duplicates.
        reviewed: Columns and images with identifying text that a person reviewed, as
            "name: reason"; "labels: reason" for the list of suspected labels.
    """

    target_population: PathText | None = None
    smallest_cell: int = Field(default=5, ge=1, le=1_000)
    n_resamples: int = Field(default=500, ge=100, le=100_000)
    n_calibrated: int = Field(default=24, ge=0, le=1_000)
    n_text_images: int | Literal["all"] = 60
    distinct_pairs: Annotated[Texts, _each(_DISTINCT, "'left = right: reason'")] = ()
    reviewed: Annotated[Texts, _each(_REVIEWED, "'name: reason'")] = ()

    def distinct(self) -> frozenset[tuple[str, str]]:
        """Return the pairs of ids that a person found to be different images."""
        found = [_DISTINCT.fullmatch(text) for text in self.distinct_pairs]
        return frozenset((match[1], match[2]) for match in found if match)

    def reviews(self) -> dict[str, str]:
        """Return reviewed column or image id -> reason."""
        return _reasons(self.reviewed)


class SplitConfig(Section):
    """How images are divided, always by patient (or the data set's nearest unit).

    Attributes:
        source: "official" uses the split that the data set brings, "computed" draws one, "auto"
            is official where there is one.
        test_fraction: Share of patients in a computed held-out test set.
        tuning_fraction: Share of the remaining patients set aside for tuning.
        seed: Seed of the drawing.
        on_duplicate: A group that crosses the official split stops the run, or its training
            copies are dropped, on record.
        tuning_from: Where an official split takes tuning patients from; "held-out" is for
            assessments, in which nothing is trained.
    """

    source: Literal["auto", "official", "computed"] = "auto"
    test_fraction: float = Field(default=0.3, gt=0, lt=0.9)
    tuning_fraction: float = Field(default=0.2, gt=0, lt=0.9)
    seed: int = Field(default=0, ge=0)
    on_duplicate: Literal["stop", "drop_training"] = "stop"
    tuning_from: Literal["training", "held-out"] = "training"


class ModelConfig(Section):
    """Which generator, and its settings (checked by the generator's own model)."""

    name: str = "dsr-gan"
    settings: dict[str, Any] = Field(default_factory=dict)


class TrainingConfig(Section):
    """How training is carried out; only `selection` changes the released model.

    Attributes:
        commit_every: Steps between two states that a killed run can go on from.
        preview_every: Steps between two sheets of sample images; 0 draws none.
        processes: Training processes on this machine; several share every batch.
        selection: How the checkpoint is chosen: "auto" is KID to the tuning images where the FID
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


class ExternalConfig(Section):
    """A test set from another source.

    Attributes:
        name: Name for reports, letters, digits, "-" and "_".
        data: Its folder.
        adapter: Adapter name; None detects it.
        planes: As `data.planes`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    data: PathText
    adapter: str | None = None
    planes: Literal["default", "all"] | tuple[str, ...] = "default"

    @property
    def folder(self) -> Path:
        """The folder as an absolute path, links followed."""
        return Path(self.data).expanduser().resolve()

    @field_validator("planes", mode="before")
    @classmethod
    def _one_plane_is_a_list_of_one(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("default", "all"):
            return (value,)
        return _as_tuple(value)


class EvaluationConfig(Section):
    """Settings of the evaluation of synthetic images.

    Attributes:
        n_synthetic: Synthetic images drawn and kept.
        max_real: Real images used for fidelity, drawn by patient when there are more.
        n_bootstrap: Resamples behind every interval.
        extractor: "inception" needs the FID weights; "none" leaves fidelity not evaluated.
        further_extractors: Registered feature extractors that KID is measured with besides, so
            that no verdict rests on one network.
        least_patients: Held-out patients below which a subgroup is marked "too few" and not
            measured.
        external: Test sets from other sources that the same images are compared with.
        utility: Whether classifiers are trained on real and synthetic images and compared on the
            held-out patients; needs the extractor.
    """

    n_synthetic: int = Field(default=200, ge=16, le=100_000)
    max_real: int = Field(default=200, ge=16, le=100_000)
    n_bootstrap: int = Field(default=200, ge=50, le=10_000)
    extractor: Literal["inception", "none"] = "inception"
    further_extractors: tuple[str, ...] = ("domain", "pixel-pca")
    least_patients: int = Field(default=30, ge=10, le=100_000)
    utility: bool = True
    external: tuple[ExternalConfig, ...] = ()

    @field_validator("external", "further_extractors", mode="before")
    @classmethod
    def _a_list_of_sets(cls, value: Any) -> Any:
        return _as_tuple(value)

    @field_validator("further_extractors", mode="after")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @field_validator("external", mode="after")
    @classmethod
    def _names_differ(cls, value: tuple[ExternalConfig, ...]) -> tuple[ExternalConfig, ...]:
        names = [one.name for one in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sets are named {twice[0]!r}; give each a name of its own")
        return value


class TrackingConfig(Section):
    """Mirror of the run in MLflow.

    Attributes:
        enabled: Whether to mirror the run.
        uri: Tracking server; None is an sqlite store in the workspace.
        experiment: Experiment name.
    """

    enabled: bool = True
    uri: str | None = None
    experiment: str = "medisynth-gov"


def authority_address(value: str) -> str:
    """Return the address; ValueError if it is not http(s) or holds a user name or password."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not value.isprintable() or " " in value:
        raise ValueError("expected the http or https address of a time-stamp authority")
    if parts.username is not None or has_credentials(value):
        raise ValueError("no user name, password or token in the address: every run records it")
    return value


class SigningConfig(Section):
    """Who signs the run; without a key it is unsigned and says so.

    Attributes:
        key: File of an Ed25519 private key, as `keygen` makes it, or a securesystemslib URI
            ("hsm:…", "gcpkms:…").
        public_key: File of the public key; needed for a URI.
        certificate: X.509 certificate of the key, for a signed copy of the PDF; None takes the
            .crt beside a key file, where there is one.
        identity: Who signs, free text; reported as not vouched for.
        timestamp_url: Time-stamp authority (RFC 3161, http or https) that is asked for a
            time-stamp of the manifest when the run ends, signed or not; None asks none.
        timestamp_certificate: Certificate of that authority (PEM); its answer is then checked with
            it before it is kept.
    """

    key: PathText | None = None
    public_key: PathText | None = None
    certificate: PathText | None = None
    identity: str | None = Field(default=None, max_length=200)
    timestamp_url: str | None = None
    timestamp_certificate: PathText | None = None

    @field_validator("timestamp_url")
    @classmethod
    def _an_address_without_secrets(cls, value: str | None) -> str | None:
        return None if value is None else authority_address(value)


class SealConfig(Section):
    """Where the record and the key of the sealed test set are kept.

    Attributes:
        ledger_dir: Folder of the ledgers, on storage that several workspaces share if their
            openings are to add up; None is ledger/ in the workspace.
        key_dir: Folder of the keys of encrypted test images; None is keys/ in the workspace.
    """

    ledger_dir: PathText | None = None
    key_dir: PathText | None = None

    def folder(self, name: Literal["ledger_dir", "key_dir"]) -> Path | None:
        """Return a folder as an absolute path; None for the workspace's default."""
        given: str | None = getattr(self, name)
        return Path(given).expanduser().resolve() if given is not None else None


class EvidenceConfig(Section):
    """Evidence that comes from outside the run.

    Attributes:
        vulnerability_scan: Result of a scan for known vulnerabilities (pip-audit, JSON); None
            leaves P2-04 not evaluated.
        accepted_vulnerabilities: Vulnerabilities that a person accepts, as "ID: reason".
    """

    vulnerability_scan: PathText | None = None
    accepted_vulnerabilities: Annotated[Texts, _each(_REVIEWED, "'ID: reason'")] = ()

    def accepted(self) -> dict[str, str]:
        """Return accepted vulnerability -> reason."""
        return _reasons(self.accepted_vulnerabilities)


class LineageConfig(Section):
    """Which run this one follows, and why; nothing here changes what is learnt.

    Attributes:
        parent: "auto" is the latest finished run of the same model and data set in the workspace,
            "none" says that no run came before, anything else is the id of a run of the workspace.
        reason: Why the model is trained again; a first run needs none.
        change_plan: What may change against the parent, as patterns of names, e.g. "config: seed",
            "config: training.*", "data: *"; empty for no plan.
    """

    parent: str = Field(default="auto", min_length=1)
    reason: str = Field(default="", max_length=1_000)
    change_plan: Annotated[Texts, _each(_CHANGE, _CHANGE_FORM)] = ()
