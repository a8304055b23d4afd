"""The cohort of a set of phantoms: who the patients are, partition, scanner, operator, images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medisynth.data.phantom.settings import PhantomSettings

# Shares of patients by machine and operator, of images by plane; names not chosen are left out.
_MACHINE_SHARES = {"Voluson E6": 9, "Aloka": 5, "Voluson S10": 3, "Other": 3}
_OPERATOR_SHARES = {"Op. 1": 6, "Op. 2": 6, "Op. 3": 4, "Other": 4}
_PLANE_SHARES = {"Trans-thalamic": 9, "Trans-cerebellum": 6, "Trans-ventricular": 5}

# Shares of patients in twentieths. The self-identified group, fetal sex, maternal age, site and
# country change nothing in an image. medisynth/data/phantom/target_population.yaml states the same.
_SITE_SHARES = {"Site 1": 9, "Site 2": 7, "Site 3": 4}
_COUNTRY_OF = {"Site 1": "Country A", "Site 2": "Country A", "Site 3": "Country B"}
_GROUP_SHARES = {"Group A": 11, "Group B": 6, "Group C": 3}
_SEX_SHARES = {"female": 10, "male": 10}
# Bands of numbers, the upper end excluded; within a band every value is equally likely.
_Band = tuple[float, float]
_AGE_SHARES: dict[_Band, int] = {(17, 25): 4, (25, 30): 6, (30, 35): 6, (35, 45): 4}  # years
_WEEK_SHARES: dict[_Band, int] = {(18, 22): 3, (22, 28): 9, (28, 34): 6, (34, 39): 2}
_BODY_MASS_SHARES: dict[_Band, int] = {(17, 18.5): 1, (18.5, 25): 9, (25, 30): 6, (30, 40): 4}

PERSON_COLUMNS = (
    "Site",
    "Country",
    "Maternal_age_years",
    "Gestational_age_weeks",
    "Body_mass_index",
    "Fetal_sex",
    "Self_identified_group",
)
_MAY_BE_MISSING = ("Maternal_age_years", "Body_mass_index", "Fetal_sex", "Self_identified_group")

_BLOCK = 20  # patients; within each block the shares hold as exactly as whole numbers allow

# Streams of randomness. Each number names one purpose for ever.
PATIENT_STREAM, IMAGE_STREAM, BLOCK_STREAM, LEAK_STREAM = range(4)

_Level = TypeVar("_Level")


@dataclass(frozen=True)
class SimulatedPatient:
    """One simulated pregnant woman and her fetus.

    Attributes:
        number: Patient number, from 1.
        site: Hospital.
        country: Country of the site.
        maternal_age_years: Age in completed years, 17 to 44.
        gestational_age_weeks: At the examination, with one decimal, 18 to 38.9; decides head size
            and anatomy.
        body_mass_index: Of the mother in kg/m2, with one decimal, 17 to 39.9; decides depth, gain
            and shadowing.
        fetal_sex: "female" or "male".
        group: Self-identified group.
        unrecorded: Columns of the metadata file that lack a value.
    """

    number: int
    site: str
    country: str
    maternal_age_years: int
    gestational_age_weeks: float
    body_mass_index: float
    fetal_sex: str
    group: str
    unrecorded: frozenset[str] = frozenset()

    def recorded(self) -> tuple[str, ...]:
        """Return the texts of PERSON_COLUMNS in the metadata file; "" where one is missing."""
        texts = (
            self.site,
            self.country,
            str(self.maternal_age_years),
            f"{self.gestational_age_weeks:.1f}",
            f"{self.body_mass_index:.1f}",
            self.fetal_sex,
            self.group,
        )
        return tuple(
            "" if column in self.unrecorded else text
            for column, text in zip(PERSON_COLUMNS, texts, strict=True)
        )


@dataclass(frozen=True)
class PhantomImage:
    """One row of the metadata file.

    Attributes:
        name: Published form, e.g. "Patient00001_Plane3_1_of_4" (plane 3 is the brain).
        person: Simulated patient.
        number: Number of the image within its patient, from 0.
        brain_plane: One of `BRAIN_PLANES`.
        operator: One of `OPERATORS`.
        machine: One of `MACHINES`.
        is_training: False for the official held-out test set.
    """

    name: str
    person: SimulatedPatient
    number: int
    brain_plane: str
    operator: str
    machine: str
    is_training: bool

    @property
    def patient(self) -> int:
        """Patient number, from 1."""
        return self.person.number


def stream(seed: int, *place: int) -> np.random.Generator:
    """Random generator of one place, independent of all other places and their number."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def plan_cohort(settings: PhantomSettings) -> list[PhantomImage]:
    """List every image, patients in order; a longer list starts with the shorter one."""
    images: list[PhantomImage] = []
    for patient in range(1, settings.n_patients + 1):
        images += _plan_patient(patient, settings)
    return images


def _plan_patient(patient: int, settings: PhantomSettings) -> list[PhantomImage]:
    rng = stream(settings.seed, PATIENT_STREAM, patient, 0)
    low, high = settings.min_images_per_patient, settings.max_images_per_patient
    n_images = low + int(rng.random(2).mean() * (high - low + 1))  # most often halfway
    shares = np.array([_PLANE_SHARES[plane] for plane in settings.planes], dtype=np.float64)
    shares /= shares.sum()
    # Every plane once before any plane twice.
    order = rng.choice(len(shares), size=len(shares), replace=False, p=shares)
    again = rng.choice(len(shares), size=n_images, p=shares)
    planes = [settings.planes[k] for k in [*order, *again][:n_images]]
    # The test set takes patients at even distances, so any number of them is split as asked.
    fraction = settings.test_fraction
    is_test = int(patient * fraction + 0.5) > int((patient - 1) * fraction + 0.5)
    operators = {name: _OPERATOR_SHARES[name] for name in settings.operators}
    machines = {name: _MACHINE_SHARES[name] for name in settings.machines}
    operator = _level(settings, patient, operators, 0)
    machine = _level(settings, patient, machines, 1)
    person = draw_patient(settings, patient, is_training=not is_test)
    return [
        PhantomImage(
            name=f"Patient{patient:05d}_Plane3_{number + 1}_of_{n_images}",
            person=person,
            number=number,
            brain_plane=plane,
            operator=operator,
            machine=machine,
            is_training=not is_test,
        )
        for number, plane in enumerate(planes)
    ]


def draw_patient(settings: PhantomSettings, number: int, *, is_training: bool) -> SimulatedPatient:
    """Draw one patient; attributes are independent of each other, of machine and of operator.

    Args:
        settings: With the imbalances to plant and the share of missing values.
        number: Patient number, from 1.
        is_training: Whether an imbalance of the training part concerns this patient.
    """
    site = _level(settings, number, _SITE_SHARES, 2)
    group = _level(settings, number, _GROUP_SHARES, 3)
    sex = _level(settings, number, _SEX_SHARES, 4)
    years = _level(settings, number, _AGE_SHARES, 5)
    weeks = _level(settings, number, _WEEK_SHARES, 6)
    body_mass = _level(settings, number, _BODY_MASS_SHARES, 7)
    planted = settings.imbalances
    if "site-without-group" in planted and (site, group) == ("Site 2", "Group A"):
        group = "Group B"
    if "age-band-missing-from-training" in planted and is_training and years == (35, 45):
        years = (30, 35)
    if "late-weeks-missing-from-training" in planted and is_training and weeks == (34, 39):
        weeks = (28, 34)
    rng = stream(settings.seed, PATIENT_STREAM, number, 2)
    at = rng.random(3)
    is_missing = rng.random(len(_MAY_BE_MISSING)) < settings.missing_fraction
    return SimulatedPatient(
        number=number,
        site=site,
        country=_COUNTRY_OF[site],
        maternal_age_years=int(_within(years, at[0])),
        gestational_age_weeks=_within(weeks, at[1]),
        body_mass_index=_within(body_mass, at[2]),
        fetal_sex=sex,
        group=group,
        unrecorded=frozenset(
            name for name, gone in zip(_MAY_BE_MISSING, is_missing, strict=True) if gone
        ),
    )


def _within(band: _Band, at: float) -> float:
    """Return the value at a fraction of a band, cut to one decimal: never the upper end."""
    low, high = band
    return int(10 * (low + (high - low) * at)) / 10


def _level(
    settings: PhantomSettings, patient: int, shares: Mapping[_Level, int], attribute: int
) -> _Level:
    """Draw a patient's level of an attribute from a shuffled block of levels, in fixed shares."""
    block, place = divmod(patient - 1, _BLOCK)
    levels, ends = list(shares), np.cumsum(list(shares.values()))
    cards = np.searchsorted(ends, (np.arange(_BLOCK) + 0.5) * ends[-1] / _BLOCK)
    rng = stream(settings.seed, BLOCK_STREAM, block, attribute)
    return levels[int(rng.permutation(cards)[place])]
