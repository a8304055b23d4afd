"""The cohort of a set of phantoms: patients with partition, scanner, operator and images."""

from dataclasses import dataclass

import numpy as np

from medisynth.data.phantom.settings import PhantomSettings

# Shares of patients by machine and operator, of images by plane; names not chosen are left out.
_MACHINE_SHARES = {"Voluson E6": 9, "Aloka": 5, "Voluson S10": 3, "Other": 3}
_OPERATOR_SHARES = {"Op. 1": 6, "Op. 2": 6, "Op. 3": 4, "Other": 4}
_PLANE_SHARES = {"Trans-thalamic": 9, "Trans-cerebellum": 6, "Trans-ventricular": 5}

_BLOCK = 20  # patients; within each block the shares hold as exactly as whole numbers allow

# Streams of randomness. Each number names one purpose for ever.
PATIENT_STREAM, IMAGE_STREAM, BLOCK_STREAM, LEAK_STREAM = range(4)


@dataclass(frozen=True)
class PhantomImage:
    """One row of the metadata file.

    Attributes:
        name: Published form, e.g. "Patient00001_Plane3_1_of_4" (plane 3 is the brain).
        patient: Patient number, from 1.
        number: Number of the image within its patient, from 0.
        brain_plane: One of `BRAIN_PLANES`.
        operator: One of `OPERATORS`.
        machine: One of `MACHINES`.
        is_training: False for the official held-out test set.
    """

    name: str
    patient: int
    number: int
    brain_plane: str
    operator: str
    machine: str
    is_training: bool


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
    operator = _level(settings, patient, settings.operators, _OPERATOR_SHARES, 0)
    machine = _level(settings, patient, settings.machines, _MACHINE_SHARES, 1)
    return [
        PhantomImage(
            name=f"Patient{patient:05d}_Plane3_{number + 1}_of_{n_images}",
            patient=patient,
            number=number,
            brain_plane=plane,
            operator=operator,
            machine=machine,
            is_training=not is_test,
        )
        for number, plane in enumerate(planes)
    ]


def _level(
    settings: PhantomSettings,
    patient: int,
    chosen: tuple[str, ...],
    shares: dict[str, int],
    attribute: int,
) -> str:
    """Draw a patient's level of an attribute from a shuffled block of levels, in fixed shares."""
    block, place = divmod(patient - 1, _BLOCK)
    ends = np.cumsum([shares[name] for name in chosen])
    cards = np.searchsorted(ends, (np.arange(_BLOCK) + 0.5) * ends[-1] / _BLOCK)
    rng = stream(settings.seed, BLOCK_STREAM, block, attribute)
    return chosen[int(rng.permutation(cards)[place])]
