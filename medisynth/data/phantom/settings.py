"""Settings of a set of phantoms, their digest, and the report of what was written."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from governance.records.errors import SettingsError

SIMULATOR_VERSION = "1.1"  # raised whenever the same settings would give other bytes

MACHINES = ("Voluson E6", "Aloka", "Voluson S10", "Other")
OPERATORS = ("Op. 1", "Op. 2", "Op. 3", "Other")
BRAIN_PLANES = ("Trans-thalamic", "Trans-cerebellum", "Trans-ventricular")
LEAKS = (
    "patient-in-both",
    "duplicate-other-patient",
    "near-duplicate",
    "truncated-file",
    "text-file",
    "identifying-column",
)
IMBALANCES = (
    "site-without-group",
    "age-band-missing-from-training",
    "late-weeks-missing-from-training",
)

_MAX_PATIENTS = 99_999  # published names carry the patient in five digits
_MAX_SEED = 2**53 - 1  # whole numbers beyond this are not exact in JSON
_HEIGHTS_PX = (64, 1024)
_MAX_IMAGES = 99


@dataclass(frozen=True)
class PhantomSettings:
    """All settings that determine the bytes of a set of phantoms.

    Attributes:
        n_patients: Simulated patients, 1 to 99,999.
        seed: Origin of all randomness, 0 to 2**53 - 1. Patient k is the same for every
            `n_patients` that holds it.
        machines: Scanners to imitate, a subset of `MACHINES`; one a patient.
        operators: Operators to imitate, a subset of `OPERATORS`; one a patient, drawn
            independently of machine and partition (in the published set they are confounded).
        planes: Brain planes, a subset of `BRAIN_PLANES`.
        min_images_per_patient: Fewest images of one patient.
        max_images_per_patient: Most images of one patient; the mean is halfway.
        image_height_px: Height of a "Voluson E6" image; other machines scale with it. 64 to 1024.
        test_fraction: Share of patients in the official held-out test set, 0 to 1.
        annotations: Burn grey bar and text ("SIMULATED" first) into the image corners.
        leaks: Faults to plant, a subset of `LEAKS`.
        imbalances: Gaps to plant in whom the patients are, a subset of `IMBALANCES`.
        missing_fraction: Share of patients without a value of an attribute that may be missing,
            drawn anew for each such attribute, 0 to 1.

    Raises:
        SettingsError: A value is outside the above.
    """

    n_patients: int = 64
    seed: int = 0
    machines: tuple[str, ...] = MACHINES
    operators: tuple[str, ...] = OPERATORS
    planes: tuple[str, ...] = BRAIN_PLANES
    min_images_per_patient: int = 1
    max_images_per_patient: int = 8
    image_height_px: int = 300
    test_fraction: float = 0.4
    annotations: bool = True
    leaks: tuple[str, ...] = ()
    imbalances: tuple[str, ...] = ()
    missing_fraction: float = 0.05

    def __post_init__(self) -> None:
        _check_int("n_patients", self.n_patients, 1, _MAX_PATIENTS)
        _check_int("seed", self.seed, 0, _MAX_SEED)
        _check_int("min_images_per_patient", self.min_images_per_patient, 1, _MAX_IMAGES)
        low = self.min_images_per_patient
        _check_int("max_images_per_patient", self.max_images_per_patient, low, _MAX_IMAGES)
        _check_int("image_height_px", self.image_height_px, *_HEIGHTS_PX)
        for name in ("test_fraction", "missing_fraction"):
            fraction = _check_fraction(name, getattr(self, name))
            object.__setattr__(self, name, fraction)
        if not isinstance(self.annotations, bool):
            raise _refused("annotations", self.annotations, "true or false")
        for name, known in (
            ("machines", MACHINES),
            ("operators", OPERATORS),
            ("planes", BRAIN_PLANES),
            ("leaks", LEAKS),
            ("imbalances", IMBALANCES),
        ):
            may_be_empty = name in ("leaks", "imbalances")
            chosen = _check_names(name, getattr(self, name), known, may_be_empty=may_be_empty)
            object.__setattr__(self, name, chosen)


@dataclass(frozen=True)
class PlantedLeak:
    """One fault planted on purpose.

    Attributes:
        leak: Kind, one of `LEAKS`.
        images: Names of the images it concerns; for a copy, the source first.
        note: What was done, in one sentence.
    """

    leak: str
    images: tuple[str, ...]
    note: str

    def __str__(self) -> str:
        where = f" ({', '.join(self.images)})" if self.images else ""
        return f"{self.leak}: {self.note}{where}"


@dataclass(frozen=True)
class PhantomReport:
    """Report of a set of phantoms that was written.

    Attributes:
        root: Folder that holds the data set.
        n_images: Rows of the metadata file; each has a file.
        n_patients: Distinct patients.
        leaks: Planted faults, in the order of `LEAKS`.
    """

    root: Path
    n_images: int
    n_patients: int
    leaks: tuple[PlantedLeak, ...]


def phantom_key(settings: PhantomSettings) -> str:
    """Short digest of settings and simulator version: 12 lowercase hex digits, for folder names.

    Equal keys mean the same images, given the same versions of the libraries below.
    """
    parts = {"simulator_version": SIMULATOR_VERSION, "settings": asdict(settings)}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _refused(name: str, value: object, allowed: str) -> SettingsError:
    return SettingsError(f"phantom.{name}: {value!r} cannot be used; expected {allowed}")


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refused(name, value, f"a whole number from {low} to {high}")


def _check_fraction(name: str, value: object) -> float:
    """Return the value as a float, so that 0 and 0.0 are one setting."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise _refused(name, value, "a number from 0 to 1")


def _check_names(
    name: str, value: object, known: Sequence[str], *, may_be_empty: bool
) -> tuple[str, ...]:
    """Return the chosen names in the order of `known`, so that their order changes nothing."""
    allowed = "any of " if may_be_empty else "one or more of "
    allowed += ", ".join(map(repr, known)) + ", each once"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _refused(name, value, f"a list: {allowed}")
    unknown = [item for item in value if item not in known]
    if unknown:
        raise _refused(name, unknown[0], allowed)
    if len(set(value)) < len(value) or not (value or may_be_empty):
        raise _refused(name, list(value), allowed)
    return tuple(item for item in known if item in value)
